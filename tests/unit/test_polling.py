"""All waiters share one poller, and what happens to one concerns no other."""

from __future__ import annotations

import asyncio
import collections
import itertools
import math
import random
from collections.abc import Awaitable
from typing import Any

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from amigo_async.decoding import RecordPage, decode_record_page
from amigo_async.errors import (
    AmigoError,
    APIError,
    ArgumentError,
    AuthenticationError,
    BadRequestError,
    DeadlineError,
    DecodeError,
    ForbiddenError,
    NotFoundError,
    ServerError,
    ServiceUnavailableError,
    TransportError,
    ValidationError,
    WaitTimeoutError,
)
from amigo_async.events import Event, RequestRetried
from amigo_async.models import Run, RunPage
from amigo_async.polling import Poller, as_completed, wait_for_completion
from amigo_async.polling.poller import PATIENCE
from amigo_async.polling.schedule import LONGEST, Pace, affordable, lay_out
from amigo_async.ratelimit import BudgetState
from tests.unit.fake_runs import CREATOR, FakeRuns, ids, page_of, run_id, some_run
from tests.unit.service import run


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
        ([], ids(60), [(60, False)]),
        ([], ids(1_000), [(200, False)] * 5),
        (ids(9), ids(60)[9:], [(50, True), (10, False)]),
        (ids(50), ids(51)[50:], [(50, True), (1, False)]),
    ],
)
def test_ids_fill_few_pages(
    full: list[str], completed: list[str], pages: list[tuple[int, bool]]
) -> None:
    laid = lay_out(full, completed, 50, 200)
    assert [(len(page.ids), page.full) for page in laid] == pages
    assert [i for page in laid for i in page.ids] == full + completed


@pytest.mark.parametrize("as_tasks", [True, False])
def test_sixty_runs_cost_one_request(as_tasks: bool) -> None:
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
    assert [len(tick) for tick in later] == [1] * len(later)
    assert [only_completed for _, _, only_completed in first] == [False, False]
    assert all(only_completed for tick in later for _, _, only_completed in tick)
    assert 95 / 2.6 <= len(later) <= 95 / 2.2


def test_mostly_completed_runs_are_asked() -> None:
    fake = FakeRuns({run_id(1): 1000.0})
    run(lambda: wait_for(poller(fake, interval=5.0), run_id(1)))
    kinds = [done for _, _, done in fake.asked]
    assert kinds[0] is False
    assert kinds[1:10] == [True] * 9
    assert kinds[10] is False


def test_progress_shows_each_state_once() -> None:
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


def test_slow_on_progress_delays_no_one() -> None:
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


def test_interval_grows_until_news() -> None:
    pace = Pace()
    quiet = [pace.after(changed=False, pages=1, budget=None, waited=1e4) for _ in range(12)]
    assert 1.4 <= quiet[0] <= 1.6
    assert quiet[-1] == pytest.approx(LONGEST, rel=0.06)
    assert pace.after(changed=True, pages=1, budget=None, waited=1e4) == pytest.approx(
        1.0, rel=0.06
    )


@pytest.mark.parametrize(("waited", "longest"), [(0.0, 1.0), (50.0, 1.0), (300.0, 6.0)])
def test_interval_by_time_waited(waited: float, longest: float) -> None:
    pace = Pace()
    quiet = [pace.after(changed=False, pages=1, budget=None, waited=waited) for _ in range(12)]
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
def test_polling_keeps_its_share(pages: int, state: BudgetState | None, interval: float) -> None:
    assert affordable(pages, state) == pytest.approx(interval)


def test_given_interval_is_kept() -> None:
    fake = FakeRuns({run_id(1): 100.0})
    run(lambda: wait_for(poller(fake), run_id(1), poll_interval=7.0))
    times = [tick[0][0] for tick in fake.ticks()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == pytest.approx([7.0] * len(gaps), abs=0.01)


def test_short_interval_is_ones_own() -> None:
    fake = FakeRuns(dict.fromkeys(ids(51), 60.0))

    async def main() -> None:
        shared = poller(fake)
        quick = wait_for(shared, run_id(50), poll_interval=1.0)
        await asyncio.gather(quick, *(wait_for(shared, i) for i in ids(50)))

    run(main)
    without_quick = [ids_ for _, ids_, _ in fake.asked if run_id(50) not in ids_]
    assert len(without_quick) <= 20
    assert sum(run_id(50) in ids_ for _, ids_, _ in fake.asked) >= 55


@pytest.mark.parametrize("end", [0.0, 3.0, 61.7, 333.3])
def test_end_is_seen_within_a_tick(end: float) -> None:
    fake = FakeRuns({run_id(1): end})

    async def main() -> float:
        await wait_for(poller(fake), run_id(1))
        return fake.now()

    assert end <= run(main) <= end + LONGEST * 1.1


def test_required_artifacts_are_awaited() -> None:
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


def missing_between(since: float, until: float) -> FakeRuns:
    """A run of 200 s that lists do not show for a while."""
    fake = FakeRuns({run_id(1): 200.0})
    fake.mangle = lambda page: page_of([]) if since <= fake.now() < until else page
    return fake


async def until_error(fake: FakeRuns, expected: bool) -> float:
    """Wait for the run; when it is told to be missing."""
    shared = poller(fake)
    if expected:
        shared.expect(run_id(1))
    with pytest.raises(NotFoundError, match=run_id(1)):
        await wait_for(shared, run_id(1))
    return fake.now()


def test_seen_run_missing_for_a_minute() -> None:
    fake = missing_between(20.0, 1e9)
    assert 80.0 <= run(lambda: until_error(fake, False)) <= 100.0


def test_created_run_missing_a_minute() -> None:
    fake = missing_between(0.0, 1e9)
    assert 59.9 <= run(lambda: until_error(fake, True)) <= 70.0


def test_unknown_id_missing_for_15_s() -> None:
    fake = missing_between(0.0, 1e9)
    assert 15.0 <= run(lambda: until_error(fake, False)) <= 25.0


@pytest.mark.parametrize("expected", [False, True])
def test_an_id_that_may_be_wrong_is_told_at_once(*, expected: bool) -> None:
    """One that the service has named is merely not listed yet."""
    fake = missing_between(0.0, 1e9)
    told: list[Event] = []

    async def main() -> None:
        shared = Poller(fake.look, budget, emit=told.append)
        if expected:
            shared.expect(run_id(1))
        with pytest.raises(NotFoundError):
            await wait_for(shared, run_id(1))

    run(main)
    if expected:
        assert told == []
        return
    [event] = told
    assert isinstance(event, RequestRetried)
    assert event.reason == f"no list shows run {run_id(1)}; it is looked for during 15 s"
    times = [at for at, *_ in fake.asked]
    assert event.delay == pytest.approx(times[1] - times[0])


def test_missing_run_is_asked_sooner() -> None:
    """A look in two minutes asks for the run in any state, and from then on every one does."""
    fake = missing_between(20.0, 1e9)

    async def main() -> float:
        with pytest.raises(NotFoundError):
            await wait_for(poller(fake), run_id(1), poll_interval=100.0)
        return fake.now()

    assert 160.0 <= run(main) <= 180.0


def test_seen_in_an_earlier_wait() -> None:
    fake = missing_between(15.0, 1e9)

    async def main() -> float:
        shared = poller(fake)
        with pytest.raises(WaitTimeoutError):
            await wait_for(shared, run_id(1), timeout=10.0)
        await asyncio.sleep(10.0)
        with pytest.raises(NotFoundError):
            await wait_for(shared, run_id(1))
        return fake.now()

    assert 79.0 <= run(main) <= 95.0


@pytest.mark.parametrize(("since", "until"), [(0.0, 40.0), (20.0, 25.0), (20.0, 75.0)])
def test_lagging_list_is_waited_out(since: float, until: float) -> None:
    fake = missing_between(since, until)

    async def main() -> Run:
        shared = poller(fake)
        shared.expect(run_id(1))
        return await wait_for(shared, run_id(1))

    assert run(main).is_completed
    assert 200.0 <= fake.asked[-1][0] <= 215.0


def test_missing_time_starts_over() -> None:
    fake = FakeRuns({run_id(1): 300.0})
    fake.mangle = lambda page: page_of([]) if fake.now() // 50 % 2 else page
    assert run(lambda: wait_for(poller(fake), run_id(1))).is_completed


@pytest.mark.parametrize("interval", [400.0, 30.0])
def test_two_misses_prove_nothing(interval: float) -> None:
    fake = FakeRuns({run_id(1): 10.0})
    looks = itertools.count()
    fake.mangle = lambda page: page_of([]) if next(looks) < 2 else page
    assert run(lambda: wait_for(poller(fake), run_id(1), poll_interval=interval)).is_completed


def test_short_page_is_continued() -> None:
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


def test_page_that_claims_to_be_cut_hides_no_missing_run() -> None:
    fake = FakeRuns({run_id(1): 1000.0})
    fake.mangle = lambda page: replace(page, has_more=True, continuation_token=50)

    async def main() -> float:
        shared = poller(fake)
        async with asyncio.TaskGroup() as group:
            other = group.create_task(wait_for(shared, run_id(1)))
            with pytest.raises(NotFoundError):
                await wait_for(shared, run_id(2))
            other.cancel()
        return fake.now()

    assert 15.0 <= run(main) <= 20.0
    assert len(fake.asked) <= 40


def test_a_foreign_run_on_a_page_does_no_harm() -> None:
    fake = FakeRuns({run_id(1): 5.0})
    fake.mangle = lambda page: page_of(
        [some_run(run_id(99), is_completed=True), *page.simulation_unit_test_set_runs]
    )
    assert run(lambda: wait_for(poller(fake), run_id(1))).id == run_id(1)


def test_pages_shrink_when_refused() -> None:
    fake = FakeRuns(dict.fromkeys(ids(40), 5.0))
    original = fake.look

    async def look(**filters: Any) -> RecordPage:
        if len(filters.get("id", ())) > 10:
            raise failure(BadRequestError, 414)
        return await original(**filters)

    async def main() -> None:
        shared = Poller(look, budget)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    run(main)
    assert max(len(asked) for _, asked, _ in fake.asked) == 10


# --- failures ---


@pytest.mark.parametrize("error", [NO_ANSWER, failure(ServerError, 503)])
def test_transient_failures_are_borne(error: AmigoError) -> None:
    fake = FakeRuns({run_id(1): 60.0})
    fake.errors = [error, None, error, error, None, error]
    assert run(lambda: wait_for(poller(fake), run_id(1))).is_completed


def test_five_minutes_of_outage_raise() -> None:
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


def test_outage_ends_with_an_answer() -> None:
    fake = FakeRuns({run_id(1): 1000.0, run_id(2): 1000.0})
    # Answers come for longer than the longest pause between two looks, so that one look sees them.
    fake.fails = lambda _: None if fake.now() % 280 < 2 * LONGEST else NO_ANSWER

    async def main() -> None:
        shared = poller(fake)
        await wait_for(shared, run_id(1))
        fake.fails = lambda _: NO_ANSWER  # from now on
        with pytest.raises(WaitTimeoutError):
            await wait_for(shared, run_id(2), timeout=10.0)
        await asyncio.sleep(1000.0)
        fake.fails = lambda _: None
        fake.errors = [NO_ANSWER, NO_ANSWER, NO_ANSWER]
        await wait_for(shared, run_id(2))

    run(main)


def test_one_dead_page_fails_its_waits() -> None:
    fake = FakeRuns(dict.fromkeys(ids(60), 10_000.0))
    fake.fails = lambda asked: NO_ANSWER if run_id(7) in asked else None

    async def main() -> float:
        shared = poller(fake)
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(wait_for(shared, i)) for i in ids(60) if i != run_id(7)]
            with pytest.raises(TransportError):
                await wait_for(shared, run_id(7))
            for other in others:
                assert not other.done()
                other.cancel()
        return fake.now()

    assert 60.0 <= run(main) <= 120.0


NOT_JSON = DecodeError("no JSON", method="GET", path="/", status=200)
TOO_LARGE = DecodeError("too large", method="GET", path="/", status=200, lasting=True)


@pytest.mark.parametrize(
    ("error", "bad"),
    [
        (failure(ServerError, 500), {7}),
        (failure(ServerError, 501), {7, 40}),
        (failure(NotFoundError, 404), {0, 1, 2}),
        (failure(BadRequestError, 422), {3, 14, 26, 37, 58}),
        (NO_ANSWER, {59}),
        (NOT_JSON, {7}),
        (TOO_LARGE, {7, 40}),
    ],
)
def test_poisoned_run_fails_its_waiter(error: AmigoError, bad: set[int]) -> None:
    poisoned = {run_id(n) for n in bad}
    fake = FakeRuns(dict.fromkeys(ids(60), 90.0))
    fake.fails = lambda asked: error if poisoned & set(asked) else None
    ended: dict[str, float] = {}

    async def one(shared: Poller, id: str) -> None:
        if id in poisoned:
            with pytest.raises(type(error)):
                await wait_for(shared, id)
        else:
            await wait_for(shared, id)
        ended[id] = fake.now()

    async def main() -> None:
        shared = poller(fake)
        await asyncio.gather(*(one(shared, i) for i in fake.ends))

    run(main)
    assert max(ended[i] for i in ended if i not in poisoned) <= 120.0
    assert all(60.0 <= ended[i] <= 150.0 for i in poisoned)
    # To find one takes two lists for each halving, and it is looked at now and then until it is
    # believed; with none, there are 2 lists a look.
    assert len(fake.asked) <= 110 + 50 * len(bad)
    assert len(fake.asked_whether_up) <= 12


def test_all_poisoned_keep_the_share() -> None:
    fake = FakeRuns(dict.fromkeys(ids(60), 1e4))
    fake.fails = lambda asked: failure(ServerError, 500) if asked else None

    async def main() -> list[object]:
        shared = poller(fake)
        return list(
            await asyncio.gather(*(wait_for(shared, i) for i in fake.ends), return_exceptions=True)
        )

    ends = run(main)
    assert all(isinstance(end, ServerError) for end in ends)
    assert fake.asked[-1][0] <= 600.0
    # 62 to take the pages apart, three looks at each alone.
    assert len(fake.asked) <= 62 * 2 + 60 * 4


def test_outage_costs_few_requests() -> None:
    fake = FakeRuns(dict.fromkeys(ids(60), 1e4))
    fake.fails = lambda _: failure(ServerError, 500) if fake.now() >= 20 else None

    async def main() -> float:
        shared = poller(fake)
        ends = await asyncio.gather(
            *(wait_for(shared, i) for i in fake.ends), return_exceptions=True
        )
        assert all(isinstance(end, ServerError) for end in ends)
        return fake.now()

    assert PATIENCE <= run(main) - 20 <= PATIENCE + 2 * LONGEST
    later = [at for at, *_ in fake.asked if at >= 20]
    assert len(later) <= 6
    assert len(fake.asked_whether_up) <= 320 / 2.4


def test_pages_grow_after_an_outage() -> None:
    fake = FakeRuns(dict.fromkeys(ids(60), 200.0))
    fake.fails = lambda _: failure(ServerError, 503) if 20 <= fake.now() < 100 else None

    async def main() -> None:
        shared = poller(fake)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    run(main)
    sizes = [len(asked) for at, asked, _ in fake.asked if 130 <= at < 195]
    assert sizes
    assert set(sizes) == {60}


@pytest.mark.parametrize("status", [400, 413, 414, 422, 431])
def test_pages_grow_after_a_refusal(status: int) -> None:
    fake = FakeRuns(dict.fromkeys(ids(40), 300.0))
    refused = [5]

    def fails(asked: tuple[str, ...]) -> AmigoError | None:
        if len(asked) > 1 and refused[0]:
            refused[0] -= 1
            return failure(BadRequestError, status)
        return None

    fake.fails = fails

    async def main() -> None:
        shared = poller(fake)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    random.seed(32)  # the halves of the page fall due at different times
    run(main)
    assert min(len(asked) for _, asked, _ in fake.asked) < 10
    assert {len(asked) for at, asked, _ in fake.asked if 200 < at < 295} == {40}


def test_interceptor_is_borne() -> None:
    fake = FakeRuns({run_id(1): 100.0})
    fake.fails = lambda _: NOT_JSON if 20 <= fake.now() < 70 else None
    assert run(lambda: wait_for(poller(fake), run_id(1))).is_completed


@pytest.mark.parametrize("error", [failure(NotFoundError, 404), failure(BadRequestError, 400)])
def test_refused_lists_fail_at_once(error: AmigoError) -> None:
    fake = FakeRuns(dict.fromkeys(ids(3), 1e4))
    fake.fails = lambda _: error

    async def main() -> float:
        shared = poller(fake)
        ends = await asyncio.gather(
            *(wait_for(shared, i) for i in fake.ends), return_exceptions=True
        )
        assert all(type(end) is type(error) for end in ends)
        return fake.now()

    assert run(main) < 1.0
    assert (len(fake.asked), len(fake.asked_whether_up)) == (1, 1)


def test_two_failures_prove_nothing() -> None:
    fake = FakeRuns({run_id(1): 500.0})
    fake.errors = [None, NO_ANSWER, NO_ANSWER]
    assert run(lambda: wait_for(poller(fake), run_id(1), poll_interval=400.0)).is_completed


def test_retry_after_is_obeyed() -> None:
    fake = FakeRuns({run_id(1): 60.0})
    busy = ServiceUnavailableError(method="GET", path="/", status=503, retry_after=30.0)
    fake.errors = [None, busy]
    run(lambda: wait_for(poller(fake), run_id(1)))
    times = [at for at, *_ in fake.asked]
    assert times[2] - times[1] >= 30.0


def test_failed_polls_emit_events() -> None:
    fake = FakeRuns({run_id(1): 30.0})
    fake.errors = [None, NO_ANSWER, NO_ANSWER]
    told: list[Event] = []

    async def main() -> None:
        await wait_for(Poller(fake.look, budget, emit=told.append), run_id(1))

    run(main)
    first, second = told
    assert isinstance(first, RequestRetried)
    assert isinstance(second, RequestRetried)
    assert (first.endpoint, first.attempt, second.attempt) == ("list", 1, 2)
    assert first.reason == str(NO_ANSWER)
    times = [at for at, *_ in fake.asked]
    assert first.delay == pytest.approx(times[2] - times[1])


# --- runs that cannot be read ---


def unreadable(fake: FakeRuns, old: bytes, new: bytes, *, until: float = math.inf) -> None:
    """Spoil the record of the first run."""

    def sent(body: bytes) -> bytes:
        head, found, tail = body.partition(b'"id":"' + run_id(0).encode())
        if not found or fake.now() >= until:
            return body
        return head + found + tail.replace(old, new, 1)

    fake.sent = sent


@pytest.mark.parametrize(
    ("old", "new", "said", "flags"),
    [
        (b'"is_completed":', b'"is_completed":null,"x":', "`$.is_completed`", False),
        (b'"failed_metrics":false', b'"failed_metrics":null', "`$.failed_metrics`", False),
        (b'"created_at":"', b'"created_at":"?', "`$.created_at`", False),
        (
            b'"unit_test_run_specs":[]',
            b'"unit_test_run_specs":[7]',
            "`$.unit_test_run_specs[0",
            True,
        ),
        (b'"unit_test_run_results":[]', b'"unit_test_run_results":1', "results`", True),
    ],
)
def test_unreadable_run_fails_its_waiter(old: bytes, new: bytes, said: str, flags: bool) -> None:
    fake = FakeRuns(dict.fromkeys(ids(3), 10.0))
    unreadable(fake, old, new)

    async def main() -> tuple[float, list[Any]]:
        shared = poller(fake)
        ends = await asyncio.gather(
            *(wait_for(shared, i) for i in fake.ends), return_exceptions=True
        )
        return fake.now(), list(ends)

    at, (bad, *good) = run(main)
    assert all(isinstance(end, Run) for end in good)
    assert isinstance(bad, DecodeError)
    assert said in str(bad)
    assert run_id(0) in str(bad)
    assert (bad.run is not None) == flags
    assert bad.run is None or bad.run.is_completed
    assert at <= 40.0


def test_readable_again_in_time() -> None:
    fake = FakeRuns({run_id(0): 10.0})
    unreadable(fake, b'"failed_metrics":false', b'"failed_metrics":null', until=18.0)
    assert run(lambda: wait_for(poller(fake), run_id(0))).is_completed


def test_deadline_names_decode_error() -> None:
    fake = FakeRuns({run_id(0): 1.0})
    unreadable(fake, b'"created_at":"', b'"created_at":"?')

    async def main() -> None:
        with pytest.raises(WaitTimeoutError, match=r"created_at") as caught:
            await wait_for(poller(fake), run_id(0), timeout=8.0)
        assert isinstance(caught.value.last_error, DecodeError)
        assert caught.value.last_run is None

    run(main)


def test_deadline_names_last_failure() -> None:
    fake = FakeRuns({run_id(1): 1000.0})

    async def main() -> None:
        shared = poller(fake)
        fake.errors = [None, *[NO_ANSWER] * 100]
        with pytest.raises(WaitTimeoutError, match="The last poll failed: GET / got") as caught:
            await wait_for(shared, run_id(1), timeout=20.0)
        assert isinstance(caught.value.last_error, TransportError)
        assert caught.value.last_run is not None
        fake.errors = [NO_ANSWER]
        with pytest.raises(WaitTimeoutError) as caught:
            await wait_for(shared, run_id(1), timeout=20.0)
        assert (caught.value.last_error, caught.value.last_errors) == (None, {})
        fake.errors = [NO_ANSWER] * 100
        with pytest.raises(WaitTimeoutError) as caught:
            async for _ in as_completed(shared, [run_id(1)], timeout=20.0):
                pass
        assert isinstance(caught.value.last_errors[run_id(1)], TransportError)

    run(main)


# --- ids that the service has sent ---


def test_odd_id_is_found_by_its_set() -> None:
    odd, other = "6618791275130b73714e8d9h", run_id(5)
    asked: list[Any] = []

    async def look(**filters: Any) -> RecordPage:
        asked.append(filters)
        if "id" in filters:
            raise ValidationError(method="GET", path="/", status=422)
        over = len(asked) > 3
        runs = [some_run(other), some_run(odd, is_completed=over, artifacts_generated=over)]
        return decode_record_page(msgspec.json.encode(page_of(runs)))

    async def main() -> Run:
        shared = Poller(look, budget, creator=CREATOR)
        with pytest.raises(ValidationError):  # as long as its set is not known
            await wait_for(shared, odd)
        assert [odd] in [filters.get("id") for filters in asked]
        # The others ask whether the service answers lists at all, and show no run.
        assert all(filters.get("id", [odd]) == [odd] for filters in asked)
        assert all("created_after" in filters for filters in asked if "id" not in filters)
        asked.clear()
        shared.expect(odd, "a" * 24)
        return await wait_for(shared, odd)

    assert run(main).id == odd
    assert asked[0]["simulation_unit_test_set_id"] == ["a" * 24]
    assert asked[0]["creator"] == CREATOR
    assert asked[0]["sort_by"] == "-created_at"


def test_odd_ids_share_a_page() -> None:
    odd = [f"{number:022x}zz" for number in range(3)]
    asked: list[tuple[str, ...]] = []

    async def look(**filters: Any) -> RecordPage:
        sets = filters["simulation_unit_test_set_id"]
        asked.append(tuple(sorted(sets)))
        shown = [odd[int(s, 16)] for s in sets]
        if len(shown) > 1 and odd[0] in shown:
            shown.remove(odd[0])
        over = len(asked) > 8
        runs = [some_run(i, is_completed=over, artifacts_generated=over) for i in shown]
        return decode_record_page(msgspec.json.encode(page_of(runs)))

    async def main() -> None:
        shared = Poller(look, budget)
        for number, odd_id in enumerate(odd):
            shared.expect(odd_id, run_id(number))
        await asyncio.gather(*(wait_for(shared, i) for i in odd))

    run(main)
    assert asked[:2] == [tuple(ids(3)), (run_id(0),)]
    assert set(asked) == {tuple(ids(3)), (run_id(0),)}


def test_odd_ids_that_are_missing_are_told() -> None:
    asked: list[float] = []

    async def look(**filters: Any) -> RecordPage:
        asked.append(asyncio.get_running_loop().time())
        return decode_record_page(msgspec.json.encode(page_of([])))

    async def main() -> list[object]:
        shared = Poller(look, budget)
        odd = [f"{number:022x}zz" for number in range(3)]
        for number, odd_id in enumerate(odd):
            shared.expect(odd_id, run_id(number))
        return list(
            await asyncio.gather(*(wait_for(shared, i) for i in odd), return_exceptions=True)
        )

    assert [type(end) for end in run(main)] == [NotFoundError] * 3
    assert 60.0 <= asked[-1] - asked[0] <= 75.0
    assert len(asked) <= 400


# --- who waits, and for what ---


def test_second_waiter_hastens_the_poll() -> None:
    fake = FakeRuns({run_id(1): 30.0})

    async def main() -> float:
        shared = poller(fake)
        patient = asyncio.create_task(wait_for(shared, run_id(1), poll_interval=1000.0))
        await asyncio.sleep(40.0)
        assert not patient.done()
        await wait_for(shared, run_id(1), poll_interval=2.0)
        hastened = fake.now()
        await patient
        return hastened

    assert run(main) <= 43.0


def test_new_waiter_polls_at_once() -> None:
    fake = FakeRuns({run_id(1): 5000.0, run_id(2): 0.0})

    async def main() -> None:
        shared = poller(fake)
        patient = asyncio.create_task(wait_for(shared, run_id(1), poll_interval=1000.0))
        await asyncio.sleep(40.0)
        await wait_for(shared, run_id(2))
        assert fake.now() <= 43.0
        await cancelled(patient)

    run(main)


def test_abandoned_runs_are_not_asked() -> None:
    fake = FakeRuns(dict.fromkeys(ids(100), 1000.0))
    fake.latency = 5.0

    async def main() -> None:
        shared = poller(fake)
        tasks = [asyncio.create_task(wait_for(shared, i)) for i in fake.ends]
        await asyncio.sleep(2.0)  # the first page is on its way, the second is not
        assert len(fake.asked) == 1
        for task in tasks[60:]:
            task.cancel()
        await asyncio.sleep(8.0)
        assert set(fake.asked[1][1]) == set(ids(60)[50:])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        asked = len(fake.asked)
        await asyncio.sleep(100.0)
        assert len(fake.asked) == asked

    run(main)


@pytest.mark.parametrize("error", [failure(ForbiddenError, 403), failure(AuthenticationError, 401)])
def test_lasting_error_ends_the_wait(error: AmigoError) -> None:
    fake = FakeRuns({run_id(1): 1000.0})
    fake.errors = [None, error]
    with pytest.raises(type(error)):
        run(lambda: wait_for(poller(fake), run_id(1)))
    assert len(fake.asked) == 2


def test_pollers_deadline_is_its_own() -> None:
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


def test_deadline_shows_the_last_run() -> None:
    fake = FakeRuns({run_id(1): 1000.0})

    async def main() -> float:
        with pytest.raises(WaitTimeoutError, match="not the runs") as caught:
            await wait_for(poller(fake), run_id(1), timeout=30.0)
        assert caught.value.run_id == run_id(1)
        assert caught.value.last_run is not None
        assert not caught.value.last_run.is_completed
        return fake.now()

    assert run(main) == pytest.approx(30.0, abs=0.1)


def test_as_completed_until_deadline() -> None:
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


def test_as_completed_raises_last() -> None:
    fake = FakeRuns({run_id(1): 50.0})
    seen: list[str] = []

    async def main() -> None:
        with pytest.raises(NotFoundError, match=run_id(7)) as caught:
            async for ended in as_completed(poller(fake), [run_id(7), run_id(8), run_id(1)]):
                seen.append(ended.id)
        assert run_id(8) in caught.value.__notes__[0]

    run(main)
    assert seen == [run_id(1)]


def test_leaving_as_completed_early() -> None:
    fake = FakeRuns(dict.fromkeys(ids(3), 10.0))

    async def main() -> None:
        shared = poller(fake)
        ended = as_completed(shared, fake.ends)
        async for _ in ended:
            break
        await ended.aclose()
        assert not shared._runs

    run(main)


def test_known_state_is_used() -> None:
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
def test_cancelled_poller_hands_over(during: str) -> None:
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
            if shared._turn is not None and i in shared._turn.run_ids
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
        assert not shared._runs
        assert shared._turn is None

    run(main)


def test_cancelled_at_any_step() -> None:
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
            assert not shared._runs
            assert not shared._sleeping
            assert shared._turn is None

        run(main)


def test_outer_timeout_is_not_ours() -> None:
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
        (lambda p: wait_for(p, run_id(1), timeout=True), "timeout must be seconds above 0"),
        (lambda p: wait_for(p, run_id(1), timeout=float("nan")), "timeout"),
        (lambda p: wait_for(p, run_id(1), poll_interval=-1), "poll_interval"),
        (lambda p: anext(as_completed(p, run_id(1))), "run_ids"),
    ],
)
def test_invalid_arguments(call: Any, named: str) -> None:
    fake = FakeRuns({run_id(1): 10.0})

    async def main() -> None:
        waiting: Awaitable[Any] = call(poller(fake))
        with pytest.raises(ArgumentError, match=named):
            await waiting

    run(main)
    assert fake.asked == []


def test_a_thousand_waiters() -> None:
    fake = FakeRuns(dict.fromkeys(ids(1_000), 900.0))

    async def main() -> None:
        shared = poller(fake, interval=300.0)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    run(main)
    first, second, third, *last = fake.ticks()
    assert 20 <= len(first) <= 24  # not all had come when the first look began
    for tick in (second, third):  # a fifth in any state, the rest only if they are completed
        assert [len(asked) for _, asked, _ in tick] == [50] * 4 + [200] * 4
        assert [done for _, _, done in tick] == [False] * 4 + [True] * 4
    assert len({i for tick in last for _, asked, _ in tick for i in asked}) == 1_000
    assert sum(map(len, last)) == 20  # 50 on each page, the rest of a page asked for at once
    assert last[-1][-1][0] - last[0][0][0] < 1.0


# --- a thousand at once ---


def thousand(count: int = 1_000) -> FakeRuns:
    """Runs of 20 to 60 minutes."""
    dice = random.Random(7)
    return FakeRuns({i: dice.uniform(1_200.0, 3_600.0) for i in ids(count)})


def noticed_after(fake: FakeRuns, **options: Any) -> list[float]:
    """How long after the end of each run its waiter returned, sorted."""
    late: list[float] = []

    async def main() -> None:
        shared = poller(fake)

        async def one(id: str) -> None:
            await wait_for(shared, id, **options)
            late.append(fake.now() - fake.ends[id])

        await asyncio.gather(*map(one, fake.ends))

    run(main)
    return sorted(late)


@pytest.mark.parametrize("progress", [False, True])
def test_ends_are_noticed_within_half_the_limit(progress: bool) -> None:
    fake = thousand()
    options: dict[str, Any] = {"on_progress": lambda _: None} if progress else {}
    late = noticed_after(fake, **options)
    assert late[500] <= 10.0
    assert late[-1] <= 30.0
    # Half of 50 a minute, but for the first look, which has to show all of them.
    assert len(fake.asked) - 20 <= 25 * fake.now_at_end() / 60


def test_every_run_is_asked_for_in_any_state() -> None:
    """Each two minutes at least, and never so many at once that ends are noticed late."""
    fake = thousand()
    noticed_after(fake)
    asked: dict[str, list[float]] = collections.defaultdict(list)
    for at, of, done in fake.asked:
        for i in () if done else of:
            asked[i].append(at)
    gaps = [
        after - before
        for i, times in asked.items()
        for before, after in itertools.pairwise([*times, fake.ends[i]])
    ]
    assert max(gaps) <= 120.0 + 20.0
    _, *later = fake.ticks()
    assert max(sum(not done for _, _, done in tick) for tick in later) <= 4


def test_absence_among_completed_runs_proves_nothing() -> None:
    fake = thousand(300)
    noticed_after(fake)  # nothing raised: most looks show no run in progress
    assert sum(done for _, _, done in fake.asked) > len(fake.asked) / 2


def test_a_lost_run_among_hundreds_is_told() -> None:
    fake = thousand(300)
    del fake.ends[run_id(7)]

    async def main() -> float:
        shared = poller(fake)
        shared.expect(run_id(7))
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(wait_for(shared, i)) for i in fake.ends]
            with pytest.raises(NotFoundError):
                await wait_for(shared, run_id(7))
            told = fake.now()
            for other in others:
                other.cancel()
        return told

    assert 60.0 <= run(main) <= 75.0


@pytest.mark.parametrize("status", [400, 413, 414, 422, 431])
def test_long_lists_are_refused(status: int) -> None:
    """The runs are asked for at once on shorter pages, and on long ones after ten minutes."""
    fake = FakeRuns(dict.fromkeys(ids(200), 1_500.0))
    refused: list[float] = []
    events: list[Event] = []

    def fails(asked: tuple[str, ...]) -> AmigoError | None:
        if len(asked) <= 50:
            return None
        refused.append(fake.now())
        return failure(APIError, status)

    fake.fails = fails

    async def main() -> None:
        shared = Poller(fake.look, budget, emit=events.append)
        await asyncio.gather(*(wait_for(shared, i) for i in fake.ends))

    run(main)
    assert len(refused) == 3
    gaps = [after - before for before, after in itertools.pairwise(refused)]
    assert all(600.0 <= gap <= 620.0 for gap in gaps)
    with_it = [tick for tick in fake.ticks() if any(len(asked) > 50 for _, asked, _ in tick)]
    for tick in with_it:
        short = [i for _, asked, _ in tick if len(asked) <= 50 for i in asked]
        assert sorted(short) == ids(200)
    assert [type(event) for event in events] == [RequestRetried] * 3
    later = [tick for tick in fake.ticks() if 100 < tick[0][0] < 600]
    gaps = [b[0][0] - a[0][0] for a, b in itertools.pairwise(later)]
    assert min(gaps) > 9.0  # four pages a look again, and half of the limit all the same


def test_a_long_list_that_fails_hurts_nobody() -> None:
    fake = FakeRuns(dict.fromkeys(ids(200), 600.0))
    fake.fails = lambda asked: failure(ServerError, 500) if run_id(3) in asked[50:] else None
    late = noticed_after(fake)
    assert late[-1] <= 30.0


def test_runs_that_wait_for_artifacts_leave_the_look_for_ends() -> None:
    fake = FakeRuns(
        {i: 50.0 if number < 60 else 500.0 for number, i in enumerate(ids(300))},
        artifacts_after=300.0,
    )
    done = noticed_after(fake, require_artifacts=True)
    assert 300.0 <= done[0] <= done[-1] <= 330.0
    ended = set(ids(60))
    for at, asked, only_completed in fake.asked:
        if 80 <= at < 350 and only_completed:
            assert not ended.intersection(asked)
