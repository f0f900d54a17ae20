"""How often to poll, and how to lay ids out on pages; pure functions of numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from amigo_async.protocol.endpoints import LIST
from amigo_async.ratelimit import WINDOW, BudgetState

# The most runs that a list shows.
PAGE_SIZE: Final = LIST.page_size

# The most runs that a list of completed runs is asked about: those in progress take no place on its
# page, and 200 ids make a URL of less than 6 kB.
MOST_ENDS: Final = 200

# Seconds within which each run is requested in any state, and the number of polls over which these
# requests are spread: all at once, they would delay the next poll.
FULL_EVERY: Final = 120.0
SLICES: Final = 5

# Polls after which the same is done where it costs no request.
_POLLS_ALONE: Final = 10

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
    full: Sequence[str],
    others: Sequence[str],
    size: int,
    ends_size: int,
    *,
    wanted: int = 0,
    by_set: bool = False,
) -> list[Page]:
    """Lay out ids on as few pages as possible.

    Args:
        full: Runs to request in any state.
        others: Runs to request only if they are completed, but for those that fill the pages of
            runs in any state: the first ones.
        size: Ids per page of runs in any state.
        ends_size: Ids per page of completed runs.
        wanted: How many of `others` to request in any state at least.
        by_set: Whether to request all runs of their sets.
    """
    pages = math.ceil((len(full) + min(wanted, len(others))) / size)
    count = pages * size - len(full)
    ids, ends = [*full, *others[:count]], others[count:]
    return [
        *(Page(ids[i : i + size], True, by_set) for i in range(0, len(ids), size)),
        *(Page(ends[i : i + ends_size], False, by_set) for i in range(0, len(ends), ends_size)),
    ]


def slice_of(runs: int, size: int) -> int:
    """How many of all runs to request in any state with one poll, so that `SLICES` show all."""
    return size * max(1, math.ceil(runs / (size * SLICES)))


def full_poll_due(since: float, polls: int, interval: float, *, alone: bool) -> bool:
    """Whether to request a run in any state, to notice if it no longer exists.

    Args:
        since: Seconds since it was last requested in any state.
        polls: How often it was polled since.
        interval: Seconds between two polls.
        alone: Whether all runs fit on one page, so that this costs no further request.
    """
    return since >= FULL_EVERY - SLICES * interval or (alone and polls >= _POLLS_ALONE)


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
