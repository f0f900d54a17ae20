"""``amigo-async demo``: a dozen sets on the sandbox, from start to artifacts."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import click

from amigo_async import report
from amigo_async.batch import BatchResult
from amigo_async.cli.carrying import carried_out, interrupts
from amigo_async.cli.exit_codes import Status, status_of_batch
from amigo_async.cli.jobs import Job, run_job
from amigo_async.cli.params import duration, quiet_option
from amigo_async.cli.streams import note, write, writing_to_stdout
from amigo_async.cli.summary import show_summary
from amigo_async.errors import ConfigurationError

if TYPE_CHECKING:
    from amigo_async.protocol.endpoints import EndpointName
    from amigo_async.testing import SetPlan
    from amigo_async.testing.simulation import Outcome


_SETS: Final = 12

# The service lets 20 runs a minute start. Here it is 5 in as few seconds as this, so that one
# sees the rest being held back without waiting for long.
_LIMITS: Final[Mapping[EndpointName, int | None]] = {"create": 5}
_WINDOW: Final = 4.0

_LOOK_EVERY: Final = 0.5

# How long a run takes at most, in seconds.
_SECONDS: Final = 6.0

_OUTCOMES: Final[tuple[Outcome, ...]] = (
    "passed",
    "passed",
    "failed",
    "passed",
    "errored",
    "passed",
)


def mixed_plans(count: int, seconds: float) -> list[SetPlan]:
    """Plans for sets of mixed outcome, of up to so many seconds each."""
    from amigo_async.testing import SetPlan  # noqa: PLC0415  # a server that few commands need

    return [
        SetPlan(
            seconds=seconds * (0.5 + number % 4 / 6),
            outcome=outcome,
            unit_tests=4,
            repeats=3,
            artifacts_after=min(1.0, seconds / 4),
        )
        for number, outcome in enumerate(islice(cycle(_OUTCOMES), count))
    ]


@click.command(
    help="""Run a dozen sets of mixed outcome on the sandbox.

    Needs no credentials and no network, and takes about 15 seconds. The limits are those of the
    service in small, so that one sees runs held back by them.

    Exit status: 0 if all went as planned, though some of the sets fail on purpose; 3 if it did
    not, 130 interrupted.
    """,
)
@click.option(
    "--artifacts",
    metavar="DIR",
    default="results",
    show_default=True,
    help="The folder to fetch the artifacts into.",
)
@quiet_option
@carried_out
async def demo(*, artifacts: str, quiet: bool) -> int:
    """Run a dozen sets of mixed outcome on the sandbox."""
    from amigo_async.testing import Sandbox  # noqa: PLC0415  # as above

    await anyio.Path(artifacts).mkdir(parents=True, exist_ok=True)
    if not quiet:
        note(f"{_SETS} sets of mixed outcome on a sandbox of the service")
    async with Sandbox(limits=_LIMITS, window=_WINDOW) as sandbox:
        set_ids = [sandbox.add_set(plan) for plan in mixed_plans(_SETS, _SECONDS)]
        job = Job(set_ids, artifacts=artifacts, poll_interval=_LOOK_EVERY, quiet=quiet)
        async with sandbox.client() as client:
            ending = await run_job(client, job)
    with suppress(BrokenPipeError), writing_to_stdout():
        show_summary(ending, job)
    if ending.interrupted:
        note("The sandbox has ended, and its runs with it.")
        return Status.INTERRUPTED
    _write_page(ending.result, Path(artifacts))
    return _status(ending.result)


def _write_page(result: BatchResult, folder: Path) -> None:
    """Write the page for people beside the artifacts, where its extra is there."""
    path = folder / "report.html"
    try:
        path.write_text(report.html(result, title="Demo", folder=folder), encoding="utf-8")
    except ConfigurationError as error:
        write(f"No page: {error}")
        return
    write(f"Page: {path}")


def _status(result: BatchResult) -> Status:
    """0 if all ended as planned, artifacts and all."""
    if any(o.error is not None or o.artifacts is None for o in result.outcomes):
        return Status.ERRORED
    status = status_of_batch(result.outcomes)
    write(
        f"All went as planned. `amigo-async run` would have exited with {status.value}, as a "
        "metric failed; the demo exits with 0."
    )
    return Status.PASSED


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
