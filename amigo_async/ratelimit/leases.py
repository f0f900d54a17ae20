"""A budget that several processes share: it is kept elsewhere, and its calls are leases.

Pure arithmetic, like `Budget`, of which it is made: a process loads it, takes a step, and stores
it if nobody else has meanwhile. All times are on the clock of the store.
"""

from __future__ import annotations

import random
from typing import Final, Self

import msgspec
from msgspec import Struct

from amigo_async.ratelimit.window import Budget, Snapshot, Told

# A clock that went back by more than this, in seconds, is another clock: of a store that took
# over, or that was set. Instants on the old one mean nothing on it.
_SET_BACK: Final = 1.0

# By how much, in seconds, processes may differ about the service's clock, of which they are told
# whole seconds. If it is more, the clock was set.
_VAGUE: Final = 1.5

# Calls are numbered from anywhere, so that one of a budget that was lost is not taken for another.
_NUMBERS: Final = 2**48


class _Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept.

    Attributes:
        at: When it was.
        budget: The budget.
        leases: Until when each call in flight is waited for.
        ahead: By how much this clock is ahead of the service's, at the most; None if not known.
    """

    at: float
    budget: Snapshot
    leases: dict[int, float]
    ahead: float | None


_decoder = msgspec.json.Decoder(_Record)


class LeasedBudget:
    """A budget whose calls are given up after a while: the process may be gone that took them.

    Attributes:
        budget: The budget.
    """

    def __init__(
        self, budget: Budget, leases: dict[int, float], ahead: float | None = None
    ) -> None:
        self.budget = budget
        self._leases = leases
        self._ahead = ahead

    @classmethod
    def load(cls, record: bytes | None, documented: int, now: float) -> Self:
        """The budget of `record`, as it is by now.

        Args:
            record: What `dump` gave; None for a new budget, as is one that cannot be read or is
                of another clock.
            documented: Calls a window as documented.
            now: The time.
        """
        kept = _read(record)
        if kept is None or now < kept.at - _SET_BACK:
            fresh = Budget(documented)
            return cls(Budget.restored(documented, _numbered(fresh.snapshot())), {})
        budget = cls(Budget.restored(documented, kept.budget), dict(kept.leases), kept.ahead)
        budget._give_up(now)
        return budget

    def dump(self, now: float) -> bytes:
        """Everything, to be loaded again."""
        return msgspec.json.encode(_Record(now, self.budget.snapshot(), self._leases, self._ahead))

    def take(self, now: float, lease: float) -> int:
        """Let a call go, to be given up for lost after `lease` seconds; its number."""
        call = self.budget.take(now)
        self._leases[call] = now + lease
        return call

    def answered(self, now: float, call: int, told: Told | None) -> None:
        """As `Budget.answered`; nothing for a call that was given up."""
        if self._ends(call):
            self.budget.answered(now, call, told and self._sharpened(told))

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """As `Budget.refused`; nothing for a call that was given up."""
        if self._ends(call):
            self.budget.refused(now, call, pause)
            self._ahead = None  # it was too early, or may have been

    def lost(self, now: float, call: int) -> None:
        """As `Budget.lost`; nothing for a call that was given up."""
        if self._ends(call):
            self.budget.lost(now, call)

    def returned(self, call: int) -> None:
        """As `Budget.returned`; nothing for a call that was given up."""
        if self._ends(call):
            self.budget.returned(call)

    def _sharpened(self, told: Told) -> Told:
        """`told`, with the turn as whoever knows the service's clock best has it."""
        ahead = told.turns_at - told.reset
        if self._ahead is not None and ahead - _VAGUE <= self._ahead:
            ahead = min(ahead, self._ahead)
        self._ahead = ahead
        return msgspec.structs.replace(told, turns_at=told.reset + ahead)

    def _ends(self, call: int) -> bool:
        return self._leases.pop(call, None) is not None

    def _give_up(self, now: float) -> None:
        for call in [call for call, until in self._leases.items() if until <= now]:
            self.lost(now, call)


def _read(record: bytes | None) -> _Record | None:
    if record is None:
        return None
    try:
        return _decoder.decode(record)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _numbered(fresh: Snapshot) -> Snapshot:
    return msgspec.structs.replace(fresh, calls=random.randrange(_NUMBERS))  # noqa: S311  # not a secret
