"""The checksum of a file, computed while it comes as far as it comes in order."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from typing import Final, Protocol

from amigo_async.wire.objects import Checksum

# What is computed where the store says nothing.
ALGORITHM: Final = "sha256"
# Bytes hashed in one go: some milliseconds, so that a cancellation need not wait.
_STEP = 16 * 1024 * 1024
_BLOCK = 1024 * 1024


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class Digest:
    """A checksum that is computed. Its methods block: call them in a thread.

    Args:
        algorithm: One of `ALGORITHMS`.

    Attributes:
        position: How many bytes have been counted, from the first one.
    """

    def __init__(self, algorithm: str) -> None:
        self.position = 0
        self._algorithm = algorithm
        self._hash: _Hash = (
            _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)
        )

    def feed(self, offset: int, chunks: Iterable[bytes]) -> None:
        """Count what has been written at `offset`, where it is what comes next in order."""
        if offset == self.position:
            for chunk in chunks:
                self._hash.update(chunk)
                self.position += len(chunk)

    def step(self, fd: int) -> bool:
        """Read on from where the digest is; False at the end of the file."""
        for _ in range(_STEP // _BLOCK):
            data = os.pread(fd, _BLOCK, self.position)
            if not data:
                return False
            self.feed(self.position, [data])
        return True

    @property
    def checksum(self) -> Checksum:
        """The checksum of what was counted."""
        return Checksum(self._algorithm, self._hash.hexdigest())
