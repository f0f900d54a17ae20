"""Keep room in a budget for other processes, of which nothing is known but what headers tell.

Each answer says how much is left of the window, and every process hears that at the same moment. If
all took what they were told at once, most of it would be refused. So a process that has seen others
spend the budget sends a few calls at a time and hears from their answers how much the others have
taken meanwhile. A process that is alone takes all there is.

What cannot be avoided is that several processes try for the last call of a window. All but one of
them are refused, and wait for the next window as they would have to anyway: that costs a request
each, where keeping back would cost a whole window.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Self

from amigo_async.ratelimit.window import PATIENCE, WINDOW, Budget, Snapshot, Told

# With others at work, this share of what is left may be in flight, but always one call. Eight
# processes that all see the same number take no more than there is.
_SHARE: Final = 1 / 8

# For how many seconds others are remembered: they may have been held back for a window or two.
_REMEMBERED: Final = 3 * WINDOW


class FairShareBudget(Budget):
    """A budget that other processes may spend too.

    Args:
        limit: As for `Budget`.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.alone = False
        self._sent: deque[float] = deque()  # when calls of the last minute were sent
        self._others_until = -math.inf

    @classmethod
    def restored(cls, documented: int, kept: Snapshot) -> Self:
        """As `Budget.restored`; what had been spent by then counts as ours."""
        budget = super().restored(documented, kept)
        if kept.told is not None:
            spent = kept.told.limit - kept.told.remaining
            budget._sent.extend([kept.told.turns_at - WINDOW] * spent)  # noqa: SLF001  # one of ours
        return budget

    def try_take(self, now: float) -> int | None:
        """As `Budget.try_take`, and with others at work no more than a share at a time."""
        if self.room(now) <= 0:
            return None
        if self._told is not None and not self.alone and now < self._others_until:
            share = max(1, int(_SHARE * self._told.remaining))
            if self.in_flight >= share:
                return None  # an answer makes room, or the turn of the window
        return self.take(now)

    def take(self, now: float) -> int:
        """As `Budget.take`."""
        self._sent.append(now)
        return super().take(now)

    def returned(self, call: int) -> None:
        """As `Budget.returned`."""
        self._sent.pop()
        super().returned(call)

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """As `Budget.refused`: what we have not spent, others have."""
        self._notice(now, self.limit + 1)
        super().refused(now, call, pause)

    def _learn(self, now: float, told: Told) -> None:
        super()._learn(now, told)
        self._notice(now, told.limit - told.remaining)

    def _notice(self, now: float, spent: int) -> None:
        """Notice whether more was spent in this window than was sent from here."""
        # A call may be counted by the service a little after it was sent.
        while self._sent and self._sent[0] <= now - WINDOW - PATIENCE:
            self._sent.popleft()
        if spent > len(self._sent):
            self._others_until = now + _REMEMBERED
