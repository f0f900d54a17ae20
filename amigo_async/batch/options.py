"""How a batch is run, and what cannot be right about it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from amigo_async.batch.listener import OnEvent
from amigo_async.errors import ArgumentError
from amigo_async.files import check_path
from amigo_async.polling import check_seconds
from amigo_async.protocol.requests import check_id
from amigo_async.starting import OnConflict, check_choice
from amigo_async.verdicts.gate import Gate

OnFailure: TypeAlias = Literal["continue", "stop", "cancel_rest"]
OnExit: TypeAlias = Literal["leave", "cancel"]


class Options(Struct, frozen=True):
    """How a batch is run; see `AmigoClient.run_many`."""

    artifacts_dir: str | PathLike[str] | None = None
    timeout: float | None = None
    poll_interval: float | None = None
    on_conflict: OnConflict = "raise"
    on_failure: OnFailure = "continue"
    on_exit: OnExit = "leave"
    journal: str | PathLike[str] | None = None
    on_event: OnEvent | None = None
    gate: Gate | None = None


def check_options(options: Options) -> Options:
    """`options`, if they can be right.

    Raises:
        ArgumentError: If they cannot; the message names the argument and the remedy.
    """
    for name in ("artifacts_dir", "journal"):
        if getattr(options, name) is not None:
            check_path(name, getattr(options, name))
    check_seconds("timeout", options.timeout)
    check_seconds("poll_interval", options.poll_interval)
    check_choice("on_conflict", options.on_conflict, get_args(OnConflict))
    check_choice("on_failure", options.on_failure, get_args(OnFailure))
    check_choice("on_exit", options.on_exit, get_args(OnExit))
    if options.gate is not None and not isinstance(options.gate, Gate):
        raise ArgumentError(f"gate must be a Gate or None, not {options.gate!r:.80}")
    return options


def make_folder(options: Options) -> None:
    """Make the folder for artifacts where there is none; blocks.

    Raises:
        ArgumentError: If it cannot be made.
    """
    if options.artifacts_dir is None:
        return
    folder = Path(options.artifacts_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"artifacts_dir {folder} cannot be made: {error.strerror}") from error


def check_folder(options: Options) -> None:
    """See that the folder for artifacts can take any; blocks.

    Raises:
        ArgumentError: If nothing can be made in it.
    """
    folder = options.artifacts_dir
    if folder is None:
        return
    try:
        # Asked of the folder itself: permission bits say little of mounts, quotas and root.
        with tempfile.TemporaryDirectory(prefix=".amigo-", dir=folder, ignore_cleanup_errors=True):
            pass
    except OSError as error:
        raise ArgumentError(
            f"artifacts_dir {folder} cannot be written to: {error.strerror}"
        ) from error


def check_sets(set_ids: Iterable[str]) -> tuple[str, ...]:
    """The sets, if there are any and their ids can be right.

    Raises:
        ArgumentError: If not. A batch of nothing would pass, and hide that a list was empty.
    """
    if isinstance(set_ids, str):
        raise ArgumentError("unit_test_set_ids must be a list of ids, not a single string")
    ids = tuple(check_id("unit_test_set_ids", set_id) for set_id in set_ids)
    if not ids:
        raise ArgumentError("unit_test_set_ids is empty: give at least one set")
    return ids
