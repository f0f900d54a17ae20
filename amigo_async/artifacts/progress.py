"""Progress by event, not more than ten a second."""

from __future__ import annotations

import asyncio

from amigo_async.artifacts.source import Emit
from amigo_async.events import ArtifactProgress

# With the last event, which does not wait, that makes at most ten in any second.
_INTERVAL = 0.125


class Meter:
    """Counts the bytes of one artifact and tells about them now and then.

    Args:
        run_id: The run.
        emit: Where the events go.
        received: Bytes that were there before.
    """

    def __init__(self, run_id: str, emit: Emit, received: int = 0) -> None:
        self.total: int | None = None
        self.received = received
        self._run_id = run_id
        self._emit = emit
        self._told: int | None = None
        self._next = 0.0

    def add(self, count: int) -> None:
        """Note `count` more bytes; tell, unless it was done just now."""
        self.received += count
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + _INTERVAL
            self._tell()

    def last(self) -> None:
        """Tell the final count, unless it was told already."""
        if self._told != self.received:
            self._tell()

    def _tell(self) -> None:
        self._told = self.received
        self._emit(ArtifactProgress(self._run_id, self.received, self.total))
