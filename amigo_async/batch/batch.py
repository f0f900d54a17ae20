"""Run many sets concurrently: start, wait and download, each set as soon as it can proceed."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from amigo_async.artifacts import Artifacts
from amigo_async.batch.baselines import Baselines
from amigo_async.batch.details import Details
from amigo_async.batch.downloads import Downloads
from amigo_async.batch.journal import (
    Finished,
    Journal,
    JournaledSteps,
    JournalEntry,
    JournalHeader,
    Saved,
    Started,
    StartIntended,
    StartRefused,
    open_journal,
)
from amigo_async.batch.lengths import SEEN_LENGTHS, KnownLengths, known_from, size_of
from amigo_async.batch.options import BatchSettings, check_artifacts_dir, make_artifacts_dir
from amigo_async.batch.order import LengthEstimate, estimate_lengths, longest_first
from amigo_async.batch.outcomes import BatchItem, BatchResult, RunOutcome
from amigo_async.cancellation import finish
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArgumentError,
    ArtifactTimeoutError,
    DeadlineError,
    DecodeError,
    JournalError,
    WaitTimeoutError,
)
from amigo_async.escaping import log_line
from amigo_async.events import (
    BatchFinished,
    BatchListener,
    Events,
    RunFinished,
    RunLeft,
    RunProgressed,
    SetFinished,
    TooFewRepeats,
)
from amigo_async.models import CreatedRun, Run
from amigo_async.names import (
    EXPLAIN_TIMEOUT,
    Directory,
    Names,
    combined,
    select_unit_tests,
    unit_test_ids,
)
from amigo_async.polling import PATIENCE, Poller, cancel_and_wait, end_of_run, wait_for_completion
from amigo_async.polling.cancelling import cancel_all, cancel_bound
from amigo_async.protocol.endpoints import CREATE
from amigo_async.protocol.requests import is_id
from amigo_async.protocol.urls import safe_segment
from amigo_async.resources.evaluations import Evaluations
from amigo_async.resources.runs import RunCalls
from amigo_async.server_clock import ServerClock
from amigo_async.starting import Fence, Intention, Starts
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import fails_already, first_reasons, sets_too_short, too_few_repeats

# Seconds to wait for the artifacts of a completed run; a run that was cancelled elsewhere may never
# have any.
ARTIFACTS_PATIENCE: Final = 600.0

# A completed run with repeats that never ran is requested again after this many seconds.
_RESULTS_LAG: Final = 5.0

# Seconds that the first start waits to learn whether the sets have enough repeats for the gate.
_GATE_CHECK: Final = 2.0

# Seconds for which all creates but the first wait for the sizes of sets.
_SIZES_TIMEOUT: Final = 2.0


class Batch:
    """A running batch: iterate over it to get each outcome as soon as it is known.

    `AmigoClient.open_batch` opens one.

    Args:
        set_ids: The sets, in the order of the final result.
        settings: The options of the batch.
        header: The first line of a new journal; an existing one has to match it.
        starts: Starts runs.
        poller: Waits for runs.
        calls: Cancels and lists runs.
        artifacts: Opens artifacts.
        directory: Looks up names.
        evaluations: Lists the evaluations that explain failures.
        clock: The clock of the service.
        events: Emits events, and lets the listener of the batch subscribe.
        check: Raises if the client cannot be used, because it is closed for instance.
    """

    def __init__(
        self,
        set_ids: Iterable[str],
        settings: BatchSettings,
        *,
        header: JournalHeader,
        starts: Starts,
        poller: Poller,
        calls: RunCalls,
        artifacts: Artifacts,
        directory: Directory,
        evaluations: Evaluations,
        clock: ServerClock,
        events: Events,
        check: Callable[[], None],
    ) -> None:
        self._set_ids = tuple(set_ids)
        self._id = token_hex(6)
        self._check = check
        self._settings = settings
        self._header = header
        self._starts = starts
        self._poller = poller
        self._cancel = calls.cancel
        self._clock = clock
        self._events = events
        self._items: dict[str, BatchItem] = {}
        self._outcomes: dict[str, RunOutcome] = {}
        self._ready: asyncio.Queue[RunOutcome] = asyncio.Queue()
        self._times = Counter(self._set_ids)
        self._given = 0
        self._journal: Journal | None = None
        self._wants_progress = settings.on_event is not None or settings.on_failure != "continue"
        self._began = 0.0
        self._deadline = math.inf
        self._directory = directory
        self._known_by_name = not all(map(is_id, settings.known_failing))
        self._notes: list[str] = []
        self._downloads = Downloads(artifacts, events.emit)
        self._concluded = asyncio.Event()
        self._details = Details(
            settings,
            directory=directory,
            evaluations=evaluations,
            batch_id=self._id,
            emit=events.emit,
            write=self._write,
        )
        self._baselines = Baselines(settings, calls=calls, batch_id=self._id, emit=events.emit)
        self._earlier = KnownLengths({}, {})
        self._order: Sequence[str] = self._set_ids
        self._listed = asyncio.Event()
        self._fences = starts.fences(self._pending, self._take_sizes)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Process the sets while the context is open; leaving it stops the work."""
        self._check()
        self._began = anyio.current_time()
        if self._settings.timeout is not None:
            self._deadline = self._began + self._settings.timeout
        async with AsyncExitStack() as stack:
            wants_files = self._settings.artifacts_dir is not None
            if wants_files:
                await in_thread(make_artifacts_dir, self._settings)
            await self._open_journal(stack)
            if self._settings.lengths_from is not None:
                self._earlier = await in_thread(known_from, self._settings.lengths_from)
            if wants_files and any(item.artifacts is None for item in self._items.values()):
                await in_thread(check_artifacts_dir, self._settings)
            if self._settings.on_event is not None:
                listener = BatchListener(self._settings.on_event, self._items, self._id)
                await stack.enter_async_context(listener.subscribed_to(self._events))
            await self._check_gate()
            stack.callback(self._announce_end)
            stack.push_async_callback(self._cancel_on_exit)
            failure: Exception | None = None
            async with anyio.create_task_group() as group:
                group.start_soon(self._process_all, group)
                group.start_soon(self._read_details)
                group.start_soon(self._read_baselines)
                try:
                    yield self
                except Exception as error:  # noqa: BLE001  # the user's: raised outside the group
                    failure = error
                group.cancel_scope.cancel()
            if failure is not None:
                raise failure

    def __aiter__(self) -> Self:
        """Return the batch itself."""
        return self

    async def __anext__(self) -> RunOutcome:
        """Wait for the next outcome; a set that was named twice comes twice.

        After the last outcome the iteration ends once names, reasons and baselines were read, if
        they were asked for.
        """
        if self._given == len(self._set_ids):
            await self._details.read.wait()
            await self._baselines.read.wait()
            raise StopAsyncIteration
        outcome = await self._ready.get()
        self._given += 1
        return self._completed(outcome)

    def result(self) -> BatchResult:
        """Return the outcomes of all sets as of now, in the order asked for.

        Sets that are not finished yet have the outcome they would have if the batch ended now.
        """
        outcomes = tuple(
            self._completed(
                self._outcomes.get(set_id) or self._items[set_id].outcome(out_of_time=True)
            )
            for set_id in self._set_ids
        )
        age = timedelta(seconds=anyio.current_time() - self._began)
        return BatchResult(
            outcomes,
            began_at=self._clock.utcnow() - age,
            names=self._details.names,
            explanations=self._details.explanations,
            notes=(*self._notes, *self._unknown_failing()),
        )

    def _completed(self, outcome: RunOutcome) -> RunOutcome:
        """Return an outcome with what was read beside the work on its set."""
        set_id = outcome.unit_test_set_id
        return replace(
            outcome,
            name=self._details.names.unit_test_sets.get(set_id),
            comparison=self._baselines.comparisons.get(set_id),
            uncompared=self._baselines.reasons.get(set_id),
        )

    def _known_failing(self, ids: Collection[str], names: Names) -> Collection[str] | None:
        """Which of the unit tests are known to fail; None if their names are not all known yet."""
        if self._known_by_name and not names.unit_tests.keys() >= set(ids):
            return None
        return select_unit_tests(self._settings.known_failing, ids, names)

    def _unknown_failing(self) -> list[str]:
        """A note about what of `known_failing` fits no unit test, once all runs have ended."""
        runs = [item.run for item in self._items.values() if item.verdict is not None and item.run]
        shown = all(run.unit_test_run_specs for run in runs)
        if not self._concluded.is_set() or len(runs) < len(self._items) or not shown:
            return []
        names = combined(self._details.names, self._names_before())
        unknown = [
            one
            for one in self._settings.known_failing
            if not any(select_unit_tests([one], unit_test_ids(run), names) for run in runs)
        ]
        if not unknown:
            return []
        listed = ", ".join(first_reasons(tuple(map(log_line, unknown))))
        return [f"known_failing has what is no unit test of these sets: {listed}"]

    def _pending(self) -> list[str]:
        """The sets whose runs are still to be started, in that order."""
        items = [self._items[set_id] for set_id in dict.fromkeys(self._order)]
        return [i.set_id for i in items if i.run_id is None and i.set_id not in self._outcomes]

    async def _open_journal(self, stack: AsyncExitStack) -> None:
        """Open the journal, if there is one, and set up the items from it."""
        progress: dict[str, JournaledSteps] = {}
        if self._settings.journal is not None:
            opened = open_journal(self._settings.journal, self._header)
            self._journal = await stack.enter_async_context(opened)
            progress = self._journal.progress
        for set_id in self._set_ids:
            before = progress.get(set_id) or JournaledSteps()
            self._items[set_id] = BatchItem(set_id, before, self._settings, self._names_before())
            # Each run that has ended is judged again; so many at once would block the loop.
            await asyncio.sleep(0)

    def _names_before(self) -> Names:
        """The names that the journal holds from earlier calls."""
        return Names() if self._journal is None else self._journal.names

    async def _read_details(self) -> None:
        items = self._items.values()
        await self._details.read_all(items, self._names_before(), self._concluded)

    async def _check_gate(self) -> None:
        """Say which sets have too few repeats to pass the gate, before the first run is started.

        What the service does not tell soon is not waited for: the verdicts will say it.

        Raises:
            ArgumentError: If no set of the batch could pass.
        """
        gate, pending = self._settings.gate, self._pending()
        if gate is None or gate.confidence is None or not pending:
            return
        sets, names = [], Names()

        async def take(read: Names) -> None:
            nonlocal names
            names = read

        with anyio.move_on_after(_GATE_CHECK), suppress(AmigoError):
            sets = await self._directory.read_sets(pending)
            if self._known_by_name:
                await self._directory.describe_sets(pending, take)
        short = sets_too_short(sets, gate, lambda ids: self._known_failing(ids, names))
        if not short:
            return
        words = too_few_repeats(gate, short)
        begun = any(item.before.intent is not None for item in self._items.values())
        if len(short) == len(self._items) and not begun:
            raise ArgumentError(f"gate: no set could pass, so nothing was started: {words}")
        self._notes.append(words)
        ids = tuple(one.id for one in short)
        reason = log_line(words)
        self._events.emit(TooFewRepeats(ids, gate.fewest_repeats, reason, batch_id=self._id))

    async def _read_baselines(self) -> None:
        await self._baselines.read_all(self._items.values(), self._concluded)

    async def _process_all(self, group: TaskGroup) -> None:
        """Process all sets, each in a task of its own; the tasks' order is that of the creates.

        What an earlier call has started comes first.
        """
        begun = [s for s, i in self._items.items() if i.run_id or i.before.intent]
        new = [s for s, i in self._items.items() if not (i.run_id or i.before.intent)]
        self._order = [*begun, *new]
        for set_id in begun:
            group.start_soon(self._process, self._items[set_id])
            await asyncio.sleep(0)  # many may have ended, whose outcomes are built at once
        longest = self._settings.order == "auto" and self._settings.on_failure == "continue"
        # The runs of one window of the rate limit start together in any order.
        if longest and len(new) > CREATE.limit:
            first, *new = longest_first(new, self._estimates(new))
            group.start_soon(self._process, self._items[first])  # never waits
            estimates = self._estimates(new)
            if not estimates or any(one.basis == "none" for one in estimates.values()):
                with anyio.move_on_after(_SIZES_TIMEOUT):
                    if self._settings.describe:  # then the sets are read in any case
                        await self._directory.read_sizes([first, *new])
                    else:
                        await self._listed.wait()
            new = longest_first(new, self._estimates(new))
            self._order = [*begun, first, *new]
        for set_id in new:
            group.start_soon(self._process, self._items[set_id])

    def _take_sizes(self, newest: Sequence[Run]) -> None:
        """Take in the sizes of sets from runs that are listed before the first create is sent."""
        for run in newest:
            self._earlier.sizes.setdefault(run.simulation_unit_test_set_id, size_of(run))
        self._listed.set()

    def _estimates(self, set_ids: Sequence[str]) -> dict[str, LengthEstimate]:
        """How long the runs of some sets will take, as far as that is known."""
        lengths = SEEN_LENGTHS.of(self._header.owner, set_ids) | self._earlier.lengths
        sizes = self._directory.sizes(set_ids)
        return estimate_lengths(set_ids, lengths, self._earlier.sizes, sizes)

    async def _process(self, item: BatchItem) -> None:
        """Process one set to its outcome; an error of one set does not affect the others."""
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                await self._start_wait_collect(item)
            except Exception as error:  # noqa: BLE001  # it becomes the outcome of this set
                item.error = error
        late = scope.cancelled_caught or isinstance(item.error, DeadlineError | WaitTimeoutError)
        if scope.cancelled_caught:
            item.error = item.error or self._out_of_time(item)
        await self._baselines.compare(item)
        self._conclude(item, item.outcome(out_of_time=late))

    def _out_of_time(self, item: BatchItem) -> AmigoError | None:
        """The error for what the deadline of the batch cut off; None if nothing was missing."""
        if item.unfinished_run is not None:
            return WaitTimeoutError(
                [item.unfinished_run],
                timeout=self._settings.timeout or 0.0,
                last_runs={} if item.run is None else {item.unfinished_run: item.run},
                last_errors=(
                    {} if item.poll_error is None else {item.unfinished_run: item.poll_error}
                ),
            )
        if item.run_id is not None and self._wants_artifacts(item):
            generated = item.run is not None and item.run.artifacts_generated
            done = "downloaded" if generated else "generated"
            reason = f"the deadline passed before it was {done}"
            return ArtifactTimeoutError(reason, run_id=item.run_id)
        return None

    def _wants_artifacts(self, item: BatchItem) -> bool:
        """Whether artifacts were asked for, are not saved yet, and may exist."""
        cut_short = item.verdict == "cancelled" and not (
            item.run is not None and item.run.artifacts_generated
        )
        return self._settings.artifacts_dir is not None and item.artifacts is None and not cut_short

    def _conclude(self, item: BatchItem, outcome: RunOutcome) -> None:
        self._outcomes[item.set_id] = outcome
        self._listed.set()  # even if the first start fails before anything is listed
        self._announce(outcome)
        for _ in range(self._times[item.set_id]):
            self._ready.put_nowait(outcome)
        if len(self._outcomes) == len(self._items):
            self._concluded.set()
        if outcome.verdict in ("failed", "errored", "not_started"):
            self._react(item)

    def _announce(self, outcome: RunOutcome) -> None:
        error = outcome.error
        self._events.emit(
            SetFinished(
                *(outcome.unit_test_set_id, outcome.run_id, outcome.verdict),
                error=None if error is None else log_line(str(error)),
                error_type=None if error is None else type(error).__name__,
                batch_id=self._id,
            )
        )

    def _announce_end(self) -> None:
        """Emit the end of sets that were left before they had an outcome, and of the batch."""
        result = self.result()
        left = (o for o in result.outcomes if o.unit_test_set_id not in self._outcomes)
        for outcome in {o.unit_test_set_id: o for o in left}.values():
            self._announce(outcome)
        seconds = anyio.current_time() - self._began
        counts = {str(verdict): count for verdict, count in result.counts.items()}
        self._events.emit(BatchFinished(self._id, result.passed, counts, seconds))

    async def _start_wait_collect(self, item: BatchItem) -> None:
        """Start, wait and download, beginning after the last step in the journal."""
        if item.run is not None and item.verdict is not None and self._known_by_name:
            await self._finished(item, item.run)  # the journal may lack names
        if item.run_id is None:
            await self._start(item)
        if item.unfinished_run is not None:
            await self._wait(item, item.unfinished_run)
        if item.run is not None and item.verdict is not None:
            await self._collect(item, item.run)

    async def _start(self, item: BatchItem) -> None:
        intent = item.before.intent
        with item.starting:
            await self._starts.start(
                item.set_id,
                self._settings.on_conflict,
                fence=self._fences.before,
                recorder=_Recorder(item, self._clock, self._write, self._try_to_write),
                earlier=None if intent is None else Intention(intent.at, intent.fence),
                patience=PATIENCE,
            )

    async def _wait(self, item: BatchItem, run_id: str) -> None:
        """Wait until a run is completed; cancel it when the rest of the batch is cancelled."""

        def on_progress(run: Run) -> None:
            self._progressed(item, run)

        run: Run | None = None
        poller = self._poller
        poller.expect(run_id, item.set_id)
        # An attached run may belong to someone else, so a batch never cancels it.
        waiting = anyio.CancelScope() if item.attached else item.waiting
        with (
            poller.waiting_for(
                [run_id],
                interval=self._settings.poll_interval,
                wants_progress=self._wants_progress,
            ) as waiter,
            waiting,
        ):
            try:
                run = await _readable_part(item, end_of_run(poller, waiter, on_progress))
            finally:
                item.run = poller.last([run_id]).get(run_id, item.run)
                item.poll_error = poller.last_errors([run_id]).get(run_id)
        if waiting.cancelled_caught:
            bound = cancel_bound(len(self._unfinished(attached=False)))
            state, run = await cancel_and_wait(poller, self._cancel, run_id, timeout=bound)
            item.cancelled = state == "cancelled"
            if state == "running":
                item.run = run or item.run
                raise WaitTimeoutError([run_id], timeout=bound)
        if run is not None and run.was_cut_short and not item.cancelled:
            # Results may be listed a little later than the end of the run.
            await anyio.sleep(_RESULTS_LAG)
            run = await _readable_part(item, wait_for_completion(poller, run_id))
        if run is not None:
            await self._finished(item, run)
            await self._starts.report_second_run(run_id)

    async def _finished(self, item: BatchItem, run: Run) -> None:
        """Take in a completed run; emit and record its verdict if that is new or has changed."""
        before, at = item.verdict, self._clock.utcnow()
        # First with the names that are known: should the deadline pass while others are read, the
        # run has a verdict.
        verdict = item.finished(run, at, self._details.names)
        if self._known_by_name and not run.was_cut_short:
            names = await self._directory.describe([run], timeout=EXPLAIN_TIMEOUT)
            verdict = item.finished(run, at, names)
        if verdict == before:
            return
        self._events.emit(RunFinished(item.set_id, run.id, verdict))
        if before is None and item.before.started is None and verdict != "cancelled":
            seconds = (at - run.created_at).total_seconds()
            SEEN_LENGTHS.add(self._header.owner, item.set_id, seconds)
        if not isinstance(item.error, DecodeError):  # a newer version may read all of it
            await self._try_to_write(item, Finished(item.set_id, verdict, run, at))

    def _progressed(self, item: BatchItem, run: Run) -> None:
        item.run = run
        done, total = run.progress or (None, None)
        self._events.emit(
            RunProgressed(item.set_id, run.id, done, total, run.failed_metrics, run.errored)
        )
        # With a gate some repeats may fail, so only a completed run can be judged.
        if self._settings.gate is None and (run.failed_metrics or run.errored):
            known = self._known_failing(unit_test_ids(run), self._details.names)
            if known is not None and (not known or fails_already(run, known)):
                self._react(item)

    async def _collect(self, item: BatchItem, run: Run) -> None:
        """Download the artifacts of a completed run as soon as they are generated."""
        before = item.before.saved
        if self._settings.artifacts_dir is None:
            if before is not None and not await in_thread(os.path.exists, before.path):
                item.artifacts = None  # in the journal, but no longer on disk
            return
        item.artifacts = None  # until the file from the journal has been checked
        if not self._wants_artifacts(item):
            return
        if not run.artifacts_generated:
            await self._await_artifacts(item, run.id)
        # A folder for each run: the store may give all artifacts the same name.
        folder = Path(self._settings.artifacts_dir) / safe_segment(run.id)
        known = None if before is None else before.file
        file = await self._downloads.download(run.id, folder, known)
        if before is not None and before.file == file:
            item.saved(Path(file.path), before.at)
        else:
            at = self._clock.utcnow()
            item.saved(Path(file.path), at)
            line = Saved(item.set_id, file.path, at, file.size, file.checksum)
            await self._try_to_write(item, line)

    async def _await_artifacts(self, item: BatchItem, run_id: str) -> None:
        """Wait until the artifacts of a completed run are generated.

        Its flags may still become true meanwhile; the verdict follows the last state seen.
        """
        began = anyio.current_time()
        waiting = wait_for_completion(
            self._poller,
            run_id,
            timeout=ARTIFACTS_PATIENCE,
            poll_interval=self._settings.poll_interval,
            require_artifacts=True,
            on_progress=lambda later: self._finished(item, later),
        )
        try:
            await self._finished(item, await _readable_part(item, waiting))
        except WaitTimeoutError as error:
            waited = anyio.current_time() - began
            reason = f"the service did not generate it within {waited:.3g} s of the run's end"
            raise ArtifactTimeoutError(reason, run_id=run_id) from error

    def _react(self, failed: BatchItem) -> None:
        """Apply `on_failure` to the other sets, as one has failed or is going to fail."""
        if self._settings.on_failure == "continue":
            return
        for item in self._items.values():
            if item is not failed:
                item.starting.cancel()
                if self._settings.on_failure == "cancel_rest":
                    item.waiting.cancel()

    async def _cancel_on_exit(self) -> None:
        """Cancel the unfinished runs that the batch started, if `on_exit` asks for it."""
        if self._settings.on_exit == "cancel":
            for set_id, run_id in self._unfinished(attached=True).items():
                self._events.emit(RunLeft(set_id, run_id))
            await finish(cancel_all(self._cancel, self._unfinished(attached=False).values()))

    def _unfinished(self, *, attached: bool) -> dict[str, str]:
        """The unfinished runs by set id: attached ones, or those started here."""
        return {
            item.set_id: item.unfinished_run
            for item in self._items.values()
            if item.unfinished_run is not None and item.attached == attached
        }

    async def _write(self, line: JournalEntry) -> None:
        if self._journal is not None:
            await self._journal.write(line)

    async def _try_to_write(self, item: BatchItem, line: JournalEntry) -> None:
        """Write a line; a failure does not end the set, but is the error of its outcome."""
        try:
            await self._write(line)
        except JournalError as error:
            item.error = error


class _Recorder:
    """Record the steps of a start in the item and the journal; see `starting.Recorder`.

    Args:
        item: The set that is started.
        clock: The clock of the service.
        write: Writes a line, or raises.
        try_to_write: Writes a line, or stores the error in the item.
    """

    def __init__(
        self,
        item: BatchItem,
        clock: ServerClock,
        write: Callable[[JournalEntry], Awaitable[None]],
        try_to_write: Callable[[BatchItem, JournalEntry], Awaitable[None]],
    ) -> None:
        self._item = item
        self._clock = clock
        self._write = write
        self._try_to_write = try_to_write

    async def intended(self, fence: Fence | None) -> None:
        """Record that the create request is about to be sent."""
        at = datetime.fromtimestamp(self._clock.earliest(), UTC)
        await self._write(StartIntended(self._item.set_id, at, fence))

    async def refused(self) -> None:
        """Record that the create request started no run."""
        line = StartRefused(self._item.set_id, self._clock.utcnow())
        await self._try_to_write(self._item, line)

    async def started(self, created: CreatedRun) -> None:
        """Record the id of the run."""
        item, attached = self._item, created.attached
        at, run_id = self._clock.utcnow(), created.simulation_unit_test_set_run_id
        item.started(run_id, at, attached=attached)
        await self._try_to_write(item, Started(item.set_id, run_id, at, attached=attached))

    def unresolved(self, error: AmbiguousStartError) -> None:
        """Keep the error for the outcome; a resumed batch searches for the run again."""
        self._item.error = error


async def _readable_part(item: BatchItem, waiting: Awaitable[Run]) -> Run:
    """Await a run; if only part of it can be read, keep the error for the outcome."""
    try:
        return await waiting
    except DecodeError as error:
        if error.run is None:
            raise
        item.error = error
        return error.run
