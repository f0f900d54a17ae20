"""One set of a batch: what is known of it, and its outcome."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import anyio
from msgspec.structs import replace

from amigo_async.batch.journal import Record
from amigo_async.batch.outcomes import RunOutcome, Verdict, reason_of, verdict_of
from amigo_async.errors import AmigoError
from amigo_async.models import Run
from amigo_async.verdicts.gate import Gate


class Member:
    """One set of a batch, on its way through it.

    Args:
        set_id: The set.
        record: What the journal says of it.
        gate: What counts as passing; None for the run's own flags.

    Attributes:
        starting: Open while it is being started; cancelled when no more are to be started.
        waiting: Open while it runs; cancelled when it is to be cancelled.
        cancelled: Whether its run was cancelled from here.
        look_error: Why the last look at its run told nothing of it; None if it did.
    """

    def __init__(self, set_id: str, record: Record, gate: Gate | None) -> None:
        self.set_id = set_id
        self._gate = gate
        self.record = record
        self.run_id: str | None = None
        self.attached = False
        self.run: Run | None = None
        self.verdict: Verdict | None = None
        self.error: Exception | None = None
        self.look_error: AmigoError | None = None
        self.cancelled = False
        self.artifacts: Path | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.saved_at: datetime | None = None
        self.starting = anyio.CancelScope()
        self.waiting = anyio.CancelScope()
        if record.started is not None:
            self.started(record.started.run_id, record.started.at, attached=record.started.attached)
        if record.finished is not None:
            self.cancelled = record.finished.verdict == "cancelled"
            self.finished(record.finished.run, record.finished.at)
        if record.saved is not None:
            self.saved(Path(record.saved.path), record.saved.at)

    def started(self, run_id: str, at: datetime, *, attached: bool) -> None:
        """Its run is known."""
        self.run_id, self.started_at, self.attached = run_id, at, attached

    def finished(self, run: Run, at: datetime) -> Verdict:
        """Its run is over, with this verdict; may be called again with a later state of it."""
        self.run, self.finished_at = run, self.finished_at or at
        self.verdict = verdict_of(run, self._gate, cancelled=self.cancelled)
        return self.verdict

    def saved(self, artifacts: Path, at: datetime) -> None:
        """Its artifacts are on disk."""
        self.artifacts, self.saved_at = artifacts, at
        if self.run is not None:  # the journal has it as it was when it ended, before that
            self.run = replace(self.run, artifacts_generated=True)

    @property
    def unfinished_run(self) -> str | None:
        """The run that goes on; None if there is none."""
        return self.run_id if self.verdict is None else None

    def outcome(self, *, out_of_time: bool) -> RunOutcome:
        """What became of it, if nothing more is done.

        Args:
            out_of_time: Whether the deadline of the batch ended the work on it.
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
