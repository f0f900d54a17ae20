"""All waiters share one poller, and what happens to one concerns no other."""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import Awaitable
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from amigo_async.errors import (
    AmigoError,
    ArgumentError,
    AuthenticationError,
    BadRequestError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    ServerError,
    TransportError,
    WaitTimeoutError,
)
from amigo_async.limits import BudgetState
from amigo_async.models import Run, RunPage
from amigo_async.polling import Poller, as_completed, wait_for_completion
from amigo_async.polling.pace import LONGEST, Pace, affordable, lay_out
from amigo_async.polling.poller import PATIENCE
from tests.fake_runs import FakeRuns, ids, page_of, run_id, some_run
from tests.service import run


def budget(**fields: Any) -> BudgetState:
    state = BudgetState("list", 50, None, 0, 0, 0.0, None)
    return replace(state, **fields)


def poller(fake: FakeRuns, interval: float | None = None) -> Poller:
    return Poller(fake.look, budget, interval)


def failure(kind: type[Any], status: int) -> AmigoError:
    error: AmigoError = kind(method="GET", path="/", status=status)
    return error


NO_ANSWER = TransportError("reset", method="GET", path="/")


async def wait_for(shared: Poller, id: str, **options: Any) -> Run:
    return await wait_for_completion(shared, id, **options)


# --- the pages ---


@pytest.mark.parametrize(
    ("full", "completed", "pages"),
    [
        ([], [], []),
        (ids(60), [], [(50, True), (10, True)]),
        ([], ids(60), [(50, False), (10, False)]),
        (ids(9), ids(60)[9:], [(50, True), (10, False)]),
        (ids(50), ids(51)[50:], [(50, True), (1, False)]),
    ],
)
def test_ids_are_laid_out_on_as_few_pages_as_possible(
    full: list[str], completed: list[str], pages: list[tuple[int, bool]]
) -> None:
    laid = lay_out(full, completed, 50)
    assert [(len(page.ids), page.full) for page in laid] == pages
    assert [i for page in laid for i in page.ids] == full + completed


@pytest.mark.parametrize("as_tasks", [True, False])
def test_sixty_runs_cost_two_requests_a_tick_however_they_are_waited_for(as_tasks: bool) -> None:
    fake = FakeRuns(dict.fromkeys(ids(60), 100.0))

    async def main() -> None:
        shared = poller(fake)
        if as_tasks:
            await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))
        else:
            assert {r.id async for r in as_completed(shared, fake.ends)} == set(fake.ends)

    run(main)
    # The last ones may fall on both sides of the end.
    first, *later = [tick for tick in fake.ticks() if tick[0][0] < 95.0]
    assert [len(tick) for tick in later] == [2] * len(later)
    assert [only_completed for _, _, only_completed in first] == [False, False]
    assert any(done for _, _, done in fake.asked)
    assert len(later) <= 100 / 4.5


def test_after_the_first_look_only_completed_runs_are_asked_for_and_now_and_then_all() -> None:
    fake = FakeRuns({run_id(1): 1000.0})
    run(lambda: wait_for(poller(fake, interval=5.0), run_id(1)))
    kinds = [done for _, _, done in fake.asked]
    assert kinds[0] is False
    assert kinds[1:10] == [True] * 9
    assert kinds[10] is False


def test_who_wants_progress_sees_each_new_state_once_and_runs_in_any_state_are_asked_for() -> None:
    fake = FakeRuns({run_id(1): 100.0})
    seen: list[Run] = []

    def mangle(page: RunPage) -> RunPage:
        early = fake.now() > 40
        return page_of(
            [
                some_run(r.id, is_completed=r.is_completed, failed_metrics=early)
                for r in page.simulation_unit_test_set_runs
            ]
        )

    fake.mangle = mangle
    done = run(lambda: wait_for(poller(fake), run_id(1), on_progress=seen.append))
    assert [r.failed_metrics for r in seen] == [False, True]
    assert done.is_completed
    assert not any(only_completed for _, _, only_completed in fake.asked)


def test_on_progress_may_be_a_coroutine_function_and_slows_down_nobody_else() -> None:
    fake = FakeRuns({run_id(1): 50.0, run_id(2): 20.0})
    ended: dict[str, float] = {}

    async def slowly(_: Run) -> None:
        await asyncio.sleep(40)

    async def main() -> None:
        shared = poller(fake)

        async def one(id: str, **options: Any) -> None:
            await wait_for(shared, id, **options)
            ended[id] = fake.now()

        await asyncio.gather(one(run_id(1), on_progress=slowly), one(run_id(2)))

    run(main)
    assert ended[run_id(2)] < 45


# --- the pace ---


def test_the_interval_grows_while_nothing_happens_and_is_short_after_news() -> None:
    pace = Pace()
    quiet = [pace.after(news=False, pages=1, budget=None, waited=1e4) for _ in range(12)]
    assert 1.4 <= quiet[0] <= 1.6
    assert quiet[-1] == pytest.approx(LONGEST, rel=0.06)
    assert pace.after(news=True, pages=1, budget=None, waited=1e4) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize(("waited", "longest"), [(0.0, 1.0), (50.0, 1.0), (300.0, 6.0)])
def test_the_interval_is_a_small_part_of_what_was_waited(waited: float, longest: float) -> None:
    pace = Pace()
    quiet = [pace.after(news=False, pages=1, budget=None, waited=waited) for _ in range(12)]
    assert max(quiet) == pytest.approx(longest, rel=0.06)


@pytest.mark.parametrize(
    ("pages", "state", "interval"),
    [
        (1, None, 0.0),
        (1, budget(), 2.4),
        (2, budget(), 4.8),
        (200, budget(), 480.0),
        (2, budget(limit=1000), 0.24),
        (1, budget(remaining=50, turns_in=60.0), 2.4),
        (1, budget(remaining=4, turns_in=40.0), 20.0),
        (1, budget(remaining=0, turns_in=40.0), 40.0),
        (1, budget(remaining=0, turns_in=0.5), 2.4),
    ],
)
def test_polling_spends_no_more_than_its_share(
    pages: int, state: BudgetState | None, interval: float
) -> None:
    assert affordable(pages, state) == pytest.approx(interval)


def test_polling_stays_within_half_of_the_list_budget() -> None:
    fake = FakeRuns(dict.fromkeys(ids(60), 600.0))
    run(lambda: asyncio.gather(*(wait_for(p, i) for p in [poller(fake)] for i in fake.ends)))
    assert len(fake.asked) <= 25 * 10 + 4


def test_a_poll_interval_that_is_given_is_kept() -> None:
    fake = FakeRuns({run_id(1): 100.0})
    run(lambda: wait_for(poller(fake), run_id(1), poll_interval=7.0))
    times = [tick[0][0] for tick in fake.ticks()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == pytest.approx([7.0] * len(gaps), abs=0.01)


def test_a_short_interval_of_one_waiter_does_not_make_the_others_poll_more() -> None:
    fake = FakeRuns(dict.fromkeys(ids(51), 60.0))

    async def main() -> None:
        shared = poller(fake)
        quick = wait_for(shared, run_id(50), poll_interval=1.0)
        await asyncio.gather(quick, *(wait_for(shared, i) for i in ids(50)))

    run(main)
    of_others = [ids_ for _, ids_, _ in fake.asked if run_id(0) in ids_]
    assert len(of_others) <= 20
    assert sum(run_id(50) in ids_ for _, ids_, _ in fake.asked) >= 55


@pytest.mark.parametrize("end", [0.0, 3.0, 61.7, 333.3])
def test_a_finished_run_reaches_its_waiter_within_a_tick(end: float) -> None:
    fake = FakeRuns({run_id(1): end})

    async def main() -> float:
        await wait_for(poller(fake), run_id(1))
        return fake.now()

    assert end <= run(main) <= end + LONGEST * 1.1


def test_artifacts_are_waited_for_where_they_are_required() -> None:
    fake = FakeRuns({run_id(1): 10.0}, artifacts_after=30.0)

    async def main() -> tuple[float, float]:
        shared = poller(fake)

        async def one(**options: Any) -> float:
            await wait_for(shared, run_id(1), **options)
            return fake.now()

        without, wanted = await asyncio.gather(one(), one(require_artifacts=True))
        return without, wanted

    without, wanted = run(main)
    assert without < 40 <= wanted


# --- what pages may do ---


def test_a_missing_run_is_an_error_for_its_waiter_alone() -> None:
    fake = FakeRuns({run_id(1): 30.0})

    async def main() -> tuple[object, ...]:
        shared = poller(fake)
        return await asyncio.gather(
            wait_for(shared, run_id(1)), wait_for(shared, run_id(2)), return_exceptions=True
        )

    found, missing = run(main)
    assert isinstance(found, Run)
    assert isinstance(missing, NotFoundError)
    assert run_id(2) in str(missing)


def test_a_run_that_is_shown_a_little_late_is_not_missing() -> None:
    fake = FakeRuns({run_id(1): 30.0})
    looks = iter([page_of([])])
    fake.mangle = lambda page: next(looks, page)
    assert run(lambda: wait_for(poller(fake), run_id(1))).id == run_id(1)


def test_a_page_cut_short_is_asked_for_the_rest_at_once() -> None:
    fake = FakeRuns(dict.fromkeys(ids(40), 0.0))

    def short(page: RunPage) -> RunPage:
        runs = page.simulation_unit_test_set_runs
        return page_of(runs[:7], has_more=len(runs) > 7)

    fake.mangle = short

    async def main() -> float:
        shared = poller(fake)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))
        return fake.now()

    assert run(main) < 2.0
    assert len(fake.asked) == 6


def test_a_foreign_run_on_a_page_does_no_harm() -> None:
    fake = FakeRuns({run_id(1): 5.0})
    fake.mangle = lambda page: page_of(
        [some_run(run_id(99), is_completed=True), *page.simulation_unit_test_set_runs]
    )
    assert run(lambda: wait_for(poller(fake), run_id(1))).id == run_id(1)


def test_pages_get_smaller_where_the_service_refuses_that_many_ids() -> None:
    fake = FakeRuns(dict.fromkeys(ids(40), 5.0))
    original = fake.look

    async def look(**filters: Any) -> RunPage:
        if len(filters["id"]) > 10:
            raise failure(BadRequestError, 414)
        return await original(**filters)

    async def main() -> None:
        shared = Poller(look, budget)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    run(main)
    assert max(len(asked) for _, asked, _ in fake.asked) == 10


# --- failures ---


@pytest.mark.parametrize("error", [NO_ANSWER, failure(ServerError, 503)])
def test_a_poll_that_fails_in_passing_spoils_nobodys_wait(error: AmigoError) -> None:
    fake = FakeRuns({run_id(1): 60.0})
    fake.errors = [error, None, error, error, None, error]
    assert run(lambda: wait_for(poller(fake), run_id(1))).is_completed


def test_five_minutes_without_an_answer_end_the_waits_with_the_cause() -> None:
    fake = FakeRuns(dict.fromkeys(ids(3), 10_000.0))
    fake.errors = [None] + [NO_ANSWER] * 10_000

    async def main() -> tuple[float, list[object]]:
        shared = poller(fake)
        ends = await asyncio.gather(
            *(wait_for(shared, i) for i in fake.ends), return_exceptions=True
        )
        return fake.now(), list(ends)

    took, ends = run(main)
    assert PATIENCE <= took <= PATIENCE + 2 * LONGEST + 5
    assert all(isinstance(end, TransportError) for end in ends)
    assert len({id(end) for end in ends}) == 3  # each waiter raises an error of its own


@pytest.mark.parametrize("error", [failure(ForbiddenError, 403), failure(AuthenticationError, 401)])
def test_an_error_that_does_not_pass_ends_the_waits_at_once(error: AmigoError) -> None:
    fake = FakeRuns({run_id(1): 1000.0})
    fake.errors = [None, error]
    with pytest.raises(type(error)):
        run(lambda: wait_for(poller(fake), run_id(1)))
    assert len(fake.asked) == 2


def test_a_deadline_of_the_one_whose_turn_it_is_concerns_no_other() -> None:
    fake = FakeRuns({run_id(1): 100.0, run_id(2): 100.0})
    fake.errors = [None, DeadlineError(endpoint="list", retry_after=40.0)]

    async def main() -> list[object]:
        shared = poller(fake)
        hurried = wait_for(shared, run_id(1), timeout=30.0)
        patient = wait_for(shared, run_id(2))
        return list(await asyncio.gather(hurried, patient, return_exceptions=True))

    hurried, patient = run(main)
    assert isinstance(hurried, WaitTimeoutError)
    assert isinstance(patient, Run)


# --- deadlines and cancellations ---


def test_a_deadline_that_passes_says_what_was_seen_and_that_the_run_goes_on() -> None:
    fake = FakeRuns({run_id(1): 1000.0})

    async def main() -> float:
        with pytest.raises(WaitTimeoutError, match="go on") as caught:
            await wait_for(poller(fake), run_id(1), timeout=30.0)
        assert caught.value.run_id == run_id(1)
        assert caught.value.last_run is not None
        assert not caught.value.last_run.is_completed
        return fake.now()

    assert run(main) == pytest.approx(30.0, abs=0.1)


def test_as_completed_gives_runs_as_they_end_and_the_rest_with_the_deadline() -> None:
    fake = FakeRuns({run_id(1): 50.0, run_id(2): 10.0, run_id(3): 1000.0})
    seen: list[str] = []

    async def main() -> None:
        with pytest.raises(WaitTimeoutError) as caught:
            async for ended in as_completed(poller(fake), fake.ends, timeout=100.0):
                seen.append(ended.id)
        assert caught.value.run_ids == (run_id(3),)
        assert set(caught.value.last_runs) == {run_id(3)}

    run(main)
    assert seen == [run_id(2), run_id(1)]


def test_as_completed_raises_what_concerns_one_run_after_the_others_were_given() -> None:
    fake = FakeRuns({run_id(1): 50.0})
    seen: list[str] = []

    async def main() -> None:
        with pytest.raises(NotFoundError, match=run_id(7)) as caught:
            async for ended in as_completed(poller(fake), [run_id(7), run_id(8), run_id(1)]):
                seen.append(ended.id)
        assert run_id(8) in caught.value.__notes__[0]

    run(main)
    assert seen == [run_id(1)]


def test_leaving_as_completed_early_leaves_nothing_watched() -> None:
    fake = FakeRuns(dict.fromkeys(ids(3), 10.0))

    async def main() -> None:
        shared = poller(fake)
        ended = as_completed(shared, fake.ends)
        async for _ in ended:
            break
        await ended.aclose()
        assert not shared._watched

    run(main)


def test_the_last_state_of_a_run_that_is_watched_already_is_used() -> None:
    fake = FakeRuns({run_id(1): 5.0}, artifacts_after=100.0)

    async def main() -> None:
        shared = poller(fake)
        other = asyncio.create_task(wait_for(shared, run_id(1), require_artifacts=True))
        await asyncio.sleep(50)
        asked = len(fake.asked)
        await wait_for(shared, run_id(1))
        assert len(fake.asked) == asked
        await other

    run(main)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("during", ["sleep", "request"])
def test_cancelling_the_one_whose_turn_it_is_hands_over_at_once(during: str) -> None:
    fake = FakeRuns(dict.fromkeys(ids(3), 100.0))

    async def main() -> None:
        shared = poller(fake)
        tasks = [asyncio.create_task(wait_for(shared, i)) for i in fake.ends]
        await asyncio.sleep(20.0)
        if during == "request":
            fake.hold = asyncio.Event()
            asked = len(fake.asked)
            while len(fake.asked) == asked:
                await asyncio.sleep(0.1)
        holder = next(
            t
            for t, i in zip(tasks, fake.ends, strict=True)
            if shared._turn is not None and i in shared._turn.pending
        )
        if fake.hold is not None:
            fake.hold.set()
            fake.hold = None
            fake.latency = 1.0
            await cancelled(holder)
            fake.latency = 0.0
        else:
            await cancelled(holder)
        rest = [task for task in tasks if task is not holder]
        await asyncio.wait(rest)
        assert all(task.result().is_completed for task in rest)
        assert fake.now() <= 100 + LONGEST * 1.1 + 2
        assert not shared._watched
        assert shared._turn is None

    run(main)


def test_any_waiter_can_be_cancelled_at_any_step_and_the_others_get_their_runs() -> None:
    for step in range(1, 60):
        fake = FakeRuns(dict.fromkeys(ids(4), 30.0))
        fake.latency = 0.2

        async def main(fake: FakeRuns = fake, step: int = step) -> None:
            shared = poller(fake)
            tasks = [asyncio.create_task(wait_for(shared, i)) for i in fake.ends]
            victim = tasks[step % 4]
            for _ in range(step):
                await asyncio.sleep(0 if step % 2 else 0.07 * step)
            victim.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                assert (task is victim and task.cancelled()) or task.result().is_completed
            assert not shared._watched
            assert not shared._sleeping
            assert shared._turn is None

        run(main)


def test_a_timeout_of_a_surrounding_scope_is_not_taken_for_ones_own() -> None:
    fake = FakeRuns({run_id(1): 1000.0})

    async def main() -> None:
        with anyio.move_on_after(10) as scope:
            await wait_for(poller(fake), run_id(1), timeout=500.0)
        assert scope.cancelled_caught

    run(main)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p: wait_for(p, "nonsense"), "run_id"),
        (lambda p: wait_for(p, run_id(1), timeout=0), "timeout"),
        (lambda p: wait_for(p, run_id(1), timeout=float("nan")), "timeout"),
        (lambda p: wait_for(p, run_id(1), poll_interval=-1), "poll_interval"),
        (lambda p: anext(as_completed(p, run_id(1))), "run_ids"),
    ],
)
def test_what_cannot_be_right_is_said_before_anything_is_asked(call: Any, named: str) -> None:
    fake = FakeRuns({run_id(1): 10.0})

    async def main() -> None:
        waiting: Awaitable[Any] = call(poller(fake))
        with pytest.raises(ArgumentError, match=named):
            await waiting

    run(main)
    assert fake.asked == []


def test_ten_thousand_waiters_cost_two_hundred_requests_a_tick() -> None:
    fake = FakeRuns(dict.fromkeys(ids(10_000), 900.0))

    async def main() -> None:
        shared = poller(fake, interval=300.0)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    run(main, debug=False)
    looks = collections.Counter(i for _, asked, _ in fake.asked for i in asked)
    assert set(looks.values()) == {4}
    assert 4 * 200 <= len(fake.asked) <= 4 * 204  # not all had come when the first look began
