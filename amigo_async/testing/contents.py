"""The bytes of artifacts: small documents, and noise of any size that is held nowhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

_BLOCK = 1024 * 1024
_EPOCH = (2024, 1, 1, 0, 0, 0)  # a ZIP's times must not make its bytes differ


class Content(Protocol):
    """Bytes that can be read from anywhere."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` up to `stop`, both within the size."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` up to `stop`."""
        return memoryview(self.data)[start:stop]


class Noise:
    """Bytes that look random, the same for the same seed, each block of 1 MiB different.

    Args:
        seed: What they are made from.
        size: How many there are.
    """

    def __init__(self, seed: str, size: int) -> None:
        self.size = size
        self._seed = seed
        self._base = random.Random(seed).randbytes(min(_BLOCK, size))  # noqa: S311  # repeatable

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` up to `stop`."""
        found = bytearray()
        while start < stop:
            number, offset = divmod(start, _BLOCK)
            taken = min(stop - start, _BLOCK - offset)
            found += self._part(number, offset, offset + taken)
            start += taken
        return memoryview(found)

    def _part(self, number: int, start: int, stop: int) -> bytes:
        """A part of a block: the base, its first bytes replaced by what only this block has."""
        head = hashlib.sha512(f"{self._seed} {number}".encode()).digest()
        return head[start:stop] + self._base[max(start, len(head)) : max(stop, len(head))]


def blocks(content: Content) -> Iterator[memoryview]:
    """All of `content`, a block at a time."""
    for at in range(0, content.size, _BLOCK):
        yield content.read(at, min(content.size, at + _BLOCK))


def packed(form: str, document: dict[str, Any]) -> bytes:
    """A run's results as they are downloaded: a ZIP of JSON files, or one JSON in gzip."""
    whole = msgspec.json.format(msgspec.json.encode(document), indent=2)
    if form == "json.gz":
        return gzip.compress(whole, mtime=0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("run.json", _EPOCH), whole, zipfile.ZIP_DEFLATED)
        for number, result in enumerate(document["unit_test_run_results"]):
            name = zipfile.ZipInfo(f"unit_tests/{number + 1:03}.json", _EPOCH)
            text = msgspec.json.format(msgspec.json.encode(result), indent=2)
            archive.writestr(name, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
