"""A batch as one HTML page that needs nothing else: no network, no script."""

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
from amigo_async.report.model import Case, SetView, UnitTest, headline, verdict_in_words, view
from amigo_async.report.templates import page_template
from amigo_async.report.words import VERDICT_WORDS, duration, instant, percent, plural
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
    """`result` as one HTML page, for a browser or a phone, in dark and light.

    Args:
        result: The batch.
        gate: What its verdicts were given by; None for the runs' own flags.
        title: What to call the whole.
        folder: Where the page will be, so that it links to the artifacts relative to itself;
            None for the links to be as the paths are.

    Raises:
        ArgumentError: If `folder` cannot be the name of one.
        ConfigurationError: If the extra ``report`` is not installed.
    """
    if folder is not None:
        check_path("folder", folder)
    sets = view(result, gate)
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
    """The share of evaluated repeats that passed."""
    return case.counts.passed / case.counts.evaluated if case.counts.evaluated else None


def _link(path: Path, folder: str | PathLike[str] | None) -> str:
    """A link to `path` from a page in `folder`."""
    if folder is not None:
        path = Path(os.path.relpath(path, folder))
    elif path.is_absolute():
        return path.as_uri()
    # The dot keeps a name with a colon from being taken for a scheme.
    return "./" + quote(os.fsencode(path.as_posix()))


class Column(Struct, frozen=True):
    """A metric of the set.

    Attributes:
        metric_id: The metric; None for the repeats as a whole, where no metric is shown.
        name: What it is called.
        expected: What it has to be; None where the unit tests differ, or it is not known.
    """

    metric_id: str | None
    name: str
    expected: str | None


class Line(Struct, frozen=True):
    """A unit test, with its case in each column; None where it does not have the metric."""

    test: UnitTest
    cells: tuple[tuple[Column, Case | None], ...]


class Matrix(Struct, frozen=True):
    """Unit tests of a set by metric."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


# A table with more cells for each case than this is mostly empty.
_SPARSE: Final = 4


def matrices(each: SetView) -> tuple[Matrix, ...]:
    """The unit tests of a set by metric; none where no unit test is shown.

    One matrix, unless it would be mostly empty because the unit tests have few metrics in common:
    then one for all the unit tests with the same metrics.
    """
    cases = [case for test in each.tests for case in test.cases]
    metrics = {case.metric_id for case in cases}
    if len(metrics) * len(each.tests) <= _SPARSE * len(cases):
        groups = [each.tests] if each.tests else []
    else:
        alike: dict[tuple[str | None, ...], list[UnitTest]] = {}
        for test in each.tests:
            alike.setdefault(tuple(case.metric_id for case in test.cases), []).append(test)
        groups = [tuple(tests) for tests in alike.values()]
    return tuple(map(_matrix, groups))


def _matrix(tests: tuple[UnitTest, ...]) -> Matrix:
    by_metric: dict[str | None, list[Case]] = {}
    for test in tests:
        for case in test.cases:
            by_metric.setdefault(case.metric_id, []).append(case)
    columns = tuple(_column(metric_id, cases) for metric_id, cases in by_metric.items())
    return Matrix(columns, tuple(_line(test, columns) for test in tests))


def _column(metric_id: str | None, cases: list[Case]) -> Column:
    expected = {case.expected for case in cases}
    return Column(metric_id, cases[0].label, expected.pop() if len(expected) == 1 else None)


def _line(test: UnitTest, columns: tuple[Column, ...]) -> Line:
    cases = {case.metric_id: case for case in test.cases}
    return Line(test, tuple((column, cases.get(column.metric_id)) for column in columns))


Phase: TypeAlias = Literal["queued", "running", "fetching"]

# The steps that people count time in, in seconds, and how many of them fit on a phone.
_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24, 48, 168, 720)),
)
_MOST_TICKS: Final = 5
_LONGEST_LABEL: Final = 26


class Bar(Struct, frozen=True):
    """One phase of one run; `left` and `width` in percent of the whole.

    Attributes:
        phase: ``"queued"``, ``"running"`` or ``"fetching"``.
        left: Where it begins.
        width: How long it is; never so short that it cannot be seen.
        open: Whether the end was not seen.
        words: How long it took, in words.
    """

    phase: Phase
    left: float
    width: float
    open: bool
    words: str


class Row(Struct, frozen=True):
    """One run of the timeline."""

    each: SetView
    label: str
    bars: tuple[Bar, ...]


class Tick(Struct, frozen=True):
    """A mark on the axis, `left` in percent of the whole."""

    left: float
    label: str


class Timeline(Struct, frozen=True):
    """All runs of a batch over its time.

    Attributes:
        began: Where the axis begins.
        took: How long it is.
        ticks: The marks on it.
        rows: The runs, in the order of the batch.
        phases: The phases that occur.
    """

    began: datetime
    took: timedelta
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]
    phases: tuple[Phase, ...]


def timeline(result: BatchResult, sets: tuple[SetView, ...]) -> Timeline | None:
    """The timeline of a batch; None where no time is known.

    Args:
        result: The batch.
        sets: Its sets.
    """
    asked = result.began_at
    known = [at for o in result.outcomes for at in _instants(o)] + ([asked] if asked else [])
    if not known:
        return None
    # Without the time at which the batch began, the first start is taken for it.
    began, ended = min(known), max(known)
    axis = _Axis(began, max((ended - began).total_seconds(), 1.0))
    queued_since = asked or began
    rows = tuple(Row(s, _label(s), tuple(axis.bars(s.outcome, queued_since, ended))) for s in sets)
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


def _label(each: SetView) -> str:
    label = each.outcome.unit_test_set_id
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


class _Axis:
    def __init__(self, began: datetime, seconds: float) -> None:
        self._began = began
        self._seconds = seconds

    def bars(self, outcome: RunOutcome, queued_since: datetime, ended: datetime) -> Iterator[Bar]:
        """The phases of one run, as far as their times are known."""
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
        """Marks at round times, as many as fit."""
        step = next((s for s in _STEPS if self._seconds / s <= _MOST_TICKS), self._seconds)
        at = 0.0
        while at <= self._seconds:
            yield Tick(self._share(at), duration(timedelta(seconds=at)))
            at += step

    def _bar(self, phase: Phase, start: datetime, end: datetime, *, is_open: bool = False) -> Bar:
        left = self._share((start - self._began).total_seconds())
        length = max(end - start, timedelta())
        # A bar at the very end still has to be seen.
        width = max(self._share(length.total_seconds()), 0.4)
        words = f"{phase} {'for at least ' if is_open else ''}{duration(length)}"
        return Bar(phase, min(left, 100 - width), width, is_open, words)

    def _share(self, seconds: float) -> float:
        return round(100 * seconds / self._seconds, 3)
