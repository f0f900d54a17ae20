"""One download, from the link to the file under its final name."""

from __future__ import annotations

import os
from pathlib import Path

from amigo_async.artifacts.digest import Digest
from amigo_async.artifacts.filling import Filling
from amigo_async.artifacts.part import BusyError, PartialFile, remove_leftovers
from amigo_async.artifacts.plan import Reading
from amigo_async.artifacts.progress import Meter
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.seam import Emit
from amigo_async.artifacts.source import Source
from amigo_async.artifacts.threads import explained, in_thread
from amigo_async.errors import ArtifactChangedError, ArtifactTruncatedError
from amigo_async.events import ArtifactSaved
from amigo_async.wire.names import safe_name
from amigo_async.wire.objects import ObjectInfo
from amigo_async.wire.ranges import missing_spans


class Download:
    """Brings the artifact of `source` to `destination`.

    Args:
        source: The artifact.
        destination: A folder or a file name.
        connections: How many ranges to fetch side by side.
        emit: Where the events go.
    """

    def __init__(self, source: Source, destination: str, connections: int, emit: Emit) -> None:
        self._source = source
        self._destination = destination
        self._connections = connections
        self._emit = emit

    async def run(self) -> Path:
        """Do it; see `Artifacts.download`."""
        link = await self._source.link()
        name = safe_name(link.presigned_url, f"artifacts-{self._source.run_id}")
        with explained(self._source.run_id, Path(self._destination)):
            target, there = await in_thread(_target, self._destination, name)
            if there:
                size = await self._keep(target)
            else:
                size = await self._fetch(target)
        self._emit(ArtifactSaved(self._source.run_id, os.fspath(target), size))
        return target

    async def _fetch(self, target: Path) -> int:
        """Fetch what is missing, prove that it is the artifact, and give it its name."""
        part = PartialFile(target, self._source.run_id)
        try:
            try:
                await in_thread(part.open)
            except BusyError:
                raise self._source.error(f"{target} is being downloaded already") from None
            meter = Meter(self._source.run_id, self._emit, part.count)
            try:
                await self._fill(part, meter)
            finally:
                meter.last()
            size = await self._verify(part)
            await in_thread(part.publish, size)
        finally:
            if part.is_open:
                await in_thread(part.close)
        return size

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

    async def _verify(self, part: PartialFile) -> int:
        """The size, once it is sure that every byte is there and the checksum is right."""
        size = None if part.info is None else part.info.size
        if size is None or missing_spans(part.received, size):
            raise self._source.error("bytes are missing", ArtifactTruncatedError)
        digest = part.digest
        if digest is None:
            return size
        await _complete(digest, part.fd, size)
        if not digest.matches:
            await in_thread(part.reset)
            kind = digest.expected.algorithm
            raise self._source.error(f"its {kind} is not the one the store gives")
        return size

    async def _keep(self, target: Path) -> int:
        """The size of a file that is there already, where it is this very artifact."""
        reader = Reader(self._source, Reading(stop=1))
        try:
            info = await reader.start()
        finally:
            await reader.aclose()
        if info.checksum is None:
            raise self._source.error(
                f"{target} exists already, and the store offers no checksum to compare it with"
            )
        if not await _is_same(target, info):
            raise self._source.error(f"{target} exists already, and is something else")
        await in_thread(remove_leftovers, target)
        return info.size or 0


async def _is_same(path: Path, info: ObjectInfo) -> bool:
    """Whether the file has the size and the checksum of the object."""
    if info.checksum is None or not await in_thread(path.is_file):
        return False
    file = await in_thread(path.open, "rb", buffering=0)
    try:
        size = (await in_thread(os.fstat, file.fileno())).st_size
        if size != info.size:
            return False
        digest = Digest(info.checksum)
        await _complete(digest, file.fileno(), size)
        return digest.matches
    finally:
        await in_thread(file.close)


async def _complete(digest: Digest, fd: int, size: int) -> None:
    """Let `digest` read on to `size`, a step at a time so that it can be cancelled."""
    while digest.position < size and await in_thread(digest.step, fd):
        pass


def _target(destination: str, name: str) -> tuple[Path, bool]:
    """The file to write, `name` in a folder or `destination` itself, and whether it is there."""
    path = Path(destination)
    if destination.endswith(os.sep):
        path.mkdir(parents=True, exist_ok=True)
    target = path / name if path.is_dir() else path
    return target, os.path.lexists(target)
