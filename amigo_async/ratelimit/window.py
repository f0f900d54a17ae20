"""The quota of one endpoint as pure arithmetic: no I/O and no clock, the time is an argument."""

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

# How long, in seconds, other requests wait for the answer to a probe.
PROBE_TIMEOUT: Final = 2.0

# The least pause, in seconds, after a refusal without Retry-After. It doubles with each further
# refusal in a row, up to a window.
_LEAST_PAUSE: Final = 1.0

_NEVER: Final = -math.inf


class RateLimitInfo(Struct, frozen=True, array_like=True, gc=False):
    """What the headers of a response say about the rate limit.

    Attributes:
        limit: Requests per window.
        remaining: Requests left in this window.
        reset: When the window ends, on the server's clock; identifies the window.
        resets_at: When the window has certainly ended, on the caller's clock.
    """

    limit: int
    remaining: int
    reset: float
    resets_at: float


class BudgetSnapshot(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The whole state of a `Budget`, for storage; None stands for an instant that never comes."""

    limit: Annotated[int, Meta(ge=1)]
    in_flight: int
    info: RateLimitInfo | None
    window: float
    headerless: bool
    spent: list[float]
    grows_at: float | None
    closed_until: float | None
    refusals: int
    known: bool
    calls: int
    probe: int | None
    probe_until: float | None
    unanswered: list[float] = []
    denied_until: float | None = None


class Budget:
    """How many requests to one endpoint may be sent now, and when the next one may.

    While the remaining quota is unknown, one probe request is sent, and the rest wait until its
    headers arrive. That is so at the start, whenever a window ends, and after a refusal. It works
    for fixed and for sliding windows, and whether or not other processes spend the same quota.

    Without rate-limit headers, the requests of the last minute are counted. A refusal then shows
    that the real limit is below the documented one: the number of requests that were accepted in
    the minute before becomes the limit, which grows by a quarter per minute without a refusal
    until it reaches the documented limit again.

    The service may have counted a request that was sent and never answered, so it is counted here:
    against the remaining quota where that is known, and for a minute where it is not. Even callers
    that give up on every probe cannot overrun a window.

    Event loops in several threads may share a budget; hold its `lock` while using it.

    Args:
        limit: Documented requests per window, used until a response says otherwise.

    Attributes:
        limit: Requests per window, as far as known.
        in_flight: Requests sent and not yet answered.
        alone: Whether the whole remaining quota may be used, because every other process that
            spends it is accounted for.
        lock: Guards the budget where threads share it. Reentrant, because the garbage collector
            may use the budget at any point.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.alone = True
        self.lock = threading.RLock()
        self._documented = limit
        # With headers: the newest, less the requests that were lost since.
        self._info: RateLimitInfo | None = None
        self._window = 0.0  # the longest window seen so far: a lower bound of its length
        # Without headers: when the requests of the last minute were answered.
        self._headerless = False
        self._spent: deque[float] = deque()
        self._grows_at = math.inf
        # A refusal closes the budget for everyone.
        self._closed_until = _NEVER
        self._refusals = 0
        # The probe: its number, and until when the other requests wait for its answer.
        self._known = False
        self._calls = 0
        self._probe: int | None = None
        self._probe_until = _NEVER
        # When requests were lost, and possibly counted, while the quota was unknown.
        self._unanswered: deque[float] = deque()
        # Until when the service refuses, if its Retry-After exceeds `LONGEST_WAIT`.
        self._denied_until = _NEVER

    @classmethod
    def restored(cls, documented: int, snapshot: BudgetSnapshot) -> Self:
        """The budget that `snapshot` was taken of; `documented` is its documented limit."""
        budget = cls(documented)
        budget.limit, budget.in_flight = snapshot.limit, snapshot.in_flight
        budget._info, budget._window = snapshot.info, snapshot.window
        budget._headerless, budget._spent = snapshot.headerless, deque(snapshot.spent)
        budget._grows_at = math.inf if snapshot.grows_at is None else snapshot.grows_at
        budget._closed_until = _instant(snapshot.closed_until)
        budget._refusals, budget._known = snapshot.refusals, snapshot.known
        budget._calls, budget._probe = snapshot.calls, snapshot.probe
        budget._probe_until = _instant(snapshot.probe_until)
        budget._unanswered = deque(snapshot.unanswered)
        budget._denied_until = _instant(snapshot.denied_until)
        return budget

    def snapshot(self) -> BudgetSnapshot:
        """The whole state; `restored` makes an equivalent budget of it."""
        return BudgetSnapshot(
            limit=self.limit,
            in_flight=self.in_flight,
            info=self._info,
            window=self._window,
            headerless=self._headerless,
            spent=list(self._spent),
            grows_at=_finite(self._grows_at),
            closed_until=_finite(self._closed_until),
            refusals=self._refusals,
            known=self._known,
            calls=self._calls,
            probe=self._probe,
            probe_until=_finite(self._probe_until),
            unanswered=list(self._unanswered),
            denied_until=_finite(self._denied_until),
        )

    def matters_until(self) -> float:
        """When this budget will no longer differ from a new one."""
        known = [self._closed_until, self._denied_until]
        known += [calls[-1] + WINDOW for calls in (self._spent, self._unanswered) if calls]
        if self._info is not None:
            known.append(self._info.resets_at)
        if math.isfinite(self._grows_at):
            known.append(self._grows_at)
        return max(known)

    def available(self, now: float) -> int:
        """How many requests may be sent now."""
        self._pass_time(now)
        if now < self._closed_until:
            return 0
        if not self._known:
            return self._available_for_probe(now)
        left = self.limit - len(self._spent) if self._info is None else self._info.remaining
        return max(0, left - self.in_flight)

    def opens_at(self, now: float) -> float:
        """When to check `available` again if no request is answered before."""
        if now < self._closed_until:
            return self._closed_until
        if not self._known:
            if self._probe is None:
                return self._probe_may_go_at(now)
            # After `_probe_until`, all requests that may go without its answer have gone.
            return self._probe_until if now < self._probe_until else now + PROBE_TIMEOUT
        if self._info is not None:
            return self._info.resets_at
        # Answers that arrive in another event loop do not wake this one, so check again.
        return self._spent[0] + WINDOW if self._spent else now + PROBE_TIMEOUT

    def earliest(self, now: float, ahead: int) -> float:
        """A lower bound of when a request with `ahead` requests before it can be sent."""
        missing = ahead - self.available(now)
        if missing < 0:
            return now
        if self._known and self._info is None and now >= self._closed_until:
            windows, index = divmod(missing, self.limit)
            return (self._spent[index] if index < len(self._spent) else now - WINDOW) + WINDOW * (
                windows + 1
            )
        if not self._known and now >= self._closed_until:
            return self._probe_may_go_at(now) + (ahead // self.limit) * self._window
        return self.opens_at(now) + (missing // self.limit) * self._window

    def denied_for(self, now: float) -> float | None:
        """Seconds left of a ``Retry-After`` that is too long to wait for; None without one.

        A pause longer than `LONGEST_WAIT` may be intended, or may be a broken header. So nobody
        waits for it to end: one request per window tries again, and all others fail at once.
        """
        left = self._denied_until - now
        return left if left > LONGEST_WAIT else None

    def try_take(self, now: float) -> int | None:
        """Send a request if one is available: its number, or None."""
        return self.take(now) if self.available(now) > 0 else None

    def take(self, now: float) -> int:
        """Count a request as sent, and return its number."""
        self.in_flight += 1
        self._calls += 1
        if not self._known and self._probe is None:
            self._probe, self._probe_until = self._calls, now + PROBE_TIMEOUT
        return self._calls

    def answered(self, now: float, call: int, info: RateLimitInfo | None) -> None:
        """Request `call` was answered and not refused; `info` is None without usable headers."""
        self._finish(call)
        self._refusals = 0
        self._denied_until = _NEVER
        if now < self._closed_until:
            return  # sent before the refusal, so its headers are older
        if info is not None:
            self._learn(now, info)
        elif self._info is not None:
            self._info = replace(self._info, remaining=self._info.remaining - 1)
        else:
            self._headerless = self._known = True
            self._spent.extend(self._unanswered)
            self._unanswered.clear()
            self._spent.append(now)

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """Request `call` was refused (429).

        Args:
            now: The time.
            call: The number of the request.
            pause: Seconds until quota is available again according to the response; None where
                it does not say.
        """
        self._finish(call)
        self._pass_time(now)
        if now >= self._closed_until:  # the first of a burst
            self._refusals += 1
            if self._headerless:
                self.limit = max(1, min(self.limit, len(self._spent)))
        least = min(WINDOW, _LEAST_PAUSE * 2.0 ** min(self._refusals - 1, 10))
        if pause is None:
            pause = self._spent[0] + WINDOW - now if self._headerless and self._spent else 0.0
        else:
            self._unanswered.clear()  # counted or not, they no longer matter after this pause
        if pause > LONGEST_WAIT:
            self._denied_until = max(self._denied_until, now + pause)
            pause = WINDOW
        self._closed_until = max(self._closed_until, now + max(pause, least))
        self._grows_at = self._closed_until + WINDOW
        self._forget()

    def lost(self, now: float, call: int) -> None:
        """Request `call` was sent and got no answer; the service may have counted it."""
        self._finish(call)
        if self._info is not None:
            self._info = replace(self._info, remaining=self._info.remaining - 1)
        elif self._known:
            self._spent.append(now)
        else:
            self._unanswered.append(now)

    def lose_all(self, now: float) -> None:
        """Treat all requests in flight as lost, because nobody waits for their answers."""
        self._probe = None
        while self.in_flight:
            self.lost(now, 0)

    def unsent(self, call: int) -> None:
        """Request `call` was not sent after all."""
        self._finish(call)

    @property
    def probing(self) -> bool:
        """Whether the answer to a probe is awaited."""
        return not self._known and self._probe is not None

    @property
    def remaining(self) -> int | None:
        """Requests left in this window, less those in flight; None without headers."""
        return None if self._info is None else max(0, self._info.remaining - self.in_flight)

    @property
    def resets_at(self) -> float | None:
        """When the window ends; None without headers."""
        return None if self._info is None else self._info.resets_at

    def _finish(self, call: int) -> None:
        """If `call` was the probe, another may follow, unless its answer says enough."""
        self.in_flight -= 1
        if call == self._probe:
            self._probe = None

    def _available_for_probe(self, now: float) -> int:
        if self._probe is None:
            return 1 if len(self._unanswered) < self.limit else 0
        left = self.limit - self.in_flight - len(self._unanswered)
        return max(0, left) if now >= self._probe_until else 0

    def _probe_may_go_at(self, now: float) -> float:
        return now if len(self._unanswered) < self.limit else self._unanswered[0] + WINDOW

    def _learn(self, now: float, info: RateLimitInfo) -> None:
        """Adopt `info`, unless its window has ended or something newer is known."""
        before = self._info
        if info.resets_at <= now or (before is not None and info.reset < before.reset):
            return
        if before is not None and info.reset == before.reset:
            info = RateLimitInfo(
                info.limit,
                min(info.remaining, before.remaining),
                info.reset,
                min(info.resets_at, before.resets_at),
            )
        self.limit = info.limit
        self._window = max(self._window, info.resets_at - now)
        self._info, self._known, self._headerless = info, True, False
        self._spent.clear()
        self._unanswered.clear()

    def _pass_time(self, now: float) -> None:
        """Drop what is over: a window that has ended, requests of more than a minute ago."""
        if self._info is not None and now >= self._info.resets_at:
            self._forget()
        for calls in (self._spent, self._unanswered):
            while calls and calls[0] + WINDOW <= now:
                calls.popleft()
        if self._headerless and now >= self._grows_at:
            self.limit = min(self._documented, self.limit + max(1, self.limit // 4))
            self._grows_at = now + WINDOW if self.limit < self._documented else math.inf

    def _forget(self) -> None:
        """The quota is unknown again: the next request is a probe."""
        self._info = None
        self._known = False
        self._probe = None


def _finite(instant: float) -> float | None:
    return instant if math.isfinite(instant) else None


def _instant(stored: float | None) -> float:
    return _NEVER if stored is None else stored
