"""TLS before anything that listens on loopback, with certificates good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TypeAlias
from urllib.parse import urlsplit

import trustme

HOST = "127.0.0.1"
NAMES = (HOST, "*.amigo.test")
LONG_AGO = datetime.now(UTC) - timedelta(days=30)


@cache
def authority(name: str = "ours") -> trustme.CA:
    """A certificate authority; made once, since keys take time."""
    return trustme.CA(organization_name=name)


def good() -> trustme.LeafCert:
    return authority().issue_cert(*NAMES)


def of_another_host() -> trustme.LeafCert:
    return authority().issue_cert("store.example")


def expired() -> trustme.LeafCert:
    return authority().issue_cert(
        *NAMES, not_before=LONG_AGO, not_after=LONG_AGO + timedelta(days=7)
    )


def of_unknown_authority() -> trustme.LeafCert:
    return authority("unknown").issue_cert(*NAMES)


def self_signed() -> ssl.SSLContext:
    """A server that shows the authority's own certificate as if it were its own."""
    ca = authority("alone")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with ca.private_key_pem.tempfile() as key, ca.cert_pem.tempfile() as certificate:
        context.load_cert_chain(certificate, key)
    return context


@cache
def serving(make: Callable[[], trustme.LeafCert | ssl.SSLContext]) -> ssl.SSLContext:
    """The side of the server, with the certificate that `make` gives."""
    made = make()
    if isinstance(made, ssl.SSLContext):
        return made
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    """The side of the client, which knows our authority."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


class Front:
    """A server that passes everything on to another one, and keeps what it could read.

    Attributes:
        url: Where it is.
        received: Every byte it could read: what is inside of TLS, or what came in plain.
        tried: How many connections came, whether or not TLS was agreed upon.
    """

    def __init__(self, upstream: str, context: ssl.SSLContext | None) -> None:
        self.url = ""
        self.received = b""
        self.tried = 0
        self._upstream = urlsplit(upstream)
        self._context = context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Front]:
        async with listening(self._serve, self._context) as inner:

            async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                self.tried += 1
                await joined(reader, writer, inner)

            # In front of TLS, so that those are counted who do not come through it.
            async with listening(count) as outer:
                self.url = f"{'http' if self._context is None else 'https'}://{HOST}:{outer}"
                yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await joined(reader, writer, self._upstream.port or 80, self._keep)

    def _keep(self, data: bytes) -> None:
        self.received += data


Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a port of its own; what is open at the end is cut."""
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def handle() -> None:
            with contextlib.suppress(OSError):
                try:
                    await handler(reader, writer)
                finally:
                    await _close(writer)

        writers.append(writer)
        tasks.append(asyncio.create_task(handle()))

    server = await asyncio.start_server(accept, HOST, 0, ssl=context)
    port: int = server.sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks)
        await server.wait_closed()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def joined(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    keep: Callable[[bytes], None] = lambda _: None,
) -> None:
    """Carry bytes to `port` and back until either side closes."""
    there, back = await asyncio.open_connection(HOST, port)
    sides = [
        asyncio.create_task(_carry(reader, back, keep)),
        asyncio.create_task(_carry(there, writer, lambda _: None)),
    ]
    try:
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
        await _close(back)


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: Callable[[bytes], None]
) -> None:
    while data := await reader.read(65536):
        keep(data)
        writer.write(data)
        await writer.drain()
