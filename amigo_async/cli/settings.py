"""The settings of the command: AMIGO_* variables, and a file for those that are not set."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any, Final

import click
from dotenv import dotenv_values

from amigo_async.config import VARIABLES

_OPTIONAL: Final = frozenset({"base_url"})


def read_settings(env_file: str | None = None) -> dict[str, Any]:
    """Return the arguments of `AmigoClient` that variables and a file give.

    Args:
        env_file: Text in the format of python-dotenv, for variables that are not set or empty;
            None for none.

    Raises:
        click.ClickException: If settings are missing; the message names all of them.
    """
    read: Mapping[str, str | None] = {}
    if env_file is not None:
        read = dotenv_values(stream=io.StringIO(env_file))
    values = {argument: _given(name, read) for argument, name in VARIABLES.items()}
    missing = [VARIABLES[a] for a, value in values.items() if not value and a not in _OPTIONAL]
    if missing:
        raise click.ClickException(
            f"set {', '.join(missing)}, or name a file that has them with --env-file; "
            "`amigo-async sandbox` prints values to try it with"
        )
    return {argument: value for argument, value in values.items() if value}


def _given(name: str, read: Mapping[str, str | None]) -> str:
    return os.environ.get(name, "").strip() or (read.get(name) or "").strip()
