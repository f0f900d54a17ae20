"""One poller for all waiters of a client, without a task of its own.

The waiters take turns: whoever finds nobody polling polls for all, in pages of run ids, and hands
over when it leaves. When the last waiter leaves, nothing is left running.

A single poll is not believed: lists lag, records vanish for a moment, services fail transiently.
And a failure of one run must not affect others: if a page fails while the service answers other
lists, the page is split until the run that causes it is alone on its page, and the others go on.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import math
from collections.abc import Awaitable, Callable, Iterable
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
    may_be_too_long,
)
from amigo_async.events import Emit, RequestRetried
from amigo_async.models import Run, UserInfo
from amigo_async.polling.schedule import (
    MOST_ENDS,
    PAGE_SIZE,
    SHORTEST,
    Pace,
    Page,
    affordable,
    full_poll_due,
    lay_out,
    slice_of,
)
from amigo_async.polling.waiters import PolledRun, Waiter
from amigo_async.protocol.requests import RunFilters, check_run_id, is_id
from amigo_async.ratelimit import BudgetState

# Seconds for which the service may answer no list at all before the waiters get the error.
PATIENCE: Final = 300.0

# Seconds for which lists may fail for one run, or not show it, while the service answers others,
# before its waiters get the error. Lists may lag, but hardly for longer.
_BELIEVED_AFTER: Final = 60.0

# The same for a run that was never seen and not started here, so that only its id suggests that it
# exists, and for one whose record cannot be decoded.
_DOUBTED_FOR: Final = 15.0

# A run that is missing, or cannot be decoded, is polled again after this many seconds at most.
_RECHECK: Final = 5.0

# Seconds that the first poll of new ids is delayed, so that others can share it.
_GATHER: Final = 0.05

# Runs that are due within this share of the interval are polled together: of an interval that
# adapts, and of one that the waiter asked for.
_TOGETHER: Final = 0.3
_TOGETHER_FIXED: Final = 0.05

# Seconds for which no larger query is sent after one that may have been rejected for its length.
_SIZE_KEPT: Final = 60.0

# Seconds for which a deployment that refused a page of `MOST_ENDS` ids is asked for `PAGE_SIZE`.
_REFUSED_FOR: Final = 600.0

# How many of the runs that are known to exist are remembered, the latest ones.
_MOST_KNOWN: Final = 10_000

# No run is created after this. A list of such runs shows whether lists work at all.
_AFTER_ALL: Final = datetime(2200, 1, 1, tzinfo=UTC)


class ListRecords(Protocol):
    """Lists a page of runs, without retries."""

    def __call__(self, **filters: Unpack[RunFilters]) -> Awaitable[RecordPage]:
        """List the runs that match the filters of `Runs.list`."""


class Poller:
    """Polls for all waiters.

    Args:
        list_records: Lists a page of runs.
        budget: Returns a snapshot of the budget of lists; None before its first use.
        interval: Seconds between two polls for waiters that do not ask for their own; None to
            adapt.
        creator: Who creates runs; None if not known.
        check: Raises if the client cannot be used, in another event loop for instance.
        emit: Receives events of lists that failed and are repeated.
    """

    def __init__(
        self,
        list_records: ListRecords,
        budget: Callable[[], BudgetState | None],
        interval: float | None = None,
        *,
        creator: UserInfo | None = None,
        check: Callable[[], None] = lambda: None,
        emit: Emit = lambda _: None,
    ) -> None:
        self._list = list_records
        self._budget = budget
        self._check = check
        self._interval = interval
        self._creator = creator
        self._emit = emit
        self._runs: dict[str, PolledRun] = {}
        self._known: dict[str, str | None] = {}  # the latest last
        self._sleeping: dict[Waiter, None] = {}
        self._turn: Waiter | None = None
        self._poked = asyncio.Event()
        self._next_due = math.inf
        self._polled_at = -math.inf
        self._down = False
        self._size = PAGE_SIZE
        self._size_until = -math.inf
        self._ends_refused_until = -math.inf
        self._pace = Pace()
        self._adapted = SHORTEST

    def expect(self, run_id: str, unit_test_set_id: str | None = None) -> None:
        """Note that a run exists, because the service has named it.

        It may be waited for whatever its id looks like, and it takes longer until lists that do
        not show it are believed.

        Args:
            run_id: The run.
            unit_test_set_id: Its set, by which it is found if lists do not accept its id; None if
                not known.
        """
        self._known[run_id] = unit_test_set_id or self._known.pop(run_id, None)
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def waiting_for(
        self,
        run_ids: Iterable[str],
        *,
        interval: float | None = None,
        require_artifacts: bool = False,
        wants_progress: bool = False,
    ) -> Waiter:
        """A waiter for some runs, which are polled for as long as its context is open.

        Raises:
            ArgumentError: If an id is malformed.
        """
        self._check()
        return Waiter(
            self,
            (self._checked(run_id) for run_id in run_ids),
            interval=self._interval if interval is None else interval,
            require_artifacts=require_artifacts,
            wants_progress=wants_progress,
        )

    async def next_update(self, waiter: Waiter) -> Run | AmigoError:
        """Wait for a run that ended or progressed, or the error of one.

        Raises:
            DeadlineError: If it was this waiter's turn to poll, and the rate limit does not allow
                it before its deadline.
        """
        try:
            while not waiter.updates:
                if self._turn is None:
                    await self._take_turn(waiter)
                    continue
                # Sleep until there is an update, or until it is this waiter's turn. Written out
                # here because each of the many that sleep would hold the frame of a function.
                waiter.asleep = asyncio.get_running_loop().create_future()
                self._sleeping[waiter] = None
                try:
                    await waiter.asleep
                finally:
                    waiter.asleep = None
                    del self._sleeping[waiter]
        finally:
            self._hand_over()
        return waiter.updates.popleft()

    def last(self, run_ids: Iterable[str]) -> dict[str, Run]:
        """The last states seen of those runs that are still waited for."""
        records = {r: self._runs[r].last for r in run_ids if r in self._runs}
        seen = {run_id: r.run for run_id, r in records.items() if r is not None}
        return {run_id: run for run_id, run in seen.items() if run is not None}

    def last_errors(self, run_ids: Iterable[str]) -> dict[str, AmigoError]:
        """Why the last poll did not show those runs that are still waited for."""
        errors = {r: self._runs[r].last_error for r in run_ids if r in self._runs}
        return {run_id: error for run_id, error in errors.items() if error is not None}

    def _checked(self, run_id: str) -> str:
        """`run_id`, if the service has named it or it looks like an id."""
        known = isinstance(run_id, str) and self._known.get(run_id) is not None
        return run_id if known else check_run_id("run_id", run_id)

    def pending(self, waiter: Waiter) -> list[str]:
        """The runs of a waiter that have neither ended nor failed."""
        runs = ((run_id, self._runs.get(run_id)) for run_id in waiter.run_ids)
        return [run_id for run_id, polled in runs if polled and waiter in polled.waiters]

    def add(self, waiter: Waiter) -> None:
        """Poll the runs of a waiter from now on."""
        now = anyio.current_time()
        spacing = affordable(1, self._budget())
        if waiter.interval is not None:
            spacing = min(spacing, waiter.interval)
        due = max(now + _GATHER, self._polled_at + spacing)
        for run_id in waiter.run_ids:
            polled = self._runs.get(run_id)
            if polled is None:
                polled = self._runs[run_id] = PolledRun(due, now, self._page_size(now))
            polled.attach(waiter)
            polled.due = min(polled.due, due)
            if polled.last is not None:
                self._deliver(polled, polled.last, (waiter,), changed=True)
        self._next_due = min(self._next_due, due)
        self._poked.set()

    def remove(self, waiter: Waiter) -> None:
        """Poll the runs of a waiter no longer, unless others wait for them."""
        for run_id in self.pending(waiter):
            self._detach(run_id, waiter)

    def _detach(self, run_id: str, waiter: Waiter) -> None:
        polled = self._runs[run_id]
        polled.detach(waiter)
        if not polled.waiters:
            del self._runs[run_id]

    async def _take_turn(self, waiter: Waiter) -> None:
        """Poll if something is due; otherwise sleep until then, or until a waiter is added."""
        self._turn = waiter
        self._poked.clear()
        try:
            with anyio.CancelScope(deadline=self._next_due):
                await self._poked.wait()
            if anyio.current_time() >= self._next_due:
                await self._poll()
        finally:
            self._turn = None

    def _hand_over(self) -> None:
        """Let the next waiter poll, because this one leaves."""
        if self._turn is None and self._sleeping:
            next(iter(self._sleeping)).wake()

    async def _poll(self) -> None:
        """Poll everything that is due, and schedule the next polls."""
        self._polled_at = anyio.current_time()
        result = _PollResult()
        try:
            pages = self._lay_out(self._due(), result)
            if self._down and pages:
                # No list was answered last time. One list shows whether that is still so.
                await self._check_service(result)
            for page in pages:
                await self._poll_page(page, result)
            for page, error in result.failures:
                await self._handle_failure(page, error, result)
        finally:
            self._schedule(result)

    def _due(self) -> list[str]:
        """The runs to poll now: those that are due or soon will be, and those that cost no more.

        A page costs one request however many ids it has, so it is filled with the runs that are
        due next. In this way runs whose waits began at different times, or that were on smaller
        pages for a while, end up being polled together.
        """
        together = self._polled_at + _TOGETHER * affordable(1, self._budget())
        due: list[str] = []
        later: list[tuple[float, bool, str]] = []
        full = 0
        for run_id, polled in self._runs.items():
            fixed = polled.interval
            until = together if fixed is None else self._polled_at + _TOGETHER_FIXED * fixed
            if polled.due <= until:
                due.append(run_id)
                full += polled.must_be_full
            elif fixed is None and polled.failing is None and is_id(run_id):
                later.append((polled.due, polled.must_be_full, run_id))
        size = self._page_size(self._polled_at)
        free = -full % size
        if len(due) + len(later) <= size:
            free = len(later)
        elif full < len(due):
            free += -(len(due) - full) % self._ends_size(self._polled_at)
            later = [one for one in later if not one[1]]
        return [*due, *(run_id for *_, run_id in heapq.nsmallest(free, later))]

    def _lay_out(self, due: Iterable[str], result: _PollResult) -> list[Page]:
        """The pages to request, those with failing runs last and apart from the others.

        The others show whether the service answers lists at all.
        """
        now = self._polled_at
        size, ends_size = self._page_size(now), self._ends_size(now)
        alone = len(self._runs) <= size
        most = slice_of(len(self._runs), size)
        groups: dict[tuple[bool, int, bool], tuple[list[str], list[str]]] = {}
        for run_id in due:
            polled = self._runs[run_id]
            by_set = not is_id(run_id) and self._known.get(run_id) is not None
            key = (polled.failing is not None, -polled.page_size, by_set)
            full, others = groups.setdefault(key, ([], []))
            (full if by_set or polled.must_be_full else others).append(run_id)
        pages: list[Page] = []
        for key in sorted(groups):
            failing, group_size, by_set = key[0], -key[1], key[2]
            full, others = groups[key]
            wanted: list[str] = []
            rest: list[str] = []
            for run_id in others:
                polled = self._runs[run_id]
                interval = polled.interval or self._adapted
                wants = polled.wants_progress or full_poll_due(
                    now - polled.full_at, polled.polls, interval, alone=alone
                )
                (wanted if wants else rest).append(run_id)
            for some in (wanted, rest):
                if wanted or full:  # the first ones are requested in any state
                    some.sort(key=lambda run_id: self._runs[run_id].full_at)
            smaller = failing or group_size < size
            laid = lay_out(
                full,
                [*wanted, *rest],
                group_size,
                group_size if smaller else ends_size,
                wanted=min(most, len(wanted)),
                by_set=by_set,
            )
            pages += laid
            result.extra += sum(page.full for page in laid) - math.ceil(len(full) / group_size)
        return pages

    def _schedule(self, result: _PollResult) -> None:
        """Schedule the next poll of the runs that were polled."""
        now = anyio.current_time()
        pages = self._requests(result, now)
        oldest = max((now - polled.since for polled in self._runs.values()), default=0.0)
        adapted = self._adapted = self._pace.after(
            changed=result.changed, pages=pages, budget=self._budget(), waited=oldest
        )
        again = max(_RECHECK, affordable(pages, self._budget()))
        dues: dict[float, float] = {}  # thousands share one number instead of one each
        for run_id, pause in result.polled.items():
            polled = self._runs.get(run_id)
            if polled is not None:
                interval = adapted if polled.interval is None else polled.interval
                if polled.missing is not None:
                    interval = min(interval, again)
                polled.polls += 1
                interval = max(interval, pause)
                polled.due = dues.setdefault(interval, now + interval)
        self._next_due = min((polled.due for polled in self._runs.values()), default=math.inf)
        self._report(result, now)

    def _requests(self, result: _PollResult, now: float) -> int:
        """How many requests a poll of all runs takes."""
        size, ends_size = self._page_size(now), self._ends_size(now)
        pages = result.extra * (1 - size / ends_size)  # their runs need no place elsewhere
        for polled in self._runs.values():
            healthy = polled.failing is None and polled.page_size >= size
            many = healthy and not polled.must_be_full
            pages += 1 / (ends_size if many else polled.page_size)
        return math.ceil(round(pages, 6))  # sums of fractions are inexact

    def _report(self, result: _PollResult, now: float) -> None:
        """Emit an event for each page that failed, and each run of which only its id is known.

        They are requested again. A mistyped id takes a while to be found out.
        """
        for run_id in filter(self._runs.__contains__, result.unlisted):
            delay = max(0.0, self._runs[run_id].due - now)
            reason = f"no list shows run {run_id}; it is looked for during {_DOUBTED_FOR:g} s"
            self._emit(RequestRetried("list", 1, delay, reason))
        for page, error in result.failures:
            left = [self._runs[run_id] for run_id in page.ids if run_id in self._runs]
            if left:
                attempts = max(polled.failing.count if polled.failing else 1 for polled in left)
                delay = max(0.0, min(polled.due for polled in left) - now)
                self._emit(RequestRetried("list", attempts, delay, str(error)))

    async def _poll_page(self, page: Page, result: _PollResult) -> None:
        ids = [run_id for run_id in page.ids if run_id in self._runs]
        if not ids:
            return
        if result.down is not None:
            result.failures.append((page, result.down))
            return
        try:
            answer = await self._list(**self._filters(page, ids))
        except DeadlineError:
            raise  # the deadline of the waiter whose turn it is, not of the others
        except AmigoError as error:
            if len(ids) > PAGE_SIZE and may_be_too_long(error):
                await self._poll_shorter(ids, error, result)
                return
            result.failures.append((page, error))
            return
        result.answered, self._down = True, False
        self._process(page, ids, answer, result)

    async def _poll_shorter(self, ids: list[str], error: AmigoError, result: _PollResult) -> None:
        """Request the runs of a page that was refused for its length on pages of `PAGE_SIZE`."""
        self._ends_refused_until = anyio.current_time() + _REFUSED_FOR
        self._emit(RequestRetried("list", 1, 0.0, str(error)))
        for page in lay_out([], ids, PAGE_SIZE, PAGE_SIZE):
            await self._poll_page(page, result)

    def _process(self, page: Page, ids: list[str], answer: RecordPage, result: _PollResult) -> None:
        """Process what a list shows of the runs that were requested, and what it does not show."""
        now = anyio.current_time()
        self._size = max(self._size, min(len(ids), PAGE_SIZE))  # the service accepts this many
        known = {i: polled for i in ids if (polled := self._runs.get(i)) is not None}
        for polled in known.values():
            polled.list_succeeded(self._page_size(now))
        missing = [i for i in ids if i not in answer.records and i not in answer.errors]
        # Runs that a truncated page does not show are requested again at once. So are runs, down to
        # each by itself, that newer runs of other sets may have pushed off the page. No page is
        # repeated as it was: that might go on for ever.
        cut = answer.has_more and len(missing) < len(ids)
        again = set(missing) if cut or (page.by_set and len(ids) > 1) else set()
        size = len(missing) if cut else max(1, len(ids) // 2)
        if cut or len(again) == len(ids):
            for run_id in again & known.keys():
                known[run_id].page_size = min(known[run_id].page_size, size)
        result.polled |= {i: 0.0 for i in ids if i not in again}
        for run_id, polled in known.items():
            if page.full and run_id not in again:
                polled.full_at, polled.polls = now, 0
            if run_id in answer.records:
                result.changed |= self._shown(answer.records[run_id])
            elif run_id in answer.errors:
                self._missing(run_id, answer.errors[run_id])
            elif page.full and not again:
                if polled.missing is None and run_id not in self._known:
                    result.unlisted.append(run_id)
                self._missing(run_id, NotFoundError.of_run(run_id))

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

    async def _check_service(self, result: _PollResult) -> None:
        """Check whether the service answers a list that shows no run."""
        try:
            await self._list(created_after=_AFTER_ALL, limit=1)
        except DeadlineError:
            raise
        except AmigoError as error:
            self._down, result.down = True, error
        else:
            self._down, result.answered = False, True

    async def _handle_failure(self, page: Page, error: AmigoError, result: _PollResult) -> None:
        """Tolerate the failure of a page, split the page, or pass the error to the waiters."""
        left = [self._runs[run_id] for run_id in page.ids if run_id in self._runs]
        if not left:
            return
        now = anyio.current_time()
        for polled in left:
            polled.list_failed(error, now)
        of_some = _may_concern_some(error)
        if (
            of_some
            and not result.answered
            and result.down is None
            and _needs_evidence(left, error, now)
        ):
            await self._check_service(result)
        ids = [run_id for run_id in page.ids if run_id in self._runs]
        if of_some and result.answered:
            if len(ids) > 1 and (self._runs[ids[0]].failing_often or not is_transient(error)):
                self._split(ids, error, now)
                return
            patience = _BELIEVED_AFTER if len(ids) == 1 else PATIENCE
            if len(ids) == 1 and may_be_too_long(error):
                self._size_until = -math.inf  # the size was not the reason
        elif is_transient(error) or isinstance(error, RateLimitError):
            patience = PATIENCE
        else:
            patience = -math.inf  # the service refuses every list
        pause = error.retry_after if isinstance(error, APIError) else None
        result.polled |= dict.fromkeys(ids, min(pause or 0.0, _BELIEVED_AFTER))
        for run_id in ids:
            failing = self._runs[run_id].failing
            if failing is None or patience < 0 or failing.outlasts(patience, now):
                self._fail(run_id, error)

    def _split(self, ids: list[str], error: AmigoError, now: float) -> None:
        """Request the runs of a page that failed again at once, on two pages."""
        size = len(ids) // 2
        for run_id in ids:
            self._runs[run_id].page_size = min(self._runs[run_id].page_size, size)
        if may_be_too_long(error):
            self._size, self._size_until = size, now + _SIZE_KEPT

    def _ends_size(self, now: float) -> int:
        """How many runs one list of completed runs may be asked about."""
        size = self._page_size(now)
        return size if size < PAGE_SIZE or now < self._ends_refused_until else MOST_ENDS

    def _page_size(self, now: float) -> int:
        """How many runs one list may be asked for."""
        return self._size if now < self._size_until else PAGE_SIZE

    def _shown(self, record: RunRecord) -> bool:
        """Deliver a run that was listed to its waiters; True if it has changed."""
        polled = self._runs[record.id]
        changed = not record.same_as(polled.last)
        if not changed and polled.last is not None:
            record = polled.last  # it is decoded already
        polled.last = record
        if record.id not in self._known:
            self.expect(record.id)
        self._deliver(polled, record, polled.waiters, changed=changed)
        return changed

    def _deliver(
        self, polled: PolledRun, record: RunRecord, waiters: Iterable[Waiter], *, changed: bool
    ) -> None:
        over = [waiter for waiter in waiters if waiter.satisfied_by(record)]
        if over and record.error is not None:
            self._missing(record.id, record.error)
            return
        polled.was_shown()
        for waiter in waiters:
            if waiter in over:
                waiter.end(record)
                self._detach(record.id, waiter)
            elif changed and waiter.wants_progress:
                waiter.progress(record)

    def _missing(self, run_id: str, error: AmigoError) -> None:
        """A successful list did not show a run: believe that after a while."""
        polled = self._runs.get(run_id)
        if polled is None:
            return
        now = anyio.current_time()
        missing = polled.was_missing(error, now)
        known = isinstance(error, NotFoundError) and run_id in self._known
        if missing.outlasts(_BELIEVED_AFTER if known else _DOUBTED_FOR, now):
            self._fail(run_id, error)

    def _fail(self, run_id: str, error: AmigoError) -> None:
        polled = self._runs.pop(run_id, None)
        for waiter in polled.waiters if polled is not None else ():
            own = copy.copy(error)
            own.__cause__ = error.__cause__
            waiter.fail(own)


class _PollResult:
    """The outcome of one poll.

    Attributes:
        polled: The runs that were polled, each with the least pause before its next poll.
        failures: The pages that failed.
        extra: Pages of runs in any state, in addition to those that had to be requested so.
        unlisted: Runs that a list did not show for the first time, and nothing else has either.
        changed: Whether any run has changed.
        answered: Whether the service has answered any list.
        down: Why the service did not answer the list that shows no run; None if it did, or if
            that list was not requested.
    """

    def __init__(self) -> None:
        self.polled: dict[str, float] = {}
        self.failures: list[tuple[Page, AmigoError]] = []
        self.extra = 0
        self.unlisted: list[str] = []
        self.changed = False
        self.answered = False
        self.down: AmigoError | None = None


def _may_concern_some(error: AmigoError) -> bool:
    """Whether a list may have failed because of some of the runs that were requested."""
    if isinstance(error, AuthenticationError | ForbiddenError | RateLimitError):
        return False
    of_list = isinstance(error, APIError | DecodeError | TransportError) and error.method == "GET"
    return of_list and not (isinstance(error, TransportError) and error.lasting)


def _needs_evidence(polled: list[PolledRun], error: AmigoError, now: float) -> bool:
    """Whether it matters by now if the service answers other lists."""
    if not is_transient(error):
        return True
    failing = polled[0].failing
    if len(polled) > 1:
        return polled[0].failing_often
    return failing is not None and failing.outlasts(_BELIEVED_AFTER, now)
