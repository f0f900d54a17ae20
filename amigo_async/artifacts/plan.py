"""What to request next, and what a response means: pure functions over one small state.

A `Reading` holds what is known of an object and how far it has been read. It alone decides the
next request, and `judge` interprets the response to that request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from amigo_async.protocol.headers import read_retry_after
from amigo_async.protocol.ranges import (
    ObjectInfo,
    conditions,
    difference,
    is_chunked,
    range_header,
    read_content_range,
    read_object,
)


class Reading(Struct, frozen=True):
    """How far an object has been read.

    Attributes:
        info: What is known of the object; None before the first answer.
        offset: Offset of the next byte to read.
        stop: Offset of the first byte not to read; None to read to the end.
        ended: Whether a body of unknown length has ended without proof that it is complete, so
            that the end has to be requested.
        by_date: Whether the store no longer has an object with the strong ETag, so that its date
            has to tell whether the same object merely has a weak ETag now.
        unranged: Whether to request the whole object next, because the store answered a range
            that was not asked for: what has been read is skipped.
    """

    info: ObjectInfo | None = None
    offset: int = 0
    stop: int | None = None
    ended: bool = False
    by_date: bool = False
    unranged: bool = False

    @property
    def end(self) -> int | None:
        """The offset at which the reading is done; None while it is unknown."""
        size = None if self.info is None else self.info.size
        known = [end for end in (self.stop, size) if end is not None]
        return min(known) if self.info is not None and known else None

    @property
    def done(self) -> bool:
        """Whether everything wanted has been read."""
        end = self.end
        return end is not None and self.offset >= end

    @property
    def ranged(self) -> bool:
        """Whether the next request asks for a range."""
        return not self.unranged and (self.offset > 0 or self.stop is not None or self.ended)


class Body(Struct, frozen=True):
    """The body has wanted bytes.

    Attributes:
        info: What is now known of the object.
        skip: Number of bytes at the start of the body that have been read before.
        end: The offset at which the body ends; None if the response does not say.
        marked: Whether the end of the body is unmistakable (chunked), so that without an `end`
            it is the end of the object.
        whole: Whether the body is the whole object, regardless of what was requested.
    """

    info: ObjectInfo
    skip: int
    end: int | None
    marked: bool
    whole: bool


class Complete(Struct, frozen=True):
    """There is nothing after the offset: the object was read to its end."""

    info: ObjectInfo


class LinkRefused(Struct, frozen=True):
    """The store refuses the link; it may accept a fresh one."""

    reason: str


class Rangeless(Struct, frozen=True):
    """The store has not served the range that was asked for: request the whole object.

    It may be empty, or its store serves no ranges, or wrong ones.
    """

    reason: str


class Retry(Struct, frozen=True):
    """The same request may succeed later, after `after` seconds if the store says so."""

    reason: str
    after: float | None = None


class Missing(Struct, frozen=True):
    """The store does not have the object, perhaps not yet: a replica or cache may lag behind."""

    reason: str


class Unmatched(Struct, frozen=True):
    """The store has no object with this strong ETag: request it by its date instead."""


class Changed(Struct, frozen=True):
    """The object is no longer the one that the reading began with."""

    reason: str


class Unprovable(Struct, frozen=True):
    """Everything the store sent has been read, but not whether that is the whole object."""

    reason: str


class Failed(Struct, frozen=True):
    """The store does not serve the object."""

    reason: str


Interpretation: TypeAlias = (
    Body
    | Complete
    | LinkRefused
    | Rangeless
    | Retry
    | Missing
    | Unmatched
    | Changed
    | Unprovable
    | Failed
)


# S3 answers 400 if the credentials behind a signature have expired.
_REFUSALS = frozenset({400, 401, 403})
_TRANSIENT = frozenset({408, 425, 429})


def next_request(reading: Reading) -> dict[str, str]:
    """Return the headers that request the rest of the same object."""
    info = reading.info
    headers = {} if info is None else conditions(info, by_date=reading.by_date)
    if reading.ranged:
        size = None if info is None else info.size
        stop = None if reading.stop is None or reading.stop == size else reading.stop
        headers["Range"] = range_header(reading.offset, stop)
    return headers


def judge(reading: Reading, status: int, headers: Mapping[str, str]) -> Interpretation:
    """Interpret the response to ``next_request(reading)``.

    Args:
        reading: The state the request was made from.
        status: The HTTP status of the response.
        headers: Its headers, with names in lower case.
    """
    reads = _READS.get(status)
    if reads is not None:
        return reads(reading, headers)
    reason = f"the store answered {status}"
    if status == 404:
        return Missing(reason)
    if status in _REFUSALS:
        return LinkRefused(reason)
    if status in _TRANSIENT or status >= 500:
        return Retry(reason, read_retry_after(headers))
    return Failed(reason)


def _whole(reading: Reading, headers: Mapping[str, str]) -> Interpretation:
    """200: the whole object from its first byte, even if a range was requested."""
    new = read_object(headers, partial=False)
    if changed := _changed(reading, new):
        return changed
    if reading.ended:
        return Unprovable("the body has no length, and the store no ranges to ask for its end")
    return Body(
        info=merged(reading.info, new),
        skip=reading.offset,
        end=new.size,
        marked=is_chunked(headers),
        whole=True,
    )


def _part(reading: Reading, headers: Mapping[str, str]) -> Interpretation:
    """206: a range, accepted only if it starts with the requested byte, or the first one."""
    content_range = read_content_range(headers.get("content-range"))
    if content_range is None or content_range.span is None:
        reason = "the store answered 206 without a range that can be read"
        return Rangeless(reason) if reading.ranged else Retry(reason)
    new = read_object(headers, partial=True)
    if changed := _changed(reading, new):
        return changed
    start, stop = content_range.span
    asked = reading.offset if reading.ranged else 0
    if start != asked:
        reason = f"asked for bytes from {asked}, the store answered from {start}"
        return Rangeless(reason) if reading.ranged else Retry(reason)
    info, skip = merged(reading.info, new), reading.offset - start
    return Body(info=info, skip=skip, end=stop, marked=False, whole=(0, info.size) == (start, stop))


def _unsatisfiable(reading: Reading, headers: Mapping[str, str]) -> Interpretation:
    """416: nothing at the offset; the proof of the end if the size was unknown."""
    info = reading.info
    if info is None:
        answered = "the store answered 416"
        return Rangeless(answered) if reading.ranged else Failed(answered)
    content_range = read_content_range(headers.get("content-range"))
    total = content_range.total if content_range else None
    if reason := difference(info, ObjectInfo(size=total)):
        return Changed(reason)
    if info.size is None:
        if total is None and info.strong_etag is not None and not reading.by_date:
            # The object is the same (If-Match went along), and was read up to here.
            total = reading.offset
        if total == reading.offset:
            return Complete(merged(info, ObjectInfo(size=total)))
        if total is not None and total < reading.offset:
            return Changed(f"it has {total} bytes now, {reading.offset} were read")
    return Retry(f"the store has no byte {reading.offset}, which there must be")


def _precondition_failed(reading: Reading, _: Mapping[str, str]) -> Interpretation:
    """412: the object has changed, or only its ETag has become weak."""
    info = reading.info
    if info is None:
        return Failed("the store answered 412")
    if info.strong_etag is not None and info.last_modified is not None and not reading.by_date:
        return Unmatched()
    return Changed("the store has another one now")


def _changed(reading: Reading, new: ObjectInfo) -> Changed | None:
    if reading.info is None:
        return None
    reason = difference(reading.info, new)
    if reason is None and reading.by_date and new.etag is None:
        reason = "the ETag it had is gone"
    return None if reason is None else Changed(reason)


def merged(old: ObjectInfo | None, new: ObjectInfo) -> ObjectInfo:
    """Combine what two responses say; in doubt, the earlier one counts."""
    if old is None:
        return new
    return ObjectInfo(
        size=old.size if old.size is not None else new.size,
        etag=old.etag or new.etag,
        last_modified=old.last_modified or new.last_modified,
        content_type=old.content_type or new.content_type,
        checksum=old.checksum or new.checksum,
    )


_READS = {200: _whole, 206: _part, 412: _precondition_failed, 416: _unsatisfiable}
