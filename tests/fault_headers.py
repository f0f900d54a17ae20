"""Kinds of fault in the headers that are read: missing, malformed and absurd."""

from __future__ import annotations

from typing import Any, Final

from tests.fault_kinds import Kind, kinds_of, status_kind
from tests.fault_spoils import answered, headers, rangeless, raw_header, said, spoiled


def _redirects() -> list[Kind]:
    kind = kinds_of(
        "Location", api="lasts", error="APIError", work="undone", store="never", status=302
    )
    places = {
        "to nowhere": "", "to itself": "/", "to another host": "http://127.0.0.1:9/x",
        "to a file": "file:///etc/passwd", "to user info": "http://a:b@127.0.0.1:9/",
        "to garbage": "http://[::1/%zz", "to 8,000 characters": "http://x.test/" + "x" * 8000,
    }  # fmt: skip
    # An answer may come from there one day, or another one from the store itself.
    effects = {"to another host": "again", "to 8,000 characters": "again", "to itself": "link"}
    return [
        kind(
            f"redirect {name}",
            said(answered(302, b"", Location=place)),
            store=effects.get(name, "never"),
        )
        for name, place in places.items()
    ]


def _times() -> list[Kind]:
    kind = kinds_of("Date", api="harmless", store="harmless")
    dates = {
        "missing": None, "garbage": "yesterday", "empty": "",
        "1970": "Thu, 01 Jan 1970 00:00:00 GMT", "year 9999": "Fri, 31 Dec 9999 23:59:59 GMT",
        "no such day": "Mon, 31 Feb 2026 25:61:61 GMT",
        "10,000 years": "Mon, 01 Jan 20000 00:00:00 GMT",
    }  # fmt: skip
    skews = {"5 minutes": 300.0, "a day": 86400.0}
    return [
        *(kind(f"Date: {name}", headers(Date=date)) for name, date in dates.items()),
        *(
            kind(f"clock {name} {way}", headers(), skew=sign * seconds)
            for name, seconds in skews.items()
            for way, sign in (("ahead", 1), ("behind", -1))
        ),
    ]


_NUMBERS: Final = {
    "missing": None, "empty": "", "garbage": "soon", "negative": "-5", "NaN": "nan",
    "infinite": "inf", "10^30": "1" + "0" * 30, "hexadecimal": "0x10", "two": "1, 2",
}  # fmt: skip


def _budgets() -> list[Kind]:
    kind = kinds_of("X-RateLimit", api="harmless", store=None)
    given = [
        kind(f"X-RateLimit-{which}: {name}", headers(**{f"X_RateLimit_{which}": value}))
        for which in ("Limit", "Remaining", "Reset")
        for name, value in _NUMBERS.items()
    ]
    odd = {
        "Limit: 0": {"Limit": "0"}, "Remaining above Limit": {"Remaining": "999999"},
        "nothing left": {"Remaining": "0"}, "Reset: 0": {"Remaining": "0", "Reset": "0"},
        "Reset: far away": {"Remaining": "0", "Reset": "9" * 10},
    }  # fmt: skip
    return given + [
        kind(f"X-RateLimit-{name}" if ":" in name else f"X-RateLimit: {name}",
             headers(**{f"X_RateLimit_{n}": v for n, v in values.items()}))
        for name, values in odd.items()
    ]  # fmt: skip


def _pauses() -> list[Kind]:
    """Retry-After, with a refusal and with a maintenance."""
    given = {
        **_NUMBERS, "0": "0", "2.5": "2.5", "date past": "Thu, 01 Jan 1970 00:00:00 GMT",
    }  # fmt: skip
    far = {"a year": "31536000", "date far": "Fri, 31 Dec 9998 23:59:59 GMT"}
    kinds = []
    for status in (429, 503):
        for name, value in {**given, **far}.items():
            sent: dict[str, Any] = {} if value is None else {"Retry_After": value}
            kinds.append(
                status_kind(
                    status,
                    f", Retry-After: {name}",
                    group="Retry-After",
                    happening=said(answered(status, **sent)),
                    # What nobody would wait for is told at once.
                    **({"api": "lasts"} if name in far else {}),
                )
            )
    return kinds


def _lengths() -> list[Kind]:
    kind = kinds_of("Content-Length")
    return [
        kind(
            "Content-Length: too large",
            spoiled(lambda a: (a if a.body else a.holding(b"{}")).using(Content_Length="99999999")),
            store="changed",
        ),
        kind(
            "Content-Length: too small",
            spoiled(lambda a: (a if a.body else a.holding(b"{}")).using(Content_Length="1")),
        ),
        *(
            kind(f"Content-Length: {name}", headers(Content_Length=value))
            for name, value in _NUMBERS.items()
            if value
        ),
        kind("Content-Length: twice", raw_header("Content-Length: 7")),
        kind("Content-Length: and chunked", raw_header("Transfer-Encoding: chunked")),
    ]


def _objects() -> list[Kind]:
    """What a store says of its object: at first, and when a body is resumed."""
    kind = kinds_of("Object", api=None, store="harmless")
    resumed = kinds_of("Object, resumed", api=None, store="again", resumed=True)
    return [
        kind("ETag: missing", headers(ETag=None)),
        kind("ETag: weak", headers(ETag='W/"1"')),
        kind("ETag: garbage", headers(ETag="no quotes, \xe9")),
        kind("ETag: MD5 of another", headers(ETag=f'"{"0" * 32}"'), store="checksum"),
        kind("Last-Modified: garbage", headers(Last_Modified="once")),
        kind("Accept-Ranges: none", headers(Accept_Ranges="none")),
        resumed("Content-Range: missing", headers(Content_Range=None)),
        resumed("Content-Range: garbage", headers(Content_Range="bytes some/all")),
        resumed("Content-Range: of words", headers(Content_Range="words 1-2/3")),
        resumed("Content-Range: backwards", headers(Content_Range="bytes 900-1/1000")),
        resumed("Content-Range: from the start", headers(Content_Range="bytes 0-499/1000")),
        resumed("Content-Range: unsatisfied", headers(Content_Range="bytes */1000")),
        resumed("Content-Range: another size", headers(Content_Range="bytes 500-999/1001"),
                store="changed"),
        resumed("ETag: another", headers(ETag='"another"'), store="changed"),
        resumed("412 to a resumption", said(answered(412)), store="unmatched"),
        resumed("416 to a resumption", said(answered(416))),
        resumed("range ignored", rangeless, store="harmless"),
    ]  # fmt: skip


HEADERS: Final[tuple[Kind, ...]] = (
    *_redirects(), *_times(), *_budgets(), *_pauses(), *_lengths(), *_objects(),
)  # fmt: skip
