"""A start is never made twice, and its id is never lost, whatever happens to the answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Unpack

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from amigo_async.clock import ServerClock
from amigo_async.decoding import decode_created_run
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArgumentError,
    ConflictError,
    DeadlineError,
    DecodeError,
    ForbiddenError,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from amigo_async.events import Event, RunStarted, StartUnresolved
from amigo_async.models import CreatedRun, Run, RunPage, UserInfo
from amigo_async.session import Guard
from amigo_async.starting import Fence, Intention, Starts
from amigo_async.starting.attempt import GRACE
from amigo_async.wire.requests import RunFilters
from amigo_async.wire.responses import Response
from tests.fake_runs import CREATOR, EPOCH, page_of, run_id, some_run
from tests.service import run

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
            for r in sorted(self.runs, key=lambda r: r.created_at, reverse=True)
            if r.simulation_unit_test_set_id in sets
            and filters.get("creator") in ((), r.creator)
            and filters.get("is_completed") in (None, r.is_completed)
            and (self.server_now() - self.really[r.id]).total_seconds() >= self.lag
            and r.id not in self.hidden
        ]
        began, size = filters.get("continuation_token") or 0, filters["limit"] or 50
        page = page_of(found[began : began + size], has_more=len(found) > began + size)
        return replace(page, continuation_token=began + size if page.has_more else None)

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
def test_whatever_becomes_of_the_answers_there_is_one_run_and_its_id_is_known(
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
    assert heard == [RunStarted(SET, calls.runs[0].id, attached=created.attached)]


def test_two_hundred_starts_each_lost_somewhere_make_two_hundred_runs() -> None:
    calls = FakeCalls(*itertools.islice(itertools.cycle(LOSSES), 200))

    async def main() -> list[CreatedRun]:
        shared = starts(calls)
        return list(await asyncio.gather(*(shared.start(run_id(n + 1000)) for n in range(200))))

    created = run(main)
    assert len(calls.runs) == 200
    assert {c.simulation_unit_test_set_run_id for c in created} == {r.id for r in calls.runs}


def test_a_lost_run_that_is_over_already_is_found_all_the_same() -> None:
    calls = FakeCalls("lost after", ends_after=0.0)
    assert run(lambda: fenced(calls)) == CreatedRun(run_id(1), attached=True)
    assert calls.creates == 1


def test_without_a_fence_a_run_that_is_over_may_be_an_older_one() -> None:
    calls = FakeCalls("lost after", ends_after=0.0)
    with pytest.raises(AmbiguousStartError) as caught:
        run(lambda: starts(calls).start(SET))
    assert caught.value.candidates == (run_id(1),)
    assert run_id(1) in str(caught.value)
    assert calls.creates == 1


@pytest.mark.parametrize(("age", "runs"), [(280.0, 1), (400.0, 2)])
def test_without_a_fence_runs_of_the_last_five_minutes_are_in_question(
    age: float, runs: int
) -> None:
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


def test_without_a_fence_and_a_clock_any_run_that_is_over_is_in_question() -> None:
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


def test_a_create_that_was_only_late_is_recognized_by_the_conflict_it_causes() -> None:
    calls = FakeCalls("lost before")

    async def main() -> CreatedRun:
        calls.before_list = lambda: asyncio.get_running_loop().call_later(0.15, late)

        def late() -> None:
            calls.before_list = lambda: None
            calls.add()

        return await starts(calls).start(SET)

    assert run(main) == CreatedRun(run_id(1), attached=True)
    assert len(calls.runs) == 1


def test_an_older_run_is_not_taken_for_the_lost_one() -> None:
    calls = FakeCalls("lost before")

    async def main() -> None:
        older = calls.add()
        await asyncio.sleep(10)
        with pytest.raises(ConflictError) as caught:
            await fenced(calls)
        assert caught.value.existing_run_id == older.id

    run(main)


def test_without_a_fence_the_unfinished_run_is_taken_and_said_to_be_found() -> None:
    calls = FakeCalls("lost before")

    async def main() -> CreatedRun:
        calls.add()
        await asyncio.sleep(10)
        return await starts(calls).start(SET)

    assert run(main) == CreatedRun(run_id(1), attached=True)


def test_another_users_run_is_not_taken_for_the_lost_one() -> None:
    calls = FakeCalls("lost before")
    stranger = UserInfo("acme", "someone-else")
    calls.before_list = lambda: calls.runs or calls.add(creator=stranger)
    created = run(lambda: starts(calls).start(SET))
    mine = next(r for r in calls.runs if r.creator == CREATOR)
    assert created.simulation_unit_test_set_run_id == mine.id
    assert len(calls.runs) == 2


def test_two_starts_of_a_set_do_not_take_each_others_run() -> None:
    calls = FakeCalls("lost after", "lost before")

    async def main() -> list[object]:
        shared = starts(calls)
        both = (shared.start(SET), shared.start(SET))
        return list(await asyncio.gather(*both, return_exceptions=True))

    first, second = run(main)
    assert first == CreatedRun(run_id(1), attached=True)
    assert isinstance(second, ConflictError)
    assert second.existing_run_id == run_id(1)


def test_without_a_known_creator_it_says_so_rather_than_take_a_strangers_run() -> None:
    calls = FakeCalls("lost after")
    with pytest.raises(AmbiguousStartError, match="user_id"):
        run(lambda: starts(calls, creator=None).start(SET))
    assert len(calls.runs) == 1


def test_without_a_known_creator_a_create_that_did_nothing_is_simply_sent_again() -> None:
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
def test_patience_is_with_failures_and_not_with_the_queue(
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


def test_a_service_that_was_never_reached_is_no_ambiguity() -> None:
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
def test_what_goes_wrong_after_a_loss_does_not_hide_that_a_run_may_be_there(
    plan: list[str], list_error: AmigoError | None
) -> None:
    calls = FakeCalls(*plan)
    calls.list_errors = [] if list_error is None else [list_error]
    with pytest.raises(AmbiguousStartError):
        run(lambda: starts(calls).start(SET))


def test_a_refusal_of_another_kind_comes_as_it_is() -> None:
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


def test_restart_cancels_it_sees_it_end_then_starts() -> None:
    calls = FakeCalls()
    assert conflicting(calls, "restart") == CreatedRun(run_id(2))
    assert calls.cancels == [run_id(1)]
    assert [r.is_completed for r in calls.runs] == [True, False]


@pytest.mark.parametrize("on_conflict", ["attach", "wait", "restart"])
def test_a_run_that_ends_between_two_calls_is_in_nobodys_way(on_conflict: str) -> None:
    calls = FakeCalls()
    calls.before_list = lambda: calls.end(run_id(1))  # before it is looked for
    assert conflicting(calls, on_conflict) == CreatedRun(run_id(2))


def test_restart_of_a_run_that_another_cancels_or_that_vanishes_goes_on() -> None:
    class Vanishing(FakeCalls):
        async def cancel(self, id: str) -> None:
            self.cancels.append(id)
            self.runs = [r for r in self.runs if r.id != id]
            raise NotFoundError.of_run(id)

    calls = Vanishing()
    assert conflicting(calls, "restart") == CreatedRun(run_id(2))


def test_runs_that_keep_coming_in_the_way_are_left_to_who_starts_them() -> None:
    class Contested(FakeCalls):
        def end(self, id: str) -> None:
            super().end(id)
            self.add()

    calls = Contested()
    with pytest.raises(ConflictError):
        conflicting(calls, "restart")
    assert len(calls.cancels) == 5


def test_a_conflict_whose_run_cannot_be_looked_up_is_still_a_conflict() -> None:
    calls = FakeCalls()
    calls.list_errors = [ForbiddenError(method="GET", path="/", status=403)] * 2
    with pytest.raises(ConflictError) as caught:
        conflicting(calls, "raise")
    assert caught.value.existing_run_id is None


@pytest.mark.parametrize("on_conflict", ["attach", "wait", "restart"])
def test_what_to_do_about_a_run_in_the_way_needs_to_know_whose_it_is(on_conflict: Any) -> None:
    calls = FakeCalls()
    with pytest.raises(ArgumentError, match="user_id"):
        run(lambda: starts(calls, creator=None).start(SET, on_conflict))
    assert calls.creates == 0


@pytest.mark.parametrize(("set_id", "on_conflict"), [("x", "raise"), (SET, "explode")])
def test_what_cannot_be_right_is_said_before_anything_is_sent(
    set_id: str, on_conflict: Any
) -> None:
    calls = FakeCalls()
    with pytest.raises(ArgumentError):
        run(lambda: starts(calls).start(set_id, on_conflict))
    assert calls.creates == 0


# --- cancellation ---


@pytest.mark.parametrize("how", ["task", "scope"])
@pytest.mark.parametrize("fate", ["ok", *LOSSES])
@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.5])
def test_a_start_cancelled_on_the_wire_does_not_lose_its_id(
    how: str, fate: str, after: float
) -> None:
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


def test_a_second_cancel_does_not_lose_the_id_either() -> None:
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


def test_what_cannot_be_found_out_in_time_after_a_cancel_is_told() -> None:
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


def test_a_request_that_never_ends_is_given_up_after_the_grace() -> None:
    calls = FakeCalls()
    calls.latency = 1e6

    async def main() -> float:
        began = calls.now()
        with anyio.move_on_after(1):
            await starts(calls).start(SET)
        return calls.now() - began

    assert run(main) <= 1 + 2 * GRACE + 1


# --- what a batch needs ---


def test_the_intent_is_awaited_before_anything_leaves_and_the_id_as_soon_as_it_is_known() -> None:
    calls = FakeCalls("lost after")
    steps: list[object] = []

    class Steps(Record):
        async def intended(self, fence: Fence | None) -> None:
            steps.append(calls.creates)

        async def started(self, created: CreatedRun) -> None:
            steps.append(created)

    run(lambda: starts(calls).start(SET, recorder=Steps()))
    assert steps == [0, CreatedRun(run_id(1), attached=True)]


def test_if_the_intent_cannot_be_written_nothing_leaves() -> None:
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
def test_a_run_that_a_stopped_process_meant_to_start_is_found_or_started(
    was_started: bool, fence: Fence | None
) -> None:
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


def test_what_is_remembered_of_a_set_does_not_grow_with_its_runs() -> None:
    calls = FakeCalls(ends_after=0.0)

    async def main() -> int:
        shared = starts(calls)
        sizes = []
        for number in range(3000):
            await shared.start(run_id(10_000 + number))
            sizes.append(len(shared._locks) + len(shared._doubtful) + len(shared._given))
        assert len(shared._locks) == 0
        return max(sizes)

    assert run(main, debug=False) <= 1002
    assert len(calls.runs) == 3000


def test_a_run_that_was_attached_to_is_not_found_for_a_start_that_was_lost() -> None:
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
