"""Read and decompress the body of a response, up to a limit."""

from __future__ import annotations

import math
import zlib
from typing import Final

import aiohttp

from amigo_async.protocol.responses import BodyError, OversizeError

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024

# Sent as Accept-Encoding; deflate is decoded as well.
ACCEPTED: Final = "gzip"
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS  # zlib detects which by the first bytes

# Bytes read of the body of an error, more than any message that is meant to be read.
_ERROR_BYTES: Final = 1024 * 1024


async def read_body(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, BodyError | None]:
    """Read the body of `answer` to its end, or up to the limit.

    Args:
        answer: The response, not decompressed by aiohttp, which may turn one byte into a thousand.
        most: Bytes that may be read, and bytes that they may decompress to.

    Returns:
        The body and None, or its beginning and what is wrong with the rest. The connection is
        closed in the latter case.

    Raises:
        aiohttp.ClientError: If the connection breaks.
    """
    success = 200 <= answer.status < 300
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    compressed = encoding in _COMPRESSED
    most = most if success else min(most, _ERROR_BYTES)
    if not compressed and (answer.content_length or math.inf) <= most:
        return await answer.read(), None  # aiohttp reads no more than the Content-Length
    buffer = _BodyBuffer(most, compressed=compressed)
    flaw = None
    try:
        while piece := await answer.content.readany():
            buffer.add(piece)
        buffer.finish()
    except BodyError as error:
        answer.close()
        flaw = error
    except BaseException:
        answer.close()
        raise
    return b"".join(buffer.pieces), flaw


class _BodyBuffer:
    """Collects a body, decompressed.

    Args:
        most: Bytes that may be received, and bytes that they may decompress to.
        compressed: Whether the body is compressed.
    """

    def __init__(self, most: int, *, compressed: bool) -> None:
        self.pieces: list[bytes] = []
        self._most = most
        self._received = 0
        self._size = 0
        self._decompressor = zlib.decompressobj(_GZIP_OR_ZLIB) if compressed else None

    def add(self, piece: bytes) -> None:
        """Add the next piece.

        Raises:
            BodyError: If the body is too large, or cannot be decompressed.
        """
        self._received += len(piece)
        if self._decompressor is not None:
            try:
                piece = self._decompressor.decompress(piece, self._most + 1 - self._size)
            except zlib.error:
                raise BodyError("it cannot be decompressed") from None
        self._size += len(piece)
        self.pieces.append(piece)
        if max(self._size, self._received) > self._most:
            raise OversizeError(self._most)
        if self._decompressor is not None and self._decompressor.unused_data:
            raise BodyError("it goes on after the end of the compressed data")

    def finish(self) -> None:
        """Note that there is no further piece.

        Raises:
            BodyError: If the compressed data is incomplete.
        """
        if self._decompressor is not None and self._received and not self._decompressor.eof:
            raise BodyError("its compressed data is incomplete")
