"""Runs, outcomes and boards for the tests of the command."""

from __future__ import annotations

from typing import Any

import msgspec

from amigo_async import RunOutcome
from amigo_async.cli.progress import BatchProgress
from amigo_async.models import Run
from amigo_async.ratelimit import BudgetState
from tests.support import report_samples


def some_id(number: int) -> str:
    return f"{number:024x}"


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def batch_progress(count: int = 3, **options: Any) -> tuple[BatchProgress, Clock]:
    clock = Clock()
    return BatchProgress([some_id(n) for n in range(count)], now=clock, **options), clock


def budget(endpoint: str = "create", **fields: Any) -> BudgetState:
    given: dict[str, Any] = {
        "limit": 20,
        "remaining": 0,
        "in_flight": 0,
        "waiting": 0,
        "opens_in": 0.0,
        "turns_in": 12.0,
    }
    return BudgetState(endpoint=endpoint, **(given | fields))


def run(
    *,
    failed: int = 0,
    errors: tuple[str | None, ...] = (None, None),
    hidden: bool = False,
    **fields: Any,
) -> Run:
    """A run of one unit test with one metric, some of whose repeats failed or erred."""
    spec = {
        "unit_test_id": "test-1",
        "run_count": len(errors),
        "service_hierarchical_state_machine_version_info": ["s", 1],
        "agent_version_info": ["a", 1],
        "scenario_version_info": None,
        "persona_version_info": None,
        "llm_model_preferences": {},
        "max_interactions": 10,
        "metrics_to_evaluate": [
            {
                "metric_id": "metric-1",
                "success_criterion_name": "is polite",
                "success_criterion": {"type": "boolean", "expected_value": True},
            }
        ],
    }
    result = {
        "unit_test_id": "test-1",
        "metric_evaluation_results": [
            {
                "metric_id": "metric-1",
                "metric_version": 1,
                "results": [[f"e{n}", n >= failed] for n in range(len(errors))],
            }
        ],
        "run_errors": list(errors),
    }
    given = {
        "org_id": "org",
        "id": some_id(0xA0),
        "is_completed": True,
        "simulation_unit_test_set_id": some_id(1),
        "failed_metrics": failed > 0,
        "errored": any(errors),
        "artifacts_generated": True,
        "unit_test_run_specs": [] if hidden else [spec],
        "unit_test_run_results": [] if hidden else [result],
        "created_at": "2026-05-04T12:00:00Z",
        "creator": {"org_id": "org", "user_id": "user"},
    }
    return msgspec.convert(given | fields, Run)


def outcome(verdict: str = "passed", number: int = 1, **fields: Any) -> RunOutcome:
    given = {"unit_test_set_id": some_id(number), "run_id": some_id(0xA0 + number)}
    return RunOutcome(verdict=verdict, **(given | fields))  # type: ignore[arg-type]  # a test's text


# Unit tests that a gate of 90% allows, and does not allow.
ALLOWED, SHORT = some_id(0xA), some_id(0xB)


def gated() -> RunOutcome:
    """A set that fails a gate of 90% by one of two unit tests in which repeats failed."""
    rated = [(ALLOWED, 9), (SHORT, 5)]
    tests = [(i, {report_samples.TONE: "+" * n + "-" * (10 - n)}, [None] * 10) for i, n in rated]
    return outcome("failed", run=report_samples.run(*tests))
