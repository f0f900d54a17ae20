"""The record of a partial file: which object it is of, and which ranges it holds.

The first line names the run and the object (size, ETag, ...; never a URL); every other line is a
received range. A line is appended after its bytes were written, so a process that is killed loses
only what it had in memory, and an incomplete last line does no harm.

The record is ignored after a reboot: it may have reached the disk although the bytes did not.
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
_MAX_BYTES = 64 * 1024 * 1024


class _Header(Struct, frozen=True):
    run_id: str
    boot_id: str
    info: ObjectInfo


class ResumeState(Struct, frozen=True):
    """What a record says: the object, and the received ranges."""

    info: ObjectInfo
    spans: list[Span]


_read_span = msgspec.json.Decoder(Span).decode
_encode = msgspec.json.Encoder().encode


class ResumeRecord:
    """The record of a partial file. Its methods block.

    Args:
        path: Path of the record.
        run_id: The run; a record of another run is ignored.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self._run_id = run_id
        self._boot_id = _boot_id(_BOOT_ID)
        self._fd = -1

    def load(self, size: int) -> ResumeState | None:
        """Read the record; None if there is none, or none to resume from.

        Args:
            size: Size of the partial file in bytes; ranges beyond it are ignored.
        """
        try:
            with os.fdopen(open_regular(self.path, os.O_RDONLY), "rb") as file:
                first, *lines = file.read(_MAX_BYTES).split(b"\n")
            head = msgspec.json.decode(first, type=_Header)
        except (OSError, ValueError, RecursionError):
            return None
        if not _can_be(head.info):
            return None
        limit = size if head.info.size is None else min(size, head.info.size)
        spans = _read_spans(lines, limit)
        ours = (head.run_id, head.boot_id) == (self._run_id, self._boot_id)
        return ResumeState(head.info, spans) if ours and spans and head.info.recognizable else None

    def begin(self, state: ResumeState) -> None:
        """Replace the record atomically."""
        self.close()
        head = _Header(self._run_id, self._boot_id, state.info)
        fresh = self.path.with_name(f"{self.path.name}~")
        # A leftover of a killed process is removed, not opened: it may be a symlink by now.
        fresh.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd = fd = open_regular(fresh, flags)
        os.write(fd, b"".join(_encode(line) + b"\n" for line in (head, *state.spans)))
        fresh.replace(self.path)

    def add(self, span: Span) -> None:
        """Append a range whose bytes have been written."""
        os.write(self._fd, _encode(span) + b"\n")

    def remove(self) -> None:
        """Close and remove the record."""
        self.close()
        self.path.with_name(f"{self.path.name}~").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _can_be(info: ObjectInfo) -> bool:
    """Return whether a store can have sent this: the record may have been tampered with."""
    said = [value for value in (info.etag, info.last_modified) if value is not None]
    known = info.checksum is None or info.checksum.algorithm in ALGORITHMS
    return known and all(map(repeatable, said))


def _read_spans(lines: list[bytes], limit: int) -> list[Span]:
    """Return the ranges of a record, up to the first invalid line."""
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
