"""A fleet: many organizations at once, wherever and however often an engine carries out its jobs.

Budgets are per organization, so the work is divided by organization: one job each. A job may be
carried out more than once, because a worker was lost: its journal, and a start that takes what is
there, make sure that no set is run twice.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
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
    RunOutcome,
    check_sets,
)
from amigo_async.client import AmigoClient
from amigo_async.errors import AmigoError, ArgumentError, ConfigurationError, JournalError
from amigo_async.events import ArtifactProgress, Event
from amigo_async.protocol.requests import organization_segment
from amigo_async.starting import OnConflict
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import Gate, Verdict

Connect: TypeAlias = Callable[[str], AmigoClient]
Put: TypeAlias = Callable[[RunOutcome, Path], Any | Awaitable[Any]]
OnProgress: TypeAlias = Callable[[str, Event], None]

# A journal that an earlier worker still holds is tried again after so many seconds.
_HELD: Final = 2.0

# The least that is left of a deadline, in seconds, so that each set still gets its verdict.
_LEAST: Final = 0.001


class Environment(Struct, frozen=True):
    """Makes an organization's client from variables of the environment it is called in.

    Only the names of the variables travel to the workers; what they hold is read there.

    Args:
        prefix: What the names begin with: ``"ACME"`` reads ``ACME_API_KEY``,
            ``ACME_API_KEY_ID``, ``ACME_USER_ID`` and, where it is set, ``ACME_BASE_URL``.
    """

    prefix: str = "AMIGO"

    def __call__(self, organization_id: str) -> AmigoClient:
        """A client of `organization_id`.

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
    """The sets of one organization. It has no secret; `connect` says where the workers find them.

    Args:
        organization_id: The organization.
        unit_test_set_ids: Its sets; one named twice is run once and reported twice.
        connect: Called with `organization_id` on the worker, to make the client there: an
            `Environment`, or a function that reads the secrets from where the worker has them.
        artifacts: Whether to fetch the artifacts.
        poll_interval: As for `AmigoClient.run_many`, like all that follow.
        on_conflict: ``"attach"`` is what makes it safe to carry a job out again where a worker
            was lost so early that the journal has nothing of a run.
        on_failure: As for `AmigoClient.run_many`.
        on_exit: As for `AmigoClient.run_many`.
        gate: As for `AmigoClient.run_many`.
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


class JobResult(Struct, frozen=True, kw_only=True):
    """What became of one job.

    Attributes:
        organization_id: The organization.
        result: The outcomes of its sets; None where the job as a whole failed.
        error: Why the job as a whole failed; None if it did not.
        put: What `put` returned for each artifact, by run id.
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
    """What became of all jobs.

    Attributes:
        jobs: One for each, in the order asked for.
    """

    jobs: Sequence[JobResult]

    @property
    def passed(self) -> bool:
        """Whether every set of every job passed."""
        return all(job.passed for job in self.jobs)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many sets there are of each verdict that occurs."""
        batches = [job.result.outcomes for job in self.jobs if job.result is not None]
        return dict(Counter(outcome.verdict for outcomes in batches for outcome in outcomes))


def check_jobs(jobs: Iterable[FleetJob]) -> tuple[FleetJob, ...]:
    """The jobs, if they can be right.

    Raises:
        ArgumentError: If one cannot, or an organization has two; the message says which.
        ConfigurationError: If an organization's id cannot be one.
    """
    checked = tuple(jobs)
    if not checked:
        raise ArgumentError("jobs is empty: give at least one job")
    for job in checked:
        if not isinstance(job, FleetJob):
            raise ArgumentError(f"jobs must be FleetJobs, not {type(job).__name__}")
        organization_segment(job.organization_id)
        check_sets(job.unit_test_set_ids)
        BatchSettings.from_options(_options(job))
        if not callable(job.connect):
            raise ArgumentError(
                f"connect of organization {job.organization_id} must be a function that makes "
                "the client on the worker"
            )
    names = Counter(job.organization_id for job in checked)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise ArgumentError(
            f"organization {twice[0]} has {names[twice[0]]} jobs, which would share one budget; "
            "put all its sets into one"
        )
    return checked


class Assignment(Struct, frozen=True):
    """A job as it travels to a worker.

    Args:
        job: The job.
        folder: A folder that all workers share, for the journals and the artifacts.
        put: Called with each outcome and the file of its artifacts; None to leave artifacts in
            `folder`.
        expires_at: When the fleet's time is over, in seconds since the epoch; None for never.
    """

    job: FleetJob
    folder: str
    put: Put | None = None
    expires_at: float | None = None


async def carry_out(assignment: Assignment, report: Callable[[Event], None]) -> JobResult:
    """Carry out a job, or carry on with it where an earlier worker was stopped.

    Args:
        assignment: The job.
        report: Called with each event of its batch but the progress of downloads.
    """
    organization_id = assignment.job.organization_id
    try:
        while True:
            try:
                return await _carry_out(assignment, report)
            except JournalError as error:
                # An earlier worker was given up, yet still works: what it does is in the journal.
                if not error.in_use or _is_over(assignment):
                    raise
            await anyio.sleep(_HELD)
    except AmigoError as error:
        return JobResult(organization_id=organization_id, error=error)


async def _carry_out(assignment: Assignment, report: Callable[[Event], None]) -> JobResult:
    job = assignment.job
    home = Path(assignment.folder) / organization_segment(job.organization_id)
    await in_thread(partial(home.mkdir, parents=True, exist_ok=True))

    def on_event(event: Event) -> None:
        if not isinstance(event, ArtifactProgress):
            report(event)

    with _place(home, assignment.put) as artifacts:
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


def _place(home: Path, put: Put | None) -> AbstractContextManager[str | Path]:
    """Where artifacts are downloaded to: to stay, or until they are put elsewhere."""
    if put is None:
        return nullcontext(home)
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


async def _collect(job: FleetJob, batch: Batch, put: Put | None) -> JobResult:
    """See a batch to its end, and put each artifact where it belongs as it comes."""
    values: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    async for outcome in batch:
        run_id, path = outcome.run_id, outcome.artifacts
        if put is None or run_id is None or path is None or run_id in values:
            continue
        try:
            values[run_id] = await _call(put, outcome, path)
        except Exception as error:  # noqa: BLE001  # the user's: it concerns this artifact alone
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
    """Call a function of the user's, in a thread unless it is a coroutine function."""
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
    )


def _left(assignment: Assignment) -> float | None:
    """Seconds until the fleet's time is over; None for never."""
    if assignment.expires_at is None:
        return None
    return max(_LEAST, assignment.expires_at - time.time())


def _is_over(assignment: Assignment) -> bool:
    """Whether the fleet's time is over."""
    return assignment.expires_at is not None and time.time() >= assignment.expires_at
