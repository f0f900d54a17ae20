"""The HTML report: one self-contained page, without network access or scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.files import check_path
from amigo_async.report.markdown import took
from amigo_async.report.model import (
    Case,
    SetReport,
    UnitTestReport,
    headline,
    set_reports,
    verdict_in_words,
)
from amigo_async.report.templates import page_template
from amigo_async.report.wording import VERDICT_WORDS, duration, instant, percent, plural
from amigo_async.verdicts.gate import Gate
from amigo_async.version import __version__

MARKS: Final = {
    "passed": "✓",
    "failed": "✕",
    "errored": "!",
    "timed_out": "…",
    "cancelled": "⊘",
    "not_started": "○",
    "incomplete": "!",
    "empty": "○",
    "unfinished": "…",
}


def html(
    result: BatchResult,
    *,
    gate: Gate | None = None,
    title: str = "Unit test sets",
    folder: str | PathLike[str] | None = None,
) -> str:
    """Render `result` as one HTML page, for desktop and mobile browsers, in light and dark mode.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        title: Title of the page.
        folder: The folder in which the page will be saved; links to artifacts are relative to
            it. None to link to the paths as they are.

    Raises:
        ArgumentError: If `folder` is not a valid path.
        ConfigurationError: If the extra ``report`` is not installed.
    """
    if folder is not None:
        check_path("folder", folder)
    sets = set_reports(result, gate)
    return page_template("page.html").render(
        title=title,
        headline=headline(result, sets),
        counts=result.counts,
        sets=sets,
        timeline=timeline(result, sets),
        matrices=matrices,
        marks=MARKS,
        words=VERDICT_WORDS,
        verdict_in_words=verdict_in_words,
        took=took,
        duration=duration,
        instant=instant,
        percent=percent,
        plural=plural,
        capitalized=lambda text: text[:1].upper() + text[1:],
        rate=_rate,
        link=lambda path: _link(path, folder),
        version=__version__,
    )


def _rate(case: Case) -> float | None:
    """Return the share of evaluated repeats that passed; None if none was evaluated."""
    return case.counts.passed / case.counts.evaluated if case.counts.evaluated else None


def _link(path: Path, folder: str | PathLike[str] | None) -> str:
    """Return a link to `path` for a page in `folder`."""
    if folder is not None:
        path = Path(os.path.relpath(path, folder))
    elif path.is_absolute():
        return path.as_uri()
    # Without the dot, a name with a colon would be parsed as a scheme.
    return "./" + quote(os.fsencode(path.as_posix()))


class MatrixColumn(Struct, frozen=True):
    """A metric of the set.

    Attributes:
        metric_id: Id of the metric; None for the repeats as a whole, if no metric is visible.
        name: Its name.
        expected: Its required value in words; None if unknown, or different between unit tests.
    """

    metric_id: str | None
    name: str
    expected: str | None


class MatrixRow(Struct, frozen=True):
    """A unit test, and its case in each column; None if it does not have the metric."""

    test: UnitTestReport
    cells: tuple[tuple[MatrixColumn, Case | None], ...]


class Matrix(Struct, frozen=True):
    """Unit tests of a set by metric."""

    columns: tuple[MatrixColumn, ...]
    rows: tuple[MatrixRow, ...]


# A matrix with more cells per case than this is mostly empty.
_SPARSE: Final = 4


def matrices(each: SetReport) -> tuple[Matrix, ...]:
    """Build the matrices of a set, its unit tests by metric; none if no unit test is visible.

    There is one matrix, unless that would be mostly empty because the unit tests have few metrics
    in common: then there is one for each group of unit tests with the same metrics.
    """
    cases = [case for test in each.tests for case in test.cases]
    metrics = {case.metric_id for case in cases}
    if len(metrics) * len(each.tests) <= _SPARSE * len(cases):
        groups = [each.tests] if each.tests else []
    else:
        alike: dict[tuple[str | None, ...], list[UnitTestReport]] = {}
        for test in each.tests:
            alike.setdefault(tuple(case.metric_id for case in test.cases), []).append(test)
        groups = [tuple(tests) for tests in alike.values()]
    return tuple(map(_matrix, groups))


def _matrix(tests: tuple[UnitTestReport, ...]) -> Matrix:
    by_metric: dict[str | None, list[Case]] = {}
    for test in tests:
        for case in test.cases:
            by_metric.setdefault(case.metric_id, []).append(case)
    columns = tuple(_column(metric_id, cases) for metric_id, cases in by_metric.items())
    return Matrix(columns, tuple(_matrix_row(test, columns) for test in tests))


def _column(metric_id: str | None, cases: list[Case]) -> MatrixColumn:
    expected = {case.expected for case in cases}
    return MatrixColumn(metric_id, cases[0].label, expected.pop() if len(expected) == 1 else None)


def _matrix_row(test: UnitTestReport, columns: tuple[MatrixColumn, ...]) -> MatrixRow:
    cases = {case.metric_id: case for case in test.cases}
    return MatrixRow(test, tuple((column, cases.get(column.metric_id)) for column in columns))


Phase: TypeAlias = Literal["queued", "running", "fetching"]

# Round steps between ticks, in seconds, and the number of ticks that fit on a phone.
_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24, 48, 168, 720)),
)
_MOST_TICKS: Final = 5
_LONGEST_LABEL: Final = 26


class Bar(Struct, frozen=True):
    """One phase of a run; `left` and `width` are percentages of the time axis.

    Attributes:
        phase: ``"queued"``, ``"running"`` or ``"fetching"``.
        left: Start of the phase.
        width: Duration of the phase; at least wide enough to be visible.
        open: Whether the end is unknown.
        words: The phase and its duration in words.
    """

    phase: Phase
    left: float
    width: float
    open: bool
    words: str


class TimelineRow(Struct, frozen=True):
    """One run of the timeline."""

    each: SetReport
    label: str
    bars: tuple[Bar, ...]


class Tick(Struct, frozen=True):
    """A mark on the time axis; `left` is a percentage of it."""

    left: float
    label: str


class Timeline(Struct, frozen=True):
    """All runs of a batch over time.

    Attributes:
        began: Start of the time axis.
        took: Length of the time axis.
        ticks: The marks on the time axis.
        rows: The runs, in the order of the batch.
        phases: The phases that occur.
    """

    began: datetime
    took: timedelta
    ticks: tuple[Tick, ...]
    rows: tuple[TimelineRow, ...]
    phases: tuple[Phase, ...]


def timeline(result: BatchResult, sets: tuple[SetReport, ...]) -> Timeline | None:
    """Build the timeline of a batch; None if no time is known.

    Args:
        result: The result of the batch.
        sets: The content of the report for each set.
    """
    asked = result.began_at
    known = [at for o in result.outcomes for at in _instants(o)] + ([asked] if asked else [])
    if not known:
        return None
    # If the start of the batch is unknown, use that of the first run.
    began, ended = min(known), max(known)
    axis = _Axis(began, max((ended - began).total_seconds(), 1.0))
    queued_since = asked or began
    rows = tuple(
        TimelineRow(s, _label(s), tuple(axis.bars(s.outcome, queued_since, ended))) for s in sets
    )
    occurring = {bar.phase for row in rows for bar in row.bars}
    phases: tuple[Phase, ...] = ("queued", "running", "fetching")
    return Timeline(
        began=began,
        took=ended - began,
        ticks=tuple(axis.ticks()),
        rows=rows,
        phases=tuple(phase for phase in phases if phase in occurring),
    )


def _instants(outcome: RunOutcome) -> Iterator[datetime]:
    for at in (outcome.started_at, outcome.finished_at, outcome.saved_at):
        if at is not None:
            yield at


def _label(each: SetReport) -> str:
    label = each.outcome.unit_test_set_id
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


class _Axis:
    def __init__(self, began: datetime, seconds: float) -> None:
        self._began = began
        self._seconds = seconds

    def bars(self, outcome: RunOutcome, queued_since: datetime, ended: datetime) -> Iterator[Bar]:
        """Yield the phases of one run, as far as their times are known."""
        started, finished = outcome.started_at, outcome.finished_at
        saved = outcome.saved_at
        if started is None:
            return
        if queued_since < started:
            yield self._bar("queued", queued_since, started)
        yield self._bar("running", started, finished or ended, is_open=finished is None)
        if finished is not None and saved is not None and finished < saved:
            yield self._bar("fetching", finished, saved)

    def ticks(self) -> Iterator[Tick]:
        """Yield as many ticks at round times as fit."""
        step = next((s for s in _STEPS if self._seconds / s <= _MOST_TICKS), self._seconds)
        at = 0.0
        while at <= self._seconds:
            yield Tick(self._share(at), duration(at))
            at += step

    def _bar(self, phase: Phase, start: datetime, end: datetime, *, is_open: bool = False) -> Bar:
        left = self._share((start - self._began).total_seconds())
        length = max(end - start, timedelta())
        # A bar must be visible even at the very end.
        width = max(self._share(length.total_seconds()), 0.4)
        words = f"{phase} {'for at least ' if is_open else ''}{duration(length.total_seconds())}"
        return Bar(phase, min(left, 100 - width), width, is_open, words)

    def _share(self, seconds: float) -> float:
        return round(100 * seconds / self._seconds, 3)
