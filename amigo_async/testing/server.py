"""The HTTP server under the API and the artifact store: records requests and injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web

from amigo_async.cancellation import finish
from amigo_async.protocol.endpoints import EndpointName
from amigo_async.redact import Secret
from amigo_async.testing.faults import Fault, Faults

Route: TypeAlias = EndpointName | Literal["store", "unknown"]

_BLOCK: Final = 256 * 1024
_BODYLESS: Final = frozenset({204, 304})
_SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "cookie"})
_SECRET_PARAMETERS: Final = frozenset({"X-Amz-Signature", "X-Amz-Credential"})

# Seconds for connections to end by themselves when the sandbox stops. Not 0, which means never.
_SHUTDOWN_TIMEOUT: Final = 0.05


class ServiceClock:
    """Seconds since the epoch, advancing with the clock of an event loop.

    On `amigo_async.testing.VirtualTimeLoop` they jump with every wait that is skipped.

    Attributes:
        skew: Seconds by which the clock is ahead of the machine's; negative for behind.
    """

    def __init__(self, skew: float) -> None:
        self.skew = skew
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, advance with the clock of `loop`."""
        self._loop = loop
        self._offset = time.time() - loop.time()

    def now(self) -> float:
        """The time."""
        clock = time.time() if self._loop is None else self._offset + self._loop.time()
        return clock + self.skew


@dataclass(slots=True, eq=False)
class Request:
    """One request as the sandbox received it, and how it was answered.

    Attributes:
        time: When it came, in seconds since the epoch on the sandbox's clock.
        route: The endpoint, ``"store"``, or ``"unknown"``.
        method: The HTTP method.
        path: The path as it was sent, still encoded, without the query.
        query: The decoded pairs of the query, in order.
        headers: The headers by lower-case name.
        organization_id: The organization in the path; None without one.
        raw_query: The query as it was sent, without the question mark.
        body: The body.
        status: The status of the answer; None without one (yet).
        sent: How many bytes of its body were handed to the connection.
        ended: When the answer had been sent; None while it has not.
    """

    time: float
    route: Route
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    organization_id: str | None
    raw_query: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)
    status: int | None = None
    sent: int = 0
    ended: float | None = None

    @property
    def range(self) -> str | None:
        """The ``Range`` that was asked for; None for the whole."""
        return self.headers.get("range")

    def values(self, name: str) -> list[str]:
        """All values of one name in the query, in order."""
        return [value for key, value in self.query if key == name]


def _masked(pairs: Iterable[tuple[str, str]], secrets: frozenset[str]) -> Iterable[tuple[str, str]]:
    """`pairs` with the values of `secrets` shown as ``***`` in a repr."""
    return ((name, Secret(value) if name in secrets else value) for name, value in pairs)


class Content(Protocol):
    """Bytes, wherever they are; sliced as `bytes` are."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: a status, headers, and a content or a part of one."""

    status: int
    headers: dict[str, str]
    content: Content = b""
    part: range | None = None


class RefusalError(Exception):
    """A request is answered with an error.

    Args:
        status: The HTTP status.
        detail: What is wrong.
        headers: Headers to add; None for none.
        code: S3's code of the error; None for the usual one of `status`.
    """

    def __init__(
        self,
        status: int,
        detail: str | list[dict[str, Any]],
        headers: Mapping[str, str] | None = None,
        *,
        code: str | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.code = code


class Backend(Protocol):
    """What a server serves."""

    def route(self, method: str, path: str) -> tuple[Route, str | None]:
        """The route and the organization of a request."""

    async def answer(self, request: Request, fault: Fault) -> Reply:
        """Do the work; `fault` may be one that the backend plays itself."""

    def refuse(self, request: Request, refusal: RefusalError) -> Reply:
        """The response for a refusal, in the form of the backend's errors."""


class Server:
    """Serves a backend on loopback.

    Args:
        backend: What it serves.
        clock: The clock of ``Date`` and of the recorded requests.
        faults: What goes wrong.
        requests: Where the requests are recorded.
    """

    def __init__(
        self, backend: Backend, clock: ServiceClock, faults: Faults, requests: deque[Request]
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._faults = faults
        self._requests = requests
        self._closing = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on a free port for as long as the context is open; gives the URL."""
        runner = web.ServerRunner(
            # A client that has gone gets no answer; work to be done even then is shielded.
            web.Server(self._handle, access_log=None, handler_cancellation=True),
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            self._closing.set()
            await runner.cleanup()

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        request = self._recorded(http)
        fault = self._faults.take(request.route)
        try:
            request.body = await http.read()
            reply = await self._reply(request, fault)
            if reply is None:
                _disconnect(http, reset=fault.reset)
                return web.Response()
            return await self._send(http, request, reply, fault)
        finally:
            request.ended = self._clock.now()

    def _recorded(self, http: web.BaseRequest) -> Request:
        path, _, query = http.raw_path.partition("?")
        route, organization_id = self._backend.route(http.method, path)
        headers = ((name.lower(), value) for name, value in http.headers.items())
        request = Request(
            time=self._clock.now(),
            route=route,
            method=http.method,
            path=path,
            query=list(_masked(parse_qsl(query, keep_blank_values=True), _SECRET_PARAMETERS)),
            headers=dict(_masked(headers, _SECRET_HEADERS)),
            organization_id=organization_id,
            raw_query=query,
        )
        self._requests.append(request)
        return request

    async def _reply(self, request: Request, fault: Fault) -> Reply | None:
        """The reply under a fault; None to drop the connection."""
        if fault.kind == "delay" and not fault.after_work:
            # Work that is delayed is done even if the client has gone by then.
            return await finish(self._late(request, fault))
        reply = None
        if fault.after_work or fault.kind not in {"drop", "status"}:
            reply = await self._backend.answer(request, fault)
        if fault.kind == "drop":
            return None
        if fault.kind == "delay":
            await self._pause(fault.seconds)
        return self._altered(request, reply, fault)

    async def _late(self, request: Request, fault: Fault) -> Reply:
        await self._pause(fault.seconds)
        return await self._backend.answer(request, fault)

    def _altered(self, request: Request, reply: Reply | None, fault: Fault) -> Reply:
        """`reply` with the status, headers and body of `fault`; without one there is a status."""
        if reply is None or fault.status_code is not None:
            status = fault.status_code or 500
            reply = self._backend.refuse(request, RefusalError(status, _phrase(status)))
            if fault.body is not None:
                reply = replace(reply, headers={"Content-Type": "text/plain; charset=utf-8"})
        if fault.body is not None:
            reply = replace(reply, content=fault.body, part=None)
        return replace(reply, headers={**reply.headers, **fault.headers})

    async def _send(
        self, http: web.BaseRequest, request: Request, reply: Reply, fault: Fault
    ) -> web.StreamResponse:
        # Recorded before the client can have read it: a test in another thread looks at once.
        request.status = reply.status
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.headers["Date"] = formatdate(int(self._clock.now()), usegmt=True)
        body = range(len(reply.content)) if reply.part is None else reply.part
        if reply.status not in _BODYLESS:
            response.content_length = len(body)
        with contextlib.suppress(ConnectionError):  # the client has gone
            await response.prepare(http)
            if http.method != "HEAD" and reply.status not in _BODYLESS:
                await self._send_body(response, request, reply.content, body, fault)
                if fault.kind in {"stall", "truncate"}:
                    _disconnect(http, reset=fault.reset)
            await response.write_eof()
        return response

    async def _send_body(  # what to send, where from, and how
        self,
        response: web.StreamResponse,
        request: Request,
        content: Content,
        body: range,
        fault: Fault,
    ) -> None:
        if fault.kind in {"stall", "truncate"}:
            body = body[: len(body) // 2 if fault.after_bytes is None else fault.after_bytes]
        size = fault.piece if fault.kind == "drip" else _BLOCK
        for at in range(0, len(body), size):
            if fault.kind == "drip":
                await self._pause(fault.seconds)
            piece = body[at : at + size]
            await response.write(content[piece.start : piece.stop])
            request.sent += len(piece)
        if fault.kind == "stall":
            await self._pause(None)

    async def _pause(self, seconds: float | None) -> None:
        """Wait for `seconds` (None: forever), or until the sandbox stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _disconnect(http: web.BaseRequest, *, reset: bool) -> None:
    """Close or reset the connection of a request, if it is still open."""
    if http.transport is None:
        return
    if reset:
        http.transport.abort()
    else:
        http.transport.close()
