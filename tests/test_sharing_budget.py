"""What several processes spend of one budget: with a record in common, and by courtesy alone."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amigo_async.errors import DeadlineError
from amigo_async.events import Event, LimitHeld
from amigo_async.ratelimit import Budget, Gate, Gates, Instant, Step, Told, UnavailableError
from amigo_async.ratelimit.window import PATIENCE
from amigo_async.ratelimit.fair_share import CourteousBudget
from amigo_async.ratelimit.leases import LeasedBudget
from amigo_async.ratelimit.shared import Reservations, SharedGate, SharedGates
from tests.service import Service, run

T = TypeVar("T")
LEASE = 35.0


def told(remaining: int, *, limit: int = 20, reset: float = 60.0) -> Told:
    return Told(limit, remaining, reset, reset)


# --- the record ---

STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 70.0),
        st.sampled_from(["take", "answered", "blind", "refused", "lost", "returned"]),
        st.integers(0, 20),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_a_budget_that_is_kept_between_all_steps_does_as_one_that_is_not(
    steps: list[tuple[float, str, int]],
) -> None:
    here, now = Budget(20), 0.0
    kept = LeasedBudget(Budget(20), {}).dump(now)
    calls: list[int] = []
    for pause, step, number in steps:
        now += pause
        there = LeasedBudget.load(kept, 20, now)
        if step == "take":
            calls.append(here.take(now))
            assert there.take(now, 1e9) == calls[-1]
        elif calls:
            call = calls.pop(number % len(calls))
            arguments: dict[str, tuple[Any, ...]] = {
                "answered": (now, call, told(number, reset=60.0 * (now // 60 + 1))),
                "blind": (now, call, None),
                "refused": (now, call, float(number) if number % 2 else None),
                "lost": (now, call),
                "returned": (call,),
            }
            name = "answered" if step == "blind" else step
            for budget in (here, there):
                getattr(budget, name)(*arguments[step])
        assert there.budget.snapshot() == here.snapshot()
        for ahead in (0, 3, 30):
            assert there.budget.earliest(now, ahead) == here.earliest(now, ahead)
        assert there.budget.room(now) == here.room(now)
        assert there.budget.opens_at(now) == here.opens_at(now)
        kept = there.dump(now)


def taken(count: int, *, lease: float = LEASE, at: float = 1.0) -> tuple[bytes, list[int]]:
    """The record of a budget with 19 left of which some were taken, and the calls."""
    leased = LeasedBudget.load(None, 20, 0.0)
    leased.answered(0.0, leased.take(0.0, lease), told(19, reset=1000.0))
    calls = [leased.take(at, lease) for _ in range(count)]
    return leased.dump(at), calls


def test_a_call_of_a_process_that_is_gone_counts_as_spent_when_its_lease_is_over() -> None:
    record, _ = taken(5)
    assert LeasedBudget.load(record, 20, 35.9).budget.in_flight == 5
    after = LeasedBudget.load(record, 20, 36.1).budget
    assert (after.in_flight, after.room(36.1)) == (0, 14)


def test_news_of_a_call_that_was_given_up_changes_nothing() -> None:
    record, (call,) = taken(1)
    leased = LeasedBudget.load(record, 20, 50.0)
    before = leased.budget.snapshot()
    leased.answered(50.0, call, told(2, reset=1000.0))
    leased.refused(50.0, call, 60.0)
    leased.lost(50.0, call)
    leased.returned(call)
    assert leased.budget.snapshot() == before


@pytest.mark.parametrize(
    "garbage",
    [b"", b"null", b"[]", b"\xff\xfe", b"[" * 5000, b'{"at":1}', taken(3)[0][:-3], b'"x"'],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_a_record_that_cannot_be_read_is_begun_again(garbage: bytes) -> None:
    leased = LeasedBudget.load(garbage, 20, 5.0)
    assert (leased.budget.room(5.0), leased.budget.limit) == (1, 20)


def test_a_record_of_a_clock_that_was_set_back_is_begun_again() -> None:
    record, _ = taken(5, at=900.0)
    assert LeasedBudget.load(record, 20, 899.5).budget.in_flight == 5
    assert LeasedBudget.load(record, 20, 300.0).budget.in_flight == 0


def test_calls_of_a_record_that_was_lost_are_not_taken_for_others() -> None:
    numbers = {LeasedBudget.load(None, 20, 0.0).take(0.0, LEASE) for _ in range(50)}
    assert len(numbers) == 50


def test_who_knows_the_turn_best_tells_all() -> None:
    """Of the service's clock whole seconds are known at first; who has seen more knows better."""
    leased = LeasedBudget.load(None, 20, 0.0)
    first, second, third, late = (leased.take(0.0, LEASE) for _ in range(4))
    leased.answered(0.0, first, Told(20, 19, 1060.0, 60.1))
    leased.answered(1.0, second, Told(20, 18, 1060.0, 60.9))
    assert leased.budget.turns_at == pytest.approx(60.1)
    leased.answered(61.0, third, Told(20, 19, 1120.0, 120.8))
    assert leased.budget.turns_at == pytest.approx(120.1)
    leased.refused(62.0, late, None)  # too early, maybe: begin to learn anew
    leased.answered(130.0, leased.take(130.0, LEASE), Told(20, 19, 1180.0, 180.8))
    assert leased.budget.turns_at == pytest.approx(180.8)


# --- taking calls of it ---


class Place:
    """A place in this process: a record and a clock of its own, and a way to lose it."""

    ahead = 1e6

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.available = True
        self.changes = 0
        self.emit: Callable[[Event], None] = lambda _: None

    async def change(self, key: str, step: Step[T]) -> T:
        while True:
            await asyncio.sleep(0.001)
            if not self.available:
                raise UnavailableError
            asked = asyncio.get_running_loop().time()
            before = self.kept.get(key)
            changed, value = step(before, Instant(asked + self.ahead, asked))
            await asyncio.sleep(0.001)
            if changed is None:
                return value
            if self.kept.get(key) == before:
                self.changes += 1
                self.kept[key] = changed
                return value


def replica(place: Place, *, limit: int = 20) -> SharedGate:
    """The gate of one process among several: they have nothing in common but the place."""
    reservations = Reservations(place, "create", "create", limit, LEASE)
    return SharedGate(Gate("create", CourteousBudget(limit)), reservations)


def hear_nothing(_: Event) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("mode", ["fixed", "sliding"])
@pytest.mark.parametrize("tells", [True, False], ids=["told", "not told"])
def test_replicas_fill_every_window_and_nothing_is_refused(mode: Any, tells: bool) -> None:
    async def main() -> tuple[Service, float]:
        service, place = Service(20, mode=mode, tells=tells, latency=0.1), Place()
        gates = [replica(place) for _ in range(4)]
        began = service.now()
        async with anyio.create_task_group() as group:
            for number in range(120):
                group.start_soon(service.call, gates[number % 4])
        took = service.now() - began
        for gate in gates:
            await gate.reservations.aclose()
        return service, took

    service, took = run(main)
    assert len(service.admitted) == 120
    assert service.refused == []
    assert 300 <= took <= 300 * 1.02


def test_eight_at_once_never_take_more_than_there_is() -> None:
    async def main() -> None:
        place = Place()
        held: list[int | None] = []
        all_of = [Reservations(place, "create", "create", 100, LEASE) for _ in range(8)]
        first = await all_of[0].take(hear_nothing)
        assert first is not None

        def answered(budget: LeasedBudget, at: Instant) -> None:
            budget.answered(at.now, first, Told(100, 99, 9e9, at.now + 50))

        all_of[0].settle(answered)
        now = asyncio.get_running_loop().time

        async def take(reservations: Reservations, pause: float) -> None:
            await asyncio.sleep(pause)
            held.append(await reservations.take(hear_nothing))

        began, chance = now(), random.Random(3)
        tasks = [
            asyncio.ensure_future(take(one, chance.uniform(0, 0.02)))
            for one in all_of
            for _ in range(20)
        ]
        await asyncio.sleep(30)
        assert now() - began < 31
        assert len(held) == len(set(held)) == 99
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in all_of:
            await one.aclose()

    run(main)


def test_one_that_leaves_gives_its_call_back() -> None:
    """Wherever the wait is cancelled: in the queue, while a call is being taken, or just after."""

    async def main(pause: float) -> int:
        place = Place()
        gate = replica(place)
        with await gate.enter(hear_nothing) as permit:
            permit.answered(told(9, reset=asyncio.get_running_loop().time() + 50))
        await asyncio.sleep(1)
        task = asyncio.ensure_future(gate.enter(hear_nothing))
        await asyncio.sleep(pause)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, BaseException):
            outcome.unused()
        await asyncio.sleep(1)
        now = asyncio.get_running_loop().time() + place.ahead
        budget = LeasedBudget.load(place.kept["create"], 20, now).budget
        assert gate.state(gate._gate.state()).in_flight == 0
        return budget.room(now)

    assert [run(partial(main, p / 4000)) for p in range(14)] == [9] * 14


def test_what_cannot_be_in_time_fails_at_once() -> None:
    async def main() -> None:
        place = Place()
        first, second = replica(place), replica(place)
        now = asyncio.get_running_loop().time
        with await first.enter(hear_nothing) as permit:
            permit.answered(told(0, reset=now() + 40))
        await asyncio.sleep(1)
        began, heard = now(), list[Event]()
        with anyio.fail_after(10), pytest.raises(DeadlineError) as refused:
            await second.enter(heard.append)
        assert now() - began < 0.1
        assert refused.value.retry_after == pytest.approx(39, abs=0.1)
        permit = await second.enter(heard.append)
        assert now() - began == pytest.approx(39, abs=0.1)
        (held,) = heard
        assert isinstance(held, LimitHeld)
        assert (held.endpoint, held.queue) == ("create", 1)
        permit.unused()
        await second.reservations.aclose()

    run(main)


def test_if_the_place_is_lost_those_who_wait_go_by_the_headers() -> None:
    async def main() -> None:
        service, place = Service(20, latency=0.1), Place()
        gates = [replica(place) for _ in range(4)]
        async with anyio.create_task_group() as group:
            for number in range(120):
                group.start_soon(service.call, gates[number % 4])
            await asyncio.sleep(130)
            place.available = False
        assert len(service.admitted) == 120
        assert len(service.refused) <= 0.05 * 120

    run(main)


def test_what_is_wrong_with_the_place_itself_is_raised_where_it_is_waited() -> None:
    class Broken(Place):
        async def change(self, key: str, step: Step[T]) -> T:
            raise ZeroDivisionError

    async def main() -> None:
        gate = replica(Broken())
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await gate.enter(hear_nothing)
        assert gate._gate.budget.in_flight == 0

    run(main)


def test_states_tell_who_waits_for_the_others() -> None:
    async def main() -> None:
        place = Place()
        gates = SharedGates(Gates("http://api", "acme"), place, name="acme", lease=LEASE)
        gate = gates.of("create", 20)
        assert gates.of("create", 20) is gate
        with await gate.enter(hear_nothing) as permit:
            permit.answered(told(15, reset=asyncio.get_running_loop().time() + 50))
        await asyncio.sleep(1)
        others = replica(place)
        others.reservations._key = "acme:create"
        held = [await others.enter(hear_nothing) for _ in range(12)]
        waiting = [asyncio.ensure_future(gate.enter(hear_nothing)) for _ in range(5)]
        await asyncio.sleep(1)
        state = gates.states()["create"]
        assert (state.in_flight, state.waiting) == (3, 2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await gates.aclose()
        assert held

    run(main)


# --- by courtesy alone ---


def by_headers(processes: int, sets: int, seed: int, *, latency: float = 0.1) -> tuple[int, float]:
    """How many were refused, and how long it took."""

    async def main() -> tuple[int, float]:
        service, began = Service(20, latency=latency), asyncio.get_running_loop().time()
        gates = [Gate("create", CourteousBudget(20)) for _ in range(processes)]
        chance = random.Random(seed)

        async def call(number: int) -> None:
            await asyncio.sleep(chance.uniform(0, 0.5))
            await service.call(gates[number % processes])

        async with anyio.create_task_group() as group:
            for number in range(sets):
                group.start_soon(call, number)
        assert len(service.admitted) == sets
        return len(service.refused), service.now() - began

    random.seed(seed)
    return run(main, debug=False)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_know_nothing_of_each_other_are_seldom_refused(processes: int) -> None:
    refused, took = zip(*(by_headers(processes, 120, seed) for seed in range(10)), strict=True)
    assert sum(refused) / 10 <= 0.03 * 120
    assert max(took) <= 300 + 2 * 60


@pytest.mark.parametrize("latency", [0.02, 0.5])
def test_one_process_loses_no_time(latency: float) -> None:
    refused, took = by_headers(1, 120, 1, latency=latency)
    assert refused == 0
    assert took <= 300 + 3 * 8 * latency + 5 * latency + 0.6


def courteous(*, remaining: int, reset: float = 60.0) -> CourteousBudget:
    """A budget whose first call, at 0, was answered with this."""
    budget = CourteousBudget(20)
    budget.answered(0.0, budget.take(0.0), told(remaining, reset=reset))
    return budget


@pytest.mark.parametrize(("remaining", "room"), [(19, 3), (18, 3), (16, 2), (0, 0)], ids=str)
def test_a_round_is_a_part_of_what_is_left(remaining: int, room: int) -> None:
    assert courteous(remaining=remaining).room(0.0) == room


def test_the_next_round_begins_when_all_are_answered() -> None:
    budget = courteous(remaining=19)
    first, second, third = (budget.take(1.0) for _ in range(3))
    assert budget.room(1.0) == 0
    budget.answered(1.0, first, told(18))
    budget.answered(1.0, second, told(17))
    assert budget.room(1.0) == 0
    budget.answered(1.0, third, told(16))
    assert budget.room(1.0) > 2


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    budget = courteous(remaining=19)
    for _ in range(3):
        budget.take(1.0)
    assert (budget.room(1.0), budget.opens_at(1.0)) == (0, 1.0 + PATIENCE)
    assert budget.room(1.0 + PATIENCE) > 0


def test_who_was_alone_for_three_windows_takes_all_until_others_come() -> None:
    budget, rooms = courteous(remaining=19), []
    for window in range(1, 5):
        now = 60.0 * window
        budget.answered(now, budget.take(now), told(19, reset=now + 60))
        rooms.append(budget.room(now))
    assert rooms == [pytest.approx(5, abs=2), pytest.approx(6, abs=2), 19, 19]
    budget.answered(241.0, budget.take(241.0), told(10, reset=300.0))
    assert budget.room(241.0) < 10


def test_who_shares_by_other_means_takes_all() -> None:
    budget = courteous(remaining=12)
    budget.alone = True
    assert (budget.room(0.0), budget.opens_at(0.0)) == (12, 60.0)


def test_a_deadline_before_our_turn_is_told_at_once() -> None:
    """With too little left for a share, whether and when it is our turn is known."""
    random.seed(0)
    budget = courteous(remaining=1)
    assert budget.room(0.0) == 0
    assert budget.earliest(0.0, 0) == budget.opens_at(0.0) == 60.0
    assert math.isfinite(budget.earliest(0.0, 50))
