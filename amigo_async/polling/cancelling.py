"""Cancel runs, and wait until they are over."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Final, Literal, NamedTuple, TypeAlias

import anyio

from amigo_async.checks import check_seconds
from amigo_async.errors import AmigoError, ConflictError, DeadlineError
from amigo_async.models import Run
from amigo_async.polling.poller import Poller
from amigo_async.polling.waiting import wait_for_completion
from amigo_async.protocol.endpoints import CANCEL
from amigo_async.ratelimit import WINDOW

CancelState: TypeAlias = Literal["cancelled", "finished", "running"]


class Cancellation(NamedTuple):
    """The outcome of a cancellation.

    Attributes:
        state: ``"cancelled"`` (the service accepted the request, and the run is over),
            ``"finished"`` (the run was over before) or ``"running"`` (the run was not over when
            the timeout passed).
        run: Its last state; None if none was seen.
    """

    state: CancelState
    run: Run | None


async def cancel_and_wait(
    poller: Poller,
    cancel: Callable[[str], Awaitable[None]],
    run_id: str,
    *,
    timeout: float | None = None,
) -> Cancellation:
    """Cancel a run and wait; `AmigoClient.cancel_and_wait` documents the arguments."""
    check_seconds("timeout", timeout)
    state: CancelState = "cancelled"
    last: list[Run] = []
    try:
        with anyio.move_on_after(timeout):
            try:
                await cancel(run_id)
            except ConflictError as error:
                if error.method != "DELETE":  # the sign-in was refused, not the cancellation
                    raise
                state = "finished"
            run = await wait_for_completion(poller, run_id, on_progress=last.append)
            return Cancellation(state, run)
    except DeadlineError:
        if timeout is None:
            raise
    return Cancellation("running", last[-1] if last else None)


# Seconds that cancelling takes in addition to waiting for the rate limit.
_GRACE: Final = 30.0


def cancel_bound(count: int) -> float:
    """Seconds within which `count` runs can be cancelled under the rate limit, with some spare."""
    return _GRACE + WINDOW * (count // CANCEL.limit)


async def cancel_all(cancel: Callable[[str], Awaitable[None]], run_ids: Collection[str]) -> None:
    """Request the cancellation of all runs; those that cannot be requested in time go on.

    Args:
        cancel: Cancels a run.
        run_ids: The runs.
    """

    async def try_to(run_id: str) -> None:
        with suppress(AmigoError):  # the run is over or cannot be reached, and no caller is left
            await cancel(run_id)

    with anyio.move_on_after(cancel_bound(len(run_ids))):
        async with anyio.create_task_group() as group:
            for run_id in run_ids:
                group.start_soon(try_to, run_id)
