"""Pages of runs as the service sends them, of any size."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from amigo_async.testing import SetPlan
from amigo_async.testing.documents import results, specs
from amigo_async.testing.simulation import RunScript, object_ids

# What makes a page of fifty runs 1.7 MB.
FULL = SetPlan(unit_tests=12, repeats=5, metrics=6)


def page(runs: int, *, seed: int, plan: SetPlan | None = FULL, later: int = 0) -> bytes:
    """The body of a list call.

    Args:
        runs: How many runs are on the page.
        seed: What ids and verdicts are drawn from.
        plan: What the sets are like; None for a reader without the permission to see them.
        later: How many runs of the same sets came before these.
    """
    run_ids = object_ids(f"runs of {seed}" + f", {later} later" * bool(later), runs)
    set_ids = object_ids(f"sets of {seed}", runs)
    dice = random.Random(seed + later)
    found = [
        _run(run_id, set_id, plan, dice) for run_id, set_id in zip(run_ids, set_ids, strict=True)
    ]
    creator = {"org_id": "acme", "user_id": "user-1"}
    values = {"creators": [creator], "simulation_unit_test_set_ids": set_ids, "tags": []}
    return msgspec.json.encode(
        {
            "simulation_unit_test_set_runs": found,
            "has_more": True,
            "continuation_token": runs,
            "filter_values": values,
        }
    )


def _run(run_id: str, set_id: str, plan: SetPlan | None, dice: random.Random) -> dict[str, Any]:
    """A run that is over, one step in ten of which failed a metric."""
    failed: dict[int, frozenset[int]] = {}
    if plan is not None:
        failed = {s: frozenset({0}) for s in range(plan.steps) if dice.random() < 0.1}
    script = RunScript(60.0, {}, failed)
    return {
        "org_id": "acme",
        "id": run_id,
        "is_completed": True,
        "simulation_unit_test_set_id": set_id,
        "failed_metrics": bool(failed),
        "errored": False,
        "artifacts_generated": True,
        "unit_test_run_specs": [] if plan is None else specs(set_id, plan, full=True),
        "unit_test_run_results": (
            [] if plan is None else results(run_id, set_id, plan, script, plan.steps, full=True)
        ),
        "created_at": "2026-01-01T12:00:00.000000Z",
        "creator": {"org_id": "acme", "user_id": "user-1"},
    }
