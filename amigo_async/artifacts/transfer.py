"""Fetches the missing ranges of a partial file, over one connection or several."""

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
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.source import Source, TransferProgress
from amigo_async.cancellation import finish
from amigo_async.protocol.ranges import Span, missing_spans
from amigo_async.threads import in_thread

MAX_CONNECTIONS: Final = 16
# Bytes that a request fetches at least, if there are several connections.
PIECE: Final = 8 * 1024 * 1024
# Bytes waiting to be written, in two buffers per connection: one is filled while the other one
# is being written.
_MEMORY = 16 * 1024 * 1024
_LARGEST_BUFFER = 4 * 1024 * 1024
# Seconds after which a buffer is written even if it is not full: what a process that is killed on
# a slow connection may lose.
_FLUSH_INTERVAL = 1.0


class WriteBehind:
    """Buffers received bytes and writes them in a thread while more are received.

    Args:
        part: The partial file.
        offset: Position of the first byte in the file.
        size: Bytes to buffer before they are written.
    """

    def __init__(self, part: PartialFile, offset: int, size: int) -> None:
        self._part = part
        self._offset = offset
        _keep_blocks()
        self._size = size
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + _FLUSH_INTERVAL
        self._job: asyncio.Future[None] | None = None

    async def add(self, chunk: bytes) -> None:
        """Buffer `chunk`, and start a write if the buffer is full or old.

        Raises:
            OSError: If an earlier write failed.
        """
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        full = self._buffered >= self._size or len(self._chunks) == MAX_CHUNKS
        if full or self._loop.time() >= self._due:
            await self._write()

    def take_all(self, size: int | None) -> list[bytes]:
        """Take the buffer if it holds a whole object of `size` bytes; otherwise return []."""
        chunks: list[bytes] = []
        if self._buffered == size and self._offset == 0:
            chunks, self._chunks = self._chunks, chunks
        return chunks

    async def aclose(self) -> None:
        """Write the rest and wait for all writes to end, even if the caller is cancelled.

        Raises:
            OSError: If a write failed.
        """
        if self._chunks or self._job is not None:
            await finish(self._drain())

    async def _drain(self) -> None:
        await self._write()
        await self._settle()

    async def _write(self) -> None:
        """Start writing the buffer once the write before has ended."""
        await self._settle()
        self._due = self._loop.time() + _FLUSH_INTERVAL
        if self._chunks:
            chunks, offset = self._chunks, self._offset
            self._chunks, self._buffered, self._offset = [], 0, offset + self._buffered
            self._job = asyncio.ensure_future(in_thread(self._part.write, offset, chunks))

    async def _settle(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            await finish(job)


@cache
def _keep_blocks() -> None:
    """Make the allocator keep freed blocks of the size that sockets read, for reuse.

    By default glibc returns them to the system at once, and the page faults of the next
    allocation cost a quarter of the throughput. After a process has freed one larger block,
    glibc keeps them.
    """
    bytearray(2 * _LARGEST_BUFFER)


class Transfer:
    """Fetches the missing ranges of a partial file.

    Args:
        source: The artifact.
        part: The partial file, open.
        progress: Counts the bytes.
        connections: Number of ranges to fetch concurrently.

    Attributes:
        fetched: Bytes received so far, without those of earlier downloads.
    """

    def __init__(
        self, source: Source, part: PartialFile, progress: TransferProgress, connections: int
    ) -> None:
        self.fetched = 0
        self._source = source
        self._part = part
        self._progress = progress
        self._connections = connections
        self._buffer_size = min(_LARGEST_BUFFER, _MEMORY // (2 * connections))
        self._gaps: deque[Span] = deque()
        self._active: set[Reader] = set()

    async def run(self) -> None:
        """Fetch everything; afterwards the partial file has every byte and knows the size.

        Raises:
            APIError: If the API refuses to give a link.
            ArtifactError: If the store does not serve all of the object.
            OSError: If the file cannot be written.
            TransportError: If the API cannot be reached.
        """
        info = self._part.info
        if info is None:
            first: Reader | None = await self._begin()
        elif info.size is None:
            first = Reader(self._source, Reading(info, offset=self._part.count))
        else:
            first = None
            self._share(missing_spans(self._part.received, info.size))
        self._progress.total = None if self._part.info is None else self._part.info.size
        waiting = len(self._gaps) + (first is not None)
        others = [None] * (min(self._connections, waiting) - (first is not None))
        jobs: list[Callable[[], Awaitable[None]]] = [
            partial(self._work, reader) for reader in [*([first] if first else []), *others]
        ]
        if (self._progress.total or 0) > self._buffer_size:
            jobs.append(self._preallocate)
        await _run_all(jobs)

    async def _preallocate(self) -> None:
        """Reserve the space on the disk while the first bytes arrive."""
        while await in_thread(self._part.allocate):
            pass

    async def _begin(self) -> Reader:
        """Send the first request, which tells what the object is and if the store serves ranges."""
        reader = Reader(self._source, Reading(stop=PIECE if self._connections > 1 else None))
        try:
            info = await reader.start()
            if reader.reading.stop is not None and not info.recognizable:
                # Without an ETag or a date, two ranges might be of two different objects.
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
        """Cut `gaps` into about one range per connection, to send as few requests as possible."""
        left = sum(stop - start for start, stop in gaps)
        most = max(PIECE, -(-left // self._connections)) if self._connections > 1 else left
        for start, stop in gaps:
            cuts = [*range(start, stop, most), stop]
            self._gaps.extend(itertools.pairwise(cuts))

    def _take(self) -> Span | None:
        """Return the next range to fetch; in the end, half of what the slowest reader has left."""
        if self._gaps:
            return self._gaps.popleft()
        slowest = max(self._active, key=_left, default=None)
        if slowest is None or _left(slowest) < 2 * PIECE:
            return None
        return slowest.give_up(_left(slowest) // 2)

    async def _work(self, reader: Reader | None) -> None:
        """Fetch one range after the other, that of `reader` first."""
        if reader is not None:
            await self._receive(reader)
        while (span := self._take()) is not None:
            await self._receive(Reader(self._source, Reading(self._part.info, *span)))

    async def _receive(self, reader: Reader) -> None:
        """Write what `reader` receives, even if it fails or is cancelled midway."""
        writer = WriteBehind(self._part, reader.reading.offset, self._buffer_size)
        self._active.add(reader)
        try:
            while chunk := await reader.read():
                self.fetched += len(chunk)
                self._progress.add(len(chunk))
                await writer.add(chunk)
            info = reader.reading.info
            self._part.info = info  # now with the size, also if the object was sent without it
            if info is not None and (chunks := writer.take_all(info.size)):
                self._part.hold(chunks)
        finally:
            self._active.remove(reader)
            await reader.aclose()
            await writer.aclose()


def _left(reader: Reader) -> int:
    """Return how many bytes `reader` has yet to read; 0 if that is unknown."""
    return 0 if reader.reading.end is None else reader.reading.end - reader.reading.offset


async def _run_all(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run `jobs` concurrently; the first failure cancels the others and is raised."""
    if len(jobs) == 1:
        await jobs[0]()
        return
    failures: list[Exception] = []

    async def guarded(job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception as error:  # noqa: BLE001 # raised below, not as an ExceptionGroup
            failures.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(guarded, job)
    if failures:
        raise failures[0]
