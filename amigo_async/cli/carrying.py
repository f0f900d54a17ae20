"""Carry a command out: its loop, its errors in one line each, and its exit status."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import click

from amigo_async.cli.exit_codes import Status, status_of_error
from amigo_async.cli.reasons import explain
from amigo_async.cli.signals import Interrupts
from amigo_async.cli.streams import note
from amigo_async.client import AmigoClient
from amigo_async.errors import AmigoError
from amigo_async.escaping import log_line
from amigo_async.events import Listener
from amigo_async.transport import environment_session

_NEEDED: Final = (
    "AMIGO_ORGANIZATION_ID",
    "AMIGO_API_KEY",
    "AMIGO_API_KEY_ID",
    "AMIGO_USER_ID",
)


def carried_out(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Make a coroutine function what a click command calls, with the option --debug."""

    @functools.wraps(command)
    @click.pass_context
    def carry_out(ctx: click.Context, /, *args: Any, debug: bool, **options: Any) -> int:
        ctx.obj = state = State(Interrupts(), debug=debug)
        try:
            return state.interrupts.run(command(*args, **options))
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            note("Interrupted.")
            return Status.INTERRUPTED
        except BrokenPipeError:
            return Status.PASSED  # the reader of stdout has left, and needs no more
        except Exception as error:  # noqa: BLE001  # whatever it is, it becomes one line
            tell(error)
            return status_of_error(error)

    option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    return option(carry_out)


class State(NamedTuple):
    """What belongs to one call of the command, kept in click's context.

    Attributes:
        interrupts: Handles the signals.
        debug: Whether the traceback of an error is shown.
    """

    interrupts: Interrupts
    debug: bool


def interrupts() -> Interrupts:
    """What handles the signals of the command that is being carried out."""
    state: State = click.get_current_context().obj
    return state.interrupts


def _note_traceback(error: Exception) -> None:
    """Write a traceback to stderr; the messages in it may be the service's."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        margin = line[: len(line) - len(line.lstrip(" "))]
        note(f"{margin}{log_line(line)}")


def tell(error: Exception, what: str | None = None) -> bool:
    """Write an error to stderr in one line; False if it cannot be written.

    Args:
        error: The error.
        what: What came of it, e.g. ``r.xml was not written``; None where the error says it.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is not None and isinstance(ctx.obj, State) and ctx.obj.debug:
        _note_traceback(error)
    if isinstance(error, AmigoError):
        said = explain(error)
    elif isinstance(error, OSError):
        reason = log_line(error.strerror or str(error))
        said = reason if what else f"{log_line(str(error.filename or 'cannot go on'))}: {reason}"
    else:
        said = (
            f"unexpected {type(error).__name__}: {log_line(str(error))}; --debug shows where. "
            "Please report it"
        )
    return note(f"Error: {log_line(what)}: {said}" if what else f"Error: {said}")


class Outputs:
    """Writes what came of a command to several places, none of which harms another by failing."""

    def __init__(self) -> None:
        self._failures: list[tuple[str, Exception]] = []

    @contextmanager
    def to(self, place: str) -> Iterator[None]:
        """Write to `place` inside this context; a failure is kept for `tell_failures`."""
        try:
            yield
        except BrokenPipeError:
            pass  # the reader has left, and needs no more
        except Exception as error:  # noqa: BLE001  # whatever it is, the others are written
            self._failures.append((place, error))

    def tell_failures(self, status: Status) -> Status:
        """Tell on stderr what could not be written.

        Args:
            status: The exit status otherwise.

        Returns:
            `status`, unless it alone is left to tell: an error then, if all passed.
        """
        told = [tell(error, f"{place} was not written") for place, error in self._failures]
        return Status.ERRORED if status is Status.PASSED and not all(told) else status


@asynccontextmanager
async def open_client(on_event: Listener | None = None) -> AsyncIterator[AmigoClient]:
    """A client made from the environment, its proxies included.

    Args:
        on_event: Called with each event; None for no one.

    Raises:
        click.ClickException: If variables are missing; the message names them all.
        ConfigurationError: If one cannot be right.
    """
    missing = [name for name in _NEEDED if not os.environ.get(name, "").strip()]
    if missing:
        raise click.ClickException(
            f"set {', '.join(missing)}; `amigo-async sandbox` prints values to try it with"
        )
    async with AsyncExitStack() as stack:
        http = environment_session()
        if http is not None:
            await stack.enter_async_context(http)
        yield await stack.enter_async_context(AmigoClient(on_event=on_event, http=http))
