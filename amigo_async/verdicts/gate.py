"""Verdicts on runs of agents that are not deterministic.

The flags of a run report a failure as soon as one repeat of one unit test fails. A `Gate` requires
a minimum pass rate instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from amigo_async.errors import ArgumentError
from amigo_async.models import Run
from amigo_async.verdicts.tally import Counts, UnitTestTally, tally

RateVerdict: TypeAlias = Literal["passed", "failed", "errored"]
GateVerdict: TypeAlias = Literal["passed", "failed", "errored", "cancelled"]
Verdict: TypeAlias = Literal["passed", "failed", "errored", "timed_out", "cancelled", "not_started"]
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
        verdict: ``"passed"``, ``"failed"`` (too few passed) or ``"errored"``.
    """

    unit_test_id: str | None = None
    metric_id: str | None = None
    passed: int
    failed: int
    errored: int
    rate: float | None
    verdict: RateVerdict


class Judgement(Struct, frozen=True, kw_only=True):
    """The verdict of a gate on a run.

    Attributes:
        verdict: ``"passed"``, ``"failed"`` (too few repeats passed), ``"errored"`` or
            ``"cancelled"`` (the run was cut short: some repeats never ran).
        reasons: The reasons for the verdict, one sentence each; never empty.
        rates: The pass rates that were compared; empty if `fell_back`.
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

    Args:
        min_pass_rate: Share of repeats that must pass, from 0 to 1; 0.9 means 90%.
        per: What the rate is computed for: ``"run"`` (all repeats of all unit tests together),
            ``"unit_test"`` (the repeats of each unit test; a repeat passes if all of its metrics
            do) or ``"metric"`` (each metric of each unit test).
        errored: How repeats count that have an error, or no result in a completed run:
            ``"error"`` (any of them makes the verdict ``"errored"``, as without a gate),
            ``"fail"`` (as failed) or ``"ignore"`` (not at all; if no other repeat is left, the
            verdict is ``"errored"``).

    Raises:
        ArgumentError: If an argument is invalid.
    """

    min_pass_rate: float = 1.0
    per: Per = "unit_test"
    errored: Errored = "error"

    def __post_init__(self) -> None:
        if not 0 <= self.min_pass_rate <= 1:
            raise ArgumentError(
                "min_pass_rate must be a share from 0 to 1 (0.9 for 90%), "
                f"not {self.min_pass_rate!r}"
            )
        for name, value, choices in (("per", self.per, Per), ("errored", self.errored, Errored)):
            if value not in get_args(choices):
                raise ArgumentError(f"{name} must be one of {get_args(choices)}, not {value!r}")

    def judge(self, run: Run) -> Judgement:
        """Judge a completed run by the results of its repeats.

        If results are hidden by a missing permission, or the flags of the run report a failure or
        an error that no visible result shows, the verdict is taken from the flags, and the
        judgement says so: what cannot be seen does not pass. Nor does what did not run: a run that
        was cut short is ``"cancelled"``, whatever the rates of its other repeats.

        Args:
            run: The last state of the run.

        Returns:
            The verdict, with the reasons and rates.

        Raises:
            ArgumentError: If the run is not completed.
        """
        if not run.is_completed:
            raise ArgumentError(f"run {run.id} is not completed; wait for it before judging it")
        tests = tally(run)
        hidden = _what_is_hidden(run, tests)
        if hidden is not None and not run.was_cut_short:
            return _by_flags(run, hidden)
        judged = [
            (subject, self._rate(counts, test, metric))
            for subject, counts, test, metric in self._subjects(tests)
        ]
        rates = tuple(rate for _, rate in judged)
        if run.was_cut_short:
            return Judgement(verdict="cancelled", reasons=(cut_short(run),), rates=rates)
        verdicts = {rate.verdict for rate in rates}
        if verdicts == {"passed"}:
            return Judgement(verdict="passed", reasons=(self._praise(rates),), rates=rates)
        return Judgement(
            verdict="errored" if "errored" in verdicts else "failed",
            reasons=tuple(self._reason(s, rate) for s, rate in judged if rate.verdict != "passed"),
            rates=rates,
        )

    def _subjects(
        self, tests: tuple[UnitTestTally, ...]
    ) -> Iterator[tuple[str, Counts, str | None, str | None]]:
        """Yield what must reach the rate, with its counts, unit test id and metric id."""
        if self.per == "run":
            each = [test.counts for test in tests]
            yield "the run", Counts(*map(sum, zip(*each, strict=True))), None, None
            return
        for test in tests:
            subject = f"unit test {test.unit_test_id}"
            if self.per == "unit_test" or not test.metrics:
                yield subject, test.counts, test.unit_test_id, None
                continue
            for metric in test.metrics:
                named = f"{subject}, metric {metric.name}"
                yield named, metric.counts, test.unit_test_id, metric.metric_id

    def _rate(self, counts: Counts, test: str | None, metric: str | None) -> PassRate:
        passed, failed, errored = counts
        counted = sum(counts) if self.errored == "fail" else counts.evaluated
        rate = passed / counted if counted else None
        verdict: RateVerdict = "passed"
        if rate is None or (errored and self.errored == "error"):
            verdict = "errored"
        elif rate < self.min_pass_rate:
            verdict = "failed"
        return PassRate(
            unit_test_id=test,
            metric_id=metric,
            passed=passed,
            failed=failed,
            errored=errored,
            rate=rate,
            verdict=verdict,
        )

    def _reason(self, subject: str, rate: PassRate) -> str:
        """Explain why `subject` did not pass."""
        repeats = rate.passed + rate.failed + rate.errored
        if rate.verdict == "errored" and rate.errored:
            return f"{subject}: {rate.errored} of {repeats} repeats have an error or no result"
        if rate.rate is None:
            return f"{subject}: no repeat counts"
        counted = repeats if self.errored == "fail" else rate.passed + rate.failed
        errored = f", {rate.errored} errored" if rate.errored else ""
        return (
            f"{subject}: {rate.passed} of {counted} repeats passed ({_percent(rate.rate)}{errored})"
            f"; at least {_percent(self.min_pass_rate)} must"
        )

    def _praise(self, rates: tuple[PassRate, ...]) -> str:
        lowest = min(rate.rate for rate in rates if rate.rate is not None)
        what = {"run": "the run", "unit_test": "unit test", "metric": "metric of a unit test"}
        each = what[self.per] if self.per == "run" else f"every {what[self.per]}"
        return (
            f"{each} reached {_percent(self.min_pass_rate)}; "
            f"the lowest pass rate was {_percent(lowest)}"
        )


def _what_is_hidden(run: Run, tests: tuple[UnitTestTally, ...]) -> str | None:
    """Explain why the visible results are not enough for a verdict; None if they are."""
    if not any(test.metrics for test in tests):
        return "the results of the repeats are hidden by a missing permission"
    failed = any(metric.counts.failed for test in tests for metric in test.metrics)
    blind = any(not test.metrics for test in tests)
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


def verdict_of(run: Run, gate: Gate | None, *, cancelled: bool) -> Verdict:
    """Judge a completed run.

    Args:
        run: The last state of the run.
        gate: What counts as passing; None uses the flags of the run.
        cancelled: Whether this process cancelled the run; the service does not say.
    """
    if cancelled or run.was_cut_short:
        return "cancelled"
    if gate is not None:
        return gate.judge(run).verdict
    if run.errored:
        return "errored"
    return "failed" if run.failed_metrics else "passed"


def reason_of(run: Run | None) -> str | None:
    """Explain the verdict on a run where the run itself does not; None where it does."""
    if run is None or not run.is_completed:
        return None
    if run.was_cut_short:
        return cut_short(run)
    if not run.unit_test_run_specs and not any(run.unit_test_run_results):
        return "judged by the flags of the run: the results of its repeats are hidden"
    return None


def _by_flags(run: Run, hidden: str) -> Judgement:
    verdict: GateVerdict = "failed" if run.failed_metrics else "passed"
    verdict = "errored" if run.errored else verdict
    said = {
        "passed": "no metric failed and there was no error",
        "failed": "a metric failed",
        "errored": "there was an error",
    }
    reason = f"{hidden}; by the flags of the run, {said[verdict]}"
    return Judgement(verdict=verdict, reasons=(reason,), fell_back=True)


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
