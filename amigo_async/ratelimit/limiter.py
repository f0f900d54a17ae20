"""Send requests first come, first served, as the rate limit of their endpoint allows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, Self
from weakref import ref

import anyio
from msgspec import Struct

from amigo_async.errors import DeadlineError
from amigo_async.events import Emit, LimitHeld
from amigo_async.ratelimit.window import Budget, RateLimitInfo

# Shorter waits, in seconds, are not reported as events: waiting for a probe takes as long.
NOTABLE: Final = 0.5


class BudgetState(Struct, frozen=True):
    """A snapshot of a budget.

    Attributes:
        endpoint: Name of the endpoint: ``sign_in``, ``create``, ``list``, ``cancel``,
            ``artifacts``, or another list such as ``unit_test_sets``.
        limit: Requests per window, as far as known.
        remaining: Requests left in this window; None if the service has not said.
        in_flight: Requests sent and not yet answered.
        waiting: Requests waiting for quota.
        opens_in: Seconds until quota is available; 0 if some is available now.
        turns_in: Seconds until the window ends; None if the service has not said.
    """

    endpoint: str
    limit: int
    remaining: int | None
    in_flight: int
    waiting: int
    opens_in: float
    turns_in: float | None


class DeniedError(Exception):
    """The service asked for a pause that is too long to wait for; nothing was sent.

    Attributes:
        retry_after: Seconds left of that pause.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Permit(Struct, eq=False):
    """Permission to send one request; use it as a context manager around the request.

    Report the outcome with `answered`, `refused` or `unsent`. Without a report, the request counts
    as sent and lost.

    Attributes:
        position: The request's position in the queue; lower positions go first.
    """

    _limiter: Limiter
    _call: int
    position: int
    _open: bool = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count the request as sent and lost if its outcome was not reported."""
        if self._open:
            self._report(self._limiter.budget.lost, self._limiter.time(), self._call)

    def answered(self, info: RateLimitInfo | None) -> None:
        """The request was answered; `info` is None without usable rate-limit headers."""
        probing = self._limiter.budget.probing
        self._report(self._limiter.budget.answered, self._limiter.time(), self._call, info)
        if probing and not self._limiter.budget.probing:
            self._limiter.reject_late()

    def refused(self, pause: float | None) -> None:
        """The request was refused for `pause` seconds; None if the response does not say."""
        self._report(self._limiter.budget.refused, self._limiter.time(), self._call, pause)
        self._limiter.reject_late()

    def unsent(self) -> None:
        """The request was not sent."""
        self._report(self._limiter.budget.unsent, self._call)

    def _report(self, report: Callable[..., None], *outcome: object) -> None:
        self._open = False
        with self._limiter.budget.lock:
            report(*outcome)
        self._limiter.admit()


class _QueuedRequest(Struct, frozen=True):
    permit: asyncio.Future[Permit]
    emit: Emit
    deadline: float


class Limiter:
    """The rate limiter of one endpoint, for all clients of the running event loop.

    It has no task. While requests wait, one timer of the loop fires when quota becomes available.
    Permits left open by a closed loop count as lost once they are garbage collected.

    Args:
        endpoint: The name of the endpoint, for events.
        budget: The quota; event loops of one process may share it.
    """

    def __init__(self, endpoint: str, budget: Budget) -> None:
        self.endpoint = endpoint
        self.budget = budget
        self._loop = ref(asyncio.get_running_loop())
        self._queue: dict[int, _QueuedRequest] = {}  # by position, in order
        self._unreported: list[int] = []
        self._positions = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, emit: Emit, *, position: int | None = None) -> Permit:
        """Wait for quota.

        Args:
            emit: Receives a `LimitHeld` event if the wait takes a while.
            position: The position of the permit with which the request was sent and refused, so
                that it keeps its place in the queue; None for a new request.

        Returns:
            A permit, to be used as a context manager around the request.

        Raises:
            DeadlineError: If quota cannot become available before the deadline of the surrounding
                anyio scopes.
            DeniedError: If the service asked for a pause that is too long to wait for.
        """
        now = self.time()
        returning = position is not None
        if position is None:
            position, ahead = next(self._positions), len(self._queue)
        else:
            ahead = sum(other < position for other in self._queue)
        if not ahead and (call := self._try_take(now)) is not None:
            return Permit(self, call, position)
        queued = _QueuedRequest(
            asyncio.get_running_loop().create_future(), emit, anyio.current_effective_deadline()
        )
        self._check(queued, now, ahead)
        self._queue[position] = queued
        if returning:
            self._queue = dict(sorted(self._queue.items()))  # positions are unique
        self._unreported.append(position)
        self._set_timer()
        try:
            return await queued.permit
        except BaseException:  # whatever ends the wait, a permit that was just given goes on
            self._leave(position, queued.permit)
            raise

    def held(self) -> float:
        """Seconds for which the next request must wait at least; 0 while one is in flight."""
        if self.budget.in_flight and not self._queue:
            return 0.0
        now = self.time()
        return max(0.0, self._earliest(now, 0) - now)

    def time(self) -> float:
        """The time on the clock of the limiter's loop."""
        loop = self._loop()
        return monotonic() if loop is None else loop.time()

    def admit(self) -> None:
        """Admit as many queued requests as quota allows, and set the timer for the rest."""
        if (not self._queue and self._timer is None) or self._is_over():
            return
        now = self.time()
        while self._queue and (call := self._try_take(now)) is not None:
            position = next(iter(self._queue))
            permit = self._queue.pop(position).permit
            if permit.done():
                with self.budget.lock:
                    self.budget.unsent(call)
            else:
                permit.set_result(Permit(self, call, position))
        self._set_timer()

    def state(self) -> BudgetState:
        """A snapshot."""
        now, budget = self.time(), self.budget
        with budget.lock:
            available = budget.available(now)
            return BudgetState(
                endpoint=self.endpoint,
                limit=budget.limit,
                remaining=budget.remaining,
                in_flight=budget.in_flight,
                waiting=len(self._queue),
                opens_in=0.0 if available else max(0.0, budget.opens_at(now) - now),
                turns_in=None if budget.resets_at is None else budget.resets_at - now,
            )

    def reject_late(self) -> None:
        """Fail queued requests that can no longer be sent in time, after news of the window."""
        now = self.time()
        ahead = 0
        for position, queued in list(self._queue.items()):
            try:
                self._check(queued, now, ahead)
                ahead += 1
            except (DeadlineError, DeniedError) as error:
                del self._queue[position]
                if not queued.permit.done():
                    queued.permit.set_exception(error)

    def __repr__(self) -> str:
        """Show the live state."""
        budget = self.budget
        with budget.lock:
            left = "?" if budget.remaining is None else budget.remaining
        return (
            f"<Limiter {self.endpoint}: {left} of {budget.limit} left, "
            f"{budget.in_flight} in flight, {len(self._queue)} waiting>"
        )

    def _try_take(self, now: float) -> int | None:
        with self.budget.lock:
            return self.budget.try_take(now)

    def _opens_at(self, now: float) -> float:
        with self.budget.lock:
            return self.budget.opens_at(now)

    def _earliest(self, now: float, ahead: int) -> float:
        with self.budget.lock:
            return self.budget.earliest(now, ahead)

    def _leave(self, position: int, permit: asyncio.Future[Permit]) -> None:
        """Remove a cancelled request, or pass the permit it just got to the next one."""
        self._queue.pop(position, None)
        if permit.done() and not permit.cancelled():
            permit.result().unsent()
        else:
            self._set_timer()

    def _check(self, queued: _QueuedRequest, now: float, ahead: int) -> None:
        with self.budget.lock:
            denied = self.budget.denied_for(now)
        if denied is not None:
            raise DeniedError(denied)
        earliest = self._earliest(now, ahead)
        if earliest > queued.deadline:
            raise DeadlineError(endpoint=self.endpoint, retry_after=earliest - now)

    def _set_timer(self) -> None:
        if self._is_over():
            return
        now = self.time()
        opens_at = self._opens_at(now) if self._queue else None
        if self._timer is not None and self._timer.when() != opens_at:
            self._timer.cancel()
            self._timer = None
        if opens_at is None:
            self._unreported.clear()
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(opens_at, self._on_timer)
        if self._unreported and self._earliest(now, 0) - now >= NOTABLE:
            self._report_waits(now)

    def _is_over(self) -> bool:
        """Whether the limiter's loop is closed, so that nothing is sent from it any more."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def _on_timer(self) -> None:
        self._timer = None
        self.admit()

    def _report_waits(self, now: float) -> None:
        """Emit one event per queued request that has not been reported yet."""
        unreported, self._unreported = self._unreported, []
        for position in unreported:
            queued = self._queue.get(position)
            if queued is not None:
                delay = max(0.0, self._earliest(now, len(self._queue) - 1) - now)
                queued.emit(LimitHeld(self.endpoint, delay=delay, queue=len(self._queue)))
