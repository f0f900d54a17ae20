"""Hundreds of sets in one batch, and batch after batch: nothing is lost and nothing grows.

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

from amigo_async.testing import VirtualTimeLoop
from benchmarks import load, samples, soak

OPTIONS = argparse.Namespace(
    seconds=1e9, rounds=9, sets=3, every=0.0, faults=0.2, seed=3, skip=True, serve=False
)


pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the system does not tell what a process holds"
)


def in_virtual_time(work: Any) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def test_many_sets_at_once() -> None:
    loaded = in_virtual_time(load.load(500, raised=True))
    assert loaded.problems == []
    # One create for each, two lists for fifty before, and some looks at ten pages: no more.
    assert 520 < loaded.requests < 660
    assert loaded.makespan < 200.0


def test_documented_limits_bound_a_batch() -> None:
    loaded = in_virtual_time(load.load(100, raised=False))
    assert loaded.problems == []
    assert loaded.makespan < 4 * 60.0 + 60.0 + 30.0
    assert loaded.refused == 0


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
