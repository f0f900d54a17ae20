"""An event loop that skips waits, for tests of code that waits for minutes."""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from amigo_async.errors import ConfigurationError

# The event loops that serve on ports of this machine. A sandbox adds its own.
SERVERS: Final[dict[int, asyncio.AbstractEventLoop]] = {}


def check_peer(port: int | None, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Check that a loop which skips waits does not wait for a sandbox that does not skip them.

    Args:
        port: The port that the sandbox serves on; None if unknown.
        loop: The loop that connects to it; None for the running one, if there is one.

    Raises:
        ConfigurationError: If it does.
    """
    server = None if port is None else SERVERS.get(port)
    if loop is None:
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
    if server is not None and server is not loop and isinstance(loop, VirtualTimeLoop):
        raise ConfigurationError(
            "this sandbox serves from another event loop, so it cannot skip waits together with "
            "VirtualTimeLoop; serve in the loop of the test, by the fixture amigo_sandbox_async or "
            "`async with Sandbox()`"
        )


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that skips waits: when nothing is ready, time jumps to the next timer.

    ``time()`` returns what the loop has waited or skipped, plus a microsecond for each turn of the
    loop. So ``asyncio.sleep``, timeouts, timers of the loop and anyio's deadlines all agree, and
    an hour of polling takes milliseconds. Code that runs takes no time, however slow the machine
    is, so durations measured in a test are the same everywhere. Sockets are real, but both ends of
    a connection must be in this loop: a peer elsewhere does not know that time has jumped, so a
    sandbox in a thread is refused. Waits are real while a job of an executor runs
    (``asyncio.to_thread``).

    With pytest, put this into ``conftest.py``, for anyio or for pytest-asyncio (1.4 or newer)::

        @pytest.fixture
        def anyio_backend():
            return "asyncio", {"loop_factory": VirtualTimeLoop}

        def pytest_asyncio_loop_factories(config, item):
            return {"virtual": VirtualTimeLoop}

    Attributes:
        grace: Seconds to really wait for sockets before a wait is skipped. Data from a peer in
            the same loop is readable at once; this allows for a kernel that is busy.
        turn: Seconds that a turn of the loop takes. Not 0, so that the later of two events has the
            later time, and code that calls ``sleep(0)`` until a certain time reaches it.
    """

    grace = 0.001
    turn = 1e-6

    def __init__(self) -> None:
        self.skipped = 0.0
        self._jobs = 0
        # Close to the time of other loops, for objects that outlive one of them.
        self._began = time.monotonic()
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        """Return the time of the loop in seconds."""
        return self._began + self.skipped

    @property
    def busy(self) -> bool:
        """Whether a job of an executor is running, so that waits are real."""
        return self._jobs > 0

    def run_in_executor(  # type: ignore[override]  # typeshed's overloads differ by version
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run `func` in a thread as usual; no wait is skipped until it ends."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Shut down the threads as usual; no wait is skipped until they have ended."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._jobs -= 1

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect as usual.

        Raises:
            ConfigurationError: If a sandbox in another event loop serves there.
        """
        if isinstance(address, tuple):
            check_peer(address[1], self)
        await super().sock_connect(sock, address)

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1


class _SkippingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.skipped += self._loop.turn
        if timeout is None or self._loop.busy:
            began = time.monotonic()
            ready = super().select(timeout)
            self._loop.skipped += time.monotonic() - began
            return ready
        ready = super().select(min(timeout, self._loop.grace))
        if not ready:
            self._loop.skipped += timeout
        return ready
