"""Run a batch for the command: shown, interruptible, and with a result however it ends."""

from __future__ import annotations

from typing import NamedTuple

from amigo_async.batch import BatchResult, OnExit, OnFailure, RunOutcome
from amigo_async.cli.board import Board
from amigo_async.cli.carrying import interrupts
from amigo_async.cli.views import showing
from amigo_async.client import AmigoClient
from amigo_async.events import StartUnresolved
from amigo_async.starting import OnConflict
from amigo_async.verdicts.gate import Gate


class Job(NamedTuple):
    """What to run and how; see `AmigoClient.run_many`.

    Attributes:
        gate: What counts as passing; None for the runs' own flags.
        quiet: Whether to show no progress.
    """

    set_ids: list[str]
    artifacts: str | None = None
    timeout: float | None = None
    poll_interval: float | None = None
    on_conflict: OnConflict = "raise"
    on_failure: OnFailure = "continue"
    on_exit: OnExit = "leave"
    journal: str | None = None
    gate: Gate | None = None
    quiet: bool = False


class Ending(NamedTuple):
    """How a batch ended.

    Attributes:
        result: What became of each set.
        elapsed: Seconds that it took.
        interrupted: Whether it was stopped by a signal.
        unresolved: The starts of which it is not known whether they started a run.
    """

    result: BatchResult
    elapsed: float
    interrupted: bool
    unresolved: list[StartUnresolved]


async def run_job(client: AmigoClient, job: Job) -> Ending:
    """Run the sets of `job`.

    Raises:
        AmigoError: If the batch as a whole cannot be run.
    """
    board = Board(job.set_ids, fetches=job.artifacts is not None)
    result = BatchResult(
        [RunOutcome(unit_test_set_id=s, verdict="not_started") for s in job.set_ids]
    )
    async with showing(board, client.budgets, quiet=job.quiet) as show:
        with interrupts().caught(show.say, show.close):
            batch = None
            try:
                async with client.open_batch(
                    job.set_ids,
                    artifacts_dir=job.artifacts,
                    timeout=job.timeout,
                    poll_interval=job.poll_interval,
                    on_conflict=job.on_conflict,
                    on_failure=job.on_failure,
                    on_exit=job.on_exit,
                    journal=job.journal,
                    on_event=show.hear,
                    gate=job.gate,
                ) as batch:
                    async for outcome in batch:
                        show.settle(outcome.unit_test_set_id, outcome)
            finally:
                result = result if batch is None else batch.result()
    return Ending(result, board.now() - board.began, interrupts().interrupted, board.unresolved)
