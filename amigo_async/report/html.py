"""The HTML report: one self-contained page, without network access or scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from amigo_async.batch.outcomes import VERDICT_WORDS, BatchResult, RunOutcome
from amigo_async.files import check_path
from amigo_async.redact import HTML_ESCAPES
from amigo_async.report.compared import STATUS_WORDS, compared_batch
from amigo_async.report.model import (
    Case,
    FailOn,
    Finding,
    Group,
    SetReport,
    UnitTestReport,
    default_title,
    headline,
    set_reports,
    took,
    verdict_in_words,
)
from amigo_async.report.templates import Markup, page_template
from amigo_async.report.wording import cut_text, duration, instant, plural
from amigo_async.verdicts.gate import Gate
from amigo_async.version import __version__

MARKS: Final = {
    "passed": "✓",
    "failed": "✕",
    "undecided": "?",
    "known_failing": "·",
    "errored": "!",
    "timed_out": "…",
    "cancelled": "⊘",
    "not_started": "○",
    "incomplete": "!",
    "empty": "○",
    "unfinished": "…",
}


# The verdicts that share their colour and mark with the verdict on a comparison.
_TONES: Final = {
    "regressed": "failed",
    "worse": "errored",
    "improved": "passed",
    "better": "passed",
    "no_change_seen": "passed",
    "too_few": "empty",
    "not_comparable": "empty",
    "no_baseline": "empty",
}


def html(
    result: BatchResult,
    *,
    gate: Gate | None = None,
    title: str | None = None,
    link: str | None = None,
    folder: str | PathLike[str] | None = None,
    fail_on: FailOn = "failure",
) -> str:
    """Render `result` as one HTML page, for desktop and mobile browsers, in light and dark mode.

    What went wrong comes first, with reasons: unit tests that failed by the same criterion, or
    with the same error, are grouped, and of large groups the first ones are shown. Below, every
    unit test is listed once. Justifications, names and errors are cut where they are very long.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        title: Title of the page; None for one that names the organization.
        link: URL of a set or unit test elsewhere, with ``{run_id}``, ``{set_id}`` or
            ``{unit_test_id}``; names become links to it. None for no links.
        folder: The folder in which the page will be saved; links to artifacts are relative to
            it. None to link to the paths as they are.
        fail_on: What the verdict is about: ``"failure"``, whether the sets passed, or
            ``"regression"``, whether they got worse than their baselines.

    Raises:
        ArgumentError: If `folder` is not a valid path, or `link` is not an http or https URL with
            such a placeholder.
        ConfigurationError: If the extra ``report`` is not installed.
    """
    if folder is not None:
        check_path("folder", folder)
    sets = set_reports(result, gate, link)
    wrong = [each for each in sets if not each.fine]
    return page_template("page.html").render(
        title=default_title(result) if title is None else title,
        headline=headline(result, sets, fail_on),
        counts=result.counts,
        sets=sets,
        compared=compared_batch(result),
        tones=_TONES,
        status_words=STATUS_WORDS,
        most_compared=_MOST_SETS,
        most_tests=_MOST_TESTS,
        failures=_failures(wrong),
        others=max(len(wrong) - _MOST_SETS, 0),
        timeline=timeline(result, sets),
        listing=listing,
        marks=MARKS,
        words=VERDICT_WORDS,
        verdict_in_words=verdict_in_words,
        took=took,
        duration=duration,
        instant=instant,
        plural=plural,
        capitalized=lambda text: text[:1].upper() + text[1:],
        short=lambda text: cut_text(text, _MOST_OF_AN_ERROR),
        url=_url,
        most_reasons=_MOST_REASONS,
        most_criteria=_MOST_CRITERIA,
        link=lambda path: _link(path, folder),
        version=__version__,
    )


def _url(link: str) -> Markup:
    """Escape a link, whose query is the user's own, so that it is not redacted."""
    return Markup(link.translate(HTML_ESCAPES))


# What is shown of what went wrong, on the whole page and in each part of it: people read the
# first screens, and a browser has to draw them all.
_MOST_TESTS: Final = 20
_MOST_SETS: Final = 100
_MOST_GROUPS: Final = 120
_MOST_GROUPS_OF_A_SET: Final = 20
_MOST_FINDINGS: Final = 240
_MOST_OF_A_GROUP: Final = 5
_MOST_REASONS: Final = 2
# Criteria that are named of a set.
_MOST_CRITERIA: Final = 12
_MOST_OF_AN_ERROR: Final = 1500


class Failure(Struct, frozen=True):
    """What is shown of a set that did not pass.

    Attributes:
        each: The set.
        groups: The first groups, each with the first of its findings.
        others: Number of groups that are not shown.
    """

    each: SetReport
    groups: tuple[tuple[Group, tuple[Finding, ...]], ...]
    others: int


def _failures(wrong: Sequence[SetReport]) -> list[Failure]:
    """Choose what is shown of what went wrong, the less of each the more there is."""
    sets = wrong[:_MOST_SETS]
    most = min(max(_MOST_GROUPS // max(len(sets), 1), 3), _MOST_GROUPS_OF_A_SET)
    total = sum(min(len(each.groups), most) for each in sets)
    findings = min(max(_MOST_FINDINGS // max(total, 1), 1), _MOST_OF_A_GROUP)
    return [
        Failure(
            each,
            tuple((group, group.findings[:findings]) for group in each.groups[:most]),
            max(len(each.groups) - most, 0),
        )
        for each in sets
    ]


def _link(path: Path, folder: str | PathLike[str] | None) -> str:
    """Return a link to `path` for a page in `folder`."""
    if folder is not None:
        path = Path(os.path.relpath(path, folder))
    elif path.is_absolute():
        return path.as_uri()
    # Without the dot, a name with a colon would be parsed as a scheme.
    return "./" + quote(os.fsencode(path.as_posix()))


class MatrixColumn(Struct, frozen=True):
    """A metric that unit tests of the set failed.

    Attributes:
        metric_id: Id of the metric.
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
    """Unit tests of a set that failed, by metric that failed."""

    columns: tuple[MatrixColumn, ...]
    rows: tuple[MatrixRow, ...]


class Listing(Struct, frozen=True):
    """The unit tests of a set, each once.

    Attributes:
        matrix: Those that failed, if they share metrics; None if not.
        wrong: Others that failed or errored.
        unfinished: Those that have not ended.
        undecided: Those with too few repeats for the gate to tell.
        known_failing: Those that are known to fail, and did not pass.
        passed: Those that passed, perhaps because the gate allows for failures.
    """

    matrix: Matrix | None
    wrong: tuple[UnitTestReport, ...]
    unfinished: tuple[UnitTestReport, ...]
    undecided: tuple[UnitTestReport, ...]
    known_failing: tuple[UnitTestReport, ...]
    passed: tuple[UnitTestReport, ...]


# A matrix with more cells per case than this is mostly empty.
_SPARSE: Final = 2
# More cells than this would be most of the page.
_MOST_CELLS: Final = 4000


def listing(each: SetReport) -> Listing:
    """Arrange the unit tests of a set."""
    of: dict[str, list[UnitTestReport]] = {}
    for test in each.tests:
        of.setdefault(test.status, []).append(test)
    failed = of.get("failed", [])
    matrix = _matrix(failed)
    return Listing(
        matrix=matrix,
        wrong=(*of.get("errored", ()), *(() if matrix else failed)),
        unfinished=tuple(of.get("unfinished", ())),
        undecided=tuple(of.get("undecided", ())),
        known_failing=tuple(of.get("known_failing", ())),
        passed=tuple(of.get("passed", ())),
    )


def _matrix(tests: Sequence[UnitTestReport]) -> Matrix | None:
    """Build the matrix of unit tests that failed; None if they do not share metrics."""
    by_metric: dict[str | None, list[Case]] = {}
    for test in tests:
        for case in test.cases:
            by_metric.setdefault(case.metric_id, []).append(case)
    shown = {
        metric_id: cases
        for metric_id, cases in by_metric.items()
        if any(case.status == "failed" for case in cases)
    }
    filled = sum(map(len, shown.values()))
    cells = len(shown) * len(tests)
    if filled == len(shown) or cells > min(_SPARSE * filled, _MOST_CELLS):
        return None
    columns = tuple(_column(metric_id, cases) for metric_id, cases in shown.items())
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


def _has_ended(outcome: RunOutcome) -> bool:
    return outcome.run is not None and outcome.run.is_completed


def _label(each: SetReport) -> str:
    label = each.label
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
        if finished is not None or not _has_ended(outcome):
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
