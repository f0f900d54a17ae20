"""The record of a partial file: what it is of, and which of its bytes have been received.

Its first line says of which run and object (size, ETag, ...; never a URL), each further line is a
range that has been received. A line is added after its bytes were written, so a process that is
killed loses what it held in memory and no more, and a line cut short is no harm.

After a restart of the machine the record is not believed: it may have reached the disk where the
bytes did not.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from amigo_async.files import open_regular
from amigo_async.protocol.ranges import ALGORITHMS, ObjectInfo, Span, join_spans, repeatable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LONGEST = 64 * 1024 * 1024


class _Head(Struct, frozen=True):
    run_id: str
    boot_id: str
    info: ObjectInfo


class Received(Struct, frozen=True):
    """What a record says."""

    info: ObjectInfo
    spans: list[Span]


_read_span = msgspec.json.Decoder(Span).decode
_encode = msgspec.json.Encoder().encode


class Record:
    """The record beside a partial file. Its methods block.

    Args:
        path: Where it is.
        run_id: The run.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self._run_id = run_id
        self._boot_id = _boot_id(_BOOT_ID)
        self._fd = -1

    def load(self, size: int) -> Received | None:
        """What is there already; None where nothing is, or nothing to go on from.

        Args:
            size: The size of the partial file, which must hold what the record says.
        """
        try:
            with os.fdopen(open_regular(self.path, os.O_RDONLY), "rb") as file:
                first, *lines = file.read(_LONGEST).split(b"\n")
            head = msgspec.json.decode(first, type=_Head)
        except (OSError, ValueError, RecursionError):
            return None
        if not _can_be(head.info):
            return None
        limit = size if head.info.size is None else min(size, head.info.size)
        spans = _read_spans(lines, limit)
        ours = (head.run_id, head.boot_id) == (self._run_id, self._boot_id)
        return Received(head.info, spans) if ours and spans and head.info.recognizable else None

    def begin(self, received: Received) -> None:
        """Write the record anew, in one step."""
        self.close()
        head = _Head(self._run_id, self._boot_id, received.info)
        fresh = self.path.with_name(f"{self.path.name}~")
        # One that a killed process left is not opened: somebody may have put a link in its place.
        fresh.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd = fd = open_regular(fresh, flags)
        os.write(fd, b"".join(_encode(line) + b"\n" for line in (head, *received.spans)))
        fresh.replace(self.path)

    def add(self, span: Span) -> None:
        """Note that the bytes of `span` have been written."""
        os.write(self._fd, _encode(span) + b"\n")

    def remove(self) -> None:
        """Remove it."""
        self.close()
        self.path.with_name(f"{self.path.name}~").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _can_be(info: ObjectInfo) -> bool:
    """Whether a store can have said so; a file can say anything."""
    said = [value for value in (info.etag, info.last_modified) if value is not None]
    known = info.checksum is None or info.checksum.algorithm in ALGORITHMS
    return known and all(map(repeatable, said))


def _read_spans(lines: list[bytes], limit: int) -> list[Span]:
    """The ranges of a record up to the first line that cannot be right."""
    spans: list[Span] = []
    for line in lines:
        try:
            start, stop = _read_span(line)
        except (ValueError, RecursionError):
            break
        if not 0 <= start < stop <= limit:
            break
        spans.append((start, stop))
    return join_spans(spans)


@cache
def _boot_id(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
