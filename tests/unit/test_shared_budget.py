"""What several processes spend of one budget: with a record in common, and by the headers alone."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.errors import DeadlineError
from amigo_async.events import Event, LimitHeld
from amigo_async.ratelimit import Budget, Limiter, Limiters, RateLimitInfo
from amigo_async.ratelimit.backend import ClockReading, UnavailableError, Update
from amigo_async.ratelimit.fair_share import FairShareBudget
from amigo_async.ratelimit.leases import LeasedBudget
from amigo_async.ratelimit.shared import LeaseQueue, SharedLimiter, SharedLimiters
from tests.unit.service import Service, run

T = TypeVar("T")
LEASE = 35.0


def told(remaining: int, *, limit: int = 20, reset: float = 60.0) -> RateLimitInfo:
    return RateLimitInfo(limit, remaining, reset, reset)


# --- the record ---

STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 70.0),
        st.sampled_from(["take", "answered", "blind", "refused", "lost", "unsent"]),
        st.integers(0, 20),
    ),
    max_size=40,
)


@given(STEPS)
def test_stored_budget_behaves_the_same(
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
                "unsent": (call,),
            }
            name = "answered" if step == "blind" else step
            for budget in (here, there):
                getattr(budget, name)(*arguments[step])
        assert there.budget.snapshot() == here.snapshot()
        for ahead in (0, 3, 30):
            assert there.budget.earliest(now, ahead) == here.earliest(now, ahead)
        assert there.budget.available(now) == here.available(now)
        assert there.budget.opens_at(now) == here.opens_at(now)
        kept = there.dump(now)


def taken(count: int, *, lease: float = LEASE, at: float = 1.0) -> tuple[bytes, list[int]]:
    """The record of a budget with 19 left of which some were taken, and the calls."""
    leased = LeasedBudget.load(None, 20, 0.0)
    leased.answered(0.0, leased.take(0.0, lease), told(19, reset=1000.0))
    calls = [leased.take(at, lease) for _ in range(count)]
    return leased.dump(at), calls


def test_dead_process_spends_its_calls() -> None:
    record, _ = taken(5)
    assert LeasedBudget.load(record, 20, 35.9).budget.in_flight == 5
    after = LeasedBudget.load(record, 20, 36.1).budget
    assert (after.in_flight, after.available(36.1)) == (0, 14)


def test_news_after_the_lease_is_ignored() -> None:
    record, (call,) = taken(1)
    leased = LeasedBudget.load(record, 20, 50.0)
    before = leased.budget.snapshot()
    leased.answered(50.0, call, told(2, reset=1000.0))
    leased.refused(50.0, call, 60.0)
    leased.lost(50.0, call)
    leased.unsent(call)
    assert leased.budget.snapshot() == before


@pytest.mark.parametrize(
    "garbage",
    [b"", b"null", b"[]", b"\xff\xfe", b"[" * 5000, b'{"at":1}', taken(3)[0][:-3], b'"x"'],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_spoiled_record_begins_anew(garbage: bytes) -> None:
    leased = LeasedBudget.load(garbage, 20, 5.0)
    assert (leased.budget.available(5.0), leased.budget.limit) == (1, 20)


def test_clock_set_back_begins_anew() -> None:
    record, _ = taken(5, at=900.0)
    assert LeasedBudget.load(record, 20, 899.5).budget.in_flight == 5
    assert LeasedBudget.load(record, 20, 300.0).budget.in_flight == 0


def test_call_numbers_do_not_repeat() -> None:
    numbers = {LeasedBudget.load(None, 20, 0.0).take(0.0, LEASE) for _ in range(50)}
    assert len(numbers) == 50


def test_best_known_turn_is_shared() -> None:
    """Of the service's clock whole seconds are known at first; who has seen more knows better."""
    leased = LeasedBudget.load(None, 20, 0.0)
    first, second, third, late = (leased.take(0.0, LEASE) for _ in range(4))
    leased.answered(0.0, first, RateLimitInfo(20, 19, 1060.0, 60.1))
    leased.answered(1.0, second, RateLimitInfo(20, 18, 1060.0, 60.9))
    assert leased.budget.resets_at == pytest.approx(60.1)
    leased.answered(61.0, third, RateLimitInfo(20, 19, 1120.0, 120.8))
    assert leased.budget.resets_at == pytest.approx(120.1)
    leased.refused(62.0, late, None)  # too early, maybe: begin to learn anew
    leased.answered(130.0, leased.take(130.0, LEASE), RateLimitInfo(20, 19, 1180.0, 180.8))
    assert leased.budget.resets_at == pytest.approx(180.8)


# --- taking calls of it ---


class Place:
    """A place in this process: a record and a clock of its own, and a way to lose it."""

    ahead = 1e6

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.available = True
        self.changes = 0
        self.emit: Callable[[Event], None] = lambda _: None

    async def change(self, key: str, step: Update[T]) -> T:
        while True:
            await asyncio.sleep(0.001)
            if not self.available:
                raise UnavailableError
            asked = asyncio.get_running_loop().time()
            before = self.kept.get(key)
            changed, value = step(before, ClockReading(asked + self.ahead, asked))
            await asyncio.sleep(0.001)
            if changed is None:
                return value
            if self.kept.get(key) == before:
                self.changes += 1
                self.kept[key] = changed
                return value


def replica(place: Place, *, limit: int = 20) -> SharedLimiter:
    """The limiter of one process among several: they have nothing in common but the place."""
    reservations = LeaseQueue(place, "create", "create", limit, LEASE)
    return SharedLimiter(Limiter("create", FairShareBudget(limit)), reservations)


def hear_nothing(_: Event) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("mode", ["fixed", "sliding"])
@pytest.mark.parametrize("tells", [True, False], ids=["told", "not told"])
def test_replicas_fill_every_window(mode: Any, tells: bool) -> None:
    async def main() -> tuple[Service, float]:
        service, place = Service(20, mode=mode, tells=tells, latency=0.1), Place()
        limiters = [replica(place) for _ in range(4)]
        began = service.now()
        async with anyio.create_task_group() as group:
            for number in range(120):
                group.start_soon(service.call, limiters[number % 4])
        took = service.now() - began
        for limiter in limiters:
            await limiter.leases.aclose()
        return service, took

    service, took = run(main)
    assert len(service.admitted) == 120
    assert service.refused == []
    assert 300 <= took <= 300 * 1.02


def test_eight_never_overspend() -> None:
    async def main() -> None:
        place = Place()
        held: list[int | None] = []
        all_of = [LeaseQueue(place, "create", "create", 100, LEASE) for _ in range(8)]
        first = await all_of[0].take(hear_nothing)
        assert first is not None

        def answered(budget: LeasedBudget, at: ClockReading) -> None:
            budget.answered(at.store_time, first, RateLimitInfo(100, 99, 9e9, at.store_time + 50))

        all_of[0].report(answered)
        now = asyncio.get_running_loop().time

        async def take(reservations: LeaseQueue, pause: float) -> None:
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


def test_leaving_gives_the_call_back() -> None:
    """Wherever the wait is cancelled: in the queue, while a call is being taken, or just after."""

    async def main(pause: float) -> int:
        place = Place()
        limiter = replica(place)
        with await limiter.enter(hear_nothing) as permit:
            permit.answered(told(9, reset=asyncio.get_running_loop().time() + 50))
        await asyncio.sleep(1)
        task = asyncio.ensure_future(limiter.enter(hear_nothing))
        await asyncio.sleep(pause)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, BaseException):
            outcome.unsent()
        await asyncio.sleep(1)
        now = asyncio.get_running_loop().time() + place.ahead
        budget = LeasedBudget.load(place.kept["create"], 20, now).budget
        assert limiter.state(limiter._limiter.state()).in_flight == 0
        return budget.available(now)

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
        permit.unsent()
        await second.leases.aclose()

    run(main)


def test_lost_store_falls_back_to_headers() -> None:
    async def main() -> None:
        service, place = Service(20, latency=0.1), Place()
        limiters = [replica(place) for _ in range(4)]
        async with anyio.create_task_group() as group:
            for number in range(120):
                group.start_soon(service.call, limiters[number % 4])
            await asyncio.sleep(130)
            place.available = False
        assert len(service.admitted) == 120
        assert len(service.refused) <= 0.05 * 120

    run(main)


def test_broken_store_raises() -> None:
    class Broken(Place):
        async def change(self, key: str, step: Update[T]) -> T:
            raise ZeroDivisionError

    async def main() -> None:
        limiter = replica(Broken())
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await limiter.enter(hear_nothing)
        assert limiter._limiter.budget.in_flight == 0

    run(main)


def test_state_counts_waiters() -> None:
    async def main() -> None:
        place = Place()
        limiters = SharedLimiters(Limiters("http://api", "acme"), place, name="acme", lease=LEASE)
        limiter = limiters.of("create", 20)
        assert limiters.of("create", 20) is limiter
        with await limiter.enter(hear_nothing) as permit:
            permit.answered(told(15, reset=asyncio.get_running_loop().time() + 50))
        await asyncio.sleep(1)
        others = replica(place)
        others.leases._key = "acme:create"
        held = [await others.enter(hear_nothing) for _ in range(12)]
        waiting = [asyncio.ensure_future(limiter.enter(hear_nothing)) for _ in range(5)]
        await asyncio.sleep(1)
        state = limiters.states()["create"]
        assert (state.in_flight, state.waiting) == (3, 2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await limiters.aclose()
        assert held

    run(main)


# --- by the headers alone ---


def by_headers(
    processes: int,
    creates: int = 110,
    *,
    seed: int = 0,
    latency: float = 0.1,
    budget: type[Budget] = FairShareBudget,
) -> tuple[float, float]:
    """The share of creates that was refused, and how long it took."""

    async def main() -> tuple[float, float]:
        service, began = Service(20, latency=latency), asyncio.get_running_loop().time()
        limiters = [Limiter("create", budget(20)) for _ in range(processes)]
        chance = random.Random(seed)

        async def call(number: int, pause: float) -> None:
            await asyncio.sleep(pause)
            await service.call(limiters[number % processes])

        pauses = [chance.uniform(0, 0.5) for _ in limiters]
        async with anyio.create_task_group() as group:
            for number in range(creates):
                group.start_soon(call, number, pauses[number % processes])
        assert len(service.admitted) == creates
        return len(service.refused) / (creates + len(service.refused)), service.now() - began

    return run(main)


@pytest.mark.parametrize(("processes", "most"), [(2, 0.06), (4, 0.12), (8, 0.25)])
def test_strangers_lose_no_time(processes: int, most: float) -> None:
    refused, took = zip(*(by_headers(processes, seed=seed) for seed in range(9)), strict=True)
    assert statistics.median(took) <= 1.05 * by_headers(1)[1]
    assert statistics.median(refused) <= most


def test_without_fair_share_half_refused() -> None:
    refused, _ = by_headers(4, budget=Budget)
    assert refused > 0.4


@pytest.mark.parametrize("latency", [0.1, 3.0])
def test_lone_process_is_as_quick(latency: float) -> None:
    assert by_headers(1, latency=latency) == by_headers(1, latency=latency, budget=Budget)


def fair(*, remaining: int, sent: int = 1) -> FairShareBudget:
    """A budget whose first calls, at 0, were answered with this."""
    budget = FairShareBudget(20)
    for call in [budget.take(0.0) for _ in range(sent)]:
        budget.answered(0.0, call, told(remaining))
    return budget


def taken_at_once(budget: FairShareBudget, now: float) -> int:
    """How many calls go before an answer comes."""
    calls = []
    while (call := budget.try_take(now)) is not None:
        calls.append(call)
    for call in calls:
        budget.unsent(call)
    return len(calls)


@pytest.mark.parametrize(
    ("remaining", "sent", "at_once"),
    [
        (19, 1, 19),  # what was spent was sent from here
        (16, 4, 16),
        (16, 1, 2),  # an eighth of what is left
        (15, 1, 1),
        (3, 1, 1),  # always one
        (0, 1, 0),
    ],
)
def test_share_of_the_rest_beside_others(remaining: int, sent: int, at_once: int) -> None:
    assert taken_at_once(fair(remaining=remaining, sent=sent), 1.0) == at_once


def test_an_answer_makes_room_for_the_next() -> None:
    budget = fair(remaining=8)
    call = budget.try_take(1.0)
    assert call is not None
    assert budget.try_take(1.0) is None
    assert budget.opens_at(1.0) == 60.0  # without an answer
    budget.answered(2.0, call, told(7))
    assert budget.try_take(2.0) is not None


def test_unsent_call_is_not_ours() -> None:
    budget = FairShareBudget(20)
    first, second = budget.take(0.0), budget.take(0.0)
    budget.unsent(second)
    budget.answered(0.0, first, told(18))
    assert taken_at_once(budget, 1.0) == 2


def test_refusal_reveals_others() -> None:
    budget = FairShareBudget(20)
    budget.refused(0.0, budget.take(0.0), 60.0)
    budget.answered(61.0, budget.take(61.0), told(19, reset=120.0))
    assert taken_at_once(budget, 62.0) == 2


def test_others_forgotten_in_3_windows() -> None:
    budget, at_once = fair(remaining=10), []
    for window in (1, 2, 3):
        now = 60.0 * window
        budget.answered(now, budget.take(now), told(19, reset=now + 60))
        at_once.append(taken_at_once(budget, now))
    assert at_once == [2, 2, 19]


def test_turn_is_seen_while_waiting() -> None:
    budget = fair(remaining=1)
    assert budget.try_take(59.0) is not None
    assert budget.try_take(59.5) is None
    assert budget.try_take(60.0) is not None  # the next window's first call


def test_who_shares_by_other_means_takes_all() -> None:
    budget = fair(remaining=12)
    budget.alone = True
    assert taken_at_once(budget, 1.0) == 12


def test_earlier_spending_is_ours() -> None:
    budget = FairShareBudget.restored(20, fair(remaining=15, sent=5).snapshot())
    budget.answered(1.0, budget.take(1.0), told(14))
    assert taken_at_once(budget, 1.0) == 14
    budget.answered(2.0, budget.take(2.0), told(10))
    assert taken_at_once(budget, 2.0) == 1


def test_deadline_judged_by_the_window() -> None:
    """How long an answer takes that makes room nobody knows: too late is never claimed."""
    budget = fair(remaining=8)
    assert budget.try_take(1.0) is not None
    assert budget.earliest(1.0, 3) == 1.0
    assert budget.earliest(1.0, 7) == 60.0
