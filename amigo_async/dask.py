"""Run the sets of many organizations on a Dask cluster. Needs the extra ``dask``.

::

    from distributed import Client
    from amigo_async.dask import FleetJob, run_fleet

    async with Client("tcp://scheduler:8786", asynchronous=True) as dask:
        jobs = [FleetJob(organization_id=name, unit_test_set_ids=ids) for name, ids in sets.items()]
        result = await run_fleet(dask, jobs, "/shared/results")

Dask assigns the jobs to workers, and repeats the jobs of a lost worker on others. Its setting
``allowed-failures`` (three by default) must be larger than the number of workers a job may lose.
"""

from __future__ import annotations

import asyncio
import io
import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, Final, Union
from uuid import uuid4

import anyio
import msgspec

from amigo_async.cancellation import finish
from amigo_async.checks import check_seconds
from amigo_async.errors import AmigoError, ArgumentError, missing_extra
from amigo_async.escaping import encode_json
from amigo_async.events import Event
from amigo_async.files import check_path
from amigo_async.fleet import (
    Assignment,
    Connect,
    Environment,
    FleetJob,
    FleetResult,
    JobResult,
    OnProgress,
    Put,
    check_jobs,
    execute_job,
)
from amigo_async.redact import Secret

try:
    import cloudpickle
    import distributed
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("cloudpickle", "distributed"):
        raise
    raise missing_extra("amigo_async.dask", "dask") from None

__all__ = [
    "Connect",
    "Environment",
    "FleetJob",
    "FleetResult",
    "JobResult",
    "OnProgress",
    "Put",
    "run_fleet",
]

# Seconds to wait for results after the deadline: the jobs have ended by then, and only their
# results are still being transferred.
_RESULT_GRACE: Final = 30.0

# Seconds for telling the workers to stop, while the caller is cancelled.
_GRACE: Final = 10.0

# Progress that a worker reports: the id of the organization and the event.
_EVENT: Final[Any] = Union[tuple(Event.__subclasses__())]  # noqa: UP007  # built, not written
_decode = msgspec.json.Decoder(tuple[str, _EVENT]).decode

# The running jobs of this process, each with its fleet and event loop, so that it can be stopped.
_RUNNING: Final[dict[asyncio.Task[JobResult], tuple[str, asyncio.AbstractEventLoop]]] = {}

# The fleets stopped lately: one of their jobs may only be starting.
_STOPPED: Final[deque[str]] = deque(maxlen=64)


async def run_fleet(
    client: distributed.Client,
    jobs: Iterable[FleetJob],
    folder: str | PathLike[str],
    *,
    put: Put | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> FleetResult:
    """Run the sets of many organizations on a Dask cluster, one task for each organization.

    An error of a job is in its result and does not affect other jobs. If a worker is lost, Dask
    gives its jobs to other workers, which resume from the journals, so that no set is run twice.
    The same call with the same folder resumes after this process itself was stopped.

    Leaving the call, also by cancellation, withdraws jobs that have not begun and stops the others;
    `on_exit` of a job says what happens to its unfinished runs.

    Args:
        client: Client of the cluster, asynchronous or not; the caller closes it.
        jobs: The jobs, one for each organization.
        folder: Folder shared by all workers, created if it is missing. Each organization has a
            subfolder for its journal and, without `put`, the artifacts, in a subfolder for each
            run.
        put: Function or coroutine function called on the worker with each outcome that has
            artifacts and the path of their file, to store the file elsewhere; a plain function
            is called in a thread. The file is removed afterwards. Return values are in
            `JobResult.put`. If a worker is lost, it may be called again for the same run. None
            leaves the artifacts in `folder`.
        timeout: Seconds for all jobs, including the time in Dask's queue, by the clocks of the
            workers; None for no limit.
        on_progress: Called with the id of the organization and each event of its batch; if a
            worker is lost, some events come again. Exceptions go to the exception handler of the
            event loop. None for none.

    Returns:
        The result of each job, in the order given.

    Raises:
        ArgumentError: If an argument is invalid, or a job contains a secret; nothing was sent.
        ConfigurationError: If the id of an organization is invalid; nothing was sent.
    """
    check_seconds("timeout", timeout)
    expires_at = None if timeout is None else time.time() + timeout
    assignments = [
        Assignment(job, check_path("folder", folder), put, expires_at) for job in check_jobs(jobs)
    ]
    for assignment in assignments:
        _check_secrets(assignment)
    fleet_id = f"amigo-fleet-{uuid4().hex}"
    with _listening(client, fleet_id, on_progress):
        futures = [
            client.submit(_work, a, fleet_id, key=f"{fleet_id}-{a.job.organization_id}", pure=False)
            for a in assignments
        ]
        deadline = math.inf if timeout is None else anyio.current_time() + timeout + _RESULT_GRACE
        try:
            pairs = zip(assignments, futures, strict=True)
            return FleetResult([await _result(client, a.job, f, deadline) for a, f in pairs])
        finally:
            if not all(future.done() for future in futures):
                await finish(_stop_jobs(client, futures, fleet_id), grace=_GRACE)


async def _result(
    client: distributed.Client,
    job: FleetJob,
    future: distributed.Future[JobResult],
    deadline: float,
) -> JobResult:
    """Wait for the result of a job; if no worker returns one, make a result with an error."""
    cause: Exception | None = None
    with anyio.CancelScope(deadline=deadline):
        try:
            result: JobResult = await _call(client, future.result)
        except Exception as error:  # noqa: BLE001  # of Dask, or of code sent to the worker
            cause = error
        else:
            return result
    why = "no worker returned it in time" if cause is None else f"{type(cause).__name__}: {cause}"
    lost = AmigoError(
        f"the result of organization {job.organization_id} was lost by the cluster ({why}); the "
        "same call with the same folder resumes"
    )
    lost.__cause__ = cause
    return JobResult(organization_id=job.organization_id, error=lost)


async def _stop_jobs(
    client: distributed.Client, futures: list[distributed.Future[JobResult]], fleet_id: str
) -> None:
    await _call(client, client.cancel, futures)
    await _call(client, client.run, _stop, fleet_id, on_error="ignore")


async def _call(
    client: distributed.Client, function: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    """Call a method of Dask's client, in a thread if the client is not asynchronous."""
    if client.asynchronous:
        return await function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)


@contextmanager
def _listening(
    client: distributed.Client, topic: str, on_progress: OnProgress | None
) -> Iterator[None]:
    """Pass progress of the workers to `on_progress`, in the event loop of the caller."""
    if on_progress is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def receive(logged: tuple[float, bytes]) -> None:
        loop.call_soon_threadsafe(on_progress, *_decode(logged[1]))

    client.subscribe_topic(topic, receive)
    try:
        yield
    finally:
        client.unsubscribe_topic(topic)


def _work(assignment: Assignment, fleet_id: str) -> JobResult:
    """Execute a job in a thread of a worker, with its own event loop."""
    worker = distributed.get_worker()
    organization_id = assignment.job.organization_id

    def report(event: Event) -> None:
        worker.log_event(fleet_id, encode_json((organization_id, event)).encode())

    async def main() -> JobResult:
        task = asyncio.create_task(execute_job(assignment, report))
        _RUNNING[task] = fleet_id, asyncio.get_running_loop()
        if fleet_id in _STOPPED:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            error = AmigoError("the fleet was stopped before the job was done")
            return JobResult(organization_id=organization_id, error=error)
        finally:
            del _RUNNING[task]

    return asyncio.run(main())


def _stop(fleet_id: str) -> None:
    """Stop the jobs of a fleet that run in this process."""
    _STOPPED.append(fleet_id)
    for task, (fleet, loop) in tuple(_RUNNING.items()):
        if fleet == fleet_id:
            loop.call_soon_threadsafe(task.cancel)


class _Checked(cloudpickle.Pickler):  # type: ignore[misc]  # without types
    """Refuses to pickle secrets."""

    def persistent_id(self, thing: object) -> None:
        """Check each object before it is pickled."""
        if isinstance(thing, Secret):
            raise ArgumentError(
                "a job contains a secret, which would be sent to the workers: let connect and put "
                "read it there, from the environment or a secret store"
            )


def _check_secrets(assignment: Assignment) -> None:
    try:
        _Checked(io.BytesIO()).dump(assignment)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ArgumentError(
            f"the job of organization {assignment.job.organization_id} cannot be sent to the "
            f"workers: {error}"
        ) from error
