"""The types of arguments that the command takes, and options that several commands share."""

from __future__ import annotations

import codecs
import io
import math
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final, TypeVar

import click

from amigo_async.errors import ArgumentError
from amigo_async.protocol.requests import check_id, check_run_id
from amigo_async.verdicts.gate import Gate

F = TypeVar("F", bound=Callable[..., Any])

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds: a number of them, or a number with s, m, h or d."""
    match = _DURATION.fullmatch(text.strip())
    seconds = 0.0 if match is None else float(match[1]) * _SECONDS[match[2] or "s"]
    if not 0 < seconds < math.inf:
        raise click.BadParameter(f"{text!r} is not a duration above 0, like 90, 30m or 2h")
    return seconds


def instant(text: str) -> datetime:
    """A time in ISO 8601 (local where it names no zone), or how long ago, e.g. 2h."""
    match = _DURATION.fullmatch(text.strip())
    try:
        if match is not None and match[2] is not None:
            ago = timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
            return datetime.now(UTC) - ago
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a time like 2026-05-04T12:30, or how long ago, like 2h"
        ) from None


def read_ids(arguments: Iterable[str], file: IO[Any] | None, what: str) -> list[str]:
    """The ids given as arguments and in a file, checked.

    Args:
        arguments: The arguments; ``-`` stands for those on stdin.
        file: A file with ids, separated by white space; what follows a ``#`` is ignored.
        what: What to call them.

    Raises:
        click.UsageError: If there are none, or one cannot be an id.
    """
    ids: list[str] = []
    for argument in arguments:
        ids += _ids_in(getattr(sys.stdin, "buffer", sys.stdin)) if argument == "-" else [argument]
    if file is not None:
        ids += _ids_in(file)
    if not ids:
        raise click.UsageError(f"Give at least one {what}, or --from FILE with some.")
    for text in ids:
        try:
            (check_run_id if what == "RUN_ID" else check_id)(what, text)
        except ArgumentError as error:
            raise click.UsageError(str(error)) from None
    return ids


def _ids_in(file: IO[Any]) -> list[str]:
    content = file.read()
    if isinstance(content, bytes):
        # PowerShell's > writes UTF-16, which its byte order mark tells.
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            content = content.decode("utf-16" if marked else "utf-8")
        except UnicodeDecodeError:
            raise click.UsageError(f"{file.name} is not text.") from None
    # Joined files have more byte order marks than the one at the beginning.
    lines = io.StringIO(content.replace("\ufeff", " "), newline=None)
    return [word for line in lines for word in line.partition("#")[0].split()]


def ids_argument(what: str) -> Callable[[F], F]:
    """Ids as arguments, from a file or from stdin; `what` is what to call them."""
    argument = click.argument("ids", nargs=-1, metavar=f"[{what}]...")
    option = click.option(
        "--from",
        "file",
        type=click.File("rb"),
        help="A file with more ids, or - for stdin; # begins a comment.",
    )
    return lambda function: argument(option(function))


def quiet_option(function: F) -> F:
    """--quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress.")(function)


def timeout_option(then: str) -> Callable[[F], F]:
    """--timeout; `then` says what becomes of what is not over by then."""
    return click.option(
        "--timeout",
        type=duration,
        metavar="DURATION",
        help=f"How long to wait at most, e.g. 90, 30m or 2h; {then}.",
    )


def gate_option(function: F) -> F:
    """--min-pass-rate, which becomes a gate."""
    option = click.option(
        "--min-pass-rate",
        "gate",
        type=click.FloatRange(0, 1),
        callback=lambda _, __, rate: None if rate is None else Gate(min_pass_rate=rate),
        help="The share of the repeats of each unit test that has to pass, e.g. 0.9.",
    )
    return option(function)
