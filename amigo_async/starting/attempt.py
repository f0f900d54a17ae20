"""One start on its way: what was there before it, what was sent, and what came back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import anyio
from msgspec import Struct

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

# How long a start that is on the wire may go on after its caller was cancelled, in seconds.
GRACE: Final = 10.0


class Recorder(Protocol):
    """Keeps a record of a start, so that it can be carried on if the process is killed."""

    async def intended(self, fence: Fence | None) -> None:
        """The create is about to leave; if this raises, it does not.

        Args:
            fence: What was there before; None if that could not be found out in time.
        """

    async def refused(self) -> None:
        """The create that was intended has started nothing, and none is on its way."""

    async def started(self, created: CreatedRun) -> None:
        """The id is known. Awaited to its end even if the caller has been cancelled."""

    def unresolved(self, error: AmbiguousStartError) -> None:
        """The caller was cancelled, and it is not known whether the create started anything."""


class Intention(Struct, frozen=True):
    """What an earlier process has recorded of a create of which nothing else is known.

    Attributes:
        at: When it was about to leave.
        fence: What was there before; None if that is not known.
    """

    at: datetime
    fence: Fence | None = None


class Attempt:
    """What is known of one start.

    Args:
        set_id: The set.
        creator: Who creates; None if not known.
        clock: The service's clock.
        fence: Takes the fence before the create leaves; None where there is no fence.
        recorder: Keeps a record; None for none.
        earlier: What an earlier process intended; None if there was none.
        patience: For how many seconds failures that may pass are borne.

    Attributes:
        sent: Whether the newest create has left, or may have.
        has_sent: Whether any create has left from this process, or may have.
        last_sent_at: When the newest left, in loop time.
        response: Its response; None as long as there is none.
        lost: Why it is not known what became of a create; None if all that is on record is known.
        sent_at: When the create left that nothing else is known of, by the service's clock; None
            if the service does not tell the time.
        done: Whether the id is known.
    """

    def __init__(
        self,
        set_id: str,
        *,
        creator: UserInfo | None,
        clock: ServerClock,
        fence: Callable[[str], Awaitable[Fence | None]] | None,
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
        self._creator = creator
        self._clock = clock
        self._intended = False
        self._unsent = False
        self._resumed = earlier is not None
        self._fence: Fence | None = None
        self.sent_at: datetime | None = None
        if earlier is not None:
            self.lost = AmigoError("an earlier process was stopped before it could tell")
            self._intended = True
            self._fence, self.sent_at = earlier.fence, earlier.at

    @property
    def search(self) -> Search:
        """What its run has to be like, once its answer is lost."""
        return Search(
            self.set_id,
            self._creator,
            self._fence,
            None if self.sent_at is None else self.sent_at - SLACK,
            self._resumed,
        )

    def failed(self, error: AmigoError) -> bool:
        """Take note of a failure; whether the create may be sent again."""
        # An answer that cannot be read, for whatever reason, may be that of a run.
        unread = isinstance(error, DecodeError)
        passing = self.sent and (is_transient(error) or unread)
        if passing and (not isinstance(error, TransportError) or error.sent):
            self.lost = error
        return passing

    @property
    def did_nothing(self) -> bool:
        """Whether the newest create is known to have started nothing."""
        if not self.sent or self._unsent:
            return True
        status = None if self.response is None else self.response.status
        return status is not None and 400 <= status < 500 and status != 408

    async def guard(self, sending: Coroutine[Any, Any, Response]) -> Response:
        """Await an answer even if the caller is cancelled, and keep it."""
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
        """Find out and record what is there, before the create leaves."""
        self._fence = None
        if self._take_fence is not None:
            self._fence = await self._take_fence(self.set_id)
        # A time that is computed now: a clock that stands still in a sleep does not stretch it.
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
        """The id is known."""
        if self._recorder is not None:
            await self._recorder.started(created)

    async def void(self) -> None:
        """Nothing was started, and nothing that was sent can start anything."""
        if self._intended:
            self._intended = False
            if self._recorder is not None:
                await self._recorder.refused()

    def unresolved(self, error: AmbiguousStartError) -> None:
        """It could not be found out before the caller had to leave."""
        if self._recorder is not None:
            self._recorder.unresolved(error)

    def read_created(self) -> CreatedRun | None:
        """The run that the response names; None if it names none."""
        if self.response is None or not 200 <= self.response.status < 300:
            return None
        try:
            return decode_created_run(self.response.body)
        except ValueError:
            return None
