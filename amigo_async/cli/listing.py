"""``amigo-async list``: list runs, as a table or as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from amigo_async.cli.carrying import carried_out, open_client
from amigo_async.cli.exit_codes import Status
from amigo_async.cli.params import instant
from amigo_async.cli.reasons import amount_done
from amigo_async.cli.streams import write, writing_to_stdout
from amigo_async.cli.summary import STYLES, console_of, plain_table, print_table
from amigo_async.client import AmigoClient
from amigo_async.errors import DecodeError
from amigo_async.escaping import encode_json, log_line
from amigo_async.models import Run
from amigo_async.protocol.requests import RunFilters

# What the service gives at once.
_PAGE = 50

# Columns from which on the year and the seconds fit in.
_WIDE = 90


@click.command(
    "list",
    help="""List runs.

    TIME is ISO 8601 (local where it names no zone), or how long ago, e.g. 30m, 2h or 7d.
    """,
)
@click.option("--id", "id", multiple=True, metavar="RUN_ID", help="This run; repeatable.")
@click.option("--set", "sets", multiple=True, metavar="SET_ID", help="Runs of it; repeatable.")
@click.option("--creator", multiple=True, metavar="ORG_ID,USER_ID", help="Created by; repeatable.")
@click.option("--completed/--in-progress", "is_completed", default=None, help="Over, or not yet.")
@click.option("--failed/--not-failed", "failed_metrics", default=None, help="A metric failed.")
@click.option("--errored/--not-errored", default=None, help="An error was met.")
@click.option("--created-after", type=instant, metavar="TIME", help="Since, e.g. 2h (ago).")
@click.option("--created-before", type=instant, metavar="TIME", help="Until, ISO 8601 or as above.")
@click.option(
    "--sort-by",
    type=click.Choice(("+created_at", "-created_at")),
    multiple=True,
    help="Oldest or newest first.",
)
@click.option("--continuation-token", type=click.IntRange(0), help="How many to leave out.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=_PAGE,
    show_default=True,
    help="How many to list at most.",
)
@click.option("--all", "everything", is_flag=True, help="List all of them, whatever --limit.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON line for each run.")
@carried_out
async def list_runs(
    *, sets: tuple[str, ...], limit: int, everything: bool, as_json: bool, **filters: Any
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
            console = console_of(sys.stdout)
            table = await _table(runs, wide=console.width >= _WIDE)
            with writing_to_stdout():
                print_table(console, table)
        for error in unreadable:
            raise error
    return Status.PASSED


async def _first(
    client: AmigoClient,
    filters: RunFilters,
    most: int | None,
    failed: Callable[[DecodeError], object],
) -> AsyncIterator[Run]:
    """The first runs that match, or all of them.

    Args:
        client: The client.
        filters: What to list.
        most: How many; None for all.
        failed: Hears of runs that cannot be read, once all others were given.
    """
    count = 0
    try:
        async for run in client.runs.iterate(**filters):
            yield run
            count += 1
            if count == most:
                return
    except DecodeError as error:
        failed(error)


async def _write_lines(runs: AsyncIterator[Run]) -> None:
    async for run in runs:
        if not write(encode_json(run).encode()):
            return


async def _table(runs: AsyncIterator[Run], *, wide: bool) -> Table:
    form = "%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M"
    table = plain_table("state", "run", "set", "tests", "created")
    async for run in runs:
        state = _state(run)
        table.add_row(
            Text(state, STYLES.get(state, "cyan")),
            Text(log_line(run.id)),
            Text(log_line(run.simulation_unit_test_set_id)),
            amount_done(run),
            _local(run.created_at).strftime(form),
        )
    return table


def _local(at: datetime) -> datetime:
    """`at` in the zone of this machine; as it is where there is no such time there."""
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
