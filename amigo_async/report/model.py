"""What all reports tell of a batch, before it takes a form: sets, their unit tests, their cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.report.json import RecordedError
from amigo_async.report.words import VERDICT_WORDS, criterion_in_words, numbers, plural
from amigo_async.verdicts.gate import Gate, Judgement
from amigo_async.verdicts.tally import Counts, MetricTally, UnitTestTally, tally

Status: TypeAlias = Literal["passed", "failed", "errored", "unfinished"]


class Met(Struct, frozen=True):
    """An error that repeats met.

    Attributes:
        text: The error, as the service tells it.
        repeats: Which repeats, as people count them.
    """

    text: str
    repeats: str


class Case(Struct, frozen=True):
    """A unit test in one metric; or as a whole, where no metric is shown.

    Attributes:
        name: What the metric is called; None without one.
        metric_id: The metric; None without one.
        expected: What the metric has to be, in words; None where that is not known.
        counts: How many repeats passed, failed, or came to nothing.
        status: What that comes to, by the verdict on the set.
        seen: What was seen, in words.
        missing: Why repeats came to nothing, in words; empty where none did.
        failed: Which repeats failed, as people count them; empty if none.
        evaluations: The ids of the evaluations that failed.
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
        """What to call the case."""
        return self.name or "repeats"


class UnitTest(Struct, frozen=True):
    """A unit test of a set.

    Attributes:
        id: The unit test.
        repeats: How many repeats were asked for.
        counts: How many of them passed every metric, failed one, or came to nothing.
        cases: It in each of its metrics.
        errors: The errors its repeats met.
    """

    id: str
    repeats: int
    counts: Counts
    cases: tuple[Case, ...]
    errors: tuple[Met, ...]

    @property
    def wrong(self) -> tuple[Case, ...]:
        """The cases that failed or errored."""
        return tuple(case for case in self.cases if case.status in ("failed", "errored"))


class SetView(Struct, frozen=True):
    """A set of the batch.

    Attributes:
        number: Its place in the batch, from 1.
        outcome: What became of it.
        tests: Its unit tests, as far as they are shown.
        problem: What went wrong with the set as a whole; None if that is told by its unit tests,
            or nothing did.
        problem_type: What kind of problem.
        reasons: Why the gate judged as it did; empty without one.
        tolerated: How many repeats failed or errored of a set that passed all the same.
    """

    number: int
    outcome: RunOutcome
    tests: tuple[UnitTest, ...]
    problem: str | None
    problem_type: str
    reasons: tuple[str, ...]
    tolerated: int

    @property
    def fine(self) -> bool:
        """Whether the set passed and nothing is missing."""
        return self.outcome.verdict == "passed" and self.outcome.error is None

    @property
    def wrong(self) -> tuple[UnitTest, ...]:
        """The unit tests of which a case failed or errored."""
        return tuple(test for test in self.tests if test.wrong)


def view(result: BatchResult, gate: Gate | None) -> tuple[SetView, ...]:
    """The sets of `result`, in their order.

    Args:
        result: The batch.
        gate: What its verdicts were given by; None for the runs' own flags.
    """
    return tuple(_set(n, outcome, gate) for n, outcome in enumerate(result.outcomes, 1))


def _set(number: int, outcome: RunOutcome, gate: Gate | None) -> SetView:
    judgement = _judgement(outcome, gate)
    tallies = tally(outcome.run) if outcome.run else ()
    reached = _reached(judgement, gate, tallies)
    tests = tuple(_unit_test(outcome, t, r) for t, r in zip(tallies, reached, strict=True))
    problem, problem_type = _problem(outcome, judgement, tests)
    short = sum(t.counts.failed + t.counts.missing for t in tests)
    return SetView(
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
    outcome: RunOutcome, judgement: Judgement | None, tests: tuple[UnitTest, ...]
) -> tuple[str | None, str]:
    """What went wrong with the set as a whole, and what kind of problem it is."""
    error = outcome.error
    if error is not None:
        kind = error.type if isinstance(error, RecordedError) else type(error).__name__
        return str(error) or "no further detail", kind
    if outcome.verdict == "passed" or any(test.wrong for test in tests):
        return None, ""
    if judgement is not None:
        return "; ".join(judgement.reasons), outcome.verdict
    said = {
        "failed": "a metric failed; the results that are shown do not tell which",
        "errored": "the run met an error; the results that are shown do not tell which",
        "timed_out": "the deadline passed before the run was over; it goes on",
        "cancelled": outcome.reason or "the run was cancelled",
        "not_started": "no run was started: another set failed, or the time ran out",
    }
    return said[outcome.verdict], outcome.verdict


def _reached(
    judgement: Judgement | None, gate: Gate | None, tests: tuple[UnitTestTally, ...]
) -> Iterator[tuple[bool, ...]]:
    """Whether the rate that a case counts in was reached, for each case of each unit test.

    By position: a unit test may be in a set twice, and a search would be made for every case.
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


def _unit_test(outcome: RunOutcome, test: UnitTestTally, reached: tuple[bool, ...]) -> UnitTest:
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
    return UnitTest(
        id=test.unit_test_id,
        repeats=len(test.errors),
        counts=counts,
        cases=cases,
        errors=tuple(Met(text, numbers(tuple(r))) for text, r in errors.items()),
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
    """What was seen, and why repeats came to nothing."""
    errored = sum(error is not None for error in test.errors)
    without = counts.missing - errored
    missing = [f"{errored} errored"] if errored else []
    missing += [f"{without} without a result"] if without else []
    failed = [f"{counts.failed} failed"] if counts.failed else []
    passed = f"{counts.passed} of {plural(sum(counts), 'repeat')} passed"
    return ", ".join([passed, *failed, *missing]), ", ".join(missing)


def _status(outcome: RunOutcome, test: UnitTestTally, counts: Counts, *, excused: bool) -> Status:
    """What a case comes to: never wrong in a set, or by a rate of the gate, that passed."""
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


def verdict_in_words(view_of_set: SetView) -> str:
    """The verdict on a set; one that passed but lacks something says so."""
    words = VERDICT_WORDS[view_of_set.outcome.verdict]
    incomplete = view_of_set.outcome.verdict == "passed" and not view_of_set.fine
    return f"{words}, incomplete" if incomplete else words


# Which verdict names a batch that has several; the first that occurs.
_WORST_FIRST = ("failed", "errored", "timed_out", "not_started", "cancelled")


class Headline(Struct, frozen=True):
    """The verdict on a batch in a few words.

    Attributes:
        verdict: ``"passed"``, the worst verdict that occurs, ``"incomplete"`` (all passed, but
            something is missing) or ``"empty"``.
        words: It, as a heading.
        sentence: How many sets came to what.
        tests: Unit tests that are shown.
        repeats: Repeats there is a result of.
        repeats_passed: Of these, the ones that passed every metric.
        tolerated: Repeats that fell short in sets that passed all the same.
    """

    verdict: str
    words: str
    sentence: str
    tests: int
    repeats: int
    repeats_passed: int
    tolerated: int


def headline(result: BatchResult, sets: tuple[SetView, ...]) -> Headline:
    """The verdict on `result`."""
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
        return "empty", "Nothing was run", "No set was asked for."
    if result.passed:
        return "passed", "Passed", "The set passed." if total == 1 else f"All {total} sets passed."
    counts = result.counts
    if counts.get("passed") == total:
        lacking = sum(outcome.error is not None for outcome in result.outcomes)
        sentence = f"All sets passed, but {lacking} of {total} could not be collected whole."
        return "incomplete", "Passed, incomplete", sentence
    worst = next(verdict for verdict in _WORST_FIRST if verdict in counts)
    parts = [f"{counts[v]} {VERDICT_WORDS[v]}" for v in ("passed", *_WORST_FIRST) if v in counts]
    return worst, VERDICT_WORDS[worst].capitalize(), f"{plural(total, 'set')}: {', '.join(parts)}."
