"""How long an attempt may take. All of a client may take as long, so one timer does for all.

aiohttp sets a timer for each request that has a limit on the whole, looks for its task twice, and
takes a tenth of the time of a call for it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

# Seconds more. A limit of the same length on a part of the attempt is to be the first: it knows
# what did not come in time, and whether anything was sent.
_LATER = 0.1


class Attempt:
    """One attempt, to be used as a context manager in its task.

    Raises:
        TimeoutError: If it takes too long. As with `asyncio.timeout`, what is awaited is cancelled,
            and a cancellation from elsewhere is not taken for that.
    """

    __slots__ = ("_before", "_expired", "_expiry", "_task", "due")

    def __init__(self, expiry: Expiry, task: asyncio.Task[object], due: float) -> None:
        self.due = due
        self._expiry = expiry
        self._task = task
        self._before = task.cancelling()
        self._expired = False

    def __enter__(self) -> None:
        self._expiry.under_way[self] = None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """It is over, be it in time or not."""
        self._expiry.under_way.pop(self, None)
        if not self._expired:
            return
        left = self._task.uncancel()
        if left <= self._before and isinstance(exc, asyncio.CancelledError):
            raise TimeoutError from exc

    def expire(self) -> None:
        """Its time is over."""
        self._expired = True
        self._task.cancel()


class Expiry:
    """Ends attempts that take too long.

    It has one timer, for the oldest attempt there was when it was set: no attempt sets it or puts
    it back, and the last one leaves it to look once more.

    Args:
        seconds: How long an attempt may take.

    Attributes:
        under_way: The attempts under way, as keys, the oldest first.
    """

    def __init__(self, seconds: float) -> None:
        self.under_way: dict[Attempt, None] = {}
        self._seconds = seconds + _LATER
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def attempt(self, began: float) -> Attempt:
        """An attempt of the running task.

        Args:
            began: When it began, on the loop's clock.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("requests have to be sent from a task")
        due = began + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._look, loop)
        return Attempt(self, task, due)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for attempt in list(self.under_way):
            if attempt.due > loop.time():
                self._timer = loop.call_at(attempt.due, self._look, loop)
                return
            del self.under_way[attempt]
            attempt.expire()
