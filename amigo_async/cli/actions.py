"""``amigo-async list``, ``cancel`` and ``download``: for runs that were started before."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import IO, Any, NamedTuple

import click
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from amigo_async.cli.command import (
    Outputs,
    ids_argument,
    instant,
    names_option,
    open_client,
    print_error,
    print_notes,
    quiet_option,
    read_run_ids,
    service_command,
    timeout_option,
)
from amigo_async.cli.exit_codes import ExitCode, exit_code_of_error
from amigo_async.cli.jobs import ActionResults, RunAction, collect, run_actions
from amigo_async.cli.reasons import amount_done
from amigo_async.cli.streams import write, writing_to_stdout
from amigo_async.cli.summary import (
    STYLES,
    console_of,
    is_wide,
    name_cell,
    plain_table,
    print_table,
)
from amigo_async.client import AmigoClient
from amigo_async.errors import ConflictError, DecodeError
from amigo_async.escaping import encode_json, log_line
from amigo_async.models import Run
from amigo_async.names import Names
from amigo_async.protocol.requests import RunFilters

# The largest page that the service gives.
_PAGE = 50

# Seconds that a list waits for names.
_NAMES_TIMEOUT = 10.0

# Width of the terminal from which on tables show years and seconds too.
_WIDE = 90


# --- list ---


@click.command(
    "list",
    help="""List runs.

    TIME is ISO 8601 (local without a zone), or how long ago, e.g. 30m, 2h or 7d.
    """,
)
@click.option("--id", "id", multiple=True, metavar="RUN_ID", help="This run; repeatable.")
@click.option("--set", "sets", multiple=True, metavar="SET_ID", help="Runs of it; repeatable.")
@click.option("--creator", multiple=True, metavar="ORG_ID,USER_ID", help="Created by; repeatable.")
@click.option("--completed/--in-progress", "is_completed", default=None, help="Ended, or not yet.")
@click.option("--failed/--not-failed", "failed_metrics", default=None, help="A metric failed.")
@click.option("--errored/--not-errored", default=None, help="An error occurred.")
@click.option("--created-after", type=instant, metavar="TIME", help="Since, e.g. 2h (ago).")
@click.option(
    "--created-before", type=instant, metavar="TIME", help="Until, e.g. 2026-05-04T12:30."
)
@click.option(
    "--sort-by",
    type=click.Choice(("+created_at", "-created_at")),
    multiple=True,
    help="Oldest or newest first.",
)
@click.option("--continuation-token", type=click.IntRange(0), help="How many to skip.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=_PAGE,
    show_default=True,
    help="How many to list at most.",
)
@click.option("--all", "everything", is_flag=True, help="List all of them, ignoring --limit.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON line for each run.")
@names_option
@service_command
async def list_runs(
    *,
    sets: tuple[str, ...],
    limit: int,
    everything: bool,
    as_json: bool,
    names: bool,
    **filters: Any,
) -> int:
    """List runs."""
    most = None if everything else limit
    given: RunFilters = {"simulation_unit_test_set_id": sets, "limit": min(most or _PAGE, _PAGE)}
    given.update(filters)  # type: ignore[typeddict-item]  # they are the API's own names
    async with open_client() as client:
        unreadable: list[DecodeError] = []
        runs = _first(client, given, most, unreadable.append)
        if as_json:
            await _write_lines(runs)
        else:
            rows: list[_Row] = []
            samples: dict[str, Run] = {}
            async for run in runs:
                rows.append(_Row.of(run))
                samples.setdefault(run.simulation_unit_test_set_id, _without_results(run))
            known = Names()
            if names:
                known = await client.describe(samples.values(), timeout=_NAMES_TIMEOUT)
            console = console_of(sys.stdout)
            with writing_to_stdout():
                print_table(console, _table(rows, known, console))
            print_notes(known.notes)
        for error in unreadable:
            raise error
    return ExitCode.PASSED


async def _first(
    client: AmigoClient,
    filters: RunFilters,
    most: int | None,
    on_unreadable: Callable[[DecodeError], object],
) -> AsyncIterator[Run]:
    """Iterate over the first runs that match.

    Args:
        client: The client.
        filters: Which runs to list.
        most: How many; None for all.
        on_unreadable: Called with the error of runs that cannot be decoded, after all others.
    """
    count = 0
    try:
        async for run in client.runs.iterate(**filters):
            yield run
            count += 1
            if count == most:
                return
    except DecodeError as error:
        on_unreadable(error)


async def _write_lines(runs: AsyncIterator[Run]) -> None:
    async for run in runs:
        if not write(encode_json(run).encode()):
            return


class _Row(NamedTuple):
    """What a table shows of a run; the runs themselves may be large."""

    state: str
    run_id: str
    set_id: str
    done: str
    created_at: datetime

    @classmethod
    def of(cls, run: Run) -> _Row:
        set_id = run.simulation_unit_test_set_id
        return cls(_state(run), run.id, set_id, amount_done(run), run.created_at)


def _without_results(run: Run) -> Run:
    """Return the run without its unit tests and metrics, whose names a list does not show."""
    return replace(run, unit_test_run_specs=[], unit_test_run_results=[])


def _table(rows: Iterable[_Row], names: Names, console: Console) -> Table:
    form = "%Y-%m-%d %H:%M:%S" if console.width >= _WIDE else "%m-%d %H:%M"
    with_ids = is_wide(console) and bool(names.unit_test_sets)
    table = plain_table("state", "set", "tests", "created", "run", *(["set id"] * with_ids))
    for row in rows:
        table.add_row(
            Text(row.state, STYLES.get(row.state, "cyan")),
            name_cell(row.set_id, names.unit_test_sets.get(row.set_id)),
            row.done,
            _local(row.created_at).strftime(form),
            Text(log_line(row.run_id)),
            *([Text(log_line(row.set_id), "dim")] * with_ids),
        )
    return table


def _local(at: datetime) -> datetime:
    """Convert a time to the local zone; unchanged if it is out of range there."""
    try:
        return at.astimezone()
    except OverflowError:
        return at


def _state(run: Run) -> str:
    if not run.is_completed:
        return "running"
    if run.was_cut_short:
        return "cancelled"
    if run.errored:
        return "errored"
    return "failed" if run.failed_metrics else "passed"


# --- cancel ---


@click.command(
    help="""Cancel runs.

    RUN_ID is the id of a run; - reads ids from stdin. Prints a line for each run, its id and a
    word: asked (the service accepted the request), cancelled (and the run has ended), over (it
    had ended before), running (it had not ended by the end of --timeout) or error.

    Exit status: 0 if no run is known to be still running, otherwise as for run.
    """,
)
@ids_argument("RUN_ID")
@click.option("--wait", is_flag=True, help="Wait for the runs to end; cancelling takes a while.")
@timeout_option("runs that have not ended by then are reported as running")
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
    default=1,
    show_default=True,
    help="How many parts of each artifact to download concurrently.",
)
@timeout_option("what was received by then is kept, and the same command resumes from it")
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
