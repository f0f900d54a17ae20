"""The bytes of an artifact as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator

from amigo_async.artifacts.progress import Meter
from amigo_async.artifacts.reader import Reader
from amigo_async.wire.objects import ObjectInfo


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
