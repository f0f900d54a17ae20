"""How often to ask, and how to lay ids out on pages; pure functions of numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from amigo_async.ratelimit import WINDOW, BudgetState

# The most runs a list shows.
PAGE_SIZE: Final = 50

# The share of the list budget that polling may spend; the rest is for calls of the user's.
SHARE: Final = 0.5

# The shortest and the longest interval between two looks at a run, in seconds, as far as the
# budget allows; in between it grows by this factor while nothing happens, up to this share of the
# time that has been waited, so that an end is never seen late by much of what the run took.
SHORTEST: Final = 1.0
LONGEST: Final = 20.0
GROWTH: Final = 1.5
LATENESS: Final = 0.02


class Page(Struct, frozen=True):
    """One list call.

    Attributes:
        ids: The runs to ask for.
        full: Whether to ask for them in any state, or only if they are completed.
        by_set: Whether to ask for the runs of their sets, as lists do not take their ids.
    """

    ids: Sequence[str]
    full: bool
    by_set: bool = False


def lay_out(
    full: Sequence[str], completed: Sequence[str], size: int, *, by_set: bool = False
) -> list[Page]:
    """As few pages of up to `size` ids as possible.

    Args:
        full: Runs to be seen in any state.
        completed: Runs that are of interest only if they are completed; they fill up the last
            page of the others.
        size: Ids a page.
        by_set: Whether to ask for the runs of their sets.
    """
    ids = [*full, *completed]
    return [Page(ids[i : i + size], i < len(full), by_set) for i in range(0, len(ids), size)]


def affordable(pages: int, budget: BudgetState | None) -> float:
    """The interval in seconds at which `pages` calls a look spend no more than the share."""
    if budget is None:
        return 0.0
    interval = pages * WINDOW / (budget.limit * SHARE)
    if budget.remaining is not None and budget.turns_in is not None:
        # Others spend too: share what is left of this window, not what it began with.
        left = max(budget.remaining * SHARE, 1.0)
        interval = max(interval, min(pages * budget.turns_in / left, budget.turns_in))
    return interval


class Pace:
    """The interval between two looks: short after news, longer while nothing happens."""

    def __init__(self) -> None:
        self._interval = SHORTEST

    def after(self, *, news: bool, pages: int, budget: BudgetState | None, waited: float) -> float:
        """Seconds until the next look, a little more or less, so that clients do not align.

        Args:
            news: Whether the last look has shown any.
            pages: Calls a look.
            budget: What their budget is; None if not known.
            waited: How long the oldest wait has gone on, in seconds.
        """
        longest = min(LONGEST, max(SHORTEST, LATENESS * waited))
        self._interval = SHORTEST if news else min(self._interval * GROWTH, longest)
        return max(self._interval, affordable(pages, budget)) * random.uniform(0.95, 1.05)  # noqa: S311  # jitter
