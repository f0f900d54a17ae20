"""What is left of a budget, as pure arithmetic: no I/O and no clock, the time is an argument."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Annotated, Final, Self

from msgspec import Meta, Struct
from msgspec.structs import replace

from amigo_async.protocol.headers import LONGEST_WAIT

# The window of the documented limits, in seconds.
WINDOW: Final = 60.0

# How long, in seconds, the call that goes ahead may keep the others waiting for its answer.
PATIENCE: Final = 2.0

# The least pause after a refusal that does not say how long, in seconds; it doubles with each
# further refusal in a row, up to a window.
_LEAST_PAUSE: Final = 1.0

_NEVER: Final = -math.inf


class Told(Struct, frozen=True, array_like=True, gc=False):
    """What a response told of the budget.

    Attributes:
        limit: Calls a window.
        remaining: Calls left in this window.
        reset: When the window turns, on the server's clock; names the window.
        turns_at: When the window has surely turned, on the caller's clock.
    """

    limit: int
    remaining: int
    reset: float
    turns_at: float


class Snapshot(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that a budget knows, to be kept elsewhere; None is an instant that never comes."""

    limit: Annotated[int, Meta(ge=1)]
    in_flight: int
    told: Told | None
    window: float
    blind: bool
    spent: list[float]
    grows_at: float | None
    closed_until: float | None
    refusals: int
    known: bool
    calls: int
    scout: int | None
    scout_until: float | None
    unanswered: list[float] = []
    denied_until: float | None = None


class Budget:
    """How many calls of one endpoint may go now, and when the next one may.

    A window that nothing is known of is entered by one call, which goes ahead; the others follow
    when its answer has told how much is left. This is so at the start, at each turn of the
    window and after a refusal, and it works alike whether the window turns or slides and whether
    others have been spending.

    Without headers the calls of the last minute are counted. A refusal then shows that there is
    less than documented: what went through in the minute before becomes the limit, and grows by a
    quarter with each minute without a refusal until it is the documented one again.

    A call that was sent and not answered may have been counted by the service, so it is counted
    here: in what is left where that is known, and for a minute where nothing is known. Callers
    that give up on every call that goes ahead cannot spend more than a window allows.

    Event loops in different threads may share it; whoever uses it holds its `lock` meanwhile.

    Args:
        limit: Calls a window as documented, believed until a response tells better.

    Attributes:
        limit: Calls a window, as far as known.
        in_flight: Calls that have gone and are not answered.
        alone: Whether all that is left may be taken, as nobody else spends it unseen.
        lock: To be held where threads share it; not a plain one, as the collector may run anywhere.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.alone = True
        self.lock = threading.RLock()
        self._documented = limit
        # Told by headers: what is left of this window, less what is in flight.
        self._told: Told | None = None
        self._window = 0.0  # the longest that a window was seen to last: a lower bound
        # Not told: when the calls of the last minute were answered.
        self._blind = False
        self._spent: deque[float] = deque()
        self._grows_at = math.inf
        # A refusal closes the budget for everybody.
        self._closed_until = _NEVER
        self._refusals = 0
        # The call that goes ahead: which it is, and until when the others wait for its answer.
        self._known = False
        self._calls = 0
        self._scout: int | None = None
        self._scout_until = _NEVER
        # When calls that may have been counted were lost while nothing was known of the window.
        self._unanswered: deque[float] = deque()
        # Until when the service refuses, by its own word, if that is longer than anybody waits.
        self._denied_until = _NEVER

    @classmethod
    def restored(cls, documented: int, kept: Snapshot) -> Self:
        """The budget that `kept` was taken of; `documented` as for a new one."""
        budget = cls(documented)
        budget.limit, budget.in_flight = kept.limit, kept.in_flight
        budget._told, budget._window = kept.told, kept.window
        budget._blind, budget._spent = kept.blind, deque(kept.spent)
        budget._grows_at = math.inf if kept.grows_at is None else kept.grows_at
        budget._closed_until = _NEVER if kept.closed_until is None else kept.closed_until
        budget._refusals, budget._known, budget._calls = kept.refusals, kept.known, kept.calls
        budget._scout = kept.scout
        budget._scout_until = _NEVER if kept.scout_until is None else kept.scout_until
        budget._unanswered = deque(kept.unanswered)
        budget._denied_until = _NEVER if kept.denied_until is None else kept.denied_until
        return budget

    def snapshot(self) -> Snapshot:
        """All that is known; `restored` makes a budget of it that does as this one does."""
        return Snapshot(
            limit=self.limit,
            in_flight=self.in_flight,
            told=self._told,
            window=self._window,
            blind=self._blind,
            spent=list(self._spent),
            grows_at=_finite(self._grows_at),
            closed_until=_finite(self._closed_until),
            refusals=self._refusals,
            known=self._known,
            calls=self._calls,
            scout=self._scout,
            scout_until=_finite(self._scout_until),
            unanswered=list(self._unanswered),
            denied_until=_finite(self._denied_until),
        )

    def matters_until(self) -> float:
        """Until when it makes a difference to know what this budget knows."""
        known = [self._closed_until, self._denied_until]
        known += [calls[-1] + WINDOW for calls in (self._spent, self._unanswered) if calls]
        if self._told is not None:
            known.append(self._told.turns_at)
        if math.isfinite(self._grows_at):
            known.append(self._grows_at)
        return max(known)

    def room(self, now: float) -> int:
        """How many calls may go."""
        self._pass_time(now)
        if now < self._closed_until:
            return 0
        if not self._known:
            return self._room_for_scout(now)
        left = self.limit - len(self._spent) if self._told is None else self._told.remaining
        return max(0, left - self.in_flight)

    def opens_at(self, now: float) -> float:
        """When it is worth asking for room again, if no call is answered before."""
        if now < self._closed_until:
            return self._closed_until
        if not self._known:
            if self._scout is None:
                return self._scout_may_go_at(now)
            # All that may go without its answer have gone, after that: look again in a while.
            return self._scout_until if now < self._scout_until else now + PATIENCE
        if self._told is not None:
            return self._told.turns_at
        # Calls in flight in another event loop do not wake this one: look again.
        return self._spent[0] + WINDOW if self._spent else now + PATIENCE

    def earliest(self, now: float, ahead: int) -> float:
        """When a call with `ahead` calls before it may go at the earliest; never too late."""
        missing = ahead - self.room(now)
        if missing < 0:
            return now
        if self._known and self._told is None and now >= self._closed_until:
            windows, place = divmod(missing, self.limit)
            return (self._spent[place] if place < len(self._spent) else now - WINDOW) + WINDOW * (
                windows + 1
            )
        if not self._known and now >= self._closed_until:
            return self._scout_may_go_at(now) + (ahead // self.limit) * self._window
        return self.opens_at(now) + (missing // self.limit) * self._window

    def denied_for(self, now: float) -> float | None:
        """For how many seconds the service refuses by its own word; None if that can be waited for.

        A pause longer than `LONGEST_WAIT` may be meant, or be a broken header. So nobody waits for
        its end; one call a window asks again, and the others are told at once.
        """
        left = self._denied_until - now
        return left if left > LONGEST_WAIT else None

    def try_take(self, now: float) -> int | None:
        """Let a call go if there is room, and number it; None if there is not."""
        return self.take(now) if self.room(now) > 0 else None

    def take(self, now: float) -> int:
        """Let a call go, and number it."""
        self.in_flight += 1
        self._calls += 1
        if not self._known and self._scout is None:
            self._scout, self._scout_until = self._calls, now + PATIENCE
        return self._calls

    def answered(self, now: float, call: int, told: Told | None) -> None:
        """A call that went was answered, and not refused."""
        self._is_back(call)
        self._refusals = 0
        self._denied_until = _NEVER
        if now < self._closed_until:
            return  # sent before the refusal: what it tells is older
        if told is not None:
            self._learn(now, told)
        elif self._told is not None:
            self._told = replace(self._told, remaining=self._told.remaining - 1)
        else:
            self._blind = self._known = True
            self._spent.extend(self._unanswered)
            self._unanswered.clear()
            self._spent.append(now)

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """A call that went was refused (429).

        Args:
            now: The time.
            call: The call.
            pause: Seconds until there is room again, as told; None where it was not told.
        """
        self._is_back(call)
        self._pass_time(now)
        if now >= self._closed_until:  # the first of a burst
            self._refusals += 1
            if self._blind:
                self.limit = max(1, min(self.limit, len(self._spent)))
        least = min(WINDOW, _LEAST_PAUSE * 2.0 ** min(self._refusals - 1, 10))
        if pause is None:
            pause = self._spent[0] + WINDOW - now if self._blind and self._spent else 0.0
        else:
            self._unanswered.clear()  # counted or not: after this pause there is room
        if pause > LONGEST_WAIT:
            self._denied_until = max(self._denied_until, now + pause)
            pause = WINDOW
        self._closed_until = max(self._closed_until, now + max(pause, least))
        self._grows_at = self._closed_until + WINDOW
        self._forget()

    def lost(self, now: float, call: int) -> None:
        """A call that went got no answer; it may have been counted."""
        self._is_back(call)
        if self._told is not None:
            self._told = replace(self._told, remaining=self._told.remaining - 1)
        elif self._known:
            self._spent.append(now)
        else:
            self._unanswered.append(now)

    def lose_all(self, now: float) -> None:
        """Nobody waits any more for the calls in flight: they may have been counted."""
        self._scout = None
        while self.in_flight:
            self.lost(now, 0)

    def returned(self, call: int) -> None:
        """A call that was let go has not been sent."""
        self._is_back(call)

    @property
    def scouting(self) -> bool:
        """Whether the answer to the call that goes ahead is waited for."""
        return not self._known and self._scout is not None

    @property
    def remaining(self) -> int | None:
        """Calls left in this window as told; None where it was not told."""
        return None if self._told is None else max(0, self._told.remaining - self.in_flight)

    @property
    def turns_at(self) -> float | None:
        """When the window turns as told; None where it was not told."""
        return None if self._told is None else self._told.turns_at

    def _is_back(self, call: int) -> None:
        """If it was the call that went ahead, another may, unless its answer told enough."""
        self.in_flight -= 1
        if call == self._scout:
            self._scout = None

    def _room_for_scout(self, now: float) -> int:
        if self._scout is None:
            return 1 if len(self._unanswered) < self.limit else 0
        left = self.limit - self.in_flight - len(self._unanswered)
        return max(0, left) if now >= self._scout_until else 0

    def _scout_may_go_at(self, now: float) -> float:
        return now if len(self._unanswered) < self.limit else self._unanswered[0] + WINDOW

    def _learn(self, now: float, told: Told) -> None:
        """Believe `told`, unless it is of a window that has turned, or older than what is known."""
        before = self._told
        if told.turns_at <= now or (before is not None and told.reset < before.reset):
            return
        if before is not None and told.reset == before.reset:
            told = Told(
                told.limit,
                min(told.remaining, before.remaining),
                told.reset,
                min(told.turns_at, before.turns_at),
            )
        self.limit = told.limit
        self._window = max(self._window, told.turns_at - now)
        self._told, self._known, self._blind = told, True, False
        self._spent.clear()
        self._unanswered.clear()

    def _pass_time(self, now: float) -> None:
        """Forget what is over: a window that has turned, calls of more than a minute ago."""
        if self._told is not None and now >= self._told.turns_at:
            self._forget()
        for calls in (self._spent, self._unanswered):
            while calls and calls[0] + WINDOW <= now:
                calls.popleft()
        if self._blind and now >= self._grows_at:
            self.limit = min(self._documented, self.limit + max(1, self.limit // 4))
            self._grows_at = now + WINDOW if self.limit < self._documented else math.inf

    def _forget(self) -> None:
        """Know nothing of the window: the next call goes ahead."""
        self._told = None
        self._known = False
        self._scout = None


def _finite(instant: float) -> float | None:
    return instant if math.isfinite(instant) else None
