"""Let requests through first come, first served, as long as their budget has room."""

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
from amigo_async.ratelimit.window import Budget, Told

# Waits shorter than this, in seconds, are not told of: the call that goes ahead takes as long.
NOTABLE: Final = 0.5


class BudgetState(Struct, frozen=True):
    """A snapshot of a budget.

    Attributes:
        endpoint: ``sign_in``, ``create``, ``list``, ``cancel`` or ``artifacts``.
        limit: Requests a window, as far as known.
        remaining: Requests left in this window; None where the service has not told.
        in_flight: Requests that are not answered.
        waiting: Requests that wait for room.
        opens_in: Seconds until there is room; 0 if there is some now.
        turns_in: Seconds until the window turns; None where the service has not told.
    """

    endpoint: str
    limit: int
    remaining: int | None
    in_flight: int
    waiting: int
    opens_in: float
    turns_in: float | None


class DeniedError(Exception):
    """The service has refused for longer than anybody waits; nothing was sent.

    Attributes:
        retry_after: Seconds until it has room again, by its own word.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Permit(Struct, eq=False):
    """Leave to send one request; what came of it has to be told, and is `lost` otherwise.

    Attributes:
        turn: Its place among all that came to the gate: the lower comes first.
    """

    _gate: Gate
    _call: int
    turn: int
    _open: bool = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count the request as sent if nothing was told of it."""
        if self._open:
            self._settle(self._gate.budget.lost, self._gate.time(), self._call)

    def answered(self, told: Told | None) -> None:
        """The request was answered; `told` is what the answer told of the budget."""
        unknown = self._gate.budget.scouting
        self._settle(self._gate.budget.answered, self._gate.time(), self._call, told)
        if unknown and not self._gate.budget.scouting:
            self._gate.send_away()

    def refused(self, pause: float | None) -> None:
        """The request was refused; `pause` is for how many seconds, None where not told."""
        self._settle(self._gate.budget.refused, self._gate.time(), self._call, pause)
        self._gate.send_away()

    def unused(self) -> None:
        """The request was not sent."""
        self._settle(self._gate.budget.returned, self._call)

    def _settle(self, tell: Callable[..., None], *what: object) -> None:
        self._open = False
        with self._gate.budget.lock:
            tell(*what)
        self._gate.admit()


class _Waiter(Struct, frozen=True):
    future: asyncio.Future[Permit]
    emit: Emit
    deadline: float


class Gate:
    """The gate of one endpoint, for all clients of the running event loop.

    It has no task; while requests wait, one timer of the loop is set for when there is room. What
    a closed loop has left undone is told to the budget when it is collected, wherever that is.

    Args:
        endpoint: The name of the endpoint, for events.
        budget: What there is to share; event loops of one process may share it.
    """

    def __init__(self, endpoint: str, budget: Budget) -> None:
        self.endpoint = endpoint
        self.budget = budget
        self._loop = ref(asyncio.get_running_loop())
        self._waiting: dict[int, _Waiter] = {}  # by turn, in order
        self._untold: list[int] = []
        self._turns = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def enter_nowait(self) -> Permit | None:
        """A permit as of `enter`, if there is room and nobody waits; None otherwise."""
        if self._waiting:
            return None
        call = self._try_take(self.time())
        return None if call is None else Permit(self, call, next(self._turns))

    async def enter(self, emit: Emit, *, turn: int | None = None) -> Permit:
        """Wait for room.

        Args:
            emit: Hears a `LimitHeld` if it takes a while.
            turn: That of the permit with which the request was refused: it keeps its place, before
                those that have come since and behind those that came before it. None for one that
                comes for the first time.

        Returns:
            A permit, to be used as a context manager around the request.

        Raises:
            DeadlineError: If there cannot be room before the deadline of the surrounding anyio
                scopes.
            DeniedError: If the service has refused for longer than anybody waits.
        """
        now = self.time()
        came_before = turn is not None
        if turn is None:
            turn, ahead = next(self._turns), len(self._waiting)
        else:
            ahead = sum(other < turn for other in self._waiting)
        if not ahead and (call := self._try_take(now)) is not None:
            return Permit(self, call, turn)
        waiter = _Waiter(
            asyncio.get_running_loop().create_future(), emit, anyio.current_effective_deadline()
        )
        self._check(waiter, now, ahead)
        self._waiting[turn] = waiter
        if came_before:
            self._waiting = dict(sorted(self._waiting.items()))  # no turn is there twice
        self._untold.append(turn)
        self._set_timer()
        try:
            return await waiter.future
        except BaseException:  # whatever ends the wait, the place is given back
            self._leave(turn, waiter.future)
            raise

    def held(self) -> float:
        """For how many seconds the next call is held at the least; 0 while one is under way."""
        if self.budget.in_flight and not self._waiting:
            return 0.0
        now = self.time()
        return max(0.0, self._earliest(now, 0) - now)

    def time(self) -> float:
        """The time on the clock of the gate's loop."""
        loop = self._loop()
        return monotonic() if loop is None else loop.time()

    def admit(self) -> None:
        """Let as many through as there is room for, and set the timer for the rest."""
        if (not self._waiting and self._timer is None) or self._is_over():
            return
        now = self.time()
        while self._waiting and (call := self._try_take(now)) is not None:
            turn = next(iter(self._waiting))
            waiter = self._waiting.pop(turn)
            if waiter.future.done():
                with self.budget.lock:
                    self.budget.returned(call)
            else:
                waiter.future.set_result(Permit(self, call, turn))
        self._set_timer()

    def state(self) -> BudgetState:
        """A snapshot."""
        now, budget = self.time(), self.budget
        with budget.lock:
            room = budget.room(now)
            return BudgetState(
                endpoint=self.endpoint,
                limit=budget.limit,
                remaining=budget.remaining,
                in_flight=budget.in_flight,
                waiting=len(self._waiting),
                opens_in=0.0 if room else max(0.0, budget.opens_at(now) - now),
                turns_in=None if budget.turns_at is None else budget.turns_at - now,
            )

    def __repr__(self) -> str:
        """Show the live state."""
        budget = self.budget
        with budget.lock:
            left = "?" if budget.remaining is None else budget.remaining
        return (
            f"<Gate {self.endpoint}: {left} of {budget.limit} left, "
            f"{budget.in_flight} in flight, {len(self._waiting)} waiting>"
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

    def _leave(self, turn: int, future: asyncio.Future[Permit]) -> None:
        """Give the place of a cancelled waiter, or the permit it just got, to the next."""
        self._waiting.pop(turn, None)
        if future.done() and not future.cancelled():
            future.result().unused()
        else:
            self._set_timer()

    def _check(self, waiter: _Waiter, now: float, ahead: int) -> None:
        with self.budget.lock:
            denied = self.budget.denied_for(now)
        if denied is not None:
            raise DeniedError(denied)
        earliest = self._earliest(now, ahead)
        if earliest > waiter.deadline:
            raise DeadlineError(endpoint=self.endpoint, retry_after=earliest - now)

    def send_away(self) -> None:
        """Tell those who cannot get through in time, now that more is known of the window."""
        now = self.time()
        ahead = 0
        for turn, waiter in list(self._waiting.items()):
            try:
                self._check(waiter, now, ahead)
                ahead += 1
            except (DeadlineError, DeniedError) as error:
                del self._waiting[turn]
                if not waiter.future.done():
                    waiter.future.set_exception(error)

    def _set_timer(self) -> None:
        if self._is_over():
            return
        now = self.time()
        opens_at = self._opens_at(now) if self._waiting else None
        if self._timer is not None and self._timer.when() != opens_at:
            self._timer.cancel()
            self._timer = None
        if opens_at is None:
            self._untold.clear()
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(opens_at, self._look_again)
        if self._untold and self._earliest(now, 0) - now >= NOTABLE:
            self._tell(now)

    def _is_over(self) -> bool:
        """Whether the gate's loop is closed, so that nobody comes through any more."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def _look_again(self) -> None:
        self._timer = None
        self.admit()

    def _tell(self, now: float) -> None:
        """Tell those that wait, each once, that they do and for how long."""
        untold, self._untold = self._untold, []
        for turn in untold:
            waiter = self._waiting.get(turn)
            if waiter is not None:
                delay = max(0.0, self._earliest(now, len(self._waiting) - 1) - now)
                waiter.emit(LimitHeld(self.endpoint, delay=delay, queue=len(self._waiting)))
