"""What is known of each set while a batch is at work, for whoever shows it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from amigo_async.batch import RunOutcome
from amigo_async.events import (
    ArtifactProgress,
    ArtifactSaved,
    Event,
    RunFinished,
    RunProgressed,
    RunStarted,
    StartUnresolved,
)
from amigo_async.ratelimit import BudgetState

# A snapshot of the budgets, by endpoint.
Budgets: TypeAlias = Callable[[], Mapping[str, BudgetState]]
Stage: TypeAlias = Literal["queued", "running", "fetching", "done"]

STAGES: Final[tuple[Stage, ...]] = ("queued", "running", "fetching", "done")


@dataclass(slots=True)
class Row:
    """One set, or one run where runs are waited for.

    Attributes:
        key: Its id, by which it is shown.
        run_id: Its run; None where it is not known.
        stage: How far it is.
        done: Unit test runs done; None where not known.
        total: Unit test runs in all; None where not known.
        received: Bytes of the artifact; None while it is not being fetched.
        size: Bytes of the artifact in all; None where not known.
        trouble: ``"failed"`` or ``"errored"`` as soon as it is seen to be going that way.
        verdict: As in `RunOutcome`, or ``"saved"``; None as long as there is none.
        began: When its run was known, in loop time; None before.
        ended: When it was over, in loop time; None before.
    """

    key: str
    run_id: str | None = None
    stage: Stage = "queued"
    done: int | None = None
    total: int | None = None
    received: int | None = None
    size: int | None = None
    trouble: str | None = None
    verdict: str | None = None
    began: float | None = None
    ended: float | None = None

    def elapsed(self, now: float) -> float | None:
        """Seconds since it began, until it ended; None before."""
        return None if self.began is None else (self.ended or now) - self.began


class Board:
    """All sets of a batch.

    Args:
        keys: The ids of the sets, or of runs where runs are waited for.
        are_runs: Whether they are runs, which began before.
        fetches: Whether artifacts are fetched, so that a set whose run is over is not done.
        now: The clock; None for that of the running loop.

    Attributes:
        rows: All of them, by id, in the order asked for.
        saved: How many artifacts are on disk.
        saved_bytes: Their size together.
        unresolved: The starts of which it is not known whether they started a run.
    """

    def __init__(
        self,
        keys: Iterable[str],
        *,
        are_runs: bool = False,
        fetches: bool = False,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.now = now or asyncio.get_running_loop().time
        self.began = self.now()
        self.rows = {key: Row(key) for key in keys}
        self.saved = 0
        self.saved_bytes = 0
        self.unresolved: list[StartUnresolved] = []
        self._fetches = fetches
        self._by_run: dict[str, Row] = {}
        if are_runs:
            for key, row in self.rows.items():
                self._start(row, key)

    def row_of(self, event: Event) -> Row | None:
        """The row an event is about; None if it is about none of them."""
        run_id = getattr(event, "run_id", None)
        known = None if run_id is None else self._by_run.get(run_id)
        return known or self.rows.get(getattr(event, "unit_test_set_id", ""))

    def hear(self, event: Event) -> None:
        """Take note of an event."""
        row = self.row_of(event)
        if row is None:
            return
        if isinstance(event, RunStarted):
            self._start(row, event.run_id)
        elif isinstance(event, RunProgressed):
            row.done, row.total = event.done, event.total
            row.trouble = _trouble(event)
        elif isinstance(event, RunFinished):
            self._finish(row, event.verdict)
        elif isinstance(event, ArtifactProgress):
            row.stage, row.received, row.size = "fetching", event.received, event.total
        elif isinstance(event, ArtifactSaved):
            self.saved += 1
            self.saved_bytes += event.size
        elif isinstance(event, StartUnresolved):
            self.unresolved.append(event)

    def settle(self, key: str, outcome: RunOutcome, said: str | None = None) -> None:
        """Nothing more is done about a set; `said` is what to show instead of its verdict."""
        row = self.rows[key]
        row.run_id = outcome.run_id
        row.stage, row.verdict = "done", said or outcome.verdict
        row.ended = row.ended or self.now()
        progress = None if outcome.run is None else outcome.run.progress
        if progress is not None:
            row.done, row.total = progress

    def stages(self) -> Counter[Stage]:
        """How many sets there are of each stage."""
        return Counter(row.stage for row in self.rows.values())

    def verdicts(self) -> Counter[str]:
        """How many of the sets that are done there are of each verdict."""
        return Counter(r.verdict for r in self.rows.values() if r.verdict and r.stage == "done")

    def _start(self, row: Row, run_id: str) -> None:
        row.run_id, row.stage, row.began = run_id, "running", self.now()
        self._by_run[run_id] = row

    def _finish(self, row: Row, verdict: str) -> None:
        row.verdict, row.ended = verdict, self.now()
        row.stage = "fetching" if self._fetches else "done"


def _trouble(event: RunProgressed) -> str | None:
    if event.errored:
        return "errored"
    return "failed" if event.failed_metrics else None
