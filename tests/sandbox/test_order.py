"""Longest first: sooner over under the documented limits, and with no other creates than before."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async import AmigoClient, ArgumentError, BatchResult
from amigo_async.report import to_json
from amigo_async.testing import Fault, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

COUNT = 60
WINDOW = 60.0


def lengths() -> list[float]:
    dice = random.Random(5)
    return [dice.uniform(30.0, 180.0) for _ in range(COUNT)]


def bound(seconds: list[float]) -> float:
    """The least that runs take that are started in this order, twenty a minute."""
    return max(n // 20 * WINDOW + length for n, length in enumerate(seconds))


BEST = bound(sorted(lengths(), reverse=True))
GIVEN = bound(lengths())


def add_sets(sandbox: Sandbox, *, sized: bool = False) -> list[str]:
    """Sets of these lengths, with repeats in proportion or all alike."""
    return [
        sandbox.add_set(
            SetPlan(seconds=seconds, unit_tests=1, repeats=round(seconds / 3) if sized else 3)
        )
        for seconds in lengths()
    ]


async def timed(client: AmigoClient, ids: list[str], **options: Any) -> tuple[BatchResult, float]:
    began = anyio.current_time()
    result = await client.run_many(ids, **options)
    assert [outcome.unit_test_set_id for outcome in result.outcomes] == ids
    assert result.passed
    return result, anyio.current_time() - began


def started(sandbox: Sandbox) -> list[str]:
    """The sets in the order in which they were started, of those that were started latest."""
    runs = sorted(sandbox.runs, key=lambda run: run.created_at)
    return [run.unit_test_set_id for run in runs[-COUNT:]]


def assert_longest_first(sandbox: Sandbox, ids: list[str]) -> None:
    """Window by window, as those of one start together.

    Sizes are of three seconds each, and an end is seen a few seconds later.
    """
    length = dict(zip(ids, lengths(), strict=False))
    order = [round(length[set_id] / 3) for set_id in started(sandbox)[-len(ids) :]]
    windows = [order[n : n + 20] for n in range(0, len(ids), 20)]
    assert all(min(early) >= max(late) - 2 for early, late in itertools.pairwise(windows))


async def test_what_this_process_has_seen() -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox)
        _, first = await timed(client, ids)
        assert GIVEN <= first <= GIVEN * 1.02
        assert started(sandbox)[:20] == ids[:20]  # nothing was known
        creates = sandbox.count("create")
        await anyio.sleep(WINDOW)
        _, second = await timed(client, ids)
        assert BEST <= second <= BEST * 1.02 < first - 50
        assert sandbox.count("create") - creates == creates == COUNT
        assert_longest_first(sandbox, ids)
        assert [r for r in sandbox.requests if r.status == 429] == []


@pytest.mark.parametrize("kind", ["result", "report", "journal"])
async def test_lengths_from(kind: str, tmp_path: Path) -> None:
    async with Sandbox(seed=3) as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox)
        result, _ = await timed(client, ids, journal=tmp_path / "j.jsonl")
    (tmp_path / "r.json").write_text(to_json(result))
    source: Any = {
        "result": result,
        "report": tmp_path / "r.json",
        "journal": str(tmp_path / "j.jsonl"),
    }[kind]
    async with Sandbox(seed=3) as sandbox, sandbox.client() as client:  # as another process
        assert add_sets(sandbox) == ids
        _, seconds = await timed(client, ids, lengths_from=source)
        assert BEST <= seconds <= BEST * 1.02
        assert_longest_first(sandbox, ids)


async def test_sizes_of_selected_sets() -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)
        await client.select_sets(*ids)
        asked = sandbox.count("unit_test_sets")
        _, seconds = await timed(client, ids)
        assert seconds <= BEST * 1.05
        assert sandbox.count("unit_test_sets") == asked
        assert_longest_first(sandbox, ids)


async def test_sizes_that_come_with_the_names() -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)
        _, seconds = await timed(client, ids, describe=True)
        assert seconds <= BEST * 1.05
        assert sandbox.count("unit_test_sets") == 3  # each set once
        # All but the first, which does not wait.
        assert started(sandbox)[0] == ids[0]
        by_length = [ids[n] for n in sorted(range(COUNT), key=lambda n: -lengths()[n])]
        assert set(started(sandbox)[:20]) <= {ids[0], *by_length[:20]}


async def test_sizes_of_the_latest_runs() -> None:
    """Runs are listed before the first create anyway: of fifty sets, at no further request."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)[:50]
        first = max(range(50), key=lambda n: lengths()[n])
        ids[0], ids[first] = ids[first], ids[0]  # the first one does not wait for the list
        for set_id in ids:
            sandbox.start_run(set_id)
        await anyio.sleep(600.0)
        await timed(client, ids)
        length = dict(zip(add_order(ids, first), lengths(), strict=False))
        order = [round(length[set_id] / 3) for set_id in started(sandbox)[-50:]]
        assert min(order[:20]) >= max(order[20:40])
        assert min(order[20:40]) >= max(order[40:])
        assert sandbox.count("unit_test_sets") == 0


def add_order(ids: list[str], first: int) -> list[str]:
    """The sets in the order in which they were added."""
    added = list(ids)
    added[0], added[first] = added[first], added[0]
    return added


async def test_first_create_waits_for_nothing() -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)
        await client.runs.list()  # signed in
        sandbox.fault("unit_test_sets", Fault.delay(30.0))
        began = sandbox.now()
        await timed(client, ids, describe=True)
        times = sorted(run.created_at.timestamp() - began for run in sandbox.runs)
        assert times[0] < 0.5
        assert 1.9 < times[1] <= times[19] < 2.5
        assert times[20] < WINDOW + 3
        assert started(sandbox)[:20] == ids[:20]


@pytest.mark.parametrize(
    "options", [{"order": "given"}, {"on_failure": "stop"}, {"on_failure": "cancel_rest"}], ids=str
)
async def test_order_as_given(options: dict[str, Any]) -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)
        await client.select_sets(*ids)
        await timed(client, ids, **options)
        assert [set(started(sandbox)[n : n + 20]) for n in (0, 20, 40)] == [
            set(ids[n : n + 20]) for n in (0, 20, 40)
        ]


async def test_one_window_stays_as_it_is() -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)[:20]
        await client.select_sets(*ids)
        await timed(client, ids)
        assert started(sandbox) == ids


async def test_resumed_runs_come_first(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = add_sets(sandbox, sized=True)
        await client.select_sets(*ids)
        options: dict[str, Any] = {"journal": tmp_path / "j.jsonl"}
        await client.run_many(ids, timeout=WINDOW / 2, **options)
        begun = {run.unit_test_set_id for run in sandbox.runs}
        assert len(begun) == 20
        await timed(client, ids, **options)
        assert len(sandbox.runs) == COUNT
        assert_longest_first(sandbox, ids)


async def test_a_file_that_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{}")
    async with Sandbox() as sandbox, sandbox.client() as client:
        ids = sandbox.add_sets(2)
        with pytest.raises(ArgumentError, match=r"lengths_from .* neither the JSON of a result"):
            await client.run_many(ids, lengths_from=tmp_path / "r.json")
        with pytest.raises(ArgumentError, match="lengths_from must be a path"):
            await client.run_many(ids, lengths_from=17)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="order must be one of 'auto', 'given'"):
            await client.run_many(ids, order="longest")  # type: ignore[arg-type]
        assert sandbox.requests == []
