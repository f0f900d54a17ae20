"""What a batch does about starts: fences, journals, and runs that it has found, not started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async import (
    AmbiguousStartError,
    AmigoClient,
    BatchResult,
    ConflictError,
    JournalError,
)
from amigo_async.events import Event, RunLeft
from amigo_async.testing import Fault, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

SHORT = SetPlan(seconds=5.0)
LONG = SetPlan(seconds=600.0, cancel_after=2.0)
LOST, NOTHING_DONE = Fault.drop(after_work=True), Fault.drop()


def lists(sandbox: Sandbox) -> int:
    return sandbox.count("list")


# --- the fence ---


async def test_fence_costs_two_lists_a_window(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = sandbox.add_sets(45, LONG)
    before = [sandbox.start_run(set_id) for set_id in set_ids[:3]]
    for run_id in before:
        sandbox.cancel_run(run_id)
    await anyio.sleep(5)
    await client.run_many(set_ids, timeout=130.0)
    fences = [r for r in sandbox.requests if r.route == "list" and len(r.values(SETS)) > 1]
    assert [len(r.values(SETS)) for r in fences] == [45, 45, 25, 25, 5, 5]
    assert [r.values("is_completed") for r in fences] == [[], ["false"]] * 3
    assert {tuple(r.values("sort_by")) for r in fences} == {("-created_at",)}
    assert len(sandbox.runs) == 45 + 3


SETS = "simulation_unit_test_set_id"


@pytest.mark.parametrize("fault", [Fault.status(403), Fault.status(500), Fault.stall()])
async def test_failed_fence_fails_nothing(sandbox: Sandbox, fault: Fault) -> None:
    set_ids = sandbox.add_sets(20, SHORT)
    async with sandbox.client(max_attempts=1) as client:
        sandbox.fault("list", fault, times=1)
        began = anyio.current_time()
        result = await client.run_many(set_ids)
    assert result.passed
    assert anyio.current_time() - began < 30  # what a request may take


async def test_fence_tells_lost_from_older(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(SHORT)
    older = sandbox.start_run(set_id)
    await anyio.sleep(10)
    sandbox.fault("create", LOST)
    (outcome,) = (await client.run_many([set_id])).outcomes
    assert outcome.verdict == "passed"
    assert outcome.attached
    assert [run.id for run in sandbox.runs] == [older, outcome.run_id]


# --- runs that were found ---


@pytest.mark.parametrize("how", ["lost", "attach"])
async def test_found_run_is_not_cancelled(client: AmigoClient, sandbox: Sandbox, how: str) -> None:
    found, started = sandbox.add_sets(2, LONG)
    heard: list[Event] = []
    options: dict[str, Any] = {"on_exit": "cancel", "timeout": 60.0, "on_event": heard.append}
    if how == "lost":
        sandbox.fault("create", LOST)
        result = await client.run_many([found, started], **options)
    else:
        sandbox.start_run(found)
        result = await client.run_many([found, started], on_conflict="attach", **options)
    await anyio.sleep(10)
    assert [o.attached for o in result.outcomes] == [True, False]
    over = {run.unit_test_set_id: run.is_completed for run in sandbox.runs}
    assert over == {found: False, started: True}
    left = [event for event in heard if isinstance(event, RunLeft)]
    run_id = result.outcomes[0].run_id or ""
    assert left == [RunLeft(found, run_id, organization_id="sandbox")]


async def test_found_run_survives_cancel_rest(client: AmigoClient, sandbox: Sandbox) -> None:
    failing = sandbox.add_set(SetPlan(seconds=20.0, outcome="failed"))
    found, started = sandbox.add_sets(2, LONG)
    sandbox.start_run(found)
    result = await client.run_many(
        [failing, found, started], on_conflict="attach", on_failure="cancel_rest"
    )
    assert [o.verdict for o in result.outcomes] == ["failed", "passed", "cancelled"]
    assert sandbox.count("cancel") == 1


async def test_found_run_after_a_resume(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_ids = sandbox.add_sets(1, LONG)
    again: dict[str, Any] = {"journal": tmp_path / "batch.jsonl", "on_exit": "cancel"}
    sandbox.fault("create", LOST)
    await client.run_many(set_ids, timeout=30.0, **again)
    (outcome,) = (await client.run_many(set_ids, timeout=30.0, **again)).outcomes
    assert outcome.attached
    assert sandbox.count("cancel") == 0


async def test_clients_sharing_a_run(
    sandbox: Sandbox,
) -> None:
    set_ids = sandbox.add_sets(1, SetPlan(seconds=100.0, cancel_after=1.0))
    sandbox.fault("create", NOTHING_DONE)
    async with sandbox.client() as one, sandbox.client() as other:
        first = asyncio.create_task(one.run_many(set_ids, timeout=90, on_exit="cancel"))
        while not sandbox.count("create"):
            await anyio.sleep(0.01)
        theirs, ours = await asyncio.gather(first, other.run_many(set_ids))
    (lost,), (made,) = theirs.outcomes, ours.outcomes
    assert made.verdict == "passed"
    assert not made.attached
    assert sandbox.count("cancel") == 0
    assert len(sandbox.runs) == 1
    assert isinstance(lost.error, ConflictError)
    assert lost.error.existing_run_id == made.run_id


LATE = [(0.0, 3.0)]  # seconds in which a new run is not listed


async def attach_meanwhile(one: AmigoClient, set_ids: list[str], **options: Any) -> BatchResult:
    """What another client comes to that attaches to a run before `one` has seen it."""
    await anyio.sleep(3.2)  # while `one` lists every two seconds
    return await one.run_many(set_ids, on_conflict="attach", **options)


@pytest.mark.parametrize("seconds", [20.0, 120.0])
@pytest.mark.parametrize("on_conflict", ["raise", "attach", "restart"])
async def test_lost_run_that_another_client_attached_to(
    sandbox: Sandbox, on_conflict: Any, seconds: float
) -> None:
    set_ids = sandbox.add_sets(1, SetPlan(seconds=seconds, unlisted=LATE, cancel_after=1.0))
    sandbox.fault("create", LOST)
    async with sandbox.client() as one, sandbox.client() as other:
        first = asyncio.create_task(one.run_many(set_ids, on_conflict=on_conflict))
        while not sandbox.runs:
            await anyio.sleep(0.01)
        theirs, ours = await asyncio.gather(first, attach_meanwhile(other, set_ids))
    assert [run.cancelled for run in sandbox.runs] == [False]
    for (outcome,) in (theirs.outcomes, ours.outcomes):
        assert (outcome.run_id, outcome.verdict) == (sandbox.runs[0].id, "passed")
        assert outcome.attached


async def test_run_that_a_response_named_is_not_a_lost_one(sandbox: Sandbox) -> None:
    """Even if a third call has attached to it since."""
    set_ids = sandbox.add_sets(1, SetPlan(seconds=100.0, unlisted=LATE))
    sandbox.fault("create", NOTHING_DONE)
    async with sandbox.client() as one, sandbox.client() as other:
        first = asyncio.create_task(one.run_many(set_ids))
        while not sandbox.count("create"):
            await anyio.sleep(0.01)
        theirs, ours, _ = await asyncio.gather(
            first, other.run_many(set_ids), attach_meanwhile(other, set_ids)
        )
    assert len(sandbox.runs) == 1
    assert ours.passed
    assert isinstance(theirs.outcomes[0].error, ConflictError)


async def test_deadline_during_a_lost_start(client: AmigoClient, sandbox: Sandbox) -> None:
    sandbox.fault("create", NOTHING_DONE)
    (outcome,) = (await client.run_many(sandbox.add_sets(1, SHORT), timeout=5.0)).outcomes
    assert outcome.verdict == "not_started"
    assert isinstance(outcome.error, AmbiguousStartError)
    assert outcome.error.candidates == ()


# --- journals ---


@pytest.mark.parametrize("status", [403, 404, 422, 409, 408])
async def test_refused_start_is_over(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, status: int
) -> None:
    set_id = sandbox.add_set(SHORT)
    again: dict[str, Any] = {"journal": tmp_path / "batch.jsonl"}
    sandbox.fault("create", Fault.status(status))
    (first,) = (await client.run_many([set_id], **again)).outcomes
    if status == 408:  # does not say that nothing was started: it was looked for, and sent again
        assert first.verdict == "passed"
        assert sandbox.count("create") == 2
        return
    assert first.verdict == "not_started"
    sandbox.start_run(set_id)  # by hand
    await anyio.sleep(60)
    (second,) = (await client.run_many([set_id], **again)).outcomes
    assert second.run_id == sandbox.runs[1].id
    assert not second.attached


async def killed(client: AmigoClient, sandbox: Sandbox, set_id: str, journal: Path) -> None:
    """Leave the journal of a batch that was killed with its create on the wire."""
    running = asyncio.create_task(client.run_many([set_id], journal=journal))
    while not sandbox.count("create"):
        await anyio.sleep(0.01)
    content = journal.read_bytes()
    running.cancel()
    await asyncio.wait([running])
    journal.write_bytes(content)


@pytest.mark.parametrize("fault", [LOST, NOTHING_DONE])
async def test_killed_and_resumed_there_is_one_run(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, fault: Fault
) -> None:
    set_id = sandbox.add_set(SHORT)
    sandbox.start_run(set_id)
    await anyio.sleep(10)
    sandbox.fault("create", fault)
    await killed(client, sandbox, set_id, tmp_path / "batch.jsonl")
    async with sandbox.client() as another:
        (outcome,) = (await another.run_many([set_id], journal=tmp_path / "batch.jsonl")).outcomes
    assert outcome.verdict == "passed"
    assert outcome.attached == (fault == LOST)
    assert [run.id for run in sandbox.runs][1:] == [outcome.run_id]


@pytest.mark.parametrize("apart", [90.0, 20.0])
async def test_resumed_beside_other_runs(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, apart: float
) -> None:
    set_id = sandbox.add_set(SHORT)
    sandbox.fault("create", LOST)
    await killed(client, sandbox, set_id, tmp_path / "batch.jsonl")
    for _ in range(3):
        await anyio.sleep(apart)
        sandbox.start_run(set_id)
    await anyio.sleep(apart)
    async with sandbox.client() as another:
        (outcome,) = (await another.run_many([set_id], journal=tmp_path / "batch.jsonl")).outcomes
    runs = tuple(run.id for run in sandbox.runs)
    assert len(runs) == 4
    if apart > 60:
        assert (outcome.run_id, outcome.attached) == (runs[0], True)
    else:
        assert outcome.run_id is None
        assert outcome.error is not None
        assert getattr(outcome.error, "candidates", None) == runs


async def test_journal_of_another_user(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_id = sandbox.add_set(SHORT)
    await client.run_many([set_id], journal=tmp_path / "batch.jsonl")
    sandbox.forget_requests()
    async with sandbox.client(user_id="somebody-else") as other:
        with pytest.raises(JournalError, match="user"):
            await other.run_many([set_id], journal=tmp_path / "batch.jsonl")
    assert sandbox.requests == []


async def test_a_run_in_the_way_is_not_taken_for_the_lost_one() -> None:
    """It came after the list that tells what was there before the create."""
    plan = SetPlan(seconds=600.0, cancel_after=0.5)
    async with Sandbox(plan=plan, limits={"create": 1}, window=5.0) as sandbox:
        set_ids = sandbox.add_sets(3)
        theirs: list[str] = []

        async def interfere() -> None:
            await asyncio.sleep(3.0)
            theirs.append(sandbox.start_run(set_ids[2]))
            while sandbox.count("create") < 3:  # the third is refused for the run of somebody else
                await asyncio.sleep(0.05)
            sandbox.fault("create", Fault.drop(after_work=True))

        async with asyncio.TaskGroup() as group, sandbox.client() as client:
            group.create_task(interfere())
            result = await client.run_many(
                set_ids, on_conflict="restart", order="given", timeout=60.0
            )
        (ours,) = [
            run.id
            for run in sandbox.runs
            if run.unit_test_set_id == set_ids[2] and run.id not in theirs
        ]
        assert result.outcomes[2].run_id == ours
        assert result.outcomes[2].verdict == "timed_out"
