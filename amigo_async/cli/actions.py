"""``amigo-async cancel`` and ``download``: for runs that were started before."""

from __future__ import annotations

import os
from typing import IO

import click

from amigo_async.cli.command import (
    Outputs,
    ids_argument,
    print_error,
    quiet_option,
    read_run_ids,
    service_command,
    timeout_option,
)
from amigo_async.cli.exit_codes import ExitCode, exit_code_of_error
from amigo_async.cli.jobs import ActionResults, RunAction, collect, run_actions
from amigo_async.cli.streams import write
from amigo_async.client import AmigoClient
from amigo_async.errors import ConflictError

# --- cancel ---


@click.command(
    help="""Cancel runs.

    RUN_ID is the id of a run; - reads ids from stdin. For each run, a line with its id and one of
    these words is printed:

    \b
      asked      the service was asked to cancel it
      cancelled  it was cancelled, and has ended (with --wait)
      over       it had ended before
      running    it had not ended when --timeout was over
      error      it could not be cancelled; stderr says why

    Exit status: 0 if no run is known to be still running, otherwise as for run.
    """,
)
@ids_argument("RUN_ID")
@click.option("--wait", is_flag=True, help="Wait until the runs have ended, which takes a while.")
@timeout_option("runs that have not ended are reported as running")
@quiet_option
@service_command
async def cancel(
    *, ids: tuple[str, ...], file: IO[str] | None, wait: bool, timeout: float | None, quiet: bool
) -> int:
    """Cancel runs."""
    run_ids = read_run_ids(ids, file)
    act = _cancel_and_wait if wait else _cancel
    results = await run_actions(run_ids, act, timeout=timeout, quiet=quiet)
    outputs = Outputs()
    with outputs.to("what became of the runs"):
        for action in results.actions:
            write(f"{action.run_id} {action.result or ('error' if action.error else 'running')}")
    return _finish(results, outputs)


async def _cancel(client: AmigoClient, action: RunAction) -> None:
    try:
        await client.runs.cancel(action.run_id)
        action.result = "asked"
    except ConflictError:
        action.result = "over"


async def _cancel_and_wait(client: AmigoClient, action: RunAction) -> None:
    state, run = await client.cancel_and_wait(action.run_id)
    action.result = {"finished": "over"}.get(state, state)
    action.run = run


# --- download ---


@click.command(
    help="""Download the artifacts of runs.

    RUN_ID is the id of a run that has ended; - reads ids from stdin. Each artifact goes into a
    folder named after its run, and its path is printed. Artifacts that were downloaded before
    are not downloaded again.

    Exit status: 0 if all artifacts are there, otherwise as for run.
    """,
)
@ids_argument("RUN_ID")
@click.option(
    "--artifacts",
    metavar="DIR",
    default="results",
    show_default=True,
    help="The folder to download into.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 16),
    metavar="N",
    default=1,
    show_default=True,
    help="Download N parts of each artifact at the same time, up to 16.",
)
@timeout_option("the same command continues with what was received")
@quiet_option
@service_command
async def download(
    *,
    ids: tuple[str, ...],
    file: IO[str] | None,
    artifacts: str,
    connections: int,
    timeout: float | None,
    quiet: bool,
) -> int:
    """Download the artifacts of runs."""
    run_ids = read_run_ids(ids, file)

    async def act(client: AmigoClient, action: RunAction) -> None:
        await collect(client, action, artifacts, connections)
        action.result = "saved"

    results = await run_actions(run_ids, act, fetches=True, timeout=timeout, quiet=quiet)
    outputs = Outputs()
    with outputs.to("the list of paths"):
        for action in results.actions:
            if action.artifacts is not None:
                write(os.fsencode(action.artifacts))  # the file system's own bytes, for xargs
    return _finish(results, outputs)


def _finish(results: ActionResults, outputs: Outputs) -> ExitCode:
    """Print the errors of the actions and of the outputs to stderr; return the exit code."""
    found = {ExitCode.TIMED_OUT for action in results.actions if action.late}
    for action in results.actions:
        if action.error is not None:
            print_error(action.error)
            found.add(exit_code_of_error(action.error))
    order = (ExitCode.ERRORED, ExitCode.USAGE_ERROR, ExitCode.TIMED_OUT)
    code = next((code for code in order if code in found), ExitCode.PASSED)
    return outputs.print_failures(ExitCode.INTERRUPTED if results.interrupted else code)
