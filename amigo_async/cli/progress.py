"""Progress of a batch: what is known of each set, and how it reaches the view on stderr."""

from __future__ import annotations

import asyncio
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from amigo_async.batch import RunOutcome
from amigo_async.cli.reasons import named, runs_continue
from amigo_async.cli.streams import note
from amigo_async.escaping import log_line
from amigo_async.events import (
    ArtifactProgress,
    Event,
    NamesRead,
    RunFinished,
    RunProgressed,
    RunStarted,
    StartUnresolved,
    TooFewRepeats,
)
from amigo_async.names import Names, combined
from amigo_async.ratelimit import BudgetState
from amigo_async.verdicts.gate import Gate

# Returns the state of the rate limits by endpoint.
Budgets: TypeAlias = Callable[[], Mapping[str, BudgetState]]
Stage: TypeAlias = Literal["queued", "running", "fetching", "done"]


@dataclass(slots=True)
class SetProgress:
    """Progress of one set, or of one run if the command is about runs.

    Attributes:
        key: Its id.
        set_id: Id of the set; None while unknown.
        name: Name of the set; None while unknown.
        run_id: Its run; None while unknown.
        stage: How far it is.
        done: Unit test runs done; None while unknown.
        total: Unit test runs in all; None while unknown.
        received: Bytes received of the artifact; None before its download.
        size: Size of the artifact in bytes; None while unknown.
        trouble: ``"failed"`` or ``"errored"`` as soon as a metric has failed or an error has
            occurred; None before.
        verdict: See `RunOutcome`, or a word of the command such as ``"saved"``; None while there
            is none.
        began: Loop time at which its run became known; None before, and if a journal had it.
        ended: Loop time at which it ended; None before.
        ran: Whether its run was started or ended meanwhile, rather than at an earlier time.
    """

    key: str
    set_id: str | None = None
    name: str | None = None
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
    ran: bool = False

    @property
    def label(self) -> str:
        """Its name for a line; its id while the name is unknown."""
        return (named(self.name) if self.name else "") or self.key

    @property
    def title(self) -> str:
        """Its name with the id beside it; the id alone while the name is unknown."""
        label = self.label
        return label if label == self.key else f"{label} ({self.key})"

    def elapsed(self, now: float) -> float | None:
        """Return the seconds from its start to its end, or to `now`; None before its start."""
        return None if self.began is None else (self.ended or now) - self.began


class BatchProgress:
    """Progress of all sets of a batch.

    Args:
        keys: Ids of the sets, or of the runs if the command is about runs.
        are_runs: Whether the ids are those of runs, which have started already.
        fetches: Whether artifacts are downloaded, so that a set is not done when its run ends.
        gate: The gate that gives the verdicts; None for the runs' own flags.
        now: The clock; None for that of the running loop.

    Attributes:
        gate: That gate.
        rows: The progress of each set by id, in the order asked for.
        names: The names known so far.
        unresolved: Starts of which it is unknown whether they started a run.
    """

    def __init__(
        self,
        keys: Iterable[str],
        *,
        are_runs: bool = False,
        fetches: bool = False,
        gate: Gate | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.gate = gate
        self.now = now or asyncio.get_running_loop().time
        self.began = self.now()
        self.rows = {key: SetProgress(key, None if are_runs else key) for key in keys}
        self.unresolved: list[StartUnresolved] = []
        self._fetches = fetches
        self.names = Names()
        self._by_run: dict[str, SetProgress] = {}
        if are_runs:
            for key, row in self.rows.items():
                self._start(row, key)

    def learn(self, names: Names) -> None:
        """Take in names, in addition to those known before."""
        self.names = combined(self.names, names)
        for row in self.rows.values():
            row.name = self.names.unit_test_sets.get(row.set_id or "", row.name)

    def row_of(self, event: Event) -> SetProgress | None:
        """Return the row that an event is about; None if there is none."""
        run_id = getattr(event, "run_id", None)
        known = None if run_id is None else self._by_run.get(run_id)
        return known or self.rows.get(getattr(event, "unit_test_set_id", ""))

    def on_event(self, event: Event) -> None:
        """Update the progress with an event."""
        if isinstance(event, NamesRead):
            self.learn(Names(event.unit_test_sets, event.unit_tests, event.metrics))
        row = self.row_of(event)
        if row is None:
            return
        if row.set_id is None and isinstance(event, RunProgressed | RunFinished):
            row.set_id = event.unit_test_set_id
            row.name = self.names.unit_test_sets.get(row.set_id)
        row.ran |= isinstance(event, RunStarted | RunFinished)
        if isinstance(event, RunStarted):
            self._start(row, event.run_id)
        elif isinstance(event, RunProgressed):
            if row.stage == "queued":  # a journal has its start
                row.run_id, row.stage = event.run_id, "running"
            row.done, row.total = event.done, event.total
            row.trouble = _trouble(event)
        elif isinstance(event, RunFinished):
            self._finish_run(row, event.verdict)
        elif isinstance(event, ArtifactProgress):
            row.stage, row.received, row.size = "fetching", event.received, event.total
        elif isinstance(event, StartUnresolved):
            self.unresolved.append(event)

    def finish(self, key: str, outcome: RunOutcome, result: str | None = None) -> None:
        """Set the final outcome of a set; `result` is shown instead of the verdict, if given."""
        row = self.rows[key]
        row.run_id = outcome.run_id
        row.stage, row.verdict = "done", result or outcome.verdict
        row.ended = row.ended or self.now()
        progress = None if outcome.run is None else outcome.run.progress
        if progress is not None:
            row.done, row.total = progress

    def stages(self) -> Counter[Stage]:
        """Count the sets by stage."""
        return Counter(row.stage for row in self.rows.values())

    def verdicts(self) -> Counter[str]:
        """Count the sets that are done by verdict."""
        return Counter(r.verdict for r in self.rows.values() if r.verdict and r.stage == "done")

    def continuing(self) -> str:
        """Say which runs have not ended, as far as is known, and how to wait for them."""
        ids = [row.run_id for row in self.rows.values() if row.stage == "running" and row.run_id]
        if not ids:
            return ""
        command = " ".join(["amigo-async wait", *(shlex.quote(log_line(i)) for i in ids)])
        return f"{runs_continue(len(ids))}. To resume:\n  {command}\n"

    def _start(self, row: SetProgress, run_id: str) -> None:
        row.run_id, row.stage, row.began = run_id, "running", self.now()
        self._by_run[run_id] = row

    def _finish_run(self, row: SetProgress, verdict: str) -> None:
        row.verdict, row.ended = verdict, self.now()
        row.stage = "fetching" if self._fetches else "done"


def _trouble(event: RunProgressed) -> str | None:
    if event.errored:
        return "errored"
    return "failed" if event.failed_metrics else None


class View:
    """Shows the progress of a batch. This one, for --quiet, shows nothing but notices."""

    def on_event(self, event: Event) -> None:
        """Show an event; the `BatchProgress` is up to date."""

    def finish(self, key: str, outcome: RunOutcome, result: str | None = None) -> None:
        """Show the final outcome of a set; `result` replaces the verdict, if given."""

    def notify(self, text: str) -> None:
        """Show a line that must be seen."""
        note(text)

    def refresh(self) -> None:
        """Show what has changed."""

    def close(self) -> None:
        """Restore the terminal; may be called twice."""


class Display:
    """Keeps the progress of a batch and its view up to date.

    The view is replaced if stderr cannot be written: the display never harms the work.

    Args:
        progress: The progress.
        view: The view.
    """

    def __init__(self, progress: BatchProgress, view: View) -> None:
        self.progress = progress
        self._view = view

    def on_event(self, event: Event) -> None:
        """Update the progress with an event, and show it."""
        self.progress.on_event(event)
        if isinstance(event, TooFewRepeats):
            self.notify(log_line(event.reason))
        self._show(lambda view: view.on_event(event))

    def finish(self, key: str, outcome: RunOutcome, result: str | None = None) -> None:
        """Set and show the final outcome of a set; `result` replaces the verdict, if given."""
        self.progress.finish(key, outcome, result)
        self._show(lambda view: view.finish(key, outcome, result))

    def notify(self, text: str) -> None:
        """Show a line that must be seen."""
        self._show(lambda view: view.notify(text))

    def refresh(self) -> None:
        """Show what has changed."""
        self._show(lambda view: view.refresh())

    def close(self) -> None:
        """Restore the terminal."""
        self._show(lambda view: view.close())

    def _show(self, show: Callable[[View], None]) -> None:
        try:
            show(self._view)
        except OSError:
            self._view = View()
