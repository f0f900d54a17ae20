"""The content of all reports, independent of their format: sets, unit tests and cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.report.json import RecordedError
from amigo_async.report.wording import (
    UNEXPLAINED,
    VERDICT_WORDS,
    criterion_in_words,
    numbers,
    plural,
)
from amigo_async.verdicts.gate import Gate, Judgement
from amigo_async.verdicts.tally import Counts, MetricTally, UnitTestTally, tally

Status: TypeAlias = Literal["passed", "failed", "errored", "unfinished"]


class RepeatError(Struct, frozen=True):
    """An error that occurred in one repeat or several.

    Attributes:
        text: The error message of the service.
        repeats: The numbers of the repeats, from 1.
    """

    text: str
    repeats: str


class Case(Struct, frozen=True):
    """A unit test by one metric; or as a whole, if no metric is visible.

    Attributes:
        name: Name of the metric; None without one.
        metric_id: Id of the metric; None without one.
        expected: Required value of the metric, in words; None if unknown.
        counts: Repeats that passed, failed, or have no result.
        status: The status that follows from the counts and the verdict of the set.
        seen: The counts in words.
        missing: Why repeats have no result, in words; empty if all have one.
        failed: Numbers of the repeats that failed, from 1; empty if none failed.
        evaluations: Ids of the failed evaluations.
    """

    name: str | None
    metric_id: str | None
    expected: str | None
    counts: Counts
    status: Status
    seen: str
    missing: str
    failed: str = ""
    evaluations: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name of the metric, or "repeats" without one."""
        return self.name or "repeats"


class UnitTestReport(Struct, frozen=True):
    """A unit test of a set.

    Attributes:
        id: Id of the unit test.
        repeats: Number of repeats requested.
        counts: Repeats that passed every metric, failed one, or have no result.
        cases: One case per metric.
        errors: Errors that occurred in its repeats.
    """

    id: str
    repeats: int
    counts: Counts
    cases: tuple[Case, ...]
    errors: tuple[RepeatError, ...]

    @property
    def wrong(self) -> tuple[Case, ...]:
        """The cases that failed or errored."""
        return tuple(case for case in self.cases if case.status in ("failed", "errored"))


class SetReport(Struct, frozen=True):
    """A set of the batch.

    Attributes:
        number: Its position in the batch, from 1.
        outcome: Its outcome.
        tests: Its unit tests, as far as they are visible.
        problem: What went wrong with the set as a whole; None if nothing did, or the unit tests
            show it.
        problem_type: The class of the error, or the verdict.
        reasons: The reasons of the gate; empty without a gate.
        tolerated: Number of repeats that failed or errored although the set passed.
    """

    number: int
    outcome: RunOutcome
    tests: tuple[UnitTestReport, ...]
    problem: str | None
    problem_type: str
    reasons: tuple[str, ...]
    tolerated: int

    @property
    def fine(self) -> bool:
        """Whether the set passed without an error."""
        return self.outcome.verdict == "passed" and self.outcome.error is None

    @property
    def wrong(self) -> tuple[UnitTestReport, ...]:
        """The unit tests with a case that failed or errored."""
        return tuple(test for test in self.tests if test.wrong)


def set_reports(result: BatchResult, gate: Gate | None) -> tuple[SetReport, ...]:
    """Build the content of the reports for each set, in the order of the batch.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
    """
    return tuple(_set(n, outcome, gate) for n, outcome in enumerate(result.outcomes, 1))


def _set(number: int, outcome: RunOutcome, gate: Gate | None) -> SetReport:
    judgement = _judgement(outcome, gate)
    tallies = tally(outcome.run) if outcome.run else ()
    reached = _rates_passed(judgement, gate, tallies)
    tests = tuple(_unit_test(outcome, t, r) for t, r in zip(tallies, reached, strict=True))
    problem, problem_type = _problem(outcome, judgement, tests)
    short = sum(t.counts.failed + t.counts.missing for t in tests)
    return SetReport(
        number=number,
        outcome=outcome,
        tests=tests,
        problem=problem,
        problem_type=problem_type,
        reasons=judgement.reasons if judgement else (),
        tolerated=short if outcome.verdict == "passed" else 0,
    )


def _judgement(outcome: RunOutcome, gate: Gate | None) -> Judgement | None:
    run = outcome.run
    judged = outcome.verdict in ("passed", "failed", "errored")
    return gate.judge(run) if gate and run and run.is_completed and judged else None


def _problem(
    outcome: RunOutcome, judgement: Judgement | None, tests: tuple[UnitTestReport, ...]
) -> tuple[str | None, str]:
    """Return what went wrong with the set as a whole, and the type of the problem."""
    error = outcome.error
    if error is not None:
        kind = error.type if isinstance(error, RecordedError) else type(error).__name__
        return str(error) or "no further detail", kind
    if outcome.verdict == "passed" or any(test.wrong for test in tests):
        return None, ""
    if judgement is not None:
        return "; ".join(judgement.reasons), outcome.verdict
    if outcome.verdict == "cancelled" and outcome.reason:
        return outcome.reason, outcome.verdict
    return UNEXPLAINED[outcome.verdict], outcome.verdict


def _rates_passed(
    judgement: Judgement | None, gate: Gate | None, tests: tuple[UnitTestTally, ...]
) -> Iterator[tuple[bool, ...]]:
    """Yield for each unit test whether the pass rate that each of its cases counts in was reached.

    Matched by position: a unit test may be in a set twice.
    """
    rates = iter(judgement.rates if judgement else ())
    per = None if gate is None or judgement is None or not judgement.rates else gate.per
    of_run = per == "run" and next(rates).verdict == "passed"
    for test in tests:
        cases = max(len(test.metrics), 1)
        if per == "metric":
            yield tuple(next(rates).verdict == "passed" for _ in range(cases))
        else:
            of_test = per == "unit_test" and next(rates).verdict == "passed"
            yield (of_run or of_test,) * cases


def _unit_test(
    outcome: RunOutcome, test: UnitTestTally, reached: tuple[bool, ...]
) -> UnitTestReport:
    cases = tuple(
        _metric_case(outcome, test, metric, excused=excused)
        for metric, excused in zip(test.metrics, reached, strict=False)
    )
    counts = test.counts
    if not cases:
        status = _status(outcome, test, counts, excused=reached[0])
        cases = (Case(None, None, None, counts, status, *_words(counts, test)),)
    errors: dict[str, list[int]] = {}
    for repeat, error in enumerate(test.errors):
        if error is not None:
            errors.setdefault(error, []).append(repeat)
    return UnitTestReport(
        id=test.unit_test_id,
        repeats=len(test.errors),
        counts=counts,
        cases=cases,
        errors=tuple(RepeatError(text, numbers(tuple(r))) for text, r in errors.items()),
    )


def _metric_case(
    outcome: RunOutcome, test: UnitTestTally, metric: MetricTally, *, excused: bool
) -> Case:
    counts = metric.counts
    seen, missing = _words(counts, test)
    failed = [(n, e) for n, e in enumerate(metric.evaluations) if e is not None and not e.passed]
    return Case(
        name=metric.name,
        metric_id=metric.metric_id,
        expected=criterion_in_words(metric.metric.success_criterion) if metric.metric else None,
        counts=counts,
        status=_status(outcome, test, counts, excused=excused),
        seen=seen,
        missing=missing,
        failed=numbers(tuple(n for n, _ in failed)),
        evaluations=tuple(e.metric_evaluation_result_id for _, e in failed),
    )


def _words(counts: Counts, test: UnitTestTally) -> tuple[str, str]:
    """Return the counts in words, and why repeats have no result."""
    errored = sum(error is not None for error in test.errors)
    without = counts.missing - errored
    missing = [f"{errored} errored"] if errored else []
    missing += [f"{without} without a result"] if without else []
    failed = [f"{counts.failed} failed"] if counts.failed else []
    passed = f"{counts.passed} of {plural(sum(counts), 'repeat')} passed"
    return ", ".join([passed, *failed, *missing]), ", ".join(missing)


def _status(outcome: RunOutcome, test: UnitTestTally, counts: Counts, *, excused: bool) -> Status:
    """Return the status of a case; "passed" if its set or its rate in the gate passed."""
    if outcome.verdict == "passed" or excused:
        return "passed"
    if counts.failed:
        return "failed"
    if any(error is not None for error in test.errors):
        return "errored"
    if not counts.missing:
        return "passed"
    over = outcome.run is not None and outcome.run.is_completed
    return "errored" if over and outcome.verdict != "cancelled" else "unfinished"


def verdict_in_words(each: SetReport) -> str:
    """Format the verdict of a set; "passed, incomplete" if it passed with an error."""
    words = VERDICT_WORDS[each.outcome.verdict]
    incomplete = each.outcome.verdict == "passed" and not each.fine
    return f"{words}, incomplete" if incomplete else words


# The first of these verdicts that occurs is the verdict of the batch.
_WORST_FIRST = ("failed", "errored", "timed_out", "not_started", "cancelled")


class Headline(Struct, frozen=True):
    """The verdict of a batch in a few words.

    Attributes:
        verdict: ``"passed"``, the worst verdict that occurs, ``"incomplete"`` (all passed, but
            with errors) or ``"empty"``.
        words: The verdict as a heading.
        sentence: The number of sets by verdict.
        tests: Number of visible unit tests.
        repeats: Number of repeats with a result.
        repeats_passed: Number of repeats that passed every metric.
        tolerated: Number of repeats that failed or errored in sets that passed.
    """

    verdict: str
    words: str
    sentence: str
    tests: int
    repeats: int
    repeats_passed: int
    tolerated: int


def headline(result: BatchResult, sets: tuple[SetReport, ...]) -> Headline:
    """Return the headline of a report of `result`."""
    verdict, words, sentence = _verdict(result)
    counts = [test.counts for each in sets for test in each.tests]
    return Headline(
        verdict=verdict,
        words=words,
        sentence=sentence,
        tests=len(counts),
        repeats=sum(c.evaluated for c in counts),
        repeats_passed=sum(c.passed for c in counts),
        tolerated=sum(each.tolerated for each in sets),
    )


def _verdict(result: BatchResult) -> tuple[str, str, str]:
    total = len(result.outcomes)
    if not total:
        return "empty", "Nothing was run", "There are no sets."
    if result.passed:
        return "passed", "Passed", "The set passed." if total == 1 else f"All {total} sets passed."
    counts = result.counts
    if counts.get("passed") == total:
        lacking = sum(outcome.error is not None for outcome in result.outcomes)
        sentence = f"All sets passed, but {lacking} of {total} could not be collected completely."
        return "incomplete", "Passed, incomplete", sentence
    worst = next(verdict for verdict in _WORST_FIRST if verdict in counts)
    parts = [f"{counts[v]} {VERDICT_WORDS[v]}" for v in ("passed", *_WORST_FIRST) if v in counts]
    return worst, VERDICT_WORDS[worst].capitalize(), f"{plural(total, 'set')}: {', '.join(parts)}."
