"""Keeps a context open in the event loop of another thread, and does work there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
ContextT = TypeVar("ContextT", bound=AbstractAsyncContextManager[Any, Any])


class _Holder:
    """A thread that holds a context open until it is told to leave it."""

    def __init__(self, context: AbstractAsyncContextManager[Any, Any]) -> None:
        self._context = context
        self._leave: Callable[[], object] = _nothing
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="amigo-sandbox")

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self.stop()

    def stop(self) -> None:
        self._leave()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._hold())
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for it
            self._error = error
        finally:
            self._ready.set()

    async def _hold(self) -> None:
        loop, leave = asyncio.get_running_loop(), asyncio.Event()
        async with self._context:
            self._leave = lambda: loop.call_soon_threadsafe(leave.set)
            self._ready.set()
            await leave.wait()
        self._leave = _nothing


def _nothing() -> None:
    """There is nothing to leave."""


@contextmanager
def held_open(context: ContextT) -> Iterator[ContextT]:
    """Hold `context` open in the event loop of a thread of its own; gives `context` itself."""
    holder = _Holder(context)
    holder.start()
    try:
        yield context
    finally:
        holder.stop()


def done_in(loop: asyncio.AbstractEventLoop | None, work: Callable[[], T]) -> T:
    """Do `work` in the thread of `loop` and wait for it; here and now if there is no other."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if loop is None or loop is here:
        return work()

    async def call() -> T:
        return work()

    return asyncio.run_coroutine_threadsafe(call(), loop).result()
