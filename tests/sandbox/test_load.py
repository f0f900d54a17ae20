"""Thousands of sets in one batch, and batch after batch: nothing is lost and nothing grows.

The same with ten thousand sets is ``python -m benchmarks.load``, and in real time, for five minutes
and against another process, ``python -m benchmarks.soak``.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from amigo_async.testing import Sandbox, VirtualTimeLoop
from benchmarks import load, samples, soak
from benchmarks.samples import Bounds, Sample

OPTIONS = argparse.Namespace(
    seconds=1e9, rounds=9, sets=12, every=0.0, faults=0.2, seed=3, skip=True, serve=False
)


pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the system does not tell what a process holds"
)


def in_virtual_time(work: Any) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def test_many_sets_at_once() -> None:
    loaded = in_virtual_time(load.load(2_000, raised=True))
    assert loaded.problems == []
    # One create for each, two lists for fifty before, and some looks at forty pages: no more.
    assert 2_080 < loaded.requests < 2_600
    assert loaded.makespan < 200.0


def test_documented_limits_bound_a_batch() -> None:
    loaded = in_virtual_time(load.load(200, raised=False))
    assert loaded.problems == []
    assert loaded.makespan < 9 * 60.0 + 60.0 + 30.0
    assert loaded.refused == 0


def test_a_wrong_outcome_is_told() -> None:
    async def batch() -> list[str]:
        async with Sandbox(limits={"create": None}) as sandbox, sandbox.client() as client:
            asked = {sandbox.add_set(load._plan(number)): number for number in range(10)}
            result = await client.run_many(asked)
            assert load.wrong(sandbox, result, asked) == []
            turned = msgspec.structs.replace(result, outcomes=result.outcomes[::-1])
            shifted = {set_id: number + 1 for set_id, number in asked.items()}
            return load.wrong(sandbox, turned, asked) + load.wrong(sandbox, result, shifted)

    first, *others = in_virtual_time(batch())
    assert "in their order" in first
    assert len(others) == 3  # passed for failed, failed for errored, errored for passed


def test_repeated_batches_hold_no_memory() -> None:
    others = threading.active_count() - 1  # of the test runner
    kept = in_virtual_time(soak.soak(OPTIONS))
    bounds = dict(samples.bounds(OPTIONS.sets, served_here=True))
    threads = bounds["threads"]
    bounds["threads"] = msgspec.structs.replace(threads, most=(threads.most or 0) + others)
    assert kept.problems == []
    assert samples.exceeded(kept.samples, bounds) == []
    assert (kept.rounds, len(kept.samples)) == (9, 9)
    assert set(kept.verdicts) == {"passed"}


def held(count: int = 16) -> list[Sample]:
    """What a process holds that works round after round and keeps nothing."""
    usual = {"tasks": 1, "descriptors": 20, "connections": 5, "threads": 7}
    return [
        Sample(rounds=n, resident=50_000 + n % 7 * 300, objects=50_000 + n % 5 * 20, **usual)
        for n in range(1, count + 1)
    ]


def grown(name: str, by: float, *, after: int = 0) -> list[Sample]:
    return [
        msgspec.structs.replace(one, **{name: getattr(one, name) + int(max(0, n - after) * by)})
        for n, one in enumerate(held(80))
    ]


BOUNDS: Bounds = samples.bounds(60, served_here=False)


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("resident", 80.0),
        ("tasks", 0.05),
        ("descriptors", 1.0),
        ("connections", 0.5),
        ("threads", 0.1),
        ("objects", 20.0),
    ],
)
def test_steady_growth_is_found(name: str, by: float) -> None:
    (problem, *_) = samples.exceeded(grown(name, by), BOUNDS)
    assert problem.startswith(f"{name}: ")
    assert samples.slope(grown(name, by), name) == pytest.approx(by, rel=0.3, abs=0.05)


def test_early_growth_is_allowed() -> None:
    assert samples.exceeded(held(), BOUNDS) == []
    filled = [
        msgspec.structs.replace(one, resident=one.resident - max(0, 20 - n) * 1000)
        for n, one in enumerate(held(80))
    ]
    assert samples.exceeded(filled, BOUNDS) == []
    busy = [
        msgspec.structs.replace(one, connections=60 if n % 4 else 5)
        for n, one in enumerate(held(80))
    ]
    assert samples.exceeded(busy, BOUNDS) == []


def test_sudden_growth_is_found() -> None:
    many = msgspec.structs.replace(held()[-1], connections=101)
    assert "connections: 101" in samples.exceeded([*held(), many], BOUNDS)[0]


def test_a_few_samples_are_no_proof() -> None:
    assert samples.exceeded(held(3), BOUNDS) == ["3 samples tell nothing: let it go on for longer"]
    assert samples.table(held(3), BOUNDS) == ""
    assert samples.exceeded(held(4), BOUNDS) == []


def test_a_sample_sees_what_is_held() -> None:
    async def sampled() -> tuple[Sample, Sample]:
        before = samples.take(0)
        stop = threading.Event()
        waiting = asyncio.create_task(asyncio.sleep(1e9))
        thread = threading.Thread(target=stop.wait)
        thread.start()
        lists: list[list[int]] = [[] for _ in range(5_000)]
        async with Sandbox() as sandbox, sandbox.client() as client:
            await client.runs.list()
            after = samples.take(1)
        waiting.cancel()
        stop.set()
        thread.join()
        assert len(lists) == 5_000
        return before, after

    before, after = in_virtual_time(sampled())
    assert after.tasks - before.tasks == 1
    assert after.threads - before.threads == 1
    assert after.connections - before.connections == 1
    assert after.descriptors - before.descriptors >= 4  # two that listen, two ends
    assert after.objects - before.objects > 4_000
    assert after.resident > 10_000


def test_soak_says_what_was_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    kept = soak.Kept(samples=grown("tasks", 1.0), rounds=80)
    assert soak.tell(kept, OPTIONS)
    out = capsys.readouterr().out
    assert "NOT KEPT: tasks" in out
    assert "80 rounds of 12 sets" in out
    assert soak.tell(soak.Kept(samples=held(), rounds=16), OPTIONS) == []
    assert "All bounds are kept." in capsys.readouterr().out
