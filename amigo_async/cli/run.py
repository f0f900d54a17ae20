"""``amigo-async run``: start, wait for and collect sets."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import IO, Any, get_args

import click

from amigo_async.batch import ARTIFACTS_PATIENCE, BatchResult, OnExit, OnFailure
from amigo_async.cli.actions import Visit, attend, collect
from amigo_async.cli.carrying import Outputs, carried_out, open_client
from amigo_async.cli.exit_codes import Status, status_of_batch
from amigo_async.cli.jobs import Ending, Job, run_job
from amigo_async.cli.params import gate_option, ids_argument, quiet_option, read_ids, timeout_option
from amigo_async.cli.reports import Reports, annotate, report_options, summarize
from amigo_async.cli.streams import note, writing_to_stdout
from amigo_async.cli.summary import show_summary, show_what_goes_on
from amigo_async.client import AmigoClient
from amigo_async.escaping import log_line
from amigo_async.starting import OnConflict
from amigo_async.verdicts.gate import Gate, verdict_of


@click.command(
    help="""Run unit test sets, wait for them and collect their artifacts.

    SET_ID is the id of a set; - takes ids from stdin. The result goes to stdout, progress to
    stderr.

    Exit status: 0 all passed, 1 a metric failed, 2 used wrongly, 3 errored or could not start,
    4 timed out, 130 interrupted. Where sets end differently, 1 goes before 3, and 3 before 4.
    """,
)
@ids_argument("SET_ID")
@click.option("--artifacts", metavar="DIR", help="Fetch the artifacts into this folder.")
@report_options
@click.option("--journal", metavar="FILE", help="Note each step here; resumes where it is there.")
@timeout_option("then --on-exit counts")
@click.option(
    "--on-conflict",
    type=click.Choice(get_args(OnConflict)),
    default="raise",
    show_default=True,
    help="What to do about an unfinished run of a set.",
)
@click.option(
    "--on-failure",
    type=click.Choice(get_args(OnFailure)),
    default="continue",
    show_default=True,
    help="What to do about the other sets when one fails.",
)
@click.option(
    "--on-exit",
    type=click.Choice(get_args(OnExit)),
    default="leave",
    show_default=True,
    help="What becomes of runs in progress on Ctrl-C and after --timeout.",
)
@gate_option
@quiet_option
@carried_out
async def run(*, ids: tuple[str, ...], file: IO[str] | None, **options: Any) -> int:
    """Run unit test sets, wait for them and collect their artifacts."""
    reports = Reports(**{kind: options.pop(kind) for kind in Reports._fields})
    job = Job(read_ids(ids, file, "SET_ID"), **options)
    reports.check(job.journal)
    async with open_client() as client:
        ending = await run_job(client, job)
    return tell_ending(ending, reports, job)


def tell_ending(ending: Ending, reports: Reports, job: Job) -> Status:
    """Show how a batch ended, to people and to the files asked for.

    Returns:
        The exit status.
    """
    outputs = Outputs()
    if reports.on_stdout:
        with suppress(OSError):
            show_summary(ending, job, sys.stderr)
    else:
        with outputs.to("the summary on stdout"), writing_to_stdout():
            show_summary(ending, job)
    for unresolved in ending.unresolved:
        note(
            f"A run of set {unresolved.unit_test_set_id} may have been started: "
            f"{log_line(unresolved.reason)}. Look with: amigo-async list --set "
            f"{unresolved.unit_test_set_id}"
        )
    show_what_goes_on(ending.result.outcomes, job)
    with outputs.to("the annotations"):
        annotate(ending.result)
    with outputs.to("the summary of the job (GITHUB_STEP_SUMMARY)"):
        summarize(ending.result, job.gate)
    reports.write(ending.result, job.gate, outputs)
    return outputs.tell_failures(_status_of(ending, job))


def _status_of(ending: Ending, job: Job) -> Status:
    if ending.interrupted:
        return Status.INTERRUPTED
    return status_of_batch(ending.result.outcomes, artifacts=job.artifacts is not None)


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
