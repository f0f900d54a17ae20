"""What became of each set of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from amigo_async.models import Run
from amigo_async.verdicts.gate import Gate, cut_short

Verdict: TypeAlias = Literal["passed", "failed", "errored", "timed_out", "cancelled", "not_started"]


class RunOutcome(Struct, frozen=True, kw_only=True):
    """What became of one set.

    Attributes:
        unit_test_set_id: The set.
        run_id: Its run; None where none was started.
        verdict: ``"passed"``, ``"failed"`` (metrics), ``"errored"`` (the run met an error, or
            was lost sight of), ``"timed_out"`` (it goes on), ``"cancelled"`` (also by somebody
            else: repeats that were asked for never ran) or ``"not_started"``.
        run: The last state seen; None where none was seen.
        error: What went wrong here, or in fetching the artifacts; None if nothing did.
        artifacts: Where the artifacts are; None where they were not asked for or not had.
        attached: Whether the run was found and may be another's, so that it is not cancelled: it
            was there before (``on_conflict="attach"``), or the answer to its create was lost.
        started_at: When its id was known, by the server's clock; None if it never was.
        finished_at: When its end was seen, by the server's clock; None if it was not.
        saved_at: When its artifacts were whole, by the server's clock; None if they are not had.
        reason: What the verdict rests on, where that is not plain: that the run was cut short, or
            that its flags alone could be seen; None otherwise.
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


class BatchResult(Struct, frozen=True):
    """What became of all sets of a batch.

    Attributes:
        outcomes: One for each set, in the order asked for; a set named twice is there twice.
        began_at: When the batch began, by the server's clock; None if that is not known.
    """

    outcomes: Sequence[RunOutcome]
    began_at: datetime | None = None

    @property
    def passed(self) -> bool:
        """Whether every set passed, and nothing that was asked for is missing."""
        return all(o.verdict == "passed" and o.error is None for o in self.outcomes)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many sets there are of each verdict that occurs."""
        return dict(Counter(outcome.verdict for outcome in self.outcomes))


def verdict_of(run: Run, gate: Gate | None, *, cancelled: bool) -> Verdict:
    """The verdict on a run that is over.

    Args:
        run: Its last state.
        gate: What counts as passing; None for the run's own flags.
        cancelled: Whether it was cancelled from here; the service does not tell.
    """
    if cancelled or run.was_cut_short:
        return "cancelled"
    if gate is not None:
        return gate.judge(run).verdict
    if run.errored:
        return "errored"
    return "failed" if run.failed_metrics else "passed"


def reason_of(run: Run | None) -> str | None:
    """What the verdict on a run that is over rests on, where that is not plain."""
    if run is None or not run.is_completed:
        return None
    if run.was_cut_short:
        return cut_short(run)
    if not run.unit_test_run_specs and not any(run.unit_test_run_results):
        return "by the run's own flags: the results of its repeats are not shown"
    return None
