"""``amigo-async auth check`` and ``logout``: who the command is, and the token that it keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import click

from amigo_async.cli.command import (
    async_command,
    open_client,
    print_error,
    service_command,
    settings,
)
from amigo_async.cli.exit_codes import ExitCode, exit_code_of_error
from amigo_async.cli.notices import print_delay
from amigo_async.cli.reasons import endpoint_name
from amigo_async.cli.streams import note, write
from amigo_async.cli.token_cache import TokenCache
from amigo_async.client import AmigoClient
from amigo_async.config import DEFAULT_BASE_URL, REGIONS
from amigo_async.errors import (
    AmigoError,
    ArtifactsNotReadyError,
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
)
from amigo_async.escaping import log_line
from amigo_async.events import Event, SignedIn
from amigo_async.models import Run
from amigo_async.protocol.endpoints import EVALUATIONS, LIST, METRICS, UNIT_TEST_SETS, UNIT_TESTS
from amigo_async.ratelimit import BudgetState
from amigo_async.report.wording import duration, plural
from amigo_async.threads import in_thread

# Width of the column of labels.
_WIDTH: Final = 16

_ALLOWED: Final = "allowed"
_UNTRIED: Final = "to be seen only by doing it: the user needs {}"


@click.group(help="Check the credentials, or delete the tokens that are kept.")
def auth() -> None:
    """Run one of the subcommands."""


# --- check ---


@auth.command(
    help="""Sign in, and show what the credentials are good for.

    Shows who you are, which permissions seem to be missing and what they are needed for, and how
    many requests are left. It only reads, so it cannot tell whether you may start and cancel runs.

    If Amigo has no such organization in the region of AMIGO_BASE_URL, the same key is tried in
    Amigo's other regions, and nowhere else.

    Exit status: 0 signed in, 2 settings are missing or invalid, 3 refused or not reached.
    """,
)
@service_command
async def check() -> int:
    """Sign in, and show what the credentials are good for."""
    me = settings()
    base_url = me.get("base_url", DEFAULT_BASE_URL).rstrip("/")
    lives: list[float] = []

    def on_event(event: Event) -> None:
        print_delay(event)
        if isinstance(event, SignedIn):
            lives.append(event.expires_in)

    try:
        async with open_client(on_event, fresh_token=True) as client:
            runs, problem = await _runs(client)
            write(f"Signed in at {log_line(base_url)}")
            for name in ("organization_id", "user_id", "api_key_id"):
                write(_line(name.removesuffix("_id").replace("_", " "), log_line(me[name])))
            for life in lives:
                write(_line("token", f"valid for {duration(life)}"))
            write("Permissions, as far as reading shows")
            write(_line("runs", problem or (_ALLOWED if runs else _unseen("runs"))))
            async for line in _permissions(client, runs):
                write(line)
            write("Requests left to the organization")
            for name, budget in client.budgets().items():
                write(_line(endpoint_name(name), _left(budget)))
    except NotFoundError as error:
        print_error(error)
        await _look_elsewhere(base_url)
        return exit_code_of_error(error)
    return ExitCode.PASSED


def _line(name: str, value: str) -> str:
    return f"  {name:<{_WIDTH}} {value}"


async def _runs(client: AmigoClient) -> tuple[list[Run], str | None]:
    """Sign in and list the newest run; return it, and why there is none for want of a permission.

    Raises:
        AmigoError: If signing in fails.
    """
    try:
        page = await client.runs.list(limit=1, sort_by=["-created_at"])
    except ForbiddenError:
        return [], _lacking("runs")
    return page.simulation_unit_test_set_runs, None


async def _permissions(client: AmigoClient, runs: list[Run]) -> AsyncIterator[str]:
    """Describe what the user may read, as far as lists and the newest run show it."""
    lists: tuple[tuple[str, Callable[[], Awaitable[int]]], ...] = (
        ("unit test sets", lambda: _sets(client)),
        ("unit tests", lambda: _tests(client)),
        ("metrics", lambda: _metrics(client)),
        ("evaluations", lambda: _evaluations(client)),
    )
    for name, count in lists:
        yield _line(name, await _visible(name, count))
    yield _line("artifacts", await _artifacts(client, runs))
    for name, verb in (("start runs", "Create"), ("cancel runs", "Cancel")):
        yield _line(name, _UNTRIED.format(f"Simulation:{verb}SimulationUnitTestSetRun"))


# The permission that a list needs to show its records, and what they are needed for.
_NEEDS: Final = {
    "runs": (LIST, "for everything"),
    "unit test sets": (
        UNIT_TEST_SETS,
        "to select sets by name or tag, and to see names and results",
    ),
    "unit tests": (UNIT_TESTS, "to see which unit tests and metrics failed"),
    "metrics": (METRICS, "to see names of metrics"),
    "evaluations": (EVALUATIONS, "to see why a metric failed"),
}


def _lacking(name: str) -> str:
    endpoint, purpose = _NEEDS[name]
    return f"the user lacks {endpoint.permission}, which is needed {purpose}"


def _unseen(name: str) -> str:
    """Describe a list without records, as it is without the permission."""
    return f"none is visible: there is none, or {_lacking(name)}"


async def _visible(name: str, count: Callable[[], Awaitable[int]]) -> str:
    """Describe whether records of a list are visible."""
    try:
        return _ALLOWED if await count() else _unseen(name)
    except ForbiddenError:
        return _lacking(name)
    except AmigoError as error:
        return f"could not be read: {log_line(str(error))}"


async def _sets(client: AmigoClient) -> int:
    return len((await client.unit_test_sets.list(limit=1)).simulation_unit_test_sets)


async def _tests(client: AmigoClient) -> int:
    return len((await client.unit_tests.list(limit=1)).simulation_unit_tests)


async def _metrics(client: AmigoClient) -> int:
    return len((await client.metrics.list(limit=1)).metrics)


async def _evaluations(client: AmigoClient) -> int:
    return len((await client.evaluations.list(limit=1)).metric_evaluation_results)


async def _artifacts(client: AmigoClient, runs: list[Run]) -> str:
    """Describe whether a link to the artifacts of the newest run is given."""
    if not runs:
        return "unknown: no run is visible"
    try:
        await client.runs.artifacts(runs[0].id)
    except ArtifactsNotReadyError:
        return _ALLOWED  # permissions are checked before
    except AmigoError as error:  # which names the permissions
        return log_line(str(error))
    return _ALLOWED


def _left(budget: BudgetState) -> str:
    if budget.remaining is None:
        return f"unknown, of {budget.limit} a minute"
    resets = "" if budget.turns_in is None else f", all again in {duration(budget.turns_in)}"
    return f"{budget.remaining} of {budget.limit}{resets}"


async def _look_elsewhere(base_url: str) -> None:
    """Say in which region of Amigo the organization is, by signing in there.

    The key goes to hosts of Amigo only, and only if it was meant for one of them: a host of
    someone else's, or a dedicated one, has no other regions.
    """
    if base_url not in REGIONS:
        return
    others = [region for region in REGIONS if region != base_url]
    note(f"Trying the same key in Amigo's other regions: {', '.join(others)}")
    for region in others:
        problem: str | None = None
        try:
            async with open_client(fresh_token=True, base_url=region) as client:
                await client.runs.list(limit=1)
        except NotFoundError:
            continue
        except AuthenticationError:
            problem = "but it does not accept the key"
        except ForbiddenError:
            pass  # signed in
        except AmigoError as error:
            note(f"{region}: {log_line(str(error))}")
            continue
        where = f"The organization is at {region}"
        note(f"{where}, {problem}." if problem else f"{where}: set AMIGO_BASE_URL={region}")
        return
    note("None of them has the organization: check AMIGO_ORGANIZATION_ID.")


# --- logout ---


@auth.command(
    help="""Delete the tokens that are kept in the user's cache folder.

    Tokens are kept so that commands in a row sign in once. The service goes on accepting a token
    until it expires.

    Exit status: 0 if none is kept any longer, otherwise 3.
    """,
)
@async_command
async def logout() -> int:
    """Delete the tokens that are kept."""
    count = await in_thread(TokenCache().clear)
    write(f"{plural(count, 'token')} deleted" if count else "No token is kept.")
    return ExitCode.PASSED
