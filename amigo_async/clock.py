"""The server's clock, as far as its responses tell it."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime


def loop_time() -> float:
    """The time on the clock of the running event loop, as `anyio.current_time`, and quicker."""
    return asyncio.get_running_loop().time()


class ServerClock:
    """Tells the server's time from the ``Date`` of its responses and the loop's clock.

    A ``Date`` has whole seconds, so one response bounds the difference between the two clocks
    to a second and the time the request took. Each further one narrows the bounds. The local
    wall clock is used only as long as no response has told better.
    """

    def __init__(self) -> None:
        self._least = -math.inf
        self._most = math.inf

    def observe(self, date: float, sent: float, received: float) -> None:
        """Learn from a response.

        Args:
            date: Its ``Date``, as seconds since the epoch.
            sent: The loop's time at which its request was sent.
            received: The loop's time at which its headers were there.
        """
        least, most = date - received, date + 1.0 - sent
        self._least, self._most = max(self._least, least), min(self._most, most)
        if self._least > self._most:
            # The server's clock was set, or drifted away from ours: only the newest word counts.
            self._least, self._most = least, most

    def now(self) -> float:
        """The latest time it can be on the server, as seconds since the epoch.

        What expires is taken for expired early rather than late.
        """
        return time.time() if math.isinf(self._most) else loop_time() + self._most

    def earliest(self) -> float:
        """The earliest time it can be on the server, as seconds since the epoch."""
        return time.time() if math.isinf(self._least) else loop_time() + self._least

    def utcnow(self) -> datetime:
        """`now` as an aware datetime."""
        return datetime.fromtimestamp(self.now(), UTC)

    def until(self, instant: float) -> float:
        """Seconds until it is surely `instant` (since the epoch) on the server; at least 0."""
        return max(0.0, instant - self.earliest())
