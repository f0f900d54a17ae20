"""Verdicts on runs of agents that are not deterministic.

The flags of a run report a failure as soon as one repeat of one unit test fails. A `Gate` requires
a minimum pass rate instead, and with a confidence it tells what the repeats have shown from what
chance alone explains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from msgspec import Struct

from amigo_async.checks import check_choice
from amigo_async.errors import ArgumentError
from amigo_async.models import Run, UnitTestSet
from amigo_async.verdicts.statistics import (
    binomial_at_most,
    clopper_pearson_lower,
    clopper_pearson_upper,
    fewest_repeats,
    holm,
    repeats_to_decide,
)
from amigo_async.verdicts.tally import Counts, UnitTestTally, tally

RateVerdict: TypeAlias = Literal["passed", "failed", "undecided", "errored"]
GateVerdict: TypeAlias = Literal["passed", "failed", "undecided", "errored", "cancelled"]
Verdict: TypeAlias = Literal[
    "passed", "failed", "undecided", "errored", "timed_out", "cancelled", "not_started"
]
# The verdicts on runs that went on to their end, and those on which evaluations tell more.
AT_THE_END: Final = frozenset[Verdict]({"passed", "failed", "undecided", "errored"})
EXPLAINED: Final = frozenset[Verdict]({"failed", "undecided", "errored", "cancelled"})

Per: TypeAlias = Literal["run", "unit_test", "metric"]
Errored: TypeAlias = Literal["error", "fail", "ignore"]


class PassRate(Struct, frozen=True, kw_only=True):
    """The pass rate of a run, a unit test or a metric.

    Attributes:
        unit_test_id: Id of the unit test; None for the rate of the whole run.
        metric_id: Id of the metric; None if the rate is not that of a single metric.
        passed: Number of repeats that passed: all their metrics, or the one of `metric_id`.
        failed: Number of repeats that were evaluated and did not pass.
        errored: Number of repeats with an error, or without a result in a completed run.
        rate: Share of repeats that passed, from 0 to 1, with errored repeats counted as the gate
            says; None if no repeat counts.
        verdict: ``"passed"``, ``"failed"`` (too few passed), ``"undecided"`` (the gate has a
            confidence, and chance alone explains the difference) or ``"errored"``.
        low: Lower limit of the true rate, with the confidence of the gate (one-sided
            Clopper-Pearson); None if the gate has none, or no repeat counts.
        high: Upper limit of the true rate, in the same way.
        more_repeats: Number of further repeats that would decide at the present rate; None if the
            verdict is not ``"undecided"``, or no reasonable number would.
        known_failing: Whether the unit test is known to fail, so that its rate decides nothing.
    """

    unit_test_id: str | None = None
    metric_id: str | None = None
    passed: int
    failed: int
    errored: int
    rate: float | None
    verdict: RateVerdict
    low: float | None = None
    high: float | None = None
    more_repeats: int | None = None
    known_failing: bool = False


class Judgement(Struct, frozen=True, kw_only=True):
    """The verdict of a gate on a run.

    Attributes:
        verdict: ``"passed"``, ``"failed"`` (too few repeats passed), ``"undecided"`` (too few
            repeats to tell, with the confidence of the gate), ``"errored"`` or ``"cancelled"``
            (the run was cut short: some repeats never ran).
        reasons: The reasons for the verdict, one sentence each; never empty.
        rates: The pass rates that were compared, and those of unit tests that are known to fail;
            empty if `fell_back`.
        fell_back: Whether the verdict was taken from the flags of the run because some results are
            hidden by a missing permission.
    """

    verdict: GateVerdict
    reasons: tuple[str, ...]
    rates: tuple[PassRate, ...] = ()
    fell_back: bool = False


class Gate(Struct, frozen=True, kw_only=True):
    """What counts as passing: a minimum pass rate over repeats.

    Example::

        gate = Gate(min_pass_rate=0.9, per="unit_test", errored="fail")
        judgement = gate.judge(run)
        print(judgement.verdict, judgement.reasons)

        result = await client.run_many(set_ids, gate=gate)

    Agents answer differently each time. A unit test whose true rate is 0.95 fails a gate of 0.9 in
    23% of its runs with five repeats. With a confidence, the verdict is ``"failed"`` or
    ``"passed"`` only where chance does not explain it, and ``"undecided"`` otherwise::

        strict = Gate(min_pass_rate=0.9, confidence=0.95)
        assert strict.fewest_repeats == 29  # without a failure

    Args:
        min_pass_rate: Share of repeats that must pass, from 0 to 1; 0.9 means 90%. With a
            confidence less than 1: no number of repeats shows that every repeat passes.
        per: What the rate is computed for: ``"run"`` (all repeats of all unit tests together),
            ``"unit_test"`` (the repeats of each unit test; a repeat passes if all of its metrics
            do) or ``"metric"`` (each metric of each unit test).
        errored: How repeats count that have an error, or no result in a completed run:
            ``"error"`` (any of them makes the verdict ``"errored"``, as without a gate),
            ``"fail"`` (as failed) or ``"ignore"`` (not at all; if no other repeat is left, the
            verdict is ``"errored"``).
        confidence: How sure a verdict has to be, from 0.5 to less than 1; 0.95 means that
            ``"failed"`` is wrong for at most 5% of the runs whose rates all reach
            `min_pass_rate`, and ``"passed"`` for at most 5% of those of which one does not.
            ``"failed"`` is corrected for the number of rates that are compared (Holm). None, the
            default, compares the rates as they are, and is never undecided.

    Raises:
        ArgumentError: If an argument is invalid.
    """

    min_pass_rate: float = 1.0
    per: Per = "unit_test"
    errored: Errored = "error"
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_pass_rate <= 1:
            raise ArgumentError(
                "min_pass_rate must be a share from 0 to 1 (0.9 for 90%), "
                f"not {self.min_pass_rate!r}"
            )
        check_choice("per", self.per, get_args(Per))
        check_choice("errored", self.errored, get_args(Errored))
        if self.confidence is None:
            return
        if not 0.5 <= self.confidence < 1:
            raise ArgumentError(
                "confidence must be from 0.5 to less than 1 (0.95 for 95%), "
                f"not {self.confidence!r}"
            )
        if self.min_pass_rate == 1:
            raise ArgumentError(
                "min_pass_rate must be less than 1 with a confidence: no number of repeats shows "
                "that every repeat passes"
            )

    @property
    def fewest_repeats(self) -> int:
        """Number of repeats that pass the gate if all of them pass; fewer cannot.

        Of each unit test, or of all unit tests together with ``per="run"``. 1 without a confidence.
        """
        if self.confidence is None:
            return 1
        # Never None: with a confidence the rate is below 1.
        return fewest_repeats(self.min_pass_rate, self.confidence) or 1

    def can_pass(self, repeats: Iterable[int]) -> bool:
        """Return whether a run could pass with these numbers of repeats.

        Args:
            repeats: The number of repeats of each unit test.
        """
        every = list(repeats)
        units = [sum(every)] if self.per == "run" and every else every
        return all(count >= self.fewest_repeats for count in units)

    def judge(self, run: Run, *, known_failing: Collection[str] = ()) -> Judgement:
        """Judge a completed run by the results of its repeats.

        If results are hidden by a missing permission, or the flags of the run report a failure or
        an error that no visible result shows, the verdict is taken from the flags, and the
        judgement says so: what cannot be seen does not pass. With a confidence it is then
        ``"undecided"``, or ``"errored"``: flags say nothing of rates. Nor does what did not run
        pass: a run that was cut short is ``"cancelled"``, whatever the rates of its other repeats.

        Args:
            run: The last state of the run.
            known_failing: Ids of unit tests that are known to fail; their rates decide nothing.
                The flags of the run cover all unit tests, so a verdict taken from them does not
                leave any out.

        Returns:
            The verdict, with the reasons and rates.

        Raises:
            ArgumentError: If the run is not completed.
        """
        if not run.is_completed:
            raise ArgumentError(f"run {run.id} is not completed; wait for it before judging it")
        tests = tally(run)
        hidden = _what_is_hidden(run, tests, known_failing)
        if hidden is not None and not run.was_cut_short:
            return self._by_flags(run, hidden)
        subjects = tuple(self._subjects(tests, known_failing))
        rates = self._rates(subjects)
        if run.was_cut_short:
            return Judgement(verdict="cancelled", reasons=(cut_short(run),), rates=rates)
        deciding = tuple(rate for rate in rates if not rate.known_failing)
        verdicts = {rate.verdict for rate in deciding}
        if not deciding:
            reasons: tuple[str, ...] = ("every unit test is known to fail, so that none decides",)
        elif verdicts == {"passed"}:
            reasons = (self._praise(deciding),)
        else:
            reasons = tuple(
                self._reason(subject.words, rate, len(deciding))
                for verdict in _WORST_FIRST
                for subject, rate in zip(subjects, rates, strict=True)
                if rate.verdict == verdict and not rate.known_failing
            )
        worst: RateVerdict = next((v for v in _WORST_FIRST if v in verdicts), "passed")
        return Judgement(verdict=worst, reasons=reasons, rates=rates)

    def _subjects(
        self, tests: tuple[UnitTestTally, ...], known_failing: Collection[str]
    ) -> Iterator[_Subject]:
        """Yield what must reach the rate, and the unit tests that are known to fail."""
        if self.per == "run":
            each = [test.counts for test in tests if test.unit_test_id not in known_failing]
            if each:
                yield _Subject("the run", Counts(*map(sum, zip(*each, strict=True))))
            return
        for test in tests:
            test_id, known = test.unit_test_id, test.unit_test_id in known_failing
            words = f"unit test {test_id}"
            if self.per == "unit_test" or not test.metrics:
                yield _Subject(words, test.counts, test_id, None, known)
                continue
            for metric in test.metrics:
                named = f"{words}, metric {metric.name}"
                yield _Subject(named, metric.counts, test_id, metric.metric_id, known)

    def _rates(self, subjects: tuple[_Subject, ...]) -> tuple[PassRate, ...]:
        below = self._below(subjects)
        units = max(sum(not subject.known_failing for subject in subjects), 1)
        return tuple(self._rate(s, units, below=b) for s, b in zip(subjects, below, strict=True))

    def _below(self, subjects: tuple[_Subject, ...]) -> list[bool]:
        """Return of which subjects the gate claims that their rate is too low."""
        counted = [self._counted(subject.counts) for subject in subjects]
        if self.confidence is None:
            return [n > 0 and passed / n < self.min_pass_rate for passed, n in counted]
        p_values = [_p_value(passed, n, self.min_pass_rate) for passed, n in counted]
        # Each unit test that is compared is one more chance to be unlucky; those that are known to
        # fail decide nothing, and so are not among them.
        deciding = [n for n, subject in enumerate(subjects) if not subject.known_failing]
        adjusted = dict(zip(deciding, holm([p_values[n] for n in deciding]), strict=True))
        return [adjusted.get(n, p) < 1 - self.confidence for n, p in enumerate(p_values)]

    def _counted(self, counts: Counts) -> tuple[int, int]:
        """Return how many repeats passed, and of how many that count."""
        return counts.passed, sum(counts) if self.errored == "fail" else counts.evaluated

    def _rate(self, subject: _Subject, units: int, *, below: bool) -> PassRate:
        passed, counted = self._counted(subject.counts)
        low = high = more = None
        if self.confidence is not None and counted:
            low = _lower_limit(passed, counted, self.confidence)
            high = _upper_limit(passed, counted, self.confidence)
        verdict: RateVerdict = "passed"
        if not counted or (subject.counts.missing and self.errored == "error"):
            verdict = "errored"
        elif below:
            verdict = "failed"
        elif self.confidence is not None and low is not None and low < self.min_pass_rate:
            verdict = "undecided"
            more = _more_repeats(passed, counted, self.min_pass_rate, self.confidence, tests=units)
        return PassRate(
            unit_test_id=subject.unit_test_id,
            metric_id=subject.metric_id,
            passed=passed,
            failed=subject.counts.failed,
            errored=subject.counts.missing,
            rate=passed / counted if counted else None,
            verdict=verdict,
            low=low,
            high=high,
            more_repeats=more,
            known_failing=subject.known_failing,
        )

    def _reason(self, subject: str, rate: PassRate, units: int) -> str:
        """Explain why `subject` did not pass."""
        repeats = rate.passed + rate.failed + rate.errored
        if rate.verdict == "errored" and rate.errored:
            return f"{subject}: {rate.errored} of {repeats} repeats have an error or no result"
        if rate.rate is None:
            return f"{subject}: no repeat counts"
        counted = repeats if self.errored == "fail" else rate.passed + rate.failed
        share = [_percent(rate.rate)]
        if rate.errored:
            share.append(f"{rate.errored} errored")
        if rate.low is not None and rate.high is not None and self.confidence is not None:
            limits = limits_in_words(rate.low, rate.high)
            share.append(f"with {_percent(self.confidence)} confidence {limits}")
        seen = f"{subject}: {rate.passed} of {counted} repeats passed ({', '.join(share)})"
        if rate.verdict == "undecided":
            return f"{seen}; {self._remedy(rate, units)}"
        return f"{seen}; at least {_percent(self.min_pass_rate)} must"

    def _remedy(self, rate: PassRate, units: int) -> str:
        """Say how many more repeats would decide about a rate."""
        least = _percent(self.min_pass_rate)
        reached = rate.rate is not None and rate.rate >= self.min_pass_rate
        if rate.more_repeats is None:
            return f"too close to {least} for any reasonable number of repeats to tell"
        more = f"{rate.more_repeats} more repeat{'' if rate.more_repeats == 1 else 's'}"
        shown = f"at least {least}" if reached else f"less than {least}"
        remedy = f"{more} at this rate would show {shown}"
        if rate.high is not None and rate.high < self.min_pass_rate:
            return f"among {units} compared rates, chance explains one like this; {remedy}"
        return remedy

    def _praise(self, rates: tuple[PassRate, ...]) -> str:
        lowest = min(rate.rate for rate in rates if rate.rate is not None)
        what = {"run": "the run", "unit_test": "unit test", "metric": "metric of a unit test"}
        each = what[self.per] if self.per == "run" else f"every {what[self.per]}"
        sure = "" if self.confidence is None else f" with {_percent(self.confidence)} confidence"
        limits = [rate.low for rate in rates if rate.low is not None]
        low = f", the lowest lower limit {limit_in_words(min(limits))}" if limits else ""
        return (
            f"{each} reached {_percent(self.min_pass_rate)}{sure}; "
            f"the lowest pass rate was {_percent(lowest)}{low}"
        )

    def _by_flags(self, run: Run, hidden: str) -> Judgement:
        verdict: GateVerdict = "failed" if run.failed_metrics else "passed"
        verdict = "errored" if run.errored else verdict
        said = {
            "passed": "no metric failed and there was no error",
            "failed": "a metric failed",
            "errored": "there was an error",
        }
        reason = f"{hidden}; by the flags of the run, {said[verdict]}"
        if self.confidence is not None and verdict != "errored":
            verdict = "undecided"
            reason += ", which does not tell at what rate repeats pass"
        return Judgement(verdict=verdict, reasons=(reason,), fell_back=True)


class _Subject(NamedTuple):
    """What must reach the rate of a gate."""

    words: str
    counts: Counts
    unit_test_id: str | None = None
    metric_id: str | None = None
    known_failing: bool = False


_WORST_FIRST: Final[tuple[RateVerdict, ...]] = ("errored", "failed", "undecided")

# Unit tests of a set have few different results, each of which is computed once.
_p_value = lru_cache(4096)(binomial_at_most)
_lower_limit = lru_cache(4096)(clopper_pearson_lower)
_upper_limit = lru_cache(4096)(clopper_pearson_upper)
_more_repeats = lru_cache(4096)(repeats_to_decide)


def _what_is_hidden(
    run: Run, tests: tuple[UnitTestTally, ...], known_failing: Collection[str]
) -> str | None:
    """Explain why the visible results are not enough for a verdict; None if they are."""
    if not any(test.metrics for test in tests):
        return "the results of the repeats are hidden by a missing permission"
    # The flags are those of all unit tests: what is known to fail explains them too.
    failed = any(metric.counts.failed for test in tests for metric in test.metrics)
    blind = any(not test.metrics for test in tests if test.unit_test_id not in known_failing)
    if run.failed_metrics and (blind or not failed):
        return "a metric failed, perhaps one whose results are hidden"
    if run.errored and not any(test.counts.missing for test in tests):
        return "the run has an error that is not in the results of its repeats"
    return None


def cut_short(run: Run) -> str:
    """Explain the verdict on a run that was cut short."""
    missing = run.repeats_missing
    never = "1 repeat" if missing == 1 else f"{missing} repeats"
    return f"the run was cut short: {never} never ran"


def verdict_of(
    run: Run, gate: Gate | None, *, cancelled: bool, known_failing: Collection[str] = ()
) -> Verdict:
    """Judge a completed run.

    Args:
        run: The last state of the run.
        gate: What counts as passing; None uses the flags of the run.
        cancelled: Whether this process cancelled the run; the service does not say.
        known_failing: Ids of unit tests that are known to fail. The flags of the run cover them
            too, so with any the results of its repeats are judged instead, as far as visible.
    """
    if cancelled or run.was_cut_short:
        return "cancelled"
    if gate is not None or known_failing:
        # The strictest gate says what the flags say, of the unit tests that decide.
        return (gate or Gate()).judge(run, known_failing=known_failing).verdict
    if run.errored:
        return "errored"
    return "failed" if run.failed_metrics else "passed"


def reason_of(
    run: Run | None,
    gate: Gate | None = None,
    known_failing: Collection[str] = (),
    *,
    cancelled: bool = False,
) -> str | None:
    """Explain the verdict on a run where the run itself does not; None where it does.

    The arguments are those of `verdict_of`.
    """
    if run is None or not run.is_completed:
        return None
    if run.was_cut_short:
        return cut_short(run)
    hidden = not run.unit_test_run_specs and not any(run.unit_test_run_results)
    if cancelled:
        told = "the run was cancelled here, and which of its repeats ran is hidden"
        return told if hidden else None
    if known_failing or (gate is not None and gate.confidence is not None):
        judgement = (gate or Gate()).judge(run, known_failing=known_failing)
        if judgement.verdict == "undecided" or judgement.fell_back:
            return "; ".join(shortened(judgement.reasons))
    if hidden:
        return "judged by the flags of the run: the results of its repeats are hidden"
    return None


def shortened(texts: Sequence[str], most: int = 3) -> list[str]:
    """Return the first `most` texts, and one that says how many more there are."""
    rest = len(texts) - most
    return [*texts[:most], f"and {rest} more"] if rest > 0 else list(texts)


def fails_already(run: Run, known_failing: Collection[str]) -> bool:
    """Return whether a run in progress has a failure or an error in a unit test that decides."""
    return any(
        test.counts.failed or any(error is not None for error in test.errors)
        for test in tally(run)
        if test.unit_test_id not in known_failing
    )


def passing_again(run: Run, known_failing: Collection[str]) -> tuple[str, ...]:
    """Return the ids of unit tests that are known to fail, and passed every repeat of a run."""
    passed: dict[str, bool] = {}
    for test in tally(run) if known_failing else ():
        if test.unit_test_id in known_failing:
            every = bool(test.metrics) and 0 < test.counts.passed == sum(test.counts)
            passed[test.unit_test_id] = passed.get(test.unit_test_id, True) and every
    return tuple(test_id for test_id, every in passed.items() if every)


def sets_too_short(
    sets: Iterable[UnitTestSet],
    gate: Gate,
    known_failing: Callable[[list[str]], Collection[str] | None],
) -> list[UnitTestSet]:
    """Return the sets that have too few repeats to pass a gate.

    Args:
        sets: The sets.
        gate: The gate.
        known_failing: Returns which of the ids of unit tests decide nothing; None if unknown.
    """

    def could_pass(one: UnitTestSet) -> bool:
        known = known_failing([unit_test.unit_test_id for unit_test in one.unit_test_runs])
        return known is None or gate.can_pass(
            each.run_count for each in one.unit_test_runs if each.unit_test_id not in known
        )

    return [one for one in sets if not could_pass(one)]


def too_few_repeats(gate: Gate, short: Collection[UnitTestSet]) -> str:
    """Describe in one sentence which sets have too few repeats to pass a gate, and the remedy."""
    which = ", ".join(shortened([one.name or one.id for one in short]))
    what = "in all" if gate.per == "run" else "of each unit test"
    return (
        f"{_percent(gate.min_pass_rate)} with {_percent(gate.confidence or 0)} confidence needs "
        f"at least {gate.fewest_repeats} repeats {what}, all of them passed, and there are fewer "
        f"in {which}; add repeats, or lower the rate or the confidence"
    )


def limits_in_words(low: float, high: float) -> str:
    """Describe the limits of a rate: ``80.5% to 98.2%``, or ``at least 54.9%`` below 100%."""
    if low <= 0:
        return f"at most {limit_in_words(high)}"
    if high >= 1:
        return f"at least {limit_in_words(low)}"
    return f"{limit_in_words(low)} to {limit_in_words(high)}"


def limit_in_words(limit: float) -> str:
    """Format a limit of a rate.

    Always rounded down, so that a limit below a threshold is not shown as one that reaches it.
    """
    return f"{math.floor(limit * 1000) / 10:g}%"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
