"""Start a run so that it is never started twice and its id is never lost.

A create takes no idempotency key, and its answer may be lost before the work, after it or in the
middle. The API has a rule that helps: a user has at most one unfinished run of a set, and a second
create gets 409. It does not help once the run is over, and lists may show a run late. Clocks decide
nothing here: ``Date`` and ``created_at`` may come from two of them, and the loop's stands still
while a machine sleeps. So two questions are kept apart:

*Fresh:* was the run there before we asked? If not, its result answers. Before a create leaves, a
batch lists what is there of its set: the *fence*. A run that is listed later and is not on the
fence is fresh. A single create does without the two lists that this costs: the unfinished run of
the set is taken, and a finished one of the last minutes can only be told as a candidate.

*Ours:* did we start it? Only the id in a 201 says so. Whoever else acts for this user may have
started a fresh run at the same moment, so a run that was found is `attached`: its result is given,
but it is never cancelled.

After a loss, the lists are looked at every two seconds, once for all lost creates of a client. The
earliest fresh run is taken, as a later one can only be another's. If no look within `PATIENCE`
shows one, nothing was started, or it will be refused as a second one: the create is sent again. A
409 then says that something is there which the lists do not show yet, and they are looked at again
for as long. What still cannot be told is an `AmbiguousStartError`, and nothing is claimed.

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
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArgumentError,
    ConflictError,
    NotFoundError,
    RateLimitError,
    is_transient,
)
from amigo_async.events import Emit, RunStarted, SecondRunFound, StartUnresolved
from amigo_async.models import CreatedRun, Run, RunPage, UserInfo
from amigo_async.protocol.requests import RunFilters, check_id
from amigo_async.server_clock import ServerClock
from amigo_async.starting.attempt import GRACE, Attempt, Intention, Recorder
from amigo_async.starting.fence import Ambiguous, Fence, Search, Take, choose
from amigo_async.starting.lists import Fences, Lookout
from amigo_async.transport import Guard
from amigo_async.transport.retry import Backoff

OnConflict: TypeAlias = Literal["raise", "attach", "wait", "restart"]

# For how many seconds a run is looked for that a lost create may have started.
PATIENCE: Final = 30.0

# How often at least a create is sent that fails in passing.
_ATTEMPTS: Final = 5

# How often a run in the way is dealt with before it is left to whoever keeps starting it.
_CONFLICTS: Final = 5

# Seconds from a create that is refused for a run that no list shows to the next one. In between,
# the lists are looked at this often.
_HIDDEN_PAUSE: Final = 10.0
_HIDDEN_LOOKS: Final = 2

# Starts whose run may turn out to be a second one, kept until their run is over.
_DOUBTFUL: Final = 1000


class Service(Protocol):
    """What is needed of the API."""

    async def create(self, unit_test_set_id: str, guard: Guard) -> CreatedRun:
        """Start a run; sent once, its answer awaited as `guard` does."""

    async def page(self, **filters: Unpack[RunFilters]) -> RunPage:
        """List a page of runs."""

    async def cancel(self, run_id: str) -> None:
        """Cancel a run."""


class Given:
    """The runs that the calls of this process were given last: no other lost call takes them.

    A call that is lost asks for those of the last minutes, of which an organization cannot start
    more than are kept.
    """

    def __init__(self, most: int = 1000) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._ids)

    def add(self, run_id: str) -> None:
        """Keep one more."""
        self._ids[run_id] = None
        self._ids.move_to_end(run_id)
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)

    def among(self, runs: Iterable[Run]) -> frozenset[str]:
        """The ids of those of `runs` that are kept."""
        return frozenset(run.id for run in runs if run.id in self._ids)


_given: Final[WeakValueDictionary[tuple[str, str], Given]] = WeakValueDictionary()


def given_by(base_url: str, organization_id: str) -> Given:
    """The runs given to all clients of an organization, as two of them may act for one user."""
    return _given.setdefault((base_url, organization_id), Given())


class Starts:
    """Starts runs for one client.

    Args:
        service: The calls of the API.
        ended: Waits until a run is over.
        creator: Who creates; None if not known.
        clock: The service's clock.
        emit: Hears of each start.
        given: The runs that were given to calls; None to keep those of this client alone.
    """

    def __init__(
        self,
        service: Service,
        *,
        ended: Callable[[str], Awaitable[Run]],
        creator: UserInfo | None,
        clock: ServerClock,
        emit: Emit,
        given: Given | None = None,
    ) -> None:
        self._given = Given() if given is None else given
        self._service = service
        self._ended = ended
        self._creator = creator
        self._clock = clock
        self._emit = emit
        self._lookout = Lookout(service.page, creator)
        self._unfinished = Lookout(service.page, creator, is_completed=False)
        self._doubtful: OrderedDict[str, Search] = OrderedDict()
        # One create of a set at a time: a lost one must not take what the other is starting. A
        # lock lasts for as long as somebody holds or awaits it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._worked_at = -math.inf  # when a run was last started, of any set

    def fences(self, pending: Callable[[], Iterable[str]]) -> Fences:
        """The fences of a batch.

        Args:
            pending: The sets that are still to be started, in their order.
        """
        return Fences(self._service.page, self._creator, pending)

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
        """Start a run of a set; see `Runs.create`.

        Args:
            set_id: The set.
            on_conflict: What to do about an unfinished run.
            fence: Finds out what is there before the create leaves; None not to, unless a run in
                the way is to be told from the one that is started.
            recorder: Keeps a record of the start; None for none.
            earlier: A process that was stopped intended this start, and it is not known whether
                its create did anything: look for the run first. None if there was none.
            patience: For how many seconds failures that may pass are borne, if a few attempts
                take less; waits for room in the budget do not count.
        """
        check_id("unit_test_set_id", set_id)
        check_choice("on_conflict", on_conflict, get_args(OnConflict))
        if on_conflict != "raise" and self._creator is None:
            raise ArgumentError(
                f"on_conflict={on_conflict!r} needs to know whose run is in the way; "
                "give BearerAuth a user_id"
            )
        if fence is None and on_conflict in ("wait", "restart"):
            # A run that is to be out of the way is not to be taken for the one that was lost.
            fence = self.fences(lambda: ()).before
        attempt = Attempt(
            set_id,
            creator=self._creator,
            clock=self._clock,
            fence=fence,
            recorder=recorder,
            earlier=earlier,
            patience=patience,
        )
        contest = _Contest(on_conflict)
        while True:
            lock = self._locks.setdefault(set_id, asyncio.Lock())
            try:
                async with lock:
                    return await self._create(attempt)
            except ConflictError as conflict:
                if not attempt.sent:  # it was the sign in that was refused
                    raise
                last = conflict
            attached = await self._settle(contest, attempt, last)
            if attached is not None:
                return await self._started(attempt, attached)

    async def report_second_run(self, run_id: str) -> None:
        """Report a run that turns up besides one that was started, which is over now.

        That happens where a create was lost whose run was over, and yet not listed, when the
        create was sent again.
        """
        search = self._doubtful.pop(run_id, None)
        if search is None:
            return
        with suppress(AmigoError), anyio.move_on_after(GRACE):  # it is said, if it can be
            runs = (await self._lookout.look(search)).runs
            choice = choose(search, runs, others={run_id, *self._others(search, runs)}, final=True)
            for second in _chosen(choice):
                self._emit(SecondRunFound(search.set_id, run_id, second.id))

    async def _create(self, attempt: Attempt) -> CreatedRun:
        """Create until it is known what came of it, and see it through if cancelled meanwhile."""
        try:
            return await self._create_or_find(attempt)
        except asyncio.CancelledError:
            await finish(self._see_through(attempt))
            raise
        except AmigoError:
            if attempt.lost is None:
                await finish(attempt.void())
            raise

    async def _create_or_find(self, attempt: Attempt) -> CreatedRun:
        """Send the create until its answer is known, and look before it is sent again."""
        pauses = _Pauses(attempt.patience)
        while True:
            if attempt.lost is not None:
                found = await self._find(attempt, attempt.lost)
                if found is not None:
                    return await self._started(attempt, found)
                if pauses.are_over(self._worked_at):
                    reason = "and it is not listed"
                    if pauses.ended_by is not None:
                        reason += f"; then {pauses.ended_by}"
                    raise self._ambiguous(attempt, attempt.lost, reason)
            created = await self._send(attempt, pauses)
            if created is not None:
                return await self._started(attempt, created)

    async def _send(self, attempt: Attempt, pauses: _Pauses) -> CreatedRun | None:
        """Send the create once; None if it failed in passing, or after another was lost."""
        attempt.sent = False
        asked_at = anyio.current_time()
        try:
            return await self._service.create(attempt.set_id, attempt.guard)
        except ConflictError as conflict:
            if attempt.lost is None or not attempt.sent:
                raise
            found = await self._find(attempt, attempt.lost, conflict)
            if found is None:
                raise conflict from attempt.lost
            return found
        except AmigoError as error:
            if attempt.failed(error):
                pauses.failed(attempt.last_sent_at - asked_at)
            else:  # refused, or the sign in or the budget failed, which has tried enough
                pauses.end(error)
            if attempt.lost is None:  # otherwise, looking takes its time
                if pauses.are_over(self._worked_at):
                    raise
                await pauses.pause()
            return None

    async def _find(
        self, attempt: Attempt, lost: AmigoError, conflict: ConflictError | None = None
    ) -> CreatedRun | None:
        """Look for the run of a create whose answer was lost, for as long as `PATIENCE`.

        Args:
            attempt: The start.
            lost: How the answer was lost.
            conflict: What another create was answered since; None if it was not sent, or failed.

        Returns:
            The run, or None if there is none. After a conflict, that means that another run is in
            the way.

        Raises:
            AmbiguousStartError: If it cannot be told.
        """
        search = attempt.search
        began = anyio.current_time()
        while True:
            final = anyio.current_time() - began >= PATIENCE
            try:
                runs, whole = await self._lookout.look(search)
            except AmigoError as error:
                # The call has been tried a few times by itself.
                age = anyio.current_time() - began
                passing = is_transient(error) or isinstance(error, RateLimitError)
                if passing and age < max(PATIENCE, attempt.patience):
                    continue
                reason = f"and looking for it failed: {error}"
                raise self._ambiguous(attempt, lost, reason) from error
            choice = choose(
                search, runs, others=self._others(search, runs), whole=whole, final=final
            )
            if isinstance(choice, Take):
                return CreatedRun(choice.run.id, attached=True)
            if isinstance(choice, Ambiguous):
                raise self._ambiguous(attempt, lost, self._candidates(choice), choice.runs)
            if not final:
                continue
            if conflict is not None and _unfinished(search, runs) is None:
                reason = "the service has an unfinished run of the set, and does not list it"
                raise self._ambiguous(attempt, lost, reason) from conflict
            return None

    async def _started(self, attempt: Attempt, created: CreatedRun) -> CreatedRun:
        """Make an id known, whatever happens to the caller."""
        attempt.done = True
        self._worked_at = anyio.current_time()
        run_id = created.simulation_unit_test_set_run_id
        self._given.add(run_id)
        if attempt.lost is not None and not created.attached:
            self._doubtful[run_id] = attempt.search
            if len(self._doubtful) > _DOUBTFUL:
                self._doubtful.popitem(last=False)
        self._emit(RunStarted(attempt.set_id, run_id, attached=created.attached))
        await finish(attempt.started(created))
        return created

    async def _see_through(self, attempt: Attempt) -> None:
        """After a cancellation: find out whether a run was started, and make its id known."""
        if attempt.done:
            return
        created = attempt.read_created() if attempt.sent else None
        if created is not None:
            await self._started(attempt, created)
        elif attempt.lost is None and attempt.did_nothing:
            await attempt.void()
        elif attempt.has_sent:  # what an earlier process has sent, it has on record
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
        """The unfinished run of this user and set; None if it is not to be seen (any more)."""
        if self._creator is None:
            return None
        search = Search(set_id, self._creator)
        try:
            return _unfinished(search, (await self._unfinished.look(search)).runs)
        except AmigoError:
            return None  # the conflict itself is what has to be told

    async def _settle(
        self, contest: _Contest, attempt: Attempt, conflict: ConflictError
    ) -> CreatedRun | None:
        """Do about a run in the way as asked; the run if it is taken, None to create again.

        Raises:
            ConflictError: The conflict, if it is to be raised or cannot be settled.
        """
        existing = await self._in_the_way(attempt.set_id)
        if existing is not None:
            conflict.existing_run_id = existing.id
        if contest.on_conflict == "raise":
            raise conflict
        for _ in range(_HIDDEN_LOOKS):  # it may be listed late, or have ended
            if existing is None:
                await anyio.sleep(_HIDDEN_PAUSE / _HIDDEN_LOOKS)
                existing = await self._in_the_way(attempt.set_id)
        if contest.is_lost(existing):
            raise conflict
        if existing is None:
            return None
        if contest.on_conflict == "attach":
            return CreatedRun(existing.id, attached=True)
        await self._make_way(existing, cancel=contest.on_conflict == "restart")
        return None

    def _others(self, search: Search, runs: Iterable[Run]) -> frozenset[str]:
        """The runs of other calls, as far as they are known."""
        # What is resumed may have been given to the call that was stopped, which is the same one.
        return frozenset() if search.resumed else self._given.among(runs)

    async def _make_way(self, existing: Run, *, cancel: bool) -> None:
        """See the run in the way end."""
        if cancel:
            with suppress(ConflictError, NotFoundError):  # it has ended, by itself or otherwise
                await self._service.cancel(existing.id)
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
        self, attempt: Attempt, lost: AmigoError, reason: str, candidates: Sequence[Run] = ()
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
            candidates=[run.id for run in candidates],
        )
        error.__cause__ = lost
        return error


def _unfinished(search: Search, runs: Iterable[Run]) -> Run | None:
    return next((run for run in runs if search.concerns(run) and not run.is_completed), None)


def _chosen(choice: Take | Ambiguous | None) -> Sequence[Run]:
    if choice is None:
        return ()
    return (choice.run,) if isinstance(choice, Take) else choice.runs


class _Contest:
    """How long a start goes on while runs are in its way.

    Args:
        on_conflict: What to do about them.
    """

    def __init__(self, on_conflict: OnConflict) -> None:
        self.on_conflict = on_conflict
        self._met = 0
        self._hidden_since = math.inf

    def is_lost(self, existing: Run | None) -> bool:
        """Whether to give up on another run in the way; None for one that is not listed."""
        if existing is not None:
            self._met += 1
            self._hidden_since = math.inf
            return self._met > _CONFLICTS
        # It has ended, or is hidden. Only an end can be waited for that is not to be seen.
        now = anyio.current_time()
        self._hidden_since = min(self._hidden_since, now)
        return self.on_conflict != "wait" and now - self._hidden_since >= PATIENCE


class _Pauses:
    """The pauses between attempts: random, up to 0.5, 1, 2, 4 and then 8 seconds.

    Args:
        patience: Seconds after which, and a few attempts, there is no further one.

    Attributes:
        ended_by: The failure that cannot pass; None as long as there is none.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until = anyio.current_time() + patience
        self._failing_since = math.inf
        self._attempts = 0
        self.ended_by: AmigoError | None = None
        self._backoff = Backoff()

    def end(self, error: AmigoError) -> None:
        """An attempt failed for good."""
        self.ended_by = error

    def failed(self, queued: float) -> None:
        """An attempt failed.

        Args:
            queued: For how many seconds before there was no room in the budget, which is no
                failure of the service.
        """
        self._attempts += 1
        self._until += queued
        self._failing_since = min(self._failing_since, anyio.current_time())

    def are_over(self, worked_at: float = -math.inf) -> bool:
        """Whether there have been enough attempts.

        Args:
            worked_at: When the same last succeeded for others: where it does not any more,
                patience ends for all, however long they are queued.
        """
        until = min(self._until, max(self._failing_since, worked_at) + self._patience)
        enough = self._attempts >= _ATTEMPTS and anyio.current_time() >= until
        return enough or self.ended_by is not None

    async def pause(self) -> None:
        """Pause before the next attempt."""
        await anyio.sleep(self._backoff.next())


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of `choices`.

    Raises:
        ArgumentError: If `value` is none of them.
    """
    if value not in choices:
        named = ", ".join(map(repr, choices))
        raise ArgumentError(f"{argument} must be one of {named}, not {value!r:.80}")
