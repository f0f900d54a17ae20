"""How much of a budget one process takes when others spend it too, and headers are all they share.

Each answer tells how much is left at that moment, to every process at another one. If all took all
that they were told, most of it would be refused. So who sees others at work takes a part of its
share of what is left, hears how much that leaves, and so on; what is too little to be divided is
spread over a few seconds, at random. Who was alone for some windows takes it all.
"""

from __future__ import annotations

import math
import random
from typing import Final

from amigo_async.ratelimit.window import PATIENCE, Budget, Told

# Into how many shares a window is divided of which nothing is known yet, how many calls of ours it
# takes for what is seen to weigh as much as what was known before, and how many shares there are
# at the most: a process that asked for little before has a right to more.
_UNKNOWN: Final = 3.0
_WEIGHT: Final = 2.0
_MOST: Final = 8.0

# What each of the others is about to take, in calls, and is not counted in what is left.
_ON_THE_WAY: Final = 0.75

# Which part of its share a round takes.
_PART: Final = 0.5

# After so many windows without others, all that is left is taken.
_QUIET: Final = 3

# Over how long, in seconds, what is too little to be divided is spread.
_SPREAD: Final = 2.0

# A window that ends sooner after the one before than by this share of its length slides. Then it
# cannot be told which calls of ours are among those that it has seen: there is no courtesy.
_SLIDES: Final = 0.9


class Rounds:
    """Decides how many calls of ours may go, in rounds: one is over when all are answered.

    Pure arithmetic, but for dice.
    """

    def __init__(self) -> None:
        self._own = 0  # calls of ours in this window
        self._used = 0  # calls of everybody in this window
        self._before = _UNKNOWN  # shares in the window before
        self._quiet = 0  # windows since others were seen
        self._met = False  # whether they ever were
        self._sliding = False
        self._length = 0.0
        self._reset = -math.inf
        # This round: how many may still go, from when on, and when it is over in any case.
        self._left = math.inf
        self._next_at = -math.inf
        self._over_at = math.inf
        self.begun = False

    def room(self, now: float, most: int) -> int:
        """How many calls of ours may go, of `most`."""
        if now < self._next_at:
            return 0
        return most if self._left >= most else max(0, int(self._left))

    def opens_at(self, now: float, turns_at: float) -> float:
        """When there may be more room, in a window that turns then."""
        return min(turns_at, self._next_at if now < self._next_at else max(now, self._over_at))

    def is_over(self, now: float) -> bool:
        """Whether calls that are not answered are not waited for any more."""
        return now >= self._over_at

    def went(self, now: float) -> None:
        """A call of ours goes."""
        self._own += 1
        self._left -= 1
        self._over_at = min(self._over_at, now + PATIENCE)

    def returned(self) -> None:
        """A call of ours has not gone."""
        self._own -= 1
        self._left += 1

    def told(self, now: float, told: Told) -> None:
        """An answer told of the window."""
        if told.reset > self._reset:
            self._length = max(self._length, told.turns_at - now)
            self._sliding |= told.reset < self._reset + _SLIDES * self._length
            if self.begun:  # it turned before its time: the call that is answered is of the new one
                self.turned()
                self._own = 1
            self._reset = told.reset
        self._used = max(self._used, told.limit - told.remaining)

    def refused(self, limit: int) -> None:
        """A call of ours was refused: all is used."""
        self._own -= 1
        self._used = max(self._used, limit)

    def begin(self, now: float, left: int) -> None:
        """Begin a round, with so many calls left for everybody."""
        self._left, self._next_at, self._over_at, self.begun = math.inf, -math.inf, math.inf, True
        self._look()
        if self._sliding or self._quiet >= _QUIET:
            return
        shares = _shares(self._used + _WEIGHT * self._before, self._own + _WEIGHT)
        free = left - _ON_THE_WAY * (shares - 1)
        self._left = max(1, int(free * _PART / shares))
        if free * _PART < shares and self._met:
            # The chance of a turn is our share; whose turn it is not waits for the window's.
            turn = random.random() * shares / free if free > 0 else math.inf  # noqa: S311  # dice
            self._next_at = now + turn * _SPREAD if turn <= 1.0 else math.inf

    def turned(self) -> None:
        """The window has turned."""
        if self._used:
            self._quiet += 1
            self._look()
            self._before = (self._before + _shares(self._used, max(1, self._own))) / 2
        self._left, self._next_at, self._over_at, self.begun = math.inf, -math.inf, math.inf, False
        self._used = self._own = 0

    def _look(self) -> None:
        """Whether others are at work."""
        if self._used > self._own:
            self._quiet, self._met = 0, True
        elif self._quiet >= _QUIET:
            self._before, self._met = 1.0, False


class CourteousBudget(Budget):
    """A budget that others spend too, of whom nothing is known but what the headers tell.

    Args:
        limit: As for `Budget`.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.alone = False
        self._rounds = Rounds()

    def room(self, now: float) -> int:
        """As `Budget.room`, and no more than is courteous."""
        room = super().room(now)
        if room <= 0 or self.alone or self._told is None:
            return room
        if self._rounds.is_over(now):
            self._begin(now)
        return self._rounds.room(now, room)

    def opens_at(self, now: float) -> float:
        """As `Budget.opens_at`."""
        opens_at = super().opens_at(now)
        if self.alone or not self._is_led(now) or super().room(now) <= 0:
            return opens_at
        return self._rounds.opens_at(now, opens_at)

    def earliest(self, now: float, ahead: int) -> float:
        """As `Budget.earliest`."""
        if self.alone or not self._is_led(now):
            return super().earliest(now, ahead)
        missing = ahead - super().room(now)
        if missing >= 0:
            return super().opens_at(now) + (missing // self.limit) * self._window
        # An answer to a call in flight begins another round, nobody knows when.
        return now if self.in_flight or self.room(now) > 0 else self.opens_at(now)

    def take(self, now: float) -> int:
        """As `Budget.take`."""
        self._rounds.went(now)
        return super().take(now)

    def answered(self, now: float, call: int, told: Told | None) -> None:
        """As `Budget.answered`."""
        super().answered(now, call, told)
        if self.in_flight == 0 or not self._rounds.begun:
            self._begin(now)

    def lost(self, now: float, call: int) -> None:
        """As `Budget.lost`."""
        super().lost(now, call)
        if self.in_flight == 0 or not self._rounds.begun:
            self._begin(now)

    def returned(self, call: int) -> None:
        """As `Budget.returned`."""
        self._rounds.returned()
        super().returned(call)

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """As `Budget.refused`."""
        self._rounds.refused(self.limit)
        super().refused(now, call, pause)

    def _is_led(self, now: float) -> bool:
        """Whether headers tell how much is left."""
        return self._known and self._told is not None and now >= self._closed_until

    def _begin(self, now: float) -> None:
        if self._told is not None:
            left = max(0, self._told.remaining - self.in_flight)
            self._rounds.begin(now, left)

    def _learn(self, now: float, told: Told) -> None:
        super()._learn(now, told)
        if self._told is not None:
            self._rounds.told(now, self._told)

    def _forget(self) -> None:
        super()._forget()
        self._rounds.turned()


def _shares(used: float, own: float) -> float:
    return min(_MOST, max(1.0, used / own))
