"""The HTTP server of the API and the artifact store: records requests and injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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

# Addresses that stand for all addresses of a machine.
_ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # nothing is bound to them here

# Seconds for open connections to finish when the sandbox stops. 0 would mean no limit.
_SHUTDOWN_TIMEOUT: Final = 0.05


class ServiceClock:
    """The clock of the service, which advances with the clock of an event loop.

    On `amigo_async.testing.VirtualTimeLoop` it jumps with every skipped wait.

    Attributes:
        skew: Seconds by which the clock is ahead of the machine's; negative if it is behind.
    """

    def __init__(self, skew: float) -> None:
        self.skew = skew
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Advance with the clock of `loop` from now on."""
        self._loop = loop
        self._offset = time.time() - loop.time()

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        clock = time.time() if self._loop is None else self._offset + self._loop.time()
        return clock + self.skew


@dataclass(slots=True, eq=False)
class RecordedRequest:
    """A request that the sandbox has received, and its response.

    Secrets in `query` and `headers` are shown as ``***`` in a repr.

    Attributes:
        time: When it was received, in seconds since the epoch by the sandbox's clock.
        route: The endpoint, ``"store"``, or ``"unknown"``.
        method: The HTTP method.
        path: The percent-encoded path, without the query.
        query: The decoded name-value pairs of the query, in order.
        headers: The headers by lower-case name.
        organization_id: The organization in the path; None without one.
        raw_query: The percent-encoded query, without the question mark.
        body: The body.
        status: Status of the response; None before it is sent.
        sent: Number of bytes of the response body that were sent.
        ended: When the response was complete, in seconds since the epoch; None before.
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
        """The ``Range`` header; None without one."""
        return self.headers.get("range")

    def values(self, name: str) -> list[str]:
        """Return all values of a parameter in the query, in order."""
        return [value for key, value in self.query if key == name]


def _masked(pairs: Iterable[tuple[str, str]], secrets: frozenset[str]) -> Iterable[tuple[str, str]]:
    """Return `pairs` with the values of `secrets` as `Secret`, shown as ``***`` in a repr."""
    return ((name, Secret(value) if name in secrets else value) for name, value in pairs)


class Content(Protocol):
    """Bytes that need not be in memory; sliced like `bytes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: status, headers, and content or a range of it."""

    status: int
    headers: dict[str, str]
    content: Content = b""
    part: range | None = None


class RefusalError(Exception):
    """Raised to respond to a request with an error.

    Args:
        status: The HTTP status.
        detail: What is wrong.
        headers: Headers to add; None for none.
        code: The S3 error code; None for the default for `status`.
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
    """Handles the requests to a server."""

    def route(self, method: str, path: str) -> tuple[Route, str | None]:
        """Return the route and the organization of a request."""

    async def answer(self, request: RecordedRequest, fault: Fault) -> Reply:
        """Perform a request; some kinds of `fault` are injected by the backend itself."""

    def refuse(self, request: RecordedRequest, refusal: RefusalError) -> Reply:
        """Return the response for a refusal, in the error format of the backend."""


class Server:
    """Serves a backend on the loopback interface.

    Args:
        backend: Handles the requests.
        clock: The clock of ``Date`` and of the recorded requests.
        faults: The faults to inject.
        requests: Receives the recorded requests.
    """

    def __init__(
        self,
        backend: Backend,
        clock: ServiceClock,
        faults: Faults,
        requests: deque[RecordedRequest],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._faults = faults
        self._requests = requests
        self._closing = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Serve while the context is open.

        Args:
            host: Name or address to listen on.
            port: Port to listen on; 0 for one that is free.

        Yields:
            The base URL. If `host` stands for all addresses, it has the name of this machine.
        """
        runner = web.ServerRunner(
            # Cancelled if the client disconnects; work that must be done even then is shielded.
            web.Server(self._handle, access_log=None, handler_cancellation=True),
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, host, port).start()
            address, port = runner.addresses[0][:2]
            reached = socket.gethostname() if address in _ALL_ADDRESSES else address
            yield f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
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

    def _recorded(self, http: web.BaseRequest) -> RecordedRequest:
        path, _, query = http.raw_path.partition("?")
        route, organization_id = self._backend.route(http.method, path)
        headers = ((name.lower(), value) for name, value in http.headers.items())
        request = RecordedRequest(
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

    async def _reply(self, request: RecordedRequest, fault: Fault) -> Reply | None:
        """Return the reply with a fault injected; None to drop the connection."""
        if fault.kind == "delay" and not fault.after_work:
            # Performed even if the client disconnects meanwhile.
            return await finish(self._late(request, fault))
        reply = None
        if fault.after_work or fault.kind not in {"drop", "status"}:
            reply = await self._backend.answer(request, fault)
        if fault.kind == "drop":
            return None
        if fault.kind == "delay":
            await self._pause(fault.seconds)
        return self._altered(request, reply, fault)

    async def _late(self, request: RecordedRequest, fault: Fault) -> Reply:
        await self._pause(fault.seconds)
        return await self._backend.answer(request, fault)

    def _altered(self, request: RecordedRequest, reply: Reply | None, fault: Fault) -> Reply:
        """Return `reply` with the status, headers and body of `fault`; `reply` may be None."""
        if reply is None or fault.status_code is not None:
            status = fault.status_code or 500
            reply = self._backend.refuse(request, RefusalError(status, _phrase(status)))
            if fault.body is not None:
                reply = replace(reply, headers={"Content-Type": "text/plain; charset=utf-8"})
        if fault.body is not None:
            reply = replace(reply, content=fault.body, part=None)
        return replace(reply, headers={**reply.headers, **fault.headers})

    async def _send(
        self, http: web.BaseRequest, request: RecordedRequest, reply: Reply, fault: Fault
    ) -> web.StreamResponse:
        # Recorded before the client can read it: a test in another thread may check it at once.
        request.status = reply.status
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.headers["Date"] = formatdate(int(self._clock.now()), usegmt=True)
        body = range(len(reply.content)) if reply.part is None else reply.part
        if reply.status not in _BODYLESS:
            response.content_length = len(body)
        with contextlib.suppress(ConnectionError):  # the client has disconnected
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
        request: RecordedRequest,
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
        """Wait for `seconds` (None for no limit), or until the sandbox stops."""
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
