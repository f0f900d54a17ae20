"""Reads an object, or a range of it, across broken connections and expired links."""

from __future__ import annotations

from contextlib import AsyncExitStack

from msgspec.structs import replace

from amigo_async.artifacts.plan import (
    Body,
    Changed,
    Complete,
    Failed,
    Interpretation,
    LinkRefused,
    Missing,
    Rangeless,
    Reading,
    Retry,
    Unmatched,
    Unprovable,
    merged,
)
from amigo_async.artifacts.source import Source, StoreResponse, StoreRetries
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
    "the connection broke, and the download cannot be resumed: the store sends neither an ETag "
    "nor a date to tell whether the object is still the same"
)


class Reader:
    """Yields the bytes of an object in order, each exactly once.

    Nothing is buffered: `read` returns what the connection has just received, so a slow consumer
    slows the store down (backpressure).

    Args:
        source: The artifact.
        reading: Where to start and stop.
    """

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source = source
        self._reading = reading
        self._retries = StoreRetries(source.policy, source.emit)
        self._refused = False
        self._stack = AsyncExitStack()
        self._response: StoreResponse | None = None
        self._body: Body | None = None
        self._skip = 0
        self._gained = False

    @property
    def reading(self) -> Reading:
        """How far the object has been read."""
        return self._reading

    def give_up(self, count: int) -> Span:
        """Stop `count` bytes earlier, so that another reader can fetch them.

        The end must be known, and at least `count` bytes must be left.

        Returns:
            The range given up.
        """
        end = self._reading.end or 0
        self._reading = replace(self._reading, stop=end - count)
        return end - count, end

    async def start(self) -> ObjectInfo:
        """Send requests until one is answered with a body.

        If the first response is the whole object, or does not say its size, the reader continues
        to the end of the object instead of stopping at `stop`.

        Returns:
            What is known of the object.

        Raises:
            APIError: If the API refuses to give a link.
            ArtifactError: If the store does not serve the object.
            TransportError: If the API cannot be reached.
        """
        while True:
            info = self._reading.info
            if info is not None and (self._body is not None or self._reading.done):
                return info
            await self._connect()
            if info is None and self._body and (self._body.whole or self._body.info.size is None):
                self._reading = replace(self._reading, stop=None)

    async def read(self) -> bytes:
        """Return the next bytes; empty once everything has been read.

        Raises:
            APIError: If the API refuses to give a fresh link.
            ArtifactError: If the rest cannot be fetched; `ArtifactChangedError` if the object
                has changed, `ArtifactTruncatedError` if the store stops before its end.
            TransportError: If the API cannot be reached.
        """
        while not self._reading.done:
            if self._response is None:
                await self._connect()
            elif chunk := await self._receive(self._response):
                return chunk
        await self.aclose()
        return b""

    async def aclose(self) -> None:
        """Release the connection."""
        self._response = self._body = None
        await self._stack.aclose()

    async def _connect(self) -> None:
        """Send one request; pause if it failed with a transient error."""
        link = await self._source.link()
        try:
            verdict, response, code = await self._source.ask(link, self._reading, self._stack)
        except TransportError as error:
            if error.lasting:
                raise self._source.error(str(error)) from error
            await self._failed(str(error), cause=error)
            return
        self._refused = self._refused and isinstance(verdict, LinkRefused)
        if isinstance(verdict, Body):
            self._response, self._body, self._skip = response, verdict, verdict.skip
            self._gained = False
            self._reading = replace(self._reading, info=verdict.info, unranged=False)
        else:
            await self.aclose()
            await self._handle(verdict, code, link)

    async def _handle(self, verdict: Interpretation, code: str, link: ArtifactsLink) -> None:
        """Act on a response that has no usable body."""
        match verdict:
            case Complete(info):
                self._reading = replace(self._reading, info=info)
            case Rangeless(reason):
                self._request_whole(reason + code)
            case Retry(reason, after):
                await self._failed(reason + code, after=after)
            case LinkRefused(reason):
                if self._refused:
                    raise self._source.error(f"{reason}{code}, and the same to a fresh link")
                self._refused = True
                self._retries.again(reason + code)
                self._source.refuse(link)
            case Missing(reason):
                if not await self._retries.wait_for_object(reason + code):
                    raise self._source.error(reason + code)
            case Unmatched():
                self._reading = replace(self._reading, by_date=True)
            case Changed() | Unprovable() | Failed():
                raise self._final(verdict, code)

    def _request_whole(self, reason: str) -> None:
        """Request the whole object next, and skip what has been read."""
        if self._reading.info is not None:  # otherwise it may just be empty
            self._retries.again(reason)
        self._reading = replace(self._reading, unranged=True)

    def _final(self, verdict: Changed | Unprovable | Failed, code: str) -> ArtifactError:
        """Return the error for a response that cannot be retried."""
        match verdict:
            case Changed(reason):
                return self._source.error(f"it changed: {reason}", ArtifactChangedError)
            case Unprovable(reason):
                return self._source.error(reason, ArtifactTruncatedError)
        return self._source.error(verdict.reason + code)

    async def _receive(self, response: StoreResponse) -> bytes:
        """Return the next new bytes of the body; empty if it ended or had only known bytes."""
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
        """Return the part of `chunk` that is wanted and new."""
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
            self._retries.progress()
            self._gained = True
        return chunk

    async def _ended(self) -> None:
        """Decide what the regular end of a body proves about the end of the object."""
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
            await self._failed("the body ended too early")

    async def _failed(
        self, reason: str, *, after: float | None = None, cause: AmigoError | None = None
    ) -> None:
        """Pause before the next attempt, or raise the final error."""
        self._check_recognizable()
        if await self._retries.pause(reason, after):
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
