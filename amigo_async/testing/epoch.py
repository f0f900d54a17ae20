"""The sandbox's clock and how it writes instants."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from email.utils import formatdate


class Epoch:
    """Seconds since the epoch that pass as the loop's clock does.

    On `amigo_async.testing.VirtualTimeLoop` they jump with every wait that is skipped.

    Attributes:
        skew: Seconds by which the clock is ahead of the machine's; negative for behind.
    """

    def __init__(self, skew: float) -> None:
        self.skew = skew
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, go by the clock of `loop`."""
        self._loop = loop
        self._offset = time.time() - loop.time()

    def now(self) -> float:
        """The present, in seconds since the epoch."""
        clock = time.time() if self._loop is None else self._offset + self._loop.time()
        return clock + self.skew

    def date(self) -> str:
        """The present as the ``Date`` header has it: whole seconds, rounded down."""
        return http_date(self.now())


def instant(seconds: float) -> datetime:
    """An aware datetime of whole milliseconds (rounded down), as the service's database keeps."""
    return datetime.fromtimestamp(int(seconds * 1000) / 1000, UTC)


def http_date(seconds: float) -> str:
    """An instant in the form of the ``Date`` and ``Last-Modified`` headers."""
    return formatdate(int(seconds), usegmt=True)


def iso(seconds: float) -> str:
    """An instant in the form of the API's bodies: RFC 3339, milliseconds, ``Z``."""
    return instant(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
