"""``amigo-async demo`` and ``sandbox``: try the command without the service."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import click

from amigo_async import report
from amigo_async.batch import BatchOptions, BatchResult
from amigo_async.cli.command import async_command, interrupts, parse_duration, quiet_option
from amigo_async.cli.exit_codes import ExitCode, exit_code_of_batch
from amigo_async.cli.jobs import Job, run_job
from amigo_async.cli.streams import note, write, writing_to_stdout
from amigo_async.cli.summary import show_summary
from amigo_async.errors import ConfigurationError

if TYPE_CHECKING:
    from amigo_async.protocol.endpoints import EndpointName
    from amigo_async.testing import SetPlan
    from amigo_async.testing.simulation import Outcome


class _Story(NamedTuple):
    """A set of the demo.

    Attributes:
        name: Its name.
        first: Which of the unit tests that the sets share is its first.
        outcome: How its run ends.
    """

    name: str
    first: int
    outcome: Outcome


_STORIES: Final = (
    _Story("Refund policy", 0, "failed"),
    _Story("Account access", 5, "passed"),
    _Story("Deliveries", 4, "passed"),
    _Story("Small talk and limits", 7, "errored"),
    _Story("Billing", 1, "failed"),
    _Story("Changes to an order", 6, "passed"),
)

# Unit tests that the sets share: as many as the sandbox has names of.
_POOL: Final = 12

# How the ids of the sets begin; the sandbox takes the first unit test from how an id ends.
_SET_IDS: Final = "6618791275130b73"

# The service allows 20 starts per minute. The demo allows 4 in `_WINDOW` seconds, so that the rate
# limit can be seen at work without waiting long.
_LIMITS: Final[Mapping[EndpointName, int | None]] = {"create": 4}
_WINDOW: Final = 4.0

_POLL_INTERVAL: Final = 0.5

# Maximum duration of a run in seconds.
_SECONDS: Final = 5.0

_OUTCOMES: Final[tuple[Outcome, ...]] = (
    "passed",
    "passed",
    "failed",
    "passed",
    "errored",
    "passed",
)


def _story_plan(number: int, outcome: Outcome) -> SetPlan:
    """Return the plan of a set of the demo."""
    from amigo_async.testing import SetPlan  # noqa: PLC0415  # the server, only where it is used

    return SetPlan(
        seconds=_SECONDS * (0.5 + number % 4 / 6),
        outcome=outcome,
        unit_tests=3,
        repeats=3,
        artifacts_after=min(1.0, _SECONDS / 4),
        pool=_POOL,
    )


def mixed_plans(count: int, seconds: float) -> list[SetPlan]:
    """Return plans for `count` sets of mixed outcomes, whose runs take up to `seconds` each."""
    from amigo_async.testing import SetPlan  # noqa: PLC0415  # the server, only where it is used

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
    help="""Run the tests of a support agent on a local sandbox.

    Some of the sets fail, and the summary and a report say why. The demo needs no credentials and
    no network, and takes about ten seconds. The rate limits are like those of the service, scaled
    down.

    Exit status: 0 if everything went as planned, although some sets fail on purpose; 3 if
    something did not, 130 interrupted.
    """,
)
@click.option(
    "--artifacts",
    metavar="DIR",
    default="results",
    show_default=True,
    help="The folder to download the artifacts into.",
)
@quiet_option
@async_command
async def demo(*, artifacts: str, quiet: bool) -> int:
    """Run the tests of a support agent on a local sandbox."""
    from amigo_async.testing import Sandbox  # noqa: PLC0415  # as above

    await anyio.Path(artifacts).mkdir(parents=True, exist_ok=True)
    if not quiet:
        note(f"{len(_STORIES)} test sets of a support agent, on a local sandbox")
    async with Sandbox(limits=_LIMITS, window=_WINDOW) as sandbox:
        set_ids = [
            sandbox.add_set(
                _story_plan(number, story.outcome),
                id=f"{_SET_IDS}{story.first:08x}",
                name=story.name,
            )
            for number, story in enumerate(_STORIES)
        ]
        options: BatchOptions = {
            "artifacts_dir": artifacts,
            "poll_interval": _POLL_INTERVAL,
            "describe": True,
            "explain": True,
        }
        job = Job(set_ids, options, quiet)
        async with sandbox.client() as client:
            job_result = await run_job(client, job)
    with suppress(BrokenPipeError), writing_to_stdout():
        show_summary(job_result, job)
    if job_result.interrupted:
        note("The sandbox has stopped, and its runs with it.")
        return ExitCode.INTERRUPTED
    _write_page(job_result.result, Path(artifacts))
    return _exit_code(job_result.result)


def _write_page(result: BatchResult, folder: Path) -> None:
    """Write an HTML page next to the artifacts, if the extra is installed."""
    path = folder / "report.html"
    try:
        path.write_text(report.html(result, title="Demo", folder=folder), encoding="utf-8")
    except ConfigurationError as error:
        write(f"No report: {error}")
        return
    write(f"Report: {path}")


def _exit_code(result: BatchResult) -> ExitCode:
    """Return 0 if all sets ended as planned and all artifacts are there."""
    if any(o.error is not None or o.artifacts is None for o in result.outcomes):
        return ExitCode.ERRORED
    code = exit_code_of_batch(result.outcomes)
    write(
        f"Everything went as planned. `amigo-async run` would have exited with {code.value}, as a "
        "metric failed; the demo exits with 0."
    )
    return ExitCode.PASSED


@click.command(
    help="""Serve a local sandbox of the API until stopped.

    Prints shell commands that set the AMIGO_* variables for it, and AMIGO_SANDBOX_SETS to the ids
    of its sets. To try it, in one terminal and another:

    \b
      amigo-async sandbox > sandbox.env
      . ./sandbox.env; amigo-async run "$AMIGO_SANDBOX_SETS"

    The sets have names, such as "Refund policy", which --dry-run shows, and every second one has
    the tag suite:nightly. The file also serves for --env-file.

    Exit status: 0 when stopped by Ctrl-C or SIGTERM, 3 if it cannot serve there.
    """,
)
@click.option(
    "--sets",
    type=click.IntRange(1),
    metavar="N",
    default=12,
    show_default=True,
    help="How many unit test sets it has; some pass, some fail.",
)
@click.option(
    "--seconds",
    type=parse_duration,
    metavar="DURATION",
    default="20",
    show_default=True,
    help="How long a run takes at most.",
)
@click.option(
    "--window",
    type=parse_duration,
    metavar="DURATION",
    default="60",
    show_default=True,
    help="After how long its rate limits start anew.",
)
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; others can reach it if that is not this machine alone, as with 0.0.0.0.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65534),
    metavar="PORT",
    help="The port of the API; artifacts are on the next one. By default, two that are free.",
)
@quiet_option
@async_command
async def sandbox(
    *, sets: int, seconds: float, window: float, host: str, port: int | None, quiet: bool
) -> int:
    """Serve a local sandbox of the API until stopped."""
    from amigo_async.testing import Sandbox  # noqa: PLC0415  # the server, only where it is used

    async with Sandbox(window=window, host=host, port=port or 0) as served:
        ids = [
            served.add_set(plan, tags={"suite": "weekly" if number % 2 else "nightly"})
            for number, plan in enumerate(mixed_plans(sets, seconds))
        ]
        variables = {**served.environment(), "AMIGO_SANDBOX_SETS": " ".join(ids)}
        with interrupts().caught(lambda _: None, lambda: None):
            for name, value in variables.items():
                write(f"export {name}={shlex.quote(str(value))}")
            if not quiet:
                note(f"Serving at {served.base_url}; Ctrl-C stops it.")
            await asyncio.Event().wait()
    return ExitCode.PASSED
