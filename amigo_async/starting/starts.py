"""Start a run so that it is never started twice and its id is never lost.

A create takes no idempotency key, and its answer may be lost before the work, after it or in the
middle. The API has a rule that helps: a user has at most one unfinished run of a set, and a second
create gets 409. It does not help once the run is over, and lists may show a run late. Clocks decide
nothing here: ``Date`` and ``created_at`` may come from two of them, and the loop's stands still
while a machine sleeps. So two questions are kept apart:

*Fresh:* was the run there before we asked? If not, its result answers. Before a create leaves, a
batch lists what is there of its set: the *fence*. A run that is listed later and is not on the
fence is fresh. A single create does without the two lists that this costs: the unfinished run of
the set is taken, and a finished one of the last minutes can only be named as a candidate.

*Ours:* did we start it? Only the id in a 201 says so. Whoever else acts for this user may have
started a fresh run at the same moment, so a run that was found is `attached`: its result is given,
but it is never cancelled. Nor does a call of this process that attached to a run, or took it for
its own lost one, keep another lost create from taking it: it may be the run of either, and both get
its result. Only runs that a 201 named, or that were known before the create was sent, are left out.

After a loss, runs are listed every two seconds, once for all lost creates of a client. The earliest
fresh run is taken, as a later one can only be another's. If no list within `SEARCH_TIMEOUT` shows
one, nothing was started, or it will be refused as a second one: the create is sent again. A 409
then says that something is there which the lists do not show yet, and runs are listed for as long
again. What still cannot be decided is an `AmbiguousStartError`, and nothing is claimed.

Losing an answer thus costs half a minute at worst; only a run that is over and still not listed
after that time could be started twice, and is reported as soon as it is listed.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Literal, Protocol, TypeAlias, Unpack, get_args
from weakref import WeakValueDictionary

import anyio

from amigo_async.cancellation import finish
from amigo_async.checks import check_choice
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArgumentError,
    ConflictError,
    NotFoundError,
    RateLimitError,
    is_transient,
)
from amigo_async.events import (
    Emit,
    RequestRetried,
    RunStarted,
    SecondRunFound,
    StartUnresolved,
)
from amigo_async.models import CreatedRun, Run, RunPage, UserInfo
from amigo_async.protocol.endpoints import CREATE
from amigo_async.protocol.requests import RunFilters, check_id
from amigo_async.server_clock import ServerClock
from amigo_async.starting.attempt import GRACE, Intention, Recorder, StartAttempt
from amigo_async.starting.fence import Ambiguous, Fence, Search, Take, choose
from amigo_async.starting.lists import Fences, RunFinder
from amigo_async.transport import Guard
from amigo_async.transport.retry import Backoff

OnConflict: TypeAlias = Literal["raise", "attach", "wait", "restart"]

# Seconds for which to search for the run that a lost create may have started.
SEARCH_TIMEOUT: Final = 30.0

# The least number of attempts of a create that fails transiently.
_ATTEMPTS: Final = 5

# How many runs in the way are dealt with until the conflict is raised.
_CONFLICTS: Final = 5

# Seconds from a create that is refused because of a run that no list shows to the next create, and
# how often runs are listed in between.
_HIDDEN_PAUSE: Final = 10.0
_HIDDEN_LISTS: Final = 2

# How many starts of which a second run may turn up are remembered, until their own run is over.
_DOUBTFUL: Final = 1000


class RunsAPI(Protocol):
    """The requests that starts send."""

    async def create(self, unit_test_set_id: str, guard: Guard) -> CreatedRun:
        """Send a create request once; `guard` awaits the response."""

    async def page(self, **filters: Unpack[RunFilters]) -> RunPage:
        """List a page of runs."""

    async def cancel(self, run_id: str) -> None:
        """Cancel a run."""


class ReturnedRuns:
    """The runs that calls of this process have returned.

    Those that a 201 named are other calls'. Those that were attached to, or taken for the run of a
    lost create, may be another lost create's as well, unless they were known before it was sent.

    A lost create considers only runs of the last minutes, of which an organization cannot start
    more than are kept.
    """

    def __init__(self, most: int = 1000) -> None:
        # Each with how many had been returned before it, or -1 if a 201 named it.
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._most = most
        self._count = 0

    def __len__(self) -> int:
        """How many runs are kept."""
        return len(self._ids)

    def count(self) -> int:
        """How many have been returned so far, including repeats."""
        return self._count

    def add(self, created: CreatedRun) -> None:
        """Add a run."""
        run_id = created.simulation_unit_test_set_run_id
        first = self._count if created.attached else -1
        self._count += 1
        self._ids[run_id] = min(first, self._ids.get(run_id, first))
        self._ids.move_to_end(run_id)
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)

    def others(self, search: Search, run_ids: Iterable[str]) -> frozenset[str]:
        """Those of `run_ids` that cannot have been started by the create of `search`."""
        if search.resumed:  # it may find the run that its own earlier call returned
            return frozenset()
        return frozenset(i for i in run_ids if self._ids.get(i, math.inf) < search.known)


_returned: Final[WeakValueDictionary[tuple[str, str], ReturnedRuns]] = WeakValueDictionary()


def returned_runs(base_url: str, organization_id: str) -> ReturnedRuns:
    """The runs of all clients of an organization, because two of them may act for one user."""
    return _returned.setdefault((base_url, organization_id), ReturnedRuns())


class Starts:
    """Starts runs for one client.

    Args:
        api: Sends requests.
        ended: Waits until a run is over.
        creator: The user who creates; None if not known.
        clock: The service's clock.
        emit: Receives an event for each start.
        returned: The runs that calls have returned; None to keep those of this client alone.
    """

    def __init__(
        self,
        api: RunsAPI,
        *,
        ended: Callable[[str], Awaitable[Run]],
        creator: UserInfo | None,
        clock: ServerClock,
        emit: Emit,
        returned: ReturnedRuns | None = None,
    ) -> None:
        self._returned = ReturnedRuns() if returned is None else returned
        self._api = api
        self._ended = ended
        self._creator = creator
        self._clock = clock
        self._emit = emit
        self._all_runs = RunFinder(api.page, creator)
        self._unfinished_runs = RunFinder(api.page, creator, is_completed=False)
        self._doubtful: OrderedDict[str, Search] = OrderedDict()
        # One create of a set at a time, because a lost one must not take the run of another. A lock
        # exists for as long as a start holds or awaits it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._worked_at = -math.inf  # loop time of the last successful start of any set

    def fences(
        self,
        pending: Callable[[], Iterable[str]],
        on_listed: Callable[[Sequence[Run]], object] = lambda _: None,
    ) -> Fences:
        """The fences of a batch.

        Args:
            pending: Returns the sets that are still to be started, in order.
            on_listed: Called with the newest runs of some sets each time they were listed.
        """
        return Fences(self._api.page, self._creator, pending, on_listed)

    async def start(
        self,
        set_id: str,
        on_conflict: OnConflict = "raise",
        *,
        fence: Callable[[str], Awaitable[Fence | None]] | None = None,
        recorder: Recorder | None = None,
        earlier: Intention | None = None,
        patience: float = 0.0,
    ) -> CreatedRun:
        """Start a run of a set, once; `Runs.create` documents the guarantees and errors.

        Args:
            set_id: The set.
            on_conflict: What to do about an unfinished run.
            fence: Lists the runs that exist before the create is sent; None to do so only where a
                run in the way has to be distinguished from the one that is started.
            recorder: Records the start; None for no record.
            earlier: The intention of a process that was stopped before the outcome of its create
                was known, for which to search first; None if there was none.
            patience: Seconds for which transient failures are retried, not counting waits for the
                rate limit; a few attempts are made in any case.
        """
        check_id("unit_test_set_id", set_id)
        check_choice("on_conflict", on_conflict, get_args(OnConflict))
        if on_conflict != "raise" and self._creator is None:
            raise ArgumentError(
                f"on_conflict={on_conflict!r} needs to know whose run is in the way; "
                "give BearerAuth a user_id"
            )
        if fence is None and on_conflict in ("wait", "restart"):
            # A run that is cancelled to make way must not be taken for the run of a lost create.
            fence = self.fences(lambda: ()).before
        attempt = StartAttempt(
            set_id,
            creator=self._creator,
            clock=self._clock,
            fence=fence,
            returned=self._returned.count,
            recorder=recorder,
            earlier=earlier,
            patience=patience,
        )
        conflicts = _Conflicts(on_conflict)
        while True:
            lock = self._locks.setdefault(set_id, asyncio.Lock())
            try:
                async with lock:
                    return await self._create(attempt)
            except ConflictError as conflict:
                if not attempt.sent:  # the sign-in was refused
                    raise
                last = conflict
            attached = await self._settle(conflicts, attempt, last)
            if attached is not None:
                return await self._started(attempt, attached)
            self._report_retry(conflicts.count, 0.0, last)

    async def report_second_run(self, run_id: str) -> None:
        """Emit an event if a second run turns up beside `run_id`, which is over now.

        That happens if the run of a lost create was over, and not listed yet, when the create was
        sent again.
        """
        search = self._doubtful.pop(run_id, None)
        if search is None:
            return
        with suppress(AmigoError), anyio.move_on_after(GRACE):  # only a report, which may fail
            runs = (await self._all_runs.find(search)).runs
            others = {run_id, *self._returned.others(search, _ids(runs))}
            choice = choose(search, runs, others=others, final=True)
            for second in _chosen(choice):
                self._emit(SecondRunFound(search.set_id, run_id, second.id))

    async def _create(self, attempt: StartAttempt) -> CreatedRun:
        """Create until the outcome is known, and find it out even if cancelled meanwhile."""
        try:
            return await self._create_or_find(attempt)
        except asyncio.CancelledError:
            await finish(self._resolve(attempt))
            raise
        except AmigoError:
            if attempt.lost is None:
                await finish(attempt.void())
            raise

    async def _create_or_find(self, attempt: StartAttempt) -> CreatedRun:
        """Send the create until its outcome is known, and search before sending it again."""
        retries = _CreateRetries(attempt.patience)
        while True:
            if attempt.lost is not None:
                found = await self._find(attempt, attempt.lost)
                if found is not None:
                    return await self._started(attempt, found)
                if retries.exhausted(self._worked_at):
                    reason = "and it is not listed"
                    if retries.ended_by is not None:
                        reason += f"; then {retries.ended_by}"
                    raise self._ambiguous(attempt, attempt.lost, reason)
            created = await self._send(attempt, retries)
            if created is not None:
                return await self._started(attempt, created)

    async def _send(self, attempt: StartAttempt, retries: _CreateRetries) -> CreatedRun | None:
        """Send the create once; None if it failed transiently, or after another was lost."""
        attempt.sent = False
        asked_at = anyio.current_time()
        try:
            return await self._api.create(attempt.set_id, attempt.guard)
        except ConflictError as conflict:
            if attempt.lost is None or not attempt.sent:
                raise
            found = await self._find(attempt, attempt.lost, conflict)
            if found is None:
                raise conflict from attempt.lost
            return found
        except AmigoError as error:
            if attempt.failed(error):
                retries.failed(attempt.last_sent_at - asked_at)
            else:  # refused, or not sent because the sign-in or the rate limit failed
                retries.end(error)
            exhausted = retries.exhausted(self._worked_at)
            if attempt.lost is None:
                if exhausted:
                    raise
                delay = retries.next_delay()
                self._report_retry(retries.attempts, delay, error)
                await anyio.sleep(delay)
            elif not exhausted:  # unless the search, which takes time, finds its run
                self._report_retry(retries.attempts, SEARCH_TIMEOUT, error)
            return None

    def _report_retry(self, attempt: int, delay: float, error: AmigoError) -> None:
        self._emit(RequestRetried(CREATE.name, attempt, delay, str(error)))

    async def _find(
        self, attempt: StartAttempt, lost: AmigoError, conflict: ConflictError | None = None
    ) -> CreatedRun | None:
        """Search for the run of a create whose response was lost, for `SEARCH_TIMEOUT` seconds.

        Args:
            attempt: The start.
            lost: How the response was lost.
            conflict: The response to another create since; None if none was sent, or it failed.

        Returns:
            The run, or None if there is none. After a conflict, None means that another run is in
            the way.

        Raises:
            AmbiguousStartError: If it cannot be decided.
        """
        search = attempt.search
        began = anyio.current_time()
        while True:
            final = anyio.current_time() - began >= SEARCH_TIMEOUT
            try:
                runs, complete, unreadable = await self._all_runs.find(search)
                garbled: list[str] = []
                if final and any(map(search.may_be, unreadable)):
                    garbled = await self._all_runs.unreadable_of(search)
            except AmigoError as error:
                # The request has been retried already.
                age = anyio.current_time() - began
                retriable = is_transient(error) or isinstance(error, RateLimitError)
                if retriable and age < max(SEARCH_TIMEOUT, attempt.patience):
                    continue
                reason = f"and the search for it failed: {error}"
                raise self._ambiguous(attempt, lost, reason) from error
            others = self._returned.others(search, _ids(runs))
            choice = choose(search, runs, others=others, complete=complete, final=final)
            if isinstance(choice, Take):
                return CreatedRun(choice.run.id, attached=True)
            if isinstance(choice, Ambiguous):
                raise self._ambiguous(attempt, lost, self._candidates(choice), _ids(choice.runs))
            if not final:
                continue
            if garbled := sorted({*garbled} - self._returned.others(search, garbled)):
                reason = "a run that is listed, and cannot be decoded, may be that one"
                raise self._ambiguous(attempt, lost, reason, garbled)
            if conflict is not None and _unfinished(search, runs) is None:
                reason = "the service has an unfinished run of the set, and does not list it"
                raise self._ambiguous(attempt, lost, reason) from conflict
            return None

    async def _started(self, attempt: StartAttempt, created: CreatedRun) -> CreatedRun:
        """Make an id known, even if the caller is cancelled."""
        attempt.done = True
        self._worked_at = anyio.current_time()
        run_id = created.simulation_unit_test_set_run_id
        self._returned.add(created)
        if attempt.lost is not None and not created.attached:
            self._doubtful[run_id] = attempt.search
            if len(self._doubtful) > _DOUBTFUL:
                self._doubtful.popitem(last=False)
        self._emit(RunStarted(attempt.set_id, run_id, attached=created.attached))
        await finish(attempt.started(created))
        return created

    async def _resolve(self, attempt: StartAttempt) -> None:
        """After a cancellation, find out whether a run was started, and make its id known."""
        if attempt.done:
            return
        created = attempt.decode_created() if attempt.sent else None
        if created is not None:
            await self._started(attempt, created)
        elif attempt.lost is None and attempt.did_nothing:
            await attempt.void()
        elif attempt.has_sent:  # what an earlier process sent is on record
            lost = attempt.lost = attempt.lost or AmigoError("the call was cancelled")
            try:
                with anyio.move_on_after(GRACE):
                    found = await self._find(attempt, lost)
                    if found is not None:
                        await self._started(attempt, found)
                        return
                raise self._ambiguous(attempt, lost, "no list shows it so far")
            except AmbiguousStartError as error:
                attempt.unresolved(error)
                self._emit(StartUnresolved(attempt.set_id, str(error)))

    async def _in_the_way(self, set_id: str) -> Run | None:
        """The unfinished run of this user and set; None if no list shows it (any more)."""
        if self._creator is None:
            return None
        search = Search(set_id, self._creator)
        try:
            return _unfinished(search, (await self._unfinished_runs.find(search)).runs)
        except AmigoError:
            return None  # the conflict is raised, rather than this error

    async def _settle(
        self, conflicts: _Conflicts, attempt: StartAttempt, conflict: ConflictError
    ) -> CreatedRun | None:
        """Handle a run in the way; the run if it is attached to, None to create again.

        Raises:
            ConflictError: If the conflict is not to be resolved, or cannot be.
        """
        conflicts.count += 1
        existing = await self._in_the_way(attempt.set_id)
        if existing is not None:
            conflict.existing_run_id = existing.id
        if conflicts.on_conflict == "raise":
            raise conflict
        for _ in range(_HIDDEN_LISTS):  # it may be listed late, or have ended
            if existing is None:
                await anyio.sleep(_HIDDEN_PAUSE / _HIDDEN_LISTS)
                existing = await self._in_the_way(attempt.set_id)
        if conflicts.must_be_raised(existing):
            raise conflict
        if existing is None:
            return None
        if conflicts.on_conflict == "attach":
            return CreatedRun(existing.id, attached=True)
        attempt.came_before(existing.id)
        await self._make_way(existing, cancel=conflicts.on_conflict == "restart")
        return None

    async def _make_way(self, existing: Run, *, cancel: bool) -> None:
        """Wait until the run in the way is over."""
        if cancel:
            with suppress(ConflictError, NotFoundError):  # it is over already
                await self._api.cancel(existing.id)
        with suppress(NotFoundError):
            await self._ended(existing.id)

    @staticmethod
    def _candidates(choice: Ambiguous) -> str:
        count = len(choice.runs)
        return (
            "a run that is listed may be that one"
            if count == 1
            else f"each of {count} runs that are listed may be that one"
        )

    def _ambiguous(
        self, attempt: StartAttempt, lost: AmigoError, reason: str, candidates: Sequence[str] = ()
    ) -> AmbiguousStartError:
        if self._creator is None:
            reason += (
                "; as the user of the token is not known, it cannot be told from another user's "
                "(give BearerAuth a user_id)"
            )
        error = AmbiguousStartError(
            f"{lost}; {reason}",
            unit_test_set_id=attempt.set_id,
            since=attempt.sent_at,
            candidates=candidates,
        )
        error.__cause__ = lost
        return error


def _unfinished(search: Search, runs: Iterable[Run]) -> Run | None:
    return next((run for run in runs if search.concerns(run) and not run.is_completed), None)


def _ids(runs: Iterable[Run]) -> list[str]:
    return [run.id for run in runs]


def _chosen(choice: Take | Ambiguous | None) -> Sequence[Run]:
    if choice is None:
        return ()
    return (choice.run,) if isinstance(choice, Take) else choice.runs


class _Conflicts:
    """Counts conflicts of one start, and decides when to give up.

    Args:
        on_conflict: What to do about runs in the way.

    Attributes:
        count: Number of creates that were refused because of a run in the way.
    """

    def __init__(self, on_conflict: OnConflict) -> None:
        self.on_conflict = on_conflict
        self.count = 0
        self._met = 0
        self._hidden_since = math.inf

    def must_be_raised(self, existing: Run | None) -> bool:
        """Whether to give up after a conflict; `existing` is None if no list shows the run."""
        if existing is not None:
            self._met += 1
            self._hidden_since = math.inf
            return self._met > _CONFLICTS
        # The run is over, or hidden. Only "wait" may wait for the end of a hidden run.
        now = anyio.current_time()
        self._hidden_since = min(self._hidden_since, now)
        return self.on_conflict != "wait" and now - self._hidden_since >= SEARCH_TIMEOUT


class _CreateRetries:
    """Decides how long a create that fails transiently is sent again.

    Args:
        patience: Seconds after which, and after a few attempts, there is no further one.

    Attributes:
        attempts: Number of attempts that have failed transiently.
        ended_by: The failure that is not transient; None as long as there is none.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until = anyio.current_time() + patience
        self._failing_since = math.inf
        self.attempts = 0
        self.ended_by: AmigoError | None = None
        self._backoff = Backoff()

    def end(self, error: AmigoError) -> None:
        """Note a failure that is not transient."""
        self.ended_by = error

    def failed(self, queued: float) -> None:
        """Note a transient failure.

        Args:
            queued: Seconds that the attempt waited for the rate limit before, which do not count.
        """
        self.attempts += 1
        self._until += queued
        self._failing_since = min(self._failing_since, anyio.current_time())

    def exhausted(self, worked_at: float = -math.inf) -> bool:
        """Whether to give up.

        Args:
            worked_at: Loop time at which a create of any set last succeeded. If none does any
                more, patience ends for all starts, however long they were queued.
        """
        until = min(self._until, max(self._failing_since, worked_at) + self._patience)
        enough = self.attempts >= _ATTEMPTS and anyio.current_time() >= until
        return enough or self.ended_by is not None

    def next_delay(self) -> float:
        """Seconds until the next attempt."""
        return self._backoff.next()
