"""Stands between a client and a sandbox, and spoils what passes: real bytes on real sockets.

A request that nothing is to happen to goes to the sandbox directly. One that something is to
happen to comes here, is taken apart, passed on or not, and answered as its fault says.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from amigo_async.testing import Sandbox
from amigo_async.testing.server import Route
from tests import tls_servers
from tests.tls_servers import HOST, listening

API: Final = "api.test"
STORE: Final = "store.test"

_ROUTES: Final[tuple[tuple[re.Pattern[str], Route], ...]] = (
    (re.compile(r"POST .*/signin_with_api_key"), "sign_in"),
    (re.compile(r"POST "), "create"),
    (re.compile(r"DELETE "), "cancel"),
    (re.compile(r"GET .*/artifacts/"), "artifacts"),
    (re.compile(r"GET "), "list"),
)
_asked_for: ContextVar[Route] = ContextVar("asked_for")


@dataclass(frozen=True)
class Answer:
    """An answer, taken apart."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def using(self, **headers: str | None) -> Answer:
        """The same with other headers; None for none."""
        new = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        kept = tuple((n, v) for n, v in self.headers if n.lower() not in new)
        added = tuple((n, v) for n, v in new.items() if v is not None)
        return replace(self, headers=kept + added)

    def holding(self, body: bytes, **headers: str | None) -> Answer:
        """The same with another body; what may have none says 200."""
        status = 200 if self.status == 204 else self.status
        new = replace(self, status=status, body=body).using(Content_Length=str(len(body)))
        return new.using(**headers)

    def head(self, version: str = "HTTP/1.1") -> bytes:
        lines = [f"{version} {self.status} {self.reason}", *(f"{n}: {v}" for n, v in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def wire(self, version: str = "HTTP/1.1") -> bytes:
        return self.head(version) + self.body


@dataclass
class Exchange:
    """One request that something happens to."""

    route: Route
    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: int

    async def work(self) -> Answer:
        """Let the sandbox do what is asked, and take its answer."""
        reader, writer = await asyncio.open_connection(HOST, self.upstream)
        head, _, body = self.request.partition(b"\r\n\r\n")
        writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
        try:
            answer = await reader.read()
        finally:
            writer.transport.abort()
        return parsed(answer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Reset the connection."""
        reset(self.writer)

    async def gone(self) -> None:
        """Be silent until the client has left."""
        with contextlib.suppress(OSError):
            await self.reader.read()


Spoil: TypeAlias = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class AtConnect:
    """What happens before there is a connection.

    Attributes:
        why: Nobody listens, the name is not found, or the handshake of TLS fails.
    """

    why: Literal["refused", "unknown", "handshake"]


def parsed(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    _, code, reason = status.split(" ", 2)
    pairs = (line.partition(": ")[::2] for line in lines)
    return Answer(int(code), reason, tuple(p for p in pairs if p[0] != "Connection"), body)


def reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Happening: TypeAlias = Spoil | AtConnect
Handshake: TypeAlias = Literal["expired", "unknown authority", "wrong host", "plain", "broken off"]


def certified() -> trustme.LeafCert:
    return tls_servers.authority().issue_cert(API, STORE)


def expired() -> trustme.LeafCert:
    long_ago = tls_servers.LONG_AGO
    ended = long_ago + timedelta(days=7)
    return tls_servers.authority().issue_cert(API, STORE, not_before=long_ago, not_after=ended)


def unknown() -> trustme.LeafCert:
    return tls_servers.authority("unknown").issue_cert(API, STORE)


# What stands there instead; None for a server that knows no TLS.
FALSE: Final[Mapping[Handshake, Callable[[], ssl.SSLContext | None]]] = {
    "expired": lambda: tls_servers.serving(expired),
    "unknown authority": lambda: tls_servers.serving(unknown),
    "wrong host": lambda: tls_servers.serving(tls_servers.of_another_host),
    "plain": lambda: None,
    "broken off": lambda: None,
}


async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection in the middle of the handshake."""
    await reader.read(1)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say no to a ClientHello as a server that knows no TLS does."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


@dataclass
class Wire:
    """What happens to the requests of each route: first, next, and from then on.

    Attributes:
        played: How often something happened.
        kept_alive: Whether all requests come here, on connections that stay open.
        tls: What stands where the handshake is to fail; None for plain http all over.
    """

    sandbox: Sandbox
    script: dict[Route, deque[Happening]] = field(default_factory=dict)
    forever: dict[Route, Happening] = field(default_factory=dict)
    played: int = 0
    kept_alive: bool = False
    tls: Handshake | None = None
    _port: int = 0
    _closed_port: int = 0
    _false_port: int = 0

    def next(self, route: Route, *, take: bool = False) -> Happening | None:
        """What happens to the next request of `route`; None for nothing."""
        script = self.script.get(route)
        found = self.forever.get(route)
        if script:
            found = script.popleft() if take else script[0]
        self.played += take and found is not None
        return found

    def clear(self) -> None:
        self.script, self.forever, self.played = {}, {}, 0

    def way(self, host: str) -> int:
        """The port to which the request that is about to leave goes."""
        route = "store" if host == STORE else _asked_for.get()
        happening = self.next(route)
        if isinstance(happening, AtConnect):
            self.next(route, take=True)
            if happening.why == "unknown":
                raise OSError(None, "Name or service not known")
            return self._closed_port if happening.why == "refused" else self._false_port
        all_of_them = self.kept_alive or self.tls
        return self._port if happening is not None or all_of_them else self.upstream(host)

    def upstream(self, host: str) -> int:
        url = self.sandbox.base_url if host == API else self.store_url
        return urlsplit(url).port or 80

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Wire]:
        self.store_url = self.sandbox.store_url
        self.sandbox.store_url = self.url(STORE)
        async with AsyncExitStack() as stack:
            nobody = stack.enter_context(socket.socket())
            nobody.bind((HOST, 0))
            self._closed_port = nobody.getsockname()[1]
            context = None
            if self.tls is not None:
                context = tls_servers.serving(certified)
                answer = vanish if self.tls == "broken off" else hang_up
                false = listening(answer, FALSE[self.tls]())
                self._false_port = await stack.enter_async_context(false)
            self._port = await stack.enter_async_context(listening(self._serve, context))
            yield self

    def url(self, host: str) -> str:
        return f"{'http' if self.tls is None else 'https'}://{host}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used = False
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await self._exchange(reader, writer, used=used):
                used = True

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, used: bool
    ) -> bool:
        """Handle one request; whether there may be another on this connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        route = route_of(head.decode("latin-1"))
        port = self.upstream(STORE if route == "store" else API)
        exchange = Exchange(route, head[:-4] + b"\r\n\r\n" + body, reader, writer, port)
        # What needs a connection that was idle does not happen on a fresh one.
        spared = self.kept_alive and not used
        happening = None if spared else self.next(route, take=True)
        if happening is None:
            await exchange.send((await exchange.work()).wire())
            return True
        assert not isinstance(happening, AtConnect)
        await happening(exchange)
        return False


def route_of(head: str) -> Route:
    if f"\nhost: {STORE}" in head.lower():
        return "store"
    return next(route for pattern, route in _ROUTES if pattern.match(head))


class _Resolver(AbstractResolver):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = self._wire.way(host)
        return [
            {
                "hostname": host, "host": HOST, "port": found,
                "family": socket.AF_INET, "proto": 0, "flags": socket.AI_NUMERICHOST,
            }
        ]  # fmt: skip

    async def close(self) -> None:
        pass


@asynccontextmanager
async def session(wire: Wire, **connector: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose requests go where `wire` says, each on a connection of its own."""
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(_note)
    settings: dict[str, Any] = {"force_close": not wire.kept_alive, **connector}
    if wire.tls is not None:
        settings["ssl"] = tls_servers.trusting()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=_Resolver(wire), use_dns_cache=False, **settings),
        trace_configs=[trace],
    ) as http:
        yield http


async def _note(_: object, __: object, asked: aiohttp.TraceRequestStartParams) -> None:
    _asked_for.set(route_of(f"{asked.method} {asked.url.path}"))


async def _halved(exchange: Exchange) -> None:
    answer = await exchange.work()
    await exchange.send(answer.wire()[: -(len(answer.body) // 2)])


# A body that breaks off in its middle.
CUT: Final[Spoil] = _halved
