"""Share a rate limit fairly with processes of which only the response headers tell.

Each response says how much quota is left, and all processes learn that at the same moment. If each
used all of it at once, most of their requests would be refused. So a process that has noticed
others sends a few requests at a time, and learns from the answers how much the others have used
meanwhile. A process that is alone uses all there is.

Several processes may still try for the last request of a window. All but one of them are refused,
and wait for the next window as they would have to anyway. That costs each of them one request;
holding back would cost a whole window.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Self

from amigo_async.ratelimit.window import (
    PROBE_TIMEOUT,
    WINDOW,
    Budget,
    BudgetSnapshot,
    RateLimitInfo,
)

# The share of the remaining quota that may be in flight while other processes are active, but
# always one request. Eight processes that see the same number do not use more than there is.
_SHARE: Final = 1 / 8

# For how many seconds other processes count as active: they may wait for a window or two.
_REMEMBERED: Final = 3 * WINDOW


class FairShareBudget(Budget):
    """A budget that other processes may spend too.

    Args:
        limit: Documented requests per window.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.alone = False
        self._sent: deque[float] = deque()  # when requests of the last minute were sent
        self._others_until = -math.inf

    @classmethod
    def restored(cls, documented: int, snapshot: BudgetSnapshot) -> Self:
        """The budget that `snapshot` was taken of; everything spent by then counts as ours."""
        budget = super().restored(documented, snapshot)
        if snapshot.info is not None:
            spent = snapshot.info.limit - snapshot.info.remaining
            budget._sent.extend([snapshot.info.resets_at - WINDOW] * spent)  # noqa: SLF001  # our own class
        return budget

    def try_take(self, now: float) -> int | None:
        """Send a request if one is available, and not more than our share is in flight."""
        if self.available(now) <= 0:
            return None
        if self._info is not None and not self.alone and now < self._others_until:
            share = max(1, int(_SHARE * self._info.remaining))
            if self.in_flight >= share:
                return None  # until a request is answered, or the window ends
        return self.take(now)

    def take(self, now: float) -> int:
        """Count a request as sent, and return its number."""
        self._sent.append(now)
        return super().take(now)

    def unsent(self, call: int) -> None:
        """Request `call` was not sent after all."""
        self._sent.pop()
        super().unsent(call)

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """Request `call` was refused: what this process has not spent, others have."""
        self._notice_others(now, self.limit + 1)
        super().refused(now, call, pause)

    def _learn(self, now: float, info: RateLimitInfo) -> None:
        super()._learn(now, info)
        self._notice_others(now, info.limit - info.remaining)

    def _notice_others(self, now: float, spent: int) -> None:
        """Notice whether more was spent in this window than was sent from here."""
        # The service may count a request a little after it was sent.
        while self._sent and self._sent[0] <= now - WINDOW - PROBE_TIMEOUT:
            self._sent.popleft()
        if spent > len(self._sent):
            self._others_until = now + _REMEMBERED
