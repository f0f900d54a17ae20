"""The benchmarks measure what they say, judge it as they should, and are rendered in full."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from amigo_async.testing import VirtualTimeLoop
from benchmarks import __main__ as program
from benchmarks import batch, download, fault, figures, full, page, stage, wait
from benchmarks.fetchers import Spent
from benchmarks.figures import Aim, Curve, Plot, Result, Table
from benchmarks.page import Measured
from benchmarks.peers import NAIVE, OURS
from benchmarks.stage import Taken
from tests.support.needs import needs, needs_modules

needs_modules("aiobotocore", "distributed", "matplotlib", "openai")

# The flags with which each benchmark is soon done.
_SHORT = ["--rounds", "1", "--shortest", "1", "--longest", "20"]
TINY = {
    "batch": ["--sets", "2", "22", *_SHORT, "--peers", OURS, NAIVE],
    "fault": ["--sets", "2", "12", *_SHORT, "--peers", OURS, NAIVE, "--faults", "0.4"],
    "full": ["--sets", "1", *_SHORT, "--peers", OURS],
    "call": ["--at-once", "2", "--calls", "4", "--rounds", "1", "--runs", "1"],
    "decode": ["--runs", "2", "--megabytes", "0.01", "--rounds", "1"],
    "download": [
        *("--size", "1", "--files", "4", "--connections", "2", "--delays", "4"),
        *("--places", "disk", "--contestants", OURS, "curl", "--rounds", "1"),
    ],
    "imports": ["--rounds", "1"],
    "wait": ["--waiters", "60", "110", "--ticks", "1", "--rounds", "1"],
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
    assert float(ours["over the bound"]) < 1.1
    assert int(naive["refused (429)"]) > 0


def test_naive_loop_loses_runs() -> None:
    _, ours = rows_of("fault", OURS)
    _, naive = rows_of("fault", NAIVE)
    assert ours["sets lost, all rounds"] == "0 of 12"
    assert not naive["sets lost, all rounds"].startswith("0 ")


def taken(sets: int = 60, *, over: float = 1.01, **other: Any) -> Taken:
    facts: dict[str, Any] = {
        "who": OURS,
        "seed": 1,
        "bound": 300.0,
        "makespan": 300.0 * over,
        "requests": 250,
        "refused": 0,
        "lists": 120,
        "look": 2,
        "lost": 0,
        "abandoned": 0,
        "detection": [1.0],
        "delivery": [1.0],
        "cpu": 0.5,
        "errors": {},
    }
    return Taken(sets=sets, **{**facts, **other})


@pytest.mark.parametrize(
    ("rounds", "met"),
    [
        ([taken(), taken(over=1.015)], [True, True, True]),
        ([taken(over=1.03)], [False, True, True]),
        ([taken(), taken(240, over=1.03)], [False, True, True]),
        ([taken(), taken(refused=1)], [True, False, True]),
        ([taken(), taken(lost=1)], [True, True, False]),
        ([taken(who="another", lost=9, refused=9, over=9.0), taken()], [True, True, True]),
    ],
)
def test_aims_of_a_batch(rounds: list[Taken], met: list[bool]) -> None:
    assert [aim.met for aim in batch.aims(rounds)] == met


@pytest.mark.parametrize(
    ("pairs", "met"),
    [
        ([(taken(), taken(over=1.2))], [True, True]),
        ([(taken(), taken(over=1.4))], [False, True]),
        ([(taken(), taken()), (taken(), taken(lost=1))], [True, False]),
    ],
)
def test_aims_with_faults(pairs: list[fault.Pair], met: list[bool]) -> None:
    assert [aim.met for aim in fault.aims(pairs)] == met


@pytest.mark.parametrize(("waited", "met"), [(1.012, True), (1.03, False), (0.99, False)])
def test_simulated_and_real_agree(waited: float, met: bool) -> None:
    found = full.aims([(taken(), taken(over=waited))], judged=True)
    assert found[0].met is met


def test_costly_waiters_are_noticed() -> None:
    def some(waiters: int, tick: float, requests: float) -> wait.Taken:
        return wait.Taken(
            kind=wait.OURS, waiters=waiters, requests=requests, tick=tick, whole=tick, memory=1.0
        )

    flat = [some(100, 2e-6, 2), some(1_000, 2e-6, 20)]
    assert [aim.met for aim in wait.aims(flat)] == [True, True]
    assert [aim.met for aim in wait.aims([*flat, some(10_000, 4e-6, 201)])] == [False, False]


@pytest.mark.parametrize(
    ("delay", "ours", "theirs", "met"),
    [
        (0.0, 1.04, {"curl": 1.0}, True),
        (0.0, 1.07, {"curl": 1.0}, False),
        (0.0, 1.0, {"curl": 1.0, "aria2": 0.5}, True),
        (0.02, 1.0, {"curl": 1.0, "aria2": 1.2}, True),
        (0.02, 1.0, {"curl": 1.2, "aria2": 0.9}, False),
    ],
)
def test_downloads_against_curl(
    delay: float, ours: float, theirs: dict[str, float], met: bool
) -> None:
    case = download.Case(("large.zip",), 10, "disk", delay, 1)
    taken = [
        download.Taken(who=who, case=case, spent=Spent(seconds, 0.0), whole=Spent(9.0, 0.0))
        for who, seconds in {OURS: ours, **theirs}.items()
    ]
    assert [aim.met for aim in download.aims(taken)] == [met]


@pytest.mark.parametrize(
    ("lengths", "bound"),
    [([10.0], 10), ([10.0] * 20, 10), ([10.0] * 21, 70), ([200.0, *[10.0] * 20], 200)],
)
def test_bound_of_a_batch(lengths: list[float], bound: float) -> None:
    assert stage.bound(lengths) == bound + stage.ARTIFACTS_AFTER


@pytest.mark.parametrize(
    ("points", "exponent"),
    [
        ([(1, 3.0), (10, 300.0)], 2.0),
        ([(10, 5.0), (100, 5.0), (1_000, 5.0)], 0.0),
        ([(10, 4.0), (10, 6.0)], None),
        ([(10, 0.0), (20, 0.0)], None),
    ],
)
def test_growth_is_an_exponent(points: list[tuple[float, float]], exponent: float | None) -> None:
    assert figures.exponent(points) == (None if exponent is None else pytest.approx(exponent))


def test_curve_of_medians() -> None:
    found = figures.curve("x", [(20, 8.0), (10, 1.0), (10, 3.0), (10, 2.0)], grown=15)
    assert found == Curve("x", [10, 20], [2.0, 8.0], [1.0, 8.0], [3.0, 8.0], None)


@pytest.mark.parametrize(
    ("values", "text"), [([1.0, 3.0, 2.0], "2.0 (1.0 to 3.0)"), ([1.01, 1.02], "1.0")]
)
def test_a_median_comes_with_its_spread(values: list[float], text: str) -> None:
    assert figures.spread(values) == text


PLOT = Plot(
    "time",
    "Time",
    "sets",
    "time (s)",
    [
        Curve("ours", [10, 100], [1.0, 10.0], [0.9, 9.0], [1.1, 11.0], 1.0),
        Curve("theirs", [10, 100], [2.0, 200.0], exponent=2.0),
    ],
)
ONE = Measured(
    name="batch",
    result=Result(
        name="batch",
        measures="What a batch takes.",
        conditions="On a Tuesday.",
        tables=[Table(["who", "time (s)"], [["ours", "1.0"], ["theirs", "200.0"]], "Times")],
        aims=[Aim("fast", "1.0", True), Aim("cheap", "9", False), Aim("good", "n/a", None)],
        notes=["Lost: nothing."],
        plots=[PLOT],
    ),
    machine={"processor": "abacus", "load": "0.1"},
    packages={"peer": "1.2"},
    date="2026-01-02",
    seconds=3.0,
)
OTHER = replace(ONE, name="wait", machine={"processor": "abacus", "load": "0.9"}, quick=True)
FAILED = Measured(
    name="fault", result=None, date="2026-01-02", seconds=1.0, failure="exit status 3"
)


def test_page_of_results() -> None:
    text = page.whole([ONE, FAILED, OTHER])
    assert "- processor: abacus" in text
    assert "- load" not in text  # differs, and is told of each
    assert text.count("## ") == 3
    for wanted in (
        "| who | time (s) |\n| --- | ---: |\n| ours | 1.0 |\n| theirs | 200.0 |",
        "**Times**",
        "| [batch](#batch) | cheap | 9 | **missed** |",
        "| [batch](#batch) | fast | 1.0 | met |",
        "| [batch](#batch) | good | n/a | not measured |",
        "| [fault](#fault) |  |  | **failed** |",
        "Failed: exit status 3.",
        "![Time](plots/batch-time.svg)",
        "- Lost: nothing.",
        "Measured on 2026-01-02 in 3 s; peer 1.2, load 0.1.",
        "(quick: small sizes, few rounds); peer 1.2, load 0.9.",
    ):
        assert wanted in text


def test_plots_are_reproducible(tmp_path: Path) -> None:
    from benchmarks import plots  # noqa: PLC0415  # needs matplotlib

    drawn = []
    for number, plot in enumerate([PLOT, PLOT, replace(PLOT, curves=PLOT.curves[:1])]):
        target = tmp_path / f"{number}.svg"
        plots.draw(plot, target)
        drawn.append(target.read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]
    text = drawn[0].decode()
    assert ET.fromstring(text).tag.endswith("svg")
    assert not re.search(r"20\d\d-\d\d-\d\d", text)
    assert "fill: #ffffff" in text  # a ground of its own


def test_results_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(name: str, passed: Sequence[str], *, quick: bool) -> Measured:
        ran.append(name)
        return replace(OTHER, date="2026-03-04")

    monkeypatch.setattr(program, "run", run)
    kept, single = tmp_path / "all.json", tmp_path / "batch.json"
    kept.write_bytes(msgspec.json.encode([ONE, FAILED, OTHER]))
    single.write_bytes(msgspec.json.encode(replace(ONE, date="2026-02-03")))
    again = ["--from-json", str(kept), str(single), "--output", str(tmp_path)]
    (tmp_path / "plots").mkdir()
    stale = tmp_path / "plots" / "gone.svg"
    stale.touch()

    assert program.main(again) == 0
    assert ran == []
    text = (tmp_path / "RESULTS.md").read_text()
    assert re.findall(r"Measured on (\S+) ", text) == ["2026-02-03", "2026-01-02"]
    assert not stale.exists()
    for linked in re.findall(r"\((plots/\S+)\)", text):
        assert (tmp_path / linked).stat().st_size > 1_000

    assert program.main([*again, "wait", "--json", str(kept)]) == 0
    assert ran == ["wait"]
    assert [(o.name, o.date) for o in program.read(kept)] == [
        ("batch", "2026-02-03"),
        ("fault", "2026-01-02"),
        ("wait", "2026-03-04"),
    ]


def test_failing_benchmark_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "NAMES", ("none_such", "wait"))
    monkeypatch.setattr(program, "flags", lambda _: TINY["wait"])
    assert program.main(["--output", str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert "No module named benchmarks.none_such" in said
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Failed: exit status 1." in text
    assert "ceil(N / 50) requests a tick" in text
