"""A proxy between a client and a sandbox that spoils what passes: real bytes on real sockets.

A request that nothing happens to mostly goes to the sandbox directly. One that a fault happens to
comes here, is taken apart, passed on or not, and answered as the fault says.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from amigo_async.testing import Sandbox
from tests.support import tls_servers
from tests.support.connections import Counting
from tests.support.tls_servers import HOST, listening

Route: TypeAlias = Literal["sign_in", "create", "list", "cancel", "artifacts", "store"]
Handshake: TypeAlias = Literal["expired", "unknown authority", "wrong host", "plain", "broken off"]

STORE: Final = "store.amigo.test"
_ROUTES: Final[dict[str, Route]] = {
    r"POST .*/signin_with_api_key": "sign_in",
    r"POST ": "create",
    r"DELETE ": "cancel",
    r"GET .*/artifacts/": "artifacts",
    r"GET ": "list",
}
_asked_for: ContextVar[Route] = ContextVar("asked_for")
_numbers = count()


def route_of(head: str) -> Route:
    if f"\nhost: {STORE}" in head.lower():
        return "store"
    return next(route for pattern, route in _ROUTES.items() if re.match(pattern, head))


@dataclass(frozen=True)
class Answer:
    """An answer, taken apart."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ")[::2] for line in lines)
        kept = tuple(pair for pair in pairs if pair[0] != "Connection")
        return cls(int(status.split(" ")[1]), kept, body)

    def using(self, **headers: str | None) -> Answer:
        """The same with other headers; None removes one."""
        new = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        kept = tuple((n, v) for n, v in self.headers if n.lower() not in new)
        return replace(self, headers=kept + tuple((n, v) for n, v in new.items() if v is not None))

    def holding(self, body: bytes, **headers: str | None) -> Answer:
        """The same with another body; a 204, which has none, becomes a 200."""
        status = 200 if self.status == 204 else self.status
        new = replace(self, status=status, body=body).using(Content_Length=str(len(body)))
        return new.using(**headers)

    def with_a_body(self) -> Answer:
        return self if self.body else self.holding(b"{}")

    def head(self, version: str = "HTTP/1.1") -> bytes:
        lines = [f"{version} {self.status} Said", *(f"{n}: {v}" for n, v in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def wire(self, version: str = "HTTP/1.1") -> bytes:
        return self.head(version) + self.body


@dataclass
class Exchange:
    """One request, and the connection that it came on."""

    route: Route
    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: int

    async def work(self) -> Answer:
        """Let the sandbox handle the request, and return its answer."""
        reader, writer = await asyncio.open_connection(HOST, self.upstream)
        head, _, body = self.request.partition(b"\r\n\r\n")
        writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
        try:
            return Answer.parse(await reader.read())
        finally:
            writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def silence(self) -> None:
        """Send nothing until the client has left."""
        with contextlib.suppress(OSError):
            await self.reader.read()


@dataclass(frozen=True)
class AtConnect:
    """A fault before there is a connection."""

    why: Literal["refused", "unknown", "handshake"]


Happening: TypeAlias = Callable[[Exchange], Awaitable[None]] | AtConnect


def broken(where: str, how: str) -> Happening:
    """A connection that ends, or a server that falls silent.

    Args:
        where: ``"before"`` the sandbox has handled the request, ``"after"`` it, or in the middle
            of the ``"head"`` or the ``"body"`` of its answer.
        how: ``"reset"``, ``"close"`` or ``"silence"``.
    """

    async def happen(exchange: Exchange) -> None:
        if where != "before":
            answer = (await exchange.work()).with_a_body()
            head = len(answer.head())
            ends = {"after": 0, "head": head // 2, "body": head + -(-len(answer.body) // 2)}
            await exchange.send(answer.wire()[: ends[where]])
        if how == "silence":
            await exchange.silence()
        elif how == "reset":
            if where in ("head", "body"):  # a reset discards what has not been read yet
                await asyncio.sleep(0.1)
            exchange.reset()

    return happen


def drip(seconds: float, pieces: int = 4) -> Happening:
    """The answer in pieces, with a pause before each."""

    async def happen(exchange: Exchange) -> None:
        data = (await exchange.work()).wire()
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            await asyncio.sleep(seconds / pieces)
            await exchange.send(data[at : at + size])

    return happen


def changed(change: Callable[[Answer], Answer | bytes]) -> Happening:
    """The request is handled, and its answer changed."""

    async def happen(exchange: Exchange) -> None:
        answer = change(await exchange.work())
        await exchange.send(answer if isinstance(answer, bytes) else answer.wire())

    return happen


def headers(**new: str | None) -> Happening:
    return changed(lambda answer: answer.using(**new))


def raw_header(line: str) -> Happening:
    """One more header, as it is: for what is there twice, or malformed."""
    extra = line.encode("latin-1") + b"\r\n\r\n"
    return changed(lambda a: a.with_a_body().head()[:-2] + extra + a.with_a_body().body)


def body(data: bytes, **new: str | None) -> Happening:
    return changed(lambda answer: answer.holding(data, **new))


def chunked(answer: Answer) -> bytes:
    size, data = len(answer.body), answer.body
    chunk = b"%x\r\n%s\r\n" % (size, data) if size else b""
    head = answer.holding(data, Content_Length=None, Transfer_Encoding="chunked").head()
    return head + chunk + b"0\r\n\r\n"


def said(data: bytes) -> Happening:
    """These bytes, and the request is not handled."""

    async def happen(exchange: Exchange) -> None:
        await exchange.send(data)

    return happen


def answered(status: int, body: bytes = b'{"detail": "no"}', **new: str) -> Happening:
    """This answer, and the request is not handled."""
    answer = Answer(status, (("Content-Type", "application/json"),), b"")
    # A 304 has no body.
    return said((answer if status == 304 else answer.holding(body)).using(**new).wire())


async def rangeless(exchange: Exchange) -> None:
    """A store that does not know ranges."""
    exchange.request = re.sub(rb"(?i)\r\nRange: [^\r]*", b"", exchange.request)
    await exchange.send((await exchange.work()).wire())


async def cut(exchange: Exchange) -> None:
    """A body that breaks off in its middle."""
    answer = await exchange.work()
    await exchange.send(answer.wire()[: -(len(answer.body) // 2)])


# What a server shows whose certificate is wrong; the other servers know no TLS.
_WRONG: Final = {
    "expired": tls_servers.expired,
    "unknown authority": tls_servers.of_unknown_authority,
    "wrong host": tls_servers.of_another_host,
}


@dataclass
class Wire:
    """What happens to the requests of each route: first, next, and from then on.

    Attributes:
        first: What happens to the next requests of a route, each in turn; None for nothing.
        forever: What happens to those that come then.
        played: How often something happened.
        kept_alive: Whether all requests come here, on connections that stay open.
        tls: What is wrong with the handshake that is to fail; None for plain http all over.
        sent: How many requests to the API were sent on a connection.
        asked: How many requests to the API the client made.
    """

    sandbox: Sandbox
    kept_alive: bool = False
    tls: Handshake | None = None
    first: dict[Route, deque[Happening | None]] = field(default_factory=dict)
    forever: dict[Route, Happening] = field(default_factory=dict)
    played: int = 0
    sent: int = 0
    asked: int = 0
    _ports: dict[str, int] = field(default_factory=dict)

    def next(self, route: Route, *, take: bool = False) -> Happening | None:
        """What happens to the next request of `route`; None for nothing."""
        found = self.forever.get(route)
        if first := self.first.get(route):
            found = first.popleft() if take else first[0]
        self.played += take and found is not None
        return found

    def play(self, route: Route, *first: Happening | None, forever: Happening | None = None) -> str:
        """Forget what was to happen, for this instead.

        Returns:
            A base URL that no client has had before, so that none knows its rate limits.
        """
        self.first, self.forever = {route: deque(first)}, {}
        if forever is not None:
            self.forever[route] = forever
        self.played = self.sent = self.asked = 0
        return self._url(f"api-{next(_numbers)}.amigo.test")

    def _url(self, host: str) -> str:
        return f"{'http' if self.tls is None else 'https'}://{host}"

    def port(self, host: str) -> int:
        """The port for a request that is about to be sent.

        Raises:
            OSError: If the name of the host is not to be found.
        """
        route = "store" if host == STORE else _asked_for.get()
        happening = self.next(route)
        if isinstance(happening, AtConnect):
            self.next(route, take=True)
            if happening.why == "unknown":
                raise OSError(None, "Name or service not known")
            return self._ports[happening.why]
        if happening is not None or self.kept_alive or self.tls:
            return self._ports["proxy"]
        self.next(route, take=True)
        return self._upstream(route)

    def _upstream(self, route: Route) -> int:
        return self._ports["store" if route == "store" else "api"]

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Wire]:
        for name, url in (("api", self.sandbox.base_url), ("store", self.sandbox.store_url)):
            self._ports[name] = urlsplit(url).port or 80
        self.sandbox.store_url = self._url(STORE)  # links lead to it
        async with AsyncExitStack() as stack:
            nobody = stack.enter_context(socket.socket())
            nobody.bind((HOST, 0))
            self._ports["refused"] = nobody.getsockname()[1]
            context = None
            if self.tls is not None:
                context = tls_servers.serving(tls_servers.good)
                make = _WRONG.get(self.tls)
                false = listening(self._fail_handshake, make and tls_servers.serving(make))
                self._ports["handshake"] = await stack.enter_async_context(false)
            proxy = listening(self._serve, context)
            self._ports["proxy"] = await stack.enter_async_context(proxy)
            yield self

    async def _fail_handshake(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Close on a ClientHello, or say no to it as a server does that knows no TLS."""
        await reader.read(1)
        if self.tls != "broken off":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

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
        request = head + (await reader.readexactly(int(length[1])) if length else b"")
        route = route_of(head.decode("latin-1"))
        exchange = Exchange(route, request, reader, writer, self._upstream(route))
        # What needs a connection that was idle does not happen on a fresh one.
        spared = self.kept_alive and not used
        happening = None if spared else self.next(route, take=True)
        if happening is None:
            await exchange.send((await exchange.work()).wire())
            return True
        assert not isinstance(happening, AtConnect)
        await happening(exchange)
        return False


class _Resolver(AbstractResolver):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = self._wire.port(host)
        return [
            {
                "hostname": host, "host": HOST, "port": found,
                "family": socket.AF_INET, "proto": 0, "flags": socket.AI_NUMERICHOST,
            }
        ]  # fmt: skip

    async def close(self) -> None:
        pass


class Connector(Counting):
    """Takes note of what is sent to the API."""

    def __init__(self, wire: Wire) -> None:
        settings: dict[str, Any] = {} if wire.tls is None else {"ssl": tls_servers.trusting()}
        super().__init__(
            resolver=_Resolver(wire),
            use_dns_cache=False,
            force_close=not wire.kept_alive,
            **settings,
        )
        self._wire = wire

    async def connect(self, req: Any, traces: Any, timeout: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        self._wire.sent += bool(traces)  # the session of the store has none
        return connection


@asynccontextmanager
async def session(wire: Wire) -> AsyncIterator[tuple[aiohttp.ClientSession, Connector]]:
    """A session whose requests go where `wire` says."""

    async def note(_: object, __: object, asked: aiohttp.TraceRequestStartParams) -> None:
        wire.asked += 1
        _asked_for.set(route_of(f"{asked.method} {asked.url.path}"))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    connector = Connector(wire)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as http:
        yield http, connector
