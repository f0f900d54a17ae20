"""One poller for all waiters of a client, without a task of its own.

The waiters take turns: whoever finds nobody polling polls for everyone, in pages of run ids, and
hands over when it leaves. When the last one leaves, nothing runs.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, Unpack

import anyio

from amigo_async.errors import (
    AmigoError,
    APIError,
    DeadlineError,
    NotFoundError,
    RateLimitError,
    may_pass,
)
from amigo_async.limits import BudgetState
from amigo_async.models import Run, RunPage
from amigo_async.polling.pace import Pace, Page, affordable, lay_out
from amigo_async.polling.watch import Watch, Watched
from amigo_async.wire.requests import RunFilters, check_id

# How long looks may fail without a single success before the waiters get the cause, in seconds.
PATIENCE: Final = 300.0

# The most runs a list shows.
PAGE_SIZE: Final = 50

# A run that is not to be seen in this many looks in a row is not there.
_MISSES: Final = 2

# Every so many looks a run is asked for in any state, to notice one that is no longer there.
_LOOK_AT_ALL: Final = 10

# New ids wait this long, in seconds, for others to share their first look.
_GATHER: Final = 0.05

# What is due within this share of the interval is looked at together: of one that adapts, and of
# one that was asked for.
_TOGETHER: Final = 0.3
_TOGETHER_FIXED: Final = 0.05

# The statuses with which a service may refuse a query for having too many ids.
_TOO_MANY: Final = frozenset({400, 413, 414, 422, 431})


class Look(Protocol):
    """Lists a page of runs."""

    def __call__(self, **filters: Unpack[RunFilters]) -> Awaitable[RunPage]:
        """As `Runs.list`."""


class Poller:
    """Polls for all waiters.

    Args:
        look: Lists a page of runs.
        budget: A snapshot of the budget of `look`; None before its first use.
        interval: Seconds between two looks for waiters that do not say; None to adapt.
        check: Raises where it cannot be waited, in another event loop for instance.
    """

    def __init__(
        self,
        look: Look,
        budget: Callable[[], BudgetState | None],
        interval: float | None = None,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._look = look
        self._budget = budget
        self._check = check
        self._interval = interval
        self._watched: dict[str, Watched] = {}
        self._sleeping: OrderedDict[Watch, None] = OrderedDict()
        self._turn: Watch | None = None
        self._poked = asyncio.Event()
        self._next_due = math.inf
        self._looked_at = -math.inf
        self._failing_since: float | None = None
        self._page_size = PAGE_SIZE
        self._pace = Pace()

    @contextmanager
    def watching(
        self,
        run_ids: Iterable[str],
        *,
        interval: float | None = None,
        require_artifacts: bool = False,
        wants_progress: bool = False,
    ) -> Iterator[Watch]:
        """Watch some runs for as long as the context is open.

        Raises:
            ArgumentError: If an id cannot be one.
        """
        self._check()
        watch = Watch(
            (check_id("run_id", run_id) for run_id in run_ids),
            interval=self._interval if interval is None else interval,
            require_artifacts=require_artifacts,
            wants_progress=wants_progress,
        )
        self._add(watch)
        try:
            yield watch
        finally:
            self._drop(watch)

    async def news(self, watch: Watch) -> Run | AmigoError:
        """Wait for the next news of `watch`: a run that ended or progressed, or an error.

        Raises:
            DeadlineError: If it was this waiter's turn to poll, and the budget has no room
                before its deadline.
        """
        try:
            while not watch.news:
                if self._turn is None:
                    await self._take_turn(watch)
                else:
                    await self._sleep(watch)
        finally:
            self._hand_over()
        return watch.news.popleft()

    def last(self, run_ids: Iterable[str]) -> dict[str, Run]:
        """The last states seen of those runs that are still watched."""
        seen = {run_id: self._watched[run_id].last for run_id in run_ids if run_id in self._watched}
        return {run_id: run for run_id, run in seen.items() if run is not None}

    def _add(self, watch: Watch) -> None:
        now = anyio.current_time()
        spacing = affordable(1, self._budget())
        if watch.interval is not None:
            spacing = min(spacing, watch.interval)
        due = max(now + _GATHER, self._looked_at + spacing)
        for run_id in tuple(watch.pending):
            watched = self._watched.setdefault(run_id, Watched(due, now))
            if watched.last is not None and watch.see(watched.last, changed=True):
                continue
            watched.watches.append(watch)
            watched.due = min(watched.due, due)
        self._next_due = min(self._next_due, due)
        self._poked.set()

    def _drop(self, watch: Watch) -> None:
        for run_id in watch.pending:
            self._detach(run_id, watch)

    def _detach(self, run_id: str, watch: Watch) -> None:
        watched = self._watched[run_id]
        watched.watches.remove(watch)
        if not watched.watches:
            del self._watched[run_id]

    async def _take_turn(self, watch: Watch) -> None:
        """Poll if something is due, or else sleep until then or until poked."""
        self._turn = watch
        self._poked.clear()
        try:
            with anyio.CancelScope(deadline=self._next_due):
                await self._poked.wait()
            if anyio.current_time() >= self._next_due:
                await self._poll()
        finally:
            self._turn = None

    async def _sleep(self, watch: Watch) -> None:
        """Sleep until there is news, or until it is this waiter's turn."""
        watch.asleep = asyncio.get_running_loop().create_future()
        self._sleeping[watch] = None
        try:
            await watch.asleep
        finally:
            watch.asleep = None
            del self._sleeping[watch]

    def _hand_over(self) -> None:
        """Let the next waiter poll, now that this one leaves."""
        if self._turn is None and self._sleeping:
            next(iter(self._sleeping)).wake()

    async def _poll(self) -> None:
        """Look at everything that is due, and set when it is due next."""
        now = anyio.current_time()
        together = now + _TOGETHER * affordable(1, self._budget())
        due = [
            run_id
            for run_id, watched in self._watched.items()
            if watched.due
            <= (
                together
                if (interval := watched.interval) is None
                else now + _TOGETHER_FIXED * interval
            )
        ]
        full = [run_id for run_id in due if self._needs_full_look(self._watched[run_id])]
        chosen = set(full)
        pages = lay_out(full, [r for r in due if r not in chosen], self._page_size)
        self._looked_at = now
        looked_at: list[str] = []
        news = False
        try:
            for page in pages:
                news |= await self._look_at(page, looked_at)
        finally:
            self._schedule(looked_at, news=news)

    def _needs_full_look(self, watched: Watched) -> bool:
        return watched.last is None or watched.wants_progress or watched.looks % _LOOK_AT_ALL == 0

    def _schedule(self, looked_at: Iterable[str], *, news: bool) -> None:
        """Set when the runs that were looked at are due next."""
        now = anyio.current_time()
        pages = math.ceil(len(self._watched) / self._page_size)
        oldest = max((now - w.since for w in self._watched.values()), default=0.0)
        adapted = self._pace.after(news=news, pages=pages, budget=self._budget(), waited=oldest)
        for run_id in looked_at:
            watched = self._watched.get(run_id)
            if watched is not None:
                interval = watched.interval
                watched.looks += 1
                watched.due = now + (adapted if interval is None else interval)
        self._next_due = min((w.due for w in self._watched.values()), default=math.inf)

    async def _look_at(self, page: Page, looked_at: list[str]) -> bool:
        """Look at the runs of a page, and say which were looked at; True if there was news."""
        ids = [run_id for run_id in page.ids if run_id in self._watched]
        if not ids:
            return False
        filters: RunFilters = {"id": ids, "limit": PAGE_SIZE}
        if not page.full:
            filters["is_completed"] = True
        try:
            answer = await self._look(**filters)
        except DeadlineError:
            raise  # the deadline is that of the waiter whose turn it is
        except AmigoError as error:
            if _refused_for_size(error) and len(ids) > 1:
                self._page_size = len(ids) // 2
                return False
            looked_at += ids
            self._failed(ids, error)
            return False
        self._failing_since = None
        found = {run.id: run for run in answer.simulation_unit_test_set_runs}
        shown = [run_id for run_id in ids if run_id in found]
        # What a page that is cut short does not show is asked for again at once.
        missing = [run_id for run_id in ids if run_id not in found]
        cut = answer.has_more and bool(shown)
        looked_at += shown if cut else ids
        if page.full and not cut:
            self._missed(missing)
        changes = [self._saw(found[run_id]) for run_id in shown if run_id in self._watched]
        return any(changes)

    def _saw(self, run: Run) -> bool:
        """Show a run to all who wait for it; True if it has changed."""
        watched = self._watched[run.id]
        changed = run != watched.last
        watched.last, watched.misses = run, 0
        for watch in tuple(watched.watches):
            if watch.see(run, changed=changed):
                self._detach(run.id, watch)
        return changed

    def _missed(self, run_ids: Iterable[str]) -> None:
        """Count the misses of runs that should have been there."""
        for run_id in run_ids:
            watched = self._watched.get(run_id)
            if watched is None:
                continue
            watched.misses += 1
            if watched.misses >= _MISSES:
                self._fail(run_id, NotFoundError.of_run(run_id))

    def _failed(self, run_ids: Iterable[str], error: AmigoError) -> None:
        """Bear a failure that may pass, for a while; any other ends the waits concerned."""
        now = anyio.current_time()
        if self._failing_since is None:
            self._failing_since = now
        passing = isinstance(error, RateLimitError) or may_pass(error)
        if passing and now - self._failing_since < PATIENCE:
            return
        for run_id in run_ids:
            self._fail(run_id, error)

    def _fail(self, run_id: str, error: AmigoError) -> None:
        watched = self._watched.pop(run_id, None)
        for watch in watched.watches if watched is not None else ():
            own = copy.copy(error)
            own.__cause__ = error.__cause__
            watch.fail(run_id, own)


def _refused_for_size(error: AmigoError) -> bool:
    # Not where it is the sign in that was refused.
    return isinstance(error, APIError) and error.method == "GET" and error.status in _TOO_MANY
