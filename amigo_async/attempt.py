"""One attempt to start a run: when it was sent, what came back, and what that means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, TypeAlias

import anyio

from amigo_async.decoding import decode_created_run
from amigo_async.errors import AmigoError, ConflictError, DecodeError, TransportError, may_pass
from amigo_async.models import CreatedRun
from amigo_async.shield import finish
from amigo_async.wire.responses import Response

OnSend: TypeAlias = Callable[[], Awaitable[None]]
OnStart: TypeAlias = Callable[[CreatedRun], Awaitable[None]]

# How long a start that is on the wire may go on after its caller was cancelled, in seconds.
GRACE: Final = 10.0


class Attempt:
    """What is known of one start: when it was first sent, and what came back.

    Args:
        set_id: The set.
        on_send: Awaited before the first request leaves.
        on_start: Awaited with the id.
        meant_since: When an earlier process meant to start it; None if none did.
        patience: For how many seconds failures that may pass are borne.
    """

    def __init__(
        self,
        set_id: str,
        on_send: OnSend | None,
        on_start: OnStart | None,
        meant_since: datetime | None,
        patience: float,
    ) -> None:
        self.set_id = set_id
        self.on_send = on_send
        self.on_start = on_start
        self.meant_since = meant_since
        self.patience = patience
        self.lost: AmigoError | None = None
        if meant_since is not None:
            self.lost = AmigoError("an earlier process was stopped before it could tell")
        self.conflict: ConflictError | None = None
        self.sent_at: float | None = None
        self.on_wire = False
        self.last_sent_at = 0.0
        self.response: Response | None = None

    def failed(self, error: AmigoError) -> bool:
        """Take note of a failure; True if a last look has to tell what it means.

        Raises:
            AmigoError: The failure, where it cannot pass and nothing was lost before.
        """
        if isinstance(error, ConflictError) and self.lost is not None:
            self.conflict = error  # its own doing, or an older run
            return True
        # An answer that cannot be read, for whatever reason, may be that of a run.
        unread = isinstance(error, DecodeError)
        if not self.on_wire or not (may_pass(error) or unread):
            # Not on the wire: the sign in or the gate failed, and has tried enough.
            if self.lost is None:
                raise error
            return True
        if not isinstance(error, TransportError) or error.sent:
            self.lost = error
        return False

    async def guard(self, sending: Coroutine[Any, Any, Response]) -> Response:
        """Await an answer even if the caller is cancelled, and keep it."""
        if self.sent_at is None:
            await self._before_first(sending)
        self.on_wire, self.response, self.last_sent_at = True, None, anyio.current_time()
        return await finish(self._keep(sending), grace=GRACE)

    async def _before_first(self, sending: Coroutine[Any, Any, Response]) -> None:
        if self.on_send is not None:
            try:
                await self.on_send()
            except BaseException:
                sending.close()
                raise
        self.sent_at = anyio.current_time()

    async def _keep(self, sending: Coroutine[Any, Any, Response]) -> Response:
        self.response = await sending
        return self.response


def read_created(response: Response | None) -> CreatedRun | None:
    """The run that an answer names; None if it names none."""
    if response is None or not 200 <= response.status < 300:
        return None
    try:
        return decode_created_run(response.body)
    except ValueError:
        return None
