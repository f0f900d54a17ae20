"""The structs: what they take from the wire, what they forgive, and what they say of a run."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from amigo_async import models
from amigo_async.decoding import (
    decode_artifacts_link,
    decode_created_run,
    decode_record_page,
    decode_run_page,
    decode_sign_in,
)
from amigo_async.models import (
    ArtifactsLink,
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    CreatedRun,
    ErroredRun,
    Evaluation,
    FailedMetric,
    LLMConfig,
    MetricEvaluationResult,
    MetricToEvaluate,
    NumericalMetricSuccessCriterion,
    Progress,
    Run,
    RunPage,
    SignIn,
    UnitTestRunResult,
    UnitTestRunSpec,
    UnknownSuccessCriterion,
    UserInfo,
    VersionInfo,
)
from amigo_async.redact import MASK

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
BOOLEAN = {"type": "boolean", "expected_value": True}
NUMERICAL = {"type": "numerical", "verb": ">=", "threshold": 3}
CATEGORICAL = {"type": "categorical", "expected_values": ["good", "fine"]}


def metric_document(criterion: Any, metric_id: str = "m1") -> dict[str, Any]:
    return {
        "metric_id": metric_id,
        "success_criterion_name": f"name of {metric_id}",
        "success_criterion": criterion,
    }


def spec_document(*criteria: Any) -> dict[str, Any]:
    return {
        "unit_test_id": "t1",
        "run_count": 2,
        "service_hierarchical_state_machine_version_info": ["machine", 3],
        "agent_version_info": ["agent", 4],
        "scenario_version_info": ["scenario", 5],
        "persona_version_info": None,
        "llm_model_preferences": {"main": {"llm_name": "model", "params": {"t": 0.5}}},
        "max_interactions": 20,
        "metrics_to_evaluate": [metric_document(c, f"m{n}") for n, c in enumerate(criteria)],
    }


def run_document(*specs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "org_id": "org",
        "id": "6618791275130b73714e8d9h",
        "is_completed": False,
        "simulation_unit_test_set_id": "a" * 24,
        "failed_metrics": False,
        "errored": False,
        "artifacts_generated": False,
        "unit_test_run_specs": list(specs),
        "unit_test_run_results": [],
        "created_at": "2026-01-02T12:00:00Z",
        "creator": {"org_id": "org", "user_id": "user"},
        **changes,
    }


def page_document(*runs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "simulation_unit_test_set_runs": list(runs),
        "has_more": False,
        "continuation_token": None,
        "filter_values": None,
        **changes,
    }


def decoded(*runs: dict[str, Any], **changes: Any) -> RunPage:
    return decode_run_page(json.dumps(page_document(*runs, **changes)).encode())


def criteria_of(page: RunPage) -> list[object]:
    [run] = page.simulation_unit_test_set_runs
    [spec] = run.unit_test_run_specs
    return [metric.success_criterion for metric in spec.metrics_to_evaluate]


def test_a_whole_page() -> None:
    results = [
        None,
        {
            "unit_test_id": "t1",
            "metric_evaluation_results": [
                {"metric_id": "m0", "metric_version": 7, "results": [["e1", True], ["e2", False]]}
            ],
            "run_errors": [None, "it broke"],
        },
    ]
    page = decoded(
        run_document(spec_document(BOOLEAN), unit_test_run_results=results),
        has_more=True,
        continuation_token=1,
        filter_values={
            "creators": [{"org_id": "org", "user_id": "user"}],
            "simulation_unit_test_set_ids": ["a" * 24],
            "tags": ["tag"],
        },
    )
    spec = UnitTestRunSpec(
        unit_test_id="t1",
        run_count=2,
        service_hierarchical_state_machine_version_info=VersionInfo("machine", 3),
        agent_version_info=VersionInfo("agent", 4),
        scenario_version_info=VersionInfo("scenario", 5),
        persona_version_info=None,
        llm_model_preferences={"main": LLMConfig("model", {"t": 0.5})},
        max_interactions=20,
        metrics_to_evaluate=(
            MetricToEvaluate("m0", "name of m0", BooleanMetricSuccessCriterion(True)),
        ),
    )
    evaluations = (Evaluation("e1", passed=True), Evaluation("e2", passed=False))
    run = Run(
        org_id="org",
        id="6618791275130b73714e8d9h",
        is_completed=False,
        simulation_unit_test_set_id="a" * 24,
        failed_metrics=False,
        errored=False,
        artifacts_generated=False,
        unit_test_run_specs=[spec],
        unit_test_run_results=[
            None,
            UnitTestRunResult(
                "t1", (MetricEvaluationResult("m0", 7, evaluations),), (None, "it broke")
            ),
        ],
        created_at=NOON,
        creator=UserInfo("org", "user"),
    )
    assert page == RunPage(
        [run], True, 1, models.FilterValues([UserInfo("org", "user")], ["a" * 24], ["tag"])
    )
    assert page.simulation_unit_test_set_runs[0].unit_test_run_specs[0].agent_version_info.id == (
        "agent"
    )


@pytest.mark.parametrize(
    ("document", "criterion"),
    [
        (BOOLEAN, BooleanMetricSuccessCriterion(expected_value=True)),
        (NUMERICAL, NumericalMetricSuccessCriterion(">=", 3.0)),
        ({**NUMERICAL, "threshold": -0.5}, NumericalMetricSuccessCriterion(">=", -0.5)),
        (CATEGORICAL, CategoricalMetricSuccessCriterion(["good", "fine"])),
        ({**BOOLEAN, "note": "new"}, BooleanMetricSuccessCriterion(expected_value=True)),
        ({**NUMERICAL, "verb": "~="}, NumericalMetricSuccessCriterion("~=", 3.0)),
    ],
)
def test_criteria(document: Any, criterion: object) -> None:
    assert criteria_of(decoded(run_document(spec_document(document)))) == [criterion]


@pytest.mark.parametrize(
    "document",
    [
        {"type": "regex", "pattern": ".*"},
        {"type": "boolean"},
        {"type": "boolean", "expected_value": "yes"},
        {"type": "numerical", "verb": ">=", "threshold": "high"},
        {"type": "numerical", "verb": None, "threshold": 1},
        {"type": "numerical", "verb": ">="},
        {"type": "categorical", "expected_values": [1]},
        {"type": "categorical", "expected_values": "good"},
        {"type": None},
        {"type": 7},
        {"type": ["boolean"]},
        {"expected_value": True},
        {},
        None,
        "boolean",
        [],
        0,
        {"type": "?"},
        {"type": "nested", "success_criterion": {"type": "regex"}},
    ],
)
def test_unknown_criteria_are_kept(document: Any) -> None:
    neighbours = [BOOLEAN, document, CATEGORICAL]
    page = decoded(run_document(spec_document(*neighbours)), run_document(spec_document(BOOLEAN)))
    first, second = page.simulation_unit_test_set_runs
    metrics = first.unit_test_run_specs[0].metrics_to_evaluate
    assert [m.success_criterion for m in metrics] == [
        BooleanMetricSuccessCriterion(expected_value=True),
        UnknownSuccessCriterion(document),
        CategoricalMetricSuccessCriterion(["good", "fine"]),
    ]
    assert metrics[1].success_criterion_name == "name of m1"
    assert second.unit_test_run_specs[0].metrics_to_evaluate[0].metric_id == "m0"
    assert first.created_at == NOON


def test_model_params_are_left_alone() -> None:
    """A page that takes the longer way leaves what is not a criterion as it is."""
    spec = spec_document({"type": "regex"})
    params = {"success_criterion": {"type": "regex"}, "deep": [{"success_criterion": 1}]}
    spec["llm_model_preferences"] = {"main": {"llm_name": "model", "params": params}}
    [run] = decoded(run_document(spec)).simulation_unit_test_set_runs
    assert run.unit_test_run_specs[0].llm_model_preferences["main"].params == params


@pytest.mark.parametrize("value", [None, 1, "text", [], {"a": [{}]}])
def test_new_fields_are_ignored_everywhere(value: Any) -> None:
    def grown(document: Any) -> Any:
        if isinstance(document, list):
            return [grown(item) for item in document]
        if isinstance(document, dict):
            more = {"a_new_field": value} if document else {}  # an empty one here is a mapping
            return {**{k: grown(v) for k, v in document.items()}, **more}
        return document

    result = {
        "unit_test_id": "t1",
        "metric_evaluation_results": [
            {"metric_id": "m0", "metric_version": 7, "results": [["e1", True]]}
        ],
        "run_errors": [None],
    }
    spec = {**spec_document(BOOLEAN, NUMERICAL, CATEGORICAL), "llm_model_preferences": {}}
    run = run_document(spec, unit_test_run_results=[result, None])
    filters: dict[str, Any] = {
        "creators": [{"org_id": "o", "user_id": "u"}],
        "simulation_unit_test_set_ids": [],
        "tags": [],
    }
    document = page_document(run, filter_values=filters)
    assert decode_run_page(json.dumps(grown(document)).encode()) == decode_run_page(
        json.dumps(document).encode()
    )


@pytest.mark.parametrize("attached", [True, "yes", None, {"a": 1}])
def test_attached_is_not_from_the_wire(attached: Any) -> None:
    body = json.dumps({"simulation_unit_test_set_run_id": "r", "attached": attached}).encode()
    assert decode_created_run(body) == CreatedRun("r", attached=False)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {}),
        ({"params": {}}, {}),
        ({"params": None}, None),
        ({"params": {"a": [1]}}, {"a": [1]}),
    ],
)
def test_parameters_of_a_model(params: dict[str, Any], expected: Any) -> None:
    spec = spec_document()
    spec["llm_model_preferences"] = {"x": {"llm_name": "n", **params}}
    [run] = decoded(run_document(spec)).simulation_unit_test_set_runs
    assert run.unit_test_run_specs[0].llm_model_preferences == {"x": LLMConfig("n", expected)}


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-02T12:00:00Z", NOON),
        ("2026-01-02T12:00:00+00:00", NOON),
        ("2026-01-02T17:30:00+05:30", NOON),
        ("2026-01-02T12:00:00", NOON),
        ("2026-01-02T12:00:00.000000", NOON),
        ("2026-01-02T12:00:00.25Z", NOON + timedelta(seconds=0.25)),
        ("2026-01-02T12:00:00.123456789Z", NOON + timedelta(microseconds=123457)),
    ],
)
def test_every_instant_is_aware(text: str, instant: datetime) -> None:
    sign_in = decode_sign_in(json.dumps({"id_token": "t", "expires_at": text}).encode())
    link = decode_artifacts_link(
        json.dumps({"presigned_url": "https://h/k", "url_expires_at": text}).encode()
    )
    [run] = decoded(run_document(created_at=text)).simulation_unit_test_set_runs
    for received in (sign_in.expires_at, link.url_expires_at, run.created_at):
        assert received == instant
        assert received.utcoffset() is not None


def test_a_zone_is_kept() -> None:
    [run] = decoded(
        run_document(created_at="2026-01-02T17:30:00+05:30")
    ).simulation_unit_test_set_runs
    assert run.created_at.utcoffset() == timedelta(hours=5, minutes=30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b"\xff",
        b'{"has_more": false',
        json.dumps(page_document(has_more=None)).encode(),
        json.dumps({**page_document(), "simulation_unit_test_set_runs": None}).encode(),
        json.dumps(page_document(continuation_token="50")).encode(),
    ],
)
def test_what_is_not_a_page_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_run_page(body)


def without(document: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != field}


SPEC = spec_document(BOOLEAN)
RESULT = {"unit_test_id": "t1", "metric_evaluation_results": [], "run_errors": ["it broke"]}
GOOD = run_document(SPEC, unit_test_run_results=[RESULT], id="good")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (run_document(created_at="yesterday"), r"`\$.created_at`"),
        (run_document(created_at=None), r"`\$.created_at`"),
        (run_document(is_completed=1), r"`\$.is_completed`"),
        (run_document(failed_metrics=None), r"`\$.failed_metrics`"),
        (without(run_document(), "errored"), r"`errored`"),
        (run_document(creator={"org_id": 7}), r"`\$.creator"),
    ],
)
def test_unreadable_flags_cost_one_run(bad: Any, said: str) -> None:
    page = decoded(bad, GOOD)
    assert [run.id for run in page.simulation_unit_test_set_runs] == ["good"]
    [flaw] = page.unreadable.values()
    assert re.search(said, flaw)
    assert set(page.unreadable) == {bad["id"]}


@pytest.mark.parametrize("bad", [None, 7, [], {}, {"id": None}, spec_document(BOOLEAN)])
def test_record_without_an_id(bad: Any) -> None:
    page = decoded(GOOD, bad)
    assert [run.id for run in page.simulation_unit_test_set_runs] == ["good"]
    assert set(page.unreadable) == {"[1]"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"unit_test_run_specs": [SPEC, {**SPEC, "max_interactions": None}]},
            r"`int`, got `null` - at `\$.unit_test_run_specs\[1\].max_interactions`",
        ),
        ({"unit_test_run_specs": [{"metrics_to_evaluate": [{}]}]}, r"`\$.unit_test_run_specs\[0\]"),
        ({"unit_test_run_specs": None}, r"`\$.unit_test_run_specs`"),
        ({"unit_test_run_results": {}}, r"`\$.unit_test_run_results`"),
        (
            {"unit_test_run_results": [{**RESULT, "run_errors": [7]}]},
            r"`\$.unit_test_run_results\[0\].run_errors\[0\]`",
        ),
    ],
)
def test_unreadable_details_are_left_out(changes: dict[str, Any], said: str) -> None:
    page = decoded(GOOD, {**GOOD, "id": "bad", "errored": True, **changes})
    good, bad = page.simulation_unit_test_set_runs
    assert good.unit_test_run_specs
    assert good.unit_test_run_results
    assert (bad.id, bad.errored, bad.created_at) == ("bad", True, NOON)
    # The one that could be read would be read as part of a whole.
    assert (bad.unit_test_run_specs, bad.unit_test_run_results) == ([], [])
    assert re.search(said, page.unreadable["bad"])
    assert set(page.unreadable) == {"bad"}


def test_missing_details() -> None:
    page = decoded(without(run_document(), "unit_test_run_specs"))
    assert page.simulation_unit_test_set_runs[0].unit_test_run_specs == []
    assert "unit_test_run_specs" in next(iter(page.unreadable.values()))


def test_page_encodes_without_unreadable() -> None:
    page = decoded(GOOD)
    assert page.unreadable == {}
    assert b"unreadable" not in msgspec.json.encode(page)


@pytest.mark.parametrize(
    "text",
    [
        b'"half of a pair: \\ud83d"',
        b'"half of a pair: \\udc4d and more"',
        b'"half of a pair: \xff"',
        b'"half of a pair: \x01"',
    ],
)
def test_invalid_unicode_is_read(text: bytes) -> None:
    bad = {**GOOD, "id": "bad", "unit_test_run_results": [{**RESULT, "run_errors": ["TEXT"]}]}
    body = json.dumps(page_document(bad, GOOD)).encode().replace(b'"TEXT"', text)
    page = decode_run_page(body)
    first, second = page.simulation_unit_test_set_runs
    assert page.unreadable == {}
    [result] = first.unit_test_run_results
    assert result is not None
    assert str(result.run_errors[0]).startswith("half of a pair: ")
    assert msgspec.json.decode(msgspec.json.encode(first), type=Run) == first  # for the journal
    assert second.id == "good"
    assert set(decode_record_page(body).records) == {"bad", "good"}


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"-1e999"])
def test_not_a_number_costs_its_field(number: bytes) -> None:
    spec = spec_document({**NUMERICAL, "threshold": "NUMBER"})
    spec["llm_model_preferences"]["main"]["params"] = {"t": "NUMBER"}
    body = json.dumps(page_document(run_document(spec), GOOD)).encode()
    page = decode_run_page(body.replace(b'"NUMBER"', number))
    assert page.unreadable == {}
    first, _ = page.simulation_unit_test_set_runs
    [read] = first.unit_test_run_specs
    assert read.llm_model_preferences["main"].params == {"t": number.decode()}
    assert read.metrics_to_evaluate[0].success_criterion == UnknownSuccessCriterion(
        {**NUMERICAL, "threshold": number.decode()}
    )


@pytest.mark.parametrize("values", [7, {"creators": [None]}, {"tags": [{}]}, "x", []])
def test_unreadable_filter_values(values: Any) -> None:
    page = decoded(GOOD, filter_values=values)
    assert page.filter_values is None
    assert [run.id for run in page.simulation_unit_test_set_runs] == ["good"]


def test_record_frees_its_page() -> None:
    body = json.dumps(page_document(GOOD)).encode()
    before = sys.getrefcount(body)
    page = decode_record_page(body)
    assert set(page.records) == {"good"}
    assert sys.getrefcount(body) == before


def test_wait_reads_only_the_flags() -> None:
    documents = [
        {**GOOD, "created_at": None, "unit_test_run_specs": 7},
        {**GOOD, "id": "over", "is_completed": True, "artifacts_generated": "soon"},
        {**GOOD, "id": "bad", "is_completed": None},
        {"id": 7},
    ]
    body = json.dumps({"simulation_unit_test_set_runs": documents}).encode()
    page = decode_record_page(body)
    assert not page.has_more
    good, over = page.records.values()
    assert (good.id, good.is_completed, over.is_completed) == ("good", False, True)
    assert not over.artifacts_generated
    assert good.run is None
    assert good.error is not None
    assert "`$.created_at`" in str(good.error)
    assert over.run is None
    assert "`$.is_completed`" in str(page.errors["bad"])
    assert set(page.errors) == {"bad"}


def test_unknown_criterion_is_cheap() -> None:
    """Compared by the work, which no other load on the machine changes."""

    def calls(criterion: Any) -> int:
        specs = [spec_document(*[BOOLEAN] * 5, criterion) for _ in range(10)]
        body = json.dumps(page_document(*[run_document(*specs)] * 10)).encode()
        decode_run_page(body)
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            decode_run_page(body)
        finally:
            sys.setprofile(None)
        return counted

    # A few calls for each of the 600 metrics of a run that has one; none for the others.
    assert calls({"type": "range", "low": 1}) <= 600 * 8
    assert calls(BOOLEAN) <= 10 * 12


def test_secrets_are_not_shown() -> None:
    sign_in = decode_sign_in(b'{"id_token": "hunter2", "expires_at": "2026-01-02T12:00:00Z"}')
    assert sign_in.id_token == "hunter2"
    assert "hunter2" not in repr(sign_in)
    link = decode_artifacts_link(
        b'{"presigned_url": "https://h/k?sig=hunter2", "url_expires_at": "2026-01-02T12:00:00Z"}'
    )
    assert link.presigned_url == "https://h/k?sig=hunter2"
    assert repr(link).startswith(f"ArtifactsLink(presigned_url='https://h/k?{MASK}'")
    with pytest.raises(TypeError, match="Secret"):
        msgspec.json.encode(sign_in)  # nor written to a file by mistake
    assert "hunter2" not in repr(SignIn("hunter2", NOON))
    assert "hunter2" not in repr(ArtifactsLink("https://h/k?hunter2", NOON))


@pytest.mark.parametrize(
    "struct",
    [s for s in vars(models).values() if isinstance(s, type) and issubclass(s, msgspec.Struct)],
)
def test_all_structs_are_frozen(struct: type[msgspec.Struct]) -> None:
    assert struct is msgspec.Struct or struct.__struct_config__.frozen


def spec(test: str, count: int, *metric_ids: str) -> UnitTestRunSpec:
    return UnitTestRunSpec(
        *(test, count, VersionInfo("machine", 1), VersionInfo("agent", 1), None, None, {}, 10),
        metrics_to_evaluate=tuple(metric(m) for m in metric_ids),
    )


def metric(metric_id: str) -> MetricToEvaluate:
    return MetricToEvaluate(metric_id, f"name of {metric_id}", UnknownSuccessCriterion(None))


def result(test: str, errors: list[str | None], **metrics: str) -> UnitTestRunResult:
    """Metrics are given as one letter a repeat: p for passed, f for failed."""
    evaluated = tuple(
        MetricEvaluationResult(
            name, 1, tuple(Evaluation(f"e{n}", c == "p") for n, c in enumerate(given))
        )
        for name, given in metrics.items()
    )
    return UnitTestRunResult(test, evaluated, tuple(errors))


def run(
    specs: list[UnitTestRunSpec] | None = None,
    results: list[UnitTestRunResult | None] | None = None,
    *,
    completed: bool = True,
    failed: bool = False,
    errored: bool = False,
) -> Run:
    return Run(
        org_id="org",
        id="r",
        is_completed=completed,
        simulation_unit_test_set_id="s",
        failed_metrics=failed,
        errored=errored,
        artifacts_generated=False,
        unit_test_run_specs=specs or [],
        unit_test_run_results=results or [],
        created_at=NOON,
        creator=UserInfo("org", "user"),
    )


@pytest.mark.parametrize("completed", [True, False])
@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("errored", [True, False])
def test_passed(completed: bool, failed: bool, errored: bool) -> None:
    only = (completed, failed, errored) == (True, False, False)
    assert run(completed=completed, failed=failed, errored=errored).passed is only


@pytest.mark.parametrize(
    ("specs", "results", "progress"),
    [
        ([], [], None),  # without the permission to see unit test sets
        ([spec("t", 3)], [], Progress(0, 3)),
        ([spec("t", 3)], [None], Progress(0, 3)),
        ([spec("t", 3)], [result("t", [None])], Progress(1, 3)),
        ([spec("t", 3)], [result("t", [None, "broke", None])], Progress(3, 3)),
        ([spec("t", 3), spec("u", 2)], [result("t", [None]), None], Progress(1, 5)),
        ([spec("t", 3), spec("u", 2)], [result("t", []), result("u", ["x"])], Progress(1, 5)),
        ([spec("t", 0)], [], Progress(0, 0)),
        ([spec("t", 1)], [result("t", [None, None])], Progress(1, 1)),  # never more than all
        ([spec("t", 2, "m")], [result("t", [None], m="p")], Progress(1, 2)),
    ],
)
def test_progress(
    specs: list[UnitTestRunSpec],
    results: list[UnitTestRunResult | None],
    progress: Progress | None,
) -> None:
    assert run(specs, results).progress == progress


@pytest.mark.parametrize(
    ("specs", "results", "failed"),
    [
        ([], [], None),  # without the permission to see unit test sets
        ([spec("t", 1)], [result("t", [None])], None),  # without the one to see unit tests
        ([spec("t", 1)], [], None),
        ([spec("t", 1, "m")], [], ()),
        ([spec("t", 1, "m")], [None], ()),
        ([spec("t", 1, "m")], [result("t", [None], m="p")], ()),
        ([spec("t", 1, "m")], [result("t", [], m="")], ()),
        (
            [spec("t", 3, "m", "n")],
            [result("t", [None] * 3, m="pfp", n="fff")],
            (
                FailedMetric("t", "m", failed=1, evaluated=3, metric=metric("m")),
                FailedMetric("t", "n", failed=3, evaluated=3, metric=metric("n")),
            ),
        ),
        (  # the same metric in two unit tests
            [spec("t", 1, "m"), spec("u", 1, "m")],
            [result("t", [None], m="p"), None, result("u", [None], m="f")],
            (FailedMetric("u", "m", failed=1, evaluated=1, metric=metric("m")),),
        ),
        (  # results without specs
            [],
            [result("t", [None], m="f")],
            (FailedMetric("t", "m", failed=1, evaluated=1, metric=None),),
        ),
        (  # a metric that the specs do not have
            [spec("t", 1, "m")],
            [result("t", [None], n="f")],
            (FailedMetric("t", "n", failed=1, evaluated=1, metric=None),),
        ),
    ],
)
def test_metrics_that_failed(
    specs: list[UnitTestRunSpec],
    results: list[UnitTestRunResult | None],
    failed: tuple[FailedMetric, ...] | None,
) -> None:
    assert run(specs, results).metrics_that_failed == failed


@pytest.mark.parametrize(
    ("specs", "results", "errored"),
    [
        ([], [], None),  # without the permission to see unit test sets
        ([], [None], None),
        ([spec("t", 2)], [], ()),
        ([spec("t", 2)], [None], ()),
        ([spec("t", 2)], [result("t", [None, None])], ()),
        ([spec("t", 2)], [result("t", [None, "broke"])], (ErroredRun("t", 1, "broke"),)),
        ([], [result("t", ["", None])], (ErroredRun("t", 0, ""),)),
        (
            [spec("t", 2), spec("u", 1)],
            [result("t", ["a", "b"]), None, result("u", ["c"])],
            (ErroredRun("t", 0, "a"), ErroredRun("t", 1, "b"), ErroredRun("u", 0, "c")),
        ),
    ],
)
def test_runs_that_errored(
    specs: list[UnitTestRunSpec],
    results: list[UnitTestRunResult | None],
    errored: tuple[ErroredRun, ...] | None,
) -> None:
    assert run(specs, results).runs_that_errored == errored


def test_run_made_by_hand_is_aware() -> None:
    naive = datetime(2026, 1, 2, 12)  # noqa: DTZ001  # what a service may leave out
    made = msgspec.structs.replace(run(), created_at=naive)
    assert made.created_at == NOON
    zone = timezone(timedelta(hours=1))
    assert (
        msgspec.structs.replace(run(), created_at=NOON.astimezone(zone)).created_at.tzinfo is zone
    )


def parts_of(value: Any) -> list[Any]:
    """`value` and what is within it: structs, tuples, and what they hold."""
    within: Iterable[Any] = ()
    if isinstance(value, dict):
        within = value.values()
    elif isinstance(value, list | tuple):
        within = value
    elif isinstance(value, msgspec.Struct):
        within = [getattr(value, name) for name in value.__struct_fields__]
    return [value, *(part for item in within for part in parts_of(item))]


def test_what_a_page_has_most_of_is_untracked() -> None:
    """Or each collection takes long, while a page is decoded and as long as runs are held."""
    evaluated = {
        "unit_test_id": "t1",
        "metric_evaluation_results": [
            {"metric_id": "m1", "metric_version": 1, "results": [["e1", True]]}
        ],
        "run_errors": [None],
    }
    # Not a categorical one: its list is tracked, but the metrics of a run share it.
    specs = spec_document(BOOLEAN, NUMERICAL)
    page = decoded(run_document(specs, unit_test_run_results=[evaluated]))
    gc.collect()  # stops tracking tuples that have nothing to track
    parts = parts_of(page)
    kinds = {type(one) for one in parts}
    assert {Evaluation, VersionInfo, UnitTestRunSpec, UnitTestRunResult, Run, UserInfo} <= kinds
    tracked = [one for one in parts if gc.is_tracked(one)]
    (run,) = page.simulation_unit_test_set_runs
    lists = [run.unit_test_run_specs, run.unit_test_run_results]
    for one in (*lists, page.simulation_unit_test_set_runs):
        tracked.remove(one)
    assert tracked == []
