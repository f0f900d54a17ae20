"""An estimate of the server's clock from the ``Date`` of its responses."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime


class ServerClock:
    """Estimates the server's time from the ``Date`` of its responses and the event loop's clock.

    A ``Date`` has whole seconds, so one response bounds the difference between the two clocks to a
    second plus the duration of the request. Each further response narrows these bounds. The local
    wall clock is used only until the first response.
    """

    def __init__(self) -> None:
        self._least = -math.inf
        self._most = math.inf

    def observe(self, date: float, sent: float, received: float) -> None:
        """Take a response into account.

        Args:
            date: Its ``Date`` in seconds since the epoch.
            sent: Loop time at which its request was sent.
            received: Loop time at which its headers were received.
        """
        least, most = date - received, date + 1.0 - sent
        self._least, self._most = max(self._least, least), min(self._most, most)
        if self._least > self._most:
            # The server's clock was set, or drifted away from ours: only the newest one counts.
            self._least, self._most = least, most

    def now(self, at: float | None = None) -> float:
        """The latest time that it can be on the server, in seconds since the epoch.

        By this clock, a token or a link expires rather early than late.

        Args:
            at: Loop time to convert; None for now.
        """
        return time.time() if self._most == math.inf else _loop_time(at) + self._most

    @property
    def is_known(self) -> bool:
        """Whether a response has had a ``Date``."""
        return self._least != -math.inf

    def earliest(self, at: float | None = None) -> float:
        """The earliest time that it can be on the server, in seconds since the epoch.

        Args:
            at: Loop time to convert; None for now.
        """
        return time.time() if self._least == -math.inf else _loop_time(at) + self._least

    def utcnow(self) -> datetime:
        """The latest time that it can be on the server, as an aware datetime."""
        return datetime.fromtimestamp(self.now(), UTC)

    def until(self, instant: float, at: float | None = None) -> float:
        """Seconds until it is certainly `instant` on the server; at least 0.

        Args:
            instant: Seconds since the epoch.
            at: Loop time to count from; None for now.
        """
        return max(0.0, instant - self.earliest(at))


def _loop_time(at: float | None) -> float:
    return asyncio.get_running_loop().time() if at is None else at
