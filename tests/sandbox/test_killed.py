"""A batch that is killed at any moment and run again has one run a set, and all artifacts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan

# Real processes take several times as long on a busy machine.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ROUNDS, SETS, KILLS = 4, 12, 12


@pytest.fixture
def anyio_backend() -> str:
    """Processes take real time."""
    return "asyncio"


async def test_killed_again_and_again(
    tmp_path: Path,
) -> None:
    plan = SetPlan(
        seconds=(0.1, 1.0),
        artifacts_after=0.05,
        unit_tests=1,
        artifact=ArtifactPlan(size=3_000_000),
    )
    unlimited: Any = dict.fromkeys(["sign_in", "create", "list", "cancel", "artifacts"])
    async with Sandbox(plan=plan, limits=unlimited) as sandbox:
        rounds = [sandbox.add_sets(SETS) for _ in range(ROUNDS)]
        told = {"rounds": rounds, "folder": str(tmp_path), "seed": 3, "kills": KILLS}
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.killed_batch"),
            env={**os.environ, **sandbox.environment()},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await program.communicate(json.dumps(told).encode())
        came = json.loads(out)
        assert came["kills"] == KILLS
        del rounds[came["rounds"] :]
        assert len(sandbox.runs) == len(rounds) * SETS
        of = {run.unit_test_set_id: run.id for run in sandbox.runs}
        assert len(of) == len(rounds) * SETS
        for number, set_ids in enumerate(rounds):
            outcomes = json.loads((tmp_path / str(number) / "outcomes.json").read_text())
            assert [outcome[0] for outcome in outcomes] == set_ids
            for set_id, run_id, verdict, artifacts, error in outcomes:
                assert (run_id, verdict, error) == (of[set_id], "passed", "")
                assert Path(artifacts).read_bytes() == sandbox.artifact_bytes(run_id)
        leftovers = [path for path in tmp_path.rglob("*.part*") if path.is_file()]
        assert leftovers == []
