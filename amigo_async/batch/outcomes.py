"""The sets of a batch: the state of each while it is processed, and its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import anyio
from msgspec import Struct
from msgspec.structs import replace

from amigo_async.batch.journal import SetProgress
from amigo_async.errors import AmigoError
from amigo_async.models import Run
from amigo_async.verdicts.gate import Gate, Verdict, reason_of, verdict_of


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


class BatchItem:
    """The state of one set while a batch processes it.

    Args:
        set_id: The set.
        before: What the journal holds about the set from earlier calls.
        gate: What counts as passing; None uses the flags of the run.

    Attributes:
        starting: Scope of the start; cancelled when the batch starts no more runs.
        waiting: Scope of the wait; cancelled when the run is to be cancelled.
        cancelled: Whether this batch cancelled the run.
        poll_error: Why the last poll returned no state of the run; None if it did.
    """

    def __init__(self, set_id: str, before: SetProgress, gate: Gate | None) -> None:
        self.set_id = set_id
        self._gate = gate
        self.before = before
        self.run_id: str | None = None
        self.attached = False
        self.run: Run | None = None
        self.verdict: Verdict | None = None
        self.error: Exception | None = None
        self.poll_error: AmigoError | None = None
        self.cancelled = False
        self.artifacts: Path | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.saved_at: datetime | None = None
        self.starting = anyio.CancelScope()
        self.waiting = anyio.CancelScope()
        if before.started is not None:
            self.started(before.started.run_id, before.started.at, attached=before.started.attached)
        if before.finished is not None:
            self.cancelled = before.finished.verdict == "cancelled"
            self.finished(before.finished.run, before.finished.at)
        if before.saved is not None:
            self.saved(Path(before.saved.path), before.saved.at)

    def started(self, run_id: str, at: datetime, *, attached: bool) -> None:
        """Take in the id of its run."""
        self.run_id, self.started_at, self.attached = run_id, at, attached

    def finished(self, run: Run, at: datetime) -> Verdict:
        """Take in a completed state of its run, perhaps a later one; return the verdict."""
        self.run, self.finished_at = run, self.finished_at or at
        self.verdict = verdict_of(run, self._gate, cancelled=self.cancelled)
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

    def outcome(self, *, out_of_time: bool) -> RunOutcome:
        """Return the outcome as of now.

        Args:
            out_of_time: Whether the deadline of the batch ended the work on the set.
        """
        verdict = self.verdict
        if verdict is None and self.run_id is None:
            verdict = "not_started"
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
            reason=reason_of(self.run),
        )
