"""Blocking file work in threads, and what the system says against it in our words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from amigo_async.errors import ArtifactError
from amigo_async.shield import finish

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(func: Callable[[Unpack[Ts]], T], /, *args: *Ts) -> T:
    """Run blocking work in a thread, which has ended when this returns or raises."""
    # Not to_thread(): another task for each call is a good part of what a small file costs.
    return await finish(asyncio.get_running_loop().run_in_executor(None, func, *args))


@contextmanager
def explained(run_id: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` about a file into an `ArtifactError` that says what and where."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else os.fspath(path)
        reason = f"{where}: {error.strerror or error}"
        raise ArtifactError(reason, run_id=run_id) from error
