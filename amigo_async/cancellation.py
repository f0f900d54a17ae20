"""Run work to completion even if its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def finish(
    work: Coroutine[Any, Any, T] | asyncio.Future[T], *, grace: float | None = None
) -> T:
    """Await `work` until it has ended, even if the caller is cancelled meanwhile.

    The work has ended whenever this function returns or raises, so no task is left behind. A
    cancellation of the caller, by anyio or a plain ``task.cancel()``, is delivered afterwards.

    Args:
        work: A coroutine, which runs in a task of its own, or a future.
        grace: Seconds that the work may go on after a cancellation before it is cancelled too;
            None for no limit.

    Returns:
        The result of `work`.

    Raises:
        asyncio.CancelledError: If the caller was cancelled, whatever the outcome of the work.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise
        await _settle(task, grace)
        raise


async def _settle(task: asyncio.Future[Any], grace: float | None) -> None:
    """Wait for `task` for at most `grace` seconds, then cancel it and wait for its end."""
    loop = asyncio.get_running_loop()
    deadline = None if grace is None else loop.time() + grace
    while not task.done():
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            task.cancel()
            deadline = None
            continue
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            # A second, plain cancel: the caller is in a hurry, but the work keeps its grace.
            continue
    if not task.cancelled():
        task.exception()  # mark it as retrieved: the caller gets the cancellation
