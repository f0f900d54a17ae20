"""A fleet on the workers of a Dask cluster. Needs the extra ``dask``.

::

    from distributed import Client
    from amigo_async.dask import FleetJob, run_fleet

    async with Client("tcp://scheduler:8786", asynchronous=True) as dask:
        jobs = [FleetJob(organization_id=name, unit_test_set_ids=ids) for name, ids in sets.items()]
        result = await run_fleet(dask, jobs, "/shared/results")

Dask says which worker does what, and does again what a lost worker was doing; it needs
``allowed-failures`` (three by default) to be more than the workers a job may lose.
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
import cloudpickle
import distributed
import msgspec

from amigo_async.cancellation import finish
from amigo_async.errors import AmigoError, ArgumentError
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
    carry_out,
    check_jobs,
)
from amigo_async.polling import check_seconds
from amigo_async.redact import Secret

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

# How long after the end of its time the fleet is waited for, in seconds: its jobs are over then,
# and only what became of them is on its way.
_REPORTING: Final = 30.0

# How long it may take to tell the workers to leave, in seconds, while the caller is cancelled.
_GRACE: Final = 10.0

# What is told on the way: the organization and the event.
_EVENT: Final[Any] = Union[tuple(Event.__subclasses__())]  # noqa: UP007  # built, not written
_decode = msgspec.json.Decoder(tuple[str, _EVENT]).decode

# The jobs at work in this process, with their fleet and loop, so that they can be told to leave.
_AT_WORK: Final[dict[asyncio.Task[JobResult], tuple[str, asyncio.AbstractEventLoop]]] = {}

# The fleets that were left lately: a job may just be about to begin.
_LEFT: Final[deque[str]] = deque(maxlen=64)


async def run_fleet(
    client: distributed.Client,
    jobs: Iterable[FleetJob],
    folder: str | PathLike[str],
    *,
    put: Put | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> FleetResult:
    """Run the sets of many organizations on a Dask cluster, one task an organization.

    What goes wrong with a job is in its result and does not concern the others. If a worker is
    lost, Dask gives its jobs to others, which carry on from the journals: no set is run twice.
    The same call with the same folder carries on after this process itself was stopped.

    Leaving the call, be it by a cancellation, takes back the jobs that have not begun and tells
    the workers to leave the others; what becomes of their runs says `on_exit` of the job.

    Args:
        client: A client of the cluster, asynchronous or not; the caller closes it.
        jobs: What to do; one for each organization.
        folder: A folder that all workers share, made where there is none. Each organization has
            a folder in it with its journal and, without `put`, the artifacts: those of a run in
            a folder with its id.
        put: Called on the worker with each outcome that has artifacts and the file that holds
            them, to put it elsewhere; may be a coroutine function, and is otherwise called in a
            thread. The file is removed afterwards. What it returns is in `JobResult.put`. It may
            be called again for the same run if a worker was lost. None leaves them in `folder`.
        timeout: Seconds for all of it, time in Dask's queue included; None for as long as it
            takes. It is kept by the workers' clocks.
        on_progress: Called with the organization and each event of its batch, as it comes; after
            a worker was lost some come again. What it raises goes to the exception handler of
            the event loop. None for no one.

    Returns:
        What became of each job, in the order asked for.

    Raises:
        ArgumentError: If an argument cannot be right, or a secret would travel; nothing was
            sent.
        ConfigurationError: If an organization's id cannot be one; nothing was sent.
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
        deadline = math.inf if timeout is None else anyio.current_time() + timeout + _REPORTING
        try:
            pairs = zip(assignments, futures, strict=True)
            return FleetResult([await _result(client, a.job, f, deadline) for a, f in pairs])
        finally:
            if not all(future.done() for future in futures):
                await finish(_call_off(client, futures, fleet_id), grace=_GRACE)


async def _result(
    client: distributed.Client,
    job: FleetJob,
    future: distributed.Future[JobResult],
    deadline: float,
) -> JobResult:
    """What a worker made of a job; an error of its own where none made anything of it."""
    cause: Exception | None = None
    with anyio.CancelScope(deadline=deadline):
        try:
            result: JobResult = await _ask(client, future.result)
        except Exception as error:  # noqa: BLE001  # of Dask, or of code that travelled
            cause = error
        else:
            return result
    why = "no worker came back in time" if cause is None else f"{type(cause).__name__}: {cause}"
    lost = AmigoError(
        f"the job of organization {job.organization_id} was lost by the cluster ({why}); the same "
        "call with the same folder carries on"
    )
    lost.__cause__ = cause
    return JobResult(organization_id=job.organization_id, error=lost)


async def _call_off(
    client: distributed.Client, futures: list[distributed.Future[JobResult]], fleet_id: str
) -> None:
    await _ask(client, client.cancel, futures)
    await _ask(client, client.run, _leave, fleet_id, on_error="ignore")


async def _ask(
    client: distributed.Client, function: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    """Call a method of Dask's client, which blocks where the client is not asynchronous."""
    if client.asynchronous:
        return await function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)


@contextmanager
def _listening(
    client: distributed.Client, topic: str, on_progress: OnProgress | None
) -> Iterator[None]:
    """Hand what the workers tell to `on_progress`, in the loop of the caller."""
    if on_progress is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def hear(told: tuple[float, bytes]) -> None:
        loop.call_soon_threadsafe(on_progress, *_decode(told[1]))

    client.subscribe_topic(topic, hear)
    try:
        yield
    finally:
        client.unsubscribe_topic(topic)


def _work(assignment: Assignment, fleet_id: str) -> JobResult:
    """Carry out a job in a thread of a worker, in an event loop of its own."""
    worker = distributed.get_worker()
    organization_id = assignment.job.organization_id

    def report(event: Event) -> None:
        worker.log_event(fleet_id, encode_json((organization_id, event)).encode())

    async def main() -> JobResult:
        task = asyncio.create_task(carry_out(assignment, report))
        _AT_WORK[task] = fleet_id, asyncio.get_running_loop()
        if fleet_id in _LEFT:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            error = AmigoError("the fleet was left before the job was done")
            return JobResult(organization_id=organization_id, error=error)
        finally:
            del _AT_WORK[task]

    return asyncio.run(main())


def _leave(fleet_id: str) -> None:
    """Tell the jobs of a fleet that are at work in this process to leave."""
    _LEFT.append(fleet_id)
    for task, (fleet, loop) in tuple(_AT_WORK.items()):
        if fleet == fleet_id:
            loop.call_soon_threadsafe(task.cancel)


class _Checked(cloudpickle.Pickler):  # type: ignore[misc]  # without types
    """Refuses to pickle a secret."""

    def persistent_id(self, thing: object) -> None:
        """Look at everything that would travel."""
        if isinstance(thing, Secret):
            raise ArgumentError(
                "a secret would travel to the workers with a job: let connect and put read it "
                "there, from the environment or a store of secrets"
            )


def _check_secrets(assignment: Assignment) -> None:
    try:
        _Checked(io.BytesIO()).dump(assignment)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ArgumentError(
            f"the job of organization {assignment.job.organization_id} cannot travel to the "
            f"workers: {error}"
        ) from error
