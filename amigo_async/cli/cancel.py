"""``amigo-async cancel``: cancel runs, and see them end if asked to."""

from __future__ import annotations

from typing import IO

import click

from amigo_async.cli.attending import Visit, attend, tell_visits
from amigo_async.cli.carrying import Outputs, carried_out
from amigo_async.cli.params import ids_argument, quiet_option, read_ids, timeout_option
from amigo_async.cli.streams import write
from amigo_async.client import AmigoClient
from amigo_async.errors import ConflictError


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
