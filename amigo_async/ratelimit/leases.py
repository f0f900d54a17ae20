"""A budget that several processes share through a store; its requests are leases.

Pure arithmetic on top of `Budget`: a process loads the budget, changes it, and stores it again if
no other process has meanwhile. All times are on the clock of the store.
"""

from __future__ import annotations

import random
from typing import Final, Self

import msgspec
from msgspec import Struct

from amigo_async.ratelimit.window import Budget, BudgetSnapshot, RateLimitInfo

# A clock that went back by more seconds than this is another clock: the store failed over, or its
# clock was set. Stored instants mean nothing on it.
_SET_BACK: Final = 1.0

# By how many seconds processes may disagree on the service's clock, which its headers show in
# whole seconds. A larger difference means that the clock was set.
_CLOCK_TOLERANCE: Final = 1.5

# Numbering starts at random, so that a request of a budget that was lost is not taken for another.
_NUMBERS: Final = 2**48


class _StoredBudget(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The stored form.

    Attributes:
        at: When it was stored.
        budget: The budget.
        leases: When the lease of each request in flight expires.
        ahead: Seconds by which the store's clock is ahead of the service's, at most; None if
            that is not known.
    """

    at: float
    budget: BudgetSnapshot
    leases: dict[int, float]
    ahead: float | None


_decoder = msgspec.json.Decoder(_StoredBudget)


class LeasedBudget:
    """A budget whose requests count as lost after a while, because their process may be gone.

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
        """The budget of `record` as of `now`.

        Args:
            record: What `dump` returned. A new budget is made for None, for a record that cannot
                be decoded, and for one of another clock.
            documented: Documented requests per window.
            now: The time.
        """
        stored = _decode(record)
        if stored is None or now < stored.at - _SET_BACK:
            fresh = Budget(documented)
            return cls(Budget.restored(documented, _numbered(fresh.snapshot())), {})
        budget = cls(Budget.restored(documented, stored.budget), dict(stored.leases), stored.ahead)
        budget._expire(now)
        return budget

    def dump(self, now: float) -> bytes:
        """The whole state, for `load`."""
        stored = _StoredBudget(now, self.budget.snapshot(), self._leases, self._ahead)
        return msgspec.json.encode(stored)

    def take(self, now: float, lease: float) -> int:
        """Count a request as sent, and as lost after `lease` seconds; return its number."""
        call = self.budget.take(now)
        self._leases[call] = now + lease
        return call

    def answered(self, now: float, call: int, info: RateLimitInfo | None) -> None:
        """Request `call` was answered; ignored once its lease has expired."""
        if self._end(call):
            self.budget.answered(now, call, info and self._sharpened(info))

    def refused(self, now: float, call: int, pause: float | None) -> None:
        """Request `call` was refused (429); ignored once its lease has expired."""
        if self._end(call):
            self.budget.refused(now, call, pause)
            self._ahead = None  # the request may have been sent too early

    def lost(self, now: float, call: int) -> None:
        """Request `call` got no answer; ignored once its lease has expired."""
        if self._end(call):
            self.budget.lost(now, call)

    def unsent(self, call: int) -> None:
        """Request `call` was not sent; ignored once its lease has expired."""
        if self._end(call):
            self.budget.unsent(call)

    def _sharpened(self, info: RateLimitInfo) -> RateLimitInfo:
        """`info` with the end of the window as the process with the best clock estimate has it."""
        ahead = info.resets_at - info.reset
        if self._ahead is not None and ahead - _CLOCK_TOLERANCE <= self._ahead:
            ahead = min(ahead, self._ahead)
        self._ahead = ahead
        return msgspec.structs.replace(info, resets_at=info.reset + ahead)

    def _end(self, call: int) -> bool:
        return self._leases.pop(call, None) is not None

    def _expire(self, now: float) -> None:
        for call in [call for call, until in self._leases.items() if until <= now]:
            self.lost(now, call)


def _decode(record: bytes | None) -> _StoredBudget | None:
    if record is None:
        return None
    try:
        return _decoder.decode(record)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _numbered(fresh: BudgetSnapshot) -> BudgetSnapshot:
    return msgspec.structs.replace(fresh, calls=random.randrange(_NUMBERS))  # noqa: S311  # not a secret
