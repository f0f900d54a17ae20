"""What a client asks of a place that several processes share."""

from __future__ import annotations

from typing import Protocol

from amigo_async.auth import Tokens
from amigo_async.events import Emit
from amigo_async.limits import Records


class Shared(Records, Protocol):
    """The place, as one client has it."""

    def tokens(self, name: str) -> Tokens | None:
        """Where the token of `name` is kept; None where tokens are not shared."""

    async def aclose(self) -> None:
        """Leave the place."""


class Sharing(Protocol):
    """What ``AmigoClient(shared=...)`` takes: `amigo_async.redis.RedisSharing` is one."""

    def connect(self, emit: Emit) -> Shared:
        """The place for one client; nothing is opened before it is asked for.

        Args:
            emit: Hears when the place is lost and when it is back.
        """
