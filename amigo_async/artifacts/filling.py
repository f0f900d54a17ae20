"""Fills a partial file from one connection, or from several side by side."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from typing import Final

import anyio

from amigo_async.artifacts.partfile import MAX_CHUNKS, PartialFile
from amigo_async.artifacts.plan import Reading
from amigo_async.artifacts.progress import Meter
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.source import Source
from amigo_async.cancellation import finish
from amigo_async.protocol.ranges import Span, missing_spans
from amigo_async.threads import in_thread

MAX_CONNECTIONS: Final = 16
# The least that one connection fetches with one request where there are several.
PIECE: Final = 8 * 1024 * 1024
# Bytes waiting to be written, in two buffers a connection: one fills while one is written.
_MEMORY = 16 * 1024 * 1024
_LARGEST_BUFFER = 4 * 1024 * 1024
# Seconds after which a buffer is written although it is not full, so that a process killed on a
# slow line does not lose more.
_LONGEST_WAIT = 1.0


class WriteBehind:
    """Gathers what comes, and writes it in a thread while more is gathered.

    Args:
        part: The partial file.
        offset: Where the first byte belongs.
        size: Bytes after which to write.
    """

    def __init__(self, part: PartialFile, offset: int, size: int) -> None:
        self._part = part
        self._offset = offset
        _keep_blocks()
        self._size = size
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + _LONGEST_WAIT
        self._job: asyncio.Future[None] | None = None

    async def add(self, chunk: bytes) -> None:
        """Take `chunk`; write where enough has been gathered.

        Raises:
            OSError: If something could not be written.
        """
        self._chunks.append(chunk)
        self._gathered += len(chunk)
        full = self._gathered >= self._size or len(self._chunks) == MAX_CHUNKS
        if full or self._loop.time() >= self._due:
            await self._write()

    def take_all(self, size: int | None) -> list[bytes]:
        """What was gathered, where it is the whole of an object of `size` bytes; else nothing."""
        chunks: list[bytes] = []
        if self._gathered == size and self._offset == 0:
            chunks, self._chunks = self._chunks, chunks
        return chunks

    async def aclose(self) -> None:
        """Write what is left, also where the caller is cancelled, and see everything done.

        Raises:
            OSError: If something could not be written.
        """
        if self._chunks or self._job is not None:
            await finish(self._drain())

    async def _drain(self) -> None:
        await self._write()
        await self._settle()

    async def _write(self) -> None:
        """Begin to write what was gathered, once what was begun before is done."""
        await self._settle()
        self._due = self._loop.time() + _LONGEST_WAIT
        if self._chunks:
            chunks, offset = self._chunks, self._offset
            self._chunks, self._gathered, self._offset = [], 0, offset + self._gathered
            self._job = asyncio.ensure_future(in_thread(self._part.write, offset, chunks))

    async def _settle(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            await finish(job)


@cache
def _keep_blocks() -> None:
    """Let freed blocks of the size that a socket reads be kept for the next ones.

    glibc gives them back to the system at once, and the page faults of the next one cost a quarter
    of the throughput. Once in a process a larger block has been freed it keeps them.
    """
    bytearray(2 * _LARGEST_BUFFER)


class Filling:
    """Fetches what a partial file lacks.

    Args:
        source: The artifact.
        part: The partial file, open.
        meter: Counts the bytes.
        connections: How many ranges to fetch side by side.

    Attributes:
        fetched: Bytes that have come so far, not counting those that were there before.
    """

    def __init__(self, source: Source, part: PartialFile, meter: Meter, connections: int) -> None:
        self.fetched = 0
        self._source = source
        self._part = part
        self._meter = meter
        self._connections = connections
        self._buffer_size = min(_LARGEST_BUFFER, _MEMORY // (2 * connections))
        self._gaps: deque[Span] = deque()
        self._at_work: set[Reader] = set()

    async def run(self) -> None:
        """Fetch it; afterwards the partial file knows the size and has every byte.

        Raises:
            APIError: What the API answers to a request for a link.
            ArtifactError: If the store will not give all of it.
            OSError: If it cannot be written.
            TransportError: If the API does not answer.
        """
        info = self._part.info
        if info is None:
            first: Reader | None = await self._begin()
        elif info.size is None:
            first = Reader(self._source, Reading(info, offset=self._part.count))
        else:
            first = None
            self._share(missing_spans(self._part.received, info.size))
        self._meter.total = None if self._part.info is None else self._part.info.size
        waiting = len(self._gaps) + (first is not None)
        others = [None] * (min(self._connections, waiting) - (first is not None))
        jobs: list[Callable[[], Awaitable[None]]] = [
            partial(self._work, reader) for reader in [*([first] if first else []), *others]
        ]
        if (self._meter.total or 0) > self._buffer_size:
            jobs.append(self._take_room)
        await side_by_side(jobs)

    async def _take_room(self) -> None:
        """Take the room on the disk while the first bytes come; small files do without."""
        while await in_thread(self._part.allocate):
            pass

    async def _begin(self) -> Reader:
        """The first request: it tells what the object is, and whether it comes in ranges."""
        reader = Reader(self._source, Reading(stop=PIECE if self._connections > 1 else None))
        try:
            info = await reader.start()
            if reader.reading.stop is not None and not info.recognizable:
                # Ranges of something that cannot be recognized might be of two objects.
                await reader.aclose()
                reader = Reader(self._source, Reading())
                info = await reader.start()
        except BaseException:
            await reader.aclose()
            raise
        self._part.know(info)
        if reader.reading.stop is not None and info.size is not None:
            self._share(missing_spans([(0, reader.reading.stop)], info.size))
        return reader

    def _share(self, gaps: Sequence[Span]) -> None:
        """Cut `gaps` into one piece for each connection, so that few answers are waited for."""
        left = sum(stop - start for start, stop in gaps)
        most = max(PIECE, -(-left // self._connections)) if self._connections > 1 else left
        for start, stop in gaps:
            cuts = [*range(start, stop, most), stop]
            self._gaps.extend(itertools.pairwise(cuts))

    def _take(self) -> Span | None:
        """What the next request is to fetch: half of what the slowest has left in the end."""
        if self._gaps:
            return self._gaps.popleft()
        slowest = max(self._at_work, key=_left, default=None)
        if slowest is None or _left(slowest) < 2 * PIECE:
            return None
        return slowest.give_up(_left(slowest) // 2)

    async def _work(self, reader: Reader | None) -> None:
        """Take one piece after the other, `reader` first."""
        if reader is not None:
            await self._pour(reader)
        while (span := self._take()) is not None:
            await self._pour(Reader(self._source, Reading(self._part.info, *span)))

    async def _pour(self, reader: Reader) -> None:
        """Write what `reader` gives, also what has come when it fails or is cancelled."""
        writer = WriteBehind(self._part, reader.reading.offset, self._buffer_size)
        self._at_work.add(reader)
        try:
            while chunk := await reader.read():
                self.fetched += len(chunk)
                self._meter.add(len(chunk))
                await writer.add(chunk)
            info = reader.reading.info
            self._part.learn(info)
            if info is not None and (chunks := writer.take_all(info.size)):
                self._part.hold(chunks)
        finally:
            self._at_work.remove(reader)
            await reader.aclose()
            await writer.aclose()


def _left(reader: Reader) -> int:
    """Bytes that `reader` is still to give; none where that is not known."""
    return 0 if reader.reading.end is None else reader.reading.end - reader.reading.offset


async def side_by_side(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run `jobs` together; the first that fails ends the others, and its error is raised."""
    if len(jobs) == 1:
        await jobs[0]()
        return
    failures: list[Exception] = []

    async def guarded(job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception as error:  # noqa: BLE001 # raised below, bare instead of in a group
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(guarded, job)
    if failures:
        raise failures[0]
