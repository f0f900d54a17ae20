"""The lists that are asked before and after creates, each for many sets at once."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol, Unpack

import anyio

from amigo_async.errors import AmigoError, DeadlineError
from amigo_async.models import Run, RunPage, UserInfo
from amigo_async.protocol.requests import RunFilters
from amigo_async.starting.fence import Fence, Search, fences_of

# The most rows of a page, and the most sets that fit the query of a list.
_MOST: Final = 50

# Seconds for which a fence serves, so that each window of creates has one of its own.
FENCE_AGE: Final = 30.0

# Seconds for which creates wait for a fence; without one, they are sent all the same.
FENCE_TIMEOUT: Final = 5.0

# Seconds from one look for lost creates to the next, and for which a first one waits for others.
LOOK_EVERY: Final = 2.0
_GATHER: Final = 0.05

# The most pages of one look.
_PAGES: Final = 20


class ListPage(Protocol):
    """Lists a page of runs."""

    async def __call__(self, **filters: Unpack[RunFilters]) -> RunPage:
        """As `Runs.list`."""


class Fences:
    """The fences of a batch: two lists before each window of creates, for up to 50 of its sets.

    Args:
        page: Lists a page of runs.
        creator: Who creates; None if not known.
        pending: The sets that are still to be started, in their order.
    """

    def __init__(
        self, page: ListPage, creator: UserInfo | None, pending: Callable[[], Iterable[str]]
    ) -> None:
        self._page = page
        self._creator = creator
        self._pending = pending
        self._lock = asyncio.Lock()
        self._fences: dict[str, Fence] = {}
        self._taken_at = -math.inf
        self._failed_at = -math.inf

    async def before(self, set_id: str) -> Fence | None:
        """The fence of a set whose create is about to leave; None if there is none in time."""
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
            pass  # what cannot be listed is not known, and keeps nothing from being started
        if not fences:
            self._failed_at = now
            return
        if not self._fences:
            self._taken_at = now
        self._fences |= fences

    async def _listed(self, set_ids: Sequence[str]) -> dict[str, Fence]:
        filters = _newest_of(set_ids, self._creator)
        newest = await self._page(**filters)
        filters["is_completed"] = False
        unfinished = await self._page(**filters)
        runs = newest.simulation_unit_test_set_runs
        return fences_of(
            set_ids,
            [*runs, *unfinished.simulation_unit_test_set_runs],
            runs if newest.has_more else (),
        )


def _newest_of(set_ids: Sequence[str], creator: UserInfo | None) -> RunFilters:
    return {
        "simulation_unit_test_set_id": set_ids,
        "creator": creator or (),
        "sort_by": "-created_at",
        "limit": _MOST,
    }


class Look(NamedTuple):
    """What the lists show of the sets that were looked for.

    Attributes:
        runs: The runs, those of other sets among them.
        whole: Whether they go back far enough to know all that were started since the creates.
    """

    runs: Sequence[Run]
    whole: bool


class _Asking:
    """One start that asks for a look."""

    __slots__ = ("answer", "search")

    def __init__(self, search: Search) -> None:
        self.search = search
        self.answer: Look | AmigoError | None = None


class Lookout:
    """Looks for the runs of all starts of a client that ask for it together, every two seconds.

    Who asks while nobody looks, looks for all who ask; there is no task of its own.

    Args:
        page: Lists a page of runs.
        creator: Who creates; None if not known.
        is_completed: Which runs to look for; None for all.
    """

    def __init__(
        self, page: ListPage, creator: UserInfo | None, *, is_completed: bool | None = None
    ) -> None:
        self._page = page
        self._creator = creator
        self._is_completed = is_completed
        self._lock = asyncio.Lock()
        self._asking: dict[_Asking, None] = {}
        self._looked_at = -math.inf

    async def look(self, search: Search) -> Look:
        """What lists that are asked for from now on show of a set.

        Raises:
            AmigoError: If they cannot be had.
        """
        asking = _Asking(search)
        self._asking[asking] = None
        try:
            async with self._lock:
                if asking.answer is None:
                    ready = self._looked_at + LOOK_EVERY
                    await anyio.sleep(max(_GATHER, ready - anyio.current_time()))
                    await self._look_for_all()
        finally:
            del self._asking[asking]
        if isinstance(asking.answer, AmigoError):
            own = copy.copy(asking.answer)
            raise own from asking.answer.__cause__
        assert asking.answer is not None  # noqa: S101  # whoever has the lock answers all
        return asking.answer

    async def _look_for_all(self) -> None:
        asking = list(self._asking)
        self._looked_at = anyio.current_time()
        set_ids = list(dict.fromkeys(each.search.set_id for each in asking))
        for first in range(0, len(set_ids), _MOST):
            chunk = set_ids[first : first + _MOST]
            concerned = [each for each in asking if each.search.set_id in chunk]
            answer: Look | AmigoError
            try:
                answer = await self._newest(chunk, [each.search for each in concerned])
            except DeadlineError:
                raise  # the deadline is that of the one who looks; the others look again
            except AmigoError as error:
                answer = error
            for each in concerned:
                each.answer = answer

    async def _newest(self, set_ids: Sequence[str], searches: Sequence[Search]) -> Look:
        """The newest runs of some sets, as far back as the searches need."""
        runs: list[Run] = []
        filters = _newest_of(set_ids, self._creator)
        filters["is_completed"] = self._is_completed
        for _ in range(_PAGES):
            page = await self._page(**filters)
            rows = page.simulation_unit_test_set_runs
            runs += rows
            token = page.continuation_token
            if not page.has_more or not rows or token is None:
                return Look(runs, whole=True)
            if all(search.is_answered_by(runs) for search in searches):
                return Look(runs, whole=True)
            filters["continuation_token"] = token
        return Look(runs, whole=False)
