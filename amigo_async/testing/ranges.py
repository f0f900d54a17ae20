"""The conditions and ranges of a request to the store, as RFC 9110 and S3 have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")

Outcome = Literal["serve", "not_modified", "precondition_failed"]


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` up to `stop`."""

    start: int
    stop: int


class UnsatisfiableError(Exception):
    """The range that is asked for has no byte of the object."""


def judge(headers: Mapping[str, str], etag: str, modified: float) -> Outcome:
    """What the conditions of a request mean for an object (RFC 9110, 13.2.2).

    Args:
        headers: Those of the request.
        etag: The object's, quoted.
        modified: When it was last changed, whole seconds since the epoch.
    """
    match, none_match = headers.get("If-Match"), headers.get("If-None-Match")
    if match is not None:
        if not _listed(etag, match, weak=False):
            return "precondition_failed"
    elif modified > _seconds(headers.get("If-Unmodified-Since"), modified):
        return "precondition_failed"
    if none_match is not None:
        return "not_modified" if _listed(etag, none_match, weak=True) else "serve"
    if modified <= _seconds(headers.get("If-Modified-Since"), modified - 1):
        return "not_modified"
    return "serve"


def part(headers: Mapping[str, str], etag: str, modified: float, size: int) -> Part | None:
    """The part that is asked for; None for the whole.

    As S3 does, several ranges at once, other units and ranges that make no sense are ignored,
    and so is a range whose ``If-Range`` names another object.

    Raises:
        UnsatisfiableError: If the range has no byte of the object.
    """
    found = _RANGE.fullmatch(headers.get("Range", "").strip())
    if found is None or not _same(headers.get("If-Range"), etag, modified):
        return None
    first, last = found["first"], found["last"]
    if not first:
        return _suffix(last, size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableError
    return Part(int(first), min(size, int(last) + 1) if last else size)


def _suffix(length: str, size: int) -> Part | None:
    if not length:
        return None
    if not int(length) or not size:
        raise UnsatisfiableError
    return Part(max(0, size - int(length)), size)


def _same(condition: str | None, etag: str, modified: float) -> bool:
    """Whether ``If-Range`` names the object; only a strong tag or the exact date does."""
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == etag
    return _seconds(condition, -1) == modified


def _listed(etag: str, listing: str, *, weak: bool) -> bool:
    """Whether a list of tags has `etag`; a weak one counts only where `weak`."""
    if listing.strip() == "*":
        return True
    tags = [tag.strip() for tag in listing.split(",")]
    if weak:
        tags = [tag.removeprefix("W/") for tag in tags]
    # S3 takes a tag without its quotes too.
    return etag in tags or etag.strip('"') in tags


def _seconds(date: str | None, default: float) -> float:
    """An HTTP date in seconds since the epoch; `default` where there is none that can be read."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else default
    except ValueError:
        return default
