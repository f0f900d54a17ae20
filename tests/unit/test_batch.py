"""Batches as only the inside of the package shows them: a disk or store that fails, turns taken."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async import AmigoClient, BatchResult, JournalError, Names
from amigo_async.batch import downloads
from amigo_async.batch import journal as journals
from amigo_async.batch.outcomes import BatchItem
from amigo_async.batch.pipeline import Pipeline
from amigo_async.events import Event, SetFinished
from amigo_async.testing import Fault, Sandbox, SetPlan
from amigo_async.verdicts.gate import Verdict, verdict_of

pytestmark = pytest.mark.anyio

SHORT = SetPlan(seconds=5.0)


async def test_store_that_stays_down(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 20.0)
    monkeypatch.setattr(downloads, "_CONCURRENT", 1)
    sandbox.faults_at_random("store", Fault.drop(), rate=1.0)
    began = anyio.current_time()
    result = await client.run_many(sandbox.add_sets(4, SHORT), artifacts_dir=tmp_path)
    assert 20.0 < anyio.current_time() - began < 70.0
    assert result.counts == {"passed": 4}
    assert all("gave up" in str(outcome.error) for outcome in result.outcomes)


async def test_full_disk_loses_no_run(
    client: AmigoClient,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_lines = journals._append
    written = 0

    def append(descriptor: int | None, data: bytes) -> None:
        nonlocal written
        written += 1
        if written > 6:
            raise OSError(28, "No space left on device")
        whole_lines(descriptor, data)

    monkeypatch.setattr(journals, "_append", append)
    set_ids = sandbox.add_sets(5, SHORT)
    result = await client.run_many(set_ids, journal=tmp_path / "batch.jsonl")
    started = [o for o in result.outcomes if o.run_id is not None]
    assert {o.run_id for o in started} == {run.id for run in sandbox.runs}
    assert all(o.verdict == "passed" for o in started)
    assert any(isinstance(o.error, JournalError) for o in result.outcomes)
    assert not result.passed


async def test_many_ended_runs_are_resumed_in_turns(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_ids, journal = sandbox.add_sets(10, SHORT), tmp_path / "batch.jsonl"
    await client.run_many(set_ids, journal=journal)
    turn, judged, concluded = 0, Counter[int](), Counter[int]()

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def judging(*args: Any, **options: Any) -> Any:
        judged[turn] += 1
        return verdict_of(*args, **options)

    def listen(event: Event) -> None:
        concluded[turn] += isinstance(event, SetFinished)

    monkeypatch.setattr("amigo_async.batch.outcomes.verdict_of", judging)
    others = asyncio.create_task(take_turns())
    result = await client.run_many(set_ids, journal=journal, on_event=listen)
    others.cancel()
    assert result.passed
    assert (judged.total(), max(judged.values())) == (10, 1)
    assert (concluded.total(), max(concluded.values())) == (10, 1)


@pytest.mark.parametrize("by_name", [False, True])
async def test_runs_that_end_at_once_are_judged_in_turns(
    client: AmigoClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    """Judging takes milliseconds with a confidence, which add up for those that share a turn."""
    loop, turns = asyncio.get_running_loop(), []
    finished = BatchItem.finished

    def judged(*arguments: Any) -> Verdict:
        turns.append(loop.time())  # the same within a turn
        return finished(*arguments)

    monkeypatch.setattr(BatchItem, "finished", judged)
    options: dict[str, Any] = {"describe": True, "known_failing": ["A name"]} if by_name else {}
    result = await client.run_many(sandbox.add_sets(10, SHORT), **options)
    assert result.counts == {"passed": 10}
    assert len(set(turns)) == len(turns) == (20 if by_name else 10)
    assert max(turns) - min(turns) < 1.0


async def test_run_that_ends_with_the_deadline_is_judged(
    client: AmigoClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting_to_judge = Pipeline._finished

    async def late(*arguments: Any) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()  # as the deadline of the batch does
            await waiting_to_judge(*arguments)

    monkeypatch.setattr(Pipeline, "_finished", late)
    result = await client.run_many(sandbox.add_sets(3, SHORT))
    assert result.counts == {"passed": 3}


def test_results_share_no_names() -> None:
    """What is added to the names or reasons of one result shows in no other."""
    first = BatchResult([])
    first.names.unit_tests["a"] = "b"
    assert BatchResult([]).names == Names()
    assert BatchResult([]).explanations.evaluations is not first.explanations.evaluations
