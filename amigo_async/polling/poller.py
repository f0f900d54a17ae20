"""One poller for all waiters of a client, without a task of its own.

The waiters take turns: whoever finds nobody polling polls for everyone, in pages of run ids, and
hands over when it leaves. When the last one leaves, nothing runs.

One look is not believed: lists lag, records vanish for a moment, services fail in passing. And one
run is the business of that run alone: where a page that has it fails while the service answers
other lists, the page is halved until that run is alone on its page, and the others go on.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol, Unpack

import anyio

from amigo_async.decoding import RecordPage, RunRecord
from amigo_async.errors import (
    AmigoError,
    APIError,
    AuthenticationError,
    DeadlineError,
    DecodeError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    TransportError,
    is_transient,
)
from amigo_async.events import Emit, RequestRetried
from amigo_async.models import Run, UserInfo
from amigo_async.polling.schedule import PAGE_SIZE, Pace, Page, affordable, lay_out
from amigo_async.polling.watch import Watch, Watched
from amigo_async.protocol.requests import RunFilters, check_run_id, is_id
from amigo_async.ratelimit import BudgetState

# How long the service may answer no list at all before the waiters get the cause, in seconds.
PATIENCE: Final = 300.0

# How long the service may answer lists, but fail for one run or no longer show it, before its
# waiters get the cause, in seconds. Lists may lag, but hardly for longer.
_BELIEVED_AFTER: Final = 60.0

# The same for a run that was never seen and not created here, so that nothing but its id speaks for
# it, and for one whose record cannot be read.
_DOUBTED_FOR: Final = 15.0

# A run that is not shown, or cannot be read, is looked at again after this many seconds at most.
_LOOK_AGAIN: Final = 5.0

# Every so many looks a run is asked for in any state, to notice one that is no longer there.
_LOOK_AT_ALL: Final = 10

# New ids wait this long, in seconds, for others to share their first look.
_GATHER: Final = 0.05

# What is due within this share of the interval is looked at together: of one that adapts, and of
# one that was asked for.
_TOGETHER: Final = 0.3
_TOGETHER_FIXED: Final = 0.05

# The statuses with which a service may refuse a query for having too many ids, and for how many
# seconds it is asked for no more than it took.
_TOO_MANY: Final = frozenset({400, 413, 414, 422, 431})
_SIZE_KEPT: Final = 60.0

# Runs that are known to exist, whether or not anybody waits for them; the latest are enough.
_MOST_KNOWN: Final = 10_000

# No run is as new as this: a list of those that are shows whether lists are answered at all.
_AFTER_ALL: Final = datetime(2200, 1, 1, tzinfo=UTC)


class Look(Protocol):
    """Lists a page of runs, once."""

    def __call__(self, **filters: Unpack[RunFilters]) -> Awaitable[RecordPage]:
        """Take the filters of `Runs.list`."""


class Poller:
    """Polls for all waiters.

    Args:
        look: Lists a page of runs.
        budget: A snapshot of the budget of `look`; None before its first use.
        interval: Seconds between two looks for waiters that do not say; None to adapt.
        creator: Who creates runs; None if not known.
        check: Raises where it cannot be waited, in another event loop for instance.
        emit: Hears of looks that failed and are repeated.
    """

    def __init__(
        self,
        look: Look,
        budget: Callable[[], BudgetState | None],
        interval: float | None = None,
        *,
        creator: UserInfo | None = None,
        check: Callable[[], None] = lambda: None,
        emit: Emit = lambda _: None,
    ) -> None:
        self._look = look
        self._budget = budget
        self._check = check
        self._interval = interval
        self._creator = creator
        self._emit = emit
        self._watched: dict[str, Watched] = {}
        self._known: OrderedDict[str, str | None] = OrderedDict()
        self._sleeping: OrderedDict[Watch, None] = OrderedDict()
        self._turn: Watch | None = None
        self._poked = asyncio.Event()
        self._next_due = math.inf
        self._looked_at = -math.inf
        self._down = False
        self._size = PAGE_SIZE
        self._size_until = -math.inf
        self._pace = Pace()

    def expect(self, run_id: str, unit_test_set_id: str | None = None) -> None:
        """Take note that a run exists: the service has named it.

        It may be waited for whatever its id looks like, and lists that do not show it yet are not
        believed as soon.

        Args:
            run_id: The run.
            unit_test_set_id: Its set, by which it is found if lists do not take its id; None if
                that is not known.
        """
        self._known[run_id] = unit_test_set_id or self._known.get(run_id)
        self._known.move_to_end(run_id)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

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
            (self._checked(run_id) for run_id in run_ids),
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
        records = {r: self._watched[r].last for r in run_ids if r in self._watched}
        seen = {run_id: r.run for run_id, r in records.items() if r is not None}
        return {run_id: run for run_id, run in seen.items() if run is not None}

    def last_errors(self, run_ids: Iterable[str]) -> dict[str, AmigoError]:
        """Why the last look at those runs that are still watched told nothing of them."""
        errors = {r: self._watched[r].last_error for r in run_ids if r in self._watched}
        return {run_id: error for run_id, error in errors.items() if error is not None}

    def _checked(self, run_id: str) -> str:
        """`run_id`, if it can be one: the service has sent it, or it looks like one."""
        known = isinstance(run_id, str) and self._known.get(run_id) is not None
        return run_id if known else check_run_id("run_id", run_id)

    def _add(self, watch: Watch) -> None:
        now = anyio.current_time()
        spacing = affordable(1, self._budget())
        if watch.interval is not None:
            spacing = min(spacing, watch.interval)
        due = max(now + _GATHER, self._looked_at + spacing)
        for run_id in tuple(watch.pending):
            watched = self._watched.get(run_id)
            if watched is None:
                watched = self._watched[run_id] = Watched(due, now, self._page_size(now))
            watched.watches.append(watch)
            watched.due = min(watched.due, due)
            if watched.last is not None:
                self._tell(watched, watched.last, [watch], changed=True)
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
        self._looked_at = anyio.current_time()
        looks = _Looks()
        try:
            pages = self._lay_out(self._due())
            if self._down and pages:
                # Nothing was answered last time: one list tells whether that is still so.
                await self._ask_whether_up(looks)
            for page in pages:
                await self._look_at(page, looks)
            for page, error in looks.failures:
                await self._judge(page, error, looks)
        finally:
            self._schedule(looks)

    def _due(self) -> list[str]:
        """The runs to look at now: what is due, what soon will be, and what costs no more.

        A page is filled with the runs that are due next, for it costs one call however many ids
        it has. Runs that began to be watched at different times, or were on smaller pages for a
        while, so come to be looked at together.
        """
        together = self._looked_at + _TOGETHER * affordable(1, self._budget())
        due, later = [], []
        for run_id, watched in self._watched.items():
            fixed = watched.interval
            until = together if fixed is None else self._looked_at + _TOGETHER_FIXED * fixed
            if watched.due <= until:
                due.append(run_id)
            elif fixed is None and watched.failing is None and is_id(run_id):
                later.append((watched.due, run_id))
        free = -len(due) % self._page_size(self._looked_at)
        return [*due, *(run_id for _, run_id in heapq.nsmallest(free, later))]

    def _lay_out(self, due: Iterable[str]) -> list[Page]:
        """The pages to ask for; those with runs that lists fail for come last, apart from others.

        The others show whether the service answers at all.
        """
        groups: dict[tuple[bool, int, bool], tuple[list[str], list[str]]] = {}
        for run_id in due:
            watched = self._watched[run_id]
            by_set = not is_id(run_id) and self._known.get(run_id) is not None
            key = (watched.failing is not None, -watched.page_size, by_set)
            full, completed = groups.setdefault(key, ([], []))
            (full if by_set or _needs_full_look(watched) else completed).append(run_id)
        return [
            page for key in sorted(groups) for page in lay_out(*groups[key], -key[1], by_set=key[2])
        ]

    def _schedule(self, looks: _Looks) -> None:
        """Set when the runs that were looked at are due next."""
        now = anyio.current_time()
        pages = math.ceil(sum(1 / watched.page_size for watched in self._watched.values()))
        oldest = max((now - w.since for w in self._watched.values()), default=0.0)
        adapted = self._pace.after(
            news=looks.news, pages=pages, budget=self._budget(), waited=oldest
        )
        for run_id, pause in looks.looked_at.items():
            watched = self._watched.get(run_id)
            if watched is not None:
                interval = adapted if watched.interval is None else watched.interval
                if watched.lacking is not None:
                    again = max(_LOOK_AGAIN, affordable(pages, self._budget()))
                    interval = min(interval, again)
                watched.looks += 1
                watched.due = now + max(interval, pause)
        self._next_due = min((w.due for w in self._watched.values()), default=math.inf)
        self._report(looks, now)

    def _report(self, looks: _Looks, now: float) -> None:
        """Tell of the pages that failed and will be asked for again."""
        for page, error in looks.failures:
            left = [self._watched[run_id] for run_id in page.ids if run_id in self._watched]
            if left:
                attempts = max(w.failing.count if w.failing else 1 for w in left)
                delay = max(0.0, min(w.due for w in left) - now)
                self._emit(RequestRetried("list", attempts, delay, str(error)))

    async def _look_at(self, page: Page, looks: _Looks) -> None:
        """Look at the runs of a page."""
        ids = [run_id for run_id in page.ids if run_id in self._watched]
        if not ids:
            return
        if looks.down is not None:
            looks.failures.append((page, looks.down))
            return
        try:
            answer = await self._look(**self._filters(page, ids))
        except DeadlineError:
            raise  # the deadline is that of the waiter whose turn it is
        except AmigoError as error:
            looks.failures.append((page, error))
            return
        looks.answered, self._down = True, False
        self._take_in(page, ids, answer, looks)

    def _take_in(self, page: Page, ids: list[str], answer: RecordPage, looks: _Looks) -> None:
        """Take in what a list tells of the runs it was asked for, and what it does not."""
        now = anyio.current_time()
        self._size = max(self._size, len(ids))  # so many were not too many
        watched = {i: w for i in ids if (w := self._watched.get(i)) is not None}
        for each in watched.values():
            each.answered(self._page_size(now))
        missing = [i for i in ids if i not in answer.records and i not in answer.errors]
        # What a page that is cut short does not show is asked for again at once. So is, by itself,
        # what newer runs of other sets may have pushed off the page.
        cut = answer.has_more and len(missing) < len(ids)
        again = set(missing) if cut or (page.by_set and len(ids) > 1) else set()
        looks.looked_at |= {i: 0.0 for i in ids if i not in again}
        for run_id in watched:
            if run_id in answer.records:
                looks.news |= self._saw(answer.records[run_id])
            elif run_id in answer.errors:
                self._lacking(run_id, answer.errors[run_id])
            elif page.full and not again:
                self._lacking(run_id, NotFoundError.of_run(run_id))

    def _filters(self, page: Page, ids: list[str]) -> RunFilters:
        if page.by_set:
            sets = {self._known.get(run_id) for run_id in ids}
            filters: RunFilters = {
                "simulation_unit_test_set_id": [s for s in sets if s is not None],
                "sort_by": "-created_at",
                "limit": PAGE_SIZE,
            }
            if self._creator is not None:
                filters["creator"] = self._creator
            return filters
        filters = {"id": ids, "limit": PAGE_SIZE}
        if not page.full:
            filters["is_completed"] = True
        return filters

    async def _ask_whether_up(self, looks: _Looks) -> None:
        """Find out whether the service answers a list that shows no run."""
        try:
            await self._look(created_after=_AFTER_ALL, limit=1)
        except DeadlineError:
            raise
        except AmigoError as error:
            self._down, looks.down = True, error
        else:
            self._down, looks.answered = False, True

    async def _judge(self, page: Page, error: AmigoError, looks: _Looks) -> None:
        """A page failed: bear it, halve it, or give its error to those who wait."""
        left = [self._watched[run_id] for run_id in page.ids if run_id in self._watched]
        if not left:
            return
        now = anyio.current_time()
        for watched in left:
            watched.failed(error, now)
        of_some = _may_be_of_some(error)
        if (
            of_some
            and not looks.answered
            and looks.down is None
            and _asks_for_evidence(left, error, now)
        ):
            await self._ask_whether_up(looks)
        ids = [run_id for run_id in page.ids if run_id in self._watched]
        if of_some and looks.answered:
            if len(ids) > 1 and (self._watched[ids[0]].failing_often or not is_transient(error)):
                self._halve(ids, error, now)
                return
            patience = _BELIEVED_AFTER if len(ids) == 1 else PATIENCE
            if len(ids) == 1 and _refused_for_size(error):
                self._size_until = -math.inf  # it was not the size
        elif is_transient(error) or isinstance(error, RateLimitError):
            patience = PATIENCE
        else:
            patience = -math.inf  # the service itself says no, and to every list
        pause = error.retry_after if isinstance(error, APIError) else None
        looks.looked_at |= dict.fromkeys(ids, min(pause or 0.0, _BELIEVED_AFTER))
        for run_id in ids:
            failing = self._watched[run_id].failing
            if failing is None or patience < 0 or failing.outlasts(patience, now):
                self._fail(run_id, error)

    def _halve(self, ids: list[str], error: AmigoError, now: float) -> None:
        """Ask for the runs of a page that failed on two pages, at once."""
        size = len(ids) // 2
        for run_id in ids:
            self._watched[run_id].page_size = min(self._watched[run_id].page_size, size)
        if _refused_for_size(error):
            self._size, self._size_until = size, now + _SIZE_KEPT

    def _page_size(self, now: float) -> int:
        """How many runs may be asked for at once."""
        return self._size if now < self._size_until else PAGE_SIZE

    def _saw(self, record: RunRecord) -> bool:
        """Show a run to all who wait for it; True if it has changed."""
        watched = self._watched[record.id]
        changed = not record.same_as(watched.last)
        if not changed and watched.last is not None:
            record = watched.last  # which is decoded already
        watched.last = record
        if record.id not in self._known:
            self.expect(record.id)
        self._tell(watched, record, list(watched.watches), changed=changed)
        return changed

    def _tell(
        self, watched: Watched, record: RunRecord, watches: list[Watch], *, changed: bool
    ) -> None:
        over = [watch for watch in watches if watch.satisfied_by(record)]
        if over and record.error is not None:
            self._lacking(record.id, record.error)
            return
        watched.found()
        for watch in watches:
            if watch in over:
                watch.end(record)
                self._detach(record.id, watch)
            elif changed and watch.wants_progress:
                watch.progress(record)

    def _lacking(self, run_id: str, error: AmigoError) -> None:
        """A list was answered and told nothing of a run: believe it after a while."""
        watched = self._watched.get(run_id)
        if watched is None:
            return
        now = anyio.current_time()
        lacking = watched.lacks(error, now)
        known = isinstance(error, NotFoundError) and run_id in self._known
        if lacking.outlasts(_BELIEVED_AFTER if known else _DOUBTED_FOR, now):
            self._fail(run_id, error)

    def _fail(self, run_id: str, error: AmigoError) -> None:
        watched = self._watched.pop(run_id, None)
        for watch in watched.watches if watched is not None else ():
            own = copy.copy(error)
            own.__cause__ = error.__cause__
            watch.fail(run_id, own)


class _Looks:
    """What came of the looks of one poll.

    Attributes:
        looked_at: The runs that were looked at, each with the least pause before the next look.
        failures: The pages that failed.
        news: Whether any run has changed.
        answered: Whether the service has answered any list.
        down: Why it has not answered the list that shows no run; None where it was not asked for.
    """

    def __init__(self) -> None:
        self.looked_at: dict[str, float] = {}
        self.failures: list[tuple[Page, AmigoError]] = []
        self.news = False
        self.answered = False
        self.down: AmigoError | None = None


def _needs_full_look(watched: Watched) -> bool:
    doubted = watched.last is None or watched.lacking is not None
    return doubted or watched.wants_progress or watched.looks % _LOOK_AT_ALL == 0


def _may_be_of_some(error: AmigoError) -> bool:
    """Whether a list may have failed for some of the runs that were asked for alone."""
    if isinstance(error, AuthenticationError | ForbiddenError | RateLimitError):
        return False
    of_list = isinstance(error, APIError | DecodeError | TransportError) and error.method == "GET"
    return of_list and not (isinstance(error, TransportError) and error.lasting)


def _asks_for_evidence(watched: list[Watched], error: AmigoError, now: float) -> bool:
    """Whether it matters by now if the service answers other lists."""
    if not is_transient(error):
        return True
    failing = watched[0].failing
    if len(watched) > 1:
        return watched[0].failing_often
    return failing is not None and failing.outlasts(_BELIEVED_AFTER, now)


def _refused_for_size(error: AmigoError) -> bool:
    return isinstance(error, APIError) and error.status in _TOO_MANY
