"""``amigo-async list``: a table of runs, or lines for other programs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from amigo_async.cli.command import (
    names_option,
    open_client,
    parse_instant,
    print_notes,
    service_command,
)
from amigo_async.cli.exit_codes import ExitCode
from amigo_async.cli.reasons import amount_done
from amigo_async.cli.sets import select
from amigo_async.cli.streams import note, write, writing_to_stdout
from amigo_async.cli.summary import (
    STYLES,
    console_of,
    is_narrow,
    is_wide,
    name_cell,
    plain_table,
    print_table,
)
from amigo_async.client import AmigoClient
from amigo_async.decoding import run_decode_error
from amigo_async.errors import DecodeError
from amigo_async.escaping import encode_json, log_line
from amigo_async.models import Run
from amigo_async.names import Names
from amigo_async.protocol.endpoints import LIST
from amigo_async.protocol.requests import RunFilters
from amigo_async.report.wording import plural
from amigo_async.verdicts.gate import verdict_of

# The largest page that the service gives.
_PAGE = LIST.page_size

# Seconds that a list waits for names.
_NAMES_TIMEOUT = 10.0

# Width of the terminal from which on tables show years and seconds too.
_WIDE = 90


def _creator(text: str) -> str:
    organization, _, user = text.partition(",")
    if not organization.strip() or not user.strip():
        raise click.BadParameter(f"{text!r} is not an organization and a user, like org-1,user-1")
    return text


@click.command(
    "list",
    help="""List runs, the newest first.

    On a terminal, this is a table, with times of the local zone. Into a file or a pipe, each run is
    one line with tabs between its fields: state, id, time of creation, unit test runs done, id of
    the set, name of the set. With --ids, lines are ids alone:

    \b
      amigo-async list --in-progress --ids | amigo-async wait -

    SET is the id of a set, or its whole name in any case.

    TIME is ISO 8601, in the local zone unless it names one, or how long ago, e.g. 30m, 2h or 7d.
    """,
)
@click.option("--id", "id", multiple=True, metavar="RUN_ID", help="Only this run; repeatable.")
@click.option(
    "--set", "sets", multiple=True, metavar="SET", help="Only runs of this set; repeatable."
)
@click.option(
    "--creator",
    multiple=True,
    metavar="ORG_ID,USER_ID",
    callback=lambda _, __, texts: tuple(map(_creator, texts)),
    help="Only runs that this user started; repeatable.",
)
@click.option(
    "--completed/--in-progress",
    "is_completed",
    default=None,
    help="Only runs that have ended, or have not.",
)
@click.option(
    "--failed/--not-failed",
    "failed_metrics",
    default=None,
    help="Only runs in which a metric failed, or none did.",
)
@click.option(
    "--errored/--not-errored",
    default=None,
    help="Only runs in which an error occurred, or none did.",
)
@click.option(
    "--created-after",
    type=parse_instant,
    metavar="TIME",
    help="Only runs created at or after this time.",
)
@click.option(
    "--created-before",
    type=parse_instant,
    metavar="TIME",
    help="Only runs created before this time.",
)
@click.option(
    "--sort-by",
    type=click.Choice(("+created_at", "-created_at")),
    default="-created_at",
    help="Oldest first (+), or newest first (-, the default).",
)
@click.option(
    "--continuation-token",
    type=click.IntRange(0),
    metavar="N",
    help="Skip the first N runs.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    default=_PAGE,
    show_default=True,
    help="List at most N runs.",
)
@click.option("--all", "everything", is_flag=True, help="List all runs, however many.")
@click.option("--ids", "as_ids", is_flag=True, help="Write ids alone, one on a line.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one run on a line.")
@names_option
@service_command
async def list_runs(
    *,
    sets: tuple[str, ...],
    sort_by: str,
    limit: int,
    everything: bool,
    as_ids: bool,
    as_json: bool,
    names: bool,
    **filters: Any,
) -> int:
    """List runs, the newest first."""
    if as_ids and as_json:
        raise click.UsageError("Give either --ids or --json, not both.")
    given: RunFilters = {"sort_by": [sort_by]}
    given.update(filters)  # type: ignore[typeddict-item]  # they are the API's own names
    async with open_client() as client:
        if sets:
            given["simulation_unit_test_set_id"] = (await select(client, sets, ())).ids
        listing = _Listing(client, given, None if everything else limit)
        if as_ids:
            await _write_lines(run.id async for run in listing.runs())
        elif as_json:
            await _write_lines(encode_json(run).encode() async for run in listing.runs())
        else:
            await _show(client, listing, names=names)
        if listing.has_more and not sys.stdout.isatty():
            note(listing.extent)
        if not as_json and not listing.count and listing.error is None:
            note("No runs found.")
        if listing.error is not None:
            raise listing.error
    return ExitCode.PASSED


class _Listing:
    """The runs that match, up to a number.

    Args:
        client: The client.
        filters: Which runs to list.
        most: How many; None for all.

    Attributes:
        count: How many were given so far.
        has_more: Whether more match; known after the last.
        error: The error of runs that cannot be decoded; None if there is none.
    """

    def __init__(self, client: AmigoClient, filters: RunFilters, most: int | None) -> None:
        self._client = client
        self._filters = filters
        self._most = most
        self.count = 0
        self.has_more = False
        self.error: DecodeError | None = None

    async def runs(self) -> AsyncIterator[Run]:
        """Iterate over them."""
        most = self._most
        if most is not None and most <= _PAGE:  # one page, which says whether there are more
            self._filters["limit"] = most
            page = await self._client.runs.list(**self._filters)
            self.has_more = page.has_more
            shown = {run.id for run in page.simulation_unit_test_set_runs}
            for run_id, flaw in page.unreadable.items():
                if run_id not in shown:
                    self.error = self.error or run_decode_error(run_id, flaw)
            for run in page.simulation_unit_test_set_runs:
                self.count += 1
                yield run
            return
        self._filters["limit"] = _PAGE
        try:
            async for run in self._client.runs.iterate(**self._filters):
                if self.count == most:
                    self.has_more = True
                    return
                self.count += 1
                yield run
        except DecodeError as error:
            self.error = error

    @property
    def extent(self) -> str:
        """How many runs these are, and whether there are more."""
        return f"{plural(self.count, 'run')}{'; --all lists more' if self.has_more else ''}"


async def _write_lines(lines: AsyncIterator[str | bytes]) -> None:
    async for line in lines:
        if not write(line):
            return


async def _show(client: AmigoClient, listing: _Listing, *, names: bool) -> None:
    """Write a table on a terminal, and lines with tabs elsewhere."""
    rows: list[_Row] = []
    samples: dict[str, Run] = {}
    async for run in listing.runs():
        rows.append(_Row.of(run))
        samples.setdefault(run.simulation_unit_test_set_id, _without_results(run))
    known = Names()
    if names and rows:
        known = await client.describe(samples.values(), timeout=_NAMES_TIMEOUT)
    if not sys.stdout.isatty():
        for row in rows:
            if not write("\t".join(row.fields(known))):
                break
    elif rows:
        console = console_of(sys.stdout)
        with writing_to_stdout():
            print_table(console, _table(rows, known, console))
            console.print(Text(listing.extent, "bold"), soft_wrap=True)
    print_notes(known.notes)


class _Row(NamedTuple):
    """What is shown of a run; the runs themselves may be large."""

    state: str
    run_id: str
    set_id: str
    done: str
    created_at: datetime

    @classmethod
    def of(cls, run: Run) -> _Row:
        set_id = run.simulation_unit_test_set_id
        state = verdict_of(run, None, cancelled=False) if run.is_completed else "running"
        return cls(state, run.id, set_id, amount_done(run), run.created_at)

    def fields(self, names: Names) -> list[str]:
        """Return the fields of a line; a tab within a name is escaped."""
        at = self.created_at.isoformat(timespec="seconds")
        name = names.unit_test_sets.get(self.set_id, "")
        texts = (self.state, self.run_id, at, self.done, self.set_id, name)
        return [log_line(text) for text in texts]


def _without_results(run: Run) -> Run:
    """Return the run without its unit tests and metrics, whose names a list does not show."""
    return replace(run, unit_test_run_specs=[], unit_test_run_results=[])


def _table(rows: Sequence[_Row], names: Names, console: Console) -> Table:
    form = "%Y-%m-%d %H:%M:%S" if console.width >= _WIDE else "%m-%d %H:%M"
    with_ids = is_wide(console) and bool(names.unit_test_sets)
    times = [local_time(row.created_at) for row in rows]
    created = f"created ({_zones(times)})"
    if is_narrow(console):
        table = plain_table("state", f"set, run, {created}")
        for row, at in zip(rows, times, strict=True):
            state = Text(row.state, STYLES.get(row.state, "cyan"))
            table.add_row(state, name_cell(row.set_id, names.unit_test_sets.get(row.set_id)))
            table.add_row("", Text(log_line(row.run_id)))
            table.add_row("", Text(at.strftime(form), "dim"))
        return table
    table = plain_table("state", "set", "tests", created, "run", *(["set id"] * with_ids))
    for row, at in zip(rows, times, strict=True):
        table.add_row(
            Text(row.state, STYLES.get(row.state, "cyan")),
            name_cell(row.set_id, names.unit_test_sets.get(row.set_id)),
            row.done,
            at.strftime(form),
            Text(log_line(row.run_id)),
            *([Text(log_line(row.set_id), "dim")] * with_ids),
        )
    return table


def local_time(at: datetime) -> datetime:
    """Convert a time to the local zone; unchanged if it is out of range there."""
    try:
        return at.astimezone()
    except OverflowError:
        return at


def _zones(times: Iterable[datetime]) -> str:
    """Name the zones of local times: two across a change to summer time."""
    return "/".join(dict.fromkeys(at.strftime("%Z") for at in times))
