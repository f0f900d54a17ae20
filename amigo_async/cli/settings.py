"""The settings of the command: AMIGO_* variables, and a file for those that are not set."""

from __future__ import annotations

import io
import os
from typing import Any, Final, NamedTuple

import click
from dotenv import dotenv_values
from dotenv.parser import parse_stream

from amigo_async.cli.streams import note
from amigo_async.config import VARIABLES
from amigo_async.escaping import log_line
from amigo_async.report.wording import numbers

_OPTIONAL: Final = frozenset({"base_url"})


class EnvFile(NamedTuple):
    """A file with settings.

    Attributes:
        name: Its name.
        values: The variables that it has; None for one without a value.
    """

    name: str
    values: dict[str, str | None]


def parse_env_file(name: str, text: str) -> EnvFile:
    """Parse a file with settings, and say on stderr which lines cannot be read.

    Args:
        name: Its name.
        text: Its text, in the format of python-dotenv.
    """
    readable, unreadable = [], []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            blank = len(binding.original.string) - len(binding.original.string.lstrip("\n"))
            unreadable.append(binding.original.line + blank - 1)
        else:
            readable.append(binding.original.string)
    if unreadable:
        lines = f"line{'s' * (len(unreadable) > 1)} {numbers(tuple(unreadable))}"
        note(f"Note: {log_line(name)}: {lines} cannot be read; a line is like NAME=VALUE.")
    return EnvFile(name, dotenv_values(stream=io.StringIO("".join(readable))))


def read_settings(env_file: EnvFile | None = None) -> dict[str, Any]:
    """Return the arguments of `AmigoClient` that variables and a file give.

    Args:
        env_file: A file for variables that are not set or empty; None for none.

    Raises:
        click.ClickException: If settings are missing; the message names all of them.
    """
    read = {} if env_file is None else env_file.values
    values = {argument: _given(name, read) for argument, name in VARIABLES.items()}
    missing = [VARIABLES[a] for a, value in values.items() if not value and a not in _OPTIONAL]
    if missing:
        where = "or name a file that has them with --env-file"
        if env_file is not None:
            where = f"which {log_line(env_file.name)} does not have"
        raise click.ClickException(
            f"set {', '.join(missing)}, {where}; `amigo-async sandbox` prints values to try it with"
        )
    return {argument: value for argument, value in values.items() if value}


def _given(name: str, read: dict[str, str | None]) -> str:
    return os.environ.get(name, "").strip() or (read.get(name) or "").strip()
