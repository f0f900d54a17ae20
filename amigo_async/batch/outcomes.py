"""The sets of a batch: the state of each while it is processed, and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct, field
from msgspec.structs import replace

from amigo_async.batch.journal import JournaledSteps
from amigo_async.batch.options import BatchSettings
from amigo_async.errors import AmigoError
from amigo_async.escaping import log_line
from amigo_async.models import FailedMetric, Run
from amigo_async.names import Explanations, Names, select_unit_tests, unit_test_ids
from amigo_async.protocol.requests import is_id
from amigo_async.verdicts.comparison import BatchComparison, Comparison, compare_sets
from amigo_async.verdicts.gate import Verdict, passing_again, reason_of, shortened, verdict_of

VERDICT_WORDS: Final = {
    "passed": "passed",
    "failed": "failed",
    "undecided": "undecided",
    "errored": "errored",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "not_started": "not started",
}

# Why a set did not pass, if neither an error nor its results say so.
UNEXPLAINED: Final = {
    "failed": "a metric failed, but the visible results do not show which",
    "undecided": "there are too few repeats to tell whether the pass rate is reached",
    "errored": "the run had an error, but the visible results do not show which",
    "timed_out": "the batch ended before the run did; the run continues",
    "cancelled": "the run was cancelled",
    "not_started": "no run was started: another set failed, or the time was up",
}

# Why a verdict may be wrong if `known_failing` has names.
_NAMES_MISSING: Final = (
    "known failures may have counted, because the names of its unit tests could not be read"
)


class RunOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of one set of a batch.

    Attributes:
        unit_test_set_id: Id of the set.
        run_id: Id of its run; None if none was started.
        verdict: ``"passed"``, ``"failed"`` (a metric failed), ``"undecided"`` (too few repeats
            for the confidence of the gate), ``"errored"`` (the run had an error, or its end could
            not be determined), ``"timed_out"`` (the run goes on), ``"cancelled"`` (here or by
            someone else, so that some repeats never ran) or ``"not_started"``.
        run: The last state seen of the run; None if none was seen.
        error: The error of the start, the wait or the download; None if there was none.
        artifacts: Path of the downloaded artifacts; None if there are none.
        attached: Whether the run was found rather than started here, so that it may belong to
            someone else and is never cancelled: it existed before (``on_conflict="attach"``), or
            the response to the create request was lost.
        started_at: When the id of the run was obtained, by the server's clock; None if it was not.
        finished_at: When the run was seen to end, by the server's clock; None if it was not: it
            goes on, or it ended while nobody watched, before a journal was resumed.
        saved_at: When the download was complete, by the server's clock; None if it was not.
        reason: Why the verdict is what it is, if the run itself does not show it: it was cut
            short, the results of its repeats are hidden, a gate with a confidence cannot tell, or
            names for `known_failing` could not be read; None otherwise.
        name: Name of the set; None if it was not read.
        comparison: How the run compares with its baseline; None if that was not asked for, or not
            possible.
        uncompared: Why there is no comparison although one was asked for and the run is completed;
            None otherwise.
        known_failing: Ids of its unit tests that are known to fail, and did not decide.
        passing_again: Ids of those of them that passed every repeat.
    """

    unit_test_set_id: str
    run_id: str | None = None
    verdict: Verdict
    run: Run | None = None
    error: Exception | None = None
    artifacts: Path | None = None
    attached: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    saved_at: datetime | None = None
    reason: str | None = None
    name: str | None = None
    comparison: Comparison | None = None
    uncompared: str | None = None
    known_failing: tuple[str, ...] = ()
    passing_again: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Name the set, its run and its verdict."""
        run = "" if self.run_id is None else f", run {log_line(self.run_id)}"
        error = "" if self.error is None else f", {type(self.error).__name__}"
        return f"<RunOutcome of set {log_line(self.unit_test_set_id)}{run}: {self.verdict}{error}>"


# What is said of known failures that fit no unit test; also to find it in an earlier result.
UNKNOWN_FAILING: Final = "the known failures name what is no unit test of these sets: "


def is_fine(outcome: RunOutcome) -> bool:
    """Return whether a set passed without an error, and with its artifacts if asked for."""
    return outcome.verdict == "passed" and outcome.error is None


class BatchResult(Struct, frozen=True):
    """The outcomes of all sets of a batch.

    Attributes:
        outcomes: One outcome for each set, in the order asked for; a set named twice has two.
        began_at: When the batch began, by the server's clock; None if unknown.
        names: Names of the sets, unit tests and metrics, if they were asked for.
        explanations: What was seen in the conversations that failed, and why they failed, if they
            were asked for.
        notes: What the user should know of the batch as a whole, a sentence each: sets with too
            few repeats to pass the gate, or what of `known_failing` fits no unit test.
    """

    outcomes: Sequence[RunOutcome]
    began_at: datetime | None = None
    names: Names = field(default_factory=Names)
    explanations: Explanations = field(default_factory=Explanations)
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every set passed, without an error and with its artifacts if asked for."""
        return all(map(is_fine, self.outcomes))

    @property
    def counts(self) -> dict[Verdict, int]:
        """Number of sets by verdict, for the verdicts that occur."""
        return dict(Counter(outcome.verdict for outcome in self.outcomes))

    @property
    def comparison(self) -> BatchComparison | None:
        """The verdict over all sets that were compared; None if none was.

        Of many sets of an unchanged agent some look worse by chance, so their p-values are
        adjusted: the batch is wrongly ``"regressed"`` in at most `alpha` of all cases.
        """
        compared = {o.unit_test_set_id: o.comparison for o in self.outcomes if o.comparison}
        return compare_sets(tuple(compared.values())) if compared else None

    def summary(self) -> str:
        """Return the counts in one line, and a line for each set that did not pass, with reasons.

        Meant for messages, such as that of an assertion. `amigo_async.report` has whole reports.

        Example::

            result = await client.run_many(set_ids)
            assert result.passed, result.summary()
        """
        lacking = {
            outcome.unit_test_set_id: outcome for outcome in self.outcomes if not is_fine(outcome)
        }
        lines = [f"{len(self.outcomes)} set{'s' * (len(self.outcomes) != 1)}: {self._counted()}"]
        return "\n".join([*lines, *(self._line(outcome) for outcome in lacking.values())])

    def __repr__(self) -> str:
        """Count the sets by verdict."""
        return f"<BatchResult {self._counted()}>"

    def _counted(self) -> str:
        counts = self.counts
        parts = [f"{counts[v]} {words}" for v, words in VERDICT_WORDS.items() if v in counts]
        incomplete = sum(o.verdict == "passed" and o.error is not None for o in self.outcomes)
        if incomplete:
            parts.insert(1, f"{incomplete} of them incomplete")
        return ", ".join(parts) or "no sets"

    def _line(self, outcome: RunOutcome) -> str:
        name = self.names.unit_test_set(outcome.unit_test_set_id)
        named = outcome.name or (name if name != outcome.unit_test_set_id else None)
        set_id = outcome.unit_test_set_id
        label = f"{named} ({set_id})" if named else f"set {set_id}"
        run = f", run {outcome.run_id}" if outcome.run_id else ""
        why = "; ".join(self._reasons(outcome))
        return log_line(f"{label}{run}: {VERDICT_WORDS[outcome.verdict]}: {why}")

    def _reasons(self, outcome: RunOutcome) -> list[str]:
        """Why a set did not pass; never empty."""
        run, found = outcome.run, [outcome.reason] if outcome.reason else []
        if run is not None:
            findings = [
                f"{self.names.unit_test(one.unit_test_id)}: {self._metric(one)} "
                f"failed in {one.failed} of {one.evaluated} repeats"
                for one in run.metrics_that_failed or ()
                if one.unit_test_id not in outcome.known_failing
            ]
            errors = Counter(
                f"{self.names.unit_test(one.unit_test_id)}: {one.error}"
                for one in run.runs_that_errored or ()
                if one.unit_test_id not in outcome.known_failing
            )
            findings += [
                error if count == 1 else f"{error} (in {count} repeats)"
                for error, count in errors.items()
            ]
            found += shortened(findings)
        if outcome.error is not None:
            found.append(str(outcome.error) or type(outcome.error).__name__)
        return found or [UNEXPLAINED[outcome.verdict]]

    def _metric(self, failed: FailedMetric) -> str:
        """Name a metric as the run does, or else as far as names were read."""
        named = failed.metric.success_criterion_name if failed.metric else ""
        return named or self.names.metric(failed.metric_id)


def notes_of_unknown(
    known_failing: Iterable[str], outcomes: Iterable[RunOutcome], names: Names
) -> list[str]:
    """Return a note about what of the known failures is no unit test, if there is any.

    Args:
        known_failing: Ids and names of unit tests.
        outcomes: The outcomes of all sets. Nothing is said unless all unit tests are visible.
        names: The names that are known. Nothing is said of names unless all are.
    """
    runs = [outcome.run for outcome in outcomes]
    whole = [run for run in runs if run and run.is_completed and run.unit_test_run_specs]
    ids = list(dict.fromkeys(test_id for run in whole for test_id in unit_test_ids(run)))
    named = all(test_id in names.unit_tests for test_id in ids)
    unknown = [
        one
        for one in known_failing
        if (named or is_id(one)) and not select_unit_tests([one], ids, names)
    ]
    if not unknown or len(whole) < len(runs):
        return []
    return [UNKNOWN_FAILING + ", ".join(shortened(list(map(log_line, unknown))))]


class BatchItem:
    """The state of one set while a batch processes it.

    Args:
        set_id: The set.
        before: What the journal holds about the set from earlier calls.
        settings: The options of the batch.
        names: The names that are known so far.

    Attributes:
        known_failing: Ids of the unit tests of its run that are known to fail.
        starting: Scope of the start; cancelled when the batch starts no more runs.
        waiting: Scope of the wait; cancelled when the run is to be cancelled.
        cancelled: Whether this batch cancelled the run, perhaps without waiting for its end.
        watched: Whether the run was started here or seen in progress, so that its end is seen when
            it comes; the service does not tell when a run ended.
        poll_error: Why the last poll returned no state of the run; None if it did.
    """

    def __init__(
        self, set_id: str, before: JournaledSteps, settings: BatchSettings, names: Names
    ) -> None:
        self.set_id = set_id
        self._settings = settings
        self.known_failing: tuple[str, ...] = ()
        self._names_missing = False
        self.before = before
        self.run_id: str | None = None
        self.attached = False
        self.run: Run | None = None
        self.verdict: Verdict | None = None
        self.error: Exception | None = None
        self.poll_error: AmigoError | None = None
        self.cancelled = False
        self.watched = before.started is None and before.intent is None
        self.artifacts: Path | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.saved_at: datetime | None = None
        self.starting = anyio.CancelScope()
        self.waiting = anyio.CancelScope()
        if before.started is not None:
            self.started(before.started.run_id, before.started.at, attached=before.started.attached)
            self.cancelled = before.started.cancelled
        if before.finished is not None:
            self.cancelled = self.cancelled or before.finished.verdict == "cancelled"
            self.watched = before.finished.watched
            self.finished(before.finished.run, before.finished.at, names)
        if before.saved is not None:
            self.saved(Path(before.saved.path), before.saved.at)

    def started(self, run_id: str, at: datetime, *, attached: bool) -> None:
        """Take in the id of its run."""
        self.run_id, self.started_at, self.attached = run_id, at, attached

    def finished(self, run: Run, at: datetime, names: Names) -> Verdict:
        """Take in a completed state of its run, perhaps a later one; return the verdict."""
        self.run = run
        self.finished_at = self.finished_at or (at if self.watched else None)
        ids = unit_test_ids(run)
        self.known_failing = select_unit_tests(self._settings.known_failing, ids, names)
        self._names_missing = self._settings.known_failing_of(ids, names) is None
        self.verdict = verdict_of(
            run,
            self._settings.gate,
            cancelled=self.cancelled,
            known_failing=self.known_failing,
        )
        return self.verdict

    def saved(self, artifacts: Path, at: datetime) -> None:
        """Take in where its artifacts were saved."""
        self.artifacts, self.saved_at = artifacts, at
        if self.run is not None:  # the journal holds the run from before they were generated
            self.run = replace(self.run, artifacts_generated=True)

    @property
    def unfinished_run(self) -> str | None:
        """The id of its run while that is not completed; None otherwise."""
        return self.run_id if self.verdict is None else None

    def _reason(self, verdict: Verdict) -> str | None:
        """Explain the verdict where its run does not."""
        cancelled = verdict == "cancelled"
        reason = reason_of(self.run, self._settings.gate, self.known_failing, cancelled=cancelled)
        if self._names_missing and verdict in ("failed", "undecided", "errored"):
            reason = "; ".join(filter(None, [reason, _NAMES_MISSING]))
        return reason

    def outcome(self, *, out_of_time: bool) -> RunOutcome:
        """Return the outcome as of now.

        Args:
            out_of_time: Whether the work on the set was ended by the deadline of the batch, or by
                leaving the batch.
        """
        verdict = self.verdict
        if verdict is None and self.run_id is None:
            verdict = "not_started"
        elif verdict is None and self.cancelled:
            verdict = "cancelled"
        elif verdict is None:
            verdict = "timed_out" if out_of_time else "errored"
        return RunOutcome(
            unit_test_set_id=self.set_id,
            run_id=self.run_id,
            verdict=verdict,
            run=self.run,
            error=self.error,
            artifacts=self.artifacts,
            attached=self.attached,
            started_at=self.started_at,
            finished_at=self.finished_at,
            saved_at=self.saved_at,
            reason=self._reason(verdict),
            known_failing=self.known_failing,
            passing_again=(
                passing_again(self.run, self.known_failing) if self.run is not None else ()
            ),
        )
