"""The partial file of a download: next to its target, locked, with a record of what it holds.

Until a download of ``NAME`` is complete, ``NAME.part`` holds the bytes received so far, each at
its final offset, and ``NAME.part.jsonl`` is the record. Everything in this module blocks, and is
called in threads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from amigo_async.artifacts.record import ResumeRecord, ResumeState
from amigo_async.errors import ArtifactError
from amigo_async.files import UNSUPPORTED, close_locked, open_locked
from amigo_async.protocol.ranges import Checksum, ObjectInfo, Span, add_span

# The number of buffers that one system call accepts (IOV_MAX is 1024 on Linux and macOS).
MAX_CHUNKS: Final = 1024
# Bytes to allocate in one call: where allocating is slow (tmpfs), writes can run in between.
_ALLOCATED_AT_ONCE: Final = 32 * 1024 * 1024

# Attempts to lock the file that has the name. After them the file is used as it is: some file
# systems report different inodes for the same file.
_TRIES: Final = 20


class PartialFile:
    """The partial file of one target.

    Args:
        target: The final path.
        run_id: The run; a partial file of another run is discarded.
        sums: Whether to compute a checksum even if the store sends none to compare with.

    Attributes:
        info: What is known of the object; None until something has been received.
        received: The ranges in the file.
        digest: Checksum of the bytes received in order; None if none is computed.
    """

    def __init__(self, target: Path, run_id: str, *, sums: bool = False) -> None:
        self.info: ObjectInfo | None = None
        self.received: list[Span] = []
        self.digest: Digest | None = None
        self._sums = sums
        self._target = target
        self._path, record_path = partial_names(target)
        self._record = ResumeRecord(record_path, run_id)
        self._fd = -1
        self._owned = False
        self._recorded = False
        self._allocated = 0
        self._held: list[bytes] = []
        self._lock = threading.Lock()

    @property
    def fd(self) -> int:
        """The file descriptor."""
        return self._fd

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._fd >= 0

    @property
    def count(self) -> int:
        """Number of bytes in the file."""
        return sum(stop - start for start, stop in self.received)

    def open(self) -> None:
        """Lock the partial file and load what an earlier download left.

        Raises:
            FileExistsError: If the target exists.
            LockedError: If another download to the same target, in this process or another, is
                in progress.
            OSError: If the file cannot be written.
        """
        self._fd, size = _lock_file(self._path)
        received = self._record.load(size) if size else None
        if os.path.lexists(self._target):
            if size == 0:
                self._path.unlink()
            raise _exists(self._target)
        self._owned = True
        if received is None:
            self._record.remove()
            if size:
                os.ftruncate(self._fd, 0)
        else:
            self.know(received.info, received.spans)
            self._recorded, self._allocated = True, size
            self._record.begin(received)

    def reset(self) -> None:
        """Discard everything received."""
        self._record.remove()
        self._recorded, self._allocated = False, 0
        os.ftruncate(self._fd, 0)
        self.know(None)

    def know(self, info: ObjectInfo | None, received: Sequence[Span] = ()) -> None:
        """Set what is known of the object and which ranges are in the file. Does not block."""
        self.info, self.received = info, list(received)
        self.digest = None
        if info and info.checksum:
            self.digest = Digest(info.checksum.algorithm)
        elif self._sums:
            self.digest = Digest(ALGORITHM)

    def allocate(self) -> bool:
        """Reserve more space on the disk; False once there is enough for the whole object.

        Raises:
            OSError: If the disk is full.
        """
        with self._lock:
            size = (self.info and self.info.size) or 0
            stop = min(self._allocated + _ALLOCATED_AT_ONCE, size)
            if self._allocated < stop:
                # Not during a write: a system that emulates this reads bytes and writes them back.
                _allocate(self._fd, self._allocated, stop - self._allocated)
                self._allocated = stop
            return stop < size

    def write(self, offset: int, chunks: list[bytes]) -> None:
        """Write `chunks` (at most `MAX_CHUNKS`) consecutively at `offset`, and record the range.

        Thread-safe.
        """
        with self._lock:
            self._ensure_record()
            span = self._write_at(offset, chunks)
            self._record.add(span)
        _start_flush(self._fd, *span)

    def hold(self, chunks: list[bytes]) -> None:
        """Keep `chunks`, the whole object, in memory until `write_held`. Does not block."""
        self._held = chunks

    def write_held(self) -> None:
        """Write the chunks given to `hold`, without a record: they are published at once.

        Raises:
            OSError: If the disk is full or the file cannot be written.
        """
        chunks, self._held = self._held, []
        if chunks:
            self.allocate()
            self._write_at(0, chunks)

    def publish(self, size: int) -> None:
        """Give the file its final name atomically, never replacing another file, and close it.

        Args:
            size: The final size in bytes.

        Raises:
            FileExistsError: If the target exists by now.
            OSError: If the file cannot be written to the disk.
        """
        os.ftruncate(self._fd, size)
        _sync(self._fd)
        try:
            # A link rather than a rename: it fails if the target exists.
            os.link(self._path, self._target)
        except FileExistsError:
            raise
        except FileNotFoundError:
            # Without locks, another process may have published this file meanwhile.
            if os.path.lexists(self._target):
                raise _exists(self._target) from None
            raise
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            if os.path.lexists(self._target):
                raise _exists(self._target) from None
            self._path.rename(self._target)
        _sync_folder(self._target.parent)
        if self._recorded:
            self._record.remove()
        self._path.unlink(missing_ok=True)
        self._owned = False
        self.close()

    def close(self) -> None:
        """Close and unlock the file; it is removed if nothing has been received."""
        if self._fd < 0:
            return
        try:
            if self._owned:
                self._leave()
        finally:
            self._record.close()
            close_locked(self._fd)
            self._fd = -1

    def _leave(self) -> None:
        """Keep the file and its record, or remove both: neither is useful alone."""
        try:
            self.write_held()
            if self.received:
                self._ensure_record()
        finally:
            if not (self._recorded and self.received):
                with contextlib.suppress(OSError):
                    self._record.remove()
                    self._path.unlink(missing_ok=True)

    def _ensure_record(self) -> None:
        if not self._recorded and self.info is not None:
            self._record.begin(ResumeState(self.info, self.received))
            self._recorded = True

    def _write_at(self, offset: int, chunks: list[bytes]) -> Span:
        size = sum(map(len, chunks))
        done = os.pwritev(self._fd, chunks, offset)
        if done < size:  # e.g. the disk is full: the next write raises the error
            rest = memoryview(b"".join(chunks))
            while done < size:
                done += os.pwrite(self._fd, rest[done:], offset + done)
        if self.digest:
            self.digest.feed(offset, chunks)
        span = (offset, offset + size)
        self.received = add_span(self.received, span)
        return span


def partial_names(target: Path) -> tuple[Path, Path]:
    """Return the paths of the partial file of `target` and of its record."""
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.jsonl")


def remove_leftovers(target: Path) -> None:
    """Remove the partial name of a finished file that a killed process left."""
    part, record = partial_names(target)
    with contextlib.suppress(FileNotFoundError):
        if part.samefile(target):
            record.unlink(missing_ok=True)
            part.unlink()


def _allocate(fd: int, offset: int, size: int) -> None:
    """Reserve `size` bytes on the disk, if the system and the file system support it."""
    if not hasattr(os, "posix_fallocate"):  # pragma: no cover # macOS
        return
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _start_flush(fd: int, start: int, stop: int) -> None:
    """Ask the system to start writing these bytes to the disk, so that fsync has less to do.

    Linux does so for pages advised as not needed; pages that are not written yet are kept.
    """
    if hasattr(os, "posix_fadvise"):  # pragma: no branch # macOS has none
        with contextlib.suppress(OSError):  # it is advice
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))


def _lock_file(path: Path) -> tuple[int, int]:
    """Open and lock `path`, making sure that the locked file still has that name.

    Returns:
        The file descriptor, and the size of the file.
    """
    for tries in itertools.count(1):
        fd = open_locked(path, os.O_RDWR | os.O_CREAT)
        try:
            held = os.fstat(fd)
            if _is_current(held, path) or tries == _TRIES:
                return fd, held.st_size
        except OSError:
            close_locked(fd)
            raise
        close_locked(fd)
    raise AssertionError  # unreachable


def _is_current(held: os.stat_result, path: Path) -> bool:
    """Return whether `path` still names the locked file, and nothing else does.

    Another process may have published or removed the file between our opening and locking it. A
    file with two names has been published: it must not be written to.
    """
    try:
        if not os.path.samestat(held, path.stat(follow_symlinks=False)):
            return False
    except FileNotFoundError:
        return False
    if held.st_nlink > 1:
        path.unlink()
    return held.st_nlink <= 1


def _sync(fd: int) -> None:
    """Wait until the file is on the disk, if the file system supports it."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems do not support it, and do not need it
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# The checksum to compute if the store sends none.
ALGORITHM: Final = "sha256"
# Bytes hashed in one call: a few milliseconds, so that a cancellation need not wait.
_HASHED_AT_ONCE = 16 * 1024 * 1024
_BLOCK = 1024 * 1024


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class Digest:
    """Computes a checksum incrementally. Its methods block: call them in a thread.

    Args:
        algorithm: One of `ALGORITHMS`.

    Attributes:
        position: Number of bytes hashed so far, from the start of the file.
    """

    def __init__(self, algorithm: str) -> None:
        self.position = 0
        self._algorithm = algorithm
        self._hash: _Hash = (
            _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)
        )

    def feed(self, offset: int, chunks: Iterable[bytes]) -> None:
        """Hash what was written at `offset`, if it directly follows what was hashed before."""
        if offset == self.position:
            for chunk in chunks:
                self._hash.update(chunk)
                self.position += len(chunk)

    def step(self, fd: int) -> bool:
        """Read and hash the next bytes of the file; False at its end."""
        for _ in range(_HASHED_AT_ONCE // _BLOCK):
            data = os.pread(fd, _BLOCK, self.position)
            if not data:
                return False
            self.feed(self.position, [data])
        return True

    @property
    def checksum(self) -> Checksum:
        """The checksum of the bytes hashed so far."""
        return Checksum(self._algorithm, self._hash.hexdigest())


@contextmanager
def as_artifact_error(run_id: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into an `ArtifactError` that names the file and the reason."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else os.fspath(path)
        reason = f"{where}: {error.strerror or error}"
        raise ArtifactError(reason, run_id=run_id) from error
