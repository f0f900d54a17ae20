"""From a response that says no to an error that says why, and tells no secret."""

from __future__ import annotations

import json
import pickle

import msgspec
import pytest
from multidict import CIMultiDict
from rich.pretty import pretty_repr

from amigo_async import errors
from amigo_async.protocol import requests
from amigo_async.protocol.requests import Request
from amigo_async.protocol.responses import (
    Response,
    api_error,
    decode_error,
    error_class,
    request_id,
)

ID = "a" * 24
SIGN_IN = requests.sign_in("org")
CREATE = requests.create_run("org", ID)
LIST = requests.list_runs("org", id=ID)
CANCEL = requests.cancel_run("org", ID)
ARTIFACTS = requests.artifacts_link("org", ID)
ALL = (SIGN_IN, CREATE, LIST, CANCEL, ARTIFACTS)
SECRETS = ("hunter2-secret", "tok/en+secret=")


def error_of(
    status: int,
    body: bytes | str = b"",
    headers: dict[str, str] | None = None,
    request: Request = LIST,
) -> errors.APIError:
    raw = body.encode() if isinstance(body, str) else body
    return api_error(request, Response(status, headers or {}, raw), SECRETS)


CLASSES = {
    300: errors.APIError,
    304: errors.APIError,
    307: errors.APIError,
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.BadRequestError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    405: errors.BadRequestError,
    408: errors.BadRequestError,
    409: errors.ConflictError,
    410: errors.BadRequestError,
    413: errors.BadRequestError,
    418: errors.BadRequestError,
    422: errors.ValidationError,
    429: errors.RateLimitError,
    499: errors.BadRequestError,
    500: errors.ServerError,
    501: errors.ServerError,
    502: errors.ServerError,
    503: errors.ServiceUnavailableError,
    504: errors.ServerError,
    599: errors.ServerError,
    600: errors.ServerError,
    101: errors.APIError,
}


@pytest.mark.parametrize(("status", "cls"), CLASSES.items())
@pytest.mark.parametrize("request_", ALL, ids=lambda r: r.endpoint.name)
def test_each_status_has_its_class(
    request_: Request, status: int, cls: type[errors.APIError]
) -> None:
    error = error_of(status, request=request_)
    assert error_class(status) is cls
    not_ready = status == 400 and request_ is ARTIFACTS
    assert type(error) is (errors.ArtifactsNotReadyError if not_ready else cls)
    assert (error.status, error.method, error.path) == (
        status,
        request_.endpoint.method,
        request_.path,
    )
    assert str(error).startswith(f"{request_.endpoint.method} {request_.path} answered {status}")


def test_no_status_is_without_a_class() -> None:
    for status in range(100, 1000):
        assert issubclass(error_class(status), errors.APIError)


FASTAPI = {
    "detail": [
        {"loc": ["query", "limit"], "msg": "less than 51", "type": "x", "input": "99"},
        {"loc": ["query", "id", 0], "msg": "bad pattern"},
    ]
}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        # The documented forms.
        ('{"detail": "No such set."}', "No such set."),
        (json.dumps(FASTAPI), "query.limit: less than 51; query.id.0: bad pattern"),
        ("", None),
        (
            "<html><head><title>502 Bad Gateway</title></head><body>x</body></html>",
            "502 Bad Gateway",
        ),
        ("<HTML><TITLE id=a>\n  Two\n lines </TITLE>", "Two lines"),
        ("<html><body>no title</body></html>", None),
        # Others that are met.
        ('{"message": "Forbidden"}', "Forbidden"),
        ('{"error": "nope"}', "nope"),
        ('{"detail": "", "message": "this"}', "this"),
        ('{"detail": null}', None),
        ('{"detail": []}', None),
        ('{"detail": {"code": 5}}', "{'code': 5}"),
        ('{"detail": ["a"]}', "['a']"),
        ('{"detail": 5}', "5"),
        ('{"detail": [{"loc": "body", "msg": 5}]}', "body: 5"),
        ('{"detail": [{"loc": [], "msg": "m"}]}', ": m"),
        ('{"detail": [{}]}', "None: invalid"),
        ('{"detail": [5, {"loc": ["a"], "msg": "m"}, null]}', "a: m"),
        ("{}", None),
        ("[]", None),
        ("null", "null"),
        ("[1, 2]", None),
        ('{"detail": "cut of', None),
        ("upstream connect error", "upstream connect error"),
        ("  two\r\n\tlines  ", "two lines"),
        (" \n ", None),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"detail": "\xff"}', None),
        (b"\x00", "\ufffd"),
        ("\x1b[2Jgone\x07", "\ufffd[2Jgone\ufffd"),
        (rb'{"detail": "\u202ereversed \u2028 \u0085"}', "\ufffdreversed"),
        ("x" * 1000, "x" * 300),
        (json.dumps({"detail": "y" * 1000}), "y" * 300),
    ],
)
def test_what_the_body_says(body: bytes | str, detail: str | None) -> None:
    error = error_of(400, body)
    assert error.detail == detail
    said = f": {detail.rstrip('.')}" if detail else ""
    assert str(error) == f"GET {LIST.path} answered 400{said}"


def test_long_answer_is_kept_in_part() -> None:
    detail = [{"loc": ["body"], "msg": "x" * 20_000}, {"loc": ["query"], "msg": "y"}]
    error = error_of(422, json.dumps({"detail": detail}))
    assert isinstance(error, errors.ValidationError)
    assert error.field_errors == {"body": "x" * 20_000, "query": "y"}
    assert len(error.body) == 16_384
    assert error.detail is not None
    assert len(error.detail) == 300
    assert len(str(error)) < 500


def test_field_errors() -> None:
    error = error_of(422, json.dumps(FASTAPI))
    assert isinstance(error, errors.ValidationError)
    assert error.field_errors == {"query.limit": "less than 51", "query.id.0": "bad pattern"}
    for body in ("", "<p>", '{"detail": "text"}', "[1]"):
        error = error_of(422, body)
        assert isinstance(error, errors.ValidationError)
        assert error.field_errors == {}
    assert not hasattr(error_of(400, json.dumps(FASTAPI)), "field_errors")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-request-id": ""}, None),
        ({"x-request-id": "r"}, "r"),
        ({"x-correlation-id": "c"}, "c"),
        ({"x-amzn-requestid": "a"}, "a"),
        ({"x-amz-request-id": "s"}, "s"),
        ({"x-correlation-id": "c", "x-request-id": "r"}, "r"),
        ({"x-correlation-id": "c", "x-request-id": ""}, "c"),
        ({"x-request-id": "r" * 1000}, "r" * 128),
        ({"x-request-id": "a\x1b[2J\nb"}, "a\ufffd[2J b"),
    ],
)
def test_the_request_id(headers: dict[str, str], found: str | None) -> None:
    assert request_id(headers) == found
    error = error_of(500, headers=headers)
    assert error.request_id == found
    assert (f"[request id {found}]" in str(error)) == (found is not None)


def test_headers_without_cookies() -> None:
    headers: CIMultiDict[str] = CIMultiDict(
        {"X-Request-ID": "r", "Set-Cookie": "session=hunter2", "Location": "https://h/?a=hunter2"}
    )
    error = api_error(LIST, Response(400, headers, b""))
    assert error.headers == {"x-request-id": "r", "location": "https://h/?***"}
    assert error.request_id == "r"
    assert type(error.headers) is dict


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("7", 7.0), ("99999", 99999.0), ("soon", None), ("-1", None)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    for status in (429, 503, 500):
        error = error_of(status, headers={"retry-after": value})
        assert error.retry_after == seconds
        assert ("try again in" in str(error)) == (seconds is not None)


@pytest.mark.parametrize(
    ("request_", "status", "remedy"),
    [
        (SIGN_IN, 401, "check api_key, api_key_id and user_id (AMIGO_API_KEY"),
        (SIGN_IN, 404, "check organization_id, and base_url"),
        (LIST, 401, "the token is expired, or of another organization"),
        (LIST, 403, "Simulation:GetSimulationUnitTestSetRun"),
        (LIST, 404, "base_url: it has the region"),
        (CREATE, 403, "Simulation:CreateSimulationUnitTestSetRun"),
        (CREATE, 404, "check the id of the set"),
        (CREATE, 409, "see on_conflict"),
        (CANCEL, 403, "Simulation:CancelSimulationUnitTestSetRun"),
        (ARTIFACTS, 400, "require_artifacts=True"),
        (ARTIFACTS, 403, "Organization:GetServiceHierarchicalStateMachine"),
    ],
)
def test_the_remedy_is_in_the_message(request_: Request, status: int, remedy: str) -> None:
    assert remedy in str(error_of(status, '{"detail": "no"}', request=request_))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_says_where_to(status: int) -> None:
    headers = {"location": "https://elsewhere.example/v1/?token=hunter2-secret"}
    error = error_of(status, "<html>", headers)
    assert type(error) is errors.APIError
    assert "a redirect to https://elsewhere.example/v1/?***, which is not followed" in str(error)
    assert "check base_url" in str(error)


def test_a_redirect_to_nowhere() -> None:
    assert str(error_of(304)) == f"GET {LIST.path} answered 304"


@pytest.mark.parametrize(
    "body",
    [
        b"the key is hunter2-secret",
        b'{"detail": "bad token tok/en+secret="}',
        rb'{"detail": "bad token tok\/en+secret="}',
        b"<title>hunter2-secret</title>",
        b'{"detail": {"hunter2-secret": ["tok/en+secret="]}}',
        b"?t=tok%2Fen%2Bsecret%3D",
        b"x" * 16_380 + b"hunter2-secret",
    ],
)
def test_no_secret_is_in_an_error(body: bytes) -> None:
    headers = {"x-request-id": "hunter2-secret", "x-echo": "tok/en+secret="}
    for status in (400, 401, 422, 500):
        check_no_secret(error_of(status, body, headers))
    reason = ValueError("hunter2-secret is no JSON")
    check_no_secret(decode_error(LIST, Response(200, headers, body), reason, SECRETS))


@pytest.mark.parametrize(
    "body",
    [
        rb'{"detail": "bad key \u0068unter2-secret"}',
        rb'{"detail": [{"loc": ["\u0068unter2-secret"], "msg": "tok\/en\u002bsecret="}]}',
    ],
)
def test_escaped_secrets_stay_hidden(body: bytes) -> None:
    error = error_of(422, body)
    assert error.body == body.decode()
    error.body = ""
    check_no_secret(error)


def check_no_secret(error: errors.AmigoError) -> None:
    shown = f"{error} {error!r} {vars(error)}" + pickle.dumps(error).decode("latin-1")
    assert "unter2" not in shown
    assert "hunt" not in shown
    assert "en+secret" not in shown
    assert "en%2Bsecret" not in shown


def test_a_secret_that_a_line_break_hid() -> None:
    error = api_error(LIST, Response(400, {}, b"two\nwords-secret"), ("two words-secret",))
    assert error.detail == "***"


@pytest.mark.parametrize(
    "body",
    [
        b'{"id_token": "opaque-secret"}',
        b'{"id_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl", "expires_at": 5}',
        b'{"presigned_url": "https://s/k?X-Amz-Signature=opaque-secret"}',
        rb'{"presigned_url": "https:\/\/s\/k?sig=opaque-secret"}',
    ],
)
def test_half_an_answer_hides_new_secrets(body: bytes) -> None:
    error = decode_error(SIGN_IN, Response(200, {}, body), ValueError("half"), SECRETS)
    for secret in ("opaque-secret", "eyJhbGci", "c2lnbmF0dXJl"):
        assert secret not in f"{error} {vars(error)}"
    assert error.body.startswith('{"')


def test_repr_has_no_body() -> None:
    response = Response(200, {"set-cookie": "hunter2"}, b'{"id_token": "hunter2"}')
    assert repr(response) == "<Response 200, 23 bytes>"
    assert "hunter2" not in repr((response, [response])) + pretty_repr(response)


def test_a_decode_error() -> None:
    reason = msgspec.ValidationError("Expected `object`, got `null`")
    response = Response(200, {"X-Request-Id": "r"}, b"null")
    error = decode_error(LIST, response, reason)
    assert str(error) == (
        f"GET {LIST.path} answered 200 with a body that cannot be decoded: "
        "Expected `object`, got `null` [request id r]"
    )
    assert (error.method, error.path, error.status) == ("GET", LIST.path, 200)
    assert (error.request_id, error.body) == ("r", "null")


@pytest.mark.parametrize("opening", [b"[", b'{"detail":', b'{"detail":[{"loc":['])
def test_a_body_of_any_depth(opening: bytes) -> None:
    """Whatever the depth at which decoding or showing gives up, an error comes of it."""
    closing = opening.replace(b"[", b"]").replace(b"{", b"}")[::-1]
    closing = bytes(c for c in closing if c in b"]}")
    for depth in [*range(1, 1100, 7), 5000, 100_000]:
        assert error_of(422, opening * depth + b"1" + closing * depth).status == 422
