"""Gates of which the budget is shared with other processes, as long as there is a place for it.

A call goes through the gate of this process first, which keeps the order, believes the headers and
knows the deadlines. Then it takes a lease on a call of the shared budget, first come, first served
among the calls of this client. What becomes of the call is told to both. Without the place where
the shared budget is kept, the gate of the process is all there is.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeAlias

import anyio
from msgspec import Struct
from msgspec.structs import replace

from amigo_async.errors import DeadlineError
from amigo_async.events import Emit, LimitHeld
from amigo_async.ratelimit.backend import Instant, Records, UnavailableError
from amigo_async.ratelimit.leases import LeasedBudget
from amigo_async.ratelimit.limiter import NOTABLE, BudgetState, DeniedError, Gate, Permit
from amigo_async.ratelimit.registry import Gates
from amigo_async.ratelimit.window import PATIENCE, Budget, Told

# The answer to the first call of a window, if another process waits for it, is looked for after
# so many seconds first, then after longer, up to the most.
_LOOK: Final = 0.02
_LOOK_GROWTH: Final = 1.5
_LOOK_MOST: Final = 0.25


class SharedPermit:
    """Leave to send one request, from the gate of the process and from the shared budget."""

    __slots__ = ("_call", "_open", "_permit", "_reservations")

    def __init__(self, permit: Permit, reservations: Reservations, call: int) -> None:
        self._permit = permit
        self._reservations = reservations
        self._call = call
        self._open = True

    @property
    def turn(self) -> int:
        """As `Permit.turn`."""
        return self._permit.turn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count the request as sent if nothing was told of it."""
        self._permit.__exit__(exc_type, exc, traceback)
        if self._open:
            self._settle(lambda budget, at: budget.lost(at.now, self._call))

    def answered(self, told: Told | None) -> None:
        """As `Permit.answered`."""
        self._permit.answered(told)
        self._settle(lambda budget, at: budget.answered(at.now, self._call, _there(told, at)))

    def refused(self, pause: float | None) -> None:
        """As `Permit.refused`."""
        self._permit.refused(pause)
        self._settle(lambda budget, at: budget.refused(at.now, self._call, pause))

    def unused(self) -> None:
        """As `Permit.unused`."""
        self._permit.unused()
        self._settle(lambda budget, _: budget.returned(self._call))

    def _settle(self, tell: _Tell) -> None:
        self._open = False
        self._reservations.settle(tell)


class SharedGate:
    """The gate of an endpoint, and behind it the shared budget."""

    def __init__(self, gate: Gate, reservations: Reservations) -> None:
        self._gate = gate
        self.reservations = reservations

    def enter_nowait(self) -> None:
        """As `Gate.enter_nowait`; the shared budget is always waited for."""

    def held(self) -> float:
        """As `Gate.held`."""
        return self._gate.held()

    async def enter(self, emit: Emit, *, turn: int | None = None) -> Permit | SharedPermit:
        """As `Gate.enter`; the deadline is that of both waits together."""
        while True:
            self._gate.budget.alone = self.reservations.shared
            permit = await self._gate.enter(emit, turn=turn)
            try:
                call = await self.reservations.take(emit, permit.turn)
            except UnavailableError:
                # What the gate let through was not to go at once: it decides alone from now on.
                permit.unused()
                turn = permit.turn
                continue
            except BaseException:
                permit.unused()
                raise
            return permit if call is None else SharedPermit(permit, self.reservations, call)

    def state(self, local: BudgetState) -> BudgetState:
        """The snapshot of the gate; who waits for the shared budget waits."""
        waiting = len(self.reservations)
        in_flight = max(0, local.in_flight - waiting)
        return replace(local, waiting=local.waiting + waiting, in_flight=in_flight)


class SharedGates:
    """The gates of one client, whose budgets are shared.

    Args:
        gates: The gates of the process.
        records: Where the budgets are kept.
        name: Whose budgets they are: the same for all who share them.
        lease: After how many seconds a call is taken for lost if nothing is told of it.
    """

    def __init__(self, gates: Gates, records: Records, *, name: str, lease: float) -> None:
        self._gates = gates
        self._records = records
        self._name = name
        self._lease = lease
        self._shared: dict[str, SharedGate] = {}

    def of(self, endpoint: str, limit: int) -> SharedGate:
        """As `Gates.of`."""
        gate = self._shared.get(endpoint)
        if gate is None:
            reservations = Reservations(
                self._records, f"{self._name}:{endpoint}", endpoint, limit, self._lease
            )
            gate = self._shared[endpoint] = SharedGate(
                self._gates.of(endpoint, limit), reservations
            )
        return gate

    def states(self) -> dict[str, BudgetState]:
        """As `Gates.states`."""
        return {
            name: self._shared[name].state(state) if name in self._shared else state
            for name, state in self._gates.states().items()
        }

    async def aclose(self) -> None:
        """Tell what became of the calls that are over; nobody waits here any more."""
        for gate in self._shared.values():
            await gate.reservations.aclose()
        await self._gates.aclose()


class _Waiter(Struct, eq=False):
    future: asyncio.Future[int]
    emit: Emit
    deadline: float
    turn: int
    untold: bool = True


_Tell: TypeAlias = Callable[[LeasedBudget, Instant], None]


class Reservations:
    """Takes calls of one shared budget, and tells what became of them.

    While there is something to do a task does it, one step at a time: in one change of the record
    it tells what there is to tell and takes calls for those who wait.

    Args:
        records: Where the budget is kept.
        key: The key of its record.
        endpoint: The name of the endpoint, for events.
        limit: Calls a window as documented.
        lease: After how many seconds a call is taken for lost if nothing is told of it.
    """

    def __init__(self, records: Records, key: str, endpoint: str, limit: int, lease: float) -> None:
        self._records = records
        self._key = key
        self._endpoint = endpoint
        self._limit = limit
        self._lease = lease
        self._waiting: list[_Waiter] = []
        self._results: list[_Tell] = []
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def shared(self) -> bool:
        """Whether the budget is shared at present."""
        return self._records.available

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def take(self, emit: Emit, turn: int = 0) -> int | None:
        """Wait for a call of the budget.

        Args:
            emit: Hears a `LimitHeld` if it takes a while.
            turn: Its place among the calls of this client: the lower comes first.

        Returns:
            The call's number; None where nothing is shared at present.

        Raises:
            DeadlineError: If there cannot be one before the deadline of the surrounding anyio
                scopes.
            DeniedError: If the service has refused for longer than anybody waits.
            UnavailableError: If the budget was lost while this call waited.
        """
        if not self._records.available:
            return None
        future = asyncio.get_running_loop().create_future()
        waiter = _Waiter(future, emit, anyio.current_effective_deadline(), turn)
        bisect.insort(self._waiting, waiter, key=lambda other: other.turn)
        self._work()
        try:
            return await waiter.future
        except BaseException:  # whatever ends the wait, the call is given back
            self._leave(waiter)
            raise

    def settle(self, tell: _Tell) -> None:
        """Tell the budget of a call that was taken, soon."""
        if self._records.available:
            self._results.append(tell)
            self._work()

    async def aclose(self) -> None:
        """Send away those who wait, and tell what there is to tell."""
        self._send_away(UnavailableError())
        if self._task is not None:
            self._news.set()
            await asyncio.wait({self._task})

    def _work(self) -> None:
        self._news.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        pause = _LOOK
        try:
            while self._waiting or self._results:
                budget, at = await self._step()
                if not self._waiting or self._results:
                    continue
                pause = min(_LOOK_MOST, pause * _LOOK_GROWTH) if budget.scouting else _LOOK
                opens_in = min(PATIENCE, budget.opens_at(at.now) - at.now)
                await self._sleep(min(opens_in, pause) if budget.scouting else opens_in)
        except Exception as error:  # noqa: BLE001  # whoever waits is to hear of it
            self._send_away(error)
        finally:
            self._task = None
            self._results.clear()
            self._send_away(UnavailableError())

    async def _step(self) -> tuple[Budget, Instant]:
        """Change the record once; what is known of the budget then, and when that was."""
        self._news.clear()
        results, wanted = tuple(self._results), len(self._waiting)

        def step(record: bytes | None, at: Instant) -> tuple[bytes | None, _Taken]:
            leased = LeasedBudget.load(record, self._limit, at.now)
            for tell in results:
                tell(leased, at)
            calls: list[int] = []
            while len(calls) < wanted and leased.budget.room(at.now) > 0:
                calls.append(leased.take(at.now, self._lease))
            changed = leased.dump(at.now) if calls or results else None
            return changed, (calls, leased.budget, at)

        calls, budget, at = await self._records.change(self._key, step)
        del self._results[: len(results)]
        self._hand_out(calls)
        self._look_ahead(budget, at)
        return budget, at

    def _hand_out(self, calls: list[int]) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter.future.done()]
        for call in calls:
            if self._waiting:
                self._waiting.pop(0).future.set_result(call)
            else:  # who wanted it has left meanwhile
                self._give_back(call)

    def _look_ahead(self, budget: Budget, at: Instant) -> None:
        """Tell those who wait that they do, or that they cannot get through in time."""
        ahead = 0
        denied = budget.denied_for(at.now) if not budget.room(at.now) else None
        if denied is not None:
            self._send_away(DeniedError(denied))
        for waiter in tuple(self._waiting):
            delay = budget.earliest(at.now, ahead) - at.now
            if at.asked + delay > waiter.deadline:
                self._waiting.remove(waiter)
                waiter.future.set_exception(
                    DeadlineError(endpoint=self._endpoint, retry_after=delay)
                )
                continue
            ahead += 1
            if waiter.untold and delay >= NOTABLE:
                waiter.untold = False
                waiter.emit(LimitHeld(self._endpoint, delay=delay, queue=len(self._waiting)))

    async def _sleep(self, seconds: float) -> None:
        """Until there is something to tell, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._news.set()
        elif not waiter.future.cancelled() and waiter.future.exception() is None:
            self._give_back(waiter.future.result())

    def _give_back(self, call: int) -> None:
        self.settle(lambda budget, _: budget.returned(call))

    def _send_away(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(error)


_Taken: TypeAlias = tuple[list[int], Budget, Instant]


def _there(told: Told | None, at: Instant) -> Told | None:
    """`told` on the clock of the place; its turn rather later than too early."""
    return None if told is None else replace(told, turns_at=at.now + told.turns_at - at.asked)
