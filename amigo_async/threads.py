"""Blocking work in threads of our own.

Those of the event loop's default executor are the application's, which may have filled them with
work of its own for as long as it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

from amigo_async.cancellation import finish

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Jobs on files at a time in one event loop. They are short; what they wait for is the disk.
_FILES: Final = 16

# Names that are looked up at a time. A resolver that hangs holds these, and no file.
_NAMES: Final = 4


class _Threads:
    """The threads of one event loop; none is started before there is work for it."""

    def __init__(self) -> None:
        self.files = ThreadPoolExecutor(_FILES, thread_name_prefix="amigo-files")
        self.names = ThreadPoolExecutor(_NAMES, thread_name_prefix="amigo-names")
        # Waited for before a job is handed over, so that one that was handed over is under way:
        # who is cancelled before that leaves at once, however busy the threads are.
        self.free = asyncio.Semaphore(_FILES)


async def in_thread(func: Callable[[Unpack[Ts]], T], /, *args: *Ts) -> T:
    """Run blocking work on files in a thread.

    Returns:
        What `func` returns. It has ended when this returns or raises, be it cancelled, unless it
        was cancelled before a thread was free for it: then it has not begun.
    """
    threads = _here()
    async with threads.free:
        loop = asyncio.get_running_loop()
        return await finish(loop.run_in_executor(threads.files, func, *args))


async def in_name_thread(func: Callable[[Unpack[Ts]], T], /, *args: *Ts) -> T:
    """Look up a name in a thread; who is cancelled meanwhile leaves the thread to itself."""
    return await asyncio.get_running_loop().run_in_executor(_here().names, func, *args)


def _here() -> _Threads:
    loop = asyncio.get_running_loop()
    threads = _THREADS.get(loop)
    if threads is None:
        for other in [other for other in _THREADS if other.is_closed()]:
            del _THREADS[other]
        threads = _THREADS[loop] = _Threads()
    return threads


# With its loop go the threads of a loop: an executor that is collected lets idle threads end.
_THREADS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Threads] = WeakKeyDictionary()
