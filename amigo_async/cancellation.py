"""Work that must come to its end although its caller is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def finish(
    work: Coroutine[Any, Any, T] | asyncio.Future[T], *, grace: float | None = None
) -> T:
    """Await `work` to its end, even where the caller is cancelled meanwhile.

    The work, a coroutine in a task of its own or a future, has ended whenever this function
    returns or raises: nothing is left behind. A cancellation that arrives meanwhile, be it
    anyio's or a plain ``task.cancel()``, is held back until the work has ended, then delivered.

    Args:
        work: What is to be finished.
        grace: How long, in seconds, the work may go on after a cancellation before it is
            cancelled too. None waits for as long as it takes.

    Raises:
        asyncio.CancelledError: If the caller was cancelled, whatever became of the work.
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
    """Wait for `task` for at most `grace` seconds, then cancel it and see it end."""
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
            # A second, plain cancel: the caller is in a hurry, but the work is not dropped
            # before its grace is over.
            continue
    if not task.cancelled():
        task.exception()  # seen: the cancellation is what the caller gets to hear of
