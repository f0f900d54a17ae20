"""One organization's part of a fleet, however often it is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from amigo_async import (
    AmigoClient,
    ArgumentError,
    BatchResult,
    ConfigurationError,
    JournalError,
    RunOutcome,
)
from amigo_async.events import ArtifactSaved, Event, RunFinished, RunStarted
from amigo_async.fleet import (
    Assignment,
    Environment,
    FleetJob,
    FleetResult,
    JobResult,
    check_jobs,
    execute_job,
)
from amigo_async.testing import Sandbox, SetPlan

pytestmark = pytest.mark.anyio

SET = "0123456789abcdef01234567"


def job_of(sandbox: Sandbox, set_ids: Sequence[str], **options: Any) -> FleetJob:
    def connect(organization_id: str) -> AmigoClient:
        assert organization_id == sandbox.organization_id
        return sandbox.client()

    return FleetJob(
        organization_id=sandbox.organization_id,
        unit_test_set_ids=set_ids,
        connect=connect,
        **options,
    )


@dataclass
class Shelf:
    """Takes artifacts away, as a store of the user's would."""

    taken: dict[str, bytes] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)

    def put(self, outcome: RunOutcome, path: Path) -> str:
        assert outcome.run_id is not None
        if outcome.unit_test_set_id in self.fails:
            raise OSError("the shelf is full")
        self.taken[outcome.run_id] = path.read_bytes()
        return f"shelf/{outcome.run_id}"


async def carried(assignment: Assignment) -> tuple[JobResult, list[Event]]:
    told: list[Event] = []
    return await execute_job(assignment, told.append), told


async def test_job_in_its_organizations_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    set_ids = sandbox.add_sets(3)
    done, told = await carried(Assignment(job_of(sandbox, set_ids), str(tmp_path)))
    assert done.passed
    assert done.result is not None
    assert [o.unit_test_set_id for o in done.result.outcomes] == set_ids
    for outcome in done.result.outcomes:
        assert outcome.artifacts is not None
        assert outcome.run_id is not None
        assert outcome.artifacts.parent == tmp_path / sandbox.organization_id / outcome.run_id
        assert outcome.artifacts.read_bytes() == sandbox.artifact_bytes(outcome.run_id)
    kinds = {type(event) for event in told}
    assert {RunStarted, RunFinished, ArtifactSaved} <= kinds


async def test_job_repeated_starts_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    assignment = Assignment(job_of(sandbox, sandbox.add_sets(3)), str(tmp_path))
    first, _ = await carried(assignment)
    again, _ = await carried(assignment)
    assert sandbox.count("create") == 3
    assert first.result is not None
    assert again.result is not None
    assert [o.run_id for o in again.result.outcomes] == [o.run_id for o in first.result.outcomes]
    assert again.passed


async def test_stopped_job_is_carried_on(sandbox: Sandbox, tmp_path: Path) -> None:
    assignment = Assignment(job_of(sandbox, sandbox.add_sets(3)), str(tmp_path))
    started = asyncio.Event()

    def report(event: Event) -> None:
        if isinstance(event, RunStarted) and len(sandbox.runs) == 3:
            started.set()

    stopped = asyncio.create_task(execute_job(assignment, report))
    await started.wait()
    stopped.cancel()
    await asyncio.wait([stopped])
    done, _ = await carried(assignment)
    assert done.passed
    assert len(sandbox.runs) == 3


async def test_held_journal_is_awaited(sandbox: Sandbox, tmp_path: Path) -> None:
    assignment = Assignment(job_of(sandbox, sandbox.add_sets(3)), str(tmp_path))
    both = await asyncio.gather(carried(assignment), carried(assignment))
    assert [done.passed for done, _ in both] == [True, True]
    assert len(sandbox.runs) == 3


async def test_journal_held_too_long(sandbox: Sandbox, tmp_path: Path) -> None:
    home = tmp_path / sandbox.organization_id
    async with sandbox.client() as client:
        slow = sandbox.add_set(SetPlan(seconds=3600.0))
        home.mkdir()
        async with client.open_batch([slow], journal=home / "journal.jsonl"):
            late = Assignment(job_of(sandbox, [slow]), str(tmp_path), expires_at=0.0)
            done, _ = await carried(late)
    assert isinstance(done.error, JournalError)
    assert done.error.in_use
    assert not done.passed


async def test_put_without_a_shared_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    shelf = Shelf()
    assignment = Assignment(job_of(sandbox, sandbox.add_sets(3)), str(tmp_path), shelf.put)
    done, _ = await carried(assignment)
    assert done.passed
    assert shelf.taken == {run.id: sandbox.artifact_bytes(run.id) for run in sandbox.runs}
    assert done.put == {run.id: f"shelf/{run.id}" for run in sandbox.runs}
    assert done.result is not None
    assert [o.artifacts for o in done.result.outcomes] == [None] * 3
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["journal.jsonl"]


async def test_async_put_once_a_set(sandbox: Sandbox, tmp_path: Path) -> None:
    taken: list[str] = []

    async def put(outcome: RunOutcome, path: Path) -> int:
        taken.append(outcome.unit_test_set_id)
        return await asyncio.to_thread(lambda: path.stat().st_size)

    [set_id] = sandbox.add_sets(1)
    assignment = Assignment(job_of(sandbox, [set_id, set_id]), str(tmp_path), put)
    done, _ = await carried(assignment)
    [run] = sandbox.runs
    assert taken == [set_id]
    assert done.put == {run.id: len(sandbox.artifact_bytes(run.id))}


async def test_failed_put_is_repeated(sandbox: Sandbox, tmp_path: Path) -> None:
    set_ids = sandbox.add_sets(3)
    shelf = Shelf(fails={set_ids[1]})
    assignment = Assignment(job_of(sandbox, set_ids), str(tmp_path), shelf.put)
    done, _ = await carried(assignment)
    assert done.result is not None
    assert [str(o.error or "") for o in done.result.outcomes] == ["", "the shelf is full", ""]
    assert not done.passed
    assert len(shelf.taken) == 2
    shelf.fails.clear()
    done, _ = await carried(assignment)
    assert done.passed
    assert len(shelf.taken) == len(sandbox.runs) == 3


async def test_fleet_timeout_is_its_jobs(sandbox: Sandbox, tmp_path: Path) -> None:
    [slow] = sandbox.add_sets(1, SetPlan(seconds=3600.0))
    over = Assignment(job_of(sandbox, [slow]), str(tmp_path), expires_at=0.0)
    done, _ = await carried(over)
    assert done.result is not None
    assert set(done.result.counts) <= {"timed_out", "not_started"}


async def test_error_of_a_whole_job(sandbox: Sandbox, tmp_path: Path) -> None:
    nowhere = FleetJob(
        organization_id="acme", unit_test_set_ids=[SET], connect=Environment("NO_SUCH")
    )
    done, _ = await carried(Assignment(nowhere, str(tmp_path)))
    assert isinstance(done.error, ConfigurationError)
    assert "NO_SUCH_API_KEY is missing" in str(done.error)
    assert done.organization_id == "acme"


async def test_secrets_from_the_worker(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name.replace("AMIGO_", "ACME_"), value)
    job = FleetJob(
        organization_id=sandbox.organization_id,
        unit_test_set_ids=sandbox.add_sets(1),
        connect=Environment("ACME"),
        artifacts=False,
    )
    done, _ = await carried(Assignment(job, str(tmp_path)))
    assert done.passed
    assert sandbox.count("store") == 0


def test_fleet_passes_with_all_jobs() -> None:
    good = BatchResult([RunOutcome(unit_test_set_id=SET, verdict="passed")])
    bad = BatchResult([RunOutcome(unit_test_set_id=SET, verdict="failed")])
    passed = JobResult(organization_id="a", result=good)
    assert FleetResult([passed]).passed
    assert not FleetResult([passed, JobResult(organization_id="b", result=bad)]).passed
    lost = JobResult(organization_id="c", error=RuntimeError())
    fleet = FleetResult([passed, passed, lost, JobResult(organization_id="b", result=bad)])
    assert not fleet.passed
    assert fleet.counts == {"passed": 2, "failed": 1}


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ([], "jobs is empty"),
        (["acme"], "must be FleetJobs"),
        ([FleetJob(organization_id="a", unit_test_set_ids=[])], "unit_test_set_ids is empty"),
        ([FleetJob(organization_id="a", unit_test_set_ids=["?"])], "unit_test_set_ids"),
        ([FleetJob(organization_id="a", unit_test_set_ids=[SET])] * 2, "organization a has 2 jobs"),
        (
            [FleetJob(organization_id="a", unit_test_set_ids=[SET], connect=None)],  # type: ignore[arg-type]
            "connect of organization a must be a function",
        ),
        (
            [FleetJob(organization_id="a", unit_test_set_ids=[SET], on_exit="stay")],  # type: ignore[arg-type]
            "on_exit",
        ),
    ],
)
def test_jobs_that_cannot_be_right(jobs: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        check_jobs(jobs)


@pytest.mark.parametrize("name", ["", "..", "a/../b"])
def test_organization_stays_in_folder(name: str) -> None:
    with pytest.raises(ConfigurationError, match="organization_id"):
        check_jobs([FleetJob(organization_id=name, unit_test_set_ids=[SET])])
