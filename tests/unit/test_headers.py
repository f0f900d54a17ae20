"""Headers that say when: read where they make sense, left alone where they do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.protocol.headers import (
    RateLimitHeaders,
    read_date,
    read_rate_limit,
    read_retry_after,
)

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
SECONDS = 784111777.0
NONSENSE = [
    *("", " ", "-1", "-0", "+5", "nan", "inf", "Infinity", "1e3", "0x10", "1_000", "1,5", "1 2"),
    *(".", ".5", "٣", "1" * 21, "9" * 400, "1.2.3", "soon", "\0", "\ud800", "5s", "--5"),
]


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0.0), ("5", 5.0), ("1.5", 1.5), ("5.", 5.0), (" 5 ", 5.0), ("007", 7.0), ("0.0", 0.0)],
)
def test_seconds_to_wait(text: str, number: float) -> None:
    assert read_retry_after({"retry-after": text}) == number


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_no_wait(text: str) -> None:
    assert read_retry_after({"retry-after": text}) is None
    assert read_retry_after({"retry-after": text, "date": DATE}) is None


def test_no_header_no_wait() -> None:
    assert read_retry_after({}) is None
    assert read_retry_after({"date": DATE}) is None


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun Nov  6 08:50:07 1994", 30.0),
        ("Sun, 06 Nov 1994 09:50:07 +0100", 30.0),
    ],
)
def test_date_counts_from_servers_date(until: str, seconds: float) -> None:
    assert read_retry_after({"retry-after": until, "date": DATE}) == seconds


def test_date_counts_from_our_clock() -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    wait = read_retry_after({"retry-after": format_datetime(soon, usegmt=True)})
    assert wait is not None
    assert 3500 < wait <= 3600
    assert read_retry_after({"retry-after": DATE}) == 0.0
    assert read_retry_after({"retry-after": DATE, "date": "garbage"}) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *(DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"),
        *("06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 10:49:37 +0200"),
    ],
)
def test_every_form_of_a_date(text: str) -> None:
    assert read_date({"date": text}) == SECONDS


@pytest.mark.parametrize(
    "text",
    [
        *("", "today", "0", "1994", "06 Nov", "Sun, 99 Nov 1994 08:49:37 GMT", "\0", "x" * 65),
        *("Sun, 06 Nov 1994 25:49:37 GMT", "1 Jan 1969 00:00:00 GMT", "1 Jan 9999 00:00:00 GMT"),
        *("Sun, 06 Nov 1994 08:49:37 +9999", "1 Jan 10000 00:00:00"),
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert read_date({"date": text}) is None


def test_without_a_date() -> None:
    assert read_date({}) is None


def rate_headers(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        "x-ratelimit-limit": limit,
        "x-ratelimit-remaining": remaining,
        "x-ratelimit-reset": reset,
    }


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (("50", "49", "1767355200"), RateLimitHeaders(50, 49, 1767355200.0)),
        (("50", "0", "1767355200.25"), RateLimitHeaders(50, 0, 1767355200.25)),
        (("50.0", "49.0", "0"), RateLimitHeaders(50, 49, 0.0)),
        (("50.9", "49.9", "1"), RateLimitHeaders(50, 49, 1.0)),
        (("5", "9", "1"), RateLimitHeaders(5, 5, 1.0)),  # never more left than there are
        (("1", "0.5", "1"), RateLimitHeaders(1, 0, 1.0)),
        (("0", "0", "1"), None),
        (("0.9", "0", "1"), None),
        *((("50", "49", bad), None) for bad in NONSENSE),
        *((("50", bad, "1"), None) for bad in NONSENSE),
        *(((bad, "49", "1"), None) for bad in NONSENSE),
    ],
)
def test_rate_limits(headers: tuple[str, str, str], expected: RateLimitHeaders | None) -> None:
    assert read_rate_limit(rate_headers(*headers)) == expected


@pytest.mark.parametrize("missing", list(rate_headers("50", "49", "1")))
def test_rate_limit_is_whole_or_none(missing: str) -> None:
    headers = rate_headers("50", "49", "1")
    del headers[missing]
    assert read_rate_limit(headers) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001  # UTC is put on
def test_every_http_date_is_read(instant: datetime) -> None:
    instant = instant.replace(microsecond=0, tzinfo=UTC)
    text = format_datetime(instant, usegmt=True)
    assert read_date({"date": text}) == instant.timestamp()
