"""Reads an object, or a range of it, whatever happens to links and connections."""

from __future__ import annotations

from contextlib import AsyncExitStack

from msgspec.structs import replace

from amigo_async.artifacts.plan import (
    Again,
    Body,
    Changed,
    Complete,
    Failed,
    Missing,
    Rangeless,
    Reading,
    Refused,
    Unmatched,
    Unprovable,
    Verdict,
    merged,
)
from amigo_async.artifacts.source import Patience, Source, StoreResponse
from amigo_async.errors import (
    AmigoError,
    ArtifactChangedError,
    ArtifactError,
    ArtifactTruncatedError,
    TransportError,
)
from amigo_async.models import ArtifactsLink
from amigo_async.protocol.ranges import ObjectInfo, Span

_UNRECOGNIZABLE = (
    "the connection broke, and the store sends neither an ETag nor a date by which to know the "
    "object again"
)


class Reader:
    """Gives the bytes of an object in order, each once.

    It keeps nothing: what it gives is what the connection has just given, so a consumer that
    does not ask holds the store back.

    Args:
        source: The artifact.
        reading: Where to begin and to stop.
    """

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source = source
        self._reading = reading
        self._patience = Patience(source.policy)
        self._refused = False
        self._stack = AsyncExitStack()
        self._response: StoreResponse | None = None
        self._body: Body | None = None
        self._skip = 0
        self._gained = False

    @property
    def reading(self) -> Reading:
        """How far it has come."""
        return self._reading

    def give_up(self, count: int) -> Span:
        """Leave the last `count` bytes, of those that are left of a known number, to another.

        Returns:
            What is left to it.
        """
        end = self._reading.end or 0
        self._reading = replace(self._reading, stop=end - count)
        return end - count, end

    async def start(self) -> ObjectInfo:
        """Send the first request, and the next ones until one gives a body.

        Returns:
            What is known of the object. Where the first answer is the whole object, or does
            not tell its size, the reader goes on to the end instead of to `stop`.

        Raises:
            APIError: What the API answers to the request for a link.
            ArtifactError: If the store will not give the object.
            TransportError: If the API does not answer.
        """
        while True:
            info = self._reading.info
            if info is not None and (self._body is not None or self._reading.done):
                return info
            await self._connect()
            if info is None and self._body and (self._body.whole or self._body.info.size is None):
                self._reading = replace(self._reading, stop=None)

    async def read(self) -> bytes:
        """The next bytes; empty when everything wanted has been read.

        Raises:
            APIError: What the API answers to the request for a fresh link.
            ArtifactError: If the rest cannot be had; `ArtifactChangedError` if the object is
                another one now, `ArtifactTruncatedError` if the store stops short of its end.
            TransportError: If the API does not answer.
        """
        while not self._reading.done:
            if self._response is None:
                await self._connect()
            elif chunk := await self._receive(self._response):
                return chunk
        await self.aclose()
        return b""

    async def aclose(self) -> None:
        """Let go of the connection."""
        self._response = self._body = None
        await self._stack.aclose()

    async def _connect(self) -> None:
        """Send one request; pause where it failed in passing."""
        link = await self._source.link()
        try:
            verdict, response, code = await self._source.ask(link, self._reading, self._stack)
        except TransportError as error:
            if error.lasting:
                raise self._source.error(str(error)) from error
            await self._failed(str(error), cause=error)
            return
        self._refused = self._refused and isinstance(verdict, Refused)
        if isinstance(verdict, Body):
            self._response, self._body, self._skip = response, verdict, verdict.skip
            self._gained = False
            self._reading = replace(self._reading, info=verdict.info)
        else:
            await self.aclose()
            await self._heed(verdict, code, link)

    async def _heed(self, verdict: Verdict, code: str, link: ArtifactsLink) -> None:
        """Do what a verdict without a body asks for."""
        match verdict:
            case Complete(info):
                self._reading = replace(self._reading, info=info)
            case Rangeless():
                self._reading = replace(self._reading, stop=None)
            case Again(reason, after):
                await self._failed(reason + code, after=after)
            case Refused(reason):
                if self._refused:
                    raise self._source.error(f"{reason}{code}, and the same to a fresh link")
                self._refused = True
                self._source.refuse(link)
            case Missing(reason):
                if not await self._patience.wait_for_object():
                    raise self._source.error(reason + code)
            case Unmatched():
                self._reading = replace(self._reading, by_date=True)
            case Changed() | Unprovable() | Failed():
                raise self._final(verdict, code)

    def _final(self, verdict: Changed | Unprovable | Failed, code: str) -> ArtifactError:
        """The error of a verdict that nothing can be done about."""
        match verdict:
            case Changed(reason):
                return self._source.error(f"it changed: {reason}", ArtifactChangedError)
            case Unprovable(reason):
                return self._source.error(reason, ArtifactTruncatedError)
        return self._source.error(verdict.reason + code)

    async def _receive(self, response: StoreResponse) -> bytes:
        """The next new bytes of the body; nothing where it ended, or gave only old ones."""
        try:
            chunk = await response.read()
        except TransportError as error:
            await self.aclose()
            await self._failed(str(error), cause=error)
            return b""
        if not chunk:
            await self._ended()
            return b""
        return self._take(chunk)

    def _take(self, chunk: bytes) -> bytes:
        """What of `chunk` is wanted and new."""
        if self._skip:
            old = min(self._skip, len(chunk))
            self._skip -= old
            chunk = chunk[old:]
        body, end = self._body, self._reading.end
        if body and body.end is not None and self._reading.offset + len(chunk) > body.end:
            raise self._source.error("the store sent more bytes than it announced")
        if end is not None:
            chunk = chunk[: end - self._reading.offset]
        if chunk:
            self._reading = replace(self._reading, offset=self._reading.offset + len(chunk))
            self._patience.progress()
            self._gained = True
        return chunk

    async def _ended(self) -> None:
        """The body has ended without an error: see what that proves."""
        body, offset = self._body, self._reading.offset
        await self.aclose()
        if body is None or self._reading.done:
            return
        unmeasured = body.end is None and self._reading.end is None and not self._skip
        if unmeasured and body.marked:
            info = merged(body.info, ObjectInfo(size=offset))
            self._reading = replace(self._reading, info=info)
        elif unmeasured:
            self._reading = replace(self._reading, ended=True)
            self._check_recognizable()
        elif not self._gained or body.end is None or offset < body.end:
            await self._failed("the body ended before its time")

    async def _failed(
        self, reason: str, *, after: float | None = None, cause: AmigoError | None = None
    ) -> None:
        """Pause before the next attempt, or give up."""
        self._check_recognizable()
        if await self._patience.pause(after):
            return
        offset, end = self._reading.offset, self._reading.end
        if offset == 0:
            raise self._source.error(f"gave up: {reason}", lasting=False) from cause
        of = "" if end is None else f" of {end}"
        reason = f"gave up after {offset}{of} bytes: {reason}"
        raise self._source.error(reason, ArtifactTruncatedError, lasting=False) from cause

    def _check_recognizable(self) -> None:
        info = self._reading.info
        if info is not None and self._reading.ranged and not info.recognizable:
            raise self._source.error(_UNRECOGNIZABLE, ArtifactTruncatedError)
