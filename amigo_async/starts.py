"""Start a run so that it is never started twice and its id is never lost.

The API has no idempotency key, but a rule that serves as well: a user has at most one unfinished
run of a set. After a create whose answer was lost, the run it may have started is looked for (this
set, this creator, created since, completed or not). If it is there, it is the one; if not, the
create is sent again, and a 409 then means that the first one was late: it is looked for again.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args

import anyio
import backoff

from amigo_async.attempt import GRACE, Attempt, OnSend, OnStart, read_created
from amigo_async.calls import Calls
from amigo_async.clock import ServerClock
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArgumentError,
    ConflictError,
    NotFoundError,
    may_pass,
)
from amigo_async.events import Emit, RunStarted, StartUnresolved
from amigo_async.models import CreatedRun, Run, RunPage, UserInfo
from amigo_async.shield import finish
from amigo_async.wire.requests import check_id

OnConflict: TypeAlias = Literal["raise", "attach", "wait", "restart"]
# How often a create is sent at least whose answers are lost.
_ATTEMPTS: Final = 5

# How often a run in the way is dealt with before it is left to whoever keeps starting it.
_CONFLICTS: Final = 5

# By this much less than it is a creation time may be given, whose fractions may be cut off.
_ROUNDING: Final = timedelta(seconds=1)

# Newest runs of the set that are looked through; more cannot have been created since.
_LOOKED_AT: Final = 10


class Starts:
    """Starts runs for one client.

    Args:
        calls: The calls of the API.
        ended: Waits until a run is over.
        creator: Who creates; None if not known.
        clock: The server's clock, on which runs are created.
        emit: Hears of each start.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        ended: Callable[[str], Awaitable[Run]],
        creator: UserInfo | None,
        clock: ServerClock,
        emit: Emit,
    ) -> None:
        self._calls = calls
        self._ended = ended
        self._creator = creator
        self._clock = clock
        self._emit = emit
        # Ids that were given to a caller are not found again for another one. Those given last are
        # enough: no more than that many are looked through, the newest first.
        self._given: defaultdict[str, dict[str, None]] = defaultdict(dict)
        # One create of a set at a time: a lost one must not adopt what the other is starting.
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._worked_at = -math.inf  # when a run was last started, of any set

    async def start(
        self,
        set_id: str,
        on_conflict: OnConflict = "raise",
        *,
        on_send: OnSend | None = None,
        on_start: OnStart | None = None,
        since: datetime | None = None,
        patience: float = 0.0,
    ) -> CreatedRun:
        """Start a run of a set; see `Runs.create`.

        Args:
            set_id: The set.
            on_conflict: What to do about an unfinished run.
            on_send: Awaited just before the first request leaves; if it raises, none does.
            on_start: Awaited as soon as the id is known, even if the caller has been cancelled.
            since: A process that was stopped meant to start this run at this time, and it is
                not known whether it did: look for the run first. None if there is no such.
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
        attempt = Attempt(set_id, on_send, on_start, since, patience)
        for _ in range(_CONFLICTS):
            try:
                async with self._locks[set_id]:
                    return await self._create(attempt)
            except ConflictError as conflict:
                existing = await self._in_the_way(set_id)
                conflict.existing_run_id = None if existing is None else existing.id
                if on_conflict == "raise":
                    raise
                if existing is not None and on_conflict == "attach":
                    return await self._started(attempt, CreatedRun(existing.id, attached=True))
                last = conflict
                await self._make_way(existing, cancel=on_conflict == "restart")
        raise last

    async def _create(self, attempt: Attempt) -> CreatedRun:
        """Create until it is known what came of it, and see it through if cancelled meanwhile."""
        try:
            return await self._create_or_find(attempt)
        except asyncio.CancelledError:
            if attempt.on_wire:
                await finish(self._see_through(attempt), grace=GRACE)
            raise

    async def _create_or_find(self, attempt: Attempt) -> CreatedRun:
        """Send the create until its answer is known, and look before it is sent again."""
        pauses = _Pauses(attempt.patience)
        while True:
            if attempt.lost is not None and self._creator is not None:
                found = await self._find(attempt, attempt.lost)
                if found is not None:
                    return await self._started(attempt, found)
            attempt.on_wire = False
            asked_at = anyio.current_time()
            try:
                created = await self._calls.create(attempt.set_id, attempt.guard)
                return await self._started(attempt, created)
            except AmigoError as error:
                if attempt.failed(error):
                    break
                pauses.queued(attempt.last_sent_at - asked_at)
                if not await pauses.another(self._worked_at):
                    if attempt.lost is None:
                        raise
                    break
        assert attempt.lost is not None  # noqa: S101  # nothing else leads here
        return await self._last_look(attempt, attempt.lost)

    async def _last_look(self, attempt: Attempt, lost: AmigoError) -> CreatedRun:
        """After the last create: its run must be there, or it cannot be told."""
        found = await self._find(attempt, lost)
        if found is not None:
            return await self._started(attempt, found)
        if attempt.conflict is not None:
            raise attempt.conflict from lost  # an older run is in the way
        raise self._ambiguous(attempt, lost, "and it is not listed") from lost

    async def _find(self, attempt: Attempt, lost: AmigoError) -> CreatedRun | None:
        """The run that an attempt whose answer was lost has started; None if it has not."""
        if self._creator is None:
            raise self._ambiguous(
                attempt,
                lost,
                "and the user of the token is not known, so it cannot be told from another "
                "user's; give BearerAuth a user_id",
            ) from lost
        page = await self._newest(attempt, lost)
        since = self._since(attempt)
        given = self._given[attempt.set_id]
        found = [
            run
            for run in page.simulation_unit_test_set_runs
            if run.simulation_unit_test_set_id == attempt.set_id
            and run.creator == self._creator
            and run.created_at >= since
            and run.id not in given
        ]
        first = min(found, key=lambda run: run.created_at, default=None)
        return None if first is None else CreatedRun(first.id)

    async def _newest(self, attempt: Attempt, lost: AmigoError) -> RunPage:
        """The newest runs of the set."""
        pauses = _Pauses(attempt.patience)
        while True:
            try:
                return await self._calls.page(
                    simulation_unit_test_set_id=attempt.set_id,
                    creator=self._creator or (),
                    sort_by="-created_at",
                    limit=_LOOKED_AT,
                )
            except AmigoError as error:
                # The call has been tried a few times by itself.
                if not (attempt.patience and may_pass(error) and await pauses.another()):
                    reason = f"and looking for it failed: {error}"
                    raise self._ambiguous(attempt, lost, reason) from error

    async def _started(self, attempt: Attempt, created: CreatedRun) -> CreatedRun:
        """Make an id known, whatever happens to the caller."""
        attempt.on_wire = False
        self._worked_at = anyio.current_time()
        run_id = created.simulation_unit_test_set_run_id
        given = self._given[attempt.set_id]
        given.pop(run_id, None)
        given[run_id] = None
        if len(given) > _LOOKED_AT:
            del given[next(iter(given))]
        self._emit(RunStarted(attempt.set_id, run_id, attached=created.attached))
        if attempt.on_start is not None:
            await finish(_awaited(attempt.on_start, created))
        return created

    async def _see_through(self, attempt: Attempt) -> None:
        """After a cancellation: find out whether a run was started, and tell its id."""
        response = attempt.response
        try:
            if response is not None and 400 <= response.status < 500 and response.status != 408:
                return  # it was not
            created = read_created(response)
            if created is None:
                created = await self._find(attempt, AmigoError("the call was cancelled"))
            if created is not None:
                await self._started(attempt, created)
        except AmigoError as error:
            self._emit(StartUnresolved(attempt.set_id, str(error)))

    async def _in_the_way(self, set_id: str) -> Run | None:
        """The unfinished run of this user and set; None if it is not to be seen (any more)."""
        if self._creator is None:
            return None
        try:
            page = await self._calls.page(
                simulation_unit_test_set_id=set_id, creator=self._creator, is_completed=False
            )
        except AmigoError:
            return None  # the conflict itself is what has to be told
        return next(
            (run for run in page.simulation_unit_test_set_runs if run.creator == self._creator),
            None,
        )

    async def _make_way(self, existing: Run | None, *, cancel: bool) -> None:
        """See the run in the way end."""
        if existing is None:
            await anyio.sleep(backoff.full_jitter(2.0))  # it has just ended, or is not to be seen
            return
        if cancel:
            with suppress(ConflictError, NotFoundError):  # it has ended, by itself or otherwise
                await self._calls.cancel(existing.id)
        with suppress(NotFoundError):
            await self._ended(existing.id)

    def _since(self, attempt: Attempt) -> datetime:
        """When the first attempt was sent, by the server's clock, rather too early."""
        if attempt.meant_since is not None:
            return attempt.meant_since - _ROUNDING
        now = anyio.current_time()
        age = now - (now if attempt.sent_at is None else attempt.sent_at)
        return datetime.fromtimestamp(self._clock.earliest() - age, UTC) - _ROUNDING

    def _ambiguous(self, attempt: Attempt, lost: AmigoError, reason: str) -> AmbiguousStartError:
        return AmbiguousStartError(
            f"{lost}; {reason}", unit_test_set_id=attempt.set_id, since=self._since(attempt)
        )


class _Pauses:
    """The pauses between attempts: random, up to 0.5, 1, 2, 4 and then 8 seconds.

    Args:
        patience: Seconds after which, and a few attempts, there is no further one.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until = anyio.current_time() + patience
        self._failing_since = math.inf
        self._attempts = 1
        self._ceilings = backoff.expo(base=2, factor=0.5, max_value=8.0)
        next(self._ceilings)

    def queued(self, seconds: float) -> None:
        """So long there was no room in the budget, which is no failure of the service."""
        self._until += seconds

    async def another(self, worked_at: float = -math.inf) -> bool:
        """Pause before another attempt; False if there has been enough of it.

        Args:
            worked_at: When the same last succeeded for others: where it does not any more,
                patience ends for all, however long they are queued.
        """
        now = anyio.current_time()
        self._failing_since = min(self._failing_since, now)
        until = min(self._until, max(self._failing_since, worked_at) + self._patience)
        if self._attempts >= _ATTEMPTS and now >= until:
            return False
        self._attempts += 1
        await anyio.sleep(backoff.full_jitter(self._ceilings.send(None)))
        return True


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of `choices`.

    Raises:
        ArgumentError: If `value` is none of them.
    """
    if value not in choices:
        named = ", ".join(map(repr, choices))
        raise ArgumentError(f"{argument} must be one of {named}, not {value!r:.80}")


async def _awaited(on_start: OnStart, created: CreatedRun) -> None:
    await on_start(created)
