"""Carry a command out: its loop, its errors in one line each, and its exit status."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from amigo_async.cli.reasons import explain
from amigo_async.cli.statuses import Status, status_of_error
from amigo_async.client import AmigoClient
from amigo_async.errors import AmigoError
from amigo_async.escaping import log_line
from amigo_async.events import Listener

_NEEDED: Final = (
    "AMIGO_ORGANIZATION_ID",
    "AMIGO_API_KEY",
    "AMIGO_API_KEY_ID",
    "AMIGO_USER_ID",
)


def carried_out(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Make a coroutine function what a click command calls, with the option --debug."""

    @functools.wraps(command)
    def carry_out(*args: Any, debug: bool, **options: Any) -> int:
        try:
            return asyncio.run(_interruptible(command(*args, **options)))
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, asyncio.CancelledError):
            note("Interrupted.")
            return Status.INTERRUPTED
        except Exception as error:  # noqa: BLE001  # whatever it is, it becomes one line
            if debug:
                traceback.print_exception(error)
            tell(error)
            return status_of_error(error)

    option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    return option(carry_out)


async def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    """Await `work`; Ctrl-C cancels it.

    That is what `asyncio.run` does too, but a signal that comes just before the loop goes to
    sleep does not wake it there.
    """
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await work


def tell(error: Exception) -> None:
    """Write an error to stderr in one line."""
    if isinstance(error, AmigoError):
        said = explain(error)
    elif isinstance(error, OSError):
        said = log_line(f"{error.filename or 'cannot go on'}: {error.strerror or error}")
    else:
        said = (
            f"unexpected {type(error).__name__}: {log_line(str(error))}; --debug shows where. "
            "Please report it"
        )
    note(f"Error: {said}")


def note(text: str) -> None:
    """Write a line to stderr, if that is there still."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def write(text: str) -> bool:
    """Write a line to stdout; False if its reader has left, which is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_stdout()
        return False
    return True


def drop_stdout() -> None:
    """After the reader of stdout has left: send the rest to nowhere, at the exit too."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def open_client(on_event: Listener | None = None) -> AmigoClient:
    """A client made from the environment.

    Args:
        on_event: Called with each event; None for no one.

    Raises:
        click.ClickException: If variables are missing; the message names them all.
        ConfigurationError: If one cannot be right.
    """
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        raise click.ClickException(
            f"set {', '.join(missing)}; `amigo-async sandbox` prints values to try it with"
        )
    return AmigoClient(on_event=on_event)
