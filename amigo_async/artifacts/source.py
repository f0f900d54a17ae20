"""One artifact as a source: its current link, shared by all who read, and when to give up."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias

import anyio
import backoff
from msgspec import Struct

from amigo_async.artifacts.plan import Reading, Verdict, judge, next_request
from amigo_async.errors import ArtifactError, TransportError
from amigo_async.events import Event
from amigo_async.models import ArtifactsLink
from amigo_async.protocol.urls import UnsafeLinkError


class StoreResponse(Protocol):
    """A response of the store.

    Attributes:
        status: The status.
        headers: The headers, their names in lower case.
    """

    @property
    def status(self) -> int: ...  # noqa: D102 # documented above

    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102 # documented above

    async def read(self) -> bytes:
        """The next bytes as they come; empty at the end of the body.

        Raises:
            TransportError: If the connection broke, stalled, or ended before the body did.
        """
        ...


# Asks for a URL with these headers; raises TransportError, and UnsafeLinkError for a URL that
# must not be asked.
Open: TypeAlias = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[StoreResponse]]
# A fresh link to the artifacts of a run; raises what the API answers.
FetchLink: TypeAlias = Callable[[str], Awaitable[ArtifactsLink]]
# The time on the server's clock, aware.
ServerNow: TypeAlias = Callable[[], datetime]
Emit: TypeAlias = Callable[[Event], None]


class Policy(Struct, frozen=True):
    """How patient the room is.

    The pause after the n-th failure in a row is a random time between 0 and
    ``min(longest_pause, base_pause * 2 ** (n - 1))`` seconds, or what ``Retry-After`` says. A
    single new byte resets the count.

    Attributes:
        attempts: Failures in a row, without a new byte between them, after which to give up.
        base_pause: Seconds; the ceiling of the first pause.
        longest_pause: Seconds; the ceiling of every pause, also of one the store asks for.
        link_margin: Seconds before its expiry from which on a link is not used any more.
        missing_patience: Seconds for which a 404 of the store is borne: the service has just
            given the link, so a replica or a cache may be behind.
        busy_patience: Seconds for which another download to the same file is waited for without
            anything new in it.
    """

    attempts: int = 5
    base_pause: float = 0.5
    longest_pause: float = 15.0
    link_margin: float = 5.0
    missing_patience: float = 15.0
    busy_patience: float = 300.0


class Seam(Struct, frozen=True):
    """The callables together."""

    open: Open
    link: FetchLink
    server_now: ServerNow
    emit: Emit


_CODE = rb"<Code>\s*([A-Za-z]{1,64})\s*</Code>"
_LONGEST_ERROR = 16 * 1024
# Seconds, up to one more at random, between two requests for an object that is not there yet.
_MISSING_PAUSE = 0.5


class Source:
    """The artifact of one run.

    Args:
        run_id: The run.
        seam: How to reach the API and the store.
        policy: How patient to be.
    """

    def __init__(self, run_id: str, seam: Seam, policy: Policy) -> None:
        self.run_id = run_id
        self.policy = policy
        self.emit = seam.emit
        self._seam = seam
        self._link: ArtifactsLink | None = None
        self._lock = asyncio.Lock()

    async def link(self) -> ArtifactsLink:
        """A link that is good for some seconds at least; one fetch serves all who wait.

        Raises:
            APIError: What the API answers, e.g. `ArtifactsNotReadyError`.
            TransportError: If the API does not answer.
        """
        async with self._lock:
            if self._link is None or self._expires(self._link):
                self._link = await self._seam.link(self.run_id)
            return self._link

    def refuse(self, link: ArtifactsLink) -> None:
        """Use `link` no more. A fresher one that another reader has fetched is kept."""
        if self._link is link:
            self._link = None

    async def ask(
        self, link: ArtifactsLink, reading: Reading, stack: AsyncExitStack
    ) -> tuple[Verdict, StoreResponse, str]:
        """Send the next request of `reading`; the response stays open with `stack`.

        Returns:
            What the answer means, the response, and the store's own word for an error with a
            space before it, or nothing.

        Raises:
            TransportError: If the store did not answer.
            ArtifactError: If the link must not be followed.
        """
        try:
            opened = self._seam.open(link.presigned_url, next_request(reading))
            response = await stack.enter_async_context(opened)
        except UnsafeLinkError as error:
            raise self.error(str(error)) from error
        verdict = judge(reading, response.status, response.headers)
        code = await _error_code(response) if response.status >= 300 else ""
        return verdict, response, code

    def error(
        self, reason: str, kind: type[ArtifactError] = ArtifactError, *, lasting: bool = True
    ) -> ArtifactError:
        """An error about this artifact."""
        return kind(reason, run_id=self.run_id, lasting=lasting)

    def _expires(self, link: ArtifactsLink) -> bool:
        margin = timedelta(seconds=self.policy.link_margin)
        return self._seam.server_now() + margin >= link.url_expires_at


class Patience:
    """Counts failures in a row and pauses between them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._ceilings: Generator[float, Any, None] | None = None
        self._left = policy.attempts
        self._missing_since: float | None = None

    def progress(self) -> None:
        """Something was received: begin to count anew."""
        self._ceilings = None
        self._left = self._policy.attempts
        self._missing_since = None

    async def wait_for_object(self) -> bool:
        """Wait before the store is asked again for an object that it did not have.

        Returns:
            False, at once, where it has been missing for too long, or the wait would not end
            before the deadline of the surrounding scopes.
        """
        now = anyio.current_time()
        if self._missing_since is None:
            self._missing_since = now
        end = self._missing_since + self._policy.missing_patience
        delay = backoff.random_jitter(_MISSING_PAUSE)
        if now + delay > min(end, anyio.current_effective_deadline()):
            return False
        await anyio.sleep(delay)
        return True

    async def pause(self, after: float | None = None) -> bool:
        """Wait before the next attempt, `after` seconds where given.

        Returns:
            False, at once, where there is none: the failures are too many, or the wait would
            not end before the deadline of the surrounding scopes.
        """
        if self._ceilings is None:
            longest = self._policy.longest_pause
            self._ceilings = backoff.expo(factor=self._policy.base_pause, max_value=longest)
            next(self._ceilings)
        self._left -= 1
        ceiling = next(self._ceilings)
        wished = backoff.full_jitter(ceiling) if after is None else after
        delay = min(wished, self._policy.longest_pause)
        if self._left <= 0 or delay > anyio.current_effective_deadline() - anyio.current_time():
            return False
        await anyio.sleep(delay)
        return True


async def _error_code(response: StoreResponse) -> str:
    """The ``Code`` of an S3 error document, which is all of it that is fit to be shown."""
    # Not in bytes: a traceback would show them, and S3 repeats what was signed.
    body = io.BytesIO()
    try:
        while body.tell() < _LONGEST_ERROR and body.write(await response.read()):
            pass
    except TransportError:
        return ""
    match = re.search(_CODE, body.getbuffer())
    return f" {match[1].decode()}" if match else ""
