"""``amigo-async wait``: wait for runs that were started before, and collect them."""

from __future__ import annotations

from typing import IO, Any

import click

from amigo_async.batch import BatchResult
from amigo_async.batch.batch import ARTIFACTS_PATIENCE
from amigo_async.batch.outcomes import verdict_of
from amigo_async.cli.attending import Visit, attend, collect
from amigo_async.cli.carrying import carried_out
from amigo_async.cli.jobs import Ending, Job
from amigo_async.cli.params import gate_option, ids_argument, quiet_option, read_ids, timeout_option
from amigo_async.cli.reports import Reports, report_options
from amigo_async.cli.run import tell_ending
from amigo_async.client import AmigoClient
from amigo_async.gate import Gate


@click.command(
    help="""Wait for runs that were started before, and collect their artifacts.

    RUN_ID is the id of a run; - takes ids from stdin. Leaving does not stop a run.

    Exit status: as that of run.
    """,
)
@ids_argument("RUN_ID")
@click.option("--artifacts", metavar="DIR", help="Fetch the artifacts into this folder.")
@report_options
@timeout_option("the runs go on")
@gate_option
@quiet_option
@carried_out
async def wait(
    *,
    ids: tuple[str, ...],
    file: IO[str] | None,
    artifacts: str | None,
    timeout: float | None,
    gate: Gate | None,
    quiet: bool,
    **kinds: Any,
) -> int:
    """Wait for runs that were started before, and collect their artifacts."""
    reports = Reports(**kinds)
    run_ids = read_ids(ids, file, "RUN_ID")
    reports.check()

    async def act(client: AmigoClient, visit: Visit) -> None:
        run = await client.wait_for_completion(visit.run_id, on_progress=visit.progressed)
        visit.finished(run, verdict_of(run, gate, cancelled=False))
        if artifacts is None:
            return
        visit.collecting = True
        if not run.artifacts_generated:
            later = await client.wait_for_completion(
                visit.run_id, timeout=ARTIFACTS_PATIENCE, require_artifacts=True
            )
            visit.finished(later, verdict_of(later, gate, cancelled=False))
        await collect(client, visit, artifacts)

    attended = await attend(
        run_ids, act, fetches=artifacts is not None, timeout=timeout, quiet=quiet
    )
    result = BatchResult([visit.outcome() for visit in attended.visits])
    ending = Ending(result, attended.elapsed, attended.interrupted, [])
    return tell_ending(ending, reports, Job(run_ids, artifacts=artifacts, gate=gate))
