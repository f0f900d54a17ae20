"""Rate limiters whose budget is shared with other processes while its store is available.

A request passes the limiter of this process first, which keeps the order, follows the headers and
knows the deadlines. Then it takes a lease on a request of the shared budget, first come, first
served among the requests of this client. Its outcome is reported to both. While the store is
unavailable, only the limiter of the process applies.
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
from amigo_async.ratelimit.backend import ClockReading, RecordStore, UnavailableError
from amigo_async.ratelimit.leases import LeasedBudget
from amigo_async.ratelimit.limiter import NOTABLE, BudgetState, DeniedError, Limiter, Permit
from amigo_async.ratelimit.registry import Limiters
from amigo_async.ratelimit.window import PROBE_TIMEOUT, Budget, RateLimitInfo

# While another process awaits the answer to its probe, the record is polled at intervals that grow
# from the first to the second of these, in seconds.
_SHORTEST_POLL: Final = 0.02
_LONGEST_POLL: Final = 0.25
_POLL_GROWTH: Final = 1.5


class SharedPermit:
    """Permission to send one request, from the limiter of the process and the shared budget.

    Used like a `Permit`.
    """

    __slots__ = ("_call", "_leases", "_open", "_permit")

    def __init__(self, permit: Permit, leases: LeaseQueue, call: int) -> None:
        self._permit = permit
        self._leases = leases
        self._call = call
        self._open = True

    @property
    def position(self) -> int:
        """The request's position in the queue of the process; lower positions go first."""
        return self._permit.position

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count the request as sent and lost if its outcome was not reported."""
        self._permit.__exit__(exc_type, exc, traceback)
        if self._open:
            self._report(lambda budget, at: budget.lost(at.store_time, self._call))

    def answered(self, info: RateLimitInfo | None) -> None:
        """The request was answered; `info` is None without usable rate-limit headers."""
        self._permit.answered(info)
        self._report(
            lambda budget, at: budget.answered(at.store_time, self._call, _on_store(info, at))
        )

    def refused(self, pause: float | None) -> None:
        """The request was refused for `pause` seconds; None if the response does not say."""
        self._permit.refused(pause)
        self._report(lambda budget, at: budget.refused(at.store_time, self._call, pause))

    def unsent(self) -> None:
        """The request was not sent."""
        self._permit.unsent()
        self._report(lambda budget, _: budget.unsent(self._call))

    def _report(self, report: _Report) -> None:
        self._open = False
        self._leases.report(report)


class SharedLimiter:
    """The limiter of an endpoint, followed by the shared budget."""

    def __init__(self, limiter: Limiter, leases: LeaseQueue) -> None:
        self._limiter = limiter
        self.leases = leases

    def held(self) -> float:
        """Seconds for which the next request must wait at least; 0 while one is in flight."""
        return self._limiter.held()

    async def enter(self, emit: Emit, *, position: int | None = None) -> Permit | SharedPermit:
        """Wait for quota of the process and then of the shared budget; see `Limiter.enter`.

        The deadline of the surrounding anyio scopes applies to both waits together.
        """
        while True:
            self._limiter.budget.alone = self.leases.available
            permit = await self._limiter.enter(emit, position=position)
            try:
                call = await self.leases.take(emit, permit.position)
            except UnavailableError:
                # Meant to wait for the shared budget, so queue again in the process alone.
                permit.unsent()
                position = permit.position
                continue
            except BaseException:
                permit.unsent()
                raise
            return permit if call is None else SharedPermit(permit, self.leases, call)

    def state(self, local: BudgetState) -> BudgetState:
        """The snapshot `local`, with requests that wait for the shared budget as waiting."""
        waiting = len(self.leases)
        in_flight = max(0, local.in_flight - waiting)
        return replace(local, waiting=local.waiting + waiting, in_flight=in_flight)


class SharedLimiters:
    """The limiters of one client with shared budgets.

    Args:
        limiters: The limiters of the process.
        records: Where the budgets are kept.
        name: Identifies the owner of the budgets; the same in all processes that share them.
        lease: Seconds after which a request counts as lost if its outcome was not reported.
    """

    def __init__(
        self, limiters: Limiters, records: RecordStore, *, name: str, lease: float
    ) -> None:
        self._limiters = limiters
        self._records = records
        self._name = name
        self._lease = lease
        self._shared: dict[str, SharedLimiter] = {}

    def of(self, endpoint: str, limit: int) -> SharedLimiter:
        """The limiter of an endpoint in the running loop; `limit` is the documented one."""
        limiter = self._shared.get(endpoint)
        if limiter is None:
            leases = LeaseQueue(
                self._records, f"{self._name}:{endpoint}", endpoint, limit, self._lease
            )
            limiter = SharedLimiter(self._limiters.of(endpoint, limit), leases)
            self._shared[endpoint] = limiter
        return limiter

    def states(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used in the running loop, by endpoint."""
        return {
            name: self._shared[name].state(state) if name in self._shared else state
            for name, state in self._limiters.states().items()
        }

    async def aclose(self) -> None:
        """Report the outcomes that are still unreported, then release the limiters."""
        for limiter in self._shared.values():
            await limiter.leases.aclose()
        await self._limiters.aclose()


class _QueuedLease(Struct, eq=False):
    call: asyncio.Future[int]
    emit: Emit
    deadline: float
    position: int
    reported: bool = False


_Report: TypeAlias = Callable[[LeasedBudget, ClockReading], None]


class LeaseQueue:
    """Takes leases on one shared budget in order, and reports outcomes to it.

    A task runs while there is something to do. Each step is one change of the record, which
    reports all outcomes and takes leases for those who wait.

    Args:
        records: Where the budget is kept.
        key: The key of its record.
        endpoint: The name of the endpoint, for events.
        limit: Documented requests per window.
        lease: Seconds after which a request counts as lost if its outcome was not reported.
    """

    def __init__(
        self, records: RecordStore, key: str, endpoint: str, limit: int, lease: float
    ) -> None:
        self._records = records
        self._key = key
        self._endpoint = endpoint
        self._limit = limit
        self._lease = lease
        self._queue: list[_QueuedLease] = []
        self._reports: list[_Report] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def available(self) -> bool:
        """Whether the budget is shared at present."""
        return self._records.available

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    async def take(self, emit: Emit, position: int = 0) -> int | None:
        """Wait for a lease.

        Args:
            emit: Receives a `LimitHeld` event if the wait takes a while.
            position: Position among the requests of this client; lower positions go first.

        Returns:
            The number of the request; None if the budget is not shared at present.

        Raises:
            DeadlineError: If quota cannot become available before the deadline of the surrounding
                anyio scopes.
            DeniedError: If the service asked for a pause that is too long to wait for.
            UnavailableError: If the store was lost during the wait.
        """
        if not self._records.available:
            return None
        call = asyncio.get_running_loop().create_future()
        queued = _QueuedLease(call, emit, anyio.current_effective_deadline(), position)
        bisect.insort(self._queue, queued, key=lambda other: other.position)
        self._work()
        try:
            return await queued.call
        except BaseException:  # whatever ends the wait, a lease that was just taken is returned
            self._leave(queued)
            raise

    def report(self, report: _Report) -> None:
        """Report the outcome of a request to the shared budget, in the next step."""
        if self._records.available:
            self._reports.append(report)
            self._work()

    async def aclose(self) -> None:
        """Fail the requests that wait, and report the outcomes that are still unreported."""
        self._fail_all(UnavailableError())
        if self._task is not None:
            self._wake.set()
            await asyncio.wait({self._task})

    def _work(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        poll = _SHORTEST_POLL
        try:
            while self._queue or self._reports:
                budget, at = await self._step()
                if not self._queue or self._reports:
                    continue
                probing = budget.probing
                poll = min(_LONGEST_POLL, poll * _POLL_GROWTH) if probing else _SHORTEST_POLL
                opens_in = min(PROBE_TIMEOUT, budget.opens_at(at.store_time) - at.store_time)
                await self._sleep(min(opens_in, poll) if probing else opens_in)
        except Exception as error:  # noqa: BLE001  # raised to all who wait
            self._fail_all(error)
        finally:
            self._task = None
            self._reports.clear()
            self._fail_all(UnavailableError())

    async def _step(self) -> tuple[Budget, ClockReading]:
        """Change the record once; the budget afterwards, and when that was."""
        self._wake.clear()
        reports, wanted = tuple(self._reports), len(self._queue)

        def update(record: bytes | None, at: ClockReading) -> tuple[bytes | None, _Step]:
            now = at.store_time
            leased = LeasedBudget.load(record, self._limit, now)
            for report in reports:
                report(leased, at)
            calls: list[int] = []
            while len(calls) < wanted and leased.budget.available(now) > 0:
                calls.append(leased.take(now, self._lease))
            changed = leased.dump(now) if calls or reports else None
            return changed, (calls, leased.budget, at)

        calls, budget, at = await self._records.change(self._key, update)
        del self._reports[: len(reports)]
        self._hand_out(calls)
        self._check_deadlines(budget, at)
        return budget, at

    def _hand_out(self, calls: list[int]) -> None:
        self._queue = [queued for queued in self._queue if not queued.call.done()]
        for call in calls:
            if self._queue:
                self._queue.pop(0).call.set_result(call)
            else:  # its request was cancelled meanwhile
                self._give_back(call)

    def _check_deadlines(self, budget: Budget, at: ClockReading) -> None:
        """Report waits as events, and fail requests that cannot be sent in time."""
        now, ahead = at.store_time, 0
        denied = budget.denied_for(now) if not budget.available(now) else None
        if denied is not None:
            self._fail_all(DeniedError(denied))
        for queued in tuple(self._queue):
            delay = budget.earliest(now, ahead) - now
            if at.loop_time + delay > queued.deadline:
                self._queue.remove(queued)
                queued.call.set_exception(DeadlineError(endpoint=self._endpoint, retry_after=delay))
                continue
            ahead += 1
            if not queued.reported and delay >= NOTABLE:
                queued.reported = True
                queued.emit(LimitHeld(self._endpoint, delay=delay, queue=len(self._queue)))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or return early when there is something to report."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _leave(self, queued: _QueuedLease) -> None:
        if queued in self._queue:
            self._queue.remove(queued)
            self._wake.set()
        elif not queued.call.cancelled() and queued.call.exception() is None:
            self._give_back(queued.call.result())

    def _give_back(self, call: int) -> None:
        self.report(lambda budget, _: budget.unsent(call))

    def _fail_all(self, error: Exception) -> None:
        failed, self._queue = self._queue, []
        for queued in failed:
            if not queued.call.done():
                queued.call.set_exception(error)


_Step: TypeAlias = tuple[list[int], Budget, ClockReading]


def _on_store(info: RateLimitInfo | None, at: ClockReading) -> RateLimitInfo | None:
    """`info` on the clock of the store; the end of the window rather too late than too early."""
    if info is None:
        return None
    return replace(info, resets_at=at.store_time + info.resets_at - at.loop_time)
