"""A long line before a server: bytes come out as they went in, some time later, each way.

Where the kernel can delay packets (netem) that would be better, but not every kernel can, and it
takes rights that few have.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Final

from msgspec import Struct

# Bytes in the memory of a socket's transport from which on the line waits for the other end.
_FULL: Final = 1024 * 1024


class Line(Struct, frozen=True):
    """A line.

    Attributes:
        delay: Seconds there and back.
        window: Bytes that may be under way in one connection, as a system's receive window
            allows; None for no such limit.
    """

    delay: float
    window: int | None = 6 * 1024 * 1024  # the most that Linux gives unasked


class _End(asyncio.Protocol):
    """One end of a connection: what comes in here goes out at the other end, later."""

    def __init__(self, line: Line) -> None:
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self._delay = line.delay / 2
        # Bytes are held for one way only, of the time for which a window is taken.
        self._most = None if line.window is None else line.window // 2
        self._coming: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.stuck = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # as of create_server
        transport.set_write_buffer_limits(high=_FULL)
        self.transport = transport

    def hold(self, seconds: float) -> None:
        """Let nothing through before, as while a connection comes about."""
        self._not_before = asyncio.get_running_loop().time() + seconds

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self._coming.append((max(now, self._not_before) + self._delay, data))
        self._held += len(data)
        if self._most is not None and self._held >= self._most and self.transport is not None:
            self.transport.pause_reading()
        if self._timer is None:
            self.pass_on()

    def eof_received(self) -> bool:
        self.connection_lost(None)
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self._coming.append((asyncio.get_running_loop().time() + self._delay, b""))
        if self._timer is None:
            self.pass_on()

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        if self.other is not None:
            self.other.pass_on()

    def pass_on(self) -> None:
        """Let out at the other end what is due, and come again for the rest."""
        loop, out = asyncio.get_running_loop(), self.other
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._coming and out is not None and out.transport is not None and not out.stuck:
            due, data = self._coming[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.pass_on)
                break
            self._coming.popleft()
            self._held -= len(data)
            if not data:
                out.transport.close()
            elif not out.transport.is_closing():
                out.transport.write(data)
        if self.transport is not None and (self._most is None or self._held < self._most):
            self.transport.resume_reading()


async def _serve(line: Line, port: int, told: Connection) -> None:
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    def accept() -> _End:
        near, far = _End(line), _End(line)
        near.hold(line.delay)  # the greetings of the connection

        async def connect() -> None:
            await loop.create_connection(lambda: far, "127.0.0.1", port)
            near.other, far.other = far, near
            near.pass_on()  # what came meanwhile

        task = loop.create_task(connect())
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", backlog=1000)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(line: Line, port: int, told: Connection) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(line, port, told))


@contextlib.contextmanager
def before(port: int, line: Line) -> Iterator[int]:
    """The port, on loopback, that leads to `port` over a line in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(line, port, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()
