"""Let the listener of a batch hear its events, be it a plain function or a coroutine function."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from amigo_async.cancellation import finish
from amigo_async.events import Event, Events

OnEvent: TypeAlias = Callable[[Event], Awaitable[None] | None]

_log = logging.getLogger("amigo_async")

# How long a slow listener may take to catch up at the end, in seconds.
_CATCH_UP: Final = 5.0


class Listening:
    """Hands a batch's events to its listener, and those of other batches to nobody.

    A plain function is called at once; the coroutines of a coroutine function are awaited one
    after the other beside the batch, which does not wait for them but for a while at the end.

    Args:
        on_event: The listener.
        set_ids: The sets of the batch.
    """

    def __init__(self, on_event: OnEvent, set_ids: Collection[str]) -> None:
        self._on_event = on_event
        self._set_ids = set_ids
        self._run_ids: set[str] = set()
        self._heard: asyncio.Queue[Awaitable[None] | None] = asyncio.Queue()

    @asynccontextmanager
    async def open(self, events: Events) -> AsyncIterator[None]:
        """Listen to `events` for as long as the context is open."""
        awaiting = asyncio.create_task(self._await_heard())
        try:
            with events.subscribed(self._hear):
                yield
        finally:
            self._heard.put_nowait(None)
            await finish(self._catch_up(awaiting))

    def _hear(self, event: Event) -> None:
        set_id, run_id = getattr(event, "unit_test_set_id", None), getattr(event, "run_id", None)
        if set_id in self._set_ids and run_id is not None:
            self._run_ids.add(run_id)
        if (set_id is None or set_id in self._set_ids) and (
            run_id is None or run_id in self._run_ids
        ):
            told = self._on_event(event)
            if inspect.isawaitable(told):
                self._heard.put_nowait(told)

    async def _await_heard(self) -> None:
        while (told := await self._heard.get()) is not None:
            try:
                await told
            except (KeyboardInterrupt, SystemExit):
                raise  # the program is asked to end
            except BaseException:  # the listener is the user's: anything can come
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # it is this task that is cancelled, not something the listener awaits
                _log.exception("an on_event listener failed")

    async def _catch_up(self, awaiting: asyncio.Task[None]) -> None:
        await asyncio.wait({awaiting}, timeout=_CATCH_UP)
        awaiting.cancel()
        await asyncio.wait({awaiting})
        while not self._heard.empty():
            told = self._heard.get_nowait()
            if inspect.iscoroutine(told):
                told.close()
