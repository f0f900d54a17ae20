"""Read the body of a response, decompressed, and no more of it than is allowed."""

from __future__ import annotations

import math
import zlib
from typing import Final

import aiohttp

from amigo_async.protocol.responses import BodyError, OversizeError

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024

# What is asked for; what comes as deflate is unpacked as well.
ACCEPTED: Final = "gzip"
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS  # its first bytes tell which

# Of the body of an error: more than any says that is meant to be read.
_ERROR_BYTES: Final = 1024 * 1024


def body_at_hand(answer: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The body of `answer`, where it came together with the head, as a small one does.

    Args:
        answer: As for `read_body`.
        most: As for `read_body`.

    Returns:
        The body; None where it is to be awaited, or to be looked at more closely.
    """
    if not answer.content.is_eof() or "Content-Encoding" in answer.headers:
        return None
    size = answer.content_length  # aiohttp reads no more than was announced
    return answer.content.read_nowait() if size is not None and size <= most else None


async def read_body(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, BodyError | None]:
    """Read the body of `answer` to its end, or as far as it may be read.

    Args:
        answer: The response. It must come as it was sent: aiohttp, told to decompress, may give
            a thousand bytes for one.
        most: How many bytes may be read, and how many may become of them.

    Returns:
        The body, or its beginning and why that is all. The connection is closed then.

    Raises:
        aiohttp.ClientError: If the connection breaks.
    """
    success = 200 <= answer.status < 300
    packed = answer.headers.get("Content-Encoding", "").strip().lower() in _PACKED
    most = most if success else min(most, _ERROR_BYTES)
    if not packed and (answer.content_length or math.inf) <= most:
        return await answer.read(), None  # aiohttp reads no more than was announced
    intake = _Intake(most, packed=packed)
    flaw = None
    try:
        while piece := await answer.content.readany():
            intake.take(piece)
        intake.end()
    except BodyError as error:
        answer.close()
        flaw = error
    except BaseException:
        answer.close()
        raise
    return b"".join(intake.pieces), flaw


class _Intake:
    """What has come of a body.

    Args:
        most: How many bytes there may be, packed or not.
        packed: Whether they are to be unpacked.
    """

    def __init__(self, most: int, *, packed: bool) -> None:
        self.pieces: list[bytes] = []
        self._most = most
        self._received = 0
        self._size = 0
        self._unpacking = zlib.decompressobj(_GZIP_OR_ZLIB) if packed else None

    def take(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            BodyError: If it is too much, or cannot be unpacked.
        """
        self._received += len(piece)
        if self._unpacking is not None:
            try:
                piece = self._unpacking.decompress(piece, self._most + 1 - self._size)
            except zlib.error:
                raise BodyError("it cannot be decompressed") from None
        self._size += len(piece)
        self.pieces.append(piece)
        if max(self._size, self._received) > self._most:
            raise OversizeError(self._most)
        if self._unpacking is not None and self._unpacking.unused_data:
            raise BodyError("it goes on where its compression has ended")

    def end(self) -> None:
        """There is no further piece.

        Raises:
            BodyError: If there had to be one.
        """
        if self._unpacking is not None and self._received and not self._unpacking.eof:
            raise BodyError("its compression has not come to its end")
