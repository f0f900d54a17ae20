"""The benchmarks measure what they say, judge it as they should, and are rendered in full."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import math
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import msgspec
import pytest

from amigo_async.testing import VirtualTimeLoop
from tests.support.needs import needs, needs_modules

needs_modules("aiobotocore", "distributed", "matplotlib", "numpy", "openai")

import numpy as np

from benchmarks import __main__ as program
from benchmarks import rules, stage, verdicts
from benchmarks.page import Measured
from benchmarks.peers import NAIVE, OURS

# The flags with which each benchmark is soon done.
_SHORT = ["--rounds", "1", "--shortest", "1", "--longest", "20"]
TINY = {
    "batch": [
        *("--sets", "2", "22", *_SHORT, "--peers", OURS, NAIVE),
        *("--order-sets", "22", "--order-seeds", "1"),
    ],
    "fault": ["--sets", "2", "12", *_SHORT, "--peers", OURS, NAIVE, "--faults", "0.4"],
    "full": ["--sets", "1", *_SHORT, "--peers", OURS],
    "call": ["--at-once", "2", "--calls", "4", "--rounds", "1", "--runs", "1"],
    "decode": ["--runs", "2", "--megabytes", "0.01", "--rounds", "1"],
    "download": [
        *("--size", "1", "--files", "4", "--connections", "2", "--delays", "4"),
        *("--places", "disk", "--contestants", OURS, "curl", "--rounds", "1"),
    ],
    "imports": ["--rounds", "1"],
    "large": [
        *("--sets", "2", "--tests", "2", "--repeats", "5", "--metrics", "1"),
        *("--length", "2", "--rounds", "1"),
    ],
    "verdicts": ["--comparisons", "2", "--seeds", "1", "--pairs", "2", "--large", "2"],
    "wait": ["--waiters", "60", "110", "--ticks", "1", "--rounds", "1", "--in-progress", "60"],
}

# Programs that Debian has.
PROGRAMS = {"download": {"nginx": "nginx-light", "curl": "curl"}}

# Benchmarks of which the smallest takes longer than all of these: clusters, real windows.
TOO_LONG = {"fleet", "replicas"}


@cache
def measured(name: str) -> Measured:
    """What the command of a benchmark writes."""
    module = importlib.import_module(f"benchmarks.{name}")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        if name == "full":
            patch.setattr(asyncio, "run", on_virtual_time)
        if name == "imports":
            patch.setattr(module, "IMPORTS", dict.fromkeys(module.IMPORTS, "import csv"))
        if hasattr(module, "ProcessPoolExecutor"):
            # Processes of their own are for figures that count; each takes a second to begin.
            patch.setattr(module, "ProcessPoolExecutor", in_a_thread)
        module.main([*TINY[name], "--json"])
    return msgspec.json.decode(out.getvalue(), type=Measured)


def on_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def in_a_thread(workers: int, **_: object) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers)


def rows_of(name: str, who: str) -> list[dict[str, str]]:
    """The rows of a contestant in the first table of a benchmark."""
    result = measured(name).result
    assert result is not None
    table = result.tables[0]
    return [dict(zip(table.head, row, strict=True)) for row in table.rows if who in row]


def test_every_benchmark_is_tried() -> None:
    files = program.HERE.glob("*.py")
    found = {file.stem for file in files if "    command.run(" in file.read_text(encoding="utf-8")}
    assert found == set(program.NAMES)
    assert found == {*TINY, *TOO_LONG}


@pytest.mark.parametrize("name", TINY)
def test_every_benchmark_measures(name: str) -> None:
    for found, package in PROGRAMS.get(name, {}).items():
        needs(found, f"{package}, with apt-get install")
    one = measured(name)
    result = one.result
    assert result is not None
    assert (one.name, result.name, one.failure) == (name, name, None)
    assert "not installed" not in one.packages.values()
    assert result.aims
    assert result.tables
    for table in result.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.head)}
        assert all(any(row) for row in table.rows)
    for plot in result.plots:
        assert any(curve.xs for curve in plot.curves)
        assert plot.name == plot.name.lower()
        for curve in plot.curves:
            assert len(curve.xs) == len(curve.ys)
            assert all(map(math.isfinite, curve.ys))


def test_who_keeps_the_limits() -> None:
    _, ours = rows_of("batch", OURS)
    _, naive = rows_of("batch", NAIVE)
    assert (ours["sets lost"], ours["refused (429)"]) == ("0", "0")
    assert float(ours["over the bound"]) < 1.5
    assert int(naive["refused (429)"]) > 0


def test_naive_loop_loses_runs() -> None:
    _, ours = rows_of("fault", OURS)
    _, naive = rows_of("fault", NAIVE)
    assert ours["sets lost, all rounds"] == "0 of 12"
    assert not naive["sets lost, all rounds"].startswith("0 ")


@pytest.mark.parametrize(
    ("lengths", "bound"),
    [([10.0], 10), ([10.0] * 20, 10), ([10.0] * 21, 70), ([200.0, *[10.0] * 20], 200)],
)
def test_bound_of_a_batch(lengths: list[float], bound: float) -> None:
    assert stage.bound(lengths) == bound + stage.ARTIFACTS_AFTER


def sample(before: list[str], after: list[str]) -> rules.Sample:
    """One comparison; each unit test has a string of repeats, ``+`` for one that passed."""
    baseline, candidate = (
        np.array([[[[sign == "+" for sign in signs] for signs in side]]])
        for side in (before, after)
    )
    return rules.Sample(baseline, candidate)


ALL = "+" * 10
SIX = "+" * 6 + "-" * 4


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ([ALL], [ALL], set()),
        # 7 of 10: a drop of 30 points, but p = 0.1. 6 of 10: p = 0.043, of which Bonferroni leaves
        # nothing among two. McNemar's mid-p of none gained and four lost is 0.0625, of five 0.031.
        ([ALL], ["+++++++---"], {rules.LOWER, rules.FIXED_RATE}),
        (
            [ALL],
            [SIX],
            {
                *(rules.OURS, rules.WHOLE, rules.HOLM, rules.FISHER, rules.N8N),
                *(rules.LOWER, rules.FIXED_RATE),
            },
        ),
        (
            [ALL, ALL],
            [SIX, ALL],
            {
                *(rules.OURS, rules.WHOLE, rules.FISHER, rules.N8N),
                *(rules.LOWER, rules.FIXED_RATE),
            },
        ),
        (
            [ALL],
            ["+++++-----"],
            {
                *(rules.OURS, rules.WHOLE, rules.HOLM, rules.FISHER, rules.N8N),
                *(rules.AGENT_EVALS, rules.LOWER, rules.FIXED_RATE),
            },
        ),
        # From less than 70% n8n calls nothing a regression.
        (
            [SIX],
            ["-" * 10],
            {
                *(rules.OURS, rules.WHOLE, rules.HOLM, rules.FISHER, rules.AGENT_EVALS),
                *(rules.LOWER, rules.FIXED_RATE),
            },
        ),
        # Better is not worse, and fewer than ten samples are too few for ai-agent-evals.
        (["-" * 10], [ALL], set()),
        (
            ["+" * 9],
            ["-" * 9],
            {
                *(rules.OURS, rules.WHOLE, rules.HOLM, rules.FISHER, rules.N8N),
                *(rules.LOWER, rules.FIXED_RATE),
            },
        ),
    ],
)
def test_rules_that_are_compared(before: list[str], after: list[str], says: set[str]) -> None:
    one = sample(before, after)
    assert {name for name, rule in rules.RULES.items() if rule(one).tolist() == [True]} == says


def test_simulated_repeats_have_the_rates_asked_for() -> None:
    cell = verdicts.Cell(
        tests=2, repeats=50, rate=0.9, comparisons=0, seed=0, worse_tests=1, worse=0.5, metrics=2
    )
    drawn = verdicts.draw(cell, 400, np.random.default_rng(1))
    assert drawn.baseline.shape == (2, 400, 2, 50)
    assert drawn.baseline.mean(axis=(1, 3)) == pytest.approx(np.full((2, 2), 0.9), abs=0.02)
    assert drawn.candidate.mean(axis=(0, 1, 3)) == pytest.approx([0.5, 0.9], abs=0.02)
    # Metrics of a conversation fail together: independent ones would both pass in 0.25.
    assert drawn.candidate.all(axis=0).mean(axis=(0, 2))[0] == pytest.approx(0.45, abs=0.02)


def test_simulated_runs_shift() -> None:
    def spread(effect: float) -> float:
        cell = verdicts.Cell(tests=40, repeats=50, rate=0.9, comparisons=0, seed=0, effect=effect)
        drawn = verdicts.draw(cell, 400, np.random.default_rng(1))
        return float(drawn.candidate.mean(axis=(0, 2, 3)).std())

    assert spread(0.0) == pytest.approx(math.sqrt(0.09 / 2000), rel=0.15)
    assert spread(0.2) == pytest.approx(0.0195, rel=0.15)


def test_gates_fail_as_counted() -> None:
    """At 0.9 and five repeats Wilson's limit fails in 8%, as 2 of 5 or fewer are called failed."""
    one = rules.gate_fails(0.9, 5, 1)
    assert one["Wilson's upper limit"] == pytest.approx(0.0815, abs=1e-4)
    assert one[rules.OURS] == pytest.approx(0.00856, abs=1e-5)
    assert one["fixed rate"] == pytest.approx(1 - 0.9**5)
    assert rules.gate_fails(0.9, 5, 20)["fixed rate"] == pytest.approx(1 - 0.9**100)
