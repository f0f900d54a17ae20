"""A service that answers from memory, in a process of its own: so quick that it is in nobody's way.

It signs in whoever asks, and gives everybody the same page, with the headers of the real service.
It knows as much of HTTP as the requests of the contestants need.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from multiprocessing.connection import Connection

import msgspec

# Never spent: the limit is not what is measured.
BUDGET = 100_000_000
# Seconds until the window turns: later than the benchmark ends.
WINDOW = 3_000.0


class _Answers:
    """The responses, whole; made anew each second, as their ``Date`` is."""

    def __init__(self, page: bytes) -> None:
        self._page = page
        self._reset = (datetime.now(UTC) + timedelta(seconds=WINDOW)).timestamp()
        self.page = self.token = b""
        self.make()

    def make(self) -> None:
        now = datetime.now(UTC)
        token = {"id_token": "t" * 800, "expires_at": now + timedelta(days=1)}
        self.page = self._response(self._page, now)
        self.token = self._response(msgspec.json.encode(token), now)
        asyncio.get_running_loop().call_later(1.0, self.make)

    def _response(self, body: bytes, now: datetime) -> bytes:
        head = (
            "HTTP/1.1 200 OK",
            f"Date: {format_datetime(now, usegmt=True)}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: keep-alive",
            "Server: uvicorn",
            f"X-RateLimit-Limit: {BUDGET}",
            f"X-RateLimit-Remaining: {BUDGET}",
            f"X-RateLimit-Reset: {self._reset:.0f}",
            "X-Request-Id: 6f1c1f62-7d1f-4a44-9a55-0a9d6f4a2f5e",
        )
        return "\r\n".join((*head, "", "")).encode() + body


class _Connection(asyncio.Protocol):
    """Answers each request whose head has come; none has a body."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._came = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  # as of create_server
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None  # noqa: S101  # a connection is made first
        *requests, self._came = (self._came + data).split(b"\r\n\r\n")
        for request in requests:
            page = request.startswith(b"GET")
            self._transport.write(self._answers.page if page else self._answers.token)


async def _serve(page: bytes, told: Connection) -> None:
    answers = _Answers(page)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers), "127.0.0.1", backlog=1000)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(page: bytes, told: Connection) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(page, told))


@contextlib.contextmanager
def serving(page: bytes) -> Iterator[str]:
    """The base URL of a service that is up as long as the context is open."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(page, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()
