"""What a client asks of a place that several processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from amigo_async.auth import Tokens
from amigo_async.events import Emit
from amigo_async.limits import Gates, Records

if TYPE_CHECKING:  # whoever shares nothing does not load it
    from amigo_async.limits.shared import SharedGates


class Shared(Records, Protocol):
    """The place, as one client has it."""

    def gates(self, gates: Gates, name: str, lease: float) -> SharedGates:
        """Gates of which the budgets are kept here.

        Args:
            gates: The gates of the process, which come first.
            name: Whose budgets they are: the same for all who share them.
            lease: After how many seconds a call is taken for lost if nothing is told of it.
        """

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
