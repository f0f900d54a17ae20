"""Run blocking work in threads that belong to this package.

The default executor of the event loop belongs to the application, which may keep all its threads
busy for as long as it likes.
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

# Concurrent file operations of an event loop; they are short and wait for the disk.
_FILES: Final = 16

# Concurrent DNS lookups; a resolver that hangs blocks these threads, and no file operation.
_NAMES: Final = 4


class _Threads:
    """The threads of one event loop, started as they are needed."""

    def __init__(self) -> None:
        self.files = ThreadPoolExecutor(_FILES, thread_name_prefix="amigo-files")
        self.names = ThreadPoolExecutor(_NAMES, thread_name_prefix="amigo-names")
        # Acquired before work is submitted, so that submitted work starts at once, and a caller
        # that is cancelled while all threads are busy can leave immediately.
        self.free = asyncio.Semaphore(_FILES)


async def in_thread(func: Callable[[Unpack[Ts]], T], /, *args: *Ts) -> T:
    """Run blocking work on files in a thread.

    The work has ended when this returns or raises, even on cancellation; if it was cancelled while
    all threads were busy, the work was never started.

    Args:
        func: The function to call.
        *args: Its arguments.

    Returns:
        The result of `func`.
    """
    threads = _here()
    async with threads.free:
        loop = asyncio.get_running_loop()
        return await finish(loop.run_in_executor(threads.files, func, *args))


async def in_name_thread(func: Callable[[Unpack[Ts]], T], /, *args: *Ts) -> T:
    """Run a DNS lookup in a thread; on cancellation the thread is left to finish alone."""
    return await asyncio.get_running_loop().run_in_executor(_here().names, func, *args)


def _here() -> _Threads:
    loop = asyncio.get_running_loop()
    threads = _THREADS.get(loop)
    if threads is None:
        for other in [other for other in _THREADS if other.is_closed()]:
            del _THREADS[other]
        threads = _THREADS[loop] = _Threads()
    return threads


# The threads go with their loop: an executor that is garbage collected ends its idle threads.
_THREADS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Threads] = WeakKeyDictionary()
