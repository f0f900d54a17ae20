"""An event loop whose waits take no time, for tests of code that waits for minutes."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that skips waits: when nothing is ready, time jumps to the next timer.

    ``time()`` is what the process has computed plus what the loop has waited, really or not, so
    ``asyncio.sleep``, timeouts, ``call_later`` and anyio's deadlines all agree, and an hour of
    polling takes milliseconds. While other processes have the processor no time passes: a test that
    measures how long something took finds the same on a machine that is busy. Sockets are real;
    both ends of a connection must live in this loop, because a peer elsewhere cannot know that time
    has jumped. While a job of an executor runs (``asyncio.to_thread``), waits take as long as they
    really do.

    With anyio's pytest plugin, make it the loop of a test module with a fixture::

        @pytest.fixture
        def anyio_backend():
            return "asyncio", {"loop_factory": VirtualTimeLoop}

    Attributes:
        grace: How long, in seconds, the sockets are really watched before a wait is skipped.
            Data that a peer in the same loop has sent is readable at once; this covers a kernel
            that is busy elsewhere.
    """

    grace = 0.001

    def __init__(self) -> None:
        self.skipped = 0.0
        self._jobs = 0
        # About the time of other loops, for what outlives one of them.
        self._began = time.monotonic() - time.process_time()
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        """The loop's clock in seconds: time of the processor plus what was waited."""
        return self._began + time.process_time() + self.skipped

    @property
    def busy(self) -> bool:
        """Whether a job of an executor is running, so that waits must be real."""
        return self._jobs > 0

    def run_in_executor(  # type: ignore[override]  # typeshed's overloads differ by version
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run `func` in a thread as usual; time is not skipped before it ends."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Let the threads end as usual; time is not skipped before they have."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._jobs -= 1

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1


class _SkippingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._loop.busy:
            began = time.monotonic()
            ready = super().select(timeout)
            self._loop.skipped += time.monotonic() - began
            return ready
        ready = super().select(min(timeout, self._loop.grace))
        if not ready:
            self._loop.skipped += timeout
        return ready
