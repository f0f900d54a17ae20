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

    Attributes:
        loop_time: The time on the clock of the event loop, as `anyio.current_time`.
    """

    def __init__(self) -> None:
        self._least = -math.inf
        self._most = math.inf
        self.loop_time = loop_time

    def observe(self, date: float, sent: float, received: float) -> None:
        """Learn from a response.

        Args:
            date: Its ``Date``, as seconds since the epoch.
            sent: The loop's time at which its request was sent.
            received: The loop's time at which its headers were there.
        """
        least, most = date - received, date + 1.0 - sent
        self._least, self._most = max(self._least, least), min(self._most, most)
        if self.loop_time is loop_time:
            # That of this very loop, to which its times belong: to ask for it each time takes long.
            self.loop_time = asyncio.get_running_loop().time
        if self._least > self._most:
            # The server's clock was set, or drifted away from ours: only the newest word counts.
            self._least, self._most = least, most

    def now(self, at: float | None = None) -> float:
        """The latest time it can be on the server, as seconds since the epoch.

        What expires is taken for expired early rather than late.

        Args:
            at: When, on the loop's clock; None for now.
        """
        if self._most == math.inf:
            return time.time()
        return (self.loop_time() if at is None else at) + self._most

    @property
    def is_told(self) -> bool:
        """Whether a response has told the server's time."""
        return self._least != -math.inf

    def earliest(self, at: float | None = None) -> float:
        """The earliest time it can be on the server, as seconds since the epoch.

        Args:
            at: As for `now`.
        """
        if self._least == -math.inf:
            return time.time()
        return (self.loop_time() if at is None else at) + self._least

    def utcnow(self) -> datetime:
        """`now` as an aware datetime."""
        return datetime.fromtimestamp(self.now(), UTC)

    def until(self, instant: float, at: float | None = None) -> float:
        """Seconds until it is surely `instant` (since the epoch) on the server; at least 0.

        Args:
            instant: When, in seconds since the epoch.
            at: From when on; as for `now`.
        """
        return max(0.0, instant - self.earliest(at))
