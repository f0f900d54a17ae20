"""Runs and batches for the tests of the gate and of the reports."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import force_setattr, replace

from amigo_async import BatchResult, Explanations, Gate, Names, RunOutcome, compare
from amigo_async.errors import ArtifactTruncatedError, NotFoundError
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    Evaluation,
    EvaluationResult,
    LLMConfig,
    MetricEvaluationResult,
    MetricToEvaluate,
    NumericalMetricSuccessCriterion,
    Run,
    SimulationEvaluationSource,
    SuccessCriterion,
    UnitTestRunResult,
    UnitTestRunSpec,
    UnknownSuccessCriterion,
    UserInfo,
    VersionInfo,
)

BEGAN = datetime(2025, 3, 4, 9, 30, tzinfo=UTC)

METRICS: dict[str, tuple[str, SuccessCriterion]] = {
    "67aa00000000000000000001": ("Polite throughout", BooleanMetricSuccessCriterion(True)),
    "67aa00000000000000000002": ("Empathy", NumericalMetricSuccessCriterion(">=", 0.8)),
    "67aa00000000000000000003": (
        "Triage",
        CategoricalMetricSuccessCriterion(["urgent", "emergency"]),
    ),
    "67aa00000000000000000004": ("Turns", NumericalMetricSuccessCriterion("<", 12.0)),
    "67aa00000000000000000005": ("No diagnosis given", BooleanMetricSuccessCriterion(False)),
    "67aa00000000000000000006": ("Tone", UnknownSuccessCriterion({"type": "free_text"})),
}


def metric(metric_id: str) -> MetricToEvaluate:
    name, criterion = METRICS.get(metric_id, (metric_id, BooleanMetricSuccessCriterion(True)))
    return MetricToEvaluate(metric_id, name, criterion)


def spec(unit_test_id: str, run_count: int, metric_ids: Sequence[str]) -> UnitTestRunSpec:
    return UnitTestRunSpec(
        unit_test_id=unit_test_id,
        run_count=run_count,
        service_hierarchical_state_machine_version_info=VersionInfo("machine", 3),
        agent_version_info=VersionInfo("agent", 7),
        scenario_version_info=VersionInfo("scenario", 1),
        persona_version_info=VersionInfo("persona", 1),
        llm_model_preferences={},
        max_interactions=20,
        metrics_to_evaluate=tuple(metric(metric_id) for metric_id in metric_ids),
    )


def result(
    unit_test_id: str, metrics: Mapping[str, str], errors: Sequence[str | None]
) -> UnitTestRunResult:
    """What a unit test came to; a metric's repeats as ``+`` (passed) and ``-`` (failed)."""
    return UnitTestRunResult(
        unit_test_id=unit_test_id,
        metric_evaluation_results=tuple(
            MetricEvaluationResult(
                metric_id,
                1,
                tuple(
                    Evaluation(f"e-{metric_id[-2:]}-{n}", sign == "+")
                    for n, sign in enumerate(signs)
                ),
            )
            for metric_id, signs in metrics.items()
        ),
        run_errors=tuple(errors),
    )


def run(
    *tests: tuple[str, Mapping[str, str], Sequence[str | None]],
    set_id: str = "set",
    run_id: str = "run",
    **flags: Any,
) -> Run:
    """A completed run; its flags are what its results say, unless given.

    Args:
        tests: For each unit test its id, its metrics (see `result`) and the errors of its repeats.
        set_id: The set.
        run_id: The run's id.
        flags: Fields of `Run` that are to be otherwise.
    """
    fields: dict[str, Any] = {
        "org_id": "org",
        "id": run_id,
        "is_completed": True,
        "simulation_unit_test_set_id": set_id,
        "failed_metrics": any(
            "-" in signs for _, metrics, _ in tests for signs in metrics.values()
        ),
        "errored": any(error is not None for _, _, errors in tests for error in errors),
        "artifacts_generated": True,
        "unit_test_run_specs": [spec(t, len(errors), list(m)) for t, m, errors in tests],
        "unit_test_run_results": [result(*test) for test in tests],
        "created_at": BEGAN,
        "creator": UserInfo("org", "user"),
    }
    return Run(**(fields | flags))


def outcome(of: Run | None = None, verdict: Any = None, **fields: Any) -> RunOutcome:
    """The outcome of a run, by its flags unless the verdict is given."""
    known: dict[str, Any] = {}
    if of is not None:
        known = {"unit_test_set_id": of.simulation_unit_test_set_id, "run_id": of.id, "run": of}
        flags = "errored" if of.errored else "failed" if of.failed_metrics else "passed"
        verdict = verdict or ("cancelled" if of.was_cut_short else flags)
    return RunOutcome(**({"unit_test_set_id": "set", "verdict": verdict} | known | fields))


def evaluated(
    id: str,
    result: Any,
    justification: str = "",
    *,
    repeat: int = 0,
    references: Sequence[str] = (),
) -> EvaluationResult:
    """An evaluation of a simulated conversation, as the service keeps it."""
    source = SimulationEvaluationSource("run", "ut", repeat, list(references))
    return EvaluationResult(id, "org", "metric", 1, result, justification, source)


def explained(*evaluations: EvaluationResult, notes: tuple[str, ...] = ()) -> Explanations:
    """What was read of some evaluations."""
    return Explanations({one.id: one for one in evaluations}, notes)


def large_batch(sets: int, tests: int, repeats: int, metrics: Sequence[str]) -> BatchResult:
    """A batch in which every unit test failed every metric, with names and long reasons."""
    signs = "-" * repeats
    justification = "The agent interrupted the caller twice. " * 40
    outcomes, read = [], []
    names: dict[str, str] = {}
    for n in range(sets):
        ids = [f"66cc{n:06x}{test:014x}" for test in range(tests)]
        one = run(
            *[(i, dict.fromkeys(metrics, signs), [None] * repeats) for i in ids],
            set_id=f"6618791275130b73714e8{n:03x}",
            run_id=f"77dd{n:020x}",
        )
        for of_test in one.unit_test_run_results:
            assert of_test is not None
            for number, of_metric in enumerate(of_test.metric_evaluation_results):
                keys = [f"{of_test.unit_test_id}-{number}-{r}" for r in range(repeats)]
                force_setattr(of_metric, "results", tuple(Evaluation(k, False) for k in keys))
                read += [evaluated(k, r, justification, repeat=r) for r, k in enumerate(keys)]
        outcomes.append(outcome(one, started_at=BEGAN, finished_at=BEGAN + timedelta(seconds=90)))
        names |= {i: f"Angry caller wants money back {i[-4:]}" for i in ids}
    sets_named = {o.unit_test_set_id: f"Refund policy {n}" for n, o in enumerate(outcomes)}
    return BatchResult(
        tuple(outcomes), names=Names(sets_named, names), explanations=explained(*read)
    )


def hidden_run(**flags: Any) -> Run:
    """A run of which the permission shows nothing but the flags."""
    return run(**({"failed_metrics": False, "errored": False} | flags))


def _chance_run(dice: random.Random, number: int, kind: str) -> Run:
    tests = []
    for test in range(dice.randint(2, 6)):
        repeats = dice.choice([5, 10])
        errors: list[str | None] = [None] * repeats
        if kind == "errored" and test == 1:
            errors[2] = errors[3] = "the simulated user gave no answer within 60 s (<timeout>)"
        sound = errors.count(None)
        picked = sorted(dice.sample(sorted(METRICS), dice.randint(3, 6)))
        rate = 0.82 if kind == "failed" and test in (0, 2) else 1.0
        metrics = {
            m: "".join("+" if dice.random() <= rate else "-" for _ in range(sound)) for m in picked
        }
        tests.append((f"66cc{number:06x}{test:014x}", metrics, errors))
    return run(*tests, set_id=f"6618791275130b73714e8{number:03x}", run_id=f"77dd{number:020x}")


def batch(sets: int = 60, *, seed: int = 7) -> BatchResult:
    """A batch of many sets with every verdict, as 20 starts a minute let it go."""
    dice = random.Random(seed)
    outcomes = []
    for number in range(sets):
        kind = {7: "failed", 23: "failed", 31: "errored"}.get(number, "passed")
        started = BEGAN + timedelta(seconds=60 * (number // 20) + dice.uniform(0.3, 4))
        finished = started + timedelta(seconds=dice.uniform(60, 420))
        one = _chance_run(dice, number, kind)
        fields: dict[str, Any] = {"started_at": started, "finished_at": finished}
        fields["artifacts"] = Path("results") / one.id / "artifacts.zip"
        if number == 40:
            fields |= {"artifacts": None, "error": ArtifactTruncatedError("cut", run_id=one.id)}
        if number == 50:
            fields |= {"finished_at": None, "artifacts": None, "verdict": "timed_out"}
            cut = {"is_completed": False, "unit_test_run_results": [None]}
            one = run(set_id=one.simulation_unit_test_set_id, run_id=one.id, **cut)
        if number == 55:
            error = NotFoundError(method="POST", path="/v1/org/x", status=404, detail="no such set")
            fields = {"verdict": "not_started", "error": error, "run_id": None, "run": None}
        if number == 57:
            fields |= {"verdict": "cancelled", "artifacts": None}
        outcomes.append(outcome(one, **fields))
    return BatchResult(tuple(outcomes))


GATE = Gate(min_pass_rate=0.8, per="metric", errored="fail")


def rated_run(
    set_id: str,
    run_id: str,
    passed: Sequence[int],
    repeats: int = 10,
    *,
    agent: int = 4,
    model: str = "x-large",
    **flags: Any,
) -> Run:
    """A run whose unit tests passed so many of their repeats, by an agent of some version."""
    one = run(
        *(
            (f"66cc{n:020x}", {TONE: "+" * rate + "-" * (repeats - rate)}, [None] * repeats)
            for n, rate in enumerate(passed)
        ),
        set_id=set_id,
        run_id=run_id,
        **flags,
    )
    specs = [
        replace(
            each,
            agent_version_info=VersionInfo("agent", agent),
            llm_model_preferences={"agent": LLMConfig(model)},
        )
        for each in one.unit_test_run_specs
    ]
    return replace(one, unit_test_run_specs=specs)


TONE = "67aa00000000000000000001"
# What each set of `compared_batch` passed before and passes now, by the name of the set.
COMPARED: dict[str, tuple[Sequence[int], Sequence[int], int]] = {
    "Billing": ([10, 10, 10], [10, 10, 10], 10),
    "Refund policy": ([10, 10, 10], [4, 10, 9], 10),
    "Returns": ([1, 1], [1, 1], 1),
    "Angry callers": ([3, 2, 4], [10, 10, 10], 10),
    "Vouchers": ([10], [6], 10),
}


def compared_batch(*, more: int = 0) -> BatchResult:
    """A batch that was compared: a set that regressed, one that improved, one within chance.

    Args:
        more: Number of further sets, in which nothing changed.
    """
    outcomes, names = [], {}
    sets = COMPARED | {f"Set {n}": COMPARED["Billing"] for n in range(more)}
    for number, (name, (before, now, repeats)) in enumerate(sets.items()):
        set_id = f"6618791275130b73714e8{number:03x}"
        names[set_id] = name
        old = rated_run(set_id, f"77bb{number:020x}", before, repeats)
        new = rated_run(
            *(set_id, f"77dd{number:020x}", now, repeats),
            agent=5 if name == "Refund policy" else 4,
            model="x-small" if name == "Refund policy" else "x-large",
        )
        times = {"started_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=90)}
        outcomes.append(outcome(new, name=name, comparison=compare(old, new), **times))
    first = outcome(rated_run("6618791275130b73714e8fff", "77ddf", [1]), uncompared=NO_BASELINE)
    tests = {f"66cc{0:020x}": "Angry caller wants money back"}
    return BatchResult((*outcomes, first), names=Names(names, tests))


NO_BASELINE = "no baseline: the set has no completed run from before this one"
