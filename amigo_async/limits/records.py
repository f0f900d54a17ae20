"""What is asked of a place where processes keep records in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

from msgspec import Struct

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
