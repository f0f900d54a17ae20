"""One download, from the link to the file under its final name."""

from __future__ import annotations

import asyncio
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
        self._part: PartialFile | None = None

    async def run(self) -> Path:
        """Do it; see `Artifacts.download`."""
        link = await self._source.link()
        name = safe_name(link.presigned_url, f"artifacts-{self._source.run_id}")
        with explained(self._source.run_id, Path(self._destination)):
            try:
                target = await in_thread(self._claim, name)
                size = await (self._keep(target) if self._part is None else self._fetch(self._part))
            finally:
                if self._part is not None and self._part.is_open:
                    await in_thread(self._part.close)
        self._emit(ArtifactSaved(self._source.run_id, os.fspath(target), size))
        return target

    def _claim(self, name: str) -> Path:
        """The target; where there is no such file yet, its partial file is opened."""
        target, there = _target(self._destination, name)
        if not there:
            self._part = PartialFile(target, self._source.run_id)
            try:
                self._part.open()
            except BusyError:
                raise self._source.error(f"{target} is being downloaded already") from None
        return target

    async def _fetch(self, part: PartialFile) -> int:
        """Fetch what is missing, prove that it is the artifact, and give it its name."""
        meter = Meter(self._source.run_id, self._emit, part.count)
        try:
            await self._fill(part, meter)
        finally:
            meter.last()
        await asyncio.sleep(0)  # a cancellation that came meanwhile is heard before the last step
        while (size := await in_thread(self._finish, part)) is None:
            pass
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

    def _finish(self, part: PartialFile) -> int | None:
        """Publish the file once it is sure that every byte is there and the checksum is right.

        Returns:
            The size; None where more is to be read for the checksum: call again. So a large file
            can be cancelled between, and a small one takes one turn in a thread.
        """
        part.write_held()
        size = None if part.info is None else part.info.size
        if size is None or missing_spans(part.received, size):
            raise self._source.error("bytes are missing", ArtifactTruncatedError)
        digest = part.digest
        if digest is not None:
            if digest.position < size and digest.step(part.fd):
                return None
            if not digest.matches:
                part.reset()
                kind = digest.expected.algorithm
                raise self._source.error(f"its {kind} is not the one the store gives")
        part.publish(size)
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
    file = await in_thread(lambda: path.open("rb", buffering=0))
    try:
        size = (await in_thread(os.fstat, file.fileno())).st_size
        if size != info.size:
            return False
        digest = Digest(info.checksum)
        # A step at a time, so that it can be cancelled.
        while digest.position < size and await in_thread(digest.step, file.fileno()):
            pass
        return digest.matches
    finally:
        await in_thread(file.close)


def _target(destination: str, name: str) -> tuple[Path, bool]:
    """The file to write, `name` in a folder or `destination` itself, and whether it is there."""
    path = Path(destination)
    is_folder = path.is_dir()
    if destination.endswith(os.sep) and not is_folder:
        path.mkdir(parents=True, exist_ok=True)
        is_folder = True
    target = path / name if is_folder else path
    return target, os.path.lexists(target)
