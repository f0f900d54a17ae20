"""What both servers of the sandbox share: taking a request apart, faults, sending, recording."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import parse_qsl

from aiohttp import web

from amigo_async.shield import finish
from amigo_async.testing.contents import Content, Held
from amigo_async.testing.epoch import Epoch
from amigo_async.testing.faults import Fault, Faults
from amigo_async.testing.record import (
    Recorder,
    Request,
    Route,
    masked_headers,
    masked_query,
)

_BLOCK = 256 * 1024
_BODYLESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, taken apart as it was sent."""

    route: Route
    organization_id: str | None
    raw: web.BaseRequest = field(repr=False)
    path: str
    query: str = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The decoded pairs of the query; a plus is a space."""
        return parse_qsl(self.query, keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a status, headers, and a part of a content."""

    status: int
    headers: dict[str, str]
    content: Content = field(default_factory=lambda: Held(b""))
    start: int = 0
    stop: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return (self.content.size if self.stop is None else self.stop) - self.start


class Backend(Protocol):
    """What a server answers."""

    def identify(self, method: str, path: str) -> tuple[Route, str | None]:
        """The route and the organization of a request."""

    async def answer(self, asked: Asked, fault: Fault | None) -> Reply:
        """Do what is asked; `fault` is one that is the backend's own to play."""

    def failure(self, asked: Asked, status: int) -> Reply:
        """An answer with `status` in the form of the backend's errors."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the servers of a sandbox have in common."""

    epoch: Epoch
    faults: Faults
    recorder: Recorder
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float | None) -> None:
        """Wait for `seconds` (None for ever), or until the sandbox closes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)


@dataclass(slots=True)
class _Sent:
    number: int
    status: int | None = None
    size: int = 0


class Front:
    """Serves a backend, with faults, and records what it was asked."""

    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._backend = backend
        self._shared = shared

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request."""
        path, _, query = request.raw_path.partition("?")
        route, organization_id = self._backend.identify(request.method, path)
        asked = Asked(route, organization_id, request, path, query)
        sent = _Sent(self._record(asked))
        try:
            return await self._handle(asked, sent)
        finally:
            now = self._shared.epoch.now()
            self._shared.recorder.close(sent.number, status=sent.status, sent=sent.size, ended=now)

    def _record(self, asked: Asked) -> int:
        request = Request(
            time=self._shared.epoch.now(),
            route=asked.route,
            method=asked.raw.method,
            path=asked.path,
            query=masked_query(asked.pairs),
            headers=masked_headers(asked.raw.headers.items()),
            organization_id=asked.organization_id,
        )
        return self._shared.recorder.open(request)

    async def _handle(self, asked: Asked, sent: _Sent) -> web.StreamResponse:
        fault = self._shared.faults.take(asked.route)
        asked = replace(asked, body=await asked.raw.read())
        if fault is None:
            return await self._send(asked, await self._backend.answer(asked, None), None, sent)
        reply = await self._faulty(asked, fault)
        if reply is None:
            _close(asked.raw, reset=fault.reset)
            return web.Response()
        return await self._send(asked, reply, fault, sent)

    async def _faulty(self, asked: Asked, fault: Fault) -> Reply | None:
        """The answer under a fault; None for none at all."""
        if not fault.after_work:
            if fault.kind == "drop":
                return None
            if fault.kind == "status":
                return self._replaced(asked, fault, None)
            if fault.kind == "delay":
                return await finish(self._late(asked, fault))
        reply = await self._backend.answer(asked, fault)
        if fault.kind == "drop":
            return None
        if fault.kind == "delay":
            await self._shared.pause(fault.seconds)
        return self._replaced(asked, fault, reply)

    async def _late(self, asked: Asked, fault: Fault) -> Reply:
        """Do the work after a pause, even for a client that has gone."""
        await self._shared.pause(fault.seconds)
        return await self._backend.answer(asked, None)

    def _replaced(self, asked: Asked, fault: Fault, reply: Reply | None) -> Reply:
        """`reply` with the status, headers and body of `fault`."""
        if fault.status_code is not None:
            reply = self._backend.failure(asked, fault.status_code)
        assert reply is not None  # noqa: S101  # without work there is a status
        if fault.body is not None:
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            if fault.status_code is None:
                headers = reply.headers
            reply = Reply(reply.status, headers, Held(fault.body))
        return replace(reply, headers={**reply.headers, **fault.headers})

    async def _send(
        self, asked: Asked, reply: Reply, fault: Fault | None, sent: _Sent
    ) -> web.StreamResponse:
        sent.status = reply.status
        # Noted before the client can have read it: a test in another thread looks right away.
        self._shared.recorder.close(sent.number, status=reply.status, sent=0, ended=None)
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.headers["Date"] = self._shared.epoch.date()
        if reply.status not in _BODYLESS:
            response.content_length = reply.size
        with contextlib.suppress(ConnectionError):  # the client has gone
            await response.prepare(asked.raw)
            if asked.raw.method != "HEAD" and reply.status not in _BODYLESS:
                await self._write(response, reply, fault, sent)
                await self._end(asked, fault)
            await response.write_eof()
        return response

    async def _write(
        self, response: web.StreamResponse, reply: Reply, fault: Fault | None, sent: _Sent
    ) -> None:
        for piece in _pieces(reply, fault):
            if fault is not None and fault.kind == "drip":
                await self._shared.pause(fault.seconds)
            await response.write(piece)
            sent.size += len(piece)

    async def _end(self, asked: Asked, fault: Fault | None) -> None:
        """Where a body was left unfinished, stay silent or close the connection."""
        if fault is not None and fault.kind == "stall":
            await self._shared.pause(None)
        if fault is not None and fault.kind in ("stall", "truncate"):
            _close(asked.raw, reset=fault.reset)


def _pieces(reply: Reply, fault: Fault | None) -> Iterator[memoryview]:
    """The body in pieces that are quick to make, as far as it is to be sent."""
    size, stop = _BLOCK, reply.start + reply.size
    if fault is not None and fault.kind in ("stall", "truncate"):
        after = reply.size // 2 if fault.after_bytes is None else fault.after_bytes
        stop = min(stop, reply.start + after)
    if fault is not None and fault.kind == "drip":
        size = fault.piece
    for at in range(reply.start, stop, size):
        yield reply.content.read(at, min(stop, at + size))


def _close(request: web.BaseRequest, *, reset: bool) -> None:
    """Close the connection of a request, if it is there still."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        transport.abort()
    else:
        transport.close()
