"""A start is never made twice, and its id is never lost, whatever happens to the answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Unpack

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from amigo_async.decoding import decode_created_run
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArgumentError,
    BadRequestError,
    ConflictError,
    DeadlineError,
    DecodeError,
    ForbiddenError,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from amigo_async.events import (
    Event,
    RequestRetried,
    RunStarted,
    SecondRunFound,
    StartUnresolved,
)
from amigo_async.models import CreatedRun, Run, RunPage, UserInfo
from amigo_async.protocol.requests import RunFilters
from amigo_async.protocol.responses import Response
from amigo_async.server_clock import ServerClock
from amigo_async.starting import Fence, Intention, Starts
from amigo_async.starting.attempt import GRACE
from amigo_async.starting.starts import SEARCH_TIMEOUT, OnConflict
from amigo_async.transport import Guard
from tests.unit.fake_runs import CREATOR, EPOCH, page_of, run_id, some_run
from tests.unit.service import run

SET = run_id(0xABC)
OTHER_SET = run_id(0xDEF)


class FakeCalls:
    """A service that keeps the rule of one unfinished run, and loses answers as told.

    Attributes:
        plan: What becomes of each create: one of `LOSSES`, or "ok".
        latency: Seconds on the wire, half of them before the work is done.
        lists: When each list was asked for.
        lag: Seconds after which a run is listed.
        hidden: Runs that are not listed.
        unreadable: Runs whose records cannot be decoded.
        oldest_first: Whether lists are not sorted as asked for.
        skew: How far the clock that tells when runs were created is off.
    """

    def __init__(self, *plan: str, ends_after: float = 1e9) -> None:
        self.plan = list(plan)
        self.ends_after = ends_after
        self.runs: list[Run] = []
        self.creates = 0
        self.cancels: list[str] = []
        self.latency = 0.2
        self.list_errors: list[AmigoError] = []
        self.before_list: Callable[[], object] = lambda: None
        self.clock = ServerClock()
        self.lists: list[float] = []
        self.lag = 0.0
        self.hidden: set[str] = set()
        self.unreadable: set[str] = set()
        self.oldest_first = False
        self.skew = timedelta()
        self.really: dict[str, datetime] = {}
        self._numbers = itertools.count(1)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def tick(self) -> None:
        """Let the client know the server's clock, which is a day behind the loop's."""
        server = self.now() - 86_400 + EPOCH.timestamp()
        self.clock.observe(float(int(server)), self.now(), self.now())

    def server_now(self) -> Any:
        return EPOCH + timedelta(seconds=self.now() - 86_400)

    def unfinished(self, set_id: str, creator: UserInfo = CREATOR) -> Run | None:
        for at, known in enumerate(self.runs):
            age = self.server_now() - self.really[known.id]
            over = age.total_seconds() >= self.ends_after
            if over and not known.is_completed:
                self.runs[at] = replace(known, is_completed=True)
        return next(
            (
                r
                for r in self.runs
                if r.simulation_unit_test_set_id == set_id
                and r.creator == creator
                and not r.is_completed
            ),
            None,
        )

    def add(self, set_id: str = SET, creator: UserInfo = CREATOR) -> Run:
        started = some_run(
            run_id(next(self._numbers)),
            simulation_unit_test_set_id=set_id,
            created_at=self.server_now() + self.skew,
            creator=creator,
        )
        self.really[started.id] = self.server_now()
        self.runs.append(started)
        return started

    def end(self, id: str) -> None:
        self.runs = [replace(r, is_completed=r.is_completed or r.id == id) for r in self.runs]

    async def _send(self, set_id: str) -> Response:
        self.creates += 1
        fate = self.plan.pop(0) if self.plan else "ok"
        await asyncio.sleep(self.latency / 2)
        if fate == "not sent":
            raise TransportError("refused", method="POST", path="/", sent=False)
        if fate in ("lost before", "500 before", "forbidden"):
            status = {"forbidden": 403, "500 before": 500}.get(fate)
            return self._answer(status)
        if self.unfinished(set_id) is not None:
            return Response(409, {}, b"")
        created = self.add(set_id)
        await asyncio.sleep(self.latency / 2)
        if fate == "lost after":
            return self._answer(None)
        if fate == "500 after":
            return self._answer(500)
        if fate == "garbage after":
            return Response(201, {}, b"<html>")
        return Response(201, {}, msgspec.json.encode(CreatedRun(created.id)))

    def _answer(self, status: int | None) -> Response:
        if status is None:
            raise RequestTimeoutError("no answer in time", method="POST", path="/")
        return Response(status, {}, b"")

    async def create(self, set_id: str, guard: Guard) -> CreatedRun:
        response = await guard(self._send(set_id))
        where: dict[str, Any] = {"method": "POST", "path": "/", "status": response.status}
        kinds = {409: ConflictError, 403: ForbiddenError, 500: ServerError}
        if response.status in kinds:
            raise kinds[response.status](**where)
        try:
            return decode_created_run(response.body)
        except msgspec.DecodeError as error:
            raise DecodeError("no JSON", **where) from error

    async def page(self, **filters: Unpack[RunFilters]) -> RunPage:
        self.before_list()
        self.tick()
        self.lists.append(self.now())
        await asyncio.sleep(self.latency / 2)
        if self.list_errors:
            raise self.list_errors.pop(0)
        self.unfinished("")
        sets = filters["simulation_unit_test_set_id"]
        found = [
            r
            for r in sorted(self.runs, key=lambda r: r.created_at, reverse=not self.oldest_first)
            if r.simulation_unit_test_set_id in sets
            and filters.get("creator") in ((), r.creator)
            and filters.get("is_completed") in (None, r.is_completed)
            and (self.server_now() - self.really[r.id]).total_seconds() >= self.lag
            and r.id not in self.hidden
        ]
        began, size = filters.get("continuation_token") or 0, filters["limit"] or 50
        some = found[began : began + size]
        return replace(
            page := page_of(
                [r for r in some if r.id not in self.unreadable],
                has_more=len(found) > began + size,
            ),
            continuation_token=began + size if page.has_more else None,
            unreadable={r.id: "no creator" for r in some if r.id in self.unreadable},
        )

    async def cancel(self, id: str) -> None:
        self.cancels.append(id)
        known = next(r for r in self.runs if r.id == id)
        if known.is_completed:
            raise ConflictError(method="DELETE", path="/", status=409)
        asyncio.get_running_loop().call_later(3.0, self.end, id)

    async def ended(self, id: str) -> Run:
        while True:
            self.unfinished("")
            known = next((r for r in self.runs if r.id == id), None)
            if known is None:
                raise NotFoundError.of_run(id)
            if known.is_completed:
                return known
            await asyncio.sleep(1)


def starts(
    calls: FakeCalls, heard: list[Event] | None = None, creator: UserInfo | None = CREATOR
) -> Starts:
    calls.tick()
    return Starts(
        calls,
        ended=calls.ended,
        creator=creator,
        clock=calls.clock,
        emit=(heard if heard is not None else []).append,
    )


def fenced(calls: FakeCalls, heard: list[Event] | None = None, **given: Any) -> Any:
    """Start a run as a batch does."""
    shared = starts(calls, heard)
    return shared.start(SET, fence=shared.fences(lambda: [SET]).before, **given)


async def no_fence(_: str) -> Fence:
    """A fence from before there was anything."""
    return Fence()


class Record:
    """A record of a start, in memory."""

    def __init__(self) -> None:
        self.steps: list[object] = []

    async def intended(self, fence: Fence | None) -> None:
        self.steps.append(fence)

    async def refused(self) -> None:
        self.steps.append("refused")

    async def started(self, created: CreatedRun) -> None:
        await asyncio.sleep(1)  # on its way to a slow disk
        self.steps.append(created)

    def unresolved(self, error: AmbiguousStartError) -> None:
        self.steps.append(error)


LOSSES = ["not sent", "lost before", "lost after", "500 before", "500 after", "garbage after"]


@pytest.mark.parametrize("plan", [[], *itertools.product(LOSSES, repeat=2), LOSSES[:4]])
def test_any_lost_answers_make_one_run(
    plan: list[str],
) -> None:
    calls = FakeCalls(*plan)
    heard: list[Event] = []

    async def main() -> CreatedRun:
        return await starts(calls, heard).start(SET)

    created = run(main)
    assert [r.id for r in calls.runs] == [created.simulation_unit_test_set_run_id]
    # Only what the service has said is ours.
    fate = [*plan, "ok"][calls.creates - 1]
    assert created.attached == (fate != "ok")
    *retried, started = heard
    assert started == RunStarted(SET, calls.runs[0].id, attached=created.attached)
    failed = plan[: calls.creates]
    assert [e.attempt for e in retried if isinstance(e, RequestRetried)] == [
        *range(1, len(failed) + 1)
    ]
    for number, event in enumerate(retried, 1):
        assert isinstance(event, RequestRetried)
        assert event.endpoint == "create"
        lost = any(fate != "not sent" for fate in failed[:number])
        assert event.delay == SEARCH_TIMEOUT if lost else event.delay < SEARCH_TIMEOUT


def test_exhausted_create_is_not_said_to_be_retried() -> None:
    calls, heard = FakeCalls(*["not sent"] * 5), list[Event]()
    with pytest.raises(TransportError):
        run(lambda: starts(calls, heard).start(SET))
    assert calls.creates == 5
    assert [e.attempt for e in heard if isinstance(e, RequestRetried)] == [1, 2, 3, 4]


def test_refused_create_is_not_said_to_be_retried() -> None:
    calls, heard = FakeCalls("lost before", "forbidden"), list[Event]()
    with pytest.raises(AmbiguousStartError):
        run(lambda: starts(calls, heard).start(SET))
    assert [(type(e), getattr(e, "attempt", 0)) for e in heard] == [(RequestRetried, 1)]


@pytest.mark.parametrize("on_conflict", ["wait", "restart"])
def test_create_that_made_way_is_retried(on_conflict: OnConflict) -> None:
    calls, heard = FakeCalls(ends_after=20.0), list[Event]()

    async def main() -> None:
        calls.add()
        await starts(calls, heard).start(SET, on_conflict)

    run(main)
    retried = [e for e in heard if isinstance(e, RequestRetried)]
    assert [(e.endpoint, e.attempt, e.delay) for e in retried] == [("create", 1, 0.0)]
    assert "409" in retried[0].reason


def test_lost_run_already_over_is_found() -> None:
    calls = FakeCalls("lost after", ends_after=0.0)
    assert run(lambda: fenced(calls)) == CreatedRun(run_id(1), attached=True)
    assert calls.creates == 1


def test_no_fence_finished_run_in_doubt() -> None:
    calls = FakeCalls("lost after", ends_after=0.0)
    with pytest.raises(AmbiguousStartError) as caught:
        run(lambda: starts(calls).start(SET))
    assert caught.value.candidates == (run_id(1),)
    assert run_id(1) in str(caught.value)
    assert calls.creates == 1


@pytest.mark.parametrize(("age", "runs"), [(280.0, 1), (400.0, 2)])
def test_no_fence_five_minutes_in_doubt(age: float, runs: int) -> None:
    calls = FakeCalls("lost before", ends_after=5.0)

    async def main() -> list[object]:
        calls.add()
        await asyncio.sleep(age)
        return list(await asyncio.gather(starts(calls).start(SET), return_exceptions=True))

    (end,) = run(main)
    if runs == 2:
        assert end == CreatedRun(run_id(2))
    else:
        assert isinstance(end, AmbiguousStartError)
        assert end.candidates == (run_id(1),)
    assert len(calls.runs) == runs


def test_no_fence_no_clock_all_in_doubt() -> None:
    calls = FakeCalls("lost before", ends_after=5.0)

    async def main() -> None:
        calls.add()
        await asyncio.sleep(4000)
        calls.tick = lambda: None  # type: ignore[method-assign]  # no Date
        with pytest.raises(AmbiguousStartError) as caught:
            await starts(calls).start(SET)
        assert caught.value.candidates == (run_id(1),)
        assert caught.value.since is None

    run(main)


def test_late_create_seen_by_its_conflict() -> None:
    calls = FakeCalls("lost before")

    async def main() -> CreatedRun:
        calls.before_list = lambda: asyncio.get_running_loop().call_later(0.15, late)

        def late() -> None:
            calls.before_list = lambda: None
            calls.add()

        return await starts(calls).start(SET)

    assert run(main) == CreatedRun(run_id(1), attached=True)
    assert len(calls.runs) == 1


def test_older_run_is_not_taken() -> None:
    calls = FakeCalls("lost before")

    async def main() -> None:
        older = calls.add()
        await asyncio.sleep(10)
        with pytest.raises(ConflictError) as caught:
            await fenced(calls)
        assert caught.value.existing_run_id == older.id

    run(main)


def test_no_fence_takes_unfinished_run() -> None:
    calls = FakeCalls("lost before")

    async def main() -> CreatedRun:
        calls.add()
        await asyncio.sleep(10)
        return await starts(calls).start(SET)

    assert run(main) == CreatedRun(run_id(1), attached=True)


def test_another_users_run_is_not_taken() -> None:
    calls = FakeCalls("lost before")
    stranger = UserInfo("acme", "someone-else")
    calls.before_list = lambda: calls.runs or calls.add(creator=stranger)
    created = run(lambda: starts(calls).start(SET))
    mine = next(r for r in calls.runs if r.creator == CREATOR)
    assert created.simulation_unit_test_set_run_id == mine.id
    assert len(calls.runs) == 2


def test_two_starts_of_one_set() -> None:
    calls = FakeCalls("lost after", "lost before")

    async def main() -> list[object]:
        shared = starts(calls)
        both = (shared.start(SET), shared.start(SET))
        return list(await asyncio.gather(*both, return_exceptions=True))

    first, second = run(main)
    assert first == CreatedRun(run_id(1), attached=True)
    assert isinstance(second, ConflictError)
    assert second.existing_run_id == run_id(1)


def test_no_creator_is_ambiguous() -> None:
    calls = FakeCalls("lost after")
    with pytest.raises(AmbiguousStartError, match="user_id"):
        run(lambda: starts(calls, creator=None).start(SET))
    assert len(calls.runs) == 1


def test_no_creator_resends_if_nothing_ran() -> None:
    calls = FakeCalls("lost before")
    assert run(lambda: starts(calls, creator=None).start(SET)) == CreatedRun(run_id(1))


def test_it_gives_up_with_what_is_known() -> None:
    calls = FakeCalls(*["lost before"] * 10)

    async def main() -> None:
        began = calls.server_now()
        with pytest.raises(AmbiguousStartError, match="not listed") as caught:
            await starts(calls).start(SET)
        assert caught.value.unit_test_set_id == SET
        assert abs((caught.value.since - began).total_seconds()) <= 2.0
        assert isinstance(caught.value.__cause__, RequestTimeoutError)

    run(main)
    assert calls.creates == 5


class OneBroken(FakeCalls):
    """Creates of `SET` wait for `queue` seconds and then fail; those of other sets do neither."""

    def __init__(self, queue: float) -> None:
        super().__init__(*["500 before"] * 1_000)
        self.queue = queue

    async def create(self, set_id: str, guard: Guard) -> CreatedRun:
        if set_id == SET:
            await asyncio.sleep(self.queue)
        return await super().create(set_id, guard)

    async def _send(self, set_id: str) -> Response:
        if set_id == SET:
            return await super()._send(set_id)
        return Response(201, {}, msgspec.json.encode(CreatedRun(self.add(set_id).id)))


@pytest.mark.parametrize(
    ("queue", "others_work", "attempts"),
    [
        pytest.param(0.0, False, (8, 12), id="no queue"),
        pytest.param(400.0, True, (8, 12), id="a queue, and the service works for others"),
        pytest.param(400.0, False, (5, 5), id="a queue, and the service works for nobody"),
        pytest.param(0.0, True, (8, 12), id="it works for all others"),
    ],
)
def test_queueing_costs_no_patience(
    queue: float, others_work: bool, attempts: tuple[int, int]
) -> None:
    calls = OneBroken(queue)

    async def main() -> None:
        shared = starts(calls)

        async def start_others() -> None:
            for number in itertools.count(1000):
                await asyncio.sleep(100.0)
                await shared.start(run_id(number))

        async with anyio.create_task_group() as group:
            if others_work:
                group.start_soon(start_others)
            with pytest.raises(AmbiguousStartError):
                await shared.start(SET, patience=300.0)
            group.cancel_scope.cancel()

    run(main)
    assert attempts[0] <= calls.creates <= attempts[1]


def test_unreached_is_not_ambiguous() -> None:
    calls = FakeCalls(*["not sent"] * 10)
    with pytest.raises(TransportError):
        run(lambda: starts(calls).start(SET))
    assert calls.creates == 5


@pytest.mark.parametrize(
    ("plan", "list_error"),
    [
        (["lost after"], ForbiddenError(method="GET", path="/", status=403)),
        (["lost after"], DeadlineError(endpoint="list", retry_after=5.0)),
        (["lost before", "forbidden"], None),
    ],
)
def test_later_errors_keep_the_ambiguity(plan: list[str], list_error: AmigoError | None) -> None:
    calls = FakeCalls(*plan)
    calls.list_errors = [] if list_error is None else [list_error]
    with pytest.raises(AmbiguousStartError):
        run(lambda: starts(calls).start(SET))


def test_other_refusals_are_raised() -> None:
    calls = FakeCalls("forbidden")
    with pytest.raises(ForbiddenError):
        run(lambda: starts(calls).start(SET))
    assert calls.creates == 1


# --- runs in the way ---


def conflicting(calls: FakeCalls, on_conflict: Any) -> CreatedRun:
    async def main() -> CreatedRun:
        calls.add()
        await asyncio.sleep(10)
        return await starts(calls).start(SET, on_conflict)

    return run(main)


def test_attach_takes_the_run_that_is_there() -> None:
    calls = FakeCalls()
    assert conflicting(calls, "attach") == CreatedRun(run_id(1), attached=True)
    assert len(calls.runs) == 1


def test_wait_lets_it_finish_then_starts() -> None:
    calls = FakeCalls(ends_after=100.0)
    assert conflicting(calls, "wait") == CreatedRun(run_id(2))
    assert calls.cancels == []


def test_restart_cancels_then_starts() -> None:
    calls = FakeCalls()
    assert conflicting(calls, "restart") == CreatedRun(run_id(2))
    assert calls.cancels == [run_id(1)]
    assert [r.is_completed for r in calls.runs] == [True, False]


@pytest.mark.parametrize("on_conflict", ["attach", "wait", "restart"])
def test_run_that_ends_meanwhile(on_conflict: str) -> None:
    calls = FakeCalls()
    calls.before_list = lambda: calls.end(run_id(1))  # before it is looked for
    assert conflicting(calls, on_conflict) == CreatedRun(run_id(2))


def test_restart_of_a_vanished_run() -> None:
    class Vanishing(FakeCalls):
        async def cancel(self, id: str) -> None:
            self.cancels.append(id)
            self.runs = [r for r in self.runs if r.id != id]
            raise NotFoundError.of_run(id)

    calls = Vanishing()
    assert conflicting(calls, "restart") == CreatedRun(run_id(2))


def test_restart_gives_up_after_five() -> None:
    class Contested(FakeCalls):
        def end(self, id: str) -> None:
            super().end(id)
            self.add()

    calls = Contested()
    with pytest.raises(ConflictError):
        conflicting(calls, "restart")
    assert len(calls.cancels) == 5


def test_conflict_without_a_known_run() -> None:
    calls = FakeCalls()
    calls.list_errors = [ForbiddenError(method="GET", path="/", status=403)] * 2
    with pytest.raises(ConflictError) as caught:
        conflicting(calls, "raise")
    assert caught.value.existing_run_id is None


@pytest.mark.parametrize("on_conflict", ["attach", "wait", "restart"])
def test_on_conflict_needs_a_user(on_conflict: Any) -> None:
    calls = FakeCalls()
    with pytest.raises(ArgumentError, match="user_id"):
        run(lambda: starts(calls, creator=None).start(SET, on_conflict))
    assert calls.creates == 0


@pytest.mark.parametrize(("set_id", "on_conflict"), [("x", "raise"), (SET, "explode")])
def test_invalid_arguments(set_id: str, on_conflict: Any) -> None:
    calls = FakeCalls()
    with pytest.raises(ArgumentError):
        run(lambda: starts(calls).start(set_id, on_conflict))
    assert calls.creates == 0


# --- cancellation ---


@pytest.mark.parametrize("how", ["task", "scope"])
@pytest.mark.parametrize("fate", ["ok", *LOSSES])
@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.5])
def test_cancelled_start_keeps_its_id(how: str, fate: str, after: float) -> None:
    calls = FakeCalls(fate, *["ok"] * 5)
    heard: list[Event] = []

    async def main() -> float:
        shared = starts(calls, heard)
        cancelled_at = asyncio.get_running_loop().time() + after
        if how == "scope":
            with anyio.move_on_after(after):
                await shared.start(SET)
        else:
            task = asyncio.create_task(shared.start(SET))
            await asyncio.sleep(after)
            task.cancel()
            await asyncio.wait([task])
        return asyncio.get_running_loop().time() - cancelled_at

    assert run(main) <= 2 * GRACE
    told = [event.run_id for event in heard if isinstance(event, RunStarted)]
    assert told == [r.id for r in calls.runs]
    assert len(calls.runs) <= 1


def test_second_cancel_keeps_the_id() -> None:
    calls = FakeCalls("lost after")
    calls.latency = 4.0
    heard: list[Event] = []

    async def main() -> None:
        task = asyncio.create_task(starts(calls, heard).start(SET))
        for _ in range(3):
            await asyncio.sleep(1)
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main)
    assert [e.run_id for e in heard if isinstance(e, RunStarted)] == [run_id(1)]


def test_unresolved_after_cancel_is_told() -> None:
    calls = FakeCalls("lost after")
    calls.list_errors = [ForbiddenError(method="GET", path="/", status=403)]
    heard: list[Event] = []

    async def main() -> None:
        with anyio.move_on_after(0.15):
            await starts(calls, heard).start(SET)

    run(main)
    (event,) = heard
    assert isinstance(event, StartUnresolved)
    assert event.unit_test_set_id == SET


def test_endless_request_ends_by_grace() -> None:
    calls = FakeCalls()
    calls.latency = 1e6

    async def main() -> float:
        began = calls.now()
        with anyio.move_on_after(1):
            await starts(calls).start(SET)
        return calls.now() - began

    assert run(main) <= 1 + 2 * GRACE + 1


# --- what a batch needs ---


def test_intent_is_recorded_first() -> None:
    calls = FakeCalls("lost after")
    steps: list[object] = []

    class Steps(Record):
        async def intended(self, fence: Fence | None) -> None:
            steps.append(calls.creates)

        async def started(self, created: CreatedRun) -> None:
            steps.append(created)

    run(lambda: starts(calls).start(SET, recorder=Steps()))
    assert steps == [0, CreatedRun(run_id(1), attached=True)]


def test_failed_intent_sends_nothing() -> None:
    calls = FakeCalls()

    class Full(Record):
        async def intended(self, fence: Fence | None) -> None:
            raise ZeroDivisionError

    record = Full()
    with pytest.raises(ZeroDivisionError):
        run(lambda: starts(calls).start(SET, recorder=record))
    assert calls.creates == 0
    assert record.steps == []


@pytest.mark.parametrize("fence", [None, Fence()])
@pytest.mark.parametrize("was_started", [True, False])
def test_resumed_start_finds_or_starts(was_started: bool, fence: Fence | None) -> None:
    calls = FakeCalls()

    async def main() -> CreatedRun:
        earlier = Intention(calls.server_now(), fence)
        if was_started:
            await asyncio.sleep(5)
            calls.add()
        await asyncio.sleep(100)
        return await starts(calls).start(SET, earlier=earlier)

    assert run(main) == CreatedRun(run_id(1), attached=was_started)
    assert len(calls.runs) == 1
    assert calls.creates == (0 if was_started else 1)


def test_memory_does_not_grow() -> None:
    calls = FakeCalls(ends_after=0.0)

    async def main() -> int:
        shared = starts(calls)
        sizes = []
        for number in range(1200):
            await shared.start(run_id(10_000 + number))
            calls.runs.clear()
            sizes.append(len(shared._locks) + len(shared._doubtful) + len(shared._returned))
        assert len(shared._locks) == 0
        return max(sizes)

    assert run(main) <= 1002


def test_attached_run_is_not_a_lost_one() -> None:
    """However often it is attached to, it is remembered once, and longer than others."""
    calls = FakeCalls()

    async def main() -> None:
        shared = starts(calls)
        existing = calls.add()
        for _ in range(30):
            assert (await shared.start(SET, "attach")).attached
        calls.end(existing.id)
        calls.plan = ["lost before"]
        again = await shared.start(SET, fence=no_fence)
        assert again.simulation_unit_test_set_run_id != existing.id

    run(main)
    assert len(calls.runs) == 2


# --- what a lost create comes to ---


def ends(calls: FakeCalls, before: Callable[[], object] = lambda: None) -> object:
    """What a start with a fence comes to: its id and whether it was found, or the error."""

    async def main() -> object:
        calls.add()  # a run of the set that is over
        calls.end(run_id(1))
        await asyncio.sleep(120)
        before()
        starting: Awaitable[CreatedRun] = fenced(calls)
        (end,) = await asyncio.gather(starting, return_exceptions=True)
        if isinstance(end, CreatedRun):
            return end.simulation_unit_test_set_run_id, end.attached
        return type(end), getattr(end, "candidates", getattr(end, "existing_run_id", None))

    return run(main)


@pytest.mark.parametrize("lag", [0.0, 8.0, 29.0])
@pytest.mark.parametrize("lasts", [1e9, 40.0, 2.0])
@pytest.mark.parametrize("skew", [-86_400.0, -4.0, 0.0, 4.0, 86_400.0])
def test_fresh_run_despite_skew_and_lag(lag: float, lasts: float, skew: float) -> None:
    calls = FakeCalls("lost after", ends_after=lasts)
    calls.lag, calls.skew = lag, timedelta(seconds=skew)
    assert ends(calls) == (run_id(2), True)
    assert calls.creates == 1


def test_nothing_fresh_creates_again() -> None:
    calls = FakeCalls("lost before", ends_after=5.0)
    assert ends(calls) == (run_id(2), False)
    assert calls.creates == 2
    # Two lists for the fence, one for each look.
    assert 2 + SEARCH_TIMEOUT / 2 <= len(calls.lists) <= 2 + SEARCH_TIMEOUT / 2 + 2


def test_conflict_on_retry_finds_the_run() -> None:
    calls = FakeCalls("lost after")
    calls.lag = 50.0  # listed while the second create has been refused
    assert ends(calls) == (run_id(2), True)
    assert calls.creates == 2


def test_unlisted_run_is_not_claimed() -> None:
    calls = FakeCalls("lost after")
    calls.hidden = {run_id(2)}
    assert ends(calls) == (AmbiguousStartError, ())
    assert calls.creates == 2


def test_conflict_told_from_a_loss() -> None:
    calls = FakeCalls("lost before")
    assert ends(calls, calls.add) == (ConflictError, run_id(2))


def test_sleep_with_a_create_in_flight() -> None:
    """The loop's clock stands still; the service's does not."""

    class Asleep(FakeCalls):
        slept = timedelta()

        def server_now(self) -> Any:
            return super().server_now() + self.slept

        def _answer(self, status: int | None) -> Response:
            self.slept = timedelta(hours=1)
            return super()._answer(status)

    calls = Asleep("lost after", ends_after=30.0)
    assert ends(calls) == (run_id(2), True)
    assert calls.creates == 1


def test_late_second_run_is_reported() -> None:
    calls = FakeCalls("lost after", ends_after=5.0)
    calls.lag = 60.0
    heard: list[Event] = []

    async def main() -> CreatedRun:
        shared = starts(calls, heard)
        created = await shared.start(SET, fence=shared.fences(lambda: [SET]).before)
        await asyncio.sleep(61)
        for _ in range(2):  # once is enough
            await shared.report_second_run(created.simulation_unit_test_set_run_id)
        return created

    assert run(main) == CreatedRun(run_id(2))
    assert [e for e in heard if isinstance(e, SecondRunFound)] == [
        SecondRunFound(SET, run_id(2), run_id(1))
    ]


def test_no_search_without_a_loss() -> None:
    calls = FakeCalls()

    async def main() -> None:
        shared = starts(calls)
        created = await shared.start(SET)
        await shared.report_second_run(created.simulation_unit_test_set_run_id)

    run(main)
    assert calls.lists == []


def test_earliest_fresh_run_is_taken() -> None:
    calls = FakeCalls("lost after", ends_after=2.0)
    calls.lag = 20.0

    async def main() -> CreatedRun:
        starting = asyncio.create_task(fenced(calls))
        await asyncio.sleep(5)
        calls.add()
        await asyncio.sleep(5)
        calls.lag = 0.0  # all are listed at once
        created: CreatedRun = await starting
        return created

    assert run(main) == CreatedRun(run_id(1), attached=True)


def test_resumed_start_reads_all_pages() -> None:
    calls = FakeCalls(ends_after=1.0)

    async def main() -> CreatedRun:
        earlier = Intention(calls.server_now(), Fence())
        for _ in range(120):
            calls.add()
            await asyncio.sleep(70)
        return await starts(calls).start(SET, earlier=earlier)

    assert run(main) == CreatedRun(run_id(1), attached=True)
    assert len(calls.lists) == 3


def test_lost_creates_share_their_lists() -> None:
    calls = FakeCalls(*["lost before"] * 60)
    set_ids = [run_id(n + 1000) for n in range(60)]

    async def main() -> None:
        shared = starts(calls)
        before = shared.fences(lambda: set_ids).before
        await asyncio.gather(*(shared.start(s, fence=before) for s in set_ids))

    run(main)
    assert len(calls.runs) == 60
    # Sixty sets are two pages, for the fence (two lists) and in each look.
    assert len(calls.lists) <= 2 * (2 + SEARCH_TIMEOUT / 2 + 2)


@pytest.mark.parametrize("patience", [0.0, 300.0])
def test_failed_lists_prove_nothing(patience: float) -> None:
    calls = FakeCalls("lost after", ends_after=5.0)

    async def main() -> CreatedRun:
        shared = starts(calls)
        calls.list_errors = [ServerError(method="GET", path="/", status=503)] * 20
        return await shared.start(SET, fence=no_fence, patience=patience)

    if patience:  # they would have failed for 40 s
        assert run(main) == CreatedRun(run_id(1), attached=True)
    else:
        with pytest.raises(AmbiguousStartError, match="the search for it failed"):
            run(main)
    assert len(calls.runs) == 1


def test_a_408_may_have_started_a_run() -> None:
    class Slow(FakeCalls):
        async def _send(self, set_id: str) -> Response:
            response = await super()._send(set_id)
            return Response(408, {}, b"") if self.creates == 1 else response

        async def create(self, set_id: str, guard: Guard) -> CreatedRun:
            response = await guard(self._send(set_id))
            if response.status == 408:
                raise BadRequestError(method="POST", path="/", status=408)
            return decode_created_run(response.body)

    for after in (1e9, 0.15):
        calls = Slow()
        heard = list[Event]()

        async def main(
            calls: FakeCalls = calls, heard: list[Event] = heard, after: float = after
        ) -> None:
            with anyio.move_on_after(after):
                await starts(calls, heard).start(SET)

        run(main)
        assert [r.id for r in calls.runs] == [run_id(1)]
        *retried, started = heard
        assert started == RunStarted(SET, run_id(1), attached=True)
        # Whoever has left before the answer does not hear of a retry.
        told = [(e.endpoint, e.delay) for e in retried if isinstance(e, RequestRetried)]
        assert told == ([("create", SEARCH_TIMEOUT)] if after > 1 else [])


# --- conflicts that no list shows ---


@pytest.mark.parametrize("on_conflict", ["attach", "wait", "restart"])
def test_conflict_listed_late(on_conflict: Any) -> None:
    calls = FakeCalls(ends_after=100.0)
    calls.lag = 6.0

    async def main() -> CreatedRun:
        calls.add()
        return await starts(calls).start(SET, on_conflict)

    attached = on_conflict == "attach"
    assert run(main) == CreatedRun(run_id(1 if attached else 2), attached=attached)
    assert calls.creates == (1 if attached else 2)


@pytest.mark.parametrize(
    ("on_conflict", "lasts", "started"),
    [
        *(("wait", 600.0, True), ("attach", 600.0, False), ("restart", 600.0, False)),
        *(("attach", 25.0, True), ("restart", 25.0, True)),
    ],
)
def test_hidden_conflict_is_retried_slowly(on_conflict: Any, lasts: float, started: bool) -> None:
    calls = FakeCalls(ends_after=lasts)
    sent: list[float] = []

    async def main() -> object:
        hidden = calls.add()
        calls.hidden = {hidden.id}
        send = calls._send

        async def noted(set_id: str) -> Response:
            sent.append(calls.now())
            return await send(set_id)

        calls._send = noted  # type: ignore[method-assign]
        began = calls.now()
        (end,) = await asyncio.gather(starts(calls).start(SET, on_conflict), return_exceptions=True)
        assert calls.now() - began <= lasts + 2 * 10 + 2
        return end

    end = run(main)
    assert isinstance(end, CreatedRun if started else ConflictError)
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(sent))


def test_raise_does_not_wait() -> None:
    calls = FakeCalls()

    async def main() -> float:
        hidden = calls.add()
        calls.hidden = {hidden.id}
        began = calls.now()
        with pytest.raises(ConflictError):
            await starts(calls).start(SET)
        return calls.now() - began

    assert run(main) < 1


# --- what is on record ---


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        ([], [Fence(), CreatedRun(run_id(1))]),
        (["lost after"], [Fence(), CreatedRun(run_id(1), attached=True)]),
        (["lost before"], [Fence(), CreatedRun(run_id(1))]),
        (["not sent"] * 5, [Fence(), "refused"]),
        (["not sent", "ok"], [Fence(), CreatedRun(run_id(1))]),
        (["forbidden"], [Fence(), "refused"]),
        (["lost before", "forbidden"], [Fence()]),
    ],
)
def test_recorder_steps(plan: list[str], steps: list[object]) -> None:
    calls, record = FakeCalls(*plan), Record()

    async def main() -> None:
        await asyncio.gather(fenced(calls, recorder=record), return_exceptions=True)

    run(main)
    assert record.steps == steps


def test_each_create_has_its_own_fence() -> None:
    """What was started while a run in the way was waited for is not fresh."""
    calls, record = FakeCalls(ends_after=100.0), Record()

    async def main() -> CreatedRun:
        calls.add()
        await asyncio.sleep(5)
        calls.plan = ["ok", "lost after"]
        created: CreatedRun = await fenced(calls, on_conflict="wait", recorder=record)
        return created

    assert run(main) == CreatedRun(run_id(2), attached=True)
    there = Fence((run_id(1),))
    assert record.steps == [there, "refused", there, CreatedRun(run_id(2), attached=True)]


def test_cancelled_before_it_is_sent() -> None:
    """Neither while it is queued, nor while its intent is being written."""

    class Queued(FakeCalls):
        async def create(self, set_id: str, guard: Guard) -> CreatedRun:
            await asyncio.sleep(10)
            return await super().create(set_id, guard)

    class Slow(Record):
        async def intended(self, fence: Fence | None) -> None:
            self.steps.append(fence)
            await asyncio.sleep(10)

    for after, steps in ((5.0, []), (15.0, [None, "refused"])):
        calls, record, heard = Queued(), Slow(), list[Event]()

        async def main(
            calls: FakeCalls = calls,
            record: Record = record,
            heard: list[Event] = heard,
            after: float = after,
        ) -> float:
            began = calls.now()
            with anyio.move_on_after(after):
                await starts(calls, heard).start(SET, recorder=record)
            return calls.now() - began

        assert run(main) == after
        assert (calls.creates, calls.lists, heard) == (0, [], [])
        assert record.steps == steps


def test_cancelled_resumed_start() -> None:
    calls, record, heard = FakeCalls(), Record(), list[Event]()

    async def main() -> float:
        began = calls.now()
        earlier = Intention(calls.server_now(), Fence())
        with anyio.move_on_after(5.0):
            await starts(calls, heard).start(SET, recorder=record, earlier=earlier)
        return calls.now() - began

    assert run(main) == 5.0
    assert (record.steps, heard, calls.creates) == ([], [], 0)


def test_id_is_recorded_despite_cancel() -> None:
    calls, record = FakeCalls(), Record()

    async def main() -> None:
        with anyio.move_on_after(calls.latency + 0.1) as scope:  # while it is being written
            await starts(calls).start(SET, recorder=record)
        assert scope.cancelled_caught

    run(main)
    assert record.steps == [None, CreatedRun(run_id(1))]


def test_unresolved_is_recorded() -> None:
    calls, record = FakeCalls("lost before"), Record()

    async def main() -> float:
        began = calls.now()
        with anyio.move_on_after(0.25):  # it has just left
            await fenced(calls, recorder=record)
        return calls.now() - began

    assert GRACE <= run(main) <= 2 * GRACE + 1
    fence, error = record.steps
    assert fence == Fence()
    assert isinstance(error, AmbiguousStartError)


def test_second_start_waits_for_the_first() -> None:
    """It would take the run that the first one has started and does not know yet."""
    calls = FakeCalls("ok", "lost before", ends_after=1e9)
    calls.latency = 4.0

    async def main() -> list[object]:
        shared = starts(calls)
        first = asyncio.create_task(shared.start(SET, fence=no_fence))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(shared.start(SET, fence=no_fence))
        return list(await asyncio.gather(first, second, return_exceptions=True))

    first, second = run(main)
    assert first == CreatedRun(run_id(1))
    assert isinstance(second, ConflictError)


def test_lookers_deadline_is_its_own() -> None:
    class Spent(FakeCalls):
        """Its budget of lists has no room for half a minute."""

        async def page(self, **filters: Unpack[RunFilters]) -> RunPage:
            if anyio.current_effective_deadline() < self.now() + 30:
                raise DeadlineError(endpoint="list", retry_after=30.0)
            return await super().page(**filters)

    calls = Spent("lost after", "lost after")

    async def hurried(shared: Starts) -> None:
        with anyio.fail_after(5.0):
            await shared.start(OTHER_SET, fence=no_fence)

    async def main() -> list[object]:
        shared = starts(calls)
        both = (hurried(shared), shared.start(SET, fence=no_fence))
        return list(await asyncio.gather(*both, return_exceptions=True))

    first, second = run(main)
    assert isinstance(first, AmbiguousStartError)
    assert second == CreatedRun(run_id(2), attached=True)


# --- fences ---


def test_lists_ask_for_this_user_only() -> None:
    calls = FakeCalls("lost before")
    asked: list[object] = []
    page = calls.page

    async def noted(**filters: Unpack[RunFilters]) -> RunPage:
        asked.append(filters.get("creator"))
        return await page(**filters)

    calls.page = noted  # type: ignore[method-assign]
    run(lambda: fenced(calls))
    assert asked
    assert set(asked) == {CREATOR}


def test_fence_unites_both_lists() -> None:
    """An unfinished run that a list of the newest leaves out, as lists may."""

    class Leaky(FakeCalls):
        async def page(self, **filters: Unpack[RunFilters]) -> RunPage:
            page = await super().page(**filters)
            runs = [r for r in page.simulation_unit_test_set_runs if r.id != run_id(2)]
            left_out = filters.get("is_completed") is None
            return replace(page, simulation_unit_test_set_runs=runs) if left_out else page

    calls = Leaky()

    async def main() -> Fence | None:
        calls.add()
        calls.end(run_id(1))
        calls.add()
        return await starts(calls).fences(lambda: [SET]).before(SET)

    assert run(main) == Fence((run_id(1), run_id(2)))


def test_fence_knows_its_reach() -> None:
    calls = FakeCalls(ends_after=1.0)

    async def main() -> Fence | None:
        for _ in range(60):
            calls.add()
            await asyncio.sleep(60)
        return await starts(calls).fences(lambda: [SET]).before(SET)

    ids = tuple(run_id(number) for number in range(60, 10, -1))
    assert run(main) == Fence(ids, calls.runs[10].created_at)


@pytest.mark.parametrize("on_conflict", ["wait", "restart"])
def test_run_in_the_way_is_not_the_lost(
    on_conflict: Any,
) -> None:
    calls = FakeCalls("lost before", ends_after=200.0)
    assert conflicting(calls, on_conflict) == CreatedRun(run_id(2))


def test_fence_serves_a_window_of_creates() -> None:
    calls = FakeCalls()
    set_ids = [run_id(n + 1000) for n in range(70)]

    async def main() -> list[int]:
        fences = starts(calls).fences(lambda: set_ids)
        counts = []
        for set_id, pause in ((0, 0.0), (49, 20.0), (60, 5.0), (1, 10.0)):
            await asyncio.sleep(pause)
            assert await fences.before(set_ids[set_id]) == Fence()
            counts.append(len(calls.lists))
        return counts

    assert run(main) == [2, 2, 4, 6]


def test_failed_fence_is_not_retried_soon() -> None:
    calls = FakeCalls()

    async def main() -> list[object]:
        fences = starts(calls).fences(lambda: [SET])
        calls.latency = 100.0
        began = calls.now()
        got: list[object] = [await fences.before(SET), calls.now() - began]
        calls.latency = 0.2
        got += [await fences.before(SET), calls.now() - began]
        await asyncio.sleep(30)
        return [*got, await fences.before(SET)]

    assert run(main) == [None, 5.0, None, 5.0, Fence()]


# --- chance ---


@given(st.data())
def test_no_second_run_and_no_old_result(
    data: st.DataObject,
) -> None:
    fates = st.sampled_from(["lost before", "lost before", "lost after", "500 after", "ok"])
    calls = FakeCalls(
        *data.draw(st.lists(fates, max_size=3)), ends_after=data.draw(st.sampled_from([6.0, 90.0]))
    )
    calls.lag = data.draw(st.sampled_from([0.0, 3.0, 5.0, 25.0]))
    ended_for = data.draw(st.sampled_from([25.0, 60.0, 300.0]))
    fence = data.draw(st.booleans())
    skews = [-600.0, -4.0, 0.0, 4.0, 600.0] if fence else [-240.0, -4.0, 0.0, 4.0, 240.0]
    calls.skew = timedelta(seconds=data.draw(st.sampled_from(skews)))

    async def main() -> None:
        older = calls.add()
        await asyncio.sleep(calls.ends_after + ended_for)
        shared = starts(calls)
        before = shared.fences(lambda: [SET]).before if fence else None
        (end,) = await asyncio.gather(shared.start(SET, fence=before), return_exceptions=True)
        mine = [r.id for r in calls.runs if r.id != older.id]
        assert len(mine) <= 1
        if isinstance(end, CreatedRun):
            assert [end.simulation_unit_test_set_run_id] == mine
        else:
            assert isinstance(end, AmbiguousStartError)
            assert not fence  # with one, all of these can be told apart
            assert set(mine) <= set(end.candidates)

    run(main)


# --- lists that are not as they should be ---


@pytest.mark.parametrize("ends_after", [5.0, 1e9])
@pytest.mark.parametrize("fate", ["lost before", "lost after"])
def test_lists_in_another_order(fate: str, ends_after: float) -> None:
    """More runs than fit a page, the oldest first: no run of before is taken, none is started."""
    calls = FakeCalls(fate, ends_after=ends_after)
    calls.oldest_first = True

    async def main() -> tuple[set[str], CreatedRun]:
        for _ in range(120):
            calls.end(calls.add().id)
            await asyncio.sleep(600)
        return {r.id for r in calls.runs}, await fenced(calls)

    before, created = run(main)
    assert {r.id for r in calls.runs} - before == {created.simulation_unit_test_set_run_id}
    assert created.attached == (fate == "lost after")


@pytest.mark.parametrize("ends_after", [5.0, 1e9])
def test_unreadable_run_may_be_the_lost_one(ends_after: float) -> None:
    calls = FakeCalls("lost after", ends_after=ends_after)

    async def main() -> AmbiguousStartError:
        older, other = calls.add(), calls.add(OTHER_SET)
        calls.end(older.id)
        calls.unreadable = {older.id, other.id, run_id(3)}
        with pytest.raises(AmbiguousStartError, match="cannot be decoded") as caught:
            await fenced(calls)
        return caught.value

    assert run(main).candidates == (run_id(3),)
    assert calls.creates == 1


def test_unreadable_runs_of_before_are_not_the_lost_one() -> None:
    calls = FakeCalls("lost before")

    async def main() -> CreatedRun:
        older = calls.add()
        calls.end(older.id)
        calls.unreadable = {older.id}
        created: CreatedRun = await fenced(calls)
        return created

    assert not run(main).attached
    assert calls.creates == 2


def test_unreadable_runs_of_other_sets_are_not_the_lost_one() -> None:
    """Sets that are searched for share their lists."""
    calls = FakeCalls("lost before", "lost after")

    async def main() -> tuple[CreatedRun | BaseException, CreatedRun | BaseException]:
        calls.unreadable = {run_id(1)}
        shared = starts(calls)
        fence = shared.fences(lambda: [SET, OTHER_SET]).before
        first = asyncio.create_task(shared.start(SET, fence=fence))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(shared.start(OTHER_SET, fence=fence))
        return await asyncio.gather(first, second, return_exceptions=True)

    first, second = run(main)
    assert isinstance(first, CreatedRun)
    assert not first.attached
    assert isinstance(second, AmbiguousStartError)


def test_empty_id_is_a_lost_answer() -> None:
    for empty in ("", " "):
        with pytest.raises(msgspec.DecodeError, match="empty"):
            decode_created_run(msgspec.json.encode(CreatedRun(empty)))
