"""Which run a create has started, judged by the lists; pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from amigo_async.models import Run, UserInfo

# Of several runs that were started unobserved, the first belongs to the lost create if the next one
# was started at least this much later. Otherwise the two cannot be told apart.
APART: Final = timedelta(minutes=1)

# A run of a create may appear to be older than the create by this much, by the service's clock:
# clocks within the service differ, and fractions of seconds are cut off.
SLACK: Final = timedelta(minutes=5)


class Fence(Struct, frozen=True):
    """The runs of a set that existed before a create.

    Attributes:
        ids: The runs that were listed.
        after: When the oldest run on a truncated list was created: older runs may have existed
            without being listed. None if all runs were listed.
    """

    ids: tuple[str, ...] = ()
    after: datetime | None = None

    def is_fresh(self, run: Run) -> bool:
        """Whether `run` did not exist before the create."""
        return run.id not in self.ids and (self.after is None or run.created_at > self.after)


def fences_of(
    set_ids: Iterable[str],
    runs: Sequence[Run],
    truncated: Sequence[Run] = (),
    *,
    unreadable: Iterable[str] = (),
) -> dict[str, Fence]:
    """The fences of several sets.

    Args:
        set_ids: The sets.
        runs: All runs that were listed for these sets.
        truncated: Those of them on a truncated list of the newest runs; empty if it was complete.
        unreadable: Ids of further runs that were listed, and of which no more can be decoded; on
            the fences of all sets, as their own set is not known.
    """
    after = min((run.created_at for run in truncated), default=None)
    ids = {set_id: dict.fromkeys(unreadable) for set_id in set_ids}
    for run in runs:
        ids.get(run.simulation_unit_test_set_id, {})[run.id] = None
    return {set_id: Fence(tuple(found), after) for set_id, found in ids.items()}


class Search(Struct, frozen=True, eq=False):
    """What is known about a create whose response was lost.

    Attributes:
        set_id: Its set.
        creator: The user who sent it; None if not known.
        fence: The runs that existed before; None if not known.
        since: Without a fence, the earliest time at which a finished run that may be its own was
            created; None if the service's time is not known.
        resumed: Whether an earlier process sent it, so that others may have started runs of the
            set since.
        known: How many runs calls of this process had returned when it was about to be sent; see
            `ReturnedRuns`.
    """

    set_id: str
    creator: UserInfo | None
    fence: Fence | None = None
    since: datetime | None = None
    resumed: bool = False
    known: int = 0

    def concerns(self, run: Run) -> bool:
        """Whether `run` is of this set and, if known, of this user."""
        return run.simulation_unit_test_set_id == self.set_id and (
            self.creator is None or run.creator == self.creator
        )

    def may_be(self, run_id: str) -> bool:
        """Whether a listed run of which only the id is known may have been started since."""
        has_id = not run_id.startswith("[")  # else its position on the page is in the place of it
        return has_id and (self.fence is None or run_id not in self.fence.ids)

    def is_answered_by(self, newest: Sequence[Run]) -> bool:
        """Whether `newest`, sorted from newest to oldest, goes back far enough to decide."""
        if self.fence is None:
            return True
        return any(run.id in self.fence.ids for run in newest) or (
            self.fence.after is not None and newest[-1].created_at <= self.fence.after
        )


class Take(NamedTuple):
    """This is the run of the create."""

    run: Run


class Ambiguous(NamedTuple):
    """Any of these may be the run of the create."""

    runs: tuple[Run, ...]


Choice: TypeAlias = Take | Ambiguous | None


def choose(
    search: Search,
    runs: Iterable[Run],
    *,
    others: Collection[str] = (),
    complete: bool = True,
    final: bool = False,
) -> Choice:
    """Decide which of the listed runs a lost create has started.

    Args:
        search: What is known about the create.
        runs: The runs that are listed, in any order.
        others: Runs that are known to belong to other calls.
        complete: Whether all runs since the create are listed.
        final: Whether to decide now, without waiting for runs that are listed later.

    Returns:
        None if no listed run may be its own.
    """
    found = [run for run in runs if search.concerns(run) and run.id not in others]
    found.sort(key=lambda run: (run.created_at, run.id))
    if search.fence is None:
        return _without_fence(search, found, final=final)
    fresh = tuple(filter(search.fence.is_fresh, found))
    if not fresh:
        return None
    if search.creator is None:
        return Ambiguous(fresh)  # any of them may be another user's
    alone = complete and (len(fresh) == 1 or fresh[1].created_at - fresh[0].created_at >= APART)
    return Take(fresh[0]) if alone or not search.resumed else Ambiguous(fresh)


def _without_fence(search: Search, found: Sequence[Run], *, final: bool) -> Choice:
    """A user has at most one unfinished run of a set; a finished one may predate the create."""
    unfinished = [run for run in found if not run.is_completed]
    finished = tuple(
        run
        for run in found
        if run.is_completed and (search.since is None or run.created_at >= search.since)
    )
    known = search.creator is not None
    if unfinished and known and not (finished and search.resumed):
        return Take(unfinished[-1])
    # Wait: an unfinished run that is listed later would decide it.
    candidates = (*finished, *unfinished)
    return Ambiguous(candidates) if candidates and final else None
