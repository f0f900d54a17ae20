"""Cancel runs within the limit of cancels, and within bounded time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Final

import anyio

from amigo_async.errors import AmigoError
from amigo_async.limits import WINDOW
from amigo_async.wire.endpoints import CANCEL

# What cancelling takes beside waiting for the limit, in seconds.
_GRACE: Final = 30.0


def cancel_bound(count: int) -> float:
    """Seconds that `count` runs are given to be cancelled: what the limit needs, and some."""
    return _GRACE + WINDOW * (count // CANCEL.limit)


async def cancel_all(cancel: Callable[[str], Awaitable[None]], run_ids: Collection[str]) -> None:
    """Ask for all runs to be cancelled; what cannot be asked in time goes on.

    Args:
        cancel: Cancels a run.
        run_ids: The runs.
    """

    async def try_to(run_id: str) -> None:
        with suppress(AmigoError):  # it is over, or cannot be reached: nobody is left to tell
            await cancel(run_id)

    with anyio.move_on_after(cancel_bound(len(run_ids))):
        async with anyio.create_task_group() as group:
            for run_id in run_ids:
                group.start_soon(try_to, run_id)
