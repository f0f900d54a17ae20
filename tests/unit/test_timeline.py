"""The timeline of a batch, and the words of the reports."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.models import CategoricalMetricSuccessCriterion, NumericalMetricSuccessCriterion
from amigo_async.report import html
from amigo_async.report.html import timeline
from amigo_async.report.model import set_reports
from amigo_async.report.wording import criterion_in_words, duration, numbers
from tests.support.report_samples import BEGAN
from tests.unit.fake_runs import some_run


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def timed(started: float | None, finished: float | None, saved: float | None = None) -> RunOutcome:
    return RunOutcome(
        unit_test_set_id="a set with an id that is very long",
        verdict="passed" if finished is not None else "timed_out",
        started_at=None if started is None else after(started),
        finished_at=None if finished is None else after(finished),
        saved_at=None if saved is None else after(saved),
    )


def bars(result: BatchResult) -> list[list[tuple[str, float, float, bool]]]:
    shown = timeline(result, set_reports(result, None))
    assert shown is not None
    return [[(b.phase, b.left, b.width, b.open) for b in row.bars] for row in shown.rows]


def test_phases_of_a_run() -> None:
    result = BatchResult([timed(10, 60, 80), timed(20, 100)], began_at=BEGAN)
    assert bars(result) == [
        [("queued", 0, 10, False), ("running", 10, 50, False), ("fetching", 60, 20, False)],
        [("queued", 0, 20, False), ("running", 20, 80, False)],
    ]


def test_queueing_begins_with_first_start() -> None:
    result = BatchResult([timed(0, 50), timed(50, 100), timed(None, None)])
    assert bars(result) == [
        [("running", 0, 50, False)],
        [("queued", 0, 50, False), ("running", 50, 50, False)],
        [],
    ]


def test_a_run_whose_end_was_not_seen_has_no_bar() -> None:
    over = replace(timed(0, None), run=some_run("a" * 24, is_completed=True), verdict="passed")
    assert bars(BatchResult([timed(0, 100), over])) == [[("running", 0, 100, False)], []]


def test_unfinished_and_short_runs() -> None:
    result = BatchResult([timed(0, 1000), timed(500, None), timed(1000, 1000)])
    assert bars(result)[1] == [("queued", 0, 50, False), ("running", 50, 50, True)]
    assert bars(result)[2] == [("queued", 0, 100, False), ("running", 99.6, 0.4, False)]


def test_run_from_before_the_batch() -> None:
    result = BatchResult([timed(-50, 50)], began_at=BEGAN)
    assert bars(result) == [[("running", 0, 100, False)]]


def test_without_any_time_there_is_no_timeline() -> None:
    result = BatchResult([timed(None, None)])
    assert timeline(result, set_reports(result, None)) is None
    assert "Timeline" not in html(result)


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0, ["0 s", "1 s"]),
        (4, ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        (540, ["0 s", "2 min", "4 min", "6 min", "8 min"]),
        (3 * 3600, ["0 s", "1 h", "2 h", "3 h"]),
        (10**9, ["0 s", "277777 h 46 min"]),
    ],
)
def test_ticks_are_at_round_times(seconds: float, labels: list[str]) -> None:
    result = BatchResult([timed(0, seconds)])
    shown = timeline(result, set_reports(result, None))
    assert shown is not None
    assert [tick.label for tick in shown.ticks] == labels


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (192, "3 min 12 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_repeats_in_words() -> None:
    assert numbers((0, 1, 2, 6, 8, 9)) == "1-3, 7, 9-10"
    assert numbers(()) == ""


def test_a_verb_that_is_not_known_is_said_as_it_is() -> None:
    assert criterion_in_words(NumericalMetricSuccessCriterion("~=", 2.5)) == "~= 2.5"
    assert criterion_in_words(NumericalMetricSuccessCriterion("!=", 3.0)) == "not equal to 3"


def test_one_category_needs_no_list() -> None:
    assert criterion_in_words(CategoricalMetricSuccessCriterion(["urgent"])) == "urgent"
    assert criterion_in_words(CategoricalMetricSuccessCriterion(["a", "b"])) == "one of a, b"
