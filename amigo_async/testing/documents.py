"""Runs as JSON documents of the API: the specs of their unit tests, and the results."""

from __future__ import annotations

import random
from typing import Any, Final

from amigo_async.testing.simulation import RunInfo, RunScript, SetPlan, SimulatedRun, rfc3339

_VERBS: Final = ("==", "!=", "<=", "<", ">=", ">")


def run_document(run: SimulatedRun, info: RunInfo, *, tests: bool, full: bool) -> dict[str, Any]:
    """Build the document of a run.

    Args:
        run: The run.
        info: Its state.
        tests: Whether the user has the permission to get unit test sets.
        full: Whether the user has the permission to get unit tests.
    """
    organization_id, user_id = run.creator
    plan, set_id = run.plan, run.set.id
    return {
        "org_id": info.organization_id,
        "id": run.id,
        "is_completed": info.is_completed,
        "simulation_unit_test_set_id": set_id,
        "failed_metrics": info.failed_metrics,
        "errored": info.errored,
        "artifacts_generated": info.artifacts_generated,
        "unit_test_run_specs": specs(set_id, plan, full=full) if tests else [],
        "unit_test_run_results": (
            results(run.id, set_id, plan, run.script, info.done, full=full) if tests else []
        ),
        "created_at": rfc3339(run.created_at),
        "creator": {"org_id": organization_id, "user_id": user_id},
    }


def object_ids(seed: str, count: int) -> list[str]:
    """Return `count` ids of 24 hexadecimal digits; the same for the same `seed`."""
    text = random.Random(seed).randbytes(12 * count).hex()  # noqa: S311  # repeatable on purpose
    return [text[at : at + 24] for at in range(0, len(text), 24)]


def _criterion(number: int) -> dict[str, Any]:
    kind, turn = number % 3, number // 3
    if kind == 0:
        return {"type": "boolean", "expected_value": turn % 2 == 0}
    if kind == 1:
        verb = _VERBS[turn % len(_VERBS)]
        return {"type": "numerical", "verb": verb, "threshold": 0.5 + turn}
    return {
        "type": "categorical",
        "expected_values": ["good", "excellent", "très bien"][: 1 + turn % 3],
    }


def _metrics(set_id: str, test: int, plan: SetPlan) -> list[dict[str, Any]]:
    ids = object_ids(f"metrics of {set_id} {test}", plan.metrics)
    return [
        {
            "metric_id": metric_id,
            "success_criterion_name": f"criterion {number + 1}",
            "success_criterion": _criterion(test * plan.metrics + number),
        }
        for number, metric_id in enumerate(ids)
    ]


def specs(set_id: str, plan: SetPlan, *, full: bool) -> list[dict[str, Any]]:
    """Build ``unit_test_run_specs`` of the runs of a set.

    Args:
        set_id: The set.
        plan: Its plan.
        full: Whether to include the fields that need the permission to get unit tests.
    """
    tests = object_ids(f"tests of {set_id}", plan.unit_tests)
    machine, agent, persona = object_ids(f"parts of {set_id}", 3)
    scenarios = object_ids(f"scenarios of {set_id}", plan.unit_tests)
    return [
        {
            "unit_test_id": test_id,
            "run_count": plan.repeats,
            "service_hierarchical_state_machine_version_info": [machine, 3],
            "agent_version_info": [agent, 12],
            "scenario_version_info": [scenarios[number], 1 + number] if full else None,
            "persona_version_info": [persona, 2] if full else None,
            "llm_model_preferences": {
                "simulated_user": {"llm_name": "sandbox-llm", "params": {"temperature": 0.2}}
            },
            "max_interactions": 20,
            "metrics_to_evaluate": _metrics(set_id, number, plan) if full else [],
        }
        for number, test_id in enumerate(tests)
    ]


def results(
    run_id: str, set_id: str, plan: SetPlan, script: RunScript, done: int, *, full: bool
) -> list[dict[str, Any] | None]:
    """Build ``unit_test_run_results`` of a run; None for unit tests without an ended repeat.

    Args:
        run_id: The run.
        set_id: Its set.
        plan: Its plan.
        script: What goes wrong in it.
        done: Number of repeats that have ended.
        full: Whether to include the fields that need the permission to get unit tests.
    """
    tests = object_ids(f"tests of {set_id}", plan.unit_tests)
    documents = object_ids(f"results of {run_id}", plan.steps * plan.metrics)
    found: list[dict[str, Any] | None] = []
    for test, test_id in enumerate(tests):
        steps = range(test, done, plan.unit_tests)
        if not steps:
            found.append(None)
            continue
        found.append(
            {
                "unit_test_id": test_id,
                "metric_evaluation_results": (
                    _evaluations(set_id, test, plan, script, documents, steps) if full else []
                ),
                "run_errors": [script.errors.get(step) for step in steps],
            }
        )
    return found


def _evaluations(  # noqa: PLR0917  # one call, one line above
    set_id: str, test: int, plan: SetPlan, script: RunScript, ids: list[str], steps: range
) -> list[dict[str, Any]]:
    """Build the results of each metric, one for each repeat without an error."""
    evaluated = [step for step in steps if step not in script.errors]
    nothing: frozenset[int] = frozenset()
    return [
        {
            "metric_id": metric_id,
            "metric_version": 1 + number,
            "results": [
                [
                    ids[step * plan.metrics + number],
                    number not in script.failed.get(step, nothing),
                ]
                for step in evaluated
            ],
        }
        for number, metric_id in enumerate(object_ids(f"metrics of {set_id} {test}", plan.metrics))
    ]
