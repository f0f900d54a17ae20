"""Run the sets of many organizations as jobs on the workers of a distributed engine.

Rate limits are per organization, so there is one job for each organization. An engine may execute a
job more than once if a worker is lost; the journal of the job, and starts that attach to unfinished
runs, ensure that no set is run twice.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
from msgspec import Struct, field
from msgspec.structs import replace

from amigo_async.batch import (
    Batch,
    BatchOptions,
    BatchResult,
    BatchSettings,
    OnExit,
    OnFailure,
    Order,
    RunOutcome,
    check_baselines,
    check_sets,
)
from amigo_async.batch.options import Baseline
from amigo_async.client import AmigoClient
from amigo_async.errors import AmigoError, ArgumentError, ConfigurationError, JournalError
from amigo_async.events import ArtifactProgress, Event
from amigo_async.names import EXPLAIN_TIMEOUT
from amigo_async.protocol.requests import organization_segment
from amigo_async.starting import OnConflict
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import Gate, Verdict

Connect: TypeAlias = Callable[[str], AmigoClient]
Put: TypeAlias = Callable[[RunOutcome, Path], Any | Awaitable[Any]]
OnProgress: TypeAlias = Callable[[str, Event], None]

# Seconds until a journal is tried again that an earlier worker has open.
_JOURNAL_PAUSE: Final = 2.0

# The shortest timeout of a batch, in seconds, so that each set still gets a verdict.
_SHORTEST_TIMEOUT: Final = 0.001


class Environment(Struct, frozen=True):
    """Creates the client of an organization from environment variables of the worker.

    Only the prefix is sent to the workers, not the values of the variables.

    Args:
        prefix: Prefix of the names: ``"ACME"`` reads ``ACME_API_KEY``, ``ACME_API_KEY_ID``,
            ``ACME_USER_ID`` and, if it is set, ``ACME_BASE_URL``.
    """

    prefix: str = "AMIGO"

    def __call__(self, organization_id: str) -> AmigoClient:
        """Create a client.

        Args:
            organization_id: Id of the organization.

        Raises:
            ConfigurationError: If a variable is missing; the message names it.
        """
        return AmigoClient(
            organization_id=organization_id,
            api_key=self._read("API_KEY"),
            api_key_id=self._read("API_KEY_ID"),
            user_id=self._read("USER_ID"),
            base_url=os.environ.get(f"{self.prefix}_BASE_URL") or None,
        )

    def _read(self, name: str) -> str:
        value = os.environ.get(f"{self.prefix}_{name}")
        if not value:
            raise ConfigurationError(
                f"{self.prefix}_{name} is missing in the environment of the worker"
            )
        return value


class FleetJob(Struct, frozen=True, kw_only=True):
    """The sets of one organization to run. Contains no secret; `connect` reads those on the worker.

    Args:
        organization_id: Id of the organization.
        unit_test_set_ids: Ids of its sets; a set named twice is run once and reported twice.
        connect: Called with `organization_id` on the worker to create the client: an
            `Environment`, or a function that reads the secrets from where the worker has them.
        artifacts: Whether to download the artifacts.
        poll_interval: Seconds between two polls; None adapts to how long the runs take.
        on_conflict: What to do if the user has an unfinished run of a set: ``"attach"`` (take that
            run), ``"raise"`` (report it as an error), ``"wait"`` (let it finish, then start) or
            ``"restart"`` (cancel it, then start). Only ``"attach"``, the default, is safe if a
            worker is lost before the journal records a run.
        on_failure: What to do when a set has failed, or is certain to fail: ``"continue"``,
            ``"stop"`` (start no more sets) or ``"cancel_rest"`` (start no more sets and cancel the
            unfinished runs).
        on_exit: What to do with unfinished runs when the job is cancelled or times out:
            ``"leave"`` them running or ``"cancel"`` them.
        gate: What counts as passing; None uses the flags of each run.
        known_failing: Ids of unit tests that are known to fail, and decide nothing; or their
            names, with `describe`.
        order: Which sets to start first: ``"auto"`` (the longest, as far as lengths or sizes are
            known and `on_failure` is ``"continue"``) or ``"given"``.
        describe: Whether to read the names of the sets, unit tests and metrics.
        explain: Whether to read why runs failed.
        explain_timeout: Seconds that reading may take after the last outcome; None for no limit.
        baseline: Past runs to compare with: ``"last"``, a number of the last, or run ids by set id;
            None compares nothing.
    """

    organization_id: str
    unit_test_set_ids: Sequence[str]
    connect: Connect = field(default_factory=Environment)
    artifacts: bool = True
    poll_interval: float | None = None
    on_conflict: OnConflict = "attach"
    on_failure: OnFailure = "continue"
    on_exit: OnExit = "leave"
    gate: Gate | None = None
    known_failing: Collection[str] = ()
    order: Order = "auto"
    describe: bool = False
    explain: bool = False
    explain_timeout: float | None = EXPLAIN_TIMEOUT
    baseline: Baseline | None = None


class JobResult(Struct, frozen=True, kw_only=True):
    """The result of one job.

    Attributes:
        organization_id: Id of the organization.
        result: The outcomes of its sets; None if the job as a whole failed.
        error: Why the job as a whole failed; None if it did not.
        put: The return values of `put`, by run id.
    """

    organization_id: str
    result: BatchResult | None = None
    error: Exception | None = None
    put: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every set passed."""
        return self.error is None and self.result is not None and self.result.passed


class FleetResult(Struct, frozen=True):
    """The results of all jobs.

    Attributes:
        jobs: One result for each job, in the order given.
    """

    jobs: Sequence[JobResult]

    @property
    def passed(self) -> bool:
        """Whether every set of every job passed."""
        return all(job.passed for job in self.jobs)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Number of sets by verdict, for the verdicts that occur."""
        batches = [job.result.outcomes for job in self.jobs if job.result is not None]
        return dict(Counter(outcome.verdict for outcomes in batches for outcome in outcomes))


def check_jobs(jobs: Iterable[FleetJob]) -> tuple[FleetJob, ...]:
    """Return the jobs as a tuple, if all of them are valid.

    Raises:
        ArgumentError: If a job is invalid, or an organization has two; the message says which.
        ConfigurationError: If the id of an organization is invalid.
    """
    checked = tuple(jobs)
    if not checked:
        raise ArgumentError("jobs is empty: give at least one job")
    for job in checked:
        if not isinstance(job, FleetJob):
            raise ArgumentError(f"jobs must be FleetJobs, not {type(job).__name__}")
        organization_segment(job.organization_id)
        set_ids = check_sets(job.unit_test_set_ids)
        check_baselines(BatchSettings.from_options(_options(job)), set_ids)
        if not callable(job.connect):
            raise ArgumentError(
                f"connect of organization {job.organization_id} must be a function that creates "
                "the client on the worker"
            )
    names = Counter(job.organization_id for job in checked)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise ArgumentError(
            f"organization {twice[0]} has {names[twice[0]]} jobs, which would share its rate "
            "limits; put all its sets into one job"
        )
    return checked


class Assignment(Struct, frozen=True):
    """A job as it is sent to a worker.

    Args:
        job: The job.
        folder: Folder for journals and artifacts, shared by all workers.
        put: Called with each outcome and the file of its artifacts; None leaves artifacts in
            `folder`.
        expires_at: Deadline of all jobs, in seconds since the epoch; None for none.
    """

    job: FleetJob
    folder: str
    put: Put | None = None
    expires_at: float | None = None


async def execute_job(assignment: Assignment, report: Callable[[Event], None]) -> JobResult:
    """Execute a job; resume it from its journal if an earlier worker was stopped.

    Args:
        assignment: The job.
        report: Called with each event of the batch, except the progress of downloads.

    Returns:
        The outcomes of the sets, or the error of the job.
    """
    organization_id = assignment.job.organization_id
    try:
        while True:
            try:
                return await _execute_once(assignment, report)
            except JournalError as error:
                # A worker considered lost still runs the batch, and records it in the journal.
                if not error.in_use or _is_over(assignment):
                    raise
            await anyio.sleep(_JOURNAL_PAUSE)
    except AmigoError as error:
        return JobResult(organization_id=organization_id, error=error)


async def _execute_once(assignment: Assignment, report: Callable[[Event], None]) -> JobResult:
    job = assignment.job
    home = Path(assignment.folder) / organization_segment(job.organization_id)
    await in_thread(partial(home.mkdir, parents=True, exist_ok=True))

    def on_event(event: Event) -> None:
        if not isinstance(event, ArtifactProgress):
            report(event)

    with _download_folder(home, assignment.put) as artifacts:
        options: BatchOptions = {
            **_options(job),
            "artifacts_dir": artifacts if job.artifacts else None,
            "timeout": _left(assignment),
            "journal": home / "journal.jsonl",
            "on_event": on_event,
        }
        async with (
            job.connect(job.organization_id) as client,
            client.open_batch(job.unit_test_set_ids, **options) as batch,
        ):
            return await _collect(job, batch, assignment.put)


def _download_folder(home: Path, put: Put | None) -> AbstractContextManager[str | Path]:
    """Return the folder for downloads: `home`, or a temporary one if `put` moves them elsewhere."""
    if put is None:
        return nullcontext(home)
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


async def _collect(job: FleetJob, batch: Batch, put: Put | None) -> JobResult:
    """Wait for all outcomes of a batch, and pass each artifact to `put` as it arrives."""
    values: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    async for outcome in batch:
        run_id, path = outcome.run_id, outcome.artifacts
        if put is None or run_id is None or path is None or run_id in values:
            continue
        try:
            values[run_id] = await _call(put, outcome, path)
        except Exception as error:  # noqa: BLE001  # an error of `put` concerns this artifact alone
            failed[run_id] = error
        await in_thread(partial(path.unlink, missing_ok=True))
    result = batch.result()
    if put is not None:
        outcomes = [_without_file(outcome, failed) for outcome in result.outcomes]
        result = replace(result, outcomes=outcomes)
    return JobResult(organization_id=job.organization_id, result=result, put=values)


def _without_file(outcome: RunOutcome, failed: Mapping[str, Exception]) -> RunOutcome:
    error = failed.get(outcome.run_id or "", outcome.error)
    return replace(outcome, artifacts=None, error=error)


async def _call(put: Put, outcome: RunOutcome, path: Path) -> Any:
    """Call `put`, in a thread unless it is a coroutine function."""
    if inspect.iscoroutinefunction(put):
        return await put(outcome, path)
    return await asyncio.to_thread(put, outcome, path)


def _options(job: FleetJob) -> BatchOptions:
    return BatchOptions(
        poll_interval=job.poll_interval,
        on_conflict=job.on_conflict,
        on_failure=job.on_failure,
        on_exit=job.on_exit,
        gate=job.gate,
        known_failing=job.known_failing,
        order=job.order,
        describe=job.describe,
        explain=job.explain,
        explain_timeout=job.explain_timeout,
        baseline=job.baseline,
    )


def _left(assignment: Assignment) -> float | None:
    """Return the seconds until the deadline of the jobs; None if there is none."""
    if assignment.expires_at is None:
        return None
    return max(_SHORTEST_TIMEOUT, assignment.expires_at - time.time())


def _is_over(assignment: Assignment) -> bool:
    """Return whether the deadline of the jobs has passed."""
    return assignment.expires_at is not None and time.time() >= assignment.expires_at
