"""One download, from the link to the complete file under its final name."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct
from msgspec.structs import replace

from amigo_async.artifacts.partfile import (
    ALGORITHM,
    Digest,
    PartialFile,
    as_artifact_error,
    partial_names,
    remove_leftovers,
)
from amigo_async.artifacts.plan import Reading
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.source import Source, TransferProgress
from amigo_async.artifacts.transfer import Transfer
from amigo_async.errors import ArtifactChangedError, ArtifactTruncatedError
from amigo_async.events import ArtifactSaved
from amigo_async.files import LockedError, open_regular
from amigo_async.protocol.ranges import Checksum, ObjectInfo, missing_spans
from amigo_async.protocol.urls import safe_name
from amigo_async.threads import in_thread

# Seconds between two checks if another download to the same file has ended.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# Bytes to collect before they are hashed in a thread.
_HASH_BLOCK: Final = 1024 * 1024

# Errors of `open` for a path where there is no regular file.
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO})


class SavedFile(Struct, frozen=True):
    """A saved artifact, with what is needed to verify it later without the store.

    Attributes:
        path: Path of the file.
        size: Size in bytes.
        checksum: Checksum of the whole file: that of the store, or a computed one if the store
            sends none; None if none was computed.
    """

    path: str
    size: int
    checksum: Checksum | None = None


class Download:
    """Downloads the artifact of `source` to `destination`.

    Args:
        source: The artifact.
        destination: Path of a folder or a file.
        connections: Number of ranges to fetch concurrently.
        sums: Whether to compute a checksum even if the store sends none.
    """

    def __init__(
        self, source: Source, destination: str, connections: int = 1, *, sums: bool = False
    ) -> None:
        self._source = source
        self._destination = destination
        self._connections = connections
        self._sums = sums
        self._part: PartialFile | None = None

    async def run(self) -> SavedFile:
        """Download the artifact, or verify the file that is there already.

        Raises:
            AmigoError: See `Artifacts.download`.
        """
        link = await self._source.link()
        name = safe_name(link.presigned_url, f"artifacts-{self._source.run_id}")
        with as_artifact_error(self._source.run_id, Path(self._destination)):
            try:
                target = await self._claim(name)
                part = self._part
                saved = await (self._keep(target) if part is None else self._fetch(target, part))
            finally:
                if self._part is not None and self._part.is_open:
                    await in_thread(self._part.close)
        self._source.emit(
            ArtifactSaved(self._source.run_id, saved.path, saved.size, existed=part is None)
        )
        return saved

    async def _claim(self, name: str) -> Path:
        """Return the target path, with its partial file opened unless the target exists.

        Waits for another download to the same file, in this process or another, as long as its
        partial file keeps changing.
        """
        pause, seen, since = _FIRST_PAUSE, None, anyio.current_time()
        while True:
            target, there = await in_thread(_target, self._destination, name)
            if there or await in_thread(self._open, target):
                return target
            state = await in_thread(_state, partial_names(target)[0])
            if state != seen:
                seen, since = state, anyio.current_time()
            elif anyio.current_time() - since >= self._source.policy.busy_timeout:
                reason = f"{target} is being downloaded elsewhere, without any progress"
                raise self._source.error(reason, lasting=False)
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _open(self, target: Path) -> bool:
        """Open the partial file; False if another download has it open or has just finished it."""
        part = PartialFile(target, self._source.run_id, sums=self._sums)
        try:
            part.open()
        except (LockedError, FileExistsError):
            return False
        else:
            self._part = part
            return True
        finally:
            if self._part is not part:
                part.close()

    async def _fetch(self, target: Path, part: PartialFile) -> SavedFile:
        """Fetch what is missing, verify it, and give the file its final name."""
        progress = TransferProgress(self._source.run_id, self._source.emit, part.count)
        try:
            await self._fill(part, progress)
        finally:
            progress.finish()
        await asyncio.sleep(0)  # deliver a pending cancellation before the last step
        try:
            while (size := await in_thread(self._finish, part)) is None:
                pass
        except FileExistsError:  # written by a process that ignores the lock, or without locks
            kept = await self._keep(target)
            await in_thread(part.reset)
            return kept
        checksum = None if part.digest is None else part.digest.checksum
        return SavedFile(os.fspath(target), size, checksum)

    async def _fill(self, part: PartialFile, progress: TransferProgress) -> None:
        """Fetch what is missing; start over if the rest of an earlier download is outdated."""
        resumed = part.info is not None
        transfer = Transfer(self._source, part, progress, self._connections)
        try:
            await transfer.run()
        except ArtifactChangedError:
            await in_thread(part.reset)
            if not resumed or transfer.fetched:
                raise
            progress.received = 0
            await Transfer(self._source, part, progress, self._connections).run()

    def _finish(self, part: PartialFile) -> int | None:
        """Publish the file after checking that no byte is missing and the checksum is right.

        Returns:
            The size; None if more of the file has to be hashed first: call again. This allows a
            cancellation in between for large files, and needs one call for small ones.
        """
        part.write_held()
        info, digest = part.info, part.digest
        size = None if info is None else info.size
        if info is None or size is None or missing_spans(part.received, size):
            raise self._source.error("bytes are missing", ArtifactTruncatedError)
        if digest is not None and digest.position < size and digest.step(part.fd):
            return None
        expected = info.checksum
        if digest is not None and expected is not None and digest.checksum != expected:
            part.reset()
            raise self._source.error(f"its {expected.algorithm} is not the one the store gives")
        part.publish(size)
        return size

    async def _keep(self, target: Path) -> SavedFile:
        """Return the existing file if it is this artifact; otherwise raise an error."""
        size = await in_thread(_size, target)
        reader = Reader(self._source, Reading(stop=1))
        try:
            info = await reader.start()
        finally:
            await reader.aclose()
        checksum = None
        if size is not None and info.size in (None, size):
            checksum = info.checksum or await self._checksum(info)
        saved = SavedFile(os.fspath(target), size or 0, checksum)
        if checksum is None or not await is_intact(saved):
            raise self._source.error(f"{target} exists already, with other content")
        await in_thread(remove_leftovers, target)
        return saved

    async def _checksum(self, info: ObjectInfo) -> Checksum:
        """Return the checksum of an object for whose first byte the store sent none.

        The store may send one with the whole object. If not, the object is read and hashed.
        """
        reader = Reader(self._source, Reading(info))
        try:
            info = await reader.start()
            if info.checksum is not None:
                return info.checksum
            return await self._hash(reader)
        finally:
            await reader.aclose()

    async def _hash(self, reader: Reader) -> Checksum:
        """Return the checksum of what `reader` reads."""
        digest = Digest(ALGORITHM)
        chunks: list[bytes] = []
        collected = 0
        while chunk := await reader.read():
            chunks.append(chunk)
            collected += len(chunk)
            if collected >= _HASH_BLOCK:
                await in_thread(digest.feed, digest.position, chunks)
                chunks, collected = [], 0
        digest.feed(digest.position, chunks)
        return digest.checksum


async def save(source: Source, folder: Path, before: SavedFile | None) -> SavedFile:
    """Save an artifact into a folder of its own, unless an intact copy is there.

    Args:
        source: The artifact.
        folder: The folder; created if it does not exist.
        before: The result of an earlier call, for this folder or another; None without one. If
            the file is in `folder` and intact, no request is sent. If it is damaged (truncated,
            say), it is renamed to ``NAME.damaged`` and the artifact is downloaded again.

    Raises:
        AmigoError: See `Artifacts.download`.
    """
    if before is not None:
        path = folder / Path(before.path).name
        found = replace(before, path=os.fspath(path))
        with as_artifact_error(source.run_id, folder):
            if await is_intact(found):
                return found
            await in_thread(_set_aside, path)
    return await Download(source, f"{folder}{os.sep}", sums=True).run()


async def is_intact(saved: SavedFile) -> bool:
    """Return whether the file exists with the recorded size and checksum.

    Raises:
        OSError: If the file cannot be read.
    """
    fd = await in_thread(_open_if_regular, saved.path)
    if fd is None:
        return False
    try:
        if saved.checksum is None or (await in_thread(os.fstat, fd)).st_size != saved.size:
            return False
        digest = Digest(saved.checksum.algorithm)
        # In steps, so that it can be cancelled.
        while digest.position < saved.size and await in_thread(digest.step, fd):
            pass
        return digest.checksum == saved.checksum
    finally:
        await in_thread(os.close, fd)


def _open_if_regular(path: str) -> int | None:
    """Open a regular file for reading; None if there is none."""
    try:
        return open_regular(path, os.O_RDONLY, follow=True)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise


def _size(path: Path) -> int | None:
    """Return the size of a file; None if there is none."""
    return path.stat().st_size if path.is_file() else None


def _set_aside(path: Path) -> None:
    """Rename a file to a free ``NAME.damaged``; remove it if it is empty."""
    if not os.path.lexists(path):
        return
    if _size(path) == 0:
        path.unlink()
        return
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged{'' if number == 1 else number}")
        if not os.path.lexists(aside):
            path.rename(aside)
            return


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written to; None if it does not exist."""
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _target(destination: str, name: str) -> tuple[Path, bool]:
    """Return the file to write (`name` in a folder, or `destination`), and whether it exists."""
    path = Path(destination)
    is_folder = path.is_dir()
    if destination.endswith(os.sep) and not is_folder:
        path.mkdir(parents=True, exist_ok=True)
        is_folder = True
    target = path / name if is_folder else path
    return target, os.path.lexists(target)
