"""How often to poll, and how to lay ids out on pages; pure functions of numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from amigo_async.ratelimit import WINDOW, BudgetState

# The most runs that a list shows.
PAGE_SIZE: Final = 50

# The share of the rate limit of lists that polling may use; the rest is for the user's own calls.
SHARE: Final = 0.5

# The shortest and the longest interval between two polls of a run in seconds, if the rate limit
# allows them. While nothing changes, the interval grows by GROWTH, but only to the share LATENESS
# of the time waited so far, so that the end of a run is never noticed late by more than that.
SHORTEST: Final = 1.0
LONGEST: Final = 20.0
GROWTH: Final = 1.5
LATENESS: Final = 0.02


class Page(Struct, frozen=True):
    """One list request.

    Attributes:
        ids: The runs to request.
        full: Whether to request them in any state, or only if they are completed.
        by_set: Whether to request all runs of their sets, because lists do not accept their ids.
    """

    ids: Sequence[str]
    full: bool
    by_set: bool = False


def lay_out(
    full: Sequence[str], completed: Sequence[str], size: int, *, by_set: bool = False
) -> list[Page]:
    """As few pages of up to `size` ids as possible.

    Args:
        full: Runs to request in any state.
        completed: Runs to request only if they are completed; they fill the last page of `full`.
        size: Ids per page.
        by_set: Whether to request all runs of their sets.
    """
    ids = [*full, *completed]
    return [Page(ids[i : i + size], i < len(full), by_set) for i in range(0, len(ids), size)]


def affordable(pages: int, budget: BudgetState | None) -> float:
    """The interval in seconds at which polls of `pages` requests use no more than `SHARE`."""
    if budget is None:
        return 0.0
    interval = pages * WINDOW / (budget.limit * SHARE)
    if budget.remaining is not None and budget.turns_in is not None:
        # Others use the same quota, so share what is left of this window, not the whole.
        left = max(budget.remaining * SHARE, 1.0)
        interval = max(interval, min(pages * budget.turns_in / left, budget.turns_in))
    return interval


class Pace:
    """The interval between two polls: short after a change, longer while nothing changes."""

    def __init__(self) -> None:
        self._interval = SHORTEST

    def after(
        self, *, changed: bool, pages: int, budget: BudgetState | None, waited: float
    ) -> float:
        """Seconds until the next poll, with some jitter so that clients do not align.

        Args:
            changed: Whether the last poll showed a change.
            pages: Requests per poll.
            budget: Their budget; None if not known.
            waited: Seconds since the oldest wait began.
        """
        longest = min(LONGEST, max(SHORTEST, LATENESS * waited))
        self._interval = SHORTEST if changed else min(self._interval * GROWTH, longest)
        return max(self._interval, affordable(pages, budget)) * random.uniform(0.95, 1.05)  # noqa: S311  # jitter
