"""Many sets from start to artifacts: nothing refused, nothing lost, and every end is told."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import ANY

import aiohttp
import anyio
import pytest
from msgspec.structs import replace

from amigo_async import (
    AmigoClient,
    ArgumentError,
    ArtifactError,
    ArtifactTimeoutError,
    BatchResult,
    ConflictError,
    DeadlineError,
    DecodeError,
    Gate,
    JournalError,
    NotFoundError,
    RunOutcome,
    WaitTimeoutError,
)
from amigo_async.events import (
    ArtifactSaved,
    BatchFinished,
    Event,
    LimitHeld,
    NamesRead,
    RequestRetried,
    RunFinished,
    RunProgressed,
    RunStarted,
    SetFinished,
    SignedIn,
)
from amigo_async.testing import (
    ArtifactPlan,
    Fault,
    Permission,
    Sandbox,
    SetPlan,
    VirtualTimeLoop,
)
from tests.support.connections import Counting
from tests.support.small_api import RESULT, SPEC, SmallApi

pytestmark = pytest.mark.anyio

SHORT = SetPlan(seconds=5.0)
LONG = SetPlan(seconds=3600.0, cancel_after=2.0)
FAILING = SetPlan(seconds=5.0, outcome="failed")


def mixed(sandbox: Sandbox, count: int) -> list[str]:
    """Sets of every outcome, of half a minute to three."""
    outcomes: list[Any] = ["passed", "failed", "passed", "errored"]
    return [
        sandbox.add_set(SetPlan(seconds=(30.0, 180.0), outcome=outcomes[number % 4]))
        for number in range(count)
    ]


def our_tasks() -> list[object]:
    """The tasks that were made by this package, the sandbox's own not counted."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return [
        coroutine
        for coroutine in coroutines
        if "amigo_async" in str(getattr(coroutine, "cr_code", ""))
        and "testing" not in str(getattr(coroutine, "cr_code", ""))
    ]


def whole(result: BatchResult, sandbox: Sandbox) -> bool:
    """Whether every artifact is there, and as it should be."""
    return all(
        o.artifacts is not None
        and o.run_id is not None
        and o.artifacts.read_bytes() == sandbox.artifact_bytes(o.run_id)
        for o in result.outcomes
    )


async def test_sixty_sets_take_minimal_time(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        set_ids = mixed(sandbox, 60)
        began = anyio.current_time()
        result = await client.run_many(set_ids, artifacts_dir=tmp_path)
        took = anyio.current_time() - began
        assert [o.unit_test_set_id for o in result.outcomes] == set_ids
        assert result.counts == {"passed": 30, "failed": 15, "errored": 15}
        assert not result.passed
        assert whole(result, sandbox)
        assert len(sandbox.runs) == 60
        assert {o.run_id for o in result.outcomes} == {run.id for run in sandbox.runs}
        assert not [r for r in sandbox.requests if r.status == 429]
        # What the service needs: two turns of the window, then the last runs and their artifacts.
        ends = [o.finished_at for o in result.outcomes if o.finished_at is not None]
        first = min(run.created_at for run in sandbox.runs)
        needed = (max(ends) - first).total_seconds()
        assert needed <= (120 + 180) * 1.05 + 6
        assert took <= needed + 6
        assert sandbox.count("list") <= 25 * took / 60 * 1.1 + 4  # half of the budget


async def test_sixty_sets_despite_faults(
    tmp_path: Path,
) -> None:
    async with Sandbox(token_lifetime=1.0, limits={"sign_in": None}) as sandbox:
        sandbox.faults_at_random("list", Fault.status(500), Fault.drop(), rate=1 / 3, seed=1)
        sandbox.faults_at_random(
            "create", Fault.drop(), Fault.drop(after_work=True), rate=1 / 5, seed=2
        )
        set_ids = mixed(sandbox, 60)
        async with sandbox.client() as client:
            result = await client.run_many(set_ids, artifacts_dir=tmp_path)
        assert result.counts == {"passed": 30, "failed": 15, "errored": 15}
        assert len(sandbox.runs) == 60
        assert whole(result, sandbox)


async def test_every_set_has_an_outcome(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    busy = sandbox.add_set(LONG)
    await client.runs.create(busy)
    nothing = sandbox.add_set(SetPlan(seconds=5.0, artifacts_after=None))
    set_ids = [sandbox.add_set(SHORT), "f" * 24, busy, sandbox.add_set(FAILING), nothing]
    result = await client.run_many(set_ids, artifacts_dir=tmp_path)
    good, unknown, conflict, failed, bare = result.outcomes
    assert (good.verdict, good.error) == ("passed", None)
    assert (unknown.verdict, unknown.run_id) == ("not_started", None)
    assert isinstance(unknown.error, NotFoundError)
    assert isinstance(conflict.error, ConflictError)
    assert conflict.error.existing_run_id == sandbox.runs[0].id
    assert failed.verdict == "failed"
    assert failed.run is not None
    assert failed.run.metrics_that_failed
    assert bare.verdict == "passed"
    assert isinstance(bare.error, ArtifactTimeoutError)
    assert "did not generate it within 600 s" in str(bare.error)
    assert not result.passed


async def test_lost_artifact_keeps_the_verdict(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.fault("store", Fault.status(404), times=20)
    result = await client.run_many([sandbox.add_set(SHORT)], artifacts_dir=tmp_path)
    (outcome,) = result.outcomes
    assert outcome.verdict == "passed"
    assert isinstance(outcome.error, ArtifactError)
    assert outcome.artifacts is None
    assert not result.passed


async def test_store_down_for_minutes(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults_at_random("store", Fault.drop(), rate=1.0)
    asyncio.get_running_loop().call_later(100.0, sandbox.clear_faults)
    result = await client.run_many(sandbox.add_sets(2, SHORT), artifacts_dir=tmp_path)
    assert result.passed
    assert len(list(tmp_path.glob("*/*"))) == 2


async def test_set_named_twice(client: AmigoClient, sandbox: Sandbox) -> None:
    one, other = sandbox.add_sets(2, SHORT)
    result = await client.run_many([one, other, one])
    assert [o.unit_test_set_id for o in result.outcomes] == [one, other, one]
    assert result.outcomes[0] == result.outcomes[2]
    assert len(sandbox.runs) == 2
    assert result.counts == {"passed": 3}
    assert result.passed


async def test_attached_runs_are_told(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(SHORT)
    created = await client.runs.create(set_id)
    result = await client.run_many([set_id], on_conflict="attach")
    (outcome,) = result.outcomes
    assert outcome.attached
    assert outcome.run_id == created.simulation_unit_test_set_run_id


async def test_outcomes_come_as_they_are_there(client: AmigoClient, sandbox: Sandbox) -> None:
    slow, quick = sandbox.add_set(SetPlan(seconds=60.0)), sandbox.add_set(SHORT)
    seen = []
    async with client.open_batch([slow, quick, quick]) as batch:
        async for outcome in batch:
            seen.append(outcome.unit_test_set_id)
            if len(seen) == 1:
                assert batch.result().counts == {"passed": 2, "timed_out": 1}
    assert seen == [quick, quick, slow]
    assert batch.result().passed


async def test_error_in_the_body(client: AmigoClient, sandbox: Sandbox) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client.open_batch(sandbox.add_sets(3, LONG)):
            await anyio.sleep(5)
            raise ZeroDivisionError
    assert len(sandbox.runs) == 3


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt(), GeneratorExit()])
async def test_error_that_ends_the_program_in_the_body(
    client: AmigoClient, sandbox: Sandbox, error: BaseException
) -> None:
    """It is not wrapped in a group, which would change the exit status."""
    with pytest.raises(type(error)) as caught:
        async with client.open_batch(sandbox.add_sets(2, LONG), on_exit="cancel"):
            await anyio.sleep(5)
            raise error
    assert caught.value is error
    assert [run.cancelled for run in sandbox.runs] == [True, True]


async def test_left_in_a_generator(client: AmigoClient, sandbox: Sandbox) -> None:
    async def outcomes() -> AsyncGenerator[RunOutcome, None]:
        async with client.open_batch(sandbox.add_sets(2, SHORT)) as batch:
            async for outcome in batch:
                yield outcome

    async with aclosing(outcomes()) as them:
        async for outcome in them:
            assert outcome.verdict == "passed"
            break
    assert our_tasks() == []


async def test_several_tasks_iterate(client: AmigoClient, sandbox: Sandbox) -> None:
    seen: list[RunOutcome] = []
    async with client.open_batch(sandbox.add_sets(4, SHORT)) as batch:

        async def consume() -> None:
            async for outcome in batch:
                seen.append(outcome)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(consume)
    assert sorted(seen, key=lambda one: one.unit_test_set_id) == sorted(
        batch.result().outcomes, key=lambda one: one.unit_test_set_id
    )


async def test_outcome_of_a_cancelled_iteration_is_kept(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    async with client.open_batch(sandbox.add_sets(2, SHORT)) as batch:
        with anyio.move_on_after(1) as scope:
            await anext(batch)
        assert scope.cancelled_caught
        with anyio.fail_after(60):
            assert [outcome.verdict async for outcome in batch] == ["passed", "passed"]


async def test_iterated_after_it_was_left(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = [sandbox.add_set(SHORT), sandbox.add_set(LONG)]
    async with client.open_batch([*set_ids, set_ids[1]]) as batch:
        await anyio.sleep(30)
    with anyio.fail_after(60):
        verdicts = [outcome.verdict async for outcome in batch]
    assert verdicts == ["passed", "timed_out", "timed_out"]


# --- what cannot be right ---


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"unit_test_set_ids": []}, "unit_test_set_ids"),
        ({"unit_test_set_ids": "a" * 24}, "unit_test_set_ids"),
        ({"unit_test_set_ids": ["nonsense"]}, "unit_test_set_ids"),
        ({"timeout": 0}, "timeout"),
        ({"poll_interval": -1.0}, "poll_interval"),
        ({"on_conflict": "x"}, "on_conflict"),
        ({"on_failure": "x"}, "on_failure"),
        ({"on_exit": "x"}, "on_exit"),
        ({"artifacts_dir": "/dev/null/x"}, "artifacts_dir"),
    ],
)
async def test_invalid_arguments(
    client: AmigoClient, sandbox: Sandbox, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ArgumentError, match=named):
        await client.run_many(**{"unit_test_set_ids": sandbox.add_sets(1), **arguments})
    assert sandbox.requests == []


# --- failures ---


async def test_on_failure_stop(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = [sandbox.add_set(FAILING), *sandbox.add_sets(29, SetPlan(seconds=40.0))]
    result = await client.run_many(set_ids, on_failure="stop")
    assert result.counts == {"failed": 1, "passed": 19, "not_started": 10}
    assert len(sandbox.runs) == 20


async def test_early_failure_is_seen(client: AmigoClient, sandbox: Sandbox) -> None:
    failing = SetPlan(seconds=600.0, outcome="failed", trouble_at=0.05, repeats=10)
    set_ids = [sandbox.add_set(failing), *sandbox.add_sets(39, SetPlan(seconds=100.0))]
    result = await client.run_many(set_ids, on_failure="stop")
    assert result.counts == {"failed": 1, "passed": 19, "not_started": 20}


async def test_on_failure_cancel_rest(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = [sandbox.add_set(FAILING), *sandbox.add_sets(24, LONG)]
    began = anyio.current_time()
    result = await client.run_many(set_ids, on_failure="cancel_rest")
    assert result.counts == {"failed": 1, "cancelled": 19, "not_started": 5}
    assert anyio.current_time() - began < 120
    assert all(run.is_completed for run in sandbox.runs)
    assert sandbox.count("cancel", status=204) == 19
    assert sandbox.count("cancel", status=429) == 0


async def test_run_that_will_not_be_cancelled(client: AmigoClient, sandbox: Sandbox) -> None:
    stubborn = SetPlan(seconds=36000.0, cancel_after=30000.0)
    set_ids = [sandbox.add_set(FAILING), sandbox.add_set(stubborn)]
    result = await client.run_many(set_ids, on_failure="cancel_rest")
    assert result.outcomes[1].verdict == "timed_out"
    assert isinstance(result.outcomes[1].error, WaitTimeoutError)


async def test_gate_decides_what_fails(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    flaky = SetPlan(seconds=20.0, outcome="failed", trouble_at=0.9, repeats=10, unit_tests=1)
    again: dict[str, Any] = {
        "unit_test_set_ids": [sandbox.add_set(flaky), *sandbox.add_sets(24, SHORT)],
        "on_failure": "stop",
        "journal": tmp_path / "batch.jsonl",
    }
    lenient = await client.run_many(**again, gate=Gate(min_pass_rate=0.5))
    assert lenient.passed
    assert len(sandbox.runs) == 25
    strict = await client.run_many(**again)
    assert strict.counts == {"failed": 1, "passed": 24}
    with pytest.raises(ArgumentError, match="gate"):
        await client.run_many(**{**again, "gate": "strict"})


# --- ends ---


async def test_deadline_of_a_batch(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = [sandbox.add_set(SHORT), *sandbox.add_sets(29, LONG)]
    began = anyio.current_time()
    result = await client.run_many(set_ids, timeout=100.0)
    assert anyio.current_time() - began == pytest.approx(100.0, abs=1.0)
    assert result.counts == {"passed": 1, "timed_out": 29}
    assert all(o.run_id is not None for o in result.outcomes)
    assert sandbox.count("cancel") == 0
    last = result.outcomes[-1]
    assert isinstance(last.error, WaitTimeoutError)
    assert last.error.run_id == last.run_id


async def test_too_late_to_start(client: AmigoClient, sandbox: Sandbox) -> None:
    result = await client.run_many(sandbox.add_sets(25, SetPlan(seconds=1.0)), timeout=30.0)
    assert result.counts == {"passed": 20, "not_started": 5}
    assert all(isinstance(o.error, DeadlineError) for o in result.outcomes[20:])


async def test_deadline_before_artifacts(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    late = SetPlan(seconds=5.0, artifacts_after=100.0)
    result = await client.run_many([sandbox.add_set(late)], artifacts_dir=tmp_path, timeout=60.0)
    (outcome,) = result.outcomes
    assert outcome.verdict == "passed"
    assert isinstance(outcome.error, ArtifactTimeoutError)
    assert "before it was generated" in str(outcome.error)
    assert not result.passed


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
@pytest.mark.parametrize("how", ["scope", "task", "timeout", "body"])
async def test_leaving_a_batch(
    client: AmigoClient, sandbox: Sandbox, on_exit: Any, how: str
) -> None:
    set_ids = sandbox.add_sets(15, LONG)
    began = anyio.current_time()
    if how == "scope":
        with anyio.move_on_after(30):
            await client.run_many(set_ids, on_exit=on_exit)
    elif how == "task":
        task = asyncio.create_task(client.run_many(set_ids, on_exit=on_exit))
        await anyio.sleep(30)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    elif how == "timeout":
        assert (await client.run_many(set_ids, timeout=30.0, on_exit=on_exit)).counts == {
            "timed_out": 15
        }
    else:
        async with client.open_batch(set_ids, on_exit=on_exit) as batch:
            await anyio.sleep(30)
        verdict = {"leave": "timed_out", "cancel": "cancelled"}[on_exit]
        assert batch.result().counts == {verdict: 15}
    assert anyio.current_time() - began < 30 + 90 + 5
    await anyio.sleep(10)
    over = sum(run.is_completed for run in sandbox.runs)
    assert over == (15 if on_exit == "cancel" else 0)
    assert sandbox.count("cancel", status=429) == 0


async def test_a_run_whose_cancellation_is_refused_continues(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    events: list[Event] = []
    set_ids = sandbox.add_sets(2, LONG)
    sandbox.fault("cancel", Fault.status(403))
    async with client.open_batch(set_ids, on_exit="cancel", on_event=events.append) as batch:
        await anyio.sleep(30)
    assert batch.result().counts == {"timed_out": 1, "cancelled": 1}
    assert "timed out: the batch ended before the run did; the run continues" in (
        batch.result().summary()
    )
    (going_on,) = [run for run in sandbox.runs if not run.cancelled]
    told = {e.unit_test_set_id: e.verdict for e in events if isinstance(e, SetFinished)}
    assert told.pop(going_on.unit_test_set_id) == "timed_out"
    assert list(told.values()) == ["cancelled"]


# --- events ---


async def test_events_of_a_batch_are_heard(sandbox: Sandbox, tmp_path: Path) -> None:
    heard: list[Event] = []
    set_ids = [*sandbox.add_sets(21, SetPlan(seconds=30.0)), sandbox.add_set(FAILING)]
    sandbox.fault("list", Fault.status(503))
    async with sandbox.client() as client:
        await client.run_many(set_ids, artifacts_dir=tmp_path, on_event=heard.append)
    kinds = {type(event) for event in heard}
    assert {SignedIn, RunStarted, RunProgressed, RunFinished, ArtifactSaved} <= kinds
    assert {LimitHeld, RequestRetried} <= kinds
    started = [event.unit_test_set_id for event in heard if isinstance(event, RunStarted)]
    assert sorted(started) == sorted(set_ids)
    verdicts = [event.verdict for event in heard if isinstance(event, RunFinished)]
    assert sorted(verdicts) == ["failed"] + ["passed"] * 21
    progress = [e for e in heard if isinstance(e, RunProgressed) and e.done is not None]
    assert any(0 < e.done < e.total for e in progress if e.total is not None and e.done)


async def test_events_of_another_batch_are_not(client: AmigoClient, sandbox: Sandbox) -> None:
    heard: list[Event] = []
    mine, others = sandbox.add_set(SHORT), sandbox.add_sets(2, SHORT)
    await asyncio.gather(
        client.run_many([mine], on_event=heard.append),
        client.run_many(others, on_event=lambda _: None),
    )
    of_sets = {getattr(event, "unit_test_set_id", mine) for event in heard}
    assert of_sets == {mine}
    assert [event.counts for event in heard if isinstance(event, BatchFinished)] == [{"passed": 1}]


async def test_batches_of_the_same_set_hear_their_own_end(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    set_id, other = sandbox.add_set(SHORT, name="One"), sandbox.add_set(LONG, name="Other")
    heard: tuple[list[Event], list[Event]] = ([], [])
    await asyncio.gather(
        client.run_many([set_id], on_conflict="attach", describe=True, on_event=heard[0].append),
        client.run_many(
            [set_id, other],
            on_conflict="attach",
            timeout=60.0,
            describe=True,
            on_event=heard[1].append,
        ),
    )
    for of_one, names in zip(
        heard, [{set_id: "One"}, {set_id: "One", other: "Other"}], strict=True
    ):
        ends = [event for event in of_one if isinstance(event, SetFinished)]
        assert sorted(event.unit_test_set_id for event in ends) == sorted(names)
        [end] = [event for event in of_one if isinstance(event, BatchFinished)]
        read = [event for event in of_one if isinstance(event, NamesRead)]
        assert {i: n for event in read for i, n in event.unit_test_sets.items()} == names
        assert {event.batch_id for event in ends} == {end.batch_id}
        assert {event.batch_id for event in read} == {end.batch_id}
        assert of_one[-1] is end


def check_ends(heard: list[Event], result: BatchResult) -> None:
    """Each set has exactly one end, which is that of the result; that of the batch comes last."""
    ends = {e.unit_test_set_id: e for e in heard if isinstance(e, SetFinished)}
    assert sum(isinstance(e, SetFinished) for e in heard) == len(ends)
    assert set(ends) == {o.unit_test_set_id for o in result.outcomes}
    for outcome in result.outcomes:
        end = ends[outcome.unit_test_set_id]
        error = outcome.error
        assert (end.run_id, end.verdict) == (outcome.run_id, outcome.verdict)
        assert end.error == (None if error is None else str(error))
        assert end.error_type == (None if error is None else type(error).__name__)
    *_, last = heard
    assert isinstance(last, BatchFinished)
    assert (last.passed, last.counts) == (result.passed, result.counts)
    assert {event.batch_id for event in ends.values()} == {last.batch_id}
    assert {event.organization_id for event in heard} == {"sandbox"}


async def test_every_set_ends_whatever_its_ending(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    heard: list[Event] = []
    done = sandbox.add_set(SHORT)
    files: dict[str, Any] = {"artifacts_dir": tmp_path / "files", "journal": tmp_path / "journal"}
    busy = sandbox.add_set(LONG)
    await client.runs.create(busy)
    set_ids = [
        done,
        done,
        sandbox.add_set(FAILING),
        sandbox.add_set(SetPlan(seconds=5.0, outcome="errored")),
        "f" * 24,
        busy,
        sandbox.add_set(SetPlan(seconds=3600.0)),
        sandbox.add_set(SetPlan(seconds=5.0, artifacts_after=None)),
        sandbox.add_set(SetPlan(seconds=30.0, cancelled_at=2.0)),
    ]
    result = await client.run_many(set_ids, timeout=90.0, on_event=heard.append, **files)
    assert result.counts == {
        "passed": 3,
        "failed": 1,
        "errored": 1,
        "not_started": 2,
        "timed_out": 1,
        "cancelled": 1,
    }
    check_ends(heard, result)
    said = {
        e.unit_test_set_id: (e.verdict, e.error_type) for e in heard if isinstance(e, SetFinished)
    }
    assert [said[set_ids[at]] for at in (0, 4, 5, 6, 7)] == [
        ("passed", None),
        ("not_started", "NotFoundError"),
        ("not_started", "ConflictError"),
        ("timed_out", "WaitTimeoutError"),
        ("passed", "ArtifactTimeoutError"),
    ]
    [end] = [event for event in heard if isinstance(event, BatchFinished)]
    assert 90.0 <= end.seconds < 95.0
    # What was done before ends once more in the batch that resumes it.
    heard.clear()
    result = await client.run_many(set_ids, timeout=30.0, on_event=heard.append, **files)
    check_ends(heard, result)


@pytest.mark.parametrize("how", ["left", "cancelled", "raised"])
async def test_sets_that_are_left_end(client: AmigoClient, sandbox: Sandbox, how: str) -> None:
    heard: list[Event] = []
    set_ids = [sandbox.add_set(SHORT), *sandbox.add_sets(22, LONG)]
    batches: list[BatchResult] = []

    async def run() -> None:
        async with client.open_batch(set_ids, on_event=heard.append) as batch:
            async for _ in batch:
                break
            batches.append(batch.result())
            if how == "cancelled":
                await anyio.sleep_forever()
            if how == "raised":
                raise ZeroDivisionError

    if how == "raised":
        with pytest.raises(ZeroDivisionError):
            await run()
    else:
        task = asyncio.create_task(run())
        await anyio.sleep(30.0)
        assert task.cancel() == (how == "cancelled")
        await asyncio.wait({task})
    check_ends(heard, batches[0])
    [end] = [event for event in heard if isinstance(event, BatchFinished)]
    assert end.counts == {"passed": 1, "timed_out": 19, "not_started": 3}


async def test_retried_creates_and_downloads_are_heard(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    sandbox.fault("create", Fault.status(503))
    sandbox.fault("create", Fault.drop())
    sandbox.fault("list", Fault.expired_token())
    sandbox.fault("store", Fault.status(500))
    sandbox.fault("store", Fault.expired_link())
    caplog.set_level("WARNING", "amigo_async")
    set_id = sandbox.add_set(SHORT)
    result = await client.run_many([set_id], artifacts_dir=tmp_path, on_event=heard.append)
    assert result.passed
    retried = [event for event in heard if isinstance(event, RequestRetried)]
    assert [(e.endpoint, e.attempt) for e in retried if e.endpoint == "create"] == [
        ("create", 1),
        ("create", 2),
    ]
    assert [e.reason for e in retried if e.endpoint == "list" and "401" in e.reason]
    assert len([e for e in retried if e.endpoint == "store"]) == 2
    lines = [line for line in caplog.messages if "failed, attempt" in line]
    assert len(lines) == len(retried)
    assert all(line.startswith("[sandbox] ") for line in lines)
    # None is left out: every request that was answered with an error, or not at all, was repeated.
    lost = [r for r in sandbox.requests if r.status is None or r.status >= 400]
    assert len(retried) == len(lost)


async def test_summary_says_what_did_not_pass(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    failing = SetPlan(seconds=5.0, outcome="failed", unit_tests=3, repeats=2, trouble_at=0.0)
    bare = SetPlan(seconds=5.0, artifacts_after=None)
    ids = [
        sandbox.add_set(SHORT, name="Good"),
        sandbox.add_set(failing, name="Re\nfunds"),
        "f" * 24,
        sandbox.add_set(bare, name="Bare"),
    ]
    options: dict[str, Any] = {"artifacts_dir": tmp_path, "timeout": 60.0, "describe": True}
    result = await client.run_many([*ids, ids[1]], **options)
    assert repr(result) == ("<BatchResult 2 passed, 1 of them incomplete, 2 failed, 1 not started>")
    counts, *lines = result.summary().splitlines()
    assert counts == "5 sets: 2 passed, 1 of them incomplete, 2 failed, 1 not started"
    refunds, unknown, incomplete = lines
    failed, not_started = result.outcomes[1], result.outcomes[2]
    assert failed.run is not None
    assert failed.run.metrics_that_failed is not None
    first = failed.run.metrics_that_failed[0]
    test, metric = (
        result.names.unit_tests[first.unit_test_id],
        result.names.metrics[first.metric_id],
    )
    assert refunds.startswith(
        f"Re funds ({ids[1]}), run {failed.run_id}: failed: "
        f"{test}: {metric} failed in {first.failed} of 2 repeats"
    )
    assert unknown == f"set {ids[2]}: not started: {not_started.error}"
    assert f"Bare ({ids[3]})" in incomplete
    assert "the deadline passed before it was generated" in incomplete
    assert repr(failed) == f"<RunOutcome of set {ids[1]}, run {failed.run_id}: failed>"
    assert repr(not_started) == f"<RunOutcome of set {ids[2]}: not_started, NotFoundError>"
    everything = await client.run_many(ids[:1])
    assert everything.summary() == "1 set: 1 passed"
    assert repr(everything) == "<BatchResult 1 passed>"
    assert repr(BatchResult(())) == "<BatchResult no sets>"


async def test_failing_listener_is_told_once_for_a_batch(
    client: AmigoClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Event) -> None:
        raise ZeroDivisionError

    async def failing_later(_: Event) -> None:
        raise ZeroDivisionError

    for listener in (failing, failing_later):
        caplog.clear()
        await client.run_many([sandbox.add_set(SHORT)], on_event=listener)
        first, last = [r for r in caplog.records if r.levelname == "ERROR"]
        assert first.exc_info is not None
        assert last.exc_info is None
        assert last.getMessage().endswith(" more times")


async def test_slow_async_listener(client: AmigoClient, sandbox: Sandbox) -> None:
    heard: list[Event] = []

    async def listener(event: Event) -> None:
        await anyio.sleep(0.5)
        heard.append(event)

    set_id = sandbox.add_set(SHORT)
    began = anyio.current_time()
    await client.run_many([set_id], on_event=listener)
    assert anyio.current_time() - began < 15
    assert isinstance(heard[-1], BatchFinished)


async def test_bad_listeners_harm_nobody(
    client: AmigoClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    def raising(_: Event) -> None:
        raise ZeroDivisionError

    async def raising_later(_: Event) -> None:
        raise ZeroDivisionError

    async def never_ending(_: Event) -> None:
        await anyio.sleep_forever()

    def asking_what_was_cancelled(_: Event) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        future.result()

    async def asking_it_later(event: Event) -> None:
        asking_what_was_cancelled(event)

    def failing_a_test(_: Event) -> None:
        pytest.fail("which is no Exception")

    async def failing_it_later(event: Event) -> None:
        failing_a_test(event)

    heard: list[str] = []

    async def raising_at_first(event: Event) -> None:
        heard.append(type(event).__name__)
        if len(heard) == 1:
            raise asyncio.CancelledError

    listeners: list[Any] = [
        raising,
        raising_later,
        never_ending,
        asking_what_was_cancelled,
        asking_it_later,
        failing_a_test,
        failing_it_later,
        raising_at_first,
    ]
    for listener in listeners:
        result = await client.run_many([sandbox.add_set(SHORT)], on_event=listener)
        assert result.passed
    for error in ("ZeroDivisionError", "CancelledError", "which is no Exception"):
        assert error in caplog.text
    assert (heard[0], heard[-1]) == ("RunStarted", "BatchFinished")
    assert our_tasks() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("later", [False, True])
def test_listener_ends_the_program(error: type[BaseException], later: bool, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    started: list[str] = []

    def listener(event: Event) -> None:
        if isinstance(event, RunStarted):
            started.append(event.unit_test_set_id)
            raise error

    async def listener_later(event: Event) -> None:
        listener(event)

    async def main() -> None:
        async with Sandbox(plan=LONG) as sandbox, sandbox.client() as client:
            on_event = listener_later if later else listener
            await client.run_many(sandbox.add_sets(3), journal=journal, on_event=on_event)

    with pytest.raises(error), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert started
    assert all(set_id in journal.read_text() for set_id in started)  # to be looked for


# --- journals ---


async def test_journal_repeats_nothing(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_ids = [*sandbox.add_sets(3, SHORT), sandbox.add_set(FAILING)]
    again: dict[str, Any] = {"artifacts_dir": tmp_path, "journal": tmp_path / "batch.jsonl"}
    first = await client.run_many(set_ids, **again)
    sandbox.forget_requests()
    second = await client.run_many(set_ids, **again)
    for now, before in zip(second.outcomes, first.outcomes, strict=True):
        assert now == before
    assert sandbox.requests == []
    third = await client.run_many([*set_ids, sandbox.add_set(SHORT)], **again)
    assert third.counts == {"passed": 4, "failed": 1}
    assert len(sandbox.runs) == 5


async def test_journal_resumes_waiting(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_ids = sandbox.add_sets(30, SetPlan(seconds=100.0))
    again: dict[str, Any] = {"artifacts_dir": tmp_path, "journal": tmp_path / "batch.jsonl"}
    first = await client.run_many(set_ids, timeout=50.0, **again)
    assert first.counts == {"timed_out": 20, "not_started": 10}
    second = await client.run_many(set_ids, **again)
    assert second.passed
    assert len(sandbox.runs) == 30
    assert whole(second, sandbox)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("how", ["exit", "rest"])
async def test_resumed_after_its_runs_were_cancelled(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, *, hidden: bool, how: str
) -> None:
    """Where results are hidden, nothing of the service shows that a run was cancelled."""
    if hidden:
        shown = [p.value for p in Permission if p is not Permission.GET_SET]
        sandbox.add_user(sandbox.user_id, permissions=shown)
    set_ids = sandbox.add_sets(2, SetPlan(seconds=3600.0, cancel_after=20.0))
    journal = tmp_path / "batch.jsonl"
    with anyio.move_on_after(15):
        if how == "exit":
            await client.run_many(set_ids, journal=journal, on_exit="cancel")
        else:
            failing = sandbox.add_set(FAILING)
            await client.run_many([*set_ids, failing], journal=journal, on_failure="cancel_rest")
    assert sandbox.count("cancel") == 2
    await anyio.sleep(2000)
    for _ in range(2):
        resumed = await client.run_many(set_ids, journal=journal)
        assert resumed.counts == {"cancelled": 2}
        told = "the run was cancelled here, and which of its repeats ran is hidden"
        assert (resumed.outcomes[0].reason == told) == hidden
        assert [outcome.finished_at for outcome in resumed.outcomes] == [None, None]


async def test_only_an_end_that_was_watched_has_a_time(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Of a run that ended between two calls nothing tells when; of one seen in progress it does."""
    set_ids = [sandbox.add_set(SetPlan(seconds=seconds)) for seconds in (60.0, 4000.0)]
    journal = tmp_path / "batch.jsonl"
    first = await client.run_many(set_ids, timeout=20.0, journal=journal)
    assert first.counts == {"timed_out": 2}
    await anyio.sleep(2000)
    for _ in range(2):
        ended, watched = (await client.run_many(set_ids, journal=journal)).outcomes
        assert (ended.verdict, watched.verdict) == ("passed", "passed")
        assert ended.finished_at is None
        assert watched.started_at is not None
        assert watched.finished_at is not None
        assert (watched.finished_at - watched.started_at).total_seconds() == pytest.approx(
            4000, rel=0.02
        )


async def test_a_run_whose_id_was_lost_may_have_ended_unwatched(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_ids = sandbox.add_sets(1, SetPlan(seconds=60.0))
    journal = tmp_path / "batch.jsonl"
    await client.run_many(set_ids, timeout=20.0, journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"started"' not in line))
    await anyio.sleep(2000)
    [outcome] = (await client.run_many(set_ids, journal=journal)).outcomes
    assert len(sandbox.runs) == 1
    assert outcome.verdict == "passed"
    assert outcome.finished_at is None


async def test_refused_cancellation_is_not_recorded(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    journal = tmp_path / "batch.jsonl"
    set_ids = sandbox.add_sets(1, SetPlan(seconds=60.0))
    sandbox.fault("cancel", Fault.status(403))
    with anyio.move_on_after(15):
        await client.run_many(set_ids, journal=journal, on_exit="cancel")
    assert sandbox.count("cancel", status=403) == 1
    assert (await client.run_many(set_ids, journal=journal)).passed


async def test_lost_artifact_is_fetched_again(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_ids = sandbox.add_sets(1, SHORT)
    again: dict[str, Any] = {"artifacts_dir": tmp_path, "journal": tmp_path / "batch.jsonl"}
    (outcome,) = (await client.run_many(set_ids, **again)).outcomes
    assert outcome.artifacts is not None
    outcome.artifacts.unlink()
    assert whole(await client.run_many(set_ids, **again), sandbox)
    assert len(sandbox.runs) == 1


@asynccontextmanager
async def saved(
    tmp_path: Path, etag: Literal["md5", "multipart"]
) -> AsyncIterator[tuple[Sandbox, AmigoClient, dict[str, Any], Path]]:
    """A batch of one set that is over, with the call that resumes it, and its artifact."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        plan = SetPlan(seconds=5.0, artifact=ArtifactPlan(size=30_000, etag=etag))
        again: dict[str, Any] = {
            "unit_test_set_ids": [sandbox.add_set(plan)],
            "artifacts_dir": tmp_path / "one",
            "journal": tmp_path / "batch.jsonl",
        }
        result = await client.run_many(**again)
        assert whole(result, sandbox)
        path = result.outcomes[0].artifacts
        assert path is not None
        sandbox.forget_requests()
        yield sandbox, client, again, path


ETAGS = pytest.mark.parametrize("etag", ["md5", "multipart"])


def without_saved(journal: Path) -> None:
    """As a process leaves it that was killed after the publishing and before the noting."""
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"what":"saved"' not in line]
    assert len(kept) == len(lines) - 1
    journal.write_bytes(b"".join(kept))


@ETAGS
async def test_unnoted_artifact_is_kept(tmp_path: Path, etag: Literal["md5", "multipart"]) -> None:
    async with saved(tmp_path, etag) as (sandbox, client, again, path):
        without_saved(again["journal"])
        before = path.stat()
        result = await client.run_many(**again)
        assert result.passed
        assert whole(result, sandbox)
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        sandbox.forget_requests()
        assert (await client.run_many(**again)).passed
        assert sandbox.requests == []  # it is noted now


@ETAGS
@pytest.mark.parametrize("left", [0, 1, 29_999])
async def test_truncated_artifact_is_renewed(
    tmp_path: Path, etag: Literal["md5", "multipart"], left: int
) -> None:
    async with saved(tmp_path, etag) as (sandbox, client, again, path):
        os.truncate(path, left)
        result = await client.run_many(**again)
        assert result.passed
        assert result.outcomes[0].artifacts == path
        assert whole(result, sandbox)
        aside = [other for other in path.parent.iterdir() if other != path]
        assert [other.stat().st_size for other in aside] == ([left] if left else [])


async def test_edited_artifact_is_set_aside(tmp_path: Path) -> None:
    async with saved(tmp_path, "multipart") as (sandbox, client, again, path):
        for text in ("mine", "mine too"):
            path.write_bytes(text.encode().ljust(30_000))
            result = await client.run_many(**again)
            assert result.passed
            assert whole(result, sandbox)
        texts = [other.read_text().strip() for other in sorted(path.parent.iterdir())[1:]]
        assert texts == ["mine", "mine too"]


@ETAGS
async def test_artifacts_in_another_folder(
    tmp_path: Path, etag: Literal["md5", "multipart"]
) -> None:
    async with saved(tmp_path, etag) as (sandbox, client, again, path):
        elsewhere = {**again, "artifacts_dir": tmp_path / "two"}
        result = await client.run_many(**elsewhere)
        assert result.passed
        assert whole(result, sandbox)
        found = result.outcomes[0].artifacts
        assert found == tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.exists()
        sandbox.forget_requests()
        assert await client.run_many(**elsewhere) == replace(result, began_at=ANY)
        assert sandbox.requests == []


async def test_moved_artifacts_are_kept(tmp_path: Path) -> None:
    async with saved(tmp_path, "multipart") as (sandbox, client, again, path):
        (tmp_path / "one").rename(tmp_path / "two")
        result = await client.run_many(**{**again, "artifacts_dir": tmp_path / "two"})
        assert whole(result, sandbox)
        assert result.outcomes[0].artifacts == tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert sandbox.requests == []


async def test_known_artifacts_are_named(tmp_path: Path) -> None:
    async with saved(tmp_path, "multipart") as (_, client, again, path):
        del again["artifacts_dir"]
        assert (await client.run_many(**again)).outcomes[0].artifacts == path
        path.unlink()
        assert (await client.run_many(**again)).outcomes[0].artifacts is None


async def test_a_journal_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Its lines do not say what was saved: the store is asked once."""
    async with saved(tmp_path, "md5") as (sandbox, client, again, _):
        lines = [json.loads(line) for line in again["journal"].read_text().splitlines()]
        for line in lines:
            if line["what"] == "saved":
                del line["size"], line["checksum"]
        again["journal"].write_text(
            "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        )
        assert whole(await client.run_many(**again), sandbox)
        sandbox.forget_requests()
        assert whole(await client.run_many(**again), sandbox)
        assert sandbox.requests == []


async def test_read_only_folder(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write where the mode forbids it, so the system's answer is made up."""
    mkdir = os.mkdir

    def read_only(path: str, mode: int = 0o777) -> None:
        if Path(path).parent == tmp_path / "one":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        mkdir(path, mode)

    again: dict[str, Any] = {
        "unit_test_set_ids": sandbox.add_sets(1, SHORT),
        "artifacts_dir": tmp_path / "one",
        "journal": tmp_path / "batch.jsonl",
    }
    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", read_only)
        with pytest.raises(ArgumentError, match=r"artifacts_dir .*one cannot be written to: Read"):
            await client.run_many(**again)
    assert sandbox.requests == []
    assert (await client.run_many(**again)).passed
    monkeypatch.setattr(os, "mkdir", read_only)
    assert (await client.run_many(**again)).passed  # all is there, and nothing is to be made
    assert [path.name for path in (tmp_path / "one").iterdir()] == [r.id for r in sandbox.runs]


async def test_unknown_option_sends_nothing(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = sandbox.add_sets(1)
    with pytest.raises(TypeError, match="'on_failures': did you mean 'on_failure'"):
        await client.run_many(set_ids, on_failures="stop")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'artifacts': did you mean 'artifacts_dir'"):
        client.open_batch(set_ids, artifacts="results")  # type: ignore[call-arg]
    assert sandbox.requests == []


@ETAGS
async def test_two_batches_share_a_folder(
    tmp_path: Path, etag: Literal["md5", "multipart"]
) -> None:
    """As a task that is delivered twice."""
    plan = SetPlan(seconds=5.0, artifact=ArtifactPlan(size=3_000_000, etag=etag))
    async with Sandbox() as sandbox, sandbox.client() as one, sandbox.client() as other:
        set_ids = sandbox.add_sets(3, plan)
        results: list[BatchResult] = []

        async def run(client: AmigoClient) -> None:
            results.append(
                await client.run_many(set_ids, on_conflict="attach", artifacts_dir=tmp_path)
            )

        async with anyio.create_task_group() as group:
            group.start_soon(run, one)
            group.start_soon(run, other)
        assert [result.passed for result in results] == [True, True]
        assert all(whole(result, sandbox) for result in results)
        assert len(sandbox.runs) == 3
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"artifacts.zip"}


@pytest.mark.parametrize("argument", ["artifacts_dir", "journal"])
@pytest.mark.parametrize("path", ["", "a\0b", b"bytes", 3, "\ud800", "x" * 256, "x/" * 2048])
async def test_invalid_paths(
    client: AmigoClient, sandbox: Sandbox, argument: str, path: Any
) -> None:
    with pytest.raises(ArgumentError, match=f"^{argument} "):
        await client.run_many(sandbox.add_sets(1, SHORT), **{argument: path})
    assert sandbox.requests == []


async def test_two_batches_cannot_use_one_journal(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "batch.jsonl"
    async with client.open_batch(sandbox.add_sets(1, LONG), journal=path):
        with pytest.raises(JournalError, match="in use"):
            await client.run_many(sandbox.add_sets(1, SHORT), journal=path)


async def test_journal_that_is_deleted_is_told(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """What has begun goes on, and nothing is started that no batch could resume."""
    path = tmp_path / "batch.jsonl"
    set_ids = sandbox.add_sets(25, SetPlan(seconds=30.0))
    async with client.open_batch(set_ids, journal=path) as batch:
        await anyio.sleep(10)
        path.unlink()
        async for _ in batch:
            pass
    result = batch.result()
    assert result.counts == {"passed": 20, "not_started": 5}
    assert {type(outcome.error) for outcome in result.outcomes} == {JournalError}
    assert len(sandbox.runs) == 20


async def test_no_secret_is_in_the_journal(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "batch.jsonl"
    await client.run_many(sandbox.add_sets(3, SHORT), artifacts_dir=tmp_path, journal=path)
    text = path.read_text()
    tokens = {r.headers["authorization"] for r in sandbox.requests if "authorization" in r.headers}
    signatures = {value for r in sandbox.requests for value in r.values("X-Amz-Signature")}
    assert tokens
    assert signatures
    for secret in (sandbox.api_key, *(t.split()[1] for t in tokens), *signatures):
        assert str(secret) not in text


async def test_batch_leaves_nothing_behind(sandbox: Sandbox, tmp_path: Path) -> None:
    connector = Counting()
    async with aiohttp.ClientSession(connector=connector) as http, sandbox.client(http=http) as one:
        running = asyncio.create_task(
            one.run_many(sandbox.add_sets(5, SHORT), artifacts_dir=tmp_path)
        )
        await anyio.sleep(1)
        assert our_tasks()
        await running
        assert our_tasks() == []
        assert not connector.held()


# --- runs that are not what their flags say ---


@pytest.mark.parametrize("gate", [None, Gate(min_pass_rate=0.0, errored="ignore")])
@pytest.mark.parametrize("results", [[], [None], [{**RESULT, "metric_evaluation_results": []}]])
async def test_cancelled_by_somebody_else(gate: Gate | None, results: list[Any]) -> None:
    def shape(record: dict[str, Any], age: float) -> None:
        if age >= 5.0:
            record |= {"is_completed": True, "unit_test_run_results": results}

    async with SmallApi(60.0).serving() as api, api.client() as client:
        api.shape = shape
        result = await client.run_many(["a" * 24], gate=gate, timeout=100.0)
    [outcome] = result.outcomes
    assert outcome.verdict == "cancelled"
    assert outcome.reason == "the run was cut short: 1 repeat never ran"
    assert outcome.run is not None
    assert not outcome.run.passed
    assert not result.passed


async def test_late_results_are_awaited() -> None:
    def shape(record: dict[str, Any], age: float) -> None:
        if age < 13.0:
            record["unit_test_run_results"] = [None]

    async with SmallApi(10.0).serving() as api, api.client() as client:
        api.shape = shape
        result = await client.run_many(["a" * 24], timeout=100.0)
    [outcome] = result.outcomes
    assert (outcome.verdict, outcome.reason) == ("passed", None)


async def test_verdict_by_flags_alone() -> None:
    hidden: dict[str, Any] = {"unit_test_run_specs": [], "unit_test_run_results": []}
    async with SmallApi().serving() as api, api.client() as client:
        api.shape = lambda record, age: record.update(hidden)
        result = await client.run_many(["a" * 24])
    [outcome] = result.outcomes
    assert outcome.verdict == "passed"
    assert outcome.reason == "judged by the flags of the run: the results of its repeats are hidden"


@pytest.mark.parametrize(
    ("flag", "verdict"), [("failed_metrics", "failed"), ("errored", "errored")]
)
async def test_last_state_gives_the_verdict(flag: str, verdict: str, tmp_path: Path) -> None:
    finished: list[RunFinished] = []

    def shape(record: dict[str, Any], age: float) -> None:
        record["artifacts_generated"] = age >= 20.0
        record[flag] = age >= 15.0

    def on_event(event: Event) -> None:
        if isinstance(event, RunFinished):
            finished.append(event)

    path = tmp_path / "journal"
    async with SmallApi().serving() as api, api.client() as client:
        api.shape = shape
        files: dict[str, Any] = {"artifacts_dir": tmp_path / "files", "journal": path}
        result = await client.run_many(["a" * 24], on_event=on_event, **files)
        again = await client.run_many(["a" * 24], **files)
        assert len(api.started) == 1
    for outcomes in (result.outcomes, again.outcomes):
        [outcome] = outcomes
        assert outcome.verdict == verdict
        assert outcome.run is not None
        assert getattr(outcome.run, flag)
        assert outcome.artifacts is not None
        assert outcome.finished_at is not None
        assert outcome.saved_at is not None
        assert outcome.finished_at < outcome.saved_at
    assert [event.verdict for event in finished] == ["passed", verdict]


async def test_deadline_keeps_the_verdict(
    tmp_path: Path,
) -> None:
    def shape(record: dict[str, Any], age: float) -> None:
        record |= {"artifacts_generated": False, "failed_metrics": age >= 15.0}

    async with SmallApi().serving() as api, api.client() as client:
        api.shape = shape
        result = await client.run_many(["a" * 24], artifacts_dir=tmp_path, timeout=40.0)
    assert result.outcomes[0].verdict == "failed"


async def test_unreadable_details(
    tmp_path: Path,
) -> None:
    spec = {**SPEC, "max_interactions": None}

    def shape(record: dict[str, Any], age: float) -> None:
        if record["simulation_unit_test_set_id"] == "a" * 24:
            record |= {"unit_test_run_specs": [spec], "failed_metrics": True}
            record["artifacts_generated"] = age >= 60.0

    path = tmp_path / "journal"
    async with SmallApi().serving() as api, api.client() as client:
        api.shape = shape
        files: dict[str, Any] = {"artifacts_dir": tmp_path / "files", "journal": path}
        result = await client.run_many(["a" * 24, "b" * 24], **files)
        bad, good = result.outcomes
        assert (good.verdict, good.error) == ("passed", None)
        assert bad.verdict == "failed"
        assert isinstance(bad.error, DecodeError)
        assert "`$.unit_test_run_specs[0].max_interactions`" in str(bad.error)
        assert bad.artifacts is not None
        assert not result.passed
        # Read again by a version that can, the run is whole.
        spec["max_interactions"] = 5
        again = await client.run_many(["a" * 24, "b" * 24], **files)
        assert again.outcomes[0].error is None
        assert again.outcomes[0].run is not None
        assert again.outcomes[0].run.unit_test_run_specs
        assert len(api.started) == 2


async def test_deadline_names_the_reason() -> None:
    async with SmallApi(1.0).serving() as api, api.client() as client:
        api.shape = lambda record, age: record.update(created_at=None)
        result = await client.run_many(["a" * 24], timeout=8.0)
    [outcome] = result.outcomes
    assert outcome.verdict == "timed_out"
    assert "`$.created_at`" in str(outcome.error)


async def test_lagging_list_loses_no_run() -> None:
    def lists(page: dict[str, Any]) -> object:
        now = asyncio.get_running_loop().time()
        runs = page["simulation_unit_test_set_runs"]
        shown = [run for run in runs if now >= api.started[run["id"]][1] + 30.0]
        return page | {"simulation_unit_test_set_runs": shown}

    async with SmallApi(40.0).serving() as api, api.client() as client:
        api.lists = lists
        result = await client.run_many([f"{n:024x}" for n in range(3)])
        assert result.passed
        created = await client.runs.create("f" * 24)
        run = await client.wait_for_completion(created.simulation_unit_test_set_run_id)
        assert run.passed


async def test_odd_run_ids_are_awaited() -> None:
    async with SmallApi().serving() as api, api.client() as client:
        api.new_id = lambda: f"{len(api.started):022x}9h"
        result = await client.run_many([f"{n:024x}" for n in range(3)])
        assert result.passed
        created = await client.runs.create("f" * 24)
        run = await client.wait_for_completion(created.simulation_unit_test_set_run_id)
        assert run.id == created.simulation_unit_test_set_run_id
