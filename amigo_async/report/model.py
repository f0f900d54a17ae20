"""The content of all reports, independent of their format: sets, unit tests and cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from amigo_async.batch.outcomes import UNEXPLAINED, VERDICT_WORDS, BatchResult, RunOutcome, is_fine
from amigo_async.models import Evaluation, EvaluationResult, SimulationEvaluationSource
from amigo_async.names import Explanations, Names
from amigo_async.report.compared import STATUS_WORDS, compared_batch
from amigo_async.report.json import RecordedError
from amigo_async.report.links import Links
from amigo_async.report.wording import (
    MOST_OF_A_JUSTIFICATION,
    counts_in_words,
    criterion_in_words,
    duration,
    failure_in_words,
    numbers,
    plural,
    repeats_in_words,
    repeats_named,
    short_text,
    shown_name,
    value_in_words,
)
from amigo_async.verdicts.gate import (
    AT_THE_END,
    Gate,
    Judgement,
    PassRate,
    limits_in_words,
    shortened,
)
from amigo_async.verdicts.tally import Counts, MetricTally, UnitTestTally, tally

Status: TypeAlias = Literal[
    "passed", "failed", "errored", "undecided", "unfinished", "known_failing"
]

# Messages that are named as what an evaluation rests on.
_MOST_REFERENCES = 3

# Ids within sentences.
_ID = re.compile(r"\b[0-9a-f]{24}\b")


class RepeatError(Struct, frozen=True, gc=False):
    """An error that occurred in one repeat or several.

    Attributes:
        text: The error message of the service.
        repeats: The numbers of the repeats, from 1.
        count: How many repeats these are.
    """

    text: str
    repeats: str
    count: int


class Reason(Struct, frozen=True, gc=False):
    """What was seen in one failed repeat or several, and why it did not do.

    Attributes:
        repeats: The numbers of the repeats, from 1.
        seen: The value in words; None if it was not read.
        justification: Why, in the words of the model that judged, redacted and cut; None if it was
            not read.
        references: Ids of the first messages that this rests on.
    """

    repeats: str
    seen: str | None
    justification: str | None
    references: tuple[str, ...]

    @property
    def where(self) -> str:
        """The repeats, in words."""
        return repeats_named(self.repeats)

    @property
    def words(self) -> str:
        """What was seen, where, and why, in a sentence."""
        return failure_in_words(self.seen, self.repeats, self.justification)


class Case(Struct, frozen=True, gc=False):
    """A unit test by one metric; or as a whole, if no metric is visible.

    Attributes:
        name: Name of the metric; None without one.
        metric_id: Id of the metric; None without one.
        expected: Required value of the metric, in words; None if unknown.
        counts: Repeats that passed, failed, or have no result.
        status: The status that follows from the counts and the verdict of the set.
        seen: The counts in words; with the limits of the rate, if the gate has a confidence.
        failed: Numbers of the repeats that failed, from 1; empty if none failed.
        evaluations: Ids of the failed evaluations.
        reasons: What was seen in the repeats that failed; those that were explained come first.
    """

    name: str | None
    metric_id: str | None
    expected: str | None
    counts: Counts
    status: Status
    seen: str
    failed: str = ""
    evaluations: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @property
    def label(self) -> str:
        """The name of the metric, or "repeats" without one."""
        return self.name or "repeats"

    @property
    def words(self) -> str:
        """What was expected, and what was seen first: ``expected at least 4, saw 2 in ...``."""
        expected = f"expected {self.expected}" if self.expected and self.reasons else ""
        if not self.reasons or self.reasons[0].seen is None:
            return "; ".join(filter(None, [expected, self.seen]))
        more = f"; {self.seen}" if len(self.reasons) > 1 else ""
        return ", ".join(filter(None, [expected, self.reasons[0].words])) + more


class UnitTestReport(Struct, frozen=True, gc=False):
    """A unit test of a set.

    Attributes:
        id: Id of the unit test.
        name: Its name; None if unknown.
        link: Where to look further; None for nowhere.
        repeats: Number of repeats requested.
        counts: Repeats that passed every metric, failed one, or have no result.
        seen: The counts in words; with the limits of the rate, if the gate has a confidence.
        cases: One case per metric.
        errors: Errors that occurred in its repeats.
        rate: Its pass rate by the gate; None if the gate does not compare it.
    """

    id: str
    name: str | None
    link: str | None
    repeats: int
    counts: Counts
    seen: str
    cases: tuple[Case, ...]
    errors: tuple[RepeatError, ...]
    rate: PassRate | None

    @property
    def label(self) -> str:
        """The name of the unit test, or its id."""
        return self.name or self.id

    @property
    def wrong(self) -> tuple[Case, ...]:
        """The cases that failed or errored."""
        return tuple(case for case in self.cases if case.status in ("failed", "errored"))

    @property
    def status(self) -> Status:
        """The worst status of its cases."""
        found = {case.status for case in self.cases}
        order: tuple[Status, ...] = (
            *("failed", "errored", "unfinished", "undecided", "known_failing", "passed"),
        )
        return next(status for status in order if status in found)


class Finding(Struct, frozen=True, gc=False):
    """What one unit test contributes to a group.

    Attributes:
        test: The unit test.
        case: The metric that failed; None for an error.
        words: How often it occurred, in words.
    """

    test: UnitTestReport
    case: Case | None
    words: str

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What was seen in the repeats that failed."""
        return self.case.reasons if self.case else ()


class Group(Struct, frozen=True, gc=False):
    """The unit tests of a set that failed by the same criterion, or with the same error.

    Attributes:
        status: ``"errored"`` or ``"failed"``.
        title: Name of the metric, or the error.
        metric_id: Id of the metric; None for an error.
        expected: Required value of the metric, in words; None if unknown, or for an error.
        extent: The number of unit tests in words.
        findings: What each unit test contributes.
    """

    status: Status
    title: str
    metric_id: str | None
    expected: str | None
    extent: str
    findings: tuple[Finding, ...]


class Amounts(Struct, frozen=True, gc=False):
    """Numbers of unit tests and repeats that were asked for, as far as they are visible.

    Attributes:
        tests: Number of unit tests.
        tests_failed: Number of unit tests that failed a metric.
        tests_errored: Number of other unit tests with an error.
        tests_unfinished: Number of unit tests that have not ended.
        tests_undecided: Number of unit tests with too few repeats for the gate to tell.
        tests_known_failing: Number of unit tests that are known to fail, and did not pass.
        repeats: Number of repeats.
        repeats_passed: Number of repeats that passed every metric.
        repeats_failed: Number of repeats that failed a metric.
        repeats_errored: Number of repeats with an error.
    """

    tests: int
    tests_failed: int
    tests_errored: int
    tests_unfinished: int
    tests_undecided: int
    tests_known_failing: int
    repeats: int
    repeats_passed: int
    repeats_failed: int
    repeats_errored: int

    @property
    def tests_in_words(self) -> str:
        """How many unit tests failed: ``142 of 500 unit tests failed, 3 errored``."""
        rest = [
            (self.tests_failed, "failed"),
            (self.tests_errored, "errored"),
            (self.tests_unfinished, "not finished"),
            (self.tests_undecided, "undecided"),
            (self.tests_known_failing, "known to fail"),
        ]
        first, *others = [pair for pair in rest if pair[0]] or [(self.tests, "passed")]
        words = f"{first[0]:,} of {plural(self.tests, 'unit test')} {first[1]}"
        return ", ".join([words, *counts_in_words(others)])

    @property
    def repeats_in_words(self) -> str:
        """How many repeats passed: ``9 of 12 repeats passed, 3 errored``."""
        done = self.repeats_passed + self.repeats_failed + self.repeats_errored
        return repeats_in_words(
            self.repeats_passed,
            self.repeats,
            self.repeats_failed,
            self.repeats_errored,
            self.repeats - done,
        )


def amounts(tests: Iterable[UnitTestReport]) -> Amounts:
    """Count unit tests and their repeats."""
    every = list(tests)
    status = Counter(test.status for test in every)
    return Amounts(
        tests=len(every),
        tests_failed=status["failed"],
        tests_errored=status["errored"],
        tests_unfinished=status["unfinished"],
        tests_undecided=status["undecided"],
        tests_known_failing=status["known_failing"],
        repeats=sum(test.repeats for test in every),
        repeats_passed=sum(test.counts.passed for test in every),
        repeats_failed=sum(test.counts.failed for test in every),
        repeats_errored=sum(error.count for test in every for error in test.errors),
    )


class SetReport(Struct, frozen=True, gc=False):
    """A set of the batch.

    Attributes:
        number: Its position in the batch, from 1.
        outcome: Its outcome.
        name: Its name; None if unknown.
        link: Where to look further; None for nowhere.
        tests: Its unit tests, as far as they are visible.
        amounts: The numbers of its unit tests and repeats.
        groups: What went wrong with its unit tests: errors first, then what most have in common.
        problem: What went wrong with the set as a whole; None if nothing did, or the unit tests
            show it.
        problem_type: The class of the error, or the verdict.
        reasons: The reasons of the gate; empty without a gate.
        tolerated: Number of repeats that failed or errored although the set passed.
    """

    number: int
    outcome: RunOutcome
    name: str | None
    link: str | None
    tests: tuple[UnitTestReport, ...]
    amounts: Amounts
    groups: tuple[Group, ...]
    problem: str | None
    problem_type: str
    reasons: tuple[str, ...]
    tolerated: int

    @property
    def id(self) -> str:
        """Id of the set."""
        return self.outcome.unit_test_set_id

    @property
    def label(self) -> str:
        """The name of the set, or its id."""
        return self.name or self.id

    @property
    def status(self) -> str:
        """Its verdict; ``"incomplete"`` if it passed with an error."""
        verdict = self.outcome.verdict
        return "incomplete" if verdict == "passed" and not self.fine else verdict

    @property
    def criteria(self) -> tuple[str, ...]:
        """What its unit tests are judged by, each criterion once."""
        cases = (case for test in self.tests for case in test.cases)
        names = (f"{c.name} ({c.expected})" if c.expected else c.name for c in cases if c.name)
        return tuple(dict.fromkeys(names))

    @property
    def fine(self) -> bool:
        """Whether the set passed without an error."""
        return is_fine(self.outcome)


class _Context(NamedTuple):
    gate: Gate | None
    names: Names
    explanations: Explanations
    links: Links


def set_reports(
    result: BatchResult, gate: Gate | None, link: str | None = None
) -> tuple[SetReport, ...]:
    """Build the content of the reports for each set, in the order of the batch.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        link: Template of links; None for none.

    Raises:
        ArgumentError: If `link` is not a URL with placeholders for ids.
    """
    context = _Context(gate, result.names, result.explanations, Links(link))
    return tuple(_set(n, outcome, context) for n, outcome in enumerate(result.outcomes, 1))


def _set(number: int, outcome: RunOutcome, context: _Context) -> SetReport:
    gate, set_id = context.gate, outcome.unit_test_set_id
    judgement = _judgement(outcome, gate)
    tallies = tally(outcome.run) if outcome.run else ()
    rates = _rates(judgement, gate, tallies)
    tests = tuple(
        _unit_test(outcome, test, of_cases, context)
        for test, of_cases in zip(tallies, rates, strict=True)
        if not _says_nothing(test)
    )
    reasons = tuple(named_ids(r, context.names) for r in judgement.reasons) if judgement else ()
    problem, problem_type = _problem(outcome, reasons, tests)
    known = outcome.known_failing
    short = sum(t.counts.failed + t.counts.missing for t in tests if t.id not in known)
    return SetReport(
        number=number,
        outcome=outcome,
        name=shown_name(outcome.name or context.names.unit_test_sets.get(set_id)),
        link=context.links.of_set(set_id, outcome.run_id),
        tests=tests,
        amounts=amounts(tests),
        groups=_groups(tests),
        problem=problem,
        problem_type=problem_type,
        reasons=reasons,
        tolerated=short if outcome.verdict == "passed" else 0,
    )


def _says_nothing(test: UnitTestTally) -> bool:
    """Return whether nothing is known of a unit test but that it is over: it may have failed."""
    over = test.done == len(test.errors)
    return test.hidden and over and all(error is None for error in test.errors)


def named_ids(sentence: str, names: Names) -> str:
    """Replace the ids of unit tests and metrics in a sentence by names."""

    def name(match: re.Match[str]) -> str:
        known = names.unit_tests.get(match[0]) or names.metrics.get(match[0])
        return shown_name(known) or match[0]

    return _ID.sub(name, sentence)


def _judgement(outcome: RunOutcome, gate: Gate | None) -> Judgement | None:
    run = outcome.run
    judged = outcome.verdict in AT_THE_END
    if not gate or not run or not run.is_completed or not judged:
        return None
    return gate.judge(run, known_failing=outcome.known_failing)


def _problem(
    outcome: RunOutcome, reasons: tuple[str, ...], tests: tuple[UnitTestReport, ...]
) -> tuple[str | None, str]:
    """Return what went wrong with the set as a whole, and the type of the problem."""
    error = outcome.error
    if error is not None:
        kind = error.type if isinstance(error, RecordedError) else type(error).__name__
        return str(error) or "no further detail", kind
    if outcome.verdict == "passed" or any(test.wrong for test in tests):
        return None, ""
    if reasons:
        return "; ".join(shortened(reasons)), outcome.verdict
    if outcome.verdict in ("cancelled", "undecided") and outcome.reason:
        return outcome.reason, outcome.verdict
    return UNEXPLAINED[outcome.verdict], outcome.verdict


def _rates(
    judgement: Judgement | None, gate: Gate | None, tests: tuple[UnitTestTally, ...]
) -> Iterator[tuple[PassRate | None, ...]]:
    """Yield for each unit test the pass rates that its cases count in; None for those without.

    Matched by position: a unit test may be in a set twice.
    """
    rates = iter(judgement.rates if judgement else ())
    per = None if gate is None or judgement is None or not judgement.rates else gate.per
    of_run = next(rates) if per == "run" else None
    for test in tests:
        cases = max(len(test.metrics), 1)
        if per == "metric":
            yield tuple(next(rates) for _ in range(cases))
        else:
            yield (next(rates) if per == "unit_test" else of_run,) * cases


def _unit_test(
    outcome: RunOutcome,
    test: UnitTestTally,
    rates: tuple[PassRate | None, ...],
    context: _Context,
) -> UnitTestReport:
    cases = tuple(
        _metric_case(outcome, test, metric, context, rate)
        for metric, rate in zip(test.metrics, rates, strict=False)
    )
    counts = test.counts
    # The rate of the unit test itself, and not of one of its metrics, or of the whole run.
    of_test = rates[0] if rates[0] and rates[0].unit_test_id and not rates[0].metric_id else None
    seen = _words(counts, test, of_test)
    if not cases:
        status = _status(outcome, test, counts, rates[0])
        cases = (Case(None, None, None, counts, status, seen),)
    errors: dict[str, list[int]] = {}
    for repeat, error in enumerate(test.errors):
        if error is not None:
            errors.setdefault(error, []).append(repeat)
    return UnitTestReport(
        id=test.unit_test_id,
        name=shown_name(context.names.unit_tests.get(test.unit_test_id)),
        link=context.links.of_unit_test(
            outcome.unit_test_set_id, outcome.run_id, test.unit_test_id
        ),
        repeats=len(test.errors),
        counts=counts,
        seen=seen,
        cases=cases,
        errors=tuple(RepeatError(text, numbers(tuple(r)), len(r)) for text, r in errors.items()),
        rate=of_test,
    )


def _metric_case(
    outcome: RunOutcome,
    test: UnitTestTally,
    metric: MetricTally,
    context: _Context,
    rate: PassRate | None,
) -> Case:
    counts = metric.counts
    failed = [
        (_repeat(n, e, context.explanations), e)
        for n, e in enumerate(metric.evaluations)
        if e is not None and not e.passed
    ]
    named = metric.metric.success_criterion_name if metric.metric else ""
    return Case(
        name=shown_name(named or context.names.metric(metric.metric_id)),
        metric_id=metric.metric_id,
        expected=criterion_in_words(metric.metric.success_criterion) if metric.metric else None,
        counts=counts,
        status=_status(outcome, test, counts, rate),
        seen=_words(counts, test, rate if rate and rate.metric_id else None),
        failed=_numbers(n for n, _ in failed),
        evaluations=tuple(e.metric_evaluation_result_id for _, e in failed),
        reasons=_reasons(failed, context.explanations),
    )


def _numbers(repeats: Iterable[int]) -> str:
    return numbers(tuple(sorted(set(repeats))))


def _repeat(number: int, evaluation: Evaluation, explanations: Explanations) -> int:
    """Return the repeat of an evaluation: as the service says, or else by its position."""
    match explanations.get(evaluation.metric_evaluation_result_id):
        case EvaluationResult(source=SimulationEvaluationSource(run_index=index)) if index >= 0:
            return index
    return number


def _reasons(
    failed: list[tuple[int, Evaluation]], explanations: Explanations
) -> tuple[Reason, ...]:
    """Return what was seen in repeats that failed, those with the same reason together."""
    alike: dict[tuple[str, str] | None, tuple[list[int], list[str]]] = {}
    for repeat, evaluation in failed:
        read = explanations.get(evaluation.metric_evaluation_result_id)
        why = short_text(read.justification, MOST_OF_A_JUSTIFICATION) if read else ""
        key = (value_in_words(read.result), why) if read else None
        repeats, references = alike.setdefault(key, ([], []))
        repeats.append(repeat)
        references += getattr(read.source, "references", ()) if read else ()
    explained = sorted(alike.items(), key=lambda item: item[0] is None)
    return tuple(
        Reason(
            repeats=_numbers(repeats),
            seen=key[0] if key else None,
            justification=(key[1] or None) if key else None,
            references=tuple(dict.fromkeys(references))[:_MOST_REFERENCES],
        )
        for key, (repeats, references) in explained
    )


def _words(counts: Counts, test: UnitTestTally, rate: PassRate | None) -> str:
    """Return the counts in words, with the limits of their rate if there are any."""
    errored = sum(error is not None for error in test.errors)
    without = counts.missing - errored
    words = repeats_in_words(counts.passed, sum(counts), counts.failed, errored, without)
    if rate is None or rate.low is None or rate.high is None:
        return words
    return f"{words} (rate {limits_in_words(rate.low, rate.high)})"


def _status(
    outcome: RunOutcome, test: UnitTestTally, counts: Counts, rate: PassRate | None
) -> Status:
    """Return the status of a case; "passed" if its set or its rate in the gate passed."""
    known = test.unit_test_id in outcome.known_failing and outcome.verdict != "cancelled"
    sound = not counts.failed and not counts.missing
    verdict = rate.verdict if rate else outcome.verdict
    # The rate of the whole run, or an unknown one, says nothing of a unit test that passed.
    alone = rate is not None and rate.unit_test_id is not None
    over = outcome.run is not None and outcome.run.is_completed
    status: Status = "errored" if over and outcome.verdict != "cancelled" else "unfinished"
    if known:
        status = "passed" if sound else "known_failing"
    elif "passed" in (outcome.verdict, verdict):
        status = "passed"
    elif verdict == "undecided" and (alone or not sound):
        status = "undecided"
    elif counts.failed:
        status = "failed"
    elif any(error is not None for error in test.errors):
        status = "errored"
    elif sound:
        status = "passed"
    return status


NO_RESULT = "no result, although the run is complete"


def _groups(tests: tuple[UnitTestReport, ...]) -> tuple[Group, ...]:
    """Group what went wrong: errors by their text, failures by their criterion."""
    errored: dict[str, list[Finding]] = {}
    failed: dict[tuple[str | None, str, str | None], list[Finding]] = {}
    for test in tests:
        if not test.wrong:
            continue
        for error in test.errors:
            words = f"in {repeats_named(error.repeats)} of {test.repeats}"
            errored.setdefault(error.text, []).append(Finding(test, None, words))
        if not test.errors and any(case.status == "errored" for case in test.wrong):
            errored.setdefault(NO_RESULT, []).append(Finding(test, None, test.seen))
        for case in test.wrong:
            if case.status == "failed":
                key = case.metric_id, case.label, case.expected
                failed.setdefault(key, []).append(Finding(test, case, case.seen))
    groups = [
        *(Group("errored", text, None, None, _extent(f), tuple(f)) for text, f in errored.items()),
        *(
            Group("failed", label, metric_id, expected, _extent(f), tuple(f))
            for (metric_id, label, expected), f in failed.items()
        ),
    ]
    return tuple(sorted(groups, key=lambda g: (g.status == "failed", -len(g.findings))))


def _extent(findings: list[Finding]) -> str:
    return plural(len(findings), "unit test")


def verdict_in_words(each: SetReport) -> str:
    """Format the verdict of a set; "passed, incomplete" if it passed with an error."""
    words = VERDICT_WORDS[each.outcome.verdict]
    return f"{words}, incomplete" if each.status == "incomplete" else words


def took(outcome: RunOutcome) -> str:
    """Format the duration of the run of a set; empty if unknown."""
    if outcome.started_at is None or outcome.finished_at is None:
        return ""
    return duration((outcome.finished_at - outcome.started_at).total_seconds())


# What a failure is: a metric that failed, or a regression against the baseline.
FailOn: TypeAlias = Literal["failure", "regression"]


def without_metrics(result: BatchResult) -> BatchResult:
    """Return a result whose sets do not fail by their metrics, as regressions alone count."""
    outcomes = [
        replace(one, verdict="passed") if one.verdict in ("failed", "undecided") else one
        for one in result.outcomes
    ]
    return replace(result, outcomes=outcomes)


# The first of these verdicts that occurs is the verdict of the batch.
_WORST_FIRST = ("failed", "errored", "timed_out", "not_started", "cancelled", "undecided")


class Headline(Struct, frozen=True):
    """The verdict of a batch in a few words.

    Attributes:
        verdict: ``"passed"``, the worst verdict that occurs, ``"incomplete"`` (all passed, but
            with errors) or ``"empty"``.
        words: The verdict as a heading.
        sentence: The number of sets by verdict, and of unit tests and repeats.
        tolerated: Number of repeats that failed or errored in sets that passed.
        notes: What to know besides: unit tests that are known to fail and pass again, sets with
            too few repeats for the gate, what could not be read; a sentence each.
    """

    verdict: str
    words: str
    sentence: str
    tolerated: int
    notes: tuple[str, ...]


def headline(
    result: BatchResult, sets: tuple[SetReport, ...], fail_on: FailOn = "failure"
) -> Headline:
    """Return the headline of a report of `result`."""
    regression = fail_on == "regression" and bool(result.outcomes)
    verdict, words, sentence = (_verdict_on_regressions if regression else _verdict)(result)
    counted = amounts(test for each in sets for test in each.tests)
    if counted.tests:
        if len(sets) == 1 and not sets[0].fine:  # the heading says the rest
            sentence = f"{sets[0].label}:"
        sentence += f" {counted.tests_in_words}; {counted.repeats_in_words}."
    return Headline(
        verdict=verdict,
        words=words,
        sentence=sentence,
        tolerated=sum(each.tolerated for each in sets),
        notes=notes_of(result),
    )


def notes_of(result: BatchResult) -> tuple[str, ...]:
    """Return what to know of a result besides its outcomes, a sentence each."""
    read = (*result.names.notes, *result.explanations.notes)
    return (*_passing_again(result), *result.notes, *read)


def _passing_again(result: BatchResult) -> tuple[str, ...]:
    """Name the unit tests that are known to fail, and passed every repeat; a sentence each."""
    known = result.names.unit_tests

    def entry(test_id: str) -> str:
        """Return what the known failures may have for a unit test: its name is that of others."""
        return known.get(test_id, "").strip().casefold() or test_id

    again: dict[str, dict[str, None]] = {}
    failing: set[str] = set()  # one that still fails, also in another set, is still known to fail
    for outcome in result.outcomes:
        for test_id in outcome.known_failing:
            if test_id in outcome.passing_again:
                again.setdefault(entry(test_id), {})[test_id] = None
            else:
                failing.add(entry(test_id))
    return tuple(
        f"{_passing(list(ids), result.names)} from the known failures"
        for one, ids in again.items()
        if one not in failing
    )


def _passing(test_ids: list[str], names: Names) -> str:
    first, *others = test_ids
    name = shown_name(names.unit_tests.get(first))
    if others:
        return (
            f"the {len(test_ids)} unit tests called {name} are known to fail, and passed every "
            "repeat: they may be removed"
        )
    called = f"{name} ({first})" if name else first
    return f"unit test {called} is known to fail, and passed every repeat: it may be removed"


def default_title(result: BatchResult) -> str:
    """Return a title that names the organization, if the runs are of one."""
    organizations = {outcome.run.org_id for outcome in result.outcomes if outcome.run}
    return " of ".join(["Unit test sets", *(organizations if len(organizations) == 1 else ())])


def _verdict_on_regressions(result: BatchResult) -> tuple[str, str, str]:
    """Return the verdict where regressions count and metrics do not; all sets are counted."""
    compared = compared_batch(result)
    status = "no_baseline" if compared is None else compared.status
    verdict, words, _ = _verdict(without_metrics(result))
    if status == "regressed" or verdict == "passed":
        verdict = {"regressed": "failed", "no_change_seen": "passed", "improved": "passed"}.get(
            status, "empty"
        )
        words = "No baseline" if status == "no_baseline" else STATUS_WORDS[status].capitalize()
    return verdict, words, _verdict(result)[2]


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
