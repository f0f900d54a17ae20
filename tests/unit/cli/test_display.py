from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from amigo_async import report
from amigo_async.batch.outcomes import UNEXPLAINED, VERDICT_WORDS
from amigo_async.cli import live, plain
from amigo_async.cli.live import LiveView, choose, frame
from amigo_async.cli.progress import BatchProgress
from amigo_async.cli.reasons import LABELS
from amigo_async.events import (
    ArtifactProgress,
    NamesRead,
    RequestRetried,
    RunFinished,
    RunProgressed,
    RunStarted,
    SignedIn,
    StartUnresolved,
)
from amigo_async.names import Names
from amigo_async.ratelimit import BudgetState
from amigo_async.report.html import MARKS as HTML_MARKS
from amigo_async.report.markdown import MARKS as MARKDOWN_MARKS
from amigo_async.verdicts.gate import Verdict
from tests.unit.cli.cli_samples import batch_progress, budget, outcome, run, some_id


def drawn(
    progress_: BatchProgress,
    *,
    budgets: dict[str, BudgetState] | None = None,
    notices: Sequence[str] = (),
    height: int = 24,
    width: int = 80,
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    with console.capture() as capture:
        console.print(frame(progress_, budgets or {}, notices, height, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_endless_terminal_is_not_filled() -> None:
    """Some say that they have 65,535 columns and lines; a drawing must not take seconds."""
    file = io.StringIO()
    sets, _ = batch_progress(1000)
    console = Console(file=file, width=65_535, height=65_535, force_terminal=True)
    view = LiveView(sets, dict, console)
    view.refresh()
    view.close()
    assert some_id(1) in file.getvalue()
    assert "more: " in file.getvalue()
    assert len(file.getvalue()) < 300_000


@pytest.mark.parametrize(("dumb", "shown"), [(False, 1), (True, 0)])
def test_cursor_is_shown_after_half_a_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dumb: bool, shown: int
) -> None:
    """A signal may end the process while the lines are drawn."""
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    path = tmp_path / "terminal"
    with path.open("w") as file:
        console = Console(file=file, force_terminal=True)
        view = LiveView(batch_progress(2)[0], dict, console)
        with console:
            view.close()
            assert path.read_text().count("\x1b[?25h") == shown


def line_of(lines: list[str], number: int) -> str:
    return next(line for line in lines if some_id(number) in line)


def go(progress_: BatchProgress, number: int, *, done: int = 1, verdict: str | None = None) -> None:
    """Start a set, and let it progress or finish."""
    set_id, run_id = some_id(number), some_id(0xA0 + number)
    progress_.on_event(RunStarted(set_id, run_id))
    progress_.on_event(
        RunProgressed(set_id, run_id, done, 8, verdict == "failed", verdict == "errored")
    )
    if verdict is not None:
        progress_.on_event(RunFinished(set_id, run_id, verdict))
        progress_.finish(set_id, outcome(verdict, number, run=run()))


def test_line_of_a_set() -> None:
    sets, clock = batch_progress(6, fetches=True)
    go(sets, 1, done=3)
    progress_event = RunProgressed(some_id(2), some_id(0xA2), 4, 8, True, False)
    go(sets, 2)
    sets.on_event(progress_event)
    go(sets, 3, verdict="passed")
    go(sets, 4)
    sets.on_event(RunFinished(some_id(4), some_id(0xA4), "passed"))
    go(sets, 5)
    sets.on_event(RunFinished(some_id(5), some_id(0xA5), "passed"))
    sets.on_event(ArtifactProgress(some_id(0xA5), 2 << 20, 4 << 20))
    clock.time += 72
    lines = drawn(sets)
    assert lines[0].startswith("1:12  1 of 6 done, 2 fetching, 2 running, 1 waiting")
    assert lines[0].endswith("✓ 1")
    assert line_of(lines, 0).split() == ["·", "waiting", some_id(0)]
    running = line_of(lines, 1).split()
    assert (*running[:3], *running[-2:]) == ("●", "running", some_id(1), "3/8", "1:12")
    assert "failing" in line_of(lines, 2)
    passed = line_of(lines, 3).split()
    assert (*passed[:2], *passed[-2:]) == ("✓", "passed", "2/2", "0:00")
    assert line_of(lines, 4).split()[1:] == ["fetching", some_id(4), "artifact", "0:00"]
    assert "2.0 MiB" in line_of(lines, 5)


@pytest.mark.parametrize(
    ("width", "rest"),
    [(40, []), (80, ["3/8", "0:05"]), (120, [some_id(1), "3/8", "0:05"])],
)
def test_names_come_first(width: int, rest: list[str]) -> None:
    sets, clock = batch_progress()
    sets.on_event(NamesRead({some_id(1): "Refund policy of the northern shops"}, {}, {}))
    go(sets, 1)
    sets.on_event(RunProgressed(some_id(1), some_id(0xA1), 3, 8, False, False))
    clock.time += 5
    lines = drawn(sets, width=width)
    [line] = [line for line in lines if "Refund" in line]
    state, name, others = re.split("(Refund policy of the n[^…]*…)", line)
    assert state.split() == ["●", "running"]
    assert len(name) >= len("Refund policy of the n…")
    assert len(line) <= width
    assert re.sub("[━╸╺]", " ", others).split() == rest
    assert any(some_id(2) in line for line in lines)


def test_service_names_are_inert() -> None:
    sets, _ = batch_progress(1)
    odd = "[red]x[/red] \x1b[2J\n::error::y \ud83d " + "long " * 999
    sets.on_event(NamesRead({some_id(0): odd}, {}, {}))
    row = sets.rows[some_id(0)]
    assert row.label.startswith("[red]x[/red] \ufffd[2J : :error::y \ufffd long ")
    assert len(row.title) < 200
    for width in (40, 80, 200):
        lines = drawn(sets, width=width)
        assert all(line.isprintable() and len(line) <= width for line in lines)
        assert any("[red]x[/red]" in line for line in lines)


def test_runs_are_named_by_their_sets() -> None:
    runs, _ = batch_progress(2, are_runs=True)
    runs.on_event(RunProgressed(some_id(77), some_id(0), 1, 2, False, False))
    runs.learn(Names({some_id(77): "Refund policy"}))
    runs.on_event(RunFinished(some_id(77), some_id(1), "passed"))
    assert [row.label for row in runs.rows.values()] == ["Refund policy"] * 2


@pytest.mark.parametrize("count", [60, 500])
def test_many_sets_fit_on_24_lines(count: int) -> None:
    sets, _ = batch_progress(count)
    waiting = {"create": budget(waiting=9, opens_in=10.0)}
    for stage in range(0, count, 7):
        for number in range(stage, stage + 7):
            go(sets, number % count, verdict="passed" if stage % 2 else None)
        lines = drawn(sets, budgets=waiting, notices=["Stopping"])
        assert len(lines) <= 23
        assert any(line.startswith("and ") and " more: " in line for line in lines)


def test_active_and_failed_sets_come_first() -> None:
    sets, clock = batch_progress(40)
    for number, verdict in enumerate(["passed", "failed", None, "errored", None, "passed"]):
        clock.time += 1
        go(sets, number, verdict=verdict)
    shown = [row.key for row in choose(list(sets.rows.values()), 5)]
    assert shown == [some_id(n) for n in (1, 2, 3, 4, 6)]


def test_the_rest_is_counted() -> None:
    sets, _ = batch_progress(30)
    go(sets, 0, verdict="failed")
    go(sets, 1, verdict="passed")
    lines = drawn(sets, height=14)
    assert "and 25 more: 24 waiting, 1 passed" in lines


def test_tiny_terminal_gets_a_summary() -> None:
    sets, _ = batch_progress(30)
    assert drawn(sets, height=3)[0].startswith("0:00  0 of 30 done, 30 waiting")


def test_budgets_and_waits() -> None:
    budgets = {
        "sign_in": budget("sign_in", limit=5, remaining=None, turns_in=None),
        "list": budget("list", limit=50, remaining=40, turns_in=None),
        "create": budget(waiting=7, opens_in=8.2, turns_in=8.2),
        "evaluations": budget("evaluations", limit=10, remaining=1, turns_in=None),
    }
    lines = drawn(batch_progress()[0], budgets=budgets)
    line = "requests left  create 0/20 (8 s)  evaluations 1/10  list 40/50  sign in ?/5"
    assert line in lines  # the scarcest first, as a narrow terminal cuts the end
    [held] = [line for line in lines if "waiting for the rate limit" in line]
    assert held.startswith("create: 7 requests waiting for the rate limit of 20, until ")


@pytest.mark.parametrize(
    ("remaining", "opens_in", "said"),
    [
        (0, 8.0, "create: 7 requests waiting for the rate limit of 20, until 12:00:00 (in 8 s)"),
        (None, 8.0, "create: 7 requests waiting for the rate limit of 20, until 12:00:00 (in 8 s)"),
        (6, 0.0, "create: 7 requests waiting; most of the 6 left are kept for other processes"),
        (
            *(6, 8.0),
            (
                "create: 7 requests waiting until 12:00:00 (in 8 s): the service refused one, "
                "although it had 6 left"
            ),
        ),
    ],
)
def test_a_wait_says_why_although_some_are_left(
    remaining: int | None, opens_in: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "clock", lambda _: "12:00:00")
    state = budget(waiting=7, remaining=remaining, opens_in=opens_in)
    assert plain.rate_limit_wait("create", state) == said


def test_forty_columns_show_verdicts() -> None:
    sets, _ = batch_progress(2)
    go(sets, 0, verdict="failed")
    lines = drawn(sets, width=40)
    assert lines[0].endswith("✗ 1")
    assert any(line.split()[:2] == ["✗", "failed"] for line in lines)
    assert max(map(len, lines)) <= 40


def test_notices_go_before_the_waits() -> None:
    budgets = {"create": budget(waiting=1, opens_in=5.0)}
    lines = drawn(batch_progress()[0], budgets=budgets, notices=["one", "two"])
    assert lines[-2:] == ["one", "two"]


def test_every_verdict_has_a_style() -> None:
    for verdict in LABELS:
        sets, _ = batch_progress(1)
        sets.finish(some_id(0), outcome(verdict))
        assert LABELS[verdict] in line_of(drawn(sets), 0)


def test_foreign_events_are_ignored() -> None:
    sets, _ = batch_progress(1)
    sets.on_event(RunStarted(some_id(99), some_id(98)))
    sets.on_event(SignedIn(3600.0))
    assert sets.stages() == {"queued": 1}


def test_progress_of_runs() -> None:
    runs, clock = batch_progress(2, are_runs=True)
    runs.on_event(RunProgressed(some_id(77), some_id(0), None, None, False, False))
    clock.time += 5
    lines = drawn(runs)
    assert line_of(lines, 0).split()[-1] == "0:05"
    assert runs.stages() == {"running": 2}


def test_progress_keeps_unresolved_starts() -> None:
    sets, _ = batch_progress(1)
    go(sets, 0)
    unresolved = StartUnresolved(some_id(0), "no answer")
    sets.on_event(unresolved)
    assert sets.unresolved == [unresolved]


class Screen:
    """What a live view has written, and the view."""

    def __init__(self, **options: Any) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=80, height=24, **options)
        self.progress, self.clock = batch_progress(3)
        self.view = LiveView(self.progress, dict, self.console)

    def last(self) -> str:
        text = self.file.getvalue()
        self.file.truncate(0)
        return text


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.view.close()


def test_a_retry_is_shown_for_a_while(screen: Screen) -> None:
    screen.view.on_event(RequestRetried("list", 1, 1.0, "reset"))
    screen.view.refresh()
    assert "list failed and is retried: reset" in screen.last()
    screen.clock.time += 4
    screen.view.refresh()
    assert "is retried" not in screen.last()


def test_what_has_to_be_seen_stays(screen: Screen) -> None:
    screen.view.notify("Stopping")
    screen.clock.time += 60
    screen.last()
    screen.view.finish(some_id(0), outcome())
    screen.view.refresh()
    assert "Stopping" in screen.last()


def test_closing_shows_the_cursor(screen: Screen) -> None:
    screen.view.refresh()
    assert "\x1b[?25l" in screen.last()
    screen.view.close()
    screen.view.close()
    assert "\x1b[?25h" in screen.last()


def test_no_color_is_obeyed() -> None:
    colors = ("\x1b[3", "\x1b[9", ";3")
    colored, plain = Screen(no_color=False, color_system="standard"), Screen(no_color=True)
    for each in (colored, plain):
        go(each.progress, 0, verdict="failed")
        each.view.refresh()
        each.view.close()
    assert any(color in colored.file.getvalue() for color in colors)
    assert not any(color in plain.file.getvalue() for color in colors)


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_every_verdict_is_shown(verdict: Verdict) -> None:
    """In every table of words, marks and styles that has the verdicts."""
    style = (Path(report.__file__).parent / "templates" / "style.css").read_text()
    assert live._STYLES[verdict]
    assert (verdict in live._BAD) == (verdict != "passed")
    assert VERDICT_WORDS[verdict]
    assert (verdict in UNEXPLAINED) == (verdict != "passed")
    assert verdict in MARKDOWN_MARKS
    assert verdict in HTML_MARKS
    assert re.search(rf"\.is-{verdict}\b", style)
