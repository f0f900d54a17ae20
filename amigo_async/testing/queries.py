"""The parameters of the sandbox's lists, as the contract declares them, and what they match."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from amigo_async.testing.server import RecordedRequest, RefusalError

QueryT = TypeVar("QueryT", bound="PageQuery")

# `\Z`, as `$` would accept a line feed at the end.
ObjectId: TypeAlias = Annotated[str, Meta(pattern=r"^[a-f0-9]{24}\Z")]
Flag: TypeAlias = bool | UnsetType
Instant: TypeAlias = Annotated[datetime, Meta(tz=True)] | UnsetType


class PageQuery(Struct, frozen=True, kw_only=True):
    """The parameters that all lists have; those of one list are declared in a subclass.

    A parameter whose default is a tuple may be repeated. Its type is what the API accepts.
    """

    sort_by: tuple[str, ...] = ()
    limit: int
    continuation_token: Annotated[int, Meta(ge=0)] = 0


class OwnedQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the lists of what has an id and a creator."""

    id: tuple[ObjectId, ...] = ()
    creator: tuple[Annotated[str, Meta(pattern="^[^,]+,.+")], ...] = ()


class RunQuery(OwnedQuery, frozen=True, kw_only=True):
    """The parameters of the list of runs."""

    simulation_unit_test_set_id: tuple[ObjectId, ...] = ()
    is_completed: Flag = UNSET
    failed_metrics: Flag = UNSET
    errored: Flag = UNSET
    created_after: Instant = UNSET
    created_before: Instant = UNSET
    sort_by: tuple[Literal["+created_at", "-created_at"], ...] = ()
    limit: Annotated[int, Meta(ge=0, le=50)] = 50


class CatalogQuery(OwnedQuery, frozen=True, kw_only=True):
    """The parameters that the lists of sets, unit tests and metrics have in common."""

    is_deleted: Flag = UNSET
    tag: tuple[Annotated[str, Meta(pattern="^[^:]+:")], ...] = ()
    sort_by: tuple[Literal["+updated_at", "-updated_at"], ...] = ()


class UnitTestSetQuery(CatalogQuery, frozen=True, kw_only=True):
    """The parameters of the list of sets."""

    unit_test_id: tuple[ObjectId, ...] = ()
    limit: Annotated[int, Meta(ge=0, le=20)] = 20


class SearchQuery(UnitTestSetQuery, frozen=True, kw_only=True):
    """The parameters of the search for sets, which has no pages."""

    query: Annotated[str, Meta(pattern=r"\S")]


class UnitTestQuery(CatalogQuery, frozen=True, kw_only=True):
    """The parameters of the list of unit tests."""

    service_id: tuple[ObjectId, ...] = ()
    persona_id: tuple[ObjectId, ...] = ()
    scenario_id: tuple[ObjectId, ...] = ()
    metric_id: tuple[ObjectId, ...] = ()
    limit: Annotated[int, Meta(ge=0, le=500)] = 50


class MetricQuery(CatalogQuery, frozen=True, kw_only=True):
    """The parameters of the list of metrics, which leaves deleted ones out by default."""

    is_deleted: bool = False
    applied_to_service: tuple[ObjectId, ...] = ()
    type: tuple[Literal["boolean", "numerical", "categorical"], ...] = ()
    limit: Annotated[int, Meta(ge=0, le=50)] = 50


class EvaluationQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of evaluations."""

    simulation_unit_test_set_run_id: tuple[ObjectId, ...] = ()
    metric_id: tuple[ObjectId, ...] = ()
    metric_id_and_version: tuple[Annotated[str, Meta(pattern=r"^[a-f0-9]{24}-\d*\Z")], ...] = ()
    conversation_id: tuple[ObjectId, ...] = ()
    source_type: tuple[Literal["simulation", "post-session", "manual"], ...] = ()
    timestamp_after: Instant = UNSET
    timestamp_before: Instant = UNSET
    sort_by: tuple[Literal["+created_at", "-created_at"], ...] = ()
    limit: Annotated[int, Meta(ge=0, le=500)] = 500


def catalog_matches(document: dict[str, Any], query: CatalogQuery) -> bool:
    """Return whether a set, a unit test or a metric matches the filters of its list."""
    creator = f"{document['creator']['org_id']},{document['creator']['user_id']}"
    tags = {tag["key"]: tag["value"] for tag in document["tags"]}
    return (
        (not query.id or document["id"] in query.id)
        and (not query.creator or creator in query.creator)
        and (query.is_deleted is UNSET or document["is_deleted"] == query.is_deleted)
        and all(_has_tag(tags, tag) for tag in query.tag)
        and _parts_match(document, query)
    )


def _has_tag(tags: dict[str, str | None], tag: str) -> bool:
    key, _, value = tag.partition(":")
    return key in tags and (value == "*" or tags[key] == (value or None))


def _parts_match(document: dict[str, Any], query: CatalogQuery) -> bool:
    """Return whether the parts that a document refers to are those asked for."""
    if isinstance(query, UnitTestSetQuery):
        tests = {one["unit_test_id"] for one in document["unit_test_runs"]}
        return not query.unit_test_id or not tests.isdisjoint(query.unit_test_id)
    if isinstance(query, UnitTestQuery):
        metrics = {one["metric_id"] for one in document["success_criterions"]}
        return all(
            not wanted or not found.isdisjoint(wanted)
            for wanted, found in (
                (query.service_id, {document["service_id"]}),
                (query.persona_id, {document["persona_id"]}),
                (query.scenario_id, {document["scenario_id"]}),
                (query.metric_id, metrics),
            )
        )
    if isinstance(query, MetricQuery):
        services = set(document["applied_to_services"])
        return (not query.type or document["metric_value_type"] in query.type) and (
            not query.applied_to_service or not services.isdisjoint(query.applied_to_service)
        )
    return True


def evaluation_matches(document: dict[str, Any], query: EvaluationQuery) -> bool:
    """Return whether an evaluation of a simulation matches the filters of its list."""
    metric, version = document["metric_id"], document["metric_version"]
    versions = query.metric_id_and_version
    at = datetime.fromisoformat(document["created_at"])
    return (
        not query.conversation_id  # simulated conversations have no such id
        and (not query.source_type or "simulation" in query.source_type)
        and (not query.metric_id or metric in query.metric_id)
        and (not versions or f"{metric}-" in versions or f"{metric}-{version}" in versions)
        and (query.timestamp_after is UNSET or at >= query.timestamp_after)
        and (query.timestamp_before is UNSET or at <= query.timestamp_before)
    )


# --- validation ---


def invalid(
    *loc: str | int, message: str = "Field required", value: object = None
) -> dict[str, Any]:
    """Return one entry of the list under ``detail`` of a 422, as FastAPI writes it."""
    kind = "missing" if value is None else "value_error"
    return {"type": kind, "loc": list(loc), "msg": message, "input": value}


@cache
def _parameters(query_type: type[PageQuery]) -> list[tuple[str, Any, bool]]:
    """Return the name and the type of each parameter, and whether it may be repeated."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(query_type)}
    return [
        (name, kind, isinstance(defaults[name], tuple))
        for name, kind in get_type_hints(query_type, include_extras=True).items()
    ]


def parse_query(request: RecordedRequest, query_type: type[QueryT]) -> QueryT:
    """Read the parameters of a list from the query string.

    Raises:
        RefusalError: If any is invalid, with a 422 that names all of them.
    """
    found: dict[str, Any] = {}
    wrong: list[dict[str, Any]] = []
    for name, kind, repeatable in _parameters(query_type):
        values = request.values(name)
        if not values:
            continue
        if repeatable and name != "sort_by" and len(set(values)) < len(values):
            wrong.append(invalid("query", name, message="Items should be unique", value=values))
        try:
            # If a parameter that is no list is repeated, FastAPI takes its last value.
            value = values if repeatable else values[-1]
            found[name] = msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError as error:
            at = [int(number) for number in re.findall(r"\$\[(\d+)\]", str(error))]
            wrong.append(invalid("query", name, *at, message=str(error), value=values))
    if wrong:
        raise RefusalError(422, wrong)
    return query_type(**found)
