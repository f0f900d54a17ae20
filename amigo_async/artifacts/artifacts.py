"""``client.artifacts``: the artifacts of runs, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from amigo_async.artifacts.download import Download
from amigo_async.artifacts.filling import MAX_CONNECTIONS
from amigo_async.artifacts.plan import Reading
from amigo_async.artifacts.progress import Meter
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.source import Emit, FetchLink, Open, Policy, Seam, ServerNow, Source
from amigo_async.errors import ArgumentError
from amigo_async.files import check_path
from amigo_async.protocol.ranges import ObjectInfo


class Artifacts:
    """Streams and downloads artifacts.

    Broken and stalled connections, errors of the store that pass and links that expire are
    mended inside: a fresh link where one is needed, then a request for what is missing, of the
    same object. It gives up after five failures in a row without a new byte between them.

    Args:
        open: Asks the store for a URL.
        link: Fetches a link from the API.
        server_now: The time on the server's clock.
        emit: Where the events go.
        policy: How patient to be.

    Attributes:
        source: Makes the `Source` of a run's artifact. For batches; not part of the public API.
    """

    def __init__(
        self,
        *,
        open: Open,
        link: FetchLink,
        server_now: ServerNow,
        emit: Emit,
        policy: Policy | None = None,
    ) -> None:
        seam = Seam(open, link, server_now, emit)
        self.source = partial(Source, seam=seam, policy=policy or Policy())

    @asynccontextmanager
    async def stream(self, run_id: str) -> AsyncIterator[ArtifactStream]:
        """The artifact of a run, as it comes.

        ``async with client.artifacts.stream(run_id) as stream:`` gives an `ArtifactStream`,
        whose size, ETag and content type are known at once and which iterates over ``bytes``.
        The iteration ends only where the artifact does.

        Args:
            run_id: The run.

        Raises:
            ArtifactsNotReadyError: If the run has no artifacts (yet).
            APIError: What else the API answers to the request for a link.
            ArtifactError: If the store will not give the artifact.
            TransportError: If the API does not answer.
        """
        source = self.source(run_id)
        reader = Reader(source, Reading())
        try:
            info = await reader.start()
            meter = Meter(run_id, source.emit)
            meter.total = info.size
            stream = ArtifactStream(reader, info, meter)
            try:
                yield stream
            finally:
                await stream.aclose()
        finally:
            await reader.aclose()

    async def download(
        self, run_id: str, destination: str | os.PathLike[str], *, connections: int = 1
    ) -> Path:
        """Save the artifact of a run; the file has its name only when it is whole.

        Meanwhile there are ``NAME.part`` and ``NAME.part.jsonl`` beside it. They stay when the
        download fails, is cancelled or killed, and the next call for the same run and target
        goes on from there. The size is always verified, and the checksum where the store offers
        one (an MD5 as ETag, ``x-amz-checksum-sha256``, ``-sha1`` or ``-crc32``).

        A file that is there already is left as it is: if it is this very artifact its path is
        returned, otherwise an error is raised. Its size and the store's checksum tell; where the
        store offers no checksum, the artifact is fetched again to be compared with the file.

        Another download to the same file, in this or another process, is waited for; it ends
        with the same file. Where the file system knows no locks, only those of one process are
        told apart.

        Args:
            run_id: The run.
            destination: A folder that exists, or a name that ends with a slash (the folder is
                made): the file is called as in the store, made safe. Anything else is the name
                of the file, in a folder that exists.
            connections: How many ranges to fetch side by side, from 1 to 16; what a slow one has
                left is shared with the others. The memory they need together is bounded.

        Returns:
            The path of the file.

        Raises:
            ArgumentError: If `destination` or `connections` cannot be right.
            ArtifactsNotReadyError: If the run has no artifacts (yet).
            APIError: What else the API answers to the request for a link.
            ArtifactError: If the store will not give the artifact, the file cannot be written,
                exists and is something else, or is being downloaded already by somebody who
                gets no further for five minutes. Of it,
                `ArtifactChangedError` if the object changed meanwhile, and
                `ArtifactTruncatedError` if the store stops short of its end.
            TransportError: If the API does not answer.
        """
        path = check_path("destination", destination)
        if not 1 <= connections <= MAX_CONNECTIONS:
            raise ArgumentError(f"connections: give a number from 1 to {MAX_CONNECTIONS}")
        saved = await Download(self.source(run_id), path, connections).run()
        return Path(saved.path)


class ArtifactStream(AsyncIterator[bytes]):
    """Iterates over the bytes of an artifact; what breaks is mended inside.

    It holds no more than the connection does, some hundred KiB, however slowly it is read.

    Attributes:
        size: The size in bytes; None where the store does not say.
        etag: The ETag as the store sends it, with its quotes; None without one.
        content_type: The content type; None without one.
    """

    def __init__(self, reader: Reader, info: ObjectInfo, meter: Meter) -> None:
        self.size = info.size
        self.etag = info.etag
        self.content_type = info.content_type
        self._reader = reader
        self._meter = meter
        self._closed = False

    async def __anext__(self) -> bytes:
        """The next bytes, never empty.

        Raises:
            APIError: What the API answers to the request for a fresh link.
            ArtifactError: If the rest cannot be had; `ArtifactChangedError` if the object is
                another one now, `ArtifactTruncatedError` if the store stops short of its end.
            RuntimeError: If the stream's context has been left.
            StopAsyncIteration: If that was all: every byte has been given.
            TransportError: If the API does not answer.
        """
        if self._closed:
            raise RuntimeError("the stream is closed: iterate inside its `async with`")
        chunk = await self._reader.read()
        if not chunk:
            self._meter.last()
            raise StopAsyncIteration
        self._meter.add(len(chunk))
        return chunk

    async def aclose(self) -> None:
        """Let go of the connection."""
        self._closed = True
        await self._reader.aclose()
