"""The artifact of one run: its current link, requests to the store, retry limits, progress."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

import anyio
import backoff
from msgspec import Struct

from amigo_async.artifacts.plan import Interpretation, Reading, judge, next_request
from amigo_async.errors import ArtifactError, TransportError
from amigo_async.events import ArtifactProgress, Event, RequestRetried
from amigo_async.models import ArtifactsLink
from amigo_async.protocol.urls import UnsafeLinkError
from amigo_async.transport.retry import Retries


class StoreResponse(Protocol):
    """A response of the store, open until its context is left.

    Attributes:
        status: The HTTP status.
        headers: The headers, with names in lower case.
    """

    @property
    def status(self) -> int: ...  # noqa: D102 # documented above

    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102 # documented above

    async def read(self) -> bytes:
        """Return the next bytes as they arrive; empty at the end of the body.

        Raises:
            TransportError: If the connection broke, stalled, or ended before the body did.
        """
        ...


# Sends a GET with these headers. Raises TransportError, or UnsafeLinkError for a URL that must
# not be requested.
Open: TypeAlias = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[StoreResponse]]
# Fetches a fresh link to the artifacts of a run. Raises APIError or TransportError.
FetchLink: TypeAlias = Callable[[str], Awaitable[ArtifactsLink]]
# The current time by the server's clock, timezone-aware.
ServerNow: TypeAlias = Callable[[], datetime]
Emit: TypeAlias = Callable[[Event], None]


class Policy(Struct, frozen=True):
    """Retry limits and pauses of the artifact requests.

    The pause after the n-th failure in a row is a random time between 0 and
    ``min(longest_pause, base_pause * 2 ** (n - 1))`` seconds, or what ``Retry-After`` says. A
    single new byte resets the count.

    Attributes:
        attempts: Failures in a row, without a new byte between them, after which to give up.
        base_pause: Upper bound of the first pause, in seconds.
        longest_pause: Upper bound of every pause in seconds, `Retry-After` included.
        link_margin: Seconds before its expiry from which on a link is no longer used.
        missing_timeout: Seconds for which a 404 of the store is retried: the API has just
            issued the link, so a replica or a cache may lag behind.
        busy_timeout: Seconds to wait for another download to the same file while that one
            makes no progress.
    """

    attempts: int = 5
    base_pause: float = 0.5
    longest_pause: float = 15.0
    link_margin: float = 5.0
    missing_timeout: float = 15.0
    busy_timeout: float = 300.0


_CODE = rb"<Code>\s*([A-Za-z]{1,64})\s*</Code>"
_LONGEST_ERROR = 16 * 1024
# Seconds between two requests for an object that is not there yet, plus up to 1 s at random.
_MISSING_PAUSE = 0.5
# Seconds between two progress events. The last event is sent without this pause, so there are
# at most ten in any second.
_PROGRESS_INTERVAL = 0.125


class Source:
    """The artifact of one run.

    Args:
        run_id: The run.
        open: Sends a GET request to the store.
        fetch_link: Fetches a presigned link from the API.
        server_now: Returns the current time by the server's clock.
        emit: Receives the progress events.
        policy: Retry limits and pauses.
    """

    def __init__(
        self,
        run_id: str,
        *,
        open: Open,
        fetch_link: FetchLink,
        server_now: ServerNow,
        emit: Emit,
        policy: Policy,
    ) -> None:
        self.run_id = run_id
        self.policy = policy
        self.emit = emit
        self._open = open
        self._fetch_link = fetch_link
        self._server_now = server_now
        self._link: ArtifactsLink | None = None
        self._lock = asyncio.Lock()

    async def link(self) -> ArtifactsLink:
        """Return a link that stays valid for a few seconds at least; concurrent callers share it.

        Raises:
            APIError: If the API refuses, e.g. `ArtifactsNotReadyError`.
            TransportError: If the API cannot be reached.
        """
        async with self._lock:
            if self._link is None or self._expires(self._link):
                self._link = await self._fetch_link(self.run_id)
            return self._link

    def refuse(self, link: ArtifactsLink) -> None:
        """Stop using `link`. A newer one fetched by another reader is kept."""
        if self._link is link:
            self._link = None

    async def ask(
        self, link: ArtifactsLink, reading: Reading, stack: AsyncExitStack
    ) -> tuple[Interpretation, StoreResponse, str]:
        """Send the next request of `reading`; `stack` keeps the response open.

        Returns:
            What the response means, the response itself, and the store's error code with a
            leading space ("" without one).

        Raises:
            TransportError: If the store did not answer.
            ArtifactError: If the link must not be followed.
        """
        try:
            opened = self._open(link.presigned_url, next_request(reading))
            response = await stack.enter_async_context(opened)
        except UnsafeLinkError as error:
            raise self.error(str(error)) from error
        verdict = judge(reading, response.status, response.headers)
        code = await _error_code(response) if response.status >= 300 else ""
        return verdict, response, code

    def error(
        self, reason: str, kind: type[ArtifactError] = ArtifactError, *, lasting: bool = True
    ) -> ArtifactError:
        """Return an error about this artifact, to be raised by the caller."""
        return kind(reason, run_id=self.run_id, lasting=lasting)

    def _expires(self, link: ArtifactsLink) -> bool:
        margin = timedelta(seconds=self.policy.link_margin)
        return self._server_now() + margin >= link.url_expires_at


class TransferProgress:
    """Counts the received bytes of one artifact and emits `ArtifactProgress` events.

    Args:
        run_id: The run.
        emit: Receives the events.
        received: Bytes that were received by an earlier download.

    Attributes:
        total: Size of the artifact in bytes; None while it is unknown.
        received: Bytes received so far.
    """

    def __init__(self, run_id: str, emit: Emit, received: int = 0) -> None:
        self.total: int | None = None
        self.received = received
        self._run_id = run_id
        self._emit = emit
        self._last_emitted: int | None = None
        self._next = 0.0

    def add(self, count: int) -> None:
        """Count `count` more bytes; emit an event unless one was emitted just before."""
        self.received += count
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + _PROGRESS_INTERVAL
            self._emit_count()

    def finish(self) -> None:
        """Emit the final count, unless the last event had it."""
        if self._last_emitted != self.received:
            self._emit_count()

    def _emit_count(self) -> None:
        self._last_emitted = self.received
        self._emit(ArtifactProgress(self._run_id, self.received, self.total))


class StoreRetries:
    """Counts consecutive failures and pauses between attempts.

    Args:
        policy: The limits.
        emit: Receives an event for each request that will be repeated.
    """

    def __init__(self, policy: Policy, emit: Emit) -> None:
        self._policy = policy
        self._emit = emit
        self._missing = 0
        self._retries = self._new_retries()
        self._missing_since: float | None = None

    def progress(self) -> None:
        """Reset the count: new bytes have been received."""
        if self._retries.failures:
            self._retries = self._new_retries()
        self._missing, self._missing_since = 0, None

    async def wait_for_object(self, reason: str) -> bool:
        """Wait before the next request for an object that the store does not have (yet).

        Args:
            reason: What the store answered.

        Returns:
            False, without waiting, if the object has been missing for too long or the wait would
            outlast the deadline of the surrounding cancel scopes.
        """
        now = anyio.current_time()
        if self._missing_since is None:
            self._missing_since = now
        end = self._missing_since + self._policy.missing_timeout
        delay = backoff.random_jitter(_MISSING_PAUSE)
        if now + delay > min(end, anyio.current_effective_deadline()):
            return False
        self._missing += 1
        self._emit(RequestRetried("store", self._missing, delay, reason))
        await anyio.sleep(delay)
        return True

    def again(self, reason: str) -> None:
        """Report a request that is repeated at once, with a fresh link or without a range."""
        self._emit(RequestRetried("store", 1, 0.0, reason))

    async def pause(self, reason: str, after: float | None = None) -> bool:
        """Wait before the next attempt, for `after` seconds if given.

        Args:
            reason: Why the last attempt failed.
            after: Seconds that the store asks for; None if it does not ask.

        Returns:
            False, without waiting, after too many failures or if the wait would outlast the
            deadline of the surrounding cancel scopes.
        """
        longest = self._policy.longest_pause
        delay = self._retries.next_delay(None if after is None else min(after, longest))
        if delay is None:
            return False
        self._emit(RequestRetried("store", self._retries.failures, delay, reason))
        await anyio.sleep(delay)
        return True

    def _new_retries(self) -> Retries:
        policy = self._policy
        return Retries(policy.attempts, base=policy.base_pause, cap=policy.longest_pause)


async def _error_code(response: StoreResponse) -> str:
    """Return the ``Code`` of an S3 error document; the rest of it must not be shown."""
    # A BytesIO, not bytes: tracebacks with locals would show the document, in which S3 repeats
    # the string that was signed.
    body = io.BytesIO()
    try:
        while body.tell() < _LONGEST_ERROR and body.write(await response.read()):
            pass
    except TransportError:
        return ""
    match = re.search(_CODE, body.getbuffer())
    return f" {match[1].decode()}" if match else ""
