"""The history of a set: its pass rates from run to run, and what changed between runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from amigo_async.escaping import encode_json
from amigo_async.models import Run
from amigo_async.names import Names
from amigo_async.report.templates import page_template
from amigo_async.report.wording import (
    changes_in_words,
    instant,
    plural,
    rate_in_words,
    shown_name,
)
from amigo_async.verdicts.comparison import RateCounts, changes_between
from amigo_async.verdicts.tally import tally
from amigo_async.version import __version__

_BARS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = "·"


class PastRun(Struct, frozen=True):
    """A run of the history.

    Attributes:
        run_id: Its id.
        created_at: When it was created.
        cut_short: Whether some repeats never ran.
        counts: Its repeats, of all unit tests.
        changes: What is different from the run before, in words; empty for the first one.
    """

    run_id: str
    created_at: datetime
    cut_short: bool
    counts: RateCounts
    changes: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be known of it: what changed, and whether some repeats never ran."""
        return (*self.changes, *["some repeats never ran"] * self.cut_short)


class RateHistory(Struct, frozen=True):
    """The pass rates of a unit test, or of the whole set, from run to run.

    Attributes:
        unit_test_id: Id of the unit test; None for the whole set.
        name: Its name; None if unknown.
        counts: Its repeats in each run, oldest first; None for a run without it.
    """

    unit_test_id: str | None
    name: str | None
    counts: tuple[RateCounts | None, ...]

    @property
    def label(self) -> str:
        """The name, or the id."""
        return self.name or self.unit_test_id or "all unit tests"

    @property
    def last(self) -> RateCounts | None:
        """Its repeats in the newest run."""
        return self.counts[-1]

    @property
    def total(self) -> RateCounts:
        """Its repeats in all runs together."""
        return _sum(counts for counts in self.counts if counts is not None)

    @property
    def sparkline(self) -> str:
        """The rates as a line of bars, oldest first."""
        rates = (None if counts is None else counts.rate for counts in self.counts)
        top = len(_BARS) - 1
        return "".join(_GAP if rate is None else _BARS[round(rate * top)] for rate in rates)


class SetHistory(Struct, frozen=True):
    """The history of a set.

    Attributes:
        unit_test_set_id: Id of the set.
        name: Its name; None if unknown.
        runs: Its runs, oldest first.
        whole: The rates of all unit tests together.
        unit_tests: The rates of each unit test, in the order of the newest run that has it.
    """

    unit_test_set_id: str
    name: str | None
    runs: tuple[PastRun, ...]
    whole: RateHistory
    unit_tests: tuple[RateHistory, ...]

    @property
    def label(self) -> str:
        """The name of the set, or its id."""
        return self.name or self.unit_test_set_id


def set_history(unit_test_set_id: str, runs: Iterable[Run], names: Names) -> SetHistory:
    """Build the history of a set.

    Args:
        unit_test_set_id: The set.
        runs: Its completed runs, newest first.
        names: Names, as far as they are known.
    """
    every = list(runs)[::-1]
    tables = [_by_unit_test(run) for run in every]
    # A unit test that stands twice in a set has two lines.
    keys = dict.fromkeys(key for table in reversed(tables) for key in table)
    past = tuple(
        PastRun(
            run.id,
            run.created_at,
            run.was_cut_short,
            _sum(table.values()),
            tuple(changes_in_words(changes_between(every[at - 1], run), names)) if at else (),
        )
        for at, (run, table) in enumerate(zip(every, tables, strict=True))
    )
    return SetHistory(
        unit_test_set_id,
        shown_name(names.unit_test_sets.get(unit_test_set_id)),
        past,
        RateHistory(None, None, tuple(run.counts for run in past)),
        tuple(
            RateHistory(
                key[0],
                shown_name(names.unit_tests.get(key[0])),
                tuple(table.get(key) for table in tables),
            )
            for key in keys
        ),
    )


def _by_unit_test(run: Run) -> dict[tuple[str, int], RateCounts]:
    places: Counter[str] = Counter()
    table: dict[tuple[str, int], RateCounts] = {}
    for test in tally(run):
        passed, failed, missing = test.counts
        counts = RateCounts(passed=passed, failed=failed, missing=missing)
        table[test.unit_test_id, places[test.unit_test_id]] = counts
        places[test.unit_test_id] += 1
    return table


def _sum(counts: Iterable[RateCounts]) -> RateCounts:
    every = list(counts)
    return RateCounts(
        passed=sum(one.passed for one in every),
        failed=sum(one.failed for one in every),
        missing=sum(one.missing for one in every),
    )


def history_json(history: SetHistory) -> str:
    """Encode a history as a JSON object, with the rates and their intervals.

    Args:
        history: The history.
    """
    document = {
        "unit_test_set_id": history.unit_test_set_id,
        "name": history.name,
        "runs": [
            {
                "run_id": run.run_id,
                "created_at": run.created_at,
                "cut_short": run.cut_short,
                **_rate(run.counts),
                "changes": run.changes,
            }
            for run in history.runs
        ],
        "unit_tests": [
            {
                "unit_test_id": test.unit_test_id,
                "name": test.name,
                **_rate(test.total),
                "runs": [
                    {"run_id": run.run_id, **_rate(counts)}
                    for run, counts in zip(history.runs, test.counts, strict=True)
                    if counts is not None
                ],
            }
            for test in history.unit_tests
        ],
    }
    return encode_json(document, indent=2)


def _rate(counts: RateCounts) -> dict[str, Any]:
    return {
        "passed": counts.passed,
        "failed": counts.failed,
        "missing": counts.missing,
        "rate": counts.rate,
        "interval": counts.interval,
    }


def history_html(history: SetHistory) -> str:
    """Render a history as one HTML page.

    Args:
        history: The history.

    Raises:
        ConfigurationError: If the extra ``report`` is not installed.
    """
    return page_template("history.html").render(
        history=history,
        changed=[run for run in reversed(history.runs) if run.remarks],
        rate=rate_in_words,
        bars=_bars,
        instant=instant,
        plural=plural,
        version=__version__,
    )


class RateBar(Struct, frozen=True):
    """A bar of a chart, in units of its box, which is 10 wide for each run and 24 high.

    Attributes:
        left: Left edge.
        top: Upper edge.
        height: Height of the bar.
        low: Lower end of the interval of the rate.
        high: Upper end of it.
        words: The run and its rate in words.
    """

    left: int
    top: float
    height: float
    low: float
    high: float
    words: str


_HEIGHT: Final = 24


def _bars(history: SetHistory, rates: RateHistory) -> Sequence[RateBar]:
    """Return the bars of a chart; none for a run without a rate."""
    bars = []
    for at, (run, counts) in enumerate(zip(history.runs, rates.counts, strict=True)):
        if counts is None or counts.rate is None or counts.interval is None:
            continue
        height = max(round(counts.rate * _HEIGHT, 2), 1.0)
        low, high = (round(_HEIGHT * (1 - limit), 2) for limit in counts.interval)
        words = f"{instant(run.created_at)}: {rate_in_words(counts)}"
        bars.append(RateBar(10 * at, _HEIGHT - height, height, low, high, words))
    return bars
