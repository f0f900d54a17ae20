"""Run many sets concurrently, each through its pipeline, and collect their outcomes."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
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
    Journal,
    JournaledSteps,
    JournalEntry,
    JournalHeader,
    open_journal,
)
from amigo_async.batch.options import BatchSettings, check_artifacts_dir, make_artifacts_dir
from amigo_async.batch.order import (
    SEEN_LENGTHS,
    KnownLengths,
    LengthEstimate,
    estimate_lengths,
    known_from,
    longest_first,
    size_of,
)
from amigo_async.batch.outcomes import BatchItem, BatchResult, RunOutcome, notes_of_unknown
from amigo_async.batch.pipeline import Pipeline
from amigo_async.cancellation import finish
from amigo_async.errors import AmigoError, ArgumentError
from amigo_async.escaping import log_line
from amigo_async.events import (
    BatchFinished,
    BatchListener,
    Events,
    RunLeft,
    SetFinished,
    TooFewRepeats,
)
from amigo_async.models import Run
from amigo_async.names import Directory, Names, combined
from amigo_async.polling import Poller
from amigo_async.polling.cancelling import cancel_all, cancel_bound
from amigo_async.protocol.endpoints import CREATE
from amigo_async.resources.evaluations import Evaluations
from amigo_async.resources.runs import RunCalls
from amigo_async.server_clock import ServerClock
from amigo_async.starting import Starts
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import sets_too_short, too_few_repeats

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
        self._clock = clock
        self._events = events
        self._items: dict[str, BatchItem] = {}
        self._outcomes: dict[str, RunOutcome] = {}
        self._ready: asyncio.Queue[RunOutcome] = asyncio.Queue()
        self._times = Counter(self._set_ids)
        self._given = 0
        self._journal: Journal | None = None
        self._began = 0.0
        self._deadline = math.inf
        self._directory = directory
        self._notes: list[str] = []
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
        self._pipeline = Pipeline(
            settings,
            owner=header.owner,
            starts=starts,
            fence=starts.fences(self._pending, self._take_sizes).before,
            poller=poller,
            cancel=calls.cancel,
            cancel_timeout=lambda: cancel_bound(len(self._unfinished(attached=False))),
            directory=directory,
            details=self._details,
            downloads=Downloads(artifacts, events.emit),
            clock=clock,
            emit=events.emit,
            write=self._write,
            on_failing=self._react,
        )

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
            failure: BaseException | None = None
            async with anyio.create_task_group() as group:
                group.start_soon(self._process_all, group)
                group.start_soon(self._read_details)
                group.start_soon(self._read_baselines)
                try:
                    yield self
                except asyncio.CancelledError:
                    raise  # the group has to know of it
                except BaseException as error:  # noqa: BLE001  # the user's: raised outside
                    failure = error  # the group, which would wrap SystemExit and GeneratorExit too
                group.cancel_scope.cancel()
            if failure is not None:
                raise failure

    def __aiter__(self) -> Self:
        """Return the batch itself."""
        return self

    async def __anext__(self) -> RunOutcome:
        """Wait for the next outcome; a set that was named twice comes twice.

        After the last outcome the iteration ends once names, reasons and baselines were read, if
        they were asked for. Several tasks may iterate; each outcome comes to one of them. Once the
        batch was left, sets that were not finished come with their outcome at that time.
        """
        if self._given == len(self._set_ids):
            await self._details.read.wait()
            await self._baselines.read.wait()
            raise StopAsyncIteration
        self._given += 1  # claimed before it is awaited, as several tasks may iterate
        try:
            outcome = await self._ready.get()
        except BaseException:
            self._given -= 1
            raise
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
            notes=(*self._notes, *self._unknown_failing(outcomes)),
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

    def _unknown_failing(self, outcomes: Iterable[RunOutcome]) -> list[str]:
        """A note about what of `known_failing` fits no unit test, once all runs have ended."""
        if not self._concluded.is_set():
            return []
        names = combined(self._details.names, self._names_before())
        return notes_of_unknown(self._settings.known_failing, outcomes, names)

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
            if self._settings.known_by_name:
                await self._directory.describe_sets(pending, take)
        short = sets_too_short(sets, gate, lambda ids: self._settings.known_failing_of(ids, names))
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
        late = await self._pipeline.run(item, self._deadline)
        await self._baselines.compare(item)
        self._conclude(item, item.outcome(out_of_time=late))

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
        """Emit the end of sets that were left before they had an outcome, and of the batch.

        A task that still iterates gets these outcomes as well, rather than waiting for ever.
        """
        result = self.result()
        left = [o for o in result.outcomes if o.unit_test_set_id not in self._outcomes]
        for outcome in {o.unit_test_set_id: o for o in left}.values():
            self._announce(outcome)
        for outcome in left:
            self._ready.put_nowait(outcome)
        seconds = anyio.current_time() - self._began
        counts = {str(verdict): count for verdict, count in result.counts.items()}
        self._events.emit(BatchFinished(self._id, result.passed, counts, seconds))

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
            items = {i: self._items[s] for s, i in self._unfinished(attached=False).items()}

            async def cancel(run_id: str) -> None:
                await self._pipeline.cancel(items[run_id], run_id)
                items[run_id].cancelled = True

            await finish(cancel_all(cancel, items))

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
