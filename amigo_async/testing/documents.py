"""The JSON documents of the API: runs, sets, unit tests, metrics and evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from amigo_async.testing.catalog import AREAS, UNIT_TESTS, metric_story, titled
from amigo_async.testing.simulation import (
    RunInfo,
    RunScript,
    SetPlan,
    SimulatedRun,
    SimulatedSet,
    object_ids,
    rfc3339,
)

# When the sets, unit tests and metrics were made; each a minute after the one before.
_MADE_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)


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


def metric_ids(count: int) -> list[str]:
    """Return the ids of the first metrics, which all sets and unit tests share."""
    return object_ids("metrics", count)


def unit_test_ids(set_id: str, plan: SetPlan) -> list[str]:
    """Return the ids of the unit tests of a set."""
    return [test_id for test_id, _ in numbered_unit_tests(set_id, plan)]


def numbered_unit_tests(set_id: str, plan: SetPlan) -> list[tuple[str, int]]:
    """Return the unit tests of a set: their ids, and the numbers that their names come from."""
    if plan.pool is None:
        ids = object_ids(f"tests of {set_id}", plan.unit_tests)
        return [(test_id, number) for number, test_id in enumerate(ids)]
    pool, first = object_ids("tests of the pool", plan.pool), int(set_id[-8:], 16)
    numbers = [(first + number) % plan.pool for number in range(plan.unit_tests)]
    return [(pool[number], number) for number in numbers]


def _metrics(plan: SetPlan) -> list[dict[str, Any]]:
    return [
        {
            "metric_id": metric_id,
            "success_criterion_name": metric_story(number).name,
            "success_criterion": metric_story(number).criterion,
        }
        for number, metric_id in enumerate(metric_ids(plan.metrics))
    ]


def specs(set_id: str, plan: SetPlan, *, full: bool) -> list[dict[str, Any]]:
    """Build ``unit_test_run_specs`` of the runs of a set.

    Args:
        set_id: The set.
        plan: Its plan.
        full: Whether to include the fields that need the permission to get unit tests.
    """
    tests = unit_test_ids(set_id, plan)
    machine, agent, persona = object_ids(f"parts of {set_id}", 3)
    scenarios = object_ids(f"scenarios of {set_id}", plan.unit_tests)
    metrics = _metrics(plan) if full else []
    return [
        {
            "unit_test_id": test_id,
            "run_count": plan.repeats,
            "service_hierarchical_state_machine_version_info": [machine, 3],
            "agent_version_info": [agent, plan.agent_version],
            "scenario_version_info": [scenarios[number], 1 + number] if full else None,
            "persona_version_info": [persona, 2] if full else None,
            "llm_model_preferences": {
                "simulated_user": {"llm_name": "sandbox-llm", "params": {"temperature": 0.2}}
            },
            "max_interactions": 20,
            "metrics_to_evaluate": metrics,
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
    tests = unit_test_ids(set_id, plan)
    documents = object_ids(f"results of {run_id}", plan.steps * plan.metrics)
    metrics = metric_ids(plan.metrics)
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
                    _evaluations(metrics, script, documents, steps) if full else []
                ),
                "run_errors": [script.errors.get(step) for step in steps],
            }
        )
    return found


def _evaluations(
    metrics: list[str], script: RunScript, ids: list[str], steps: range
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
                    ids[step * len(metrics) + number],
                    number not in script.failed.get(step, nothing),
                ]
                for step in evaluated
            ],
        }
        for number, metric_id in enumerate(metrics)
    ]


# --- what runs are made of ---


def _common(organization_id: str, number: int, *, is_deleted: bool) -> dict[str, Any]:
    """Build the fields that sets, unit tests and metrics have in common."""
    author = {"org_id": organization_id, "user_id": "author"}
    made_at = rfc3339(_MADE_AT + timedelta(minutes=number))
    return {
        "org_id": organization_id,
        "created_at": made_at,
        "updated_at": made_at,
        "is_deleted": is_deleted,
        "tags": [],
        "creator": author,
        "updated_by": author,
    }


def set_document(one: SimulatedSet, *, is_deleted: bool, last_run_id: str | None) -> dict[str, Any]:
    """Build the document of a set."""
    return {
        **_common(one.organization_id, one.number, is_deleted=is_deleted),
        "id": one.id,
        "name": one.name,
        "description": one.description,
        "unit_test_runs": [
            {"unit_test_id": test_id, "run_count": one.plan.repeats}
            for test_id in unit_test_ids(one.id, one.plan)
        ],
        "last_triggered_run_id": last_run_id,
        "tags": [{"key": key, "value": value} for key, value in one.tags.items()],
    }


def unit_test_document(
    one: SimulatedSet, test_id: str, number: int, *, is_deleted: bool
) -> dict[str, Any]:
    """Build the document of a unit test of a set."""
    name, description = titled(UNIT_TESTS, number)
    _, service, persona = object_ids(f"parts of {one.id}", 3)
    return {
        **_common(one.organization_id, number, is_deleted=is_deleted),
        "id": test_id,
        "name": name,
        "description": description,
        "tags": [{"key": "area", "value": AREAS[number % len(AREAS)]}],
        "service_id": service,
        "service_version_set_name": "release",
        "persona_id": persona,
        "scenario_id": object_ids(f"scenarios of {one.id}", one.plan.unit_tests)[-1],
        "max_interactions": 20,
        "success_criterions": [
            {
                "name": metric["success_criterion_name"],
                "metric_id": metric["metric_id"],
                "criterion": metric["success_criterion"],
            }
            for metric in _metrics(one.plan)
        ],
    }


def metric_document(organization_id: str, number: int, *, is_deleted: bool) -> dict[str, Any]:
    """Build the document of a metric."""
    story = metric_story(number)
    return {
        **_common(organization_id, number, is_deleted=is_deleted),
        "id": metric_ids(number + 1)[number],
        "name": story.name,
        "applied_to_services": [],
        "additional_notes": None,
        "metric_value_type": story.criterion["type"],
    }


def evaluation_documents(run: SimulatedRun, info: RunInfo) -> Iterator[dict[str, Any]]:
    """Build the documents of the evaluations of a run so far."""
    plan = run.plan
    ids = object_ids(f"results of {run.id}", plan.steps * plan.metrics)
    tests, metrics = unit_test_ids(run.set.id, plan), metric_ids(plan.metrics)
    nothing: frozenset[int] = frozenset()
    for step in range(info.done):
        if step in run.script.errors:
            continue
        for number, metric_id in enumerate(metrics):
            story = metric_story(number)
            failed = number in run.script.failed.get(step, nothing)
            result, justification = story.failed if failed else story.passed
            yield {
                "id": ids[step * plan.metrics + number],
                "org_id": info.organization_id,
                "created_at": rfc3339(run.created_at),
                "updated_at": rfc3339(run.created_at),
                "metric_id": metric_id,
                "metric_version": 1 + number,
                "result": result,
                "justification": justification,
                "source": {
                    "type": "simulation",
                    "simulation_unit_test_set_run_id": run.id,
                    "unit_test_id": tests[step % plan.unit_tests],
                    "run_index": step // plan.unit_tests,
                    "references": object_ids(f"messages of {run.id} {step}", 2),
                },
            }
