"""What must not be shown is not."""

from __future__ import annotations

import copy
import html
import json
import pickle
import reprlib
import traceback
from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from amigo_async.redact import MASK, Secret, SecretUrl, masked, redact, redact_body

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl_-x"
# What is written in another way by each of those who escape something.
ODD = "k3y \"&<'>/\\\\+%=?#.*[$"
SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=8
)


def test_a_secret_is_used_as_it_is() -> None:
    secret = Secret("key")
    assert (secret, str(secret), f"{secret}", secret + "!") == ("key", "key", "key", "key!")
    assert hash(secret) == hash("key")
    assert secret.encode() == b"key"


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret("hunter2hunter2")),
        ascii(Secret("hunter2hunter2")),
        f"{Secret('hunter2hunter2')!r}",
        "%r" % Secret("hunter2hunter2"),  # noqa: UP031  # one more way to ask for it
        repr({"Authorization": Secret("hunter2hunter2")}),
        repr([(Secret("hunter2hunter2"),)]),
        repr(copy.deepcopy(Secret("hunter2hunter2"))),
        repr(pickle.loads(pickle.dumps(Secret("hunter2hunter2")))),
    ],
)
def test_a_secret_is_shown_as_a_mask(shown: str) -> None:
    assert "hunter2" not in shown
    assert f"'{MASK}'" in shown


def test_traceback_locals_hide_secrets() -> None:
    def fails() -> None:
        key, url = Secret("hunter2"), SecretUrl("https://s/key?X-Amz-Signature=hunter2")
        raise ValueError(len(key) + len(url))

    try:
        fails()
    except ValueError as error:
        caught = traceback.TracebackException.from_exception(error, capture_locals=True)
    # This frame has the source, so only the one that failed is of interest.
    assert caught.stack[-1].locals is not None
    assert caught.stack[-1].locals["key"] == f"'{MASK}'"
    assert "hunter2" not in repr(caught.stack[-1].locals)


def test_a_part_of_a_secret_is_a_secret() -> None:
    """What shows local variables cuts long strings off, and then shows the part."""
    token = Secret("hunter2" * 20)
    assert repr(token[:80]) == repr(token[3]) == f"'{MASK}'"
    assert token[:7] == "hunter2"
    assert "hunter2" not in pretty_repr({"token": token}, max_string=80)
    assert "hunter2" not in reprlib.repr([token])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("?hunter2", "?***"),
        ("/key.zip?hunter2", "/key.zip?***"),
        ("ftp://user:hunter2@host/key?hunter2", "ftp://host/key?***"),
        ("https://host/key#hunter2", "https://host/key?***"),
        ("https://[?hunter2", "https://[?***"),
        ("https://host/key", "https://host/key"),
        ("", ""),
    ],
)
def test_part_of_a_secret_url(url: str, shown: str) -> None:
    assert repr(SecretUrl(url)) == repr(shown)


def test_only_strings_are_masked() -> None:
    shown = repr(masked({"a": "hunter2", "b": {"c": "hunter2"}, "d": 1, "e": None}))
    assert shown == "{'a': '***', 'b': {'c': '***'}, 'd': 1, 'e': None}"


def test_secret_url_has_no_query() -> None:
    url = SecretUrl("https://store.example/key.zip?X-Amz-Signature=abc&X-Amz-Date=1")
    assert repr(url) == f"'https://store.example/key.zip?{MASK}'"
    assert str(url).endswith("X-Amz-Date=1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("nothing to hide", "nothing to hide"),
        ("https://h/p", "https://h/p"),
        ("https://h/p?a=1", "https://h/p?***"),
        ("HTTPS://h/p?a=1", "HTTPS://h/p?***"),
        ("(see https://h/p?a=1)", "(see https://h/p?***)"),
        ("'https://h/p?a=1' and \"http://i/?b\"", "'https://h/p?***' and \"http://i/?***\""),
        (
            "to https://h/p?***, then https://h/?***; ***",
            "to https://h/p?***, then https://h/?***; ***",
        ),
        ("https://h/p?***,a=1", "https://h/p?***"),
        ("https://user:pass@h/p", "https://h/p"),
        ("https://user:pass@h/p?a", "https://h/p?***"),
        ("https://h/p?a=1#x", "https://h/p?***"),
        ("<Url>https://h/p?a=1&amp;b=2</Url>", "<Url>https://h/p?***</Url>"),
        (r'{"u":"https:\/\/h\/p?sig=abc"}', r'{"u":"https:\/\/h\/p?***"}'),
        ("/p?X-Amz-Signature=abc&X-Amz-Date=2", "/p?X-Amz-Signature=***&X-Amz-Date=***"),
        ("x-amz-security-token=abc", "x-amz-security-token=***"),
        ("?AWSAccessKeyId=A&Signature=s&x=1", "?AWSAccessKeyId=***&Signature=***&x=1"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        ("X-Goog-Credential=abc", "X-Goog-Credential=***"),
        ("AWSAccessKeyId=abc", "AWSAccessKeyId=***"),
        ("basic QUJDREVGR0hJSktMTU5PUA==", "basic ***"),
        ("the bearer of good news", "the bearer of good news"),
        (f"token {JWT}.", f"token {MASK}"),
        (f'{{"id_token": "{JWT}"}}', '{"id_token": "***"}'),
        ('{"id_token":"opaque","expires_at":null}', '{"id_token":"***","expires_at":null}'),
        (r'{"id_token" : "a\"b"}', '{"id_token" : "***"}'),
        ('{"id_token":"cut of', '{"id_token":"***'),
        ('{"id_token":""}', '{"id_token":""}'),
        ("eyJ is how JSON begins in base64", "eyJ is how JSON begins in base64"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        ("a key here", ["key"], "a *** here"),
        ("a key here", [], "a key here"),
        ("a key here", [""], "a key here"),
        ("a key here", ["", "key"], "a *** here"),
        ("abc abcdef", ["abc", "abcdef"], "*** ***"),
        (r"a\/b+c", ["a/b+c"], "***"),
        ("x=a%2Fb%2Bc", ["a/b+c"], "x=***"),
        ("lone \ud800", ["\ud800"], "lone ***"),
        (json.dumps(ODD), [ODD], '"***"'),
        (json.dumps(ODD).replace("/", r"\/"), [ODD], '"***"'),
        (html.escape(ODD), [ODD], "***"),
        (repr(ODD.encode()), [ODD], "b'***'"),
        (repr(ODD), [ODD], "'***'"),
        (b64encode(ODD.encode()).decode(), [ODD], "***"),
        (quote_plus(ODD), [ODD], "***"),
        (quote(ODD, safe="").lower(), [ODD], "***"),
    ],
)
def test_given_secrets_are_masked(text: str, secrets: list[str], expected: str) -> None:
    assert redact(text, secrets) == expected


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "X-Amz-",
        "https://",
        "https://a@",
        "Bearer ",
        "eyJ",
        "-eyJ",
        ".eyJaaaaaaaa.a",
        "https://?***",
        "Signature=",
        "Bearer                  ",
        '"id_token"  ',
        '"id_token":"',
    ],
)
def test_hostile_text_takes_one_pass(piece: str) -> None:
    """With a pass for each repeat this would take longer than any test may."""
    text = piece * (1_000_000 // len(piece))
    assert len(redact(text, ["not in there"])) <= len(text) + len(MASK)


def test_body_is_kept_but_for_secrets() -> None:
    body = b'{"a":"https://h/k?X-Amz-Signature=x","b":"key","c":"12345678 123456789"}'
    assert redact_body(body, ["key", ""]) == body
    assert redact_body(body, ["12345678", "123456789"]) == body.replace(
        b"12345678 123456789", b"*** ***"
    )
