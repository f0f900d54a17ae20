"""What each set of a batch goes through: start a run, wait for it, download its artifacts."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from amigo_async.batch.details import Details
from amigo_async.batch.downloads import Downloads
from amigo_async.batch.journal import (
    Finished,
    JournalEntry,
    Saved,
    Started,
    StartIntended,
    StartRefused,
)
from amigo_async.batch.options import BatchSettings
from amigo_async.batch.order import SEEN_LENGTHS
from amigo_async.batch.outcomes import BatchItem
from amigo_async.errors import (
    AmbiguousStartError,
    AmigoError,
    ArtifactTimeoutError,
    DeadlineError,
    DecodeError,
    JournalError,
    WaitTimeoutError,
)
from amigo_async.events import Emit, RunFinished, RunProgressed
from amigo_async.models import CreatedRun, Run
from amigo_async.names import EXPLAIN_TIMEOUT, Directory, Names, unit_test_ids
from amigo_async.polling import PATIENCE, Poller, cancel_and_wait, end_of_run, wait_for_completion
from amigo_async.protocol.urls import safe_segment
from amigo_async.server_clock import ServerClock
from amigo_async.starting import Fence, Intention, Starts
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import Verdict, fails_already

# Seconds to wait for the artifacts of a completed run; a run that was cancelled elsewhere may never
# have any.
ARTIFACTS_PATIENCE: Final = 600.0

# A completed run with repeats that never ran is requested again after this many seconds.
_RESULTS_LAG: Final = 5.0


class Pipeline:
    """Starts the run of a set, waits for it and downloads its artifacts; all sets share one.

    The state of a set is in its `BatchItem` alone, so any number of sets can be run concurrently.
    What the failure of one means for the others is the batch's to decide, in `on_failing`.

    Args:
        settings: The options of the batch.
        owner: The service and organization of the sets, for the lengths of their runs.
        starts: Starts runs.
        fence: Lists the runs of a set that exist before the create is sent.
        poller: Waits for runs.
        cancel: Cancels a run.
        cancel_timeout: Returns how many seconds to wait for the end of a run that is cancelled.
        directory: Looks up the names that a verdict depends on.
        details: Has the names that have been read so far.
        downloads: Downloads artifacts.
        clock: The clock of the service.
        emit: Emits events.
        write: Writes a line to the journal, if there is one.
        on_failing: Called with a set whose unfinished run is certain to fail; after each poll that
            shows so.
    """

    def __init__(
        self,
        settings: BatchSettings,
        *,
        owner: str,
        starts: Starts,
        fence: Callable[[str], Awaitable[Fence | None]],
        poller: Poller,
        cancel: Callable[[str], Awaitable[None]],
        cancel_timeout: Callable[[], float],
        directory: Directory,
        details: Details,
        downloads: Downloads,
        clock: ServerClock,
        emit: Emit,
        write: Callable[[JournalEntry], Awaitable[None]],
        on_failing: Callable[[BatchItem], None],
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._starts = starts
        self._fence = fence
        self._poller = poller
        self._cancel = cancel
        self._cancel_timeout = cancel_timeout
        self._directory = directory
        self._details = details
        self._downloads = downloads
        self._clock = clock
        self._emit = emit
        self._write = write
        self._on_failing = on_failing
        self._judging = anyio.Lock()
        self._wants_progress = settings.on_event is not None or settings.on_failure != "continue"

    async def run(self, item: BatchItem, deadline: float) -> bool:
        """Process a set until its artifacts are saved, an error ends it, or time is up.

        An error becomes that of the item: it is never raised, so no set affects another.

        Args:
            item: The set.
            deadline: When time is up, by the clock of the event loop; the run itself goes on.

        Returns:
            Whether time was up: that of the batch, or of waiting for the run.
        """
        with anyio.CancelScope(deadline=deadline) as scope:
            try:
                await self._start_wait_collect(item)
            except Exception as error:  # noqa: BLE001  # it becomes the outcome of this set
                item.error = error
        late = scope.cancelled_caught or isinstance(item.error, DeadlineError | WaitTimeoutError)
        if scope.cancelled_caught:
            item.error = item.error or self._out_of_time(item)
        return late

    async def cancel(self, item: BatchItem, run_id: str) -> None:
        """Cancel the run that was started for a set, and record that it did not end by itself."""
        await self._cancel(run_id)
        at = item.started_at or self._clock.utcnow()
        await self._try_to_write(item, Started(item.set_id, run_id, at, cancelled=True))

    async def _start_wait_collect(self, item: BatchItem) -> None:
        """Start, wait and download, beginning after the last step in the journal."""
        if item.run is not None and item.verdict is not None and self._settings.known_by_name:
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
                fence=self._fence,
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
                # A run of an earlier process must be seen in progress: only then is its end known.
                wants_progress=self._wants_progress or not item.watched,
            ) as waiter,
            waiting,
        ):
            try:
                run = await _readable_part(item, end_of_run(poller, waiter, on_progress))
            finally:
                item.run = poller.last([run_id]).get(run_id, item.run)
                item.poll_error = poller.last_errors([run_id]).get(run_id)
        if waiting.cancelled_caught:
            bound = self._cancel_timeout()
            cancel = partial(self.cancel, item)
            state, run = await cancel_and_wait(poller, cancel, run_id, timeout=bound)
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
        verdict = await self._judge(item, run, at, self._details.names)
        if self._settings.known_by_name and not run.was_cut_short:
            names = await self._directory.describe([run], timeout=EXPLAIN_TIMEOUT)
            verdict = await self._judge(item, run, at, names)
        if verdict == before:
            return
        self._emit(RunFinished(item.set_id, run.id, verdict))
        if before is None and item.watched and verdict != "cancelled":
            seconds = (at - run.created_at).total_seconds()
            SEEN_LENGTHS.add(self._owner, item.set_id, seconds)
        if not isinstance(item.error, DecodeError):  # a newer version may read all of it
            ended = item.finished_at or at
            line = Finished(item.set_id, verdict, run, ended, watched=item.watched)
            await self._try_to_write(item, line)

    async def _judge(self, item: BatchItem, run: Run, at: datetime, names: Names) -> Verdict:
        """Judge a completed run, even if the deadline passes meanwhile.

        Of many runs that end at once, each is judged in a turn of the loop of its own: with a
        confidence that takes milliseconds.
        """
        with anyio.CancelScope(shield=True):
            async with self._judging:
                verdict = item.finished(run, at, names)
        return verdict

    def _progressed(self, item: BatchItem, run: Run) -> None:
        item.run, item.watched = run, True
        done, total = run.progress or (None, None)
        self._emit(RunProgressed(item.set_id, run.id, done, total, run.failed_metrics, run.errored))
        # With a gate some repeats may fail, so only a completed run can be judged.
        if self._settings.gate is None and (run.failed_metrics or run.errored):
            known = self._settings.known_failing_of(unit_test_ids(run), self._details.names)
            if known is not None and (not known or fails_already(run, known)):
                self._on_failing(item)

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

    def _wants_artifacts(self, item: BatchItem) -> bool:
        """Whether artifacts were asked for, are not saved yet, and may exist."""
        cut_short = item.verdict == "cancelled" and not (
            item.run is not None and item.run.artifacts_generated
        )
        return self._settings.artifacts_dir is not None and item.artifacts is None and not cut_short

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
