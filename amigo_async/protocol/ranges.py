"""Byte ranges: what is asked for, what was answered, what is there already. No I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from msgspec import Struct

from amigo_async.protocol.headers import is_encodable

# First byte, and the first byte behind; half open, like Python's slices.
Span: TypeAlias = tuple[int, int]

_CONTENT_RANGE = r"(?a)bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(?:(\d{1,19})|\*)"


class ContentRange(Struct, frozen=True):
    """What a ``Content-Range`` header says.

    Attributes:
        span: The bytes that are in the body; None where the range cannot be had (416).
        total: The size of the whole object; None where it is not said.
    """

    span: Span | None
    total: int | None


def read_content_range(text: str | None) -> ContentRange | None:
    """A ``Content-Range`` in bytes; None where it is missing or contradicts itself."""
    match = re.fullmatch(_CONTENT_RANGE, (text or "").strip())
    if match is None:
        return None
    total = int(match[3]) if match[3] is not None else None
    if match[1] is None:
        return ContentRange(None, total)
    start, stop = int(match[1]), int(match[2]) + 1
    if start >= stop or (total is not None and stop > total):
        return None
    return ContentRange((start, stop), total)


def range_header(start: int, stop: int | None) -> str:
    """A ``Range`` from `start` up to, not including, `stop`; None for all that follows."""
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


def add_span(spans: Iterable[Span], new: Span) -> list[Span]:
    """`spans`, in order and apart from each other, with `new` among them; neighbours merge."""
    return join_spans((*spans, new))


def join_spans(spans: Iterable[Span]) -> list[Span]:
    """`spans`, in whatever order, in order and apart from each other; neighbours merge."""
    apart: list[Span] = []
    for start, stop in sorted(spans):
        if apart and start <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], stop))
        elif start < stop:
            apart.append((start, stop))
    return apart


def missing_spans(spans: Iterable[Span], size: int) -> list[Span]:
    """What of the bytes 0 up to `size` is in none of `spans` (in order, apart)."""
    gaps: list[Span] = []
    position = 0
    for start, stop in spans:
        if start > position:
            gaps.append((position, start))
        position = stop
    if position < size:
        gaps.append((position, size))
    return gaps


# Digests that cover a whole object and that the standard library can compute, strongest first,
# with their sizes in bytes. CRC32C and CRC64NVME are left out: pure Python is too slow for them.
_DIGESTS = {"sha256": 32, "sha1": 20, "crc32": 4}

# All that a `Checksum` can be of.
ALGORITHMS = frozenset({*_DIGESTS, "md5"})

_MD5_ETAG = r'"([0-9a-fA-F]{32})"'
_CONTROL = "[\x00-\x08\x0a-\x1f\x7f]"
_LENGTH = r"(?a)\d{1,19}"


class Checksum(Struct, frozen=True):
    """A checksum over a whole object.

    Attributes:
        algorithm: ``sha256``, ``sha1``, ``crc32`` or ``md5``.
        value: The checksum in lower case hexadecimal digits.
    """

    algorithm: str
    value: str


class ObjectInfo(Struct, frozen=True):
    """What is known about an object.

    Attributes:
        size: Its size in bytes; None where the store has not said.
        etag: Its ETag as it was sent, with the quotes; None without one.
        last_modified: Its ``Last-Modified`` as it was sent; None without one.
        content_type: Its ``Content-Type``; None without one.
        checksum: The checksum the store offers for it; None without one.
    """

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    content_type: str | None = None
    checksum: Checksum | None = None

    @property
    def strong_etag(self) -> str | None:
        """The ETag where it promises the same bytes; None for a weak one or none."""
        return None if self.etag is None or self.etag.startswith("W/") else self.etag

    @property
    def recognizable(self) -> bool:
        """Whether a later response can be told to be of the same object."""
        return self.etag is not None or self.last_modified is not None


def read_object(headers: Mapping[str, str], *, partial: bool) -> ObjectInfo:
    """What a response says about its object.

    Args:
        headers: The headers, their names in lower case.
        partial: Whether it is a 206, whose ``Content-Length`` is that of a part.
    """
    if partial:
        content_range = read_content_range(headers.get("content-range"))
        size = content_range.total if content_range else None
        covers_all = bool(content_range and size and content_range.span == (0, size))
    else:
        size, covers_all = read_length(headers), True
    return ObjectInfo(
        size=size,
        etag=repeatable(headers.get("etag")),
        last_modified=repeatable(headers.get("last-modified")),
        content_type=repeatable(headers.get("content-type")),
        checksum=_read_checksum(headers, whole=covers_all),
    )


def read_length(headers: Mapping[str, str]) -> int | None:
    """The length of the body; None where it only ends when it ends."""
    length = headers.get("content-length", "").strip()
    return int(length) if re.fullmatch(_LENGTH, length) and not is_chunked(headers) else None


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Whether the body marks its own end."""
    return "chunked" in headers.get("transfer-encoding", "").lower()


def conditions(info: ObjectInfo, *, by_date: bool = False) -> dict[str, str]:
    """Headers that make a store refuse (412) where the object is not the one of `info`.

    ``If-Match`` compares strongly, so a weak ETag never matches; then the date has to do.

    Args:
        info: What is known of the object.
        by_date: Whether to go by the date although there is a strong ETag.
    """
    if info.strong_etag is not None and not by_date:
        return {"If-Match": info.strong_etag}
    if info.last_modified is not None:
        return {"If-Unmodified-Since": info.last_modified}
    return {}


def difference(old: ObjectInfo, new: ObjectInfo) -> str | None:
    """Why `new` is not the object of `old`, in words; None where nothing speaks against it."""
    if None not in (old.size, new.size) and old.size != new.size:
        return f"its size went from {old.size} to {new.size} bytes"
    if None not in (old.etag, new.etag):
        if old.etag != new.etag and not _weakened(old, new):
            return "its ETag is another one"
        if old.strong_etag is not None:
            return None
    if None not in (old.last_modified, new.last_modified):
        return None if old.last_modified == new.last_modified else "it was modified"
    return None


def _weakened(old: ObjectInfo, new: ObjectInfo) -> bool:
    """Whether one ETag is the weak form of the other, and all else agrees.

    An edge of a CDN, or a proxy that compresses for others, weakens the ETag of what it keeps.
    """
    values = {(info.etag or "").removeprefix("W/") for info in (old, new)}
    agreed = (old.size, old.last_modified) == (new.size, new.last_modified)
    return len(values) == 1 and agreed and None not in (old.size, old.last_modified)


def repeatable(value: str | None) -> str | None:
    """`value` where it can be sent back in a condition; bytes that are no UTF-8 cannot."""
    return value if value and not re.search(_CONTROL, value) and is_encodable(value) else None


def _read_checksum(headers: Mapping[str, str], *, whole: bool) -> Checksum | None:
    """The best checksum over the whole object.

    A response with a part of an object may carry the checksum of that part, so only one with
    all of it is believed. A composite checksum (of the parts of a multipart upload) is in no
    way one of the object, and its type or a ``-`` and the number of parts gives it away.
    """
    composite = headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE"
    for algorithm, length in _DIGESTS.items() if whole and not composite else ():
        digest = _decode(headers.get(f"x-amz-checksum-{algorithm}"))
        if digest is not None and len(digest) == length:
            return Checksum(algorithm, digest.hex())
    return _md5_of_etag(headers)


def _decode(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if text else None
    except (binascii.Error, ValueError):
        return None


def _md5_of_etag(headers: Mapping[str, str]) -> Checksum | None:
    """The ETag as an MD5, where it is one.

    Only a store that speaks S3 makes its ETags so, and not for objects that it encrypts with
    keys of the customer or of KMS. An ETag of another kind must not be mistaken for an MD5: an
    artifact that is fine would be refused.
    """
    match = re.fullmatch(_MD5_ETAG, headers.get("etag", ""))
    if match is None:
        return None
    speaks_s3 = any(name.startswith("x-amz-") for name in headers)
    encrypted = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    customer = any(name.startswith("x-amz-server-side-encryption-customer") for name in headers)
    if not speaks_s3 or encrypted or customer:
        return None
    return Checksum("md5", match[1].lower())
