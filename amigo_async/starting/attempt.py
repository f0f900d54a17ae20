"""One start: the runs before it, what was sent, and what was received."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import anyio
from msgspec import Struct
from msgspec.structs import replace

from amigo_async.cancellation import finish
from amigo_async.decoding import decode_created_run
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    DecodeError,
    TransportError,
    is_transient,
)
from amigo_async.models import CreatedRun, UserInfo
from amigo_async.protocol.responses import Response
from amigo_async.server_clock import ServerClock
from amigo_async.starting.fence import SLACK, Fence, Search

# Seconds for which the response to a create is awaited after its caller was cancelled.
GRACE: Final = 10.0


class Recorder(Protocol):
    """Records a start, so that it can be resumed if the process is killed."""

    async def intended(self, fence: Fence | None) -> None:
        """The create is about to be sent; if this raises, it is not sent.

        Args:
            fence: The runs that existed before; None if they could not be listed in time.
        """

    async def refused(self) -> None:
        """The intended create has started nothing, and none is under way."""

    async def started(self, created: CreatedRun) -> None:
        """The id is known. Awaited to the end even if the caller is cancelled."""

    def unresolved(self, error: AmbiguousStartError) -> None:
        """The caller was cancelled, and it is not known whether the create started a run."""


class Intention(Struct, frozen=True):
    """What an earlier process recorded about a create whose outcome is not known.

    Attributes:
        at: When it was about to be sent.
        fence: The runs that existed before; None if not known.
    """

    at: datetime
    fence: Fence | None = None


class StartAttempt:
    """The state of one start.

    Args:
        set_id: The set.
        creator: The user who creates; None if not known.
        clock: The service's clock.
        fence: Lists the runs that exist before the create is sent; None to do without.
        returned: Counts the runs that calls of this process have returned so far.
        recorder: Records the start; None for no record.
        earlier: What an earlier process intended; None if there was none.
        patience: Seconds for which transient failures are retried.

    Attributes:
        sent: Whether the latest create was sent, or may have been.
        has_sent: Whether this process sent any create, or may have.
        last_sent_at: Loop time at which the latest was sent.
        response: Its response; None as long as there is none.
        lost: Why the outcome of a create is not known; None if all outcomes are known.
        sent_at: When the create whose outcome is not known was sent, by the service's clock; None
            if the service's time is not known.
        done: Whether the id is known.
    """

    def __init__(
        self,
        set_id: str,
        *,
        creator: UserInfo | None,
        clock: ServerClock,
        fence: Callable[[str], Awaitable[Fence | None]] | None,
        returned: Callable[[], int],
        recorder: Recorder | None,
        earlier: Intention | None,
        patience: float,
    ) -> None:
        self.set_id = set_id
        self.patience = patience
        self.lost: AmigoError | None = None
        self.sent = False
        self.has_sent = False
        self.last_sent_at = 0.0
        self.response: Response | None = None
        self.done = False
        self._recorder = recorder
        self._take_fence = fence
        self._returned = returned
        self._creator = creator
        self._clock = clock
        self._intended = False
        self._unsent = False
        self._resumed = earlier is not None
        self._fence: Fence | None = None
        self._known = 0
        self._before: list[str] = []
        self.sent_at: datetime | None = None
        if earlier is not None:
            self.lost = AmigoError("an earlier process was stopped before the outcome was known")
            self._intended = True
            self._fence, self.sent_at = earlier.fence, earlier.at

    @property
    def search(self) -> Search:
        """What identifies its run, once the response is lost."""
        return Search(
            self.set_id,
            self._creator,
            self._fence,
            None if self.sent_at is None else self.sent_at - SLACK,
            self._resumed,
            self._known,
        )

    def came_before(self, run_id: str) -> None:
        """Note a run that was in the way: it may be younger than a fence that is used again."""
        self._before.append(run_id)

    def failed(self, error: AmigoError) -> bool:
        """Note a failure; True if the create may be sent again."""
        # A response that cannot be decoded, for whatever reason, may be a success.
        undecoded = isinstance(error, DecodeError)
        retriable = self.sent and (is_transient(error) or undecoded)
        if retriable and (not isinstance(error, TransportError) or error.sent):
            self.lost = error
        return retriable

    @property
    def did_nothing(self) -> bool:
        """Whether the latest create is known to have started nothing."""
        if not self.sent or self._unsent:
            return True
        status = None if self.response is None else self.response.status
        return status is not None and 400 <= status < 500 and status != 408

    async def guard(self, sending: Coroutine[Any, Any, Response]) -> Response:
        """Await the response even if the caller is cancelled, and keep it."""
        if not self._intended:
            try:
                await self._intend()
            except BaseException:
                sending.close()
                raise
        self.sent, self.has_sent, self._unsent = True, True, False
        self.response, self.last_sent_at = None, anyio.current_time()
        return await finish(self._keep(sending), grace=GRACE)

    async def _intend(self) -> None:
        """List and record the runs that exist before the create is sent."""
        fence = None if self._take_fence is None else await self._take_fence(self.set_id)
        if fence is not None and self._before:
            fence = replace(fence, ids=tuple(dict.fromkeys([*fence.ids, *self._before])))
        self._fence, self._known = fence, self._returned()
        # Computed now, so that a clock that stops during suspend does not shift it.
        known = self._clock.is_known
        self.sent_at = datetime.fromtimestamp(self._clock.earliest(), UTC) if known else None
        if self._recorder is not None:
            self._intended = True
            try:
                await self._recorder.intended(self._fence)
            except Exception:
                self._intended = False
                raise
        self._intended = True

    async def _keep(self, sending: Coroutine[Any, Any, Response]) -> Response:
        try:
            self.response = await sending
        except TransportError as error:
            self._unsent = not error.sent
            raise
        return self.response

    async def started(self, created: CreatedRun) -> None:
        """Record that the id is known."""
        if self._recorder is not None:
            await self._recorder.started(created)

    async def void(self) -> None:
        """Record that nothing was started, and nothing that was sent can start anything."""
        if self._intended:
            self._intended = False
            if self._recorder is not None:
                await self._recorder.refused()

    def unresolved(self, error: AmbiguousStartError) -> None:
        """Record that the outcome was not known when the caller had to leave."""
        if self._recorder is not None:
            self._recorder.unresolved(error)

    def decode_created(self) -> CreatedRun | None:
        """The run that the response names; None if it names none."""
        if self.response is None or not 200 <= self.response.status < 300:
            return None
        try:
            return decode_created_run(self.response.body)
        except ValueError:
            return None
