"""Every kind of fault, and what one request that meets it comes to by the contract."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from tests.fault_spoils import (
    answered,
    body,
    chunked,
    close_after,
    close_before,
    cut,
    drip,
    headers,
    raw_header,
    reset_after,
    reset_before,
    said,
    silent_after,
    silent_before,
    spoiled,
)  # fmt: skip
from tests.fault_wire import AtConnect, Handshake, Happening

# What one faulty answer of the API means: nothing; the same request may succeed later; a lasting
# refusal; the token is not accepted; the budget is spent.
Effect: TypeAlias = Literal["harmless", "passes", "lasts", "token", "budget"]
# The same for the store: it gives more each time, or the object is to be asked for again; a fresh
# link is worth a try; the object may be late; never; it is another object; it is, or is the same
# under a weak ETag; bytes are wrong and a checksum tells; bytes are wrong and nothing tells.
StoreEffect: TypeAlias = Literal[
    "harmless", "again", "link", "late", "never", "changed", "unmatched", "checksum", "unseen"
]
# Whether the work was done, not done, or its request never sent.
Work: TypeAlias = Literal["done", "undone", "unsent"]

JSON_LIMIT: Final = 256 * 1024
SLOWER: Final = 45.0


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: What it is called in the documentation.
        group: Under which heading.
        happening: What happens on the wire.
        api: What it means to a request to the API; None where it cannot happen there.
        error: The error if it lasts.
        work: Whether the API did its work.
        store: What it means to a request to the store; None where it cannot happen there.
        status: The status that is answered, where it is another one.
        resumed: Whether it happens to the request that resumes after a body broke off.
        kept: Whether it needs connections that are kept alive.
        skew: Seconds by which the clock of the service is ahead.
        tls: What is wrong with the handshake; None where there is no TLS.
    """

    name: str
    group: str
    happening: Happening
    api: Effect | None = "passes"
    error: str = "TransportError"
    work: Work = "done"
    store: StoreEffect | None = "again"
    status: int | None = None
    resumed: bool = False
    kept: bool = False
    skew: float = 0.0
    tls: Handshake | None = None


def kinds_of(group: str, **shared: Any) -> Callable[..., Kind]:
    def kind(name: str, happening: Happening, **own: Any) -> Kind:
        return Kind(name, group, happening, **{**shared, **own})

    return kind


_LASTS: Final[dict[str, Any]] = {"api": "lasts", "store": "never"}
_HANDSHAKES: Final[dict[Handshake, dict[str, Any]]] = {
    "expired": _LASTS, "unknown authority": _LASTS, "wrong host": _LASTS, "plain": _LASTS,
    "broken off": {},
}  # fmt: skip


def _connection() -> list[Kind]:
    kind = kinds_of("Connection")
    late: dict[str, Any] = {"error": "RequestTimeoutError"}
    return [
        kind("refused", AtConnect("refused"), work="unsent"),
        kind("name not found", AtConnect("unknown"), work="unsent"),
        kind("reset before the work", reset_before, work="undone"),
        kind("closed before the work", close_before, work="undone"),
        kind("reset after the work", reset_after),
        kind("closed after the work", close_after),
        kind("reset in the head", cut("head", "reset")),
        kind("closed in the head", cut("head", "close")),
        kind("reset in the body", cut("body", "reset"), store="harmless"),
        kind("closed in the body", cut("body", "close"), store="harmless"),
        kind("silence before the work", silent_before, work="undone", **late),
        kind("silence after the work", silent_after, **late),
        kind("silence in the head", cut("head", "silence"), **late),
        kind("silence in the body", cut("body", "silence"), store="harmless", **late),
        kind("slow drip", drip(8.0), api="harmless", store="harmless"),
        kind("drip slower than allowed", drip(SLOWER), store="harmless", **late),
        *(
            kind(f"TLS: {what}", AtConnect("handshake"), work="unsent", tls=what, **effect)
            for what, effect in _HANDSHAKES.items()
        ),
        kind("idle connection closed in the race", reset_before, work="undone", kept=True),
    ]


def _protocol() -> list[Kind]:
    kind = kinds_of("Protocol")
    fine: dict[str, Any] = {"api": "harmless", "store": "harmless"}
    return [
        kind("not HTTP", said(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), work="undone"),
        kind("not HTTP, after the work", spoiled(lambda _: b"\x00\xff\x13 what?\r\n\r\n")),
        kind("HTTP/1.0", spoiled(lambda answer: answer.wire("HTTP/1.0")), **fine),
        kind(
            "HTTP/1.0 without a length",
            spoiled(lambda answer: answer.using(Content_Length=None).wire("HTTP/1.0")),
            **fine,
        ),
        kind("HTTP/9.9", spoiled(lambda answer: answer.wire("HTTP/9.9"))),
        kind(
            "early hints",
            spoiled(
                lambda answer: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer.wire()
            ),
            **fine,
        ),
        kind("chunked", spoiled(chunked), **fine),
        kind("chunked, cut", spoiled(lambda answer: chunked(answer)[:-4]), store="harmless"),
        kind(
            "chunked, no such size",
            spoiled(
                lambda answer: (
                    answer.using(Content_Length=None, Transfer_Encoding="chunked").head()
                    + b"zz\r\n"
                    + answer.body
                )
            ),
        ),
        kind("no length", headers(Content_Length=None), **fine),
        kind("more than the length", spoiled(lambda answer: answer.wire() + b"\r\nmore")),
        kind("header of 70,000 characters", raw_header("X-Long: " + "x" * 70_000)),
        kind("header without a colon", raw_header("nonsense")),
        kind("header with a null", raw_header("X-Null: a\0b")),
    ]


def _bodies() -> list[Kind]:
    kind = kinds_of("Body", error="DecodeError", store="checksum")
    page = b"<html><title>Welcome to the airport</title><h1>Sign in</h1></html>"
    huge = b" " * (JSON_LIMIT + 1) + b"{}"
    bytes_: dict[str, Any] = {"Content_Encoding": "gzip"}
    shape: dict[str, Any] = {"api": "lasts"}
    return [
        kind("empty", body(b"")),
        kind("half of it", spoiled(lambda a: a.holding(a.body[: len(a.body) // 2]))),
        kind("garbage", body(b"\x00\x01garbage\xfe")),
        kind("UTF-16", body('{"detail": 1}'.encode("utf-16"))),
        kind("HTML", body(page, Content_Type="text/html")),
        kind(
            "page of an interceptor",
            said(answered(200, page, Content_Type="text/html")),
            work="undone",
            store="unseen",
        ),
        kind("JSON of another shape", body(b'{"else": 1}'), **shape),
        kind("JSON null", body(b"null"), **shape),
        kind("JSON nested 50,000 deep", body(b'{"a":' * 50_000)),
        kind("JSON twice", spoiled(lambda a: a.holding((a.body or b"{}") * 2))),
        kind("larger than allowed", body(huge), api="lasts"),
        kind("larger than allowed once unpacked", body(gzip.compress(huge), **bytes_), api="lasts"),
        kind("gzip claimed, and is none", headers(**bytes_), store="harmless"),
        kind("gzip broken off", body(gzip.compress(b'{"detail": 1}')[:-9], **bytes_)),
        kind(
            "encoding of another world",
            headers(Content_Encoding="klingon"),
            api="harmless",
            store="harmless",
        ),
        kind(
            "text/html claimed", headers(Content_Type="text/html"), api="harmless", store="harmless"
        ),
        kind("no content type", headers(Content_Type=None), api="harmless", store="harmless"),
        kind(
            "content type of garbage",
            headers(Content_Type=";;=\xff/;charset=nope"),
            api="harmless",
            store="harmless",
        ),
    ]


_ERRORS: Final = {
    400: "BadRequestError", 401: "AuthenticationError", 403: "ForbiddenError",
    404: "NotFoundError", 409: "ConflictError", 422: "ValidationError", 429: "RateLimitError",
    503: "ServiceUnavailableError",
}  # fmt: skip
_LASTING_5XX: Final = (501, 505)


def error_of(status: int) -> str:
    if status >= 500:
        return _ERRORS.get(status, "ServerError")
    return _ERRORS.get(status, "BadRequestError") if status >= 400 else "APIError"


def effect_of(status: int) -> Effect:
    if status == 401:
        return "token"
    if status == 429:
        return "budget"
    return "passes" if status == 408 or (status >= 500 and status not in _LASTING_5XX) else "lasts"


def store_effect_of(status: int) -> StoreEffect:
    if status in (400, 401, 403):
        return "link"
    if status == 404:
        return "late"
    return "again" if status in (408, 425, 429) or status >= 500 else "never"


def status_kind(status: int, name: str = "", **own: Any) -> Kind:
    shared: dict[str, Any] = {
        "happening": said(answered(status)), "api": effect_of(status), "error": error_of(status),
        "work": "undone", "store": store_effect_of(status), "status": status, "group": "Status",
    }  # fmt: skip
    return Kind(f"{status}{name}", **{**shared, **own})


def _statuses() -> list[Kind]:
    plain = [
        300, 301, 302, 303, 304, 307, 308,
        400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417,
        418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499,
        500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 520, 522, 599, 999,
    ]  # fmt: skip
    html = b"<html><head><title>502 Bad Gateway</title></head></html>"

    def after(status: int) -> Happening:
        return spoiled(lambda answer: replace(answer.holding(b"oops"), status=status).wire())

    return [
        *map(status_kind, plain),
        status_kind(502, ", HTML", happening=said(answered(502, html, Content_Type="text/html"))),
        status_kind(500, ", no body", happening=said(answered(500, b""))),
        status_kind(422, ", garbage", happening=said(answered(422, b'{"detail": [{"loc": 1}, 2'))),
        status_kind(500, " after the work", happening=after(500), work="done"),
        status_kind(504, " after the work", happening=after(504), work="done"),
        status_kind(408, " after the work", happening=after(408), work="done"),
    ]


PLAIN: Final[tuple[Kind, ...]] = (*_connection(), *_protocol(), *_bodies(), *_statuses())
