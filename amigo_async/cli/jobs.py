"""Run a batch, or an action for each run, with a progress display and Ctrl-C handling."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import anyio
from msgspec.structs import replace

from amigo_async.batch import BatchOptions, BatchResult, RunOutcome
from amigo_async.cli.command import interrupts, is_verbose, open_client
from amigo_async.cli.notices import print_delay
from amigo_async.cli.progress import BatchProgress, Budgets, Display, View
from amigo_async.cli.reasons import UNKNOWN_SET
from amigo_async.cli.resuming import duration_of_runs, resumed_in_words
from amigo_async.client import AmigoClient
from amigo_async.errors import ArtifactTimeoutError, DeadlineError, WaitTimeoutError
from amigo_async.escaping import log_line
from amigo_async.events import Event, Listener, RunFinished, RunProgressed, StartUnresolved
from amigo_async.models import Run
from amigo_async.names import Explanations, Names
from amigo_async.verdicts.gate import EXPLAINED, Gate, Verdict, passing_again, reason_of, verdict_of

# Seconds between two updates of the display.
_REFRESH_INTERVAL: Final = 0.25


class Job(NamedTuple):
    """The sets to run.

    Attributes:
        set_ids: Ids of the sets.
        options: The options of the batch.
        quiet: Whether to show no progress.
    """

    set_ids: list[str]
    options: BatchOptions
    quiet: bool = False


class FinishedJob(NamedTuple):
    """The result of a job.

    Attributes:
        result: The outcome of each set.
        elapsed: Duration in seconds; None if unknown.
        interrupted: Whether a signal stopped the job.
        unresolved: Starts of which it is unknown whether they started a run.
        origin: Which outcomes were taken from earlier, in words; None if none were.
    """

    result: BatchResult
    elapsed: float | None
    interrupted: bool
    unresolved: list[StartUnresolved]
    origin: str | None = None


async def run_job(client: AmigoClient, job: Job) -> FinishedJob:
    """Run the sets of `job`; there is a result even if a signal stops it.

    Raises:
        AmigoError: If the batch as a whole cannot be run.
    """
    fetches = job.options.get("artifacts_dir") is not None
    progress = BatchProgress(job.set_ids, fetches=fetches, gate=job.options.get("gate"))
    result = BatchResult(
        [RunOutcome(unit_test_set_id=s, verdict="not_started") for s in job.set_ids]
    )
    async with open_display(progress, client.budgets, quiet=job.quiet) as display:
        with interrupts().caught(display.notify, display.close, progress.continuing):
            batch = None
            try:
                options: BatchOptions = {**job.options, "on_event": display.on_event}
                async with client.open_batch(job.set_ids, **options) as batch:
                    async for outcome in batch:
                        display.finish(outcome.unit_test_set_id, outcome)
            finally:
                result = result if batch is None else batch.result()
    elapsed: float | None = progress.now() - progress.began
    resumed = [
        outcome
        for outcome in result.outcomes
        if outcome.run is not None
        and outcome.run.is_completed
        and not progress.rows[outcome.unit_test_set_id].ran
    ]
    origin, journal = None, job.options.get("journal")
    if resumed and journal is not None:
        origin = resumed_in_words(resumed, len(result.outcomes), log_line(os.fspath(journal)))
        if len(resumed) == len(result.outcomes):
            elapsed = duration_of_runs(resumed)
    return FinishedJob(result, elapsed, interrupts().interrupted, progress.unresolved, origin)


class RunAction:
    """An action on one run, and what is known of the run meanwhile.

    Args:
        run_id: The run.
        emit: Receives its events.
        gate: What counts as passing; None uses the flags of the run.

    Attributes:
        run: Its last known state; None before.
        verdict: Its verdict; None while there is none.
        artifacts: Path of its artifacts; None until they are saved.
        error: The error of the action; None without one.
        known_failing: Ids of its unit tests that are known to fail.
        finished_at: When the run was seen to end; None if it was not.
        collecting: Whether its artifacts are being downloaded or waited for.
        late: Whether the action was cut off by the deadline or a signal.
        result: What the action came to, in a word; None for the verdict of the run.
        seen: Set once its state is known, or the action is over.
    """

    def __init__(
        self, run_id: str, emit: Callable[[Event], None], gate: Gate | None = None
    ) -> None:
        self.run_id = run_id
        self.run: Run | None = None
        self.verdict: Verdict | None = None
        self.known_failing: tuple[str, ...] = ()
        self.artifacts: Path | None = None
        self.error: Exception | None = None
        self.finished_at: datetime | None = None
        self.collecting = False
        self.late = True
        self.result: str | None = None
        self.seen = asyncio.Event()
        self._emit = emit
        self._gate = gate

    def set_progress(self, run: Run) -> None:
        """Set the state of a run that is in progress, or waits for its artifacts."""
        self.run = run
        self.seen.set()
        if not run.is_completed:
            done, total = run.progress or (None, None)
            set_id = run.simulation_unit_test_set_id
            self._emit(RunProgressed(set_id, run.id, done, total, run.failed_metrics, run.errored))

    def set_finished(self, run: Run) -> None:
        """Set the state of a run that has ended, and judge it."""
        if self.run is not None and not self.run.is_completed:  # so it has ended just now
            self.finished_at = datetime.now(UTC)
        self.run = run
        self.verdict = verdict_of(
            run, self._gate, cancelled=False, known_failing=self.known_failing
        )
        self.seen.set()
        self._emit(RunFinished(run.simulation_unit_test_set_id, run.id, self.verdict))

    def outcome(self) -> RunOutcome:
        """Return the outcome of the run, as far as it is known."""
        run = self.run
        return RunOutcome(
            unit_test_set_id=UNKNOWN_SET if run is None else run.simulation_unit_test_set_id,
            run_id=self.run_id,
            verdict=self.verdict or ("timed_out" if self.late else "errored"),
            run=run,
            error=self.error,
            artifacts=self.artifacts,
            started_at=None if run is None else run.created_at,
            finished_at=self.finished_at,
            reason=reason_of(run, self._gate, self.known_failing),
            known_failing=self.known_failing,
            passing_again=() if run is None else passing_again(run, self.known_failing),
        )


# Acts on one run, and sets in the `RunAction` what is learned of it.
Act: TypeAlias = Callable[[AmigoClient, RunAction], Awaitable[None]]


class ActionResults(NamedTuple):
    """The results of an action on several runs.

    Attributes:
        actions: Each run once, in the order asked for.
        elapsed: Duration in seconds.
        interrupted: Whether a signal stopped the command.
        names: The names that were read.
        explanations: The reasons that were read.
    """

    actions: list[RunAction]
    elapsed: float
    interrupted: bool
    names: Names = Names()
    explanations: Explanations = Explanations()


async def run_actions(
    run_ids: list[str],
    act: Act,
    *,
    fetches: bool = False,
    gate: Gate | None = None,
    timeout: float | None = None,
    quiet: bool = False,
    names: bool = False,
    reasons: bool = False,
) -> ActionResults:
    """Run an action for each run concurrently, with a progress display and Ctrl-C handling.

    Args:
        run_ids: The runs.
        act: The action.
        fetches: Whether it downloads artifacts.
        gate: What counts as passing; None uses the flags of the runs.
        timeout: Deadline for all of them in seconds from now; None for none.
        quiet: Whether to show no progress.
        names: Whether to read names.
        reasons: Whether to read why runs failed.
    """
    relay, explanations = EventRelay(), Explanations()
    async with open_client(relay.on_event) as client:
        progress = BatchProgress(run_ids, are_runs=True, fetches=fetches, gate=gate)
        deadline = math.inf if timeout is None else anyio.current_time() + timeout
        async with open_display(progress, client.budgets, quiet=quiet) as display:
            relay.listener = display.on_event
            actions = {run_id: RunAction(run_id, display.on_event, gate) for run_id in run_ids}
            with interrupts().caught(display.notify, display.close, progress.continuing):
                async with anyio.create_task_group() as beside:
                    if names:
                        beside.start_soon(_describe_early, client, actions.values(), progress)
                    async with anyio.create_task_group() as group:
                        for action in actions.values():
                            group.start_soon(_run_action, client, act, action, deadline, display)
                    beside.cancel_scope.cancel()
                async with anyio.create_task_group() as group:
                    if names:
                        group.start_soon(_describe, client, actions.values(), progress)
                    if reasons:
                        explanations = await client.explain(_failed(actions.values()))
    elapsed = progress.now() - progress.began
    stopped = interrupts().interrupted
    return ActionResults(list(actions.values()), elapsed, stopped, progress.names, explanations)


async def _describe_early(
    client: AmigoClient, actions: Collection[RunAction], progress: BatchProgress
) -> None:
    """Read names while the runs go on, as soon as each has been seen."""
    for action in actions:
        await action.seen.wait()
    await _describe(client, actions, progress)


async def _describe(
    client: AmigoClient, actions: Iterable[RunAction], progress: BatchProgress
) -> None:
    names = await client.describe([action.run for action in actions if action.run is not None])
    progress.learn(names)
    progress.names = replace(progress.names, notes=names.notes)


def _failed(actions: Iterable[RunAction]) -> list[Run]:
    return [action.run for action in actions if action.run and action.verdict in EXPLAINED]


async def _run_action(
    client: AmigoClient, act: Act, action: RunAction, deadline: float, display: Display
) -> None:
    with anyio.CancelScope(deadline=deadline) as scope:
        try:
            await act(client, action)
            action.late = False
        except (DeadlineError, WaitTimeoutError) as error:
            action.error = error
        except Exception as error:  # noqa: BLE001  # an error must not cancel the other actions
            action.error, action.late = error, False
    if scope.cancelled_caught and action.collecting:
        action.error = ArtifactTimeoutError(run_id=action.run_id)
    action.seen.set()
    display.finish(action.run_id, action.outcome(), action.result)


class EventRelay:
    """Prints what is held or retried until a display shows it.

    Attributes:
        listener: Called with each event; may be replaced.
    """

    def __init__(self) -> None:
        self.listener: Listener = print_delay

    def on_event(self, event: Event) -> None:
        """Pass an event on."""
        self.listener(event)


async def collect(
    client: AmigoClient, action: RunAction, folder: str, connections: int = 1
) -> None:
    """Download the artifacts of a run into a folder named after it, as a batch does."""
    action.collecting = True
    target = f"{Path(folder) / action.run_id}/"
    action.artifacts = await client.artifacts.download(
        action.run_id, target, connections=connections
    )


# --- the display ---


@asynccontextmanager
async def open_display(
    progress: BatchProgress, budgets: Budgets, *, quiet: bool
) -> AsyncIterator[Display]:
    """Show `progress` on stderr while the context is open.

    Args:
        progress: The progress.
        budgets: Returns the state of the rate limits.
        quiet: Whether to show nothing but notices.
    """
    display = Display(progress, View() if quiet else _view(progress, budgets))
    refreshing = asyncio.create_task(_refresh(display))
    try:
        yield display
    finally:
        refreshing.cancel()
        await asyncio.wait({refreshing})
        display.close()


async def _refresh(display: Display) -> None:
    while True:
        display.refresh()
        await asyncio.sleep(_REFRESH_INTERVAL)


def _view(progress: BatchProgress, budgets: Budgets) -> View:
    """Return a live view on a terminal, and lines of text elsewhere."""
    if is_terminal() and not is_verbose():  # a log would tear the lines apart
        from amigo_async.cli.live import LiveView  # noqa: PLC0415  # rich, only if it is used

        return LiveView(progress, budgets)
    from amigo_async.cli.plain import PlainView  # noqa: PLC0415  # the other one

    return PlainView(progress, budgets)


def is_terminal() -> bool:
    """Return whether stderr is a terminal on which lines can be overwritten."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
