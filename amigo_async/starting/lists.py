"""The lists before creates and after lost ones, each for many sets at once."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple, Protocol, Unpack

import anyio

from amigo_async.errors import AmigoError, DeadlineError
from amigo_async.models import Run, RunPage, UserInfo
from amigo_async.protocol.endpoints import LIST
from amigo_async.protocol.requests import RunFilters
from amigo_async.starting.fence import Fence, Search, fences_of

# The most runs on a page, and the most sets in the query of a list.
_MOST: Final = LIST.page_size

# Seconds for which a fence is used, so that each rate-limit window of creates has its own.
FENCE_AGE: Final = 30.0

# Seconds for which creates wait for a fence; after that, they are sent without one.
FENCE_TIMEOUT: Final = 5.0

# Seconds between two searches for lost creates, and seconds that a first search waits for others.
SEARCH_EVERY: Final = 2.0
_GATHER: Final = 0.05

# The most pages of one search.
_PAGES: Final = 20


class ListRuns(Protocol):
    """Lists a page of runs."""

    async def __call__(self, **filters: Unpack[RunFilters]) -> RunPage:
        """List the runs that match the filters of `Runs.list`."""


class Fences:
    """The fences of a batch, from two lists per rate-limit window of creates, each for 50 sets.

    Args:
        list_runs: Lists a page of runs.
        creator: The user who creates; None if not known.
        pending: Returns the sets that are still to be started, in order.
        on_listed: Called with the newest runs of some sets, the newest first, each time they were
            listed; with none if they could not be.
    """

    def __init__(
        self,
        list_runs: ListRuns,
        creator: UserInfo | None,
        pending: Callable[[], Iterable[str]],
        on_listed: Callable[[Sequence[Run]], object] = lambda _: None,
    ) -> None:
        self._list = list_runs
        self._creator = creator
        self._pending = pending
        self._on_listed = on_listed
        self._lock = asyncio.Lock()
        self._fences: dict[str, Fence] = {}
        self._taken_at = -math.inf
        self._failed_at = -math.inf

    async def before(self, set_id: str) -> Fence | None:
        """The fence of a set whose create is about to be sent; None if there is none in time."""
        async with self._lock:
            now = anyio.current_time()
            if now - self._taken_at >= FENCE_AGE:
                self._fences.clear()
            if set_id not in self._fences and now - self._failed_at >= FENCE_AGE:
                await self._take(set_id)
            return self._fences.get(set_id)

    async def _take(self, set_id: str) -> None:
        now = anyio.current_time()
        others = (other for other in self._pending() if other not in self._fences)
        set_ids = list(dict.fromkeys([set_id, *islice(others, _MOST)]))[:_MOST]
        fences: dict[str, Fence] = {}
        try:
            with anyio.move_on_after(FENCE_TIMEOUT):
                fences = await self._listed(set_ids)
        except AmigoError:
            pass  # creates are sent even if nothing could be listed
        if not fences:
            self._failed_at = now
            self._on_listed(())
            return
        if not self._fences:
            self._taken_at = now
        self._fences |= fences

    async def _listed(self, set_ids: Sequence[str]) -> dict[str, Fence]:
        filters = _newest_of(set_ids, self._creator)
        newest = await self._list(**filters)
        self._on_listed(newest.simulation_unit_test_set_runs)
        runs = newest.simulation_unit_test_set_runs
        if newest.has_more and not _is_newest_first(runs):
            return {}  # what is not on this list may be older or younger than what is
        filters["is_completed"] = False
        unfinished = await self._list(**filters)
        return fences_of(
            set_ids,
            [*runs, *unfinished.simulation_unit_test_set_runs],
            runs if newest.has_more else (),
            unreadable=[*newest.unreadable, *unfinished.unreadable],
        )


def _newest_of(set_ids: Sequence[str], creator: UserInfo | None) -> RunFilters:
    return {
        "simulation_unit_test_set_id": set_ids,
        "creator": creator or (),
        "sort_by": "-created_at",
        "limit": _MOST,
    }


def _is_newest_first(runs: Sequence[Run]) -> bool:
    """Whether the service has sorted a list as it was asked to."""
    return all(one.created_at >= next_.created_at for one, next_ in pairwise(runs))


class Listing(NamedTuple):
    """The runs that were listed for a search.

    Attributes:
        runs: The runs, including those of other sets.
        complete: Whether they go back far enough to include all runs since the creates.
        unreadable: Ids of runs that are listed, and cannot be decoded; of any set.
    """

    runs: Sequence[Run]
    complete: bool
    unreadable: frozenset[str] = frozenset()


class _PendingSearch:
    """A search that waits for its result."""

    __slots__ = ("result", "search")

    def __init__(self, search: Search) -> None:
        self.search = search
        self.result: Listing | AmigoError | None = None


class RunFinder:
    """Lists runs for all searches of a client together, every two seconds.

    The first caller lists for all that wait; there is no task.

    Args:
        list_runs: Lists a page of runs.
        creator: The user who creates; None if not known.
        is_completed: Whether to list runs that are over (True) or not (False); None for both.
    """

    def __init__(
        self, list_runs: ListRuns, creator: UserInfo | None, *, is_completed: bool | None = None
    ) -> None:
        self._list = list_runs
        self._creator = creator
        self._is_completed = is_completed
        self._lock = asyncio.Lock()
        self._pending: dict[_PendingSearch, None] = {}
        self._listed_at = -math.inf

    async def find(self, search: Search) -> Listing:
        """List the runs of a set, with requests that are sent from now on.

        Raises:
            AmigoError: If a request failed.
        """
        pending = _PendingSearch(search)
        self._pending[pending] = None
        try:
            async with self._lock:
                if pending.result is None:
                    ready = self._listed_at + SEARCH_EVERY
                    await anyio.sleep(max(_GATHER, ready - anyio.current_time()))
                    await self._find_all()
        finally:
            del self._pending[pending]
        if isinstance(pending.result, AmigoError):
            own = copy.copy(pending.result)
            raise own from pending.result.__cause__
        assert pending.result is not None  # noqa: S101  # the holder of the lock sets all results
        return pending.result

    async def _find_all(self) -> None:
        pending = list(self._pending)
        self._listed_at = anyio.current_time()
        set_ids = list(dict.fromkeys(each.search.set_id for each in pending))
        for first in range(0, len(set_ids), _MOST):
            chunk = set_ids[first : first + _MOST]
            concerned = [each for each in pending if each.search.set_id in chunk]
            result: Listing | AmigoError
            try:
                result = await self._newest(chunk, [each.search for each in concerned])
            except DeadlineError:
                raise  # the deadline of the caller that lists; the other callers list again
            except AmigoError as error:
                result = error
            for each in concerned:
                each.result = result

    async def _newest(self, set_ids: Sequence[str], searches: Sequence[Search]) -> Listing:
        """The newest runs of some sets, as far back as the searches need."""
        runs: list[Run] = []
        unreadable: set[str] = set()
        filters = _newest_of(set_ids, self._creator)
        filters["is_completed"] = self._is_completed
        complete = False
        for _ in range(_PAGES):
            page = await self._list(**filters)
            rows = page.simulation_unit_test_set_runs
            runs += rows
            unreadable.update(page.unreadable)
            token = page.continuation_token
            complete = (
                (not page.has_more or not rows or token is None)
                # In another order than asked for, the run may be on any page.
                or (
                    _is_newest_first(runs)
                    and all(search.is_answered_by(runs) for search in searches)
                )
            )
            if complete:
                break
            filters["continuation_token"] = token
        return Listing(runs, complete, frozenset(unreadable.difference(run.id for run in runs)))

    async def unreadable_of(self, search: Search) -> list[str]:
        """Ids of runs that a list of this set alone shows, did not show before, and garbles."""
        listing = await self._newest([search.set_id], [search])
        return [run_id for run_id in sorted(listing.unreadable) if search.may_be(run_id)]
