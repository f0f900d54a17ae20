"""``amigo-async download``: fetch the artifacts of runs that are over."""

from __future__ import annotations

import os
from typing import IO

import click

from amigo_async.cli.attending import Visit, attend, collect, tell_visits
from amigo_async.cli.carrying import Outputs, carried_out
from amigo_async.cli.params import ids_argument, quiet_option, read_ids, timeout_option
from amigo_async.cli.streams import write
from amigo_async.client import AmigoClient


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
