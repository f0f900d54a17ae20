"""Which run is that of a lost create: what was listed before and after it decides, and no clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from amigo_async.models import Run, UserInfo
from amigo_async.starting.fence import Ambiguous, Choice, Fence, Search, Take, choose, fences_of
from tests.unit.fake_runs import CREATOR, EPOCH, run_id, some_run

SET, OTHER_SET = run_id(0xABC), run_id(0xDEF)


def at(seconds: float, number: int, *, over: bool = True, **fields: Any) -> Run:
    """Run `number` of the set, created so many seconds after the epoch."""
    created_at = EPOCH + timedelta(seconds=seconds)
    return some_run(run_id(number), created_at=created_at, is_completed=over, **fields)


def named(choice: Choice) -> object:
    """The number of the run that is taken, the numbers of the candidates, or None."""
    if isinstance(choice, Ambiguous):
        return [int(run.id, 16) for run in choice.runs]
    return None if choice is None else int(choice.run.id, 16)


KNOWN = Fence((run_id(1), run_id(2)))
CUT = Fence((run_id(2),), EPOCH)
STRANGER = UserInfo("acme", "somebody-else")


@pytest.mark.parametrize(
    ("fence", "run", "fresh"),
    [
        (Fence(), at(-1e6, 9), True),
        (KNOWN, at(0, 1), False),
        (KNOWN, at(1e6, 2), False),
        (KNOWN, at(-1e6, 9), True),
        (CUT, at(0.001, 9), True),
        (CUT, at(0, 9), False),
        (CUT, at(-1, 9), False),
        (CUT, at(5, 2), False),
    ],
)
def test_which_runs_are_fresh(fence: Fence, run: Run, fresh: bool) -> None:
    assert fence.is_fresh(run) == fresh


def test_fence_of_a_list() -> None:
    runs = [at(5, 1), at(3, 2), at(4, 3, simulation_unit_test_set_id=OTHER_SET)]
    hidden = at(-50, 4, over=False)
    ids, others = (run_id(1), run_id(2), run_id(4)), (run_id(3),)
    whole = fences_of([SET, OTHER_SET], [*runs, hidden])
    assert whole == {SET: Fence(ids), OTHER_SET: Fence(others)}
    cut = fences_of([SET, OTHER_SET], [*runs, hidden], runs)
    reach = EPOCH + timedelta(seconds=3)
    assert cut == {SET: Fence(ids, reach), OTHER_SET: Fence(others, reach)}
    assert fences_of([SET], []) == {SET: Fence()}


FENCED = Search(SET, CREATOR, KNOWN)
RESUMED = replace(FENCED, resumed=True)
UNKNOWN = replace(FENCED, creator=None)
OPEN = Search(SET, CREATOR, None, EPOCH)
OPEN_RESUMED = replace(OPEN, resumed=True)
OPEN_UNKNOWN = replace(OPEN, creator=None)
TIMELESS = replace(OPEN, since=None)


@pytest.mark.parametrize(
    ("search", "runs", "now", "finally_"),
    [
        # The fence tells.
        pytest.param(FENCED, [], None, None, id="nothing"),
        pytest.param(FENCED, [at(0, 1), at(1, 2, over=False)], None, None, id="only on the fence"),
        pytest.param(FENCED, [at(9, 3), at(0, 1)], 3, 3, id="one, over"),
        pytest.param(FENCED, [at(9, 3, over=False)], 3, 3, id="one, not over"),
        pytest.param(FENCED, [at(-1e6, 3)], 3, 3, id="one, by a clock that is behind"),
        pytest.param(FENCED, [at(99, 4, over=False), at(9, 3)], 3, 3, id="the earliest"),
        pytest.param(FENCED, [at(9, 4), at(9, 3)], 3, 3, id="two of one moment"),
        pytest.param(FENCED, [at(9, 3, creator=STRANGER)], None, None, id="another user's"),
        pytest.param(
            FENCED, [at(9, 3, simulation_unit_test_set_id=OTHER_SET)], None, None, id="another set"
        ),
        pytest.param(FENCED, [at(8, 7), at(9, 3)], 3, 3, id="the first is another call's"),
        # Resumed: others may have started runs since.
        pytest.param(RESUMED, [at(9, 3)], 3, 3, id="resumed, one"),
        pytest.param(RESUMED, [at(69, 4), at(9, 3)], 3, 3, id="resumed, a minute apart"),
        pytest.param(RESUMED, [at(68, 4), at(9, 3)], [3, 4], [3, 4], id="resumed, close together"),
        pytest.param(
            RESUMED, [at(200, 5), at(199, 4), at(9, 3)], 3, 3, id="resumed, later ones close"
        ),
        # Without a known user nothing is taken.
        pytest.param(UNKNOWN, [at(9, 3)], [3], [3], id="no user, one"),
        pytest.param(UNKNOWN, [at(0, 1)], None, None, id="no user, on the fence"),
        # Without a fence.
        pytest.param(OPEN, [at(9, 3, over=False)], 3, 3, id="open, unfinished"),
        pytest.param(OPEN, [at(-999, 3, over=False)], 3, 3, id="open, unfinished and old"),
        pytest.param(OPEN, [at(9, 3)], None, [3], id="open, over"),
        pytest.param(OPEN, [at(0, 3)], None, [3], id="open, over and just in time"),
        pytest.param(OPEN, [at(-1, 3)], None, None, id="open, over and older"),
        pytest.param(OPEN, [at(9, 4, over=False), at(5, 3)], 4, 4, id="open, both"),
        pytest.param(TIMELESS, [at(-1e6, 3)], None, [3], id="no time, over"),
        pytest.param(OPEN_RESUMED, [at(9, 3, over=False)], 3, 3, id="open, resumed, unfinished"),
        pytest.param(
            OPEN_RESUMED, [at(9, 4, over=False), at(5, 3)], None, [3, 4], id="open, resumed, both"
        ),
        pytest.param(OPEN_UNKNOWN, [at(9, 3, over=False)], None, [3], id="open, no user"),
    ],
)
def test_which_run_is_taken(search: Search, runs: list[Run], now: object, finally_: object) -> None:
    others = [run_id(7)]
    assert named(choose(search, runs, others=others)) == now
    assert named(choose(search, reversed(runs), others=others, final=True)) == finally_


def test_earliest_is_unknown_in_a_part() -> None:
    assert named(choose(RESUMED, [at(9, 3)], complete=False)) == [3]
    assert isinstance(choose(FENCED, [at(9, 3)], complete=False), Take)


@pytest.mark.parametrize(
    ("search", "newest", "answered"),
    [
        (OPEN, [at(9, 3)], True),
        (FENCED, [at(9, 3)], False),
        (FENCED, [at(9, 3), at(0, 1)], True),
        (replace(FENCED, fence=CUT), [at(9, 3), at(1, 4)], False),
        (replace(FENCED, fence=CUT), [at(9, 3), at(0, 4)], True),
    ],
)
def test_pages_read_up_to_the_fence(search: Search, newest: list[Run], answered: bool) -> None:
    assert search.is_answered_by(newest) == answered
