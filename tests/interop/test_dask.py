"""A fleet on a Dask cluster, whose workers come and go."""

from __future__ import annotations

from tests.support.needs import needs_modules

needs_modules("distributed")

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import distributed
import pytest

import amigo_async.dask
from amigo_async import AmigoClient, ApiKeyAuth, ArgumentError, ConfigurationError, RunOutcome
from amigo_async.dask import Environment, FleetJob, run_fleet
from amigo_async.events import ArtifactSaved, Event, RunFinished, RunStarted
from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan

# Real processes take several times as long on a busy machine.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ORGANIZATIONS, SETS, WORKERS, KILLS = 8, 40, 4, 2
SET = "0123456789abcdef01234567"
QUICK = SetPlan(
    seconds=(0.5, 2.0), artifacts_after=0.05, unit_tests=1, artifact=ArtifactPlan(size=20_000)
)


@pytest.fixture
def anyio_backend() -> str:
    """Workers take real time."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Dask warns of the workers that are killed here."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
async def quick() -> AsyncIterator[Sandbox]:
    """A sandbox with the documented limits, in windows of two seconds."""
    async with Sandbox(plan=QUICK, window=2.0) as sandbox:
        yield sandbox


@asynccontextmanager
async def cluster(workers: int, *, processes: bool = False) -> AsyncIterator[distributed.Client]:
    opened: Any = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=2,
        processes=processes,
        asynchronous=True,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    async with opened, distributed.Client(opened, asynchronous=True) as client:
        yield client


def organization(sandbox: Sandbox, number: int, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Add an organization, and its credentials to the environment that the workers will have."""
    name, prefix = f"org-{number}", f"ORG{number}"
    sandbox.add_user("user-1", organization_id=name)
    sandbox.add_api_key("key", f"secret-of-{name}", organization_id=name)
    variables = {"API_KEY": f"secret-of-{name}", "API_KEY_ID": "key", "USER_ID": "user-1"}
    for variable, value in {**variables, "BASE_URL": sandbox.base_url}.items():
        monkeypatch.setenv(f"{prefix}_{variable}", value)
    return Environment(prefix)


def jobs_of(
    sandbox: Sandbox, count: int, sets: int, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[FleetJob]:
    return [
        FleetJob(
            organization_id=f"org-{number}",
            unit_test_set_ids=[
                sandbox.add_set(organization_id=f"org-{number}") for _ in range(sets)
            ],
            connect=organization(sandbox, number, monkeypatch),
            poll_interval=0.25,
            **options,
        )
        for number in range(count)
    ]


async def test_two_killed_workers(
    quick: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(quick, ORGANIZATIONS, SETS, monkeypatch)
    killed: list[int] = []
    told: list[tuple[str, Event]] = []

    async with cluster(WORKERS, processes=True) as client:

        def on_progress(organization_id: str, event: Event) -> None:
            told.append((organization_id, event))
            started = sum(isinstance(event, RunStarted) for _, event in told)
            if len(killed) < KILLS and started > 60 * (len(killed) + 1):
                workers = list(cast(Any, client.cluster).workers.values())
                pid = workers[len(killed)].pid
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        result = await run_fleet(client, jobs, tmp_path, timeout=100, on_progress=on_progress)

    assert len(killed) == KILLS
    assert [job.error for job in result.jobs] == [None] * ORGANIZATIONS
    assert result.counts == {"passed": ORGANIZATIONS * SETS}
    assert result.passed
    assert len(quick.runs) == ORGANIZATIONS * SETS
    assert len({run.unit_test_set_id for run in quick.runs}) == ORGANIZATIONS * SETS
    of = {run.unit_test_set_id: run.id for run in quick.runs}
    for job, done in zip(jobs, result.jobs, strict=True):
        assert done.organization_id == job.organization_id
        assert done.result is not None
        assert [o.unit_test_set_id for o in done.result.outcomes] == job.unit_test_set_ids
        for outcome in done.result.outcomes:
            assert outcome.run_id == of[outcome.unit_test_set_id]
            assert outcome.artifacts is not None
            assert tmp_path in outcome.artifacts.parents
            assert outcome.artifacts.read_bytes() == quick.artifact_bytes(outcome.run_id)
    finished = {e.run_id for _, e in told if isinstance(e, RunFinished | ArtifactSaved)}
    assert finished <= set(of.values())
    # What a killed worker had under way, the next one does not know of.
    refused = sum(request.status == 429 for request in quick.requests)
    assert refused <= 0.01 * len(quick.requests)


def tell(outcome: RunOutcome, path: Path) -> tuple[str | None, int]:
    """What travels to a worker by its name."""
    return outcome.run_id, path.stat().st_size


async def test_artifacts_go_where_told(
    quick: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(quick, 2, 3, monkeypatch)
    async with cluster(1) as client:
        result = await run_fleet(client, jobs, tmp_path, put=tell)
    assert result.passed
    told = {run_id: value for job in result.jobs for run_id, value in job.put.items()}
    assert told == {run.id: (run.id, 20_000) for run in quick.runs}
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"journal.jsonl"}


async def left_after_the_starts(
    client: distributed.Client, jobs: Sequence[FleetJob], folder: Path, sets: int
) -> None:
    """Begin a fleet, and cancel the call when all sets are started."""
    started: set[str] = set()
    all_started = asyncio.Event()

    def on_progress(_: str, event: Event) -> None:
        if isinstance(event, RunStarted):
            started.add(event.run_id)
        if len(started) == sets:
            all_started.set()

    fleet = asyncio.create_task(run_fleet(client, jobs, folder, on_progress=on_progress))
    await all_started.wait()
    fleet.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fleet


async def nothing_at_work() -> None:
    async with asyncio.timeout(20):
        while amigo_async.dask._RUNNING:
            await asyncio.sleep(0.02)


async def test_leaving_and_carrying_on(
    quick: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(quick, 2, 3, monkeypatch)
    async with cluster(1) as client:
        await left_after_the_starts(client, jobs, tmp_path, 6)
        await nothing_at_work()
        result = await run_fleet(client, jobs, tmp_path)
    assert result.passed
    assert len(quick.runs) == 6
    assert quick.count("cancel") == 0


async def test_leaving_cancels_if_asked(
    quick: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(quick, 1, 3, monkeypatch, on_exit="cancel")
    async with cluster(1) as client:
        await left_after_the_starts(client, jobs, tmp_path, 3)
        await nothing_at_work()
    assert quick.count("cancel") == 3


def test_blocking_client(
    quick_in_thread: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(quick_in_thread, 1, 2, monkeypatch)
    told: list[Event] = []
    opened: Any = distributed.LocalCluster(
        n_workers=1, processes=False, dashboard_address=":0", silence_logs=logging.CRITICAL
    )
    with opened, distributed.Client(opened) as client:
        result = asyncio.run(
            run_fleet(client, jobs, tmp_path, on_progress=lambda _, event: told.append(event))
        )
    assert result.passed
    assert any(isinstance(event, RunFinished) for event in told)


@pytest.fixture
def quick_in_thread() -> Iterator[Sandbox]:
    with Sandbox(plan=QUICK, window=2.0).in_thread() as sandbox:
        yield sandbox


def explodes(_: str) -> AmigoClient:
    """What travels to a worker by its name."""
    raise RuntimeError("no store of secrets here")


async def test_one_job_fails_alone(
    quick: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(quick, 1, 1, monkeypatch)
    lost = FleetJob(organization_id="lost", unit_test_set_ids=[SET], connect=explodes)
    poor = FleetJob(organization_id="poor", unit_test_set_ids=[SET], connect=Environment("NO_SUCH"))
    async with cluster(1) as client:
        result = await run_fleet(client, [lost, *jobs, poor], tmp_path)
    assert [job.passed for job in result.jobs] == [False, True, False]
    assert "the result of organization lost was lost by the cluster (RuntimeError: no store" in str(
        result.jobs[0].error
    )
    assert isinstance(result.jobs[2].error, ConfigurationError)


async def test_no_workers_in_time(
    quick: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amigo_async.dask, "_RESULT_GRACE", 0.0)
    jobs = jobs_of(quick, 2, 1, monkeypatch)
    async with cluster(0) as client:
        result = await run_fleet(client, jobs, tmp_path, timeout=0.2)
    assert not result.passed
    for job in result.jobs:
        assert "no worker returned it in time" in str(job.error)
    assert quick.requests == []


async def test_a_secret_does_not_travel(tmp_path: Path) -> None:
    auth = ApiKeyAuth("the-very-key", "id", "user")
    job = FleetJob(
        organization_id="acme",
        unit_test_set_ids=[SET],
        connect=lambda name: AmigoClient(auth=auth, organization_id=name),
    )
    async with cluster(0) as client:
        with pytest.raises(ArgumentError, match="a job contains a secret"):
            await run_fleet(client, [job], tmp_path)


async def test_unpicklable_is_told_early(tmp_path: Path) -> None:
    lock = asyncio.Lock(), os.scandir(tmp_path)
    job = FleetJob(
        organization_id="acme", unit_test_set_ids=[SET], connect=lambda _: cast(Any, lock)
    )
    async with cluster(0) as client:
        with pytest.raises(ArgumentError, match="organization acme cannot be sent"):
            await run_fleet(client, [job], tmp_path)
    lock[1].close()
