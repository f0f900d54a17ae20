"""What is asked of a place where processes keep records in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from amigo_async.auth import Tokens
from amigo_async.events import Emit
from amigo_async.ratelimit.registry import Gates

if TYPE_CHECKING:
    from amigo_async.ratelimit.shared import SharedGates


T = TypeVar("T")


class Instant(Struct, frozen=True):
    """A moment on two clocks.

    Attributes:
        now: The time on the clock of the place.
        asked: The loop's time at that moment, or a little before.
    """

    now: float
    asked: float


Step: TypeAlias = Callable[[bytes | None, Instant], tuple[bytes | None, T]]


class UnavailableError(Exception):
    """The place where budgets are shared cannot be reached, or does not do what it should."""


class Records(Protocol):
    """A place where processes keep records in common."""

    @property
    def available(self) -> bool:
        """Whether it is worth asking: False for a while after a failure."""

    async def change(self, key: str, step: Step[T]) -> T:
        """Change a record, as if nobody else did meanwhile.

        Args:
            key: Names the record.
            step: Gives the new record (None: as it was) and a value, from the record (None where
                there is none) and the time; may be called several times, the last one counts.

        Returns:
            The value.

        Raises:
            UnavailableError: If it cannot be done.
        """


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
