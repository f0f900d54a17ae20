"""Parse the headers Date, Retry-After and X-RateLimit-*."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from msgspec import Struct

# Longer delays, in seconds, count as a broken header. The rate-limit windows are a minute, and
# maintenance may take most of an hour.
LONGEST_WAIT = 3600.0

_NUMBER = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{0,20})?)\s*")
_YEAR_9999 = 253_370_764_800.0


class RateLimitHeaders(Struct, frozen=True, gc=False):
    """The ``X-RateLimit-*`` headers of a response.

    Attributes:
        limit: Requests per window.
        remaining: Requests left in this window.
        reset: When the window ends, in seconds since the epoch on the server's clock.
    """

    limit: int
    remaining: int
    reset: float


@lru_cache(maxsize=256)  # limits, resets and small counts recur
def _number(text: str | None) -> float | None:
    """An integer or decimal in plain digits; None for anything else."""
    match = _NUMBER.fullmatch(text or "")
    return None if match is None else float(match[1])


def read_rate_limit(headers: Mapping[str, str]) -> RateLimitHeaders | None:
    """The three ``X-RateLimit-*`` headers; None if one is missing or invalid."""
    limit = _number(headers.get("x-ratelimit-limit"))
    remaining = _number(headers.get("x-ratelimit-remaining"))
    reset = _number(headers.get("x-ratelimit-reset"))
    if limit is None or remaining is None or reset is None or limit < 1:
        return None
    return RateLimitHeaders(int(limit), int(min(remaining, limit)), reset)


def read_date(headers: Mapping[str, str]) -> float | None:
    """The ``Date`` header in seconds since the epoch; None if it is missing or malformed."""
    return _read_http_date(headers.get("date"))


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """The ``Retry-After`` header in seconds; None if it is missing or malformed.

    A date is relative to the ``Date`` of the same response, so only the server's clock matters.
    """
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until, now = _read_http_date(value), read_date(headers)
    if until is None:
        return None
    return max(0.0, until - (now if now is not None else datetime.now(UTC).timestamp()))


@lru_cache(maxsize=16)  # a Date has whole seconds, so many responses share it
def _read_http_date(text: str | None) -> float | None:
    if text is None or len(text) > 64:
        return None
    try:
        instant = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    aware = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    seconds = aware.timestamp()
    return seconds if 0 <= seconds < _YEAR_9999 else None


def is_encodable(text: str) -> bool:
    """Whether `text` can be encoded as UTF-8; text with lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
