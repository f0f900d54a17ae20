"""Every kind of fault, and the rows of FAULTS.md that say what comes of it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tests.faults.wire import (
    AtConnect,
    Handshake,
    Happening,
    answered,
    body,
    broken,
    changed,
    chunked,
    drip,
    headers,
    rangeless,
    raw_header,
    said,
)

JSON_LIMIT: Final = 256 * 1024

# The row of both tables of FAULTS.md for what does no harm.
FINE: Final = "No effect"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: What it is called where a test fails.
        api: Its row in the table of the API; None where it cannot happen there.
        store: Its row in the table of the store; None where it cannot happen there.
        happening: What happens on the wire.
        handled: Whether the API handled the request.
        resumed: Whether it happens to the request that resumes after a body broke off.
        kept_alive: Whether it needs connections that are kept alive.
        skew: Seconds by which the clock of the service is ahead.
        tls: What is wrong with the handshake; None where there is no TLS.
    """

    name: str
    api: str | None
    store: str | None
    happening: Happening
    handled: bool = True
    resumed: bool = False
    kept_alive: bool = False
    skew: float = 0.0
    tls: Handshake | None = None


def _connection() -> Iterator[Kind]:
    yield Kind("refused", "No connection", "No answer", AtConnect("refused"), handled=False)
    yield Kind("name not found", "No connection", "No answer", AtConnect("unknown"), handled=False)
    handshakes: tuple[Handshake, ...] = ("expired", "unknown authority", "wrong host", "plain")
    bad = Kind("", "Bad certificate", "Other refusal", AtConnect("handshake"), handled=False)
    for tls in handshakes:
        yield replace(bad, name=f"TLS {tls}", tls=tls)
    yield replace(
        bad, name="TLS broken off", tls="broken off", api="No connection", store="No answer"
    )
    for how in ("reset", "close", "silence"):
        for where in ("before", "after", "head", "body"):
            row = "No answer in time" if how == "silence" else "Connection lost"
            store = "Body breaks off" if where == "body" else "No answer"
            handled = where != "before"
            yield Kind(f"{how} {where}", row, store, broken(where, how), handled=handled)
    yield Kind("slow drip", FINE, FINE, drip(8.0))
    yield Kind("drip slower than allowed", "No answer in time", FINE, drip(45.0))
    idle = broken("before", "reset")
    yield replace(
        Kind("", "Connection lost", "No answer", idle, handled=False),
        name="idle connection closed",
        kept_alive=True,
    )


def _protocol() -> Iterator[Kind]:
    fine = {
        "HTTP/1.0": changed(lambda a: a.wire("HTTP/1.0")),
        "HTTP/1.0 without a length": changed(
            lambda a: a.using(Content_Length=None).wire("HTTP/1.0")
        ),
        "early hints": changed(lambda a: b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" + a.wire()),
        "chunked": changed(chunked),
        "no length": headers(Content_Length=None),
    }
    for name, happening in fine.items():
        yield Kind(name, FINE, FINE, happening)
    yield Kind(
        "not HTTP",
        "Connection lost",
        "No answer",
        said(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        handled=False,
    )
    yield Kind(
        "chunked, cut", "Connection lost", "Body breaks off", changed(lambda a: chunked(a)[:-4])
    )
    lost = {
        "not HTTP, handled": changed(lambda _: b"\x00\xff\x13 what?\r\n\r\n"),
        "HTTP/9.9": changed(lambda a: a.wire("HTTP/9.9")),
        "chunk without a size": changed(
            lambda a: (
                a.using(Content_Length=None, Transfer_Encoding="chunked").head()
                + b"zz\r\n"
                + a.body
            )
        ),
        "more than the length": changed(lambda a: a.wire() + b"\r\nmore"),
        "header of 70,000 characters": raw_header("X-Long: " + "x" * 70_000),
        "header without a colon": raw_header("nonsense"),
        "header with a null": raw_header("X-Null: a\0b"),
        "Content-Length: too small": changed(lambda a: a.with_a_body().using(Content_Length="1")),
        "Content-Length: twice": raw_header("Content-Length: 7"),
        "Content-Length: and chunked": raw_header("Transfer-Encoding: chunked"),
        **{
            f"Content-Length: {name}": headers(Content_Length=value)
            for name, value in _NUMBERS.items()
            if value
        },
    }
    for name, happening in lost.items():
        yield Kind(name, "Connection lost", "No answer", happening)
    long = changed(lambda a: a.with_a_body().using(Content_Length="99999999"))
    yield Kind("Content-Length: too large", "Connection lost", "Another object", long)


def _bodies() -> Iterator[Kind]:
    page = b"<html><title>Welcome to the airport</title><h1>Sign in</h1></html>"
    huge = b" " * (JSON_LIMIT + 1) + b"{}"
    unreadable = {
        "empty": body(b""),
        "half of it": changed(lambda a: a.holding(a.body[: len(a.body) // 2])),
        "garbage": body(b"\x00\x01garbage\xfe"),
        "UTF-16": body('{"detail": 1}'.encode("utf-16")),
        "HTML": body(page, Content_Type="text/html"),
        "JSON nested 50,000 deep": body(b'{"a":' * 50_000),
        "JSON twice": changed(lambda a: a.holding((a.body or b"{}") * 2)),
        "gzip broken off": body(gzip.compress(b'{"detail": 1}')[:-9], Content_Encoding="gzip"),
    }
    for name, happening in unreadable.items():
        yield Kind(name, "Unreadable success", "Wrong bytes", happening)
    yield Kind(
        "gzip claimed, and is none", "Unreadable success", FINE, headers(Content_Encoding="gzip")
    )
    portal = answered(200, page, Content_Type="text/html")
    yield Kind("page of an interceptor", "Page of a portal", "Wrong object", portal, handled=False)
    yield Kind("JSON of another shape", "Other JSON", "Wrong bytes", body(b'{"else": 1}'))
    yield Kind("JSON null", "Other JSON", "Wrong bytes", body(b"null"))
    yield Kind("larger than allowed", "Too large", "Wrong bytes", body(huge))
    packed = body(gzip.compress(huge), Content_Encoding="gzip")
    yield Kind("larger than allowed once unpacked", "Too large", "Wrong bytes", packed)
    fine = {
        "encoding of another world": headers(Content_Encoding="klingon"),
        "text/html claimed": headers(Content_Type="text/html"),
        "no content type": headers(Content_Type=None),
        "content type of garbage": headers(Content_Type=";;=\xff/;charset=nope"),
    }
    for name, happening in fine.items():
        yield Kind(name, FINE, FINE, happening)


_REFUSALS: Final = (
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418,
    421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507,
    508, 510, 511, 520, 522, 599, 999,
)  # fmt: skip
_ROWS: Final = {
    **{status: f"{status}" for status in (400, 401, 403, 404, 408, 409, 422, 429, 503)},
    501: "501, 505", 505: "501, 505",
}  # fmt: skip


def _status(status: int, also: str, happening: Happening, *, handled: bool = False) -> Kind:
    store = "Other refusal"
    if status in (400, 401, 403):
        store = "Link refused"
    elif status in (408, 425, 429) or status >= 500:
        store = "No answer"
    elif status == 404:
        store = "404"
    row = _ROWS.get(status, "Other 5xx" if status >= 500 else "Other 4xx")
    return Kind(f"{status}{also}", row, store, happening, handled)


def _statuses() -> Iterator[Kind]:
    for status in (300, 301, 302, 303, 304, 307, 308):
        yield Kind(f"{status}", "Redirect", "Other refusal", answered(status), handled=False)
    for status in _REFUSALS:
        yield _status(status, "", answered(status))
    html = b"<html><head><title>502 Bad Gateway</title></head></html>"
    yield _status(502, ", HTML", answered(502, html, Content_Type="text/html"))
    yield _status(500, ", no body", answered(500, b""))
    yield _status(422, ", garbage", answered(422, b'{"detail": [{"loc": 1}, 2'))
    for status in (408, 500, 504):
        oops = changed(lambda a, to=status: replace(a.holding(b"oops"), status=to))  # type: ignore[misc]
        yield _status(status, ", handled", oops, handled=True)


def _redirects() -> Iterator[Kind]:
    # The store itself, which refuses the link; hosts that may answer one day; the others never.
    places = {
        "to itself": ("/", "Link refused"),
        "to another host": ("http://127.0.0.1:9/x", "No answer"),
        "to 8,000 characters": ("http://x.test/" + "x" * 8000, "No answer"),
        "to nowhere": ("", "Other refusal"),
        "to a file": ("file:///etc/passwd", "Other refusal"),
        "to user info": ("http://a:b@127.0.0.1:9/", "Other refusal"),
        "to garbage": ("http://[::1/%zz", "Other refusal"),
    }
    for name, (place, store) in places.items():
        happening = answered(302, b"", Location=place)
        yield Kind(f"redirect {name}", "Redirect", store, happening, handled=False)


_NUMBERS: Final = {
    "missing": None, "empty": "", "garbage": "soon", "negative": "-5", "NaN": "nan",
    "infinite": "inf", "10^30": "1" + "0" * 30, "hexadecimal": "0x10", "two": "1, 2",
}  # fmt: skip


def _times() -> Iterator[Kind]:
    dates = {
        "missing": None, "garbage": "yesterday", "empty": "",
        "1970": "Thu, 01 Jan 1970 00:00:00 GMT", "year 9999": "Fri, 31 Dec 9999 23:59:59 GMT",
        "no such day": "Mon, 31 Feb 2026 25:61:61 GMT",
        "10,000 years": "Mon, 01 Jan 20000 00:00:00 GMT",
    }  # fmt: skip
    for name, date in dates.items():
        yield Kind(f"Date: {name}", FINE, FINE, headers(Date=date))
    for skew in (300.0, -300.0, 86400.0, -86400.0):
        yield Kind(f"clock ahead by {skew:.0f} s", FINE, FINE, headers(), skew=skew)


def _rate_limits() -> Iterator[Kind]:
    odd: dict[str, dict[str, str | None]] = {
        "Limit: 0": {"Limit": "0"}, "Remaining above Limit": {"Remaining": "999999"},
        "nothing left": {"Remaining": "0"}, "Reset: 0": {"Remaining": "0", "Reset": "0"},
        "Reset: far away": {"Remaining": "0", "Reset": "9" * 10},
    }  # fmt: skip
    for which in ("Limit", "Remaining", "Reset"):
        odd |= {f"{which}: {name}": {which: value} for name, value in _NUMBERS.items()}
    for name, values in odd.items():
        sent = {f"X_RateLimit_{which}": value for which, value in values.items()}
        yield Kind(f"X-RateLimit {name}", FINE, None, headers(**sent))
    waits = {
        **_NUMBERS, "0": "0", "2.5": "2.5", "date past": "Thu, 01 Jan 1970 00:00:00 GMT",
    }  # fmt: skip
    too_long = {"a year": "31536000", "date far": "Fri, 31 Dec 9998 23:59:59 GMT"}
    for status in (429, 503):
        for name, wait in {**waits, **too_long}.items():
            given: dict[str, str] = {} if wait is None else {"Retry_After": wait}
            kind = _status(status, f", Retry-After: {name}", answered(status, b"", **given))
            yield replace(kind, api=f"{status}, long wait") if name in too_long else kind


def _objects() -> Iterator[Kind]:
    """What a store says of its object: at first, and when a body is resumed."""
    first = {
        "ETag: missing": (headers(ETag=None), FINE),
        "ETag: weak": (headers(ETag='W/"1"'), FINE),
        "ETag: garbage": (headers(ETag="no quotes, \xe9"), FINE),
        "ETag: MD5 of another": (headers(ETag=f'"{"0" * 32}"'), "Wrong ETag"),
        "Last-Modified: garbage": (headers(Last_Modified="once"), FINE),
        "Accept-Ranges: none": (headers(Accept_Ranges="none"), FINE),
    }
    resumed = {
        "Content-Range: missing": (headers(Content_Range=None), FINE),
        "Content-Range: another size": (
            headers(Content_Range="bytes 500-999/1001"),
            "Another object",
        ),
        "ETag: another": (headers(ETag='"another"'), "Another object"),
        "412 to a resumption": (answered(412), "412"),
        "416 to a resumption": (answered(416), "Useless resumption"),
        "range ignored": (rangeless, FINE),
    }
    for value in ("bytes some/all", "words 1-2/3", "bytes 900-1/1000", "bytes 0-499/1000",
                  "bytes */1000"):  # fmt: skip
        resumed[f"Content-Range: {value}"] = (headers(Content_Range=value), FINE)
    for name, (happening, row) in first.items():
        yield Kind(name, None, row, happening)
    for name, (happening, row) in resumed.items():
        yield Kind(name, None, row, happening, resumed=True)


# They differ in more than a number or the value of a header.
VARIED: Final = (*_connection(), *_protocol(), *_bodies())
KINDS: Final = (
    *VARIED, *_statuses(), *_redirects(), *_times(), *_rate_limits(), *_objects(),
)  # fmt: skip
