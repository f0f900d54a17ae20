"""Byte ranges and object metadata: headers of requests and responses. No I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from msgspec import Struct

from amigo_async.protocol.headers import is_encodable

# First byte and end, half-open like Python's slices.
Span: TypeAlias = tuple[int, int]

_CONTENT_RANGE = r"(?a)bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(?:(\d{1,19})|\*)"


class ContentRange(Struct, frozen=True):
    """A ``Content-Range`` header.

    Attributes:
        span: The bytes in the body; None if the range is not satisfiable (416).
        total: The size of the whole object; None if not stated.
    """

    span: Span | None
    total: int | None


def read_content_range(text: str | None) -> ContentRange | None:
    """A ``Content-Range`` in bytes; None if it is missing or contradicts itself."""
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
    """A ``Range`` from `start` up to, not including, `stop`; None for an open end."""
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


def add_span(spans: Iterable[Span], new: Span) -> list[Span]:
    """Add `new` to sorted, disjoint `spans`; adjacent spans are merged."""
    return join_spans((*spans, new))


def join_spans(spans: Iterable[Span]) -> list[Span]:
    """Sort `spans`, and merge those that overlap or are adjacent."""
    apart: list[Span] = []
    for start, stop in sorted(spans):
        if apart and start <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], stop))
        elif start < stop:
            apart.append((start, stop))
    return apart


def missing_spans(spans: Iterable[Span], size: int) -> list[Span]:
    """The bytes from 0 to `size` that are in none of the sorted, disjoint `spans`."""
    gaps: list[Span] = []
    position = 0
    for start, stop in spans:
        if start > position:
            gaps.append((position, start))
        position = stop
    if position < size:
        gaps.append((position, size))
    return gaps


# Checksum algorithms of the standard library, strongest first, with their sizes in bytes. Without
# CRC32C and CRC64NVME, for which pure Python is too slow.
_DIGESTS = {"sha256": 32, "sha1": 20, "crc32": 4}

# The algorithms of a `Checksum`.
ALGORITHMS = frozenset({*_DIGESTS, "md5"})

_MD5_ETAG = r'"([0-9a-fA-F]{32})"'
_CONTROL = "[\x00-\x08\x0a-\x1f\x7f]"
_LENGTH = r"(?a)\d{1,19}"


class Checksum(Struct, frozen=True):
    """The checksum of a whole object.

    Attributes:
        algorithm: ``sha256``, ``sha1``, ``crc32`` or ``md5``.
        value: The checksum in lower-case hexadecimal digits.
    """

    algorithm: str
    value: str


class ObjectInfo(Struct, frozen=True):
    """Metadata of an object.

    Attributes:
        size: Its size in bytes; None if the store has not said.
        etag: Its ETag as it was sent, with the quotes; None without one.
        last_modified: Its ``Last-Modified`` as it was sent; None without one.
        content_type: Its ``Content-Type``; None without one.
        checksum: The checksum that the store sent; None without one.
    """

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    content_type: str | None = None
    checksum: Checksum | None = None

    @property
    def strong_etag(self) -> str | None:
        """The ETag if it is a strong one; otherwise None."""
        return None if self.etag is None or self.etag.startswith("W/") else self.etag

    @property
    def recognizable(self) -> bool:
        """Whether a later response can be recognized as one of the same object."""
        return self.etag is not None or self.last_modified is not None


def read_object(headers: Mapping[str, str], *, partial: bool) -> ObjectInfo:
    """The metadata of an object from a response.

    Args:
        headers: The headers, with names in lower case.
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
    """The length of the body; None if it is not known in advance."""
    length = headers.get("content-length", "").strip()
    return int(length) if re.fullmatch(_LENGTH, length) and not is_chunked(headers) else None


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Whether the body marks its own end."""
    return "chunked" in headers.get("transfer-encoding", "").lower()


def conditions(info: ObjectInfo, *, by_date: bool = False) -> dict[str, str]:
    """Headers that make a store answer 412 if the object is not the one of `info`.

    ``If-Match`` never matches a weak ETag, so the date is used then.

    Args:
        info: The metadata of the object.
        by_date: Whether to use the date although there is a strong ETag.
    """
    if info.strong_etag is not None and not by_date:
        return {"If-Match": info.strong_etag}
    if info.last_modified is not None:
        return {"If-Unmodified-Since": info.last_modified}
    return {}


def difference(old: ObjectInfo, new: ObjectInfo) -> str | None:
    """Why `new` is not the object of `old`, in words; None if it may be."""
    if None not in (old.size, new.size) and old.size != new.size:
        return f"its size went from {old.size} to {new.size} bytes"
    if None not in (old.etag, new.etag):
        if old.etag != new.etag and not _weakened(old, new):
            return "its ETag changed"
        if old.strong_etag is not None:
            return None
    if None not in (old.last_modified, new.last_modified):
        return None if old.last_modified == new.last_modified else "it was modified"
    return None


def _weakened(old: ObjectInfo, new: ObjectInfo) -> bool:
    """Whether one ETag is the weak form of the other, and everything else is equal.

    A CDN, or a proxy that compresses, weakens the ETags of what it caches.
    """
    values = {(info.etag or "").removeprefix("W/") for info in (old, new)}
    agreed = (old.size, old.last_modified) == (new.size, new.last_modified)
    return len(values) == 1 and agreed and None not in (old.size, old.last_modified)


def repeatable(value: str | None) -> str | None:
    """`value` if it can be sent back in a condition; bytes that are not UTF-8 cannot."""
    return value if value and not re.search(_CONTROL, value) and is_encodable(value) else None


def _read_checksum(headers: Mapping[str, str], *, whole: bool) -> Checksum | None:
    """The strongest checksum of the whole object.

    A partial response may carry the checksum of its part, so only checksums of complete responses
    count. A composite checksum (of the parts of a multipart upload) is not one of the object; it is
    recognized by its type, or by a ``-`` with the number of parts.
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
    """The ETag as an MD5, if it is one.

    Only S3 and compatible stores use MD5 as ETag, and not for objects that are encrypted with keys
    of the customer or of KMS. An ETag of another kind must not be mistaken for an MD5, because an
    intact artifact would be rejected.
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
