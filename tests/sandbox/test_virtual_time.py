"""The loop that skips waits, where what it waits for is in a thread."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from amigo_async.testing import VirtualTimeLoop


class Slow(ThreadPoolExecutor):
    """Takes its time to end, as threads do on a machine that is busy elsewhere."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        time.sleep(0.03)
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_threads_end_in_real_time() -> None:
    async def end() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Slow())
        await asyncio.to_thread(time.monotonic)
        async with asyncio.timeout(10.0):
            await loop.shutdown_default_executor()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(end())


def test_closes_while_a_thread_ends() -> None:
    """From Python 3.12 on the runner gives the threads five minutes, which must not be skipped."""

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(Slow())
        await asyncio.to_thread(time.monotonic)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(work())
