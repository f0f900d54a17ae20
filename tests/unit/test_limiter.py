"""The limiter against services that count, told and not told, alone and not alone."""

from __future__ import annotations

import asyncio
import itertools

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.errors import DeadlineError
from amigo_async.events import Event, LimitHeld
from amigo_async.ratelimit import Limiter, Limiters, RateLimitInfo, forget
from amigo_async.ratelimit.fair_share import FairShareBudget
from tests.unit.service import QuickLoop, Service, limiter, run


def admitted_after(service: Service) -> list[float]:
    """When each call was admitted, counted from the first."""
    return [round(at - service.admitted[0], 6) for at in service.admitted]


@pytest.mark.parametrize(
    ("service", "turns"),
    [
        (Service(20), 2),
        (Service(20, mode="sliding"), 2),
        (Service(20, tells=False), 2),
        (Service(20, mode="sliding", tells=False), 2),
        (Service(10), 5),
        (Service(50), 1),
    ],
    ids=["fixed", "sliding", "blind", "blind and sliding", "less than documented", "more"],
)
def test_whole_windows_without_refusal(service: Service, turns: int) -> None:
    async def main() -> float:
        create = limiter(20)
        began = service.now()
        await asyncio.gather(*(service.call(create) for _ in range(60)))
        assert create._timer is None
        return service.now() - began

    took = run(main)
    assert len(service.admitted) == 60
    assert service.refused == []
    assert turns * 60 <= took <= turns * 60 * 1.05
    at_once = sum(at < 1.0 for at in admitted_after(service))
    assert at_once == min(service.limit, 20 if not service.tells else 60)


def test_untold_limit_is_learned() -> None:
    service = Service(10, tells=False)

    async def main() -> None:
        create = limiter(20)
        await asyncio.gather(*(service.call(create) for _ in range(60)))

    run(main)
    assert len(service.admitted) == 60
    assert len(service.refused) <= 20  # ten at first, then where the limit is tried out


def test_refused_calls_go_first() -> None:
    service = Service(3)
    order: list[int] = []

    async def call(create: object, number: int) -> None:
        await service.call(create)  # type: ignore[arg-type]  # a limiter
        order.append(number)

    async def main() -> None:
        create = limiter(3)
        await service.call(create)
        service.count()
        service.count()
        await asyncio.gather(*(call(create, number) for number in range(9)))

    run(main)
    assert sorted(order[:2]) == [0, 1]
    assert order[3:] == sorted(order[3:])


def test_cancelled_waiter_frees_its_place() -> None:
    service = Service(20)

    async def main() -> None:
        create = limiter(20)
        await asyncio.gather(*(service.call(create) for _ in range(20)))
        waiting = [asyncio.create_task(service.call(create)) for _ in range(30)]
        await asyncio.sleep(1)
        for task in waiting[:15]:
            task.cancel()
        await asyncio.wait(waiting)
        assert sum(task.cancelled() for task in waiting) == 15
        assert create._timer is None

    run(main)
    assert len(service.admitted) == 35
    assert max(admitted_after(service)) < 61


def test_permit_of_a_cancelled_task() -> None:
    async def main() -> None:
        create = limiter(1)
        ahead = await create.enter(lambda _: None)
        first = asyncio.create_task(create.enter(lambda _: None))
        second = asyncio.create_task(create.enter(lambda _: None))
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        ahead.answered(
            RateLimitInfo(1, 1, now + 60, now + 60)
        )  # grants the first, which is not resumed yet
        first.cancel()
        permit = await second
        assert first.cancelled()
        permit.unsent()
        assert create.budget.in_flight == 0
        assert create._timer is None

    run(main)


def test_unsettled_permit_is_spent() -> None:
    async def main() -> None:
        create = limiter(20)
        now = asyncio.get_running_loop().time()
        with await create.enter(lambda _: None) as permit:
            permit.answered(RateLimitInfo(20, 19, now + 60, now + 60))
        with pytest.raises(ZeroDivisionError), await create.enter(lambda _: None):
            raise ZeroDivisionError
        assert create.budget.remaining == 18
        assert create.budget.in_flight == 0

    run(main)


def test_too_late_fails_at_once() -> None:
    service = Service(20)

    async def main() -> None:
        create = limiter(20)
        await asyncio.gather(*(service.call(create) for _ in range(20)))
        began = service.now()
        with pytest.raises(DeadlineError, match="create") as caught, anyio.fail_after(30):
            await service.call(create)
        assert service.now() == pytest.approx(began, abs=0.5)
        assert caught.value.endpoint == "create"
        assert caught.value.retry_after == pytest.approx(60, abs=1)
        with anyio.fail_after(70):
            await service.call(create)

    run(main)


def test_refusal_fails_short_deadlines() -> None:
    async def main() -> None:
        create = limiter(20)
        ahead = await create.enter(lambda _: None)

        async def hurried() -> float:
            with pytest.raises(DeadlineError) as caught, anyio.fail_after(10):
                await create.enter(lambda _: None)
            return caught.value.retry_after

        patient = asyncio.create_task(create.enter(lambda _: None))
        in_a_hurry = asyncio.create_task(hurried())
        await asyncio.sleep(0)
        ahead.refused(40)
        assert await in_a_hurry == pytest.approx(40, abs=0.1)
        (await patient).unsent()

    run(main)


def test_held_calls_are_reported_once() -> None:
    service = Service(20)
    heard: list[Event] = []

    async def main() -> None:
        create = limiter(20)
        await asyncio.gather(*(service.call(create, heard.append) for _ in range(45)))

    run(main)
    held = [event for event in heard if isinstance(event, LimitHeld)]
    assert len(held) == 25
    assert {event.endpoint for event in held} == {"create"}
    assert all(55 < event.delay <= 120 for event in held)
    assert max(event.queue for event in held) == 25


def test_snapshot_and_repr() -> None:
    async def main() -> None:
        forget()
        limiters = Limiters("https://api.example", "acme")
        create = limiters.of("create", 20)
        assert Limiters("https://api.example", "acme").of("create", 20) is create
        assert Limiters("https://api.example", "other").of("create", 20) is not create
        now = asyncio.get_running_loop().time()
        with await create.enter(lambda _: None) as permit:
            assert repr(create) == "<Limiter create: ? of 20 left, 1 in flight, 0 waiting>"
            permit.answered(RateLimitInfo(20, 0, now + 30, now + 30))
        waiting = asyncio.create_task(create.enter(lambda _: None))
        await asyncio.sleep(0)
        state = limiters.states()["create"]
        assert (state.endpoint, state.limit, state.remaining) == ("create", 20, 0)
        assert (state.in_flight, state.waiting) == (0, 1)
        assert state.opens_in == pytest.approx(30, abs=0.1)
        assert state.turns_in == pytest.approx(30, abs=0.1)
        assert repr(create) == "<Limiter create: 0 of 20 left, 0 in flight, 1 waiting>"
        waiting.cancel()
        await asyncio.wait([waiting])

    run(main)


def test_spending_outlives_the_loop() -> None:
    forget()

    async def spend() -> None:
        limiters = Limiters("https://api.example", "acme")
        create = limiters.of("create", 20)
        now = asyncio.get_running_loop().time()
        with await create.enter(lambda _: None) as permit:
            permit.answered(RateLimitInfo(20, 0, now + 3600, now + 3600))
        await limiters.aclose()

    async def look() -> int | None:
        limiters = Limiters("https://api.example", "acme")
        remaining = limiters.of("create", 20).budget.remaining
        await limiters.aclose()
        return remaining

    asyncio.run(spend())
    assert asyncio.run(look()) == 0
    forget("https://elsewhere.example")
    assert asyncio.run(look()) == 0
    forget("https://api.example")
    assert asyncio.run(look()) is None


def test_two_thousand_waiters() -> None:
    service = Service(5_000, latency=0.0)

    async def main() -> None:
        create = limiter(20)
        with await create.enter(lambda _: None) as permit:
            turn = service.now() + 60
            permit.answered(RateLimitInfo(1, 0, turn, turn))
        waiting = [asyncio.create_task(service.call(create)) for _ in range(2_000)]
        await asyncio.sleep(0)
        assert len(create._queue) == 2_000
        for task in waiting[::10]:
            task.cancel()
        await asyncio.sleep(0)
        assert len(create._queue) == 1_800
        await asyncio.wait(waiting)
        assert (len(create._queue), create._timer, create._unreported) == (0, None, [])
        assert create.budget.in_flight == 0

    run(main)
    assert len(service.admitted) == 1_800
    assert service.refused == []


arrivals = st.lists(
    st.tuples(
        st.floats(0, 90),  # when it comes
        st.one_of(st.none(), st.floats(0, 150)),  # when it is cancelled, if it is
    ),
    min_size=1,
    max_size=60,
)


@given(
    arrivals=arrivals,
    limit=st.integers(1, 25),
    mode=st.sampled_from(["fixed", "sliding"]),
    tells=st.booleans(),
    others=st.lists(st.tuples(st.floats(0, 200), st.integers(1, 20)), max_size=5),
    latency=st.sampled_from([0.0, 0.01, 0.7]),
)
def test_any_schedule_keeps_order(
    arrivals: list[tuple[float, float | None]],
    limit: int,
    mode: str,
    tells: bool,
    others: list[tuple[float, int]],
    latency: float,
) -> None:
    service = Service(
        limit, mode="fixed" if mode == "fixed" else "sliding", tells=tells, latency=latency
    )
    went: list[tuple[float, float]] = []  # when a call came through, and when it had come

    async def main() -> None:
        create = limiter(20)
        loop = asyncio.get_running_loop()

        async def call(at: float) -> None:
            await asyncio.sleep(at)
            came = loop.time()
            turn: int | None = None
            while True:
                with await create.enter(lambda _: None, position=turn) as permit:
                    if turn is None:
                        went.append((loop.time(), came))
                    await asyncio.sleep(latency)
                    if service.count():
                        permit.answered(service.told())
                        return
                    service.refused.append(loop.time())
                    permit.refused(service.pause())
                    turn = permit.position

        for at, count in others:
            for _ in range(count):
                loop.call_later(at, service.count)
        calls = [asyncio.create_task(call(at)) for at, _ in arrivals]
        for task, (_, cancelled_at) in zip(calls, arrivals, strict=True):
            if cancelled_at is not None:
                loop.call_later(cancelled_at, task.cancel)
        await asyncio.wait(calls)  # a lost wake-up would never let this end
        for task in calls:
            assert task.cancelled() or task.exception() is None
        assert create._timer is None
        assert create.budget.in_flight == 0
        assert not create._queue

    run(main)
    # Permits are given in order; tasks that get theirs in one moment may be resumed in another.
    assert all(
        earlier <= later or after - before < 0.1
        for (before, earlier), (after, later) in itertools.pairwise(went)
    )
    if tells and not others:
        assert service.refused == []


def test_no_permit_past_the_queue() -> None:
    async def main() -> None:
        list_ = Limiter("list", FairShareBudget(1))
        with anyio.move_on_after(1.0):
            first = await list_.enter(lambda _: None)
            waiting = asyncio.create_task(list_.enter(lambda _: None))
            await asyncio.sleep(0)
            first.unsent()  # its quota goes to the request that waits
            new = asyncio.create_task(list_.enter(lambda _: None))
            await asyncio.sleep(0)
            assert waiting.done()
            assert not new.done()
            waiting.result().unsent()
            (await new).unsent()
            assert list_.state().in_flight == 0

    run(main)


def test_forgotten_by_all_users() -> None:
    async def main() -> None:
        here, elsewhere = Limiters("https://api.example", "a"), Limiters("https://b.example", "a")
        limiter, other = here.of("list", 50), elsewhere.of("list", 50)
        assert here.of("list", 50) is limiter
        forget("https://api.example")
        assert here.states() == {}
        assert here.of("list", 50).budget is not limiter.budget
        assert elsewhere.of("list", 50) is other

    run(main)


def test_late_refusal_does_not_overtake() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, QuickLoop)
        create = limiter(20)
        with await create.enter(lambda _: None) as ahead:
            ahead.answered(RateLimitInfo(20, 19, loop.time() + 60, loop.time() + 60))
        first, second = [await create.enter(lambda _: None) for _ in range(2)]
        first.refused(10.0)
        second.refused(10.0)
        earlier = asyncio.create_task(create.enter(lambda _: None, position=first.position))
        await asyncio.sleep(0)
        loop.skipped += 10.0  # it is open, and its timer has yet to tell
        later = asyncio.create_task(create.enter(lambda _: None, position=second.position))
        permit = await earlier
        assert (permit.position, later.done()) == (first.position, False)
        permit.unsent()
        (await later).unsent()

    run(main)
