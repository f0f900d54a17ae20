"""Text of the service does no harm where it is written, and stays what it is where it can."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from amigo_async.escaping import (
    document_text,
    encode_json,
    encode_xml,
    escape_html,
    escape_markdown,
    log_line,
    workflow_command,
)
from amigo_async.redact import redact

PIECES = (
    *("::", ":", "#", "##", "[", "]", "|", "\\", "`", "@", "<b>", "</b>", "&amp;", "&#35;", '"'),
    *("::error::", "##vso[task.x]1", "##[group]", "##teamcity[x]", "::stop-commands::a"),
    *("\n", "\r", "\r\n", "\x85", "\u2028", "\t", " ", "\x00", "\x1b[2J", "\x9b31m", "\x07"),
    *("\u202e", "\u2066", "\u200f", "\u200d", "\ufeff", "\ud83d", "\ude00", "\U0001f600", "\uffff"),
    *("http://h.example/", "www.h.example", "me@h.example", "%", "%0A", ",", "- ", "1. ", "a", "B"),
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4)).map("".join)
SECRET = (
    "GET https://h/k?X-Amz-Signature=hunter2hunter2 Authorization: Bearer hunter2hunter2hunter2"
)
# A busy machine is no failure.
unhurried = settings(max_examples=100)


def obeyed(text: str) -> list[str]:
    """The lines of a log that a CI system takes for a command."""
    return [
        line
        for line in text.splitlines()
        if (line.lstrip().startswith("::") and line.lstrip().find("::", 2) > 0)
        or re.search(r"##\w*\[", line)
    ]


@pytest.mark.parametrize(
    "line", [" ::error::x", "::stop-commands::x", "a ##[set-output name=x]y", "##vso[x]", "\n::a::"]
)
def test_ci_commands_are_known(line: str) -> None:
    assert obeyed(line)


@unhurried
@given(TEXTS)
@example("::a::")
@example(" ::::error::")
@example("###[x]")
def test_log_line_is_inert(text: str) -> None:
    line = log_line(text)
    assert line.isprintable()  # no control character, line break, bidi override, half an emoji
    assert len(line.splitlines()) <= 1
    assert not obeyed(line)
    assert not obeyed(f"  {line}")
    line.encode()
    assert log_line(line) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("plain  text", "plain  text"),
        ("a\x1b[31mb\r\n\tc\x07", "a\ufffd[31mb c\ufffd"),
        (" ::stop-commands::x", ": :stop-commands::x"),
        ("seen: ::error file=a::b", "seen: : :error file=a::b"),
        ("##vso[task.x]", "# #vso[task.x]"),
        ("Module::metric at [::1]:80", "Module::metric at [::1]:80"),
        ("\u202eabc", "\ufffdabc"),
        (SECRET, "GET https://h/k?*** Authorization: Bearer ***"),
    ],
)
def test_log_line_is_legible(text: str, line: str) -> None:
    assert log_line(text) == line


@unhurried
@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_annotation_is_one_command(title: str, message: list[str]) -> None:
    command = workflow_command("error", message, title=title)
    assert command.isprintable()
    match = re.fullmatch(r"::error title=([^:,]*)::(.*)", command)
    assert match is not None
    assert undone(match[1]) == log_line(title)
    assert undone(match[2]) == "\n".join(map(log_line, message))


def undone(text: str) -> str:
    """What GitHub makes of an escaped text."""
    for escape, char in (("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escape, char)
    return text


def test_an_annotation_without_a_title() -> None:
    assert workflow_command("notice", ["50%", SECRET]) == (
        "::notice::50%25%0AGET https://h/k?*** Authorization: Bearer ***"
    )


@unhurried
@given(TEXTS, TEXTS)
def test_json_round_trip(text: str, key: str) -> None:
    for indent in (0, 2):
        encoded = encode_json({"a": [text, 1, None, True, 0.5], "b": {key: text}}, indent=indent)
        assert not obeyed(encoded)
        assert all(char.isprintable() or char in "\n\xa0" or ord(char) > 0xA0 for char in encoded)
        assert not set(encoded) & set("\u202e\u2066\u2028\x85\x9b")
        for read in (json.loads(encoded), msgspec.json.decode(encoded)):
            assert read == {"a": [whole(text), 1, None, True, 0.5], "b": {whole(key): whole(text)}}
    assert len(encode_json(text).splitlines()) == 1


def whole(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", redact(text))


def test_json_keeps_ids_hides_secrets() -> None:
    value = {"id": SECRET, "run_id": SECRET, "error": SECRET, "deep": [{"x": SECRET}]}
    shown = "GET https://h/k?*** Authorization: Bearer ***"
    assert json.loads(encode_json(value)) == {
        "id": SECRET,
        "run_id": SECRET,
        "error": shown,
        "deep": [{"x": shown}],
    }


def test_json_has_finite_numbers() -> None:
    assert encode_json([float("nan"), float("-inf"), 1e300]) == "[null,null,1e300]"


RENDER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Reader(HTMLParser):
    """The tags, the attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@unhurried
@given(TEXTS)
@example("\\|")
@example("a \\")
@example("![a](http://h.example)")
@example("[a]: http://h.example")
@example("\u200b")
def test_markdown_stays_in_its_cell(text: str) -> None:
    shown = escape_markdown(text)
    assert not obeyed(shown)
    assert not obeyed(f"  {shown}")
    page = Reader(RENDER.render(f"| a | b |\n| - | - |\n| x {shown} y | z |\n\nx {shown} y\n"))
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td", "p"]
    expected = re.sub(
        "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", "\ufffd", document_text(text)
    ).replace("\u200b", "")
    words = ["x", *expected.split(), "y"]
    assert page.text.replace("\u200b", "").split() == [*"ab", *words, "z", *words]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("@me and #12", r"\@&#8203;me and \#&#8203;12"),
        ("www.h.example, http://h.example", r"www\.h.example, http\://h.example"),
        ("a | b", "a &#124; b"),
        ("The set passed.", "The set passed."),
        (SECRET, r"GET https\://h/k?\*\*\* Authorization\: Bearer \*\*\*"),
    ],
)
def test_markdown_makes_no_links(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown


@unhurried
@given(TEXTS)
def test_html_round_trip(text: str) -> None:
    escaped = escape_html(text)
    assert not obeyed(escaped)
    assert not set(escaped) & set("\u202e\u2066\u2028")
    escaped.encode()
    page = Reader(f'<p title="{escaped}">{escaped}</p>')
    assert page.tags == ["p"]
    shown = re.sub("[\u202a-\u202e\u2066-\u2069]", "\ufffd", document_text(text))
    assert page.text == shown
    assert page.values == [shown]


@unhurried
@given(TEXTS)
def test_xml_round_trip(text: str) -> None:
    root, child = ET.Element("a", value=text), ET.Element("b")
    child.text = f"x{text}"
    document = encode_xml(root, [child])
    assert not obeyed(document)
    assert not set(document) & set("\u202e\u2066\u2028")
    read = ET.fromstring(document.encode())
    assert read.get("value") == document_text(text)
    assert read[0].text == document_text(f"x{text}")


@pytest.mark.parametrize("escape", [escape_html, document_text])
def test_documents_have_no_secrets(escape: object) -> None:
    assert callable(escape)
    assert escape(SECRET) == "GET https://h/k?*** Authorization: Bearer ***"
    root, child = ET.Element("a", value=SECRET), ET.Element("b", value=SECRET)
    document = encode_xml(root, [child])
    assert document.count("GET https://h/k?***") == 2
    assert "hunter2" not in document


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x\u2028y", "##[x]"], "b": {"id": "x", "c": ["\x00"]}},
        {"type": "numerical", "threshold": float("nan")},
        {"type": "numerical", "threshold": None},
        {"id": "lone \ud800"},
        [float("inf"), {"run_id": "https://h/?x=1", "y": "text"}],
    ],
)
def test_json_is_the_same_where_nothing_is_redacted(value: Any) -> None:
    """What holds no secret takes a shorter way."""
    secret = "https://h/?X-Amz-Signature=abcdef"
    beside = encode_json([value, secret])
    assert "abcdef" not in beside
    assert beside == f'[{encode_json(value)},"https://h/?***"]'
