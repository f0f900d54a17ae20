"""A batch that is cancelled at any step leaves no task, no connection, and no id unknown."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from amigo_async import AmigoClient, BatchResult
from amigo_async.batch.journal import JournalHeader, parse
from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan, VirtualTimeLoop

PLAN = SetPlan(seconds=3.0, unit_tests=1, repeats=1, metrics=1, artifact=ArtifactPlan(size=300_000))


# Which steps: each one is tried where all faults are played too.
STRIDE = 1 if os.environ.get("AMIGO_FAULTS") == "all" else 3


class SteppingLoop(VirtualTimeLoop):
    """Cancels a task at a given turn of the loop; each await takes at least one."""

    grace = 0.0005

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.cancel_at = 0
        self.victim: asyncio.Task[Any] | None = None

    def _run_once(self) -> None:
        self.turns += 1
        if self.turns == self.cancel_at and self.victim is not None:
            self.victim.cancel()
        super()._run_once()  # type: ignore[misc]  # asyncio's own, not in its stubs


def tasks_of_ours() -> list[str]:
    codes = [str(getattr(task.get_coro(), "cr_code", "")) for task in asyncio.all_tasks()]
    return [code for code in codes if "amigo_async" in code and "testing" not in code]


class Stepped:
    """Batches on one sandbox, each cancelled a turn later than the one before."""

    def __init__(self, sandbox: Sandbox, client: AmigoClient, folder: Path) -> None:
        self.sandbox = sandbox
        self.client = client
        self.folder = folder

    async def batch(self, set_ids: list[str], number: int) -> BatchResult:
        return await self.client.run_many(
            set_ids,
            artifacts_dir=self.folder / str(number),
            journal=self.folder / f"{number}.jsonl",
            on_failure="stop",
        )

    async def cancelled_at(self, turn: int) -> bool:
        """Whether the batch was still at work at its n-th turn, and was cancelled there."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppingLoop)
        set_ids = self.sandbox.add_sets(2)
        task = asyncio.create_task(self.batch(set_ids, turn))
        loop.turns, loop.cancel_at, loop.victim = 0, turn, task
        await asyncio.wait([task])
        loop.victim = None
        self.check(set_ids, turn)
        if turn % 10 == 0 and task.cancelled():
            assert (await self.batch(set_ids, turn)).passed
            self.check(set_ids, turn)
        return task.cancelled()

    def check(self, set_ids: list[str], number: int) -> None:
        assert tasks_of_ours() == []
        connections = self.client._connections
        for session in (connections.api(), connections.store()):
            assert session.connector is not None
            assert not session.connector._acquired
        runs = [run for run in self.sandbox.runs if run.unit_test_set_id in set_ids]
        assert len({run.unit_test_set_id for run in runs}) == len(runs)
        journal = self.folder / f"{number}.jsonl"
        content = journal.read_bytes() if journal.exists() else b""
        records, _ = parse(
            content.splitlines(), JournalHeader(self.sandbox.base_url, "sandbox"), journal
        )
        known = {r.started.run_id for r in records.values() if r.started is not None}
        assert known == {run.id for run in runs}
        for part in self.folder.rglob("*.part"):
            assert part.with_name(f"{part.name}.jsonl").exists()


@pytest.mark.timeout(120)
def test_cancelled_at_any_step(tmp_path: Path) -> None:
    unlimited: Any = dict.fromkeys(["sign_in", "create", "list", "cancel", "artifacts"])

    async def main() -> int:
        async with Sandbox(plan=PLAN, limits=unlimited) as sandbox, sandbox.client() as client:
            await client.runs.list()
            stepped = Stepped(sandbox, client, tmp_path)
            turn = 1
            while await stepped.cancelled_at(turn):
                turn += STRIDE
            return turn

    with asyncio.Runner(loop_factory=SteppingLoop) as runner:
        assert runner.run(main()) > 50
