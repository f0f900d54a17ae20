"""One download, from the link to the file under its final name."""

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

from amigo_async.artifacts.filling import Filling
from amigo_async.artifacts.partfile import (
    ALGORITHM,
    Digest,
    PartialFile,
    explained,
    partial_names,
    remove_leftovers,
)
from amigo_async.artifacts.plan import Reading
from amigo_async.artifacts.progress import Meter
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.source import Source
from amigo_async.errors import ArtifactChangedError, ArtifactTruncatedError
from amigo_async.events import ArtifactSaved
from amigo_async.files import LockedError, open_regular
from amigo_async.protocol.ranges import Checksum, ObjectInfo, missing_spans
from amigo_async.protocol.urls import safe_name
from amigo_async.threads import in_thread

# Seconds between two looks at whether another download to the same file has ended.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# Bytes that are gathered before they are hashed in a thread.
_GATHERED: Final = 1024 * 1024

# What the system says of a file that is not there, or is none.
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO})


class SavedFile(Struct, frozen=True):
    """An artifact on the disk, and what is needed to know it again without the store.

    Attributes:
        path: Where it is.
        size: Its size in bytes.
        checksum: A checksum of all of it: the store's, or where it offers none one that was
            computed here; None where none was computed.
    """

    path: str
    size: int
    checksum: Checksum | None = None


class Download:
    """Brings the artifact of `source` to `destination`.

    Args:
        source: The artifact.
        destination: A folder or a file name.
        connections: How many ranges to fetch side by side.
        sums: Whether a checksum is computed also where the store offers none.
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
        """Do it; see `Artifacts.download`."""
        link = await self._source.link()
        name = safe_name(link.presigned_url, f"artifacts-{self._source.run_id}")
        with explained(self._source.run_id, Path(self._destination)):
            try:
                target = await self._claim(name)
                part = self._part
                saved = await (self._keep(target) if part is None else self._fetch(target, part))
            finally:
                if self._part is not None and self._part.is_open:
                    await in_thread(self._part.close)
        self._source.emit(ArtifactSaved(self._source.run_id, saved.path, saved.size))
        return saved

    async def _claim(self, name: str) -> Path:
        """The target; where there is no such file yet, its partial file is opened.

        Another download to the same file, in this process or another, is waited for as long as
        something happens to its partial file.
        """
        pause, seen, since = _FIRST_PAUSE, None, anyio.current_time()
        while True:
            target, there = await in_thread(_target, self._destination, name)
            if there or await in_thread(self._open, target):
                return target
            state = await in_thread(_state, partial_names(target)[0])
            if state != seen:
                seen, since = state, anyio.current_time()
            elif anyio.current_time() - since >= self._source.policy.busy_patience:
                reason = f"{target} is being downloaded already, and nothing new comes"
                raise self._source.error(reason, lasting=False)
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _open(self, target: Path) -> bool:
        """Open the partial file; False where somebody else has it, or has just finished it."""
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
        """Fetch what is missing, prove that it is the artifact, and give it its name."""
        meter = Meter(self._source.run_id, self._source.emit, part.count)
        try:
            await self._fill(part, meter)
        finally:
            meter.last()
        await asyncio.sleep(0)  # a cancellation that came meanwhile is heard before the last step
        try:
            while (size := await in_thread(self._finish, part)) is None:
                pass
        except FileExistsError:  # of somebody who does not heed our lock, or has none to heed
            kept = await self._keep(target)
            await in_thread(part.reset)
            return kept
        checksum = None if part.digest is None else part.digest.checksum
        return SavedFile(os.fspath(target), size, checksum)

    async def _fill(self, part: PartialFile, meter: Meter) -> None:
        """Fetch what is missing; begin again where what is left of an earlier try is stale."""
        resumed = part.info is not None
        filling = Filling(self._source, part, meter, self._connections)
        try:
            await filling.run()
        except ArtifactChangedError:
            await in_thread(part.reset)
            if not resumed or filling.fetched:
                raise
            meter.received = 0
            await Filling(self._source, part, meter, self._connections).run()

    def _finish(self, part: PartialFile) -> int | None:
        """Publish the file once it is sure that every byte is there and the checksum is right.

        Returns:
            The size; None where more is to be read for the checksum: call again. So a large file
            can be cancelled between, and a small one takes one turn in a thread.
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
        """What is there already, where it is this very artifact."""
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
            raise self._source.error(f"{target} exists already, and is something else")
        await in_thread(remove_leftovers, target)
        return saved

    async def _checksum(self, info: ObjectInfo) -> Checksum:
        """The checksum of an object for whose first byte the store gave none.

        It may give one with the whole. Otherwise all of the bytes are fetched and counted.
        """
        reader = Reader(self._source, Reading(info))
        try:
            info = await reader.start()
            if info.checksum is not None:
                return info.checksum
            return await self._counted(reader)
        finally:
            await reader.aclose()

    async def _counted(self, reader: Reader) -> Checksum:
        """The checksum of what `reader` gives."""
        digest = Digest(ALGORITHM)
        chunks: list[bytes] = []
        gathered = 0
        while chunk := await reader.read():
            chunks.append(chunk)
            gathered += len(chunk)
            if gathered >= _GATHERED:
                await in_thread(digest.feed, digest.position, chunks)
                chunks, gathered = [], 0
        digest.feed(digest.position, chunks)
        return digest.checksum


async def save(source: Source, folder: Path, before: SavedFile | None) -> SavedFile:
    """Have an artifact in a folder of its own, as cheaply as it can be had.

    Args:
        source: The artifact.
        folder: The folder, made where there is none.
        before: What an earlier call gave, for this folder or another. Where the file is in
            `folder` and as it was, nothing is asked for. Where it is there but is not (it was
            cut short, say), it is set aside: it keeps its bytes as ``NAME.damaged``, and
            leaves its name to the whole one.

    Raises:
        AmigoError: As `Artifacts.download`.
    """
    if before is not None:
        path = folder / Path(before.path).name
        found = replace(before, path=os.fspath(path))
        with explained(source.run_id, folder):
            if await is_intact(found):
                return found
            await in_thread(_set_aside, path)
    return await Download(source, f"{folder}{os.sep}", sums=True).run()


async def is_intact(saved: SavedFile) -> bool:
    """Whether the file is there with its size and checksum.

    Raises:
        OSError: If it cannot be read.
    """
    fd = await in_thread(_open_if_regular, saved.path)
    if fd is None:
        return False
    try:
        if saved.checksum is None or (await in_thread(os.fstat, fd)).st_size != saved.size:
            return False
        digest = Digest(saved.checksum.algorithm)
        # A step at a time, so that it can be cancelled.
        while digest.position < saved.size and await in_thread(digest.step, fd):
            pass
        return digest.checksum == saved.checksum
    finally:
        await in_thread(os.close, fd)


def _open_if_regular(path: str) -> int | None:
    """The file, open for reading; None where there is none."""
    try:
        return open_regular(path, os.O_RDONLY, follow=True)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise


def _size(path: Path) -> int | None:
    """The size of a file; None where there is none."""
    return path.stat().st_size if path.is_file() else None


def _set_aside(path: Path) -> None:
    """Give a file another name, where it has anything in it; otherwise remove it."""
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
    """What changes of a file when something is written to it; None where it is gone."""
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _target(destination: str, name: str) -> tuple[Path, bool]:
    """The file to write, `name` in a folder or `destination` itself, and whether it is there."""
    path = Path(destination)
    is_folder = path.is_dir()
    if destination.endswith(os.sep) and not is_folder:
        path.mkdir(parents=True, exist_ok=True)
        is_folder = True
    target = path / name if is_folder else path
    return target, os.path.lexists(target)
