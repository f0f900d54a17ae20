"""Do something about each of some runs: shown, interruptible, with an outcome for every one."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import anyio
import click

from amigo_async.batch import RunOutcome
from amigo_async.cli.board import Board
from amigo_async.cli.carrying import Outputs, carried_out, interrupts, open_client, tell
from amigo_async.cli.exit_codes import Status, status_of_error
from amigo_async.cli.params import ids_argument, quiet_option, read_ids, timeout_option
from amigo_async.cli.streams import write
from amigo_async.cli.views import Show, showing
from amigo_async.client import AmigoClient
from amigo_async.errors import ArtifactTimeoutError, ConflictError, DeadlineError, WaitTimeoutError
from amigo_async.events import Event, Listener, RunFinished, RunProgressed
from amigo_async.models import Run
from amigo_async.verdicts.gate import Verdict, reason_of


class Visit:
    """What is known of one run while something is done about it.

    Args:
        run_id: The run.
        hear: Hears its events.

    Attributes:
        run: Its last state seen; None before.
        verdict: The verdict on it; None as long as there is none.
        artifacts: Where its artifacts are; None as long as they are nowhere.
        error: What went wrong; None as long as nothing did.
        finished_at: When it was seen to end, if it was.
        saved_at: When its artifacts were whole; None as long as they are not.
        collecting: Whether its artifacts are being fetched, or waited for.
        late: Whether the time was over, or the command stopped, before all was done.
        said: What to show for its end; None for its verdict.
    """

    def __init__(self, run_id: str, hear: Callable[[Event], None]) -> None:
        self.run_id = run_id
        self.run: Run | None = None
        self.verdict: Verdict | None = None
        self.artifacts: Path | None = None
        self.error: Exception | None = None
        self.finished_at: datetime | None = None
        self.saved_at: datetime | None = None
        self.collecting = False
        self.late = True
        self.said: str | None = None
        self._hear = hear

    def progressed(self, run: Run) -> None:
        """It was seen, and goes on or waits for its artifacts."""
        self.run = run
        if not run.is_completed:
            done, total = run.progress or (None, None)
            set_id = run.simulation_unit_test_set_id
            self._hear(RunProgressed(set_id, run.id, done, total, run.failed_metrics, run.errored))

    def finished(self, run: Run, verdict: Verdict) -> None:
        """It is over."""
        if self.run is not None and not self.run.is_completed:  # so this is about when
            self.finished_at = datetime.now(UTC)
        self.run, self.verdict = run, verdict
        self._hear(RunFinished(run.simulation_unit_test_set_id, run.id, self.verdict))

    def outcome(self) -> RunOutcome:
        """What became of it, if nothing more is done."""
        run = self.run
        return RunOutcome(
            unit_test_set_id="-" if run is None else run.simulation_unit_test_set_id,
            run_id=self.run_id,
            verdict=self.verdict or ("timed_out" if self.late else "errored"),
            run=run,
            error=self.error,
            artifacts=self.artifacts,
            started_at=None if run is None else run.created_at,
            finished_at=self.finished_at,
            saved_at=self.saved_at,
            reason=reason_of(run),
        )


Act: TypeAlias = Callable[[AmigoClient, Visit], Awaitable[None]]


class Attended(NamedTuple):
    """What came of it.

    Attributes:
        visits: What is known of each run, each once, in the order asked for.
        elapsed: Seconds that it took.
        interrupted: Whether it was stopped by a signal.
    """

    visits: list[Visit]
    elapsed: float
    interrupted: bool


class _Relay:
    """Hands the events of a client to a listener that comes after it."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def hear(self, event: Event) -> None:
        if self.listener is not None:
            self.listener(event)


async def attend(
    run_ids: list[str],
    act: Act,
    *,
    fetches: bool = False,
    timeout: float | None = None,
    quiet: bool = False,
) -> Attended:
    """Do something about each run, all of them at once.

    Args:
        run_ids: The runs.
        act: What to do; it notes in the `Visit` what it learns.
        fetches: Whether artifacts are fetched.
        timeout: Seconds for all of it; None for as long as it takes.
        quiet: Whether to show no progress.
    """
    relay = _Relay()
    async with open_client(relay.hear) as client:
        board = Board(run_ids, are_runs=True, fetches=fetches)
        deadline = math.inf if timeout is None else anyio.current_time() + timeout
        async with showing(board, client.budgets, quiet=quiet) as show:
            relay.listener = show.hear
            visits = {run_id: Visit(run_id, show.hear) for run_id in run_ids}
            with interrupts().caught(show.say, show.close):
                async with anyio.create_task_group() as group:
                    for visit in visits.values():
                        group.start_soon(_visit, client, act, visit, deadline, show)
    return Attended(list(visits.values()), board.now() - board.began, interrupts().interrupted)


async def _visit(client: AmigoClient, act: Act, visit: Visit, deadline: float, show: Show) -> None:
    with anyio.CancelScope(deadline=deadline) as scope:
        try:
            await act(client, visit)
            visit.late = False
        except (DeadlineError, WaitTimeoutError) as error:
            visit.error = error
        except Exception as error:  # noqa: BLE001  # one run must not take the others with it
            visit.error, visit.late = error, False
    if scope.cancelled_caught and visit.collecting:
        visit.error = ArtifactTimeoutError(run_id=visit.run_id)
    show.settle(visit.run_id, visit.outcome(), visit.said)


async def collect(client: AmigoClient, visit: Visit, folder: str, connections: int = 1) -> None:
    """Fetch the artifacts of a run into a folder of its own, as a batch does."""
    visit.collecting = True
    target = f"{Path(folder) / visit.run_id}/"
    visit.artifacts = await client.artifacts.download(visit.run_id, target, connections=connections)


def tell_visits(attended: Attended, outputs: Outputs) -> Status:
    """Tell of the errors on stderr, and of what could not be written.

    Returns:
        The exit status where each run is to be dealt with.
    """
    found = {Status.TIMED_OUT for visit in attended.visits if visit.late}
    for visit in attended.visits:
        if visit.error is not None:
            tell(visit.error)
            found.add(status_of_error(visit.error))
    order = (Status.ERRORED, Status.MISUSED, Status.TIMED_OUT)
    status = next((status for status in order if status in found), Status.PASSED)
    return outputs.tell_failures(Status.INTERRUPTED if attended.interrupted else status)


@click.command(
    help="""Cancel runs.

    RUN_ID is the id of a run; - takes ids from stdin. Writes a line for each run: its id and
    asked (the service took the request), cancelled (and the run is over), over (it was over
    before), running (it still was at the end of --timeout) or error.

    Exit status: 0 if no run is left running that could be known of, otherwise as that of run.
    """,
)
@ids_argument("RUN_ID")
@click.option("--wait", is_flag=True, help="See the runs end; cancelling takes a while.")
@timeout_option("what still runs then is said to be running")
@quiet_option
@carried_out
async def cancel(
    *, ids: tuple[str, ...], file: IO[str] | None, wait: bool, timeout: float | None, quiet: bool
) -> int:
    """Cancel runs."""
    run_ids = read_ids(ids, file, "RUN_ID")
    act = _cancel_and_wait if wait else _cancel
    attended = await attend(run_ids, act, timeout=timeout, quiet=quiet)
    outputs = Outputs()
    with outputs.to("what became of the runs"):
        for visit in attended.visits:
            write(f"{visit.run_id} {visit.said or ('error' if visit.error else 'running')}")
    return tell_visits(attended, outputs)


async def _cancel(client: AmigoClient, visit: Visit) -> None:
    try:
        await client.runs.cancel(visit.run_id)
        visit.said = "asked"
    except ConflictError:
        visit.said = "over"


async def _cancel_and_wait(client: AmigoClient, visit: Visit) -> None:
    state, run = await client.cancel_and_wait(visit.run_id)
    visit.said = {"finished": "over"}.get(state, state)
    visit.run = run


@click.command(
    help="""Fetch the artifacts of runs that are over, each into a folder with the id of its run.

    RUN_ID is the id of a run; - takes ids from stdin. Writes the path of each artifact. What was
    fetched before is not fetched again.

    Exit status: 0 if all are there, otherwise as that of run.
    """,
)
@ids_argument("RUN_ID")
@click.option(
    "--artifacts",
    metavar="DIR",
    default="results",
    show_default=True,
    help="The folder to fetch them into.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="How many parts of each artifact to fetch side by side.",
)
@timeout_option("what was had by then is kept, and the same command goes on from there")
@quiet_option
@carried_out
async def download(
    *,
    ids: tuple[str, ...],
    file: IO[str] | None,
    artifacts: str,
    connections: int,
    timeout: float | None,
    quiet: bool,
) -> int:
    """Fetch the artifacts of runs that are over, each into a folder with the id of its run."""
    run_ids = read_ids(ids, file, "RUN_ID")

    async def act(client: AmigoClient, visit: Visit) -> None:
        await collect(client, visit, artifacts, connections)
        visit.said = "saved"

    attended = await attend(run_ids, act, fetches=True, timeout=timeout, quiet=quiet)
    outputs = Outputs()
    with outputs.to("the list of paths"):
        for visit in attended.visits:
            if visit.artifacts is not None:
                write(os.fsencode(visit.artifacts))  # as the file system has it, for xargs
    return tell_visits(attended, outputs)
