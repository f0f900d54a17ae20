"""``client.artifacts``: stream or download the artifact of a run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from amigo_async.artifacts.download import Download
from amigo_async.artifacts.plan import Reading
from amigo_async.artifacts.reader import Reader
from amigo_async.artifacts.source import (
    Emit,
    FetchLink,
    Open,
    Policy,
    ServerNow,
    Source,
    TransferProgress,
)
from amigo_async.artifacts.transfer import MAX_CONNECTIONS
from amigo_async.errors import ArgumentError
from amigo_async.files import check_path
from amigo_async.protocol.ranges import ObjectInfo


class Artifacts:
    """Streams and downloads the artifacts of runs.

    Broken or stalled connections, transient errors of the store and expired links are handled
    inside: a fresh link is fetched where one is needed, and only the missing bytes of the same
    object are requested again. After five failures in a row without a single new byte, an error
    is raised.

    Args:
        open: Sends a GET request to the store.
        link: Fetches a presigned link from the API.
        server_now: Returns the current time by the server's clock.
        emit: Receives the progress events.
        policy: Retry limits and pauses; None for the defaults.

    Attributes:
        source: Makes the `Source` of a run's artifact. Used by batches; not public.
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
        self.source = partial(
            Source,
            open=open,
            fetch_link=link,
            server_now=server_now,
            emit=emit,
            policy=policy or Policy(),
        )

    @asynccontextmanager
    async def stream(self, run_id: str) -> AsyncIterator[ArtifactStream]:
        """Stream the artifact of a run.

        The value of the context is an `ArtifactStream`. Its size, ETag and content type are known
        at once, and it iterates over ``bytes``. The iteration ends normally only after the last
        byte of the artifact.

        Example::

            async with client.artifacts.stream(run_id) as stream:
                async for data in stream:
                    print(len(data), "of", stream.size)

        Args:
            run_id: The run.

        Raises:
            ArtifactsNotReadyError: If the run has no artifacts (yet).
            APIError: If the API refuses to give a link.
            ArtifactError: If the store does not serve the artifact.
            TransportError: If the API cannot be reached.
        """
        source = self.source(run_id)
        reader = Reader(source, Reading())
        try:
            info = await reader.start()
            progress = TransferProgress(run_id, source.emit)
            progress.total = info.size
            stream = ArtifactStream(reader, info, progress)
            try:
                yield stream
            finally:
                await stream.aclose()
        finally:
            await reader.aclose()

    async def download(
        self, run_id: str, destination: str | os.PathLike[str], *, connections: int = 1
    ) -> Path:
        """Save the artifact of a run; the file gets its name only once it is complete.

        Until then, ``NAME.part`` and ``NAME.part.jsonl`` are in the same folder. They stay when
        the download fails, is cancelled or killed, and the next call for the same run and target
        resumes from them. The size is always verified, and so is the checksum if the store sends
        one (an MD5 as ETag, ``x-amz-checksum-sha256``, ``-sha1`` or ``-crc32``).

        An existing file is never overwritten. If it is this artifact its path is returned,
        otherwise an error is raised. The two are compared by size and checksum; if the store
        sends no checksum, the artifact is fetched again to compute one.

        If another download to the same file is in progress, in this or another process, this one
        waits for it and returns the same file. On file systems without locks, only downloads of
        the same process wait for each other.

        Example::

            path = await client.artifacts.download(run_id, "results/")
            print(path, path.stat().st_size)

        Args:
            run_id: The run.
            destination: A folder that exists, or a path that ends with a slash (the folder is
                created): the file is named as in the store, with unsafe characters replaced.
                Anything else is the path of the file, in a folder that exists.
            connections: Number of ranges to fetch concurrently, from 1 to 16. A connection that
                is done takes over half of what the slowest has left. Together they buffer at
                most 16 MiB.

        Returns:
            The path of the file.

        Raises:
            ArgumentError: If `destination` or `connections` is invalid.
            ArtifactsNotReadyError: If the run has no artifacts (yet).
            APIError: If the API refuses to give a link.
            ArtifactError: If the store does not serve the artifact; or the file cannot be
                written, exists with other content, or is being downloaded elsewhere without any
                progress for five minutes. `ArtifactChangedError` if the object changed during
                the download, `ArtifactTruncatedError` if the store stops before its end.
            TransportError: If the API cannot be reached.
        """
        path = check_path("destination", destination)
        if not 1 <= connections <= MAX_CONNECTIONS:
            raise ArgumentError(f"connections: give a number from 1 to {MAX_CONNECTIONS}")
        saved = await Download(self.source(run_id), path, connections).run()
        return Path(saved.path)


class ArtifactStream(AsyncIterator[bytes]):
    """Iterates over the bytes of an artifact, resuming where a connection breaks.

    Nothing is buffered beyond what the connection holds (some hundred KiB), however slowly the
    stream is read.

    Attributes:
        size: The size in bytes; None if the store does not send it.
        etag: The ETag as the store sends it, with its quotes; None without one.
        content_type: The content type; None without one.
    """

    def __init__(self, reader: Reader, info: ObjectInfo, progress: TransferProgress) -> None:
        self.size = info.size
        self.etag = info.etag
        self.content_type = info.content_type
        self._reader = reader
        self._progress = progress
        self._closed = False

    async def __anext__(self) -> bytes:
        """Return the next bytes, never empty.

        Raises:
            APIError: If the API refuses to give a fresh link.
            ArtifactError: If the rest cannot be fetched; `ArtifactChangedError` if the object
                has changed, `ArtifactTruncatedError` if the store stops before its end.
            RuntimeError: If the stream's ``async with`` block has been left.
            StopAsyncIteration: After the last byte.
            TransportError: If the API cannot be reached.
        """
        if self._closed:
            raise RuntimeError("the stream is closed: iterate inside its `async with`")
        chunk = await self._reader.read()
        if not chunk:
            self._progress.finish()
            raise StopAsyncIteration
        self._progress.add(len(chunk))
        return chunk

    async def aclose(self) -> None:
        """Release the connection."""
        self._closed = True
        await self._reader.aclose()
