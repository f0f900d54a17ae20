"""When each run was queued, at work and being fetched, as shares of the time the batch took."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.report.view import SetView
from amigo_async.report.words import duration

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
