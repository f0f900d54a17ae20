"""Names and reasons of a batch: outcomes never wait for them, and nothing fails for their sake."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
import pytest

from amigo_async import AmigoClient, ArgumentError, BatchOptions, BatchResult, Gate, Run
from amigo_async.events import DetailsMissing, Event, NamesRead, RunFinished
from amigo_async.fleet import Assignment, FleetJob, execute_job
from amigo_async.testing import Fault, Permission, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

CALLS: tuple[Any, ...] = ("unit_test_sets", "unit_tests", "metrics")
# Seconds by which the end of a run is seen sooner or later: a look every 3 s, and what it takes.
POLL = 4.5
FAILING = SetPlan(seconds=5.0, outcome="failed", unit_tests=4, repeats=3, metrics=3)
PASSING = SetPlan(seconds=5.0)
BOTH: dict[str, Any] = {"describe": True, "explain": True}


def asked(sandbox: Sandbox) -> dict[str, int]:
    """Requests for names and reasons."""
    return {call: n for call in (*CALLS, "evaluations") if (n := sandbox.count(call))}


def some_sets(sandbox: Sandbox) -> list[str]:
    plans = (FAILING, PASSING, FAILING)
    return [sandbox.add_set(plan, name=f"Set {n}") for n, plan in enumerate(plans)]


def failed_ids(result: BatchResult) -> set[str]:
    return {
        one.metric_evaluation_result_id
        for outcome in result.outcomes
        if outcome.run
        for test in outcome.run.unit_test_run_results
        if test
        for metric in test.metric_evaluation_results
        for one in metric.results
        if not one.passed
    }


def used_ids(runs: list[Run]) -> tuple[set[str], set[str]]:
    specs = [spec for run in runs for spec in run.unit_test_run_specs]
    metrics = {metric.metric_id for spec in specs for metric in spec.metrics_to_evaluate}
    return {spec.unit_test_id for spec in specs}, metrics


class Timed:
    """A batch, and how many seconds it took to each outcome and to the end of the call."""

    def __init__(self) -> None:
        self.outcomes: dict[str, float] = {}
        self.names: dict[str, str | None] = {}

    async def run(self, client: AmigoClient, ids: list[str], **options: Any) -> BatchResult:
        began = anyio.current_time()
        async with client.open_batch(ids, **options) as batch:
            async for outcome in batch:
                self.outcomes[outcome.unit_test_set_id] = anyio.current_time() - began
                self.names[outcome.unit_test_set_id] = outcome.name
        self.seconds = [self.outcomes[set_id] for set_id in ids]
        self.last = max(self.outcomes.values())
        self.longer = anyio.current_time() - began - self.last
        return batch.result()


async def test_sixty_sets_with_names_and_reasons() -> None:
    """Under the documented limits: outcomes as soon as without, and few requests."""
    plans = [
        SetPlan(
            seconds=30.0 + 2.5 * number,
            outcome="failed" if number % 3 == 0 else "passed",
            unit_tests=20,
            repeats=1,
            metrics=15,
            pool=500,
        )
        for number in range(60)
    ]
    made: list[tuple[Timed, BatchResult]] = []
    for options in ({}, BOTH):
        async with Sandbox(seed=7) as sandbox, sandbox.client() as client:
            ids = [sandbox.add_set(plan, name=f"Set {n}") for n, plan in enumerate(plans)]
            timed = Timed()
            result = await timed.run(client, ids, **options)
            made.append((timed, result))
            assert not [r for r in sandbox.requests if r.status == 429]
            assert asked(sandbox).keys() == ({*CALLS, "evaluations"} if options else set())
            assert sum(sandbox.count(call) for call in CALLS) <= 7
            assert sandbox.count("evaluations") <= 10
    (plain, without), (timed, result) = made
    assert timed.seconds == pytest.approx(plain.seconds, abs=POLL)
    assert result.counts == without.counts == {"passed": 40, "failed": 20}
    assert plain.longer < 0.1
    assert timed.longer <= 30.0
    assert (without.names.unit_test_sets, without.explanations.evaluations) == ({}, {})
    tests, metrics = used_ids([outcome.run for outcome in result.outcomes if outcome.run])
    assert set(result.names.unit_tests) >= tests
    assert set(result.names.metrics) >= metrics
    assert result.names.notes == result.explanations.notes == ()
    assert set(result.explanations.evaluations) == failed_ids(result)
    names = [f"Set {n}" for n in range(60)]
    assert [outcome.name for outcome in result.outcomes] == names
    assert result.names.unit_test_sets == timed.names == dict(zip(ids, names, strict=True))


@pytest.mark.parametrize(
    ("missing", "noun", "seen"),  # without the first two, runs come without results too
    [
        (Permission.GET_SET, "sets", set()),
        (Permission.GET_TEST, "unit tests", {"sets"}),
        (Permission.GET_METRIC, "metrics", {"sets", "unit tests", "reasons"}),
        (Permission.GET_EVALUATION, "reasons", {"sets", "unit tests", "metrics"}),
    ],
)
async def test_missing_permission_is_said_once(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    missing: Permission,
    noun: str,
    seen: set[str],
) -> None:
    ids = some_sets(sandbox)
    left = [one.value for one in Permission if one is not missing]
    sandbox.add_user(sandbox.user_id, permissions=left)
    heard: list[Event] = []
    async with sandbox.client() as client:
        timed = Timed()
        result = await timed.run(client, ids, on_event=heard.append, **BOTH)
        assert result.counts == {"passed": 1, "failed": 2}
        [note] = (*result.names.notes, *result.explanations.notes)
        assert missing.value in note
        assert noun in note
        assert [e.reason for e in heard if isinstance(e, DetailsMissing)] == [note]
        assert [one for one in caplog.messages if note in one] == [
            f"[sandbox] names or reasons are missing: {note}"
        ]
        known: dict[str, dict[str, Any]] = {
            "sets": result.names.unit_test_sets,
            "unit tests": result.names.unit_tests,
            "metrics": result.names.metrics,
            "reasons": result.explanations.evaluations,
        }
        assert {kind for kind, some in known.items() if some} == seen
        assert [o.name for o in result.outcomes] == [known["sets"].get(i) for i in ids]
        again = await client.run_many(ids, **BOTH)  # asked for once a client, but said again
        [note] = (*again.names.notes, *again.explanations.notes)
        assert missing.value in note


@pytest.mark.parametrize("fault", [Fault.status(429), Fault.status(500), Fault.delay(1e5)])
@pytest.mark.parametrize("call", [*CALLS, "evaluations"])
async def test_failing_call_is_said_once(
    client: AmigoClient, sandbox: Sandbox, call: Any, fault: Fault
) -> None:
    ids = some_sets(sandbox)
    plain, timed = Timed(), Timed()
    await plain.run(client, ids)
    sandbox.fault(call, fault, times=1000)
    heard: list[Event] = []
    result = await timed.run(client, ids, on_event=heard.append, **BOTH)
    assert result.counts == {"passed": 1, "failed": 2}
    assert [o.error for o in result.outcomes] == [None, None, None]
    assert timed.last == pytest.approx(plain.last, abs=POLL)
    assert timed.longer <= 30.1
    [note] = (*result.names.notes, *result.explanations.notes)
    assert [e.reason for e in heard if isinstance(e, DetailsMissing)] == [note]
    lost = {
        "unit_test_sets": result.names.unit_test_sets,
        "unit_tests": result.names.unit_tests,
        "metrics": result.names.metrics,
        "evaluations": result.explanations.evaluations,
    }
    assert not lost.pop(call)
    assert all(lost.values())


async def test_names_come_while_runs_go_on(client: AmigoClient, sandbox: Sandbox) -> None:
    ids = [sandbox.add_set(name="Refunds"), sandbox.add_set(SetPlan(seconds=60.0), name="Billing")]
    sandbox.fault("metrics", Fault.delay(10.0))
    heard: list[Event] = []
    async with client.open_batch(ids, describe=True, on_event=heard.append) as batch:
        first = await anext(batch)
        assert first.name == "Refunds"
        assert batch.result().names.unit_test_sets == dict(
            zip(ids, ("Refunds", "Billing"), strict=True)
        )
        assert batch.result().names.metrics == {}
        async for _ in batch:
            pass
    kinds = [type(event) for event in heard if isinstance(event, NamesRead | RunFinished)]
    assert kinds == [NamesRead, NamesRead, RunFinished, NamesRead, RunFinished]
    sets, tests, metrics = (event for event in heard if isinstance(event, NamesRead))
    names = batch.result().names
    read = [(e.unit_test_sets, e.unit_tests, e.metrics) for e in (sets, tests, metrics)]
    assert read == [
        (names.unit_test_sets, {}, {}),
        ({}, names.unit_tests, {}),
        ({}, {}, names.metrics),
    ]
    assert sandbox.count("evaluations") == 0


async def test_another_batch_of_a_client_asks_for_no_name(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    ids = some_sets(sandbox)
    first = await client.run_many(ids, describe=True)
    before = asked(sandbox)
    assert before == {"unit_test_sets": 1, "unit_tests": 1, "metrics": 1}
    await client.describe([o.run for o in first.outcomes if o.run])
    assert (await client.run_many(ids[:1], describe=True)).names.unit_test_sets == {ids[0]: "Set 0"}
    assert asked(sandbox) == before


async def test_not_asked_for_is_not_read(client: AmigoClient, sandbox: Sandbox) -> None:
    result = await client.run_many(some_sets(sandbox))
    assert asked(sandbox) == {}
    assert [outcome.name for outcome in result.outcomes] == [None, None, None]


async def test_reasons_of_failed_runs_alone(client: AmigoClient, sandbox: Sandbox) -> None:
    result = await client.run_many(some_sets(sandbox), explain=True)
    assert asked(sandbox) == {"evaluations": 1}
    assert set(result.explanations.evaluations) == failed_ids(result) != set()
    ids = [sandbox.add_set(PASSING)]
    assert (await client.run_many(ids, explain=True)).explanations.evaluations == {}
    assert asked(sandbox) == {"evaluations": 1}


async def test_no_reasons_where_the_gate_is_passed(client: AmigoClient, sandbox: Sandbox) -> None:
    gate = Gate(min_pass_rate=0.1, per="run")
    result = await client.run_many([sandbox.add_set(FAILING)], explain=True, gate=gate)
    assert result.passed
    assert failed_ids(result)
    assert result.explanations.evaluations == {}
    assert asked(sandbox) == {}


async def test_sets_that_were_not_started_have_names_too(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    busy = sandbox.add_set(SetPlan(seconds=900.0), name="Busy")
    await client.runs.create(busy)
    result = await client.run_many([busy, "f" * 24], describe=True)
    assert result.counts == {"not_started": 2}
    assert [outcome.name for outcome in result.outcomes] == ["Busy", None]
    [note] = result.names.notes
    assert note.startswith("no name was found for 1 of the sets: ")


async def test_unforeseen_error_costs_no_outcome(
    client: AmigoClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(client.unit_tests, "list", broken)
    heard: list[Event] = []
    result = await client.run_many(some_sets(sandbox), on_event=heard.append, **BOTH)
    assert result.counts == {"passed": 1, "failed": 2}
    [note] = result.names.notes
    assert "unforeseen" in note
    assert [e.reason for e in heard if isinstance(e, DetailsMissing)] == [note]
    assert result.outcomes[0].name == "Set 0"


async def test_reasons_are_read_after_the_timeout(client: AmigoClient, sandbox: Sandbox) -> None:
    """Whoever runs out of time wants to know why the others failed."""
    ids = [*some_sets(sandbox), sandbox.add_set(SetPlan(seconds=600.0))]
    sandbox.fault("metrics", Fault.delay(1e5), times=9)
    timed = Timed()
    result = await timed.run(client, ids, timeout=50.0, **BOTH)
    assert timed.last == pytest.approx(50.0, abs=0.1)
    assert timed.longer == pytest.approx(30.0, abs=0.1)
    assert result.names.notes == ("names were not all read within 30 s",)
    assert set(result.explanations.evaluations) == failed_ids(result)
    assert result.explanations.notes == ()


async def test_explain_timeout_bounds_reading(client: AmigoClient, sandbox: Sandbox) -> None:
    ids = some_sets(sandbox)
    sandbox.fault("evaluations", Fault.delay(40.0), times=2)
    sandbox.fault("metrics", Fault.delay(1e5), times=9)
    timed = Timed()
    result = await timed.run(client, ids, explain_timeout=3.0, **BOTH)
    assert timed.longer == pytest.approx(3.0, abs=0.1)
    assert result.names.notes == ("names were not all read within 3 s",)
    result = await timed.run(client, ids, explain=True, explain_timeout=None)
    assert result.explanations.notes == ()
    assert timed.longer > 30.0
    for wrong in ({"explain_timeout": 0}, {"describe": 1}, {"explain": "yes"}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            await client.run_many(ids, **cast("BatchOptions", wrong))


@pytest.mark.parametrize("call", [*CALLS, "evaluations"])
async def test_cancelled_while_reading(client: AmigoClient, sandbox: Sandbox, call: Any) -> None:
    sandbox.fault(call, Fault.delay(1e5), times=9)
    before = asyncio.all_tasks()
    running = asyncio.create_task(client.run_many(some_sets(sandbox), **BOTH))
    while not sandbox.count(call):
        await anyio.sleep(0.1)
    running.cancel()
    began = anyio.current_time()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert anyio.current_time() - began < 1.0
    ours = [one for one in asyncio.all_tasks() - before if "amigo_async/testing" not in repr(one)]
    assert [one for one in ours if "amigo_async" in repr(one)] == []


async def test_left_while_reading(client: AmigoClient, sandbox: Sandbox) -> None:
    sandbox.fault("evaluations", Fault.delay(1e5), times=9)
    ids = some_sets(sandbox)
    async with client.open_batch(ids, **BOTH) as batch:
        for _ in ids:
            await anext(batch)
    assert [one async for one in batch] == []
    assert batch.result().counts == {"passed": 1, "failed": 2}


# --- the journal ---


async def test_resumed_batch_has_names_and_reasons(sandbox: Sandbox, tmp_path: Path) -> None:
    ids, path = some_sets(sandbox), tmp_path / "batch.jsonl"
    async with sandbox.client() as client:
        first = await client.run_many(ids, journal=path, **BOTH)
    assert first.explanations.evaluations
    sandbox.forget_requests()
    size = path.stat().st_size
    heard: list[Event] = []
    async with sandbox.client() as client:
        again = await client.run_many(ids, journal=path, on_event=heard.append, **BOTH)
        plain = await client.run_many(ids, journal=path)
    assert sandbox.requests == []
    assert again.names == first.names
    assert again.explanations == first.explanations
    assert [one.name for one in again.outcomes] == ["Set 0", "Set 1", "Set 2"]
    assert [type(event) for event in heard if isinstance(event, NamesRead | RunFinished)] == [
        NamesRead
    ]
    assert (plain.names.unit_test_sets, plain.explanations.evaluations) == ({}, {})
    assert path.stat().st_size == size


async def test_resumed_batch_reads_what_is_missing(sandbox: Sandbox, tmp_path: Path) -> None:
    ids, path = some_sets(sandbox), tmp_path / "batch.jsonl"
    sandbox.fault("metrics", Fault.status(500), times=9)
    sandbox.fault("evaluations", Fault.status(500), times=9)
    async with sandbox.client() as client:
        first = await client.run_many(ids, journal=path, **BOTH)
        assert (first.names.metrics, first.explanations.evaluations) == ({}, {})
    sandbox.clear_faults()
    sandbox.forget_requests()
    more = [*ids, sandbox.add_set(PASSING, name="Another")]
    async with sandbox.client() as client:
        again = await client.run_many(more, journal=path, **BOTH)
    assert again.names.notes == again.explanations.notes == ()
    assert set(again.explanations.evaluations) == failed_ids(again)
    assert again.outcomes[-1].name == "Another"
    tests, metrics = used_ids([outcome.run for outcome in again.outcomes if outcome.run])
    assert set(again.names.unit_tests) == tests
    assert set(again.names.metrics) == metrics
    names = [r.values("id") for r in sandbox.requests if r.path.endswith("/unit_test_set/")]
    assert names == [[more[-1]]]


async def test_left_while_reading_keeps_what_was_read(tmp_path: Path) -> None:
    """A request asks for 50 runs at most; the one for the last run has to wait for its limit."""
    path = tmp_path / "batch.jsonl"
    plan = SetPlan(seconds=5.0, outcome="failed", unit_tests=1, repeats=1, metrics=1)
    async with Sandbox(limits={"create": None}) as sandbox:
        ids = sandbox.add_sets(51, plan)
        options: dict[str, Any] = {"explain": True, "explain_timeout": None, "journal": path}
        async with sandbox.client() as client, client.open_batch(ids, **options) as batch:
            for _ in ids:
                await anext(batch)
            sandbox.spend("evaluations", 9)
            while not batch.result().explanations.evaluations:
                await anyio.sleep(0.1)
        assert len(batch.result().explanations.evaluations) == 50
        sandbox.forget_requests()
        async with sandbox.client() as client:
            result = await client.run_many(ids, **options)
        assert set(result.explanations.evaluations) == failed_ids(result)
        [request] = (r for r in sandbox.requests if r.route == "evaluations")
        assert len(request.values("simulation_unit_test_set_run_id")) == 1


async def test_journal_that_cannot_be_written(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "batch.jsonl"
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if bytes(data).startswith((b'{"what":"names"', b'{"what":"reasons"')):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    async with sandbox.client() as client:
        result = await client.run_many(some_sets(sandbox), journal=path, **BOTH)
    assert result.counts == {"passed": 1, "failed": 2}
    assert [outcome.error for outcome in result.outcomes] == [None, None, None]
    [note] = result.names.notes
    assert "No space left" in note
    assert result.explanations.evaluations


HOSTILE = "\x1b[31m::error::<b> ##vso[a] \u202e hunter2 Bearer abcdefghijklmnopqrstuvwxyz0123456789"


async def test_hostile_text_in_the_journal(sandbox: Sandbox, tmp_path: Path) -> None:
    """It comes back as it was read, without secrets and half an emoji."""
    ids, path = [sandbox.add_set(FAILING, name=f"Refunds {HOSTILE}")], tmp_path / "batch.jsonl"
    async with sandbox.client() as client:
        first = await client.run_many(ids, journal=path)
    failed = sorted(failed_ids(first))
    body = {
        "metric_evaluation_results": [
            {
                "id": one,
                "org_id": "o",
                "metric_id": "m",
                "metric_version": 1,
                "result": 10**30,
                "justification": f"HALF {HOSTILE} {sandbox.api_key}",
                "source": {"type": HOSTILE, "number": [1]},
            }
            for one in failed
        ],
        "has_more": False,
        "continuation_token": None,
        "filter_values": None,
    }
    sent = msgspec.json.encode(body).replace(b"HALF", b"\\ud83d")
    sandbox.fault("evaluations", Fault.garbage(sent, "application/json"))
    async with sandbox.client() as client:
        read = await client.run_many(ids, journal=path, **BOTH)
    assert sorted(read.explanations.evaluations) == failed
    written = path.read_bytes()
    unwanted = (b"\x1b", "\u202e".encode(), b"##vso", b"Bearer abc", str(sandbox.api_key).encode())
    assert [part for part in unwanted if part in written] == []
    lines = [json.loads(line) for line in written.decode().splitlines()]
    assert {"names", "reasons"} <= {line["what"] for line in lines}
    sandbox.forget_requests()
    async with sandbox.client() as client:
        again = await client.run_many(ids, journal=path, **BOTH)
    assert sandbox.requests == []
    assert (again.outcomes[0].name or "").startswith("Refunds \x1b[31m::error::<b> ##vso[a] \u202e")
    assert "Bearer abc" not in (again.outcomes[0].name or "")
    assert sorted(again.explanations.evaluations) == failed
    for one in again.explanations.evaluations.values():
        assert one.justification.startswith("\ufffd \x1b[31m::error::<b> ##vso[a] \u202e hunter2")
        assert one.result == 10**30
        assert one.source.data["number"] == [1]  # type: ignore[union-attr]


# --- the fleet ---


async def test_fleet_has_names_and_reasons(sandbox: Sandbox, tmp_path: Path) -> None:
    ids = some_sets(sandbox)
    job = FleetJob(
        organization_id=sandbox.organization_id,
        unit_test_set_ids=ids,
        connect=lambda _: sandbox.client(),
        describe=True,
        explain=True,
    )
    heard: list[Event] = []
    done = await execute_job(Assignment(job, str(tmp_path)), heard.append)
    assert done.result is not None
    assert [one.name for one in done.result.outcomes] == ["Set 0", "Set 1", "Set 2"]
    assert set(done.result.explanations.evaluations) == failed_ids(done.result) != set()
    assert any(isinstance(event, NamesRead) for event in heard)
    before = asked(sandbox)
    again = await execute_job(Assignment(job, str(tmp_path)), heard.append)
    assert again.result is not None
    assert again.result.names == done.result.names
    assert asked(sandbox) == before
