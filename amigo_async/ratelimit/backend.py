"""The interface of a store in which processes share budgets and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from amigo_async.auth import TokenStore
from amigo_async.events import Emit
from amigo_async.ratelimit.registry import Limiters

if TYPE_CHECKING:  # loaded only where budgets are shared
    from amigo_async.ratelimit.shared import SharedLimiters

T = TypeVar("T")


class ClockReading(Struct, frozen=True):
    """One moment on two clocks.

    Attributes:
        store_time: The time on the clock of the store.
        loop_time: The loop's time at that moment, or a little earlier.
    """

    store_time: float
    loop_time: float


# Computes a new record and a result from the current record and the time; see `RecordStore.change`.
Update: TypeAlias = Callable[[bytes | None, ClockReading], tuple[bytes | None, T]]


class UnavailableError(Exception):
    """The store of the shared budgets does not answer, or answers with an error."""


class RecordStore(Protocol):
    """Stores records that several processes read and change."""

    @property
    def available(self) -> bool:
        """False for a while after a failure, during which the store is not contacted."""

    async def change(self, key: str, update: Update[T]) -> T:
        """Change a record atomically.

        Args:
            key: The key of the record.
            update: Computes the new record (None: leave it unchanged) and a result from the
                current record (None if there is none) and the time. May be called several times;
                the last call counts.

        Returns:
            The result of `update`.

        Raises:
            UnavailableError: If the store did not do it.
        """


class SharingConnection(Protocol):
    """The connection of one client to the store."""

    def limiters(self, limiters: Limiters, name: str, lease: float, /) -> Limiters | SharedLimiters:
        """Limiters whose budgets are kept in this store; `limiters` if budgets are not shared.

        Args:
            limiters: The limiters of the process, which are passed first.
            name: Identifies the owner of the budgets; the same in all processes that share them.
            lease: Seconds after which a request counts as lost if its outcome was not reported.
        """

    def tokens(self, name: str, /) -> TokenStore | None:
        """Storage for the token of `name`; None if tokens are not shared."""

    async def aclose(self) -> None:
        """Close the connection."""


class SharingBackend(Protocol):
    """What ``AmigoClient(shared=...)`` takes; `amigo_async.redis.RedisSharing` is one."""

    def connect(self, emit: Emit, /) -> SharingConnection:
        """A connection for one client; nothing is opened before it is used.

        Args:
            emit: Receives events when the store is lost and when it is back.
        """
