"""`wait_for_completion` and `as_completed`, on top of the poller."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any

import anyio

from amigo_async.checks import check_seconds
from amigo_async.errors import AmigoError, ArgumentError, DeadlineError, WaitTimeoutError
from amigo_async.models import Run
from amigo_async.polling.poller import Poller
from amigo_async.polling.waiters import OnProgress, Waiter


def wait_for_completion(
    poller: Poller,
    run_id: str,
    *,
    timeout: float | None = None,
    poll_interval: float | None = None,
    require_artifacts: bool = False,
    on_progress: OnProgress | None = None,
) -> Coroutine[Any, Any, Run]:
    """Wait until a run is over; `AmigoClient.wait_for_completion` documents the arguments."""
    check_seconds("timeout", timeout)
    check_seconds("poll_interval", poll_interval)
    waiter = poller.waiting_for(
        [run_id],
        interval=poll_interval,
        require_artifacts=require_artifacts,
        wants_progress=on_progress is not None,
    )
    if timeout is None and on_progress is None:
        return _end_alone(poller, waiter)
    return _end_in_time(poller, waiter, timeout, on_progress)


async def _end_alone(poller: Poller, waiter: Waiter) -> Run:
    """Wait for the end without anything that takes memory while thousands wait like this."""
    with waiter:
        update = await poller.next_update(waiter)  # the end, as no progress is wanted
    if isinstance(update, AmigoError):
        raise update
    return update


async def _end_in_time(
    poller: Poller, waiter: Waiter, timeout: float | None, on_progress: OnProgress | None
) -> Run:
    with waiter:
        try:
            with anyio.move_on_after(timeout):
                return await end_of_run(poller, waiter, on_progress)
        except DeadlineError as error:
            if timeout is None:
                raise
            raise _timed_out(poller, waiter.run_ids, timeout) from error
        raise _timed_out(poller, waiter.run_ids, timeout or 0.0)


async def end_of_run(poller: Poller, waiter: Waiter, on_progress: OnProgress | None) -> Run:
    """Wait until the only run of `waiter` is over."""
    while True:
        update = await poller.next_update(waiter)
        if isinstance(update, AmigoError):
            raise update
        if waiter.satisfied_by(update):
            return update
        if on_progress is not None:
            progress = on_progress(update)
            if inspect.isawaitable(progress):
                await progress


async def as_completed(
    poller: Poller,
    run_ids: Iterable[str],
    *,
    timeout: float | None = None,
    poll_interval: float | None = None,
    require_artifacts: bool = False,
) -> AsyncGenerator[Run, None]:
    """Yield runs as they end; `AmigoClient.as_completed` documents the arguments."""
    check_seconds("timeout", timeout)
    check_seconds("poll_interval", poll_interval)
    if isinstance(run_ids, str):
        raise ArgumentError("run_ids must be a list of ids, not a single string")
    deadline = math.inf if timeout is None else anyio.current_time() + timeout
    errors: list[AmigoError] = []
    with poller.waiting_for(
        run_ids, interval=poll_interval, require_artifacts=require_artifacts
    ) as waiter:
        while waiter.left or waiter.updates:
            update = await _next_update(poller, waiter, deadline, timeout)
            if isinstance(update, AmigoError):
                errors.append(update)
            else:
                yield update
    if errors:
        for further in errors[1:]:
            errors[0].add_note(str(further))
        raise errors[0]


async def _next_update(
    poller: Poller, waiter: Waiter, deadline: float, timeout: float | None
) -> Run | AmigoError:
    """The next update; no cancel scope is open while the generator is suspended."""
    try:
        with anyio.CancelScope(deadline=deadline):
            return await poller.next_update(waiter)
    except DeadlineError as error:
        if timeout is None:
            raise
        raise _timed_out(poller, poller.pending(waiter), timeout) from error
    raise _timed_out(poller, poller.pending(waiter), timeout or 0.0)


def _timed_out(poller: Poller, run_ids: Iterable[str], timeout: float) -> WaitTimeoutError:
    ids = tuple(run_ids)
    return WaitTimeoutError(
        ids, timeout=timeout, last_runs=poller.last(ids), last_errors=poller.last_errors(ids)
    )
