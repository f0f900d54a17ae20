"""``amigo-async sandbox``: the service in small, for trying and testing."""

from __future__ import annotations

import asyncio
import shlex

import click

from amigo_async.cli.carrying import carried_out, interrupts
from amigo_async.cli.demo import mixed_plans
from amigo_async.cli.params import duration, quiet_option
from amigo_async.cli.statuses import Status
from amigo_async.cli.streams import note, write


@click.command(
    help="""Serve a sandbox of the API and its artifact store on this machine until stopped.

    Writes the variables to set, in the form of a shell: those of any client, and
    AMIGO_SANDBOX_SETS with the ids of the sets. For instance:

    \b
      amigo-async sandbox > sandbox.env &
      sleep 1; . ./sandbox.env
      amigo-async run $AMIGO_SANDBOX_SETS

    Exit status: 0 when stopped by Ctrl-C or SIGTERM.
    """,
)
@click.option(
    "--sets",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="How many unit test sets there are, of mixed outcome.",
)
@click.option(
    "--seconds",
    type=duration,
    metavar="DURATION",
    default="20",
    show_default=True,
    help="How long runs take at most.",
)
@click.option(
    "--window",
    type=duration,
    metavar="DURATION",
    default="60",
    show_default=True,
    help="How long the windows of the rate limits are.",
)
@quiet_option
@carried_out
async def sandbox(*, sets: int, seconds: float, window: float, quiet: bool) -> int:
    """Serve a sandbox of the API and its artifact store on this machine until stopped."""
    from amigo_async.testing import Sandbox  # noqa: PLC0415  # a server that few commands need

    async with Sandbox(window=window) as served:
        ids = [served.add_set(plan) for plan in mixed_plans(sets, seconds)]
        variables = {**served.environment(), "AMIGO_SANDBOX_SETS": " ".join(ids)}
        with interrupts().caught(lambda _: None, lambda: None):
            for name, value in variables.items():
                write(f"export {name}={shlex.quote(str(value))}")
            if not quiet:
                note(f"Serving at {served.base_url}; Ctrl-C stops it.")
            await asyncio.Event().wait()
    return Status.PASSED
