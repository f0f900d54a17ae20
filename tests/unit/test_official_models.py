"""Our structs against the vendor's own models, which are made from the same description."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import msgspec
import pytest
from amigo_sdk.generated import model as official
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from pydantic import BaseModel, RootModel

from amigo_async import decoding, models

IDS = st.text("0123456789abcdef", min_size=24, max_size=24)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNTS = st.integers(0, 2**53)
INSTANTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001  # hypothesis puts the zones on
    datetime(2100, 1, 1),  # noqa: DTZ001  # the same
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
VERSIONS = st.tuples(TEXTS, COUNTS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=2)


USERS = st.fixed_dictionaries({"org_id": TEXTS, "user_id": TEXTS})
CRITERIA = st.one_of(
    st.fixed_dictionaries({"type": st.just("boolean"), "expected_value": st.booleans()}),
    st.fixed_dictionaries(
        {
            "type": st.just("numerical"),
            "verb": st.sampled_from([verb.value for verb in official.Verb]),
            "threshold": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        }
    ),
    st.fixed_dictionaries({"type": st.just("categorical"), "expected_values": few(TEXTS)}),
)
METRICS = st.fixed_dictionaries(
    {"metric_id": TEXTS, "success_criterion_name": TEXTS, "success_criterion": CRITERIA}
)
CONFIGS = st.fixed_dictionaries(
    {"llm_name": TEXTS}, optional={"params": st.none() | st.dictionaries(TEXTS, JSON, max_size=2)}
)
SPECS = st.fixed_dictionaries(
    {
        "unit_test_id": TEXTS,
        "run_count": COUNTS,
        "service_hierarchical_state_machine_version_info": VERSIONS,
        "agent_version_info": VERSIONS,
        "scenario_version_info": st.none() | VERSIONS,
        "persona_version_info": st.none() | VERSIONS,
        "llm_model_preferences": st.dictionaries(TEXTS, CONFIGS, max_size=2),
        "max_interactions": COUNTS,
        "metrics_to_evaluate": few(METRICS),
    }
)
RESULTS = st.fixed_dictionaries(
    {
        "unit_test_id": TEXTS,
        "metric_evaluation_results": few(
            st.fixed_dictionaries(
                {
                    "metric_id": TEXTS,
                    "metric_version": COUNTS,
                    "results": few(st.tuples(TEXTS, st.booleans())),
                }
            )
        ),
        "run_errors": few(st.none() | TEXTS),
    }
)
RUNS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("org_id", "id", "simulation_unit_test_set_id"), TEXTS | IDS),
        **dict.fromkeys(
            ("is_completed", "failed_metrics", "errored", "artifacts_generated"), st.booleans()
        ),
        "unit_test_run_specs": few(SPECS),
        "unit_test_run_results": few(st.none() | RESULTS),
        "created_at": INSTANTS,
        "creator": USERS,
    }
)
PAGES = st.fixed_dictionaries(
    {
        "simulation_unit_test_set_runs": few(RUNS),
        "has_more": st.booleans(),
        "continuation_token": st.none() | COUNTS,
        "filter_values": st.none()
        | st.fixed_dictionaries(
            {
                "creators": few(USERS),
                "simulation_unit_test_set_ids": few(TEXTS),
                "tags": few(TEXTS),
            }
        ),
    }
)
TAGS = st.fixed_dictionaries({"key": TEXTS, "value": st.none() | TEXTS})
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COMMON = {
    **dict.fromkeys(("org_id", "name"), TEXTS),
    "is_deleted": st.booleans(),
    "tags": few(TAGS),
    **dict.fromkeys(("creator", "updated_by"), USERS),
}
TIMES = dict.fromkeys(("created_at", "updated_at"), INSTANTS)
SETS: dict[str, Any] = {
    **COMMON,
    "description": st.none() | TEXTS,
    "unit_test_runs": few(st.fixed_dictionaries({"unit_test_id": TEXTS, "run_count": COUNTS})),
    "last_triggered_run_id": st.none() | TEXTS,
}
UNIT_TESTS = st.fixed_dictionaries(
    {
        **COMMON,
        **dict.fromkeys(("id", "description", "service_id", "service_version_set_name"), TEXTS),
        **dict.fromkeys(("persona_id", "scenario_id"), TEXTS),
        "max_interactions": COUNTS,
        "success_criterions": few(
            st.fixed_dictionaries({"name": TEXTS, "metric_id": TEXTS, "criterion": CRITERIA})
        ),
    },
    optional=TIMES,
)
DEFINED_METRICS = st.fixed_dictionaries(
    {
        **COMMON,
        **TIMES,
        "id": TEXTS,
        "applied_to_services": few(TEXTS),
        "additional_notes": st.none() | TEXTS,
        "metric_value_type": st.sampled_from([kind.value for kind in official.MetricValueType]),
    }
)
REFERENCES = few(TEXTS)
SOURCES = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("simulation"),
            **dict.fromkeys(("simulation_unit_test_set_run_id", "unit_test_id"), TEXTS),
            "run_index": COUNTS,
            "references": REFERENCES,
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("post-session"), "conversation_id": TEXTS, "references": REFERENCES}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("manual"),
            "conversation_id": TEXTS,
            "evaluate_to_interaction_id": st.none() | TEXTS,
            "invoked_by": USERS,
            "references": REFERENCES,
        }
    ),
)
EVALUATIONS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("id", "org_id", "metric_id", "justification"), TEXTS),
        "metric_version": COUNTS,
        "result": st.none() | st.booleans() | FLOATS | TEXTS,
        "source": SOURCES,
    },
    optional=TIMES,
)


def pages(field: str, records: st.SearchStrategy[Any], **values: Any) -> st.SearchStrategy[Any]:
    filter_values = st.fixed_dictionaries({name: few(of) for name, of in values.items()})
    return st.fixed_dictionaries(
        {
            field: few(records),
            "has_more": st.booleans(),
            "continuation_token": st.none() | COUNTS,
            "filter_values": st.none() | filter_values,
        }
    )


IDENTIFIED_SETS = st.fixed_dictionaries({"id": TEXTS, **SETS}, optional=TIMES)
SET_PAGES = pages(
    *("simulation_unit_test_sets", IDENTIFIED_SETS),
    creators=USERS,
    unit_test_ids=TEXTS,
    tags=TEXTS,
)
UNIT_TEST_PAGES = pages(
    *("simulation_unit_tests", UNIT_TESTS),
    creators=USERS,
    tags=TEXTS,
    service_ids=TEXTS,
    persona_ids=TEXTS,
    scenario_ids=TEXTS,
    metric_ids=TEXTS,
)
METRIC_PAGES = pages(
    *("metrics", DEFINED_METRICS),
    applied_to_services_ids=TEXTS,
    creators=USERS,
    tags=TEXTS,
    types=TEXTS,
)
EVALUATION_PAGES = pages("metric_evaluation_results", EVALUATIONS, metric_ids=TEXTS)
FOUND_SETS = st.fixed_dictionaries(
    {
        "simulation_unit_test_sets": few(
            st.fixed_dictionaries({"_id": TEXTS, **SETS}, optional=TIMES)
        )
    }
)
# Ours have to be able to travel in a header.
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
SIGN_INS = st.fixed_dictionaries({"id_token": TOKENS, "expires_at": INSTANTS})
# An empty id, which their model allows, names no run.
CREATED = st.fixed_dictionaries({"simulation_unit_test_set_run_id": TEXTS.filter(str.strip)})
LINKS = st.fixed_dictionaries({"presigned_url": TEXTS, "url_expires_at": INSTANTS})

RESPONSES: dict[type[BaseModel], tuple[type[Struct], Callable[[bytes], Struct], Any]] = {
    official.SimulationGetSimulationUnitTestSetRunsResponse: (
        models.RunPage,
        decoding.decode_run_page,
        PAGES,
    ),
    official.SimulationCreateSimulationUnitTestSetRunResponse: (
        models.CreatedRun,
        decoding.decode_created_run,
        CREATED,
    ),
    official.SimulationGetSimulationUnitTestSetRunArtifactsResponse: (
        models.ArtifactsLink,
        decoding.decode_artifacts_link,
        LINKS,
    ),
    official.UserSignInWithApiKeyResponse: (models.SignIn, decoding.decode_sign_in, SIGN_INS),
    official.SimulationGetSimulationUnitTestSetsResponse: (
        models.UnitTestSetPage,
        decoding.decode_unit_test_sets,
        SET_PAGES,
    ),
    official.SimulationGetSimulationUnitTestsResponse: (
        models.UnitTestPage,
        decoding.decode_unit_tests,
        UNIT_TEST_PAGES,
    ),
    official.MetricGetMetricsResponse: (
        models.MetricPage,
        decoding.decode_metrics,
        METRIC_PAGES,
    ),
    official.MetricGetMetricEvaluationResultsResponse: (
        models.EvaluationPage,
        decoding.decode_evaluations,
        EVALUATION_PAGES,
    ),
}
PAGE_KINDS = (
    models.RunPage,
    models.UnitTestSetPage,
    models.UnitTestPage,
    models.MetricPage,
    models.EvaluationPage,
)


def plain(value: Any) -> Any:
    """The value of a struct or of one of the vendor's models, in Python's own types."""
    if isinstance(value, RootModel | Enum):
        return plain(value.root if isinstance(value, RootModel) else value.value)
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Struct):
        config = value.__struct_config__
        if config.array_like:
            return [plain(getattr(value, name)) for name in value.__struct_fields__]
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        return tag | {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def ours_without_extras(value: Any) -> Any:
    given = plain(value)
    if isinstance(value, models.CreatedRun):
        assert given.pop("attached") is False  # ours alone: it is not on the wire
    if isinstance(value, PAGE_KINDS):
        assert given.pop("unreadable") == {}  # as well
    return given


@given(st.data())
@pytest.mark.parametrize("theirs", RESPONSES, ids=lambda cls: cls.__name__)
def test_ours_read_what_theirs_write(theirs: type[BaseModel], data: st.DataObject) -> None:
    ours, decode, documents = RESPONSES[theirs]
    sent = theirs.model_validate(data.draw(documents))
    received = decode(sent.model_dump_json().encode())
    assert type(received) is ours
    assert ours_without_extras(received) == plain(sent)


@given(st.data())
@pytest.mark.parametrize("theirs", RESPONSES, ids=lambda cls: cls.__name__)
def test_theirs_read_what_ours_write(theirs: type[BaseModel], data: st.DataObject) -> None:
    ours, decode, documents = RESPONSES[theirs]
    sent = decode(msgspec.json.encode(data.draw(documents)))
    received = theirs.model_validate_json(msgspec.json.encode(sent, enc_hook=str))
    assert type(sent) is ours
    assert plain(received) == ours_without_extras(sent)


@given(FOUND_SETS)
def test_ours_read_what_the_search_shows(document: dict[str, Any]) -> None:
    sent = official.SimulationSearchSimulationUnitTestSetResponse.model_validate(document)
    received = decoding.decode_found_unit_test_sets(sent.model_dump_json(by_alias=True).encode())
    expected = plain(sent)["simulation_unit_test_sets"]
    assert [
        {"field_id" if k == "id" else k: v for k, v in plain(one).items()} for one in received
    ] == expected


def models_in(annotation: Any) -> Iterator[type]:
    """The models (or structs) that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel | Struct):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def their_fields(cls: type[BaseModel]) -> dict[str, Any]:
    return {name: field.annotation for name, field in cls.model_fields.items()}


def their_models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Their models, a root model replaced by what is in it."""
    for cls in models_in(annotation):
        if issubclass(cls, RootModel):
            yield from their_models_in(cls.model_fields["root"].annotation)
        elif issubclass(cls, BaseModel):
            yield cls


def tag_of(cls: type) -> object:
    """What tells the members of a union apart."""
    if issubclass(cls, Struct):
        return cls.__struct_config__.tag
    kind = getattr(cls, "model_fields", {}).get("type")
    return None if kind is None else typing.get_args(kind.annotation)[0]


def pairs(theirs: type[BaseModel], ours: type[Struct]) -> Iterator[tuple[type[BaseModel], Any]]:
    """Every model of theirs that is within `theirs`, with the struct in the same place."""
    yield theirs, ours
    hints = typing.get_type_hints(ours)
    for name, annotation in their_fields(theirs).items():
        structs = {tag_of(cls): cls for cls in models_in(hints.get(name))}
        for cls in their_models_in(annotation):
            assert tag_of(cls) in structs, f"{theirs.__name__}.{name}: {cls.__name__} is missing"
            yield from pairs(cls, structs[tag_of(cls)])


ALL_PAIRS = [pair for theirs, (ours, _, _) in RESPONSES.items() for pair in pairs(theirs, ours)]


IN_RUNS = "MongoCollectionsSimulationUnitTestSetRunSimulationUnitTestSetRun"


def test_the_walk_meets_every_model() -> None:
    assert {theirs.__name__ for theirs, _ in ALL_PAIRS} == {
        "BooleanMetricSuccessCriterion",
        "CategoricalMetricSuccessCriterionOutput",
        "LLMConfigOutput",
        "ManualEvaluationSource",
        "MetricEvaluationResultInstance",
        "MetricGetMetricEvaluationResultsResponse",
        "MetricGetMetricEvaluationResultsResponseFilterValues",
        "MetricGetMetricsResponse",
        "MetricGetMetricsResponseFilterValues",
        "MetricInstance",
        "MetricToEvaluate",
        "MongoCollectionsMetricEvaluationResultMetricEvaluationResultManualEvaluationSourceUserInfo",
        "MongoCollectionsMetricMetricUserInfo",
        "MongoCollectionsSimulationUnitTestSetSimulationUnitTestSetUserInfo",
        "MongoCollectionsSimulationUnitTestSimulationUnitTestUserInfo",
        f"{IN_RUNS}UnitTestRunResultMetricEvaluationResult",
        f"{IN_RUNS}UserInfo",
        "NumericalMetricSuccessCriterion",
        "PostSessionEvaluationSource",
        "SimulationCreateSimulationUnitTestSetRunResponse",
        "SimulationEvaluationSource",
        "SimulationGetSimulationUnitTestSetRunArtifactsResponse",
        "SimulationGetSimulationUnitTestSetRunsResponse",
        "SimulationGetSimulationUnitTestSetRunsResponseFilterValues",
        "SimulationGetSimulationUnitTestSetsResponse",
        "SimulationGetSimulationUnitTestSetsResponseFilterValues",
        "SimulationGetSimulationUnitTestsResponse",
        "SimulationGetSimulationUnitTestsResponseFilterValues",
        "SimulationUnitTestInstance",
        "SimulationUnitTestSetInstance",
        "SimulationUnitTestSetRunInstance",
        "SuccessCriterionOutput",
        "Tag",
        "UnitTestRunDescriptorOutput",
        "UnitTestRunResult",
        "UnitTestRunSpec",
        "UserSignInWithApiKeyResponse",
    }


@pytest.mark.parametrize(("theirs", "ours"), ALL_PAIRS)
def test_every_field_is_in_ours(theirs: type[BaseModel], ours: type[Struct]) -> None:
    tag = ours.__struct_config__.tag_field
    known = {*ours.__struct_fields__, *([tag] if tag else [])}
    assert set(their_fields(theirs)) <= known
    extras: dict[type, set[str]] = {page: {"unreadable"} for page in PAGE_KINDS}
    extras[models.CreatedRun] = {"attached"}
    assert known - set(their_fields(theirs)) == extras.get(ours, set())


@pytest.mark.parametrize(("theirs", "ours"), ALL_PAIRS)
def test_optional_fields_are_the_same(theirs: type[BaseModel], ours: type[Struct]) -> None:
    hints = typing.get_type_hints(ours)
    required = set(ours.__struct_fields__) - set(
        ours.__struct_fields__[len(ours.__struct_fields__) - len(ours.__struct_defaults__) :]
    )
    for name, field in theirs.model_fields.items():
        if type(None) in typing.get_args(field.annotation):
            assert type(None) in typing.get_args(hints[name]), name
        if not field.is_required():
            assert name not in required, name


def page_of(**changes: Any) -> bytes:
    run: dict[str, Any] = {
        "org_id": "o",
        "id": "r",
        "is_completed": False,
        "simulation_unit_test_set_id": "s",
        "failed_metrics": False,
        "errored": False,
        "artifacts_generated": False,
        "unit_test_run_specs": [],
        "unit_test_run_results": [],
        "created_at": "2026-01-02T03:04:05Z",
        "creator": {"org_id": "o", "user_id": "u"},
        **changes,
    }
    page = {"has_more": False, "continuation_token": None, "filter_values": None}
    sent = official.SimulationGetSimulationUnitTestSetRunsResponse.model_validate(
        {"simulation_unit_test_set_runs": [run], **page}
    )
    return sent.model_dump_json().encode()


HIDDEN_SPEC = {
    "unit_test_id": "t",
    "run_count": 2,
    "max_interactions": 5,
    "service_hierarchical_state_machine_version_info": ["m", 1],
    "agent_version_info": ["a", 1],
    "scenario_version_info": None,
    "persona_version_info": None,
    "llm_model_preferences": {},
    "metrics_to_evaluate": [],
}
HIDDEN_RESULT = {"unit_test_id": "t", "metric_evaluation_results": [], "run_errors": [None, "x"]}


def test_run_with_few_permissions() -> None:
    """Without one permission the lists are empty, without the other some of their fields."""
    [bare] = decoding.decode_run_page(page_of()).simulation_unit_test_set_runs
    assert (bare.progress, bare.metrics_that_failed, bare.runs_that_errored) == (None, None, None)
    some = page_of(unit_test_run_specs=[HIDDEN_SPEC], unit_test_run_results=[HIDDEN_RESULT, None])
    [run] = decoding.decode_run_page(some).simulation_unit_test_set_runs
    assert run.progress == (2, 2)
    assert run.metrics_that_failed is None
    assert run.runs_that_errored == (models.ErroredRun("t", 1, "x"),)
