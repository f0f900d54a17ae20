"""Take many sets from start to artifacts, each as soon as it can go on."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import anyio
from msgspec import Struct

from amigo_async.artifacts import Artifacts
from amigo_async.batch.downloads import Downloads
from amigo_async.batch.item import Member
from amigo_async.batch.journal import (
    Finished,
    Intent,
    Journal,
    Line,
    Record,
    Refused,
    Saved,
    Started,
    open_journal,
)
from amigo_async.batch.listener import Listening
from amigo_async.batch.options import Options, check_folder, make_folder
from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.cancellation import finish
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArtifactTimeoutError,
    DeadlineError,
    DecodeError,
    JournalError,
    WaitTimeoutError,
)
from amigo_async.events import Events, RunFinished, RunLeft, RunProgressed
from amigo_async.models import CreatedRun, Run
from amigo_async.polling import PATIENCE, Poller, cancel_and_wait, end_of_run, wait_for_completion
from amigo_async.polling.cancelling import cancel_all, cancel_bound
from amigo_async.protocol.urls import safe_segment
from amigo_async.server_clock import ServerClock
from amigo_async.starting import Fence, Intention, Starts
from amigo_async.threads import in_thread

if TYPE_CHECKING:
    from anyio.abc import TaskGroup  # loads more than the rest of this module

# How long the artifacts of a run that is over are waited for, in seconds; a run that was cancelled
# elsewhere may never have any.
ARTIFACTS_PATIENCE: Final = 600.0

# A run that is over with repeats that never ran is looked at again after this many seconds.
_RESULTS_LAG: Final = 5.0


class Rooms(Struct, frozen=True):
    """What a batch works with."""

    base_url: str
    organization_id: str
    user_id: str | None
    starts: Starts
    poller: Poller
    cancel: Callable[[str], Awaitable[None]]
    artifacts: Artifacts
    clock: ServerClock
    events: Events


class Batch:
    """A batch at work: iterate over it to get each outcome as it comes.

    Args:
        set_ids: The sets, in the order in which outcomes are reported at the end.
        options: How to run them.
        rooms: What to work with.
    """

    def __init__(self, set_ids: Iterable[str], options: Options, rooms: Rooms) -> None:
        self._set_ids = tuple(set_ids)
        self._options = options
        self._rooms = rooms
        self._members: dict[str, Member] = {}
        self._outcomes: dict[str, RunOutcome] = {}
        self._ready: asyncio.Queue[RunOutcome] = asyncio.Queue()
        self._times = Counter(self._set_ids)
        self._given = 0
        self._journal: Journal | None = None
        self._wants_progress = options.on_event is not None or options.on_failure != "continue"
        self._began = 0.0
        self._deadline = math.inf
        self._downloads = Downloads(rooms.artifacts)
        self._fences = rooms.starts.fences(self._pending)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Work on the sets for as long as the context is open."""
        self._began = anyio.current_time()
        if self._options.timeout is not None:
            self._deadline = self._began + self._options.timeout
        async with AsyncExitStack() as stack:
            wants_files = self._options.artifacts_dir is not None
            if wants_files:
                await in_thread(make_folder, self._options)
            records = await self._open_journal(stack)
            self._members = self._make_members(records)
            if wants_files and any(member.artifacts is None for member in self._members.values()):
                await in_thread(check_folder, self._options)
            if self._options.on_event is not None:
                listening = Listening(self._options.on_event, self._members)
                await stack.enter_async_context(listening.open(self._rooms.events))
            stack.push_async_callback(self._see_off)
            failure: Exception | None = None
            async with anyio.create_task_group() as group:
                self._begin(group)
                try:
                    yield self
                except Exception as error:  # noqa: BLE001  # the user's: to come out as it is
                    failure = error
                group.cancel_scope.cancel()
            if failure is not None:
                raise failure

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> RunOutcome:
        """The next outcome to come; a set that was named twice is given twice."""
        if self._given == len(self._set_ids):
            raise StopAsyncIteration
        outcome = await self._ready.get()
        self._given += 1
        return outcome

    def result(self) -> BatchResult:
        """The outcomes of all sets, as they are now, in the order asked for."""
        outcomes = tuple(
            self._outcomes.get(set_id) or self._members[set_id].outcome(out_of_time=True)
            for set_id in self._set_ids
        )
        age = timedelta(seconds=anyio.current_time() - self._began)
        return BatchResult(outcomes, began_at=self._rooms.clock.utcnow() - age)

    def _make_members(self, records: Mapping[str, Record]) -> dict[str, Member]:
        gate = self._options.gate
        return {s: Member(s, records.get(s, Record()), gate) for s in self._set_ids}

    def _pending(self) -> list[str]:
        """The sets that are still to be started."""
        return [s for s, m in self._members.items() if m.run_id is None and s not in self._outcomes]

    async def _open_journal(self, stack: AsyncExitStack) -> dict[str, Record]:
        if self._options.journal is None:
            return {}
        self._journal = await stack.enter_async_context(
            open_journal(
                self._options.journal,
                base_url=self._rooms.base_url,
                organization_id=self._rooms.organization_id,
                user_id=self._rooms.user_id,
            )
        )
        return self._journal.records

    def _begin(self, group: TaskGroup) -> None:
        for member in self._members.values():
            group.start_soon(self._attend, member)

    async def _attend(self, member: Member) -> None:
        """Take one set through the batch; whatever happens to it is its outcome."""
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                await self._take_through(member)
            except Exception as error:  # noqa: BLE001  # one set must not take the others with it
                member.error = error
        late = scope.cancelled_caught or isinstance(member.error, DeadlineError | WaitTimeoutError)
        if scope.cancelled_caught:
            member.error = member.error or self._out_of_time(member)
        self._conclude(member, member.outcome(out_of_time=late))

    def _out_of_time(self, member: Member) -> AmigoError | None:
        """What the deadline of the batch has kept from being done."""
        if member.unfinished_run is not None:
            return WaitTimeoutError(
                [member.unfinished_run],
                timeout=self._options.timeout or 0.0,
                last_runs={} if member.run is None else {member.unfinished_run: member.run},
                last_errors=(
                    {} if member.look_error is None else {member.unfinished_run: member.look_error}
                ),
            )
        if member.run_id is not None and self._wants_artifacts(member):
            generated = member.run is not None and member.run.artifacts_generated
            done = "fetched" if generated else "generated"
            reason = f"the time was over before it was {done}"
            return ArtifactTimeoutError(reason, run_id=member.run_id)
        return None

    def _wants_artifacts(self, member: Member) -> bool:
        """Whether artifacts are asked for that are not had, and that the run may have."""
        cut_short = member.verdict == "cancelled" and not (
            member.run is not None and member.run.artifacts_generated
        )
        return (
            self._options.artifacts_dir is not None and member.artifacts is None and not cut_short
        )

    def _conclude(self, member: Member, outcome: RunOutcome) -> None:
        self._outcomes[member.set_id] = outcome
        for _ in range(self._times[member.set_id]):
            self._ready.put_nowait(outcome)
        if outcome.verdict in ("failed", "errored", "not_started"):
            self._react(member)

    async def _take_through(self, member: Member) -> None:
        """Start, wait and collect, from wherever the journal says it stands."""
        if member.run_id is None:
            await self._start(member)
        if member.unfinished_run is not None:
            await self._wait(member, member.unfinished_run)
        if member.run is not None and member.verdict is not None:
            await self._collect(member, member.run)

    async def _start(self, member: Member) -> None:
        intent = member.record.intent
        with member.starting:
            await self._rooms.starts.start(
                member.set_id,
                self._options.on_conflict,
                fence=self._fences.before,
                recorder=_Recorder(member, self._rooms.clock, self._note, self._try_to_note),
                earlier=None if intent is None else Intention(intent.at, intent.fence),
                patience=PATIENCE,
            )

    async def _wait(self, member: Member, run_id: str) -> None:
        """Wait for the end of a run, or bring it about where the rest is to be cancelled."""

        def on_progress(run: Run) -> None:
            self._progressed(member, run)

        run: Run | None = None
        poller = self._rooms.poller
        poller.expect(run_id, member.set_id)
        # A run that was found may be another's: nothing that happens here cancels it.
        waiting = anyio.CancelScope() if member.attached else member.waiting
        with (
            poller.watching(
                [run_id],
                interval=self._options.poll_interval,
                wants_progress=self._wants_progress,
            ) as watch,
            waiting,
        ):
            try:
                run = await _as_far_as_read(member, end_of_run(poller, watch, on_progress))
            finally:
                member.run = poller.last([run_id]).get(run_id, member.run)
                member.look_error = poller.last_errors([run_id]).get(run_id)
        if waiting.cancelled_caught:
            bound = cancel_bound(len(self._unfinished(attached=False)))
            state, run = await cancel_and_wait(poller, self._rooms.cancel, run_id, timeout=bound)
            member.cancelled = state == "cancelled"
            if state == "running":
                member.run = run or member.run
                raise WaitTimeoutError([run_id], timeout=bound)
        if run is not None and run.was_cut_short and not member.cancelled:
            # One look is not believed: results may be listed a little later than the end.
            await anyio.sleep(_RESULTS_LAG)
            run = await _as_far_as_read(member, wait_for_completion(poller, run_id))
        if run is not None:
            await self._finished(member, run)
            await self._rooms.starts.report_second_run(run_id)

    async def _finished(self, member: Member, run: Run) -> None:
        """Take in a state of a run that is over, and tell of the verdict where it is another."""
        before, at = member.verdict, self._rooms.clock.utcnow()
        verdict = member.finished(run, at)
        if verdict == before:
            return
        self._rooms.events.emit(RunFinished(member.set_id, run.id, verdict))
        if not isinstance(member.error, DecodeError):  # resumed, another version may read it whole
            await self._try_to_note(member, Finished(member.set_id, verdict, run, at))

    def _progressed(self, member: Member, run: Run) -> None:
        member.run = run
        done, total = run.progress or (None, None)
        self._rooms.events.emit(
            RunProgressed(member.set_id, run.id, done, total, run.failed_metrics, run.errored)
        )
        # With a gate, some repeats may fail: only the whole run can be judged.
        if self._options.gate is None and (run.failed_metrics or run.errored):
            self._react(member)

    async def _collect(self, member: Member, run: Run) -> None:
        """Fetch the artifacts of a run that is over, once they are there."""
        before = member.record.saved
        if self._options.artifacts_dir is None:
            if before is not None and not await in_thread(os.path.exists, before.path):
                member.artifacts = None  # the journal has it, the disk has not
            return
        member.artifacts = None  # what the journal says of it is still to be seen
        if not self._wants_artifacts(member):
            return
        if not run.artifacts_generated:
            await self._await_artifacts(member, run.id)
        # A folder for each run: the store may call all of their artifacts the same.
        folder = Path(self._options.artifacts_dir) / safe_segment(run.id)
        known = None if before is None else before.file
        file = await self._downloads.fetch(run.id, folder, known)
        if before is not None and before.file == file:
            member.saved(Path(file.path), before.at)
        else:
            at = self._rooms.clock.utcnow()
            member.saved(Path(file.path), at)
            line = Saved(member.set_id, file.path, at, file.size, file.checksum)
            await self._try_to_note(member, line)

    async def _await_artifacts(self, member: Member, run_id: str) -> None:
        """Wait until the artifacts of a run that is over are there.

        Its flags may become true meanwhile: the verdict is that of the last state seen.
        """
        began = anyio.current_time()
        waiting = wait_for_completion(
            self._rooms.poller,
            run_id,
            timeout=ARTIFACTS_PATIENCE,
            poll_interval=self._options.poll_interval,
            require_artifacts=True,
            on_progress=lambda later: self._finished(member, later),
        )
        try:
            await self._finished(member, await _as_far_as_read(member, waiting))
        except WaitTimeoutError as error:
            waited = anyio.current_time() - began
            reason = f"the service did not generate it within {waited:.3g} s of the run's end"
            raise ArtifactTimeoutError(reason, run_id=run_id) from error

    def _react(self, failed: Member) -> None:
        """A set failed, or is seen to be failing: do about the others as asked."""
        if self._options.on_failure == "continue":
            return
        for member in self._members.values():
            if member is not failed:
                member.starting.cancel()
                if self._options.on_failure == "cancel_rest":
                    member.waiting.cancel()

    async def _see_off(self) -> None:
        """Before the batch is left: cancel its own runs that go on, if asked to."""
        if self._options.on_exit == "cancel":
            for set_id, run_id in self._unfinished(attached=True).items():
                self._rooms.events.emit(RunLeft(set_id, run_id))
            await finish(cancel_all(self._rooms.cancel, self._unfinished(attached=False).values()))

    def _unfinished(self, *, attached: bool) -> dict[str, str]:
        """The runs that go on, by set: those that were found, or those that were started here."""
        return {
            member.set_id: member.unfinished_run
            for member in self._members.values()
            if member.unfinished_run is not None and member.attached == attached
        }

    async def _note(self, line: Line) -> None:
        if self._journal is not None:
            await self._journal.write(line)

    async def _try_to_note(self, member: Member, line: Line) -> None:
        """Write a line; if that fails the run is not lost, but its outcome has the error."""
        try:
            await self._note(line)
        except JournalError as error:
            member.error = error


class _Recorder:
    """Notes what becomes of a start; as `amigo_async.starting.Recorder`.

    Args:
        member: The set that is started.
        clock: The service's clock.
        note: Writes a line, or raises.
        try_to_note: Writes a line, or leaves the error in the outcome.
    """

    def __init__(
        self,
        member: Member,
        clock: ServerClock,
        note: Callable[[Line], Awaitable[None]],
        try_to_note: Callable[[Member, Line], Awaitable[None]],
    ) -> None:
        self._member = member
        self._clock = clock
        self._note = note
        self._try_to_note = try_to_note

    async def intended(self, fence: Fence | None) -> None:
        """The create is about to leave."""
        at = datetime.fromtimestamp(self._clock.earliest(), UTC)
        await self._note(Intent(self._member.set_id, at, fence))

    async def refused(self) -> None:
        """It started nothing."""
        line = Refused(self._member.set_id, self._clock.utcnow())
        await self._try_to_note(self._member, line)

    async def started(self, created: CreatedRun) -> None:
        """The id is known."""
        member, attached = self._member, created.attached
        at, run_id = self._clock.utcnow(), created.simulation_unit_test_set_run_id
        member.started(run_id, at, attached=attached)
        await self._try_to_note(member, Started(member.set_id, run_id, at, attached=attached))

    def unresolved(self, error: AmbiguousStartError) -> None:
        """The outcome says so; a resumed batch looks again."""
        self._member.error = error


async def _as_far_as_read(member: Member, waiting: Awaitable[Run]) -> Run:
    """The run that is waited for; where some of it cannot be read, the outcome has that error."""
    try:
        return await waiting
    except DecodeError as error:
        if error.run is None:
            raise
        member.error = error
        return error.run
