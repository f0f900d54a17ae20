"""One artifact as a source: its current link, shared by all who read, and when to give up."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import backoff

from amigo_async.artifacts.plan import Reading, Verdict, judge, next_request
from amigo_async.artifacts.seam import Policy, Seam, StoreResponse
from amigo_async.errors import ArtifactError, TransportError
from amigo_async.models import ArtifactsLink
from amigo_async.wire.links import UnsafeLinkError

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
