"""The partial file of a download: beside its target, locked, with a record of what is there.

For a target ``NAME`` there are, while a download of it is not finished, ``NAME.part`` with the
bytes received so far, each at its place, and ``NAME.part.jsonl``, the record. Everything here
blocks; it is called in threads.
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

from amigo_async.artifacts.record import Received, Record
from amigo_async.errors import ArtifactError
from amigo_async.files import UNSUPPORTED, close_locked, open_locked
from amigo_async.protocol.ranges import Checksum, ObjectInfo, Span, add_span

# As many buffers as the system takes in one call (IOV_MAX is 1024 on Linux and macOS).
MAX_CHUNKS: Final = 1024
# Bytes for which room is taken in one go: where that is slow, as in memory, writes come between.
_STEP: Final = 32 * 1024 * 1024

# After so many tries the file is taken that has the name: not every file system says of one file
# the same twice.
_TRIES: Final = 20


class PartialFile:
    """The partial file of one target.

    Args:
        target: The final name.
        run_id: The run; what is left of another run's download is not used.
        sums: Whether a checksum is computed also where the store offers none to compare with.

    Attributes:
        info: What is known of the object; None as long as nothing has been received.
        received: The ranges that are there.
        digest: The checksum of what was received in order; None where none is computed.
    """

    def __init__(self, target: Path, run_id: str, *, sums: bool = False) -> None:
        self.info: ObjectInfo | None = None
        self.received: list[Span] = []
        self.digest: Digest | None = None
        self._sums = sums
        self._target = target
        self._path, record_path = partial_names(target)
        self._record = Record(record_path, run_id)
        self._fd = -1
        self._taken = False
        self._begun = False
        self._room = 0
        self._held: list[bytes] = []
        self._lock = threading.Lock()

    @property
    def fd(self) -> int:
        """The open file."""
        return self._fd

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        return self._fd >= 0

    @property
    def count(self) -> int:
        """How many bytes have been received."""
        return sum(stop - start for start, stop in self.received)

    def open(self) -> None:
        """Lock the partial file, and take up what is there already.

        Raises:
            FileExistsError: If there is a file of the final name.
            LockedError: If somebody else, in this process or another, is downloading to the
                same target.
            OSError: If it cannot be written.
        """
        self._fd, size = _lock_file(self._path)
        received = self._record.load(size) if size else None
        if os.path.lexists(self._target):
            if size == 0:
                self._path.unlink()
            raise _exists(self._target)
        self._taken = True
        if received is None:
            self._record.remove()
            if size:
                os.ftruncate(self._fd, 0)
        else:
            self.know(received.info, received.spans)
            self._begun, self._room = True, size
            self._record.begin(received)

    def reset(self) -> None:
        """Forget everything received."""
        self._record.remove()
        self._begun, self._room = False, 0
        os.ftruncate(self._fd, 0)
        self.know(None)

    def know(self, info: ObjectInfo | None, received: Sequence[Span] = ()) -> None:
        """Note what is known of the object, and what is there of it. Does not block."""
        self.info, self.received = info, list(received)
        self.digest = None
        if info and info.checksum:
            self.digest = Digest(info.checksum.algorithm)
        elif self._sums:
            self.digest = Digest(ALGORITHM)

    def learn(self, info: ObjectInfo | None) -> None:
        """Note what was learned of the object while it came: the size of one that did not say."""
        self.info = info

    def allocate(self) -> bool:
        """Take some more room on the disk; False once there is enough for all.

        Raises:
            OSError: If there is not enough.
        """
        with self._lock:
            size = (self.info and self.info.size) or 0
            stop = min(self._room + _STEP, size)
            if self._room < stop:
                # Not beside a write: where the system only acts it, bytes are read and put back.
                _allocate(self._fd, self._room, stop - self._room)
                self._room = stop
            return stop < size

    def write(self, offset: int, chunks: list[bytes]) -> None:
        """Put `chunks`, at most `MAX_CHUNKS`, one behind the other at `offset`; record them.

        May be called from several threads at once.
        """
        with self._lock:
            self._begin_record()
            span = self._put(offset, chunks)
            self._record.add(span)
        _start_flush(self._fd, *span)

    def hold(self, chunks: list[bytes]) -> None:
        """Keep `chunks`, which are all of the object, until `write_held`. Does not block."""
        self._held = chunks

    def write_held(self) -> None:
        """Write what is held, without a record: what is published at once needs none.

        Raises:
            OSError: If there is not enough room, or it cannot be written.
        """
        chunks, self._held = self._held, []
        if chunks:
            self.allocate()
            self._put(0, chunks)

    def publish(self, size: int) -> None:
        """Give the file its final name, in one step and never over another file, and close it.

        Args:
            size: The size it must have.

        Raises:
            FileExistsError: If there is a file of the final name meanwhile.
            OSError: If it cannot be written to the disk.
        """
        os.ftruncate(self._fd, size)
        _sync(self._fd)
        try:
            # Unlike a rename, a second name is refused where there is a file of that name.
            os.link(self._path, self._target)
        except FileExistsError:
            raise
        except FileNotFoundError:
            # Where there are no locks, somebody else may have published it under our hands.
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
        if self._begun:
            self._record.remove()
        self._path.unlink(missing_ok=True)
        self._taken = False
        self.close()

    def close(self) -> None:
        """Unlock it. What has been received stays; a file without a byte does not."""
        if self._fd < 0:
            return
        try:
            if self._taken:
                self._leave()
        finally:
            self._record.close()
            close_locked(self._fd)
            self._fd = -1

    def _leave(self) -> None:
        """Keep what has been received, with its record; one without the other is of no use."""
        try:
            self.write_held()
            if self.received:
                self._begin_record()
        finally:
            if not (self._begun and self.received):
                with contextlib.suppress(OSError):
                    self._record.remove()
                    self._path.unlink(missing_ok=True)

    def _begin_record(self) -> None:
        if not self._begun and self.info is not None:
            self._record.begin(Received(self.info, self.received))
            self._begun = True

    def _put(self, offset: int, chunks: list[bytes]) -> Span:
        size = sum(map(len, chunks))
        done = os.pwritev(self._fd, chunks, offset)
        if done < size:  # as where the disk is full: the next write says why
            rest = memoryview(b"".join(chunks))
            while done < size:
                done += os.pwrite(self._fd, rest[done:], offset + done)
        if self.digest:
            self.digest.feed(offset, chunks)
        span = (offset, offset + size)
        self.received = add_span(self.received, span)
        return span


def partial_names(target: Path) -> tuple[Path, Path]:
    """The partial file of `target`, and its record."""
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.jsonl")


def remove_leftovers(target: Path) -> None:
    """Remove the other name of a finished file, where a process was killed before it did."""
    part, record = partial_names(target)
    with contextlib.suppress(FileNotFoundError):
        if part.samefile(target):
            record.unlink(missing_ok=True)
            part.unlink()


def _allocate(fd: int, offset: int, size: int) -> None:
    """Take room for `size` bytes on the disk, where the system and the file system can."""
    if not hasattr(os, "posix_fallocate"):  # pragma: no cover # macOS
        return
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _start_flush(fd: int, start: int, stop: int) -> None:
    """Let the system begin to write these bytes to the disk, so that the fsync has less to do.

    That is what Linux does before it drops pages that are not needed; those still to be written
    are not dropped.
    """
    if hasattr(os, "posix_fadvise"):  # pragma: no branch # macOS has none
        with contextlib.suppress(OSError):  # it is advice
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))


def _lock_file(path: Path) -> tuple[int, int]:
    """Open `path` and lock it; the lock is on the file that has the name when this returns.

    Returns:
        The open file, and its size.
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
    """Whether the locked file has the name `path` still, and no other name.

    Another process may have finished with the file between the opening and the locking. A file
    of two names is one that is finished: it must not be written to.
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
    """Wait until the file is on the disk, where the file system can tell."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot, and need not
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# What is computed where the store says nothing.
ALGORITHM: Final = "sha256"
# Bytes hashed in one go: some milliseconds, so that a cancellation need not wait.
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
    """A checksum that is computed. Its methods block: call them in a thread.

    Args:
        algorithm: One of `ALGORITHMS`.

    Attributes:
        position: How many bytes have been counted, from the first one.
    """

    def __init__(self, algorithm: str) -> None:
        self.position = 0
        self._algorithm = algorithm
        self._hash: _Hash = (
            _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)
        )

    def feed(self, offset: int, chunks: Iterable[bytes]) -> None:
        """Count what has been written at `offset`, where it is what comes next in order."""
        if offset == self.position:
            for chunk in chunks:
                self._hash.update(chunk)
                self.position += len(chunk)

    def step(self, fd: int) -> bool:
        """Read on from where the digest is; False at the end of the file."""
        for _ in range(_HASHED_AT_ONCE // _BLOCK):
            data = os.pread(fd, _BLOCK, self.position)
            if not data:
                return False
            self.feed(self.position, [data])
        return True

    @property
    def checksum(self) -> Checksum:
        """The checksum of what was counted."""
        return Checksum(self._algorithm, self._hash.hexdigest())


@contextmanager
def explained(run_id: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` about a file into an `ArtifactError` that says what and where."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else os.fspath(path)
        reason = f"{where}: {error.strerror or error}"
        raise ArtifactError(reason, run_id=run_id) from error
