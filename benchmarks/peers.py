"""What takes part in the benchmarks of batches: the package, and what one would write without it.

The peers are loops over the vendor's own client as it ships, which has no method for these
endpoints: it signs in, sends the token, and sends a GET up to three times (a POST only when it was
refused with a ``Retry-After``), with pauses of at most thirty seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import httpx
from amigo_sdk.config import AmigoConfig
from amigo_sdk.errors import AmigoError
from amigo_sdk.generated.model import (
    SimulationCreateSimulationUnitTestSetRunResponse,
    SimulationGetSimulationUnitTestSetRunArtifactsResponse,
    SimulationGetSimulationUnitTestSetRunsResponse,
    SimulationUnitTestSetRunInstance,
)
from amigo_sdk.http_client import AmigoAsyncHttpClient

from amigo_async.events import Event, RunFinished
from benchmarks.stage import Contestant, Task

T = TypeVar("T")

# Seconds between two polls of a naive loop, for each run on its own.
POLL: Final = 5.0

# How many sets the loop with a semaphore works on at once, and how it retries what fails.
AT_ONCE: Final = 10
TRIES: Final = 5
PAUSE: Final = 5.0

_FAILURES: Final = (AmigoError, httpx.HTTPError)


async def amigo_async(task: Task) -> None:
    """The package: `AmigoClient.open_batch`, which is `run_many` seen from within."""

    def heard(event: Event) -> None:
        if isinstance(event, RunFinished):
            task.log.saw_end(event.unit_test_set_id)

    # The client's listener, not the batch's: who listens to a batch asks for progress too.
    async with (
        task.sandbox.client(on_event=heard) as client,
        client.open_batch(task.set_ids, artifacts_dir=task.folder) as batch,
    ):
        async for outcome in batch:
            if outcome.error is not None:
                task.log.errors[type(outcome.error).__name__] += 1
            if outcome.artifacts is not None and outcome.run_id is not None:
                task.log.got(outcome.unit_test_set_id, outcome.run_id, outcome.artifacts)


class Naive:
    """A task for each set: create, poll every five seconds, ask for the link, download.

    Args:
        task: What to do.
        http: The vendor's client.
        store: A plain client for the artifact store.
    """

    def __init__(self, task: Task, http: AmigoAsyncHttpClient, store: httpx.AsyncClient) -> None:
        self._task = task
        self._http = http
        self._store = store
        self._runs = f"/v1/{task.sandbox.organization_id}/simulation/unit_test_set_run/"

    async def run_all(self) -> None:
        """Work on all sets at once; what fails for one does not concern the others."""
        work = (self._one(set_id) for set_id in self._task.set_ids)
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(failure, BaseException):
                self._task.log.errors[type(failure).__name__] += 1

    async def _one(self, set_id: str) -> None:
        run_id = await self._trying(lambda: self._create(set_id))
        while not (run := await self._trying(lambda: self._get(run_id))).artifacts_generated:
            if run.is_completed:
                self._task.log.saw_end(set_id)
            await asyncio.sleep(POLL)
        self._task.log.saw_end(set_id)
        url = await self._trying(lambda: self._link(run_id))
        data = await self._trying(lambda: self._download(url))
        target = self._task.folder / run_id
        target.write_bytes(data)
        self._task.log.got(set_id, run_id, target)

    async def _trying(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step; the vendor's client does what there is of retrying."""
        return await step()

    async def _create(self, set_id: str) -> str:
        body = {"simulation_unit_test_set_id": set_id}
        answer = await self._http.request("POST", self._runs, json=body)
        created = SimulationCreateSimulationUnitTestSetRunResponse
        return created.model_validate_json(answer.text).simulation_unit_test_set_run_id

    async def _get(self, run_id: str) -> SimulationUnitTestSetRunInstance:
        answer = await self._http.request("GET", self._runs, params={"id": run_id})
        page = SimulationGetSimulationUnitTestSetRunsResponse.model_validate_json(answer.text)
        return page.simulation_unit_test_set_runs[0]

    async def _link(self, run_id: str) -> str:
        answer = await self._http.request("GET", f"{self._runs}{run_id}/artifacts/")
        found = SimulationGetSimulationUnitTestSetRunArtifactsResponse
        return found.model_validate_json(answer.text).presigned_url

    async def _download(self, url: str) -> bytes:
        answer = await self._store.get(url)
        return answer.raise_for_status().content


class Careful(Naive):
    """The same for ten sets at once, and each step tried five times, five seconds apart."""

    def __init__(self, task: Task, http: AmigoAsyncHttpClient, store: httpx.AsyncClient) -> None:
        super().__init__(task, http, store)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def _one(self, set_id: str) -> None:
        async with self._room:
            await super()._one(set_id)

    async def _trying(self, step: Callable[[], Awaitable[T]]) -> T:
        for _ in range(TRIES - 1):
            with contextlib.suppress(*_FAILURES):
                return await step()
            await asyncio.sleep(PAUSE)
        return await step()


async def naive(task: Task) -> None:
    """The naive loop."""
    await _loop(Naive, task)


async def careful(task: Task) -> None:
    """The naive loop with a semaphore and fixed retries."""
    await _loop(Careful, task)


async def _loop(kind: type[Naive], task: Task) -> None:
    sandbox = task.sandbox
    config = AmigoConfig(
        api_key=str(sandbox.api_key),
        api_key_id=sandbox.api_key_id,
        user_id=sandbox.user_id,
        organization_id=sandbox.organization_id,
        base_url=sandbox.base_url,
    )
    async with (
        contextlib.aclosing(AmigoAsyncHttpClient(config)) as http,
        httpx.AsyncClient() as store,
    ):
        await kind(task, http, store).run_all()


OURS: Final = "amigo_async"
NAIVE: Final = "naive loop"

CONTESTANTS: Final[dict[str, Contestant]] = {
    OURS: amigo_async,
    NAIVE: naive,
    "semaphore + retries": careful,
}
