"""Which run a create has started, judged by what the lists show; pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from amigo_async.models import Run, UserInfo

# Of the runs that were started while nobody looked, the first one belongs to the create that was
# lost if the next one came at least this much later; otherwise the two cannot be told apart.
APART: Final = timedelta(minutes=1)

# How long before a create left, by the service's clock, a run may have been created that is
# possibly its own: clocks of the service differ, and fractions of seconds are cut off.
SLACK: Final = timedelta(minutes=5)


class Fence(Struct, frozen=True):
    """The runs of a set that were there before a create.

    Attributes:
        ids: The runs that were listed.
        after: When the oldest run on a list that was cut short was created: older runs may have
            been there without being listed. None if all runs were listed.
    """

    ids: tuple[str, ...] = ()
    after: datetime | None = None

    def is_fresh(self, run: Run) -> bool:
        """Whether `run` was not there before the create."""
        return run.id not in self.ids and (self.after is None or run.created_at > self.after)


def fences_of(
    set_ids: Iterable[str], runs: Sequence[Run], cut: Sequence[Run] = ()
) -> dict[str, Fence]:
    """The fences of some sets.

    Args:
        set_ids: The sets.
        runs: All runs that the lists of these sets showed.
        cut: Those of them on a list of the newest runs that had more to show; empty if it did not.
    """
    after = min((run.created_at for run in cut), default=None)
    ids: dict[str, dict[str, None]] = {set_id: {} for set_id in set_ids}
    for run in runs:
        ids.get(run.simulation_unit_test_set_id, {})[run.id] = None
    return {set_id: Fence(tuple(found), after) for set_id, found in ids.items()}


class Search(Struct, frozen=True, eq=False):
    """What is known about a create whose answer was lost.

    Attributes:
        set_id: Its set.
        creator: Who sent it; None if the user is not known.
        fence: What was there before; None if that is not known.
        since: Without a fence, when a finished run that may be its own was created at the
            earliest; None if the service does not tell the time.
        resumed: Whether it was sent by an earlier process, so that others may have started runs
            of the set since.
    """

    set_id: str
    creator: UserInfo | None
    fence: Fence | None = None
    since: datetime | None = None
    resumed: bool = False

    def concerns(self, run: Run) -> bool:
        """Whether `run` is of this set and, as far as that is known, of this user."""
        return run.simulation_unit_test_set_id == self.set_id and (
            self.creator is None or run.creator == self.creator
        )

    def is_answered_by(self, newest: Sequence[Run]) -> bool:
        """Whether `newest`, sorted from the newest on, goes back far enough to decide."""
        if self.fence is None:
            return True
        return any(run.id in self.fence.ids for run in newest) or (
            self.fence.after is not None and newest[-1].created_at <= self.fence.after
        )


class Take(NamedTuple):
    """This run answers the create."""

    run: Run


class Ambiguous(NamedTuple):
    """One of these runs may be that of the create, and nothing tells which."""

    runs: tuple[Run, ...]


Choice: TypeAlias = Take | Ambiguous | None


def choose(
    search: Search,
    runs: Iterable[Run],
    *,
    others: Collection[str] = (),
    whole: bool = True,
    final: bool = False,
) -> Choice:
    """Decide which of the listed runs a create has started.

    Args:
        search: What is known about the create.
        runs: The runs that are listed, in any order.
        others: Runs that are known to be those of other calls.
        whole: Whether all runs since the create are listed.
        final: Whether nothing more is waited for: a run that is listed later cannot change it.

    Returns:
        None if nothing is listed that may be its run.
    """
    found = [run for run in runs if search.concerns(run) and run.id not in others]
    found.sort(key=lambda run: (run.created_at, run.id))
    if search.fence is None:
        return _without_fence(search, found, final=final)
    fresh = tuple(filter(search.fence.is_fresh, found))
    if not fresh:
        return None
    if search.creator is None:
        return Ambiguous(fresh)  # they may be another user's
    alone = whole and (len(fresh) == 1 or fresh[1].created_at - fresh[0].created_at >= APART)
    return Take(fresh[0]) if alone or not search.resumed else Ambiguous(fresh)


def _without_fence(search: Search, found: Sequence[Run], *, final: bool) -> Choice:
    """A user has one unfinished run of a set; a finished one may be from before the create."""
    unfinished = [run for run in found if not run.is_completed]
    finished = tuple(
        run
        for run in found
        if run.is_completed and (search.since is None or run.created_at >= search.since)
    )
    known = search.creator is not None
    if unfinished and known and not (finished and search.resumed):
        return Take(unfinished[-1])
    # An unfinished run that is listed only later would decide it.
    candidates = (*finished, *unfinished)
    return Ambiguous(candidates) if candidates and final else None
