"""Build the requests of the API, and check what goes into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import msgspec
from msgspec import Struct

from amigo_async.errors import ArgumentError, ConfigurationError
from amigo_async.models import UserInfo
from amigo_async.protocol.endpoints import (
    ARTIFACTS,
    CANCEL,
    CREATE,
    EVALUATIONS,
    LIST,
    METRICS,
    SEARCH_UNIT_TEST_SETS,
    SIGN_IN,
    UNIT_TEST_SETS,
    UNIT_TESTS,
    Endpoint,
)
from amigo_async.protocol.headers import is_encodable

_ID = re.compile(r"[a-f0-9]{24}")
# Ids of runs come from the service, which does not keep to its own pattern: whatever looks like an
# id, and is safe in a path and as the name of a folder, may be one.
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{15,127}")
_LARGEST = 2**63 - 1
_SORT = r"[+-][a-z_]+"
_METRIC_VERSION = r"[a-f0-9]{24}-[0-9]*"
_WORD = r"[a-z][a-z_-]*"
_NAME_OF_HEADER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_HEADER_VALUE = r"[\t\x20-\x7e]*"  # RFC 9110, 5.5: what is beyond ASCII is opaque
_DOTS = r"(?:^|[/\\])[. ]*(?:$|[/\\])"
_OURS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "user-agent"),
        *("content-encoding", "content-length", "content-type", "transfer-encoding"),
        *("connection", "host", "x-mongo-cluster-name", "x-org-id"),
        *("x-api-key", "x-api-key-id", "x-user-id"),
    }
)

T = TypeVar("T")
OneOrMany: TypeAlias = str | Sequence[str]
Creators: TypeAlias = str | UserInfo | Sequence[str | UserInfo]
# Encodes the value of a filter as pairs of the query.
_Encoder: TypeAlias = Callable[[str, Any], list[str]]


class Request(Struct, frozen=True):
    """A request, but for its headers: they belong to the session.

    Attributes:
        endpoint: The endpoint.
        path: The path under the base URL, percent-encoded.
        query: The query, percent-encoded; empty without one.
        body: The JSON body; None without one.
    """

    endpoint: Endpoint
    path: str
    query: str = ""
    body: bytes | None = None


def sign_in(organization: str) -> Request:
    """The sign in; its credentials travel as headers."""
    return Request(SIGN_IN, SIGN_IN.path.format(organization=organization))


def create_run(organization: str, unit_test_set_id: str) -> Request:
    """Start a run of a set."""
    check_id("unit_test_set_id", unit_test_set_id)
    body = msgspec.json.encode({"simulation_unit_test_set_id": unit_test_set_id})
    return Request(CREATE, CREATE.path.format(organization=organization), body=body)


def cancel_run(organization: str, run_id: str) -> Request:
    """Cancel a run."""
    return _of_run(CANCEL, organization, run_id)


def artifacts_link(organization: str, run_id: str) -> Request:
    """Get a link to the artifacts of a run."""
    return _of_run(ARTIFACTS, organization, run_id)


def _of_run(endpoint: Endpoint, organization: str, run_id: str) -> Request:
    check_run_id("run_id", run_id)
    return Request(endpoint, endpoint.path.format(organization=organization, run_id=run_id))


class RunFilters(TypedDict, total=False):
    """The filters of a list of runs; `Runs.list` documents them."""

    id: OneOrMany
    simulation_unit_test_set_id: OneOrMany
    creator: Creators
    is_completed: bool | None
    failed_metrics: bool | None
    errored: bool | None
    created_after: datetime | None
    created_before: datetime | None
    sort_by: OneOrMany
    limit: int | None
    continuation_token: int | None


class UnitTestSetFilters(TypedDict, total=False):
    """The filters of a list of unit test sets; `UnitTestSets.list` documents them."""

    id: OneOrMany
    tag: OneOrMany
    unit_test_id: OneOrMany
    creator: Creators
    is_deleted: bool | None
    sort_by: OneOrMany
    limit: int | None
    continuation_token: int | None


class UnitTestFilters(TypedDict, total=False):
    """The filters of a list of unit tests; `UnitTests.list` documents them."""

    id: OneOrMany
    tag: OneOrMany
    service_id: OneOrMany
    persona_id: OneOrMany
    scenario_id: OneOrMany
    metric_id: OneOrMany
    creator: Creators
    is_deleted: bool | None
    sort_by: OneOrMany
    limit: int | None
    continuation_token: int | None


class MetricFilters(TypedDict, total=False):
    """The filters of a list of metrics; `Metrics.list` documents them."""

    id: OneOrMany
    tag: OneOrMany
    applied_to_service: OneOrMany
    type: OneOrMany
    creator: Creators
    is_deleted: bool | None
    sort_by: OneOrMany
    limit: int | None
    continuation_token: int | None


class EvaluationFilters(TypedDict, total=False):
    """The filters of a list of evaluations; `Evaluations.list` documents them."""

    simulation_unit_test_set_run_id: OneOrMany
    metric_id_and_version: OneOrMany
    metric_id: OneOrMany
    conversation_id: OneOrMany
    source_type: OneOrMany
    timestamp_after: datetime | None
    timestamp_before: datetime | None
    sort_by: OneOrMany
    limit: int | None
    continuation_token: int | None


def list_runs(organization: str, **filters: Unpack[RunFilters]) -> Request:
    """List runs."""
    return list_request(LIST, organization, filters)


def list_request(endpoint: Endpoint, organization: str, filters: Mapping[str, Any]) -> Request:
    """List a page of records.

    What is None or empty is not sent, and repeated values are sent once.

    Raises:
        TypeError: If the endpoint has no such filter.
        ArgumentError: If a value is invalid; the message names the filter and the remedy.
    """
    encoders = _ENCODERS[endpoint]
    pairs: list[str] = []
    for name, value in filters.items():
        if name == "limit" and endpoint.page_size:
            pairs += _integer(name, value, endpoint.page_size)
        elif name in encoders:
            pairs += encoders[name](name, value)
        else:
            raise TypeError(f"a list of {endpoint.name} has no filter {name!r}")
    return Request(endpoint, endpoint.path.format(organization=organization), "&".join(pairs))


def organization_segment(organization: str) -> str:
    """`organization` as one segment of a path, which it cannot leave.

    Raises:
        ConfigurationError: If it is empty, or has a step to another folder: a proxy on the way
            may take it even though it is percent-encoded.
    """
    if not _is_text(organization) or re.search(_DOTS, organization):
        raise ConfigurationError(
            f"organization_id must be the id of an organization, not {organization!r}; "
            "set it or AMIGO_ORGANIZATION_ID"
        )
    return quote(organization, safe="")


def extra_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` of the user's own, checked.

    Raises:
        ConfigurationError: If one is malformed, or would replace one of this package's.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not re.fullmatch(_NAME_OF_HEADER, name):
            raise ConfigurationError(f"headers: {name!r} is not a header name")
        if name.lower() in _OURS:
            raise ConfigurationError(f"headers: {name} is set by the client itself; leave it out")
        header_value(f"headers[{name!r}]", value)
    return dict(headers)


def header_value(setting: str, value: str) -> str:
    """`value`, fit to be the value of a header.

    Raises:
        ConfigurationError: If it is not text, or has a line break or another control character.
    """
    if not isinstance(value, str) or not re.fullmatch(_HEADER_VALUE, value):
        raise ConfigurationError(
            f"{setting} cannot be sent in a header: it must be text without line breaks, other "
            "control characters, and characters beyond ASCII"
        )
    return value


def is_id(value: object) -> bool:
    """Whether `value` is an id that the API takes."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def check_id(argument: str, value: str) -> str:
    """`value`, if it is an id that the API takes.

    Raises:
        ArgumentError: If it is not.
    """
    if not is_id(value):
        raise ArgumentError(f"{argument} must be 24 characters of 0-9 and a-f, not {value!r:.80}")
    return value


def check_run_id(argument: str, value: str) -> str:
    """`value`, if it can be the id of a run: one of the documented pattern, or another one.

    Raises:
        ArgumentError: If it cannot.
    """
    if not isinstance(value, str) or not _RUN_ID.fullmatch(value):
        raise ArgumentError(
            f"{argument} must be 24 characters of 0-9 and a-f, or another id that a run has, "
            f"not {value!r:.80}"
        )
    return value


def _each(check: Callable[[str, str], str]) -> _Encoder:
    """Encode values without repeats, which the API rejects; a single string is one value."""

    def encode(name: str, values: OneOrMany) -> list[str]:
        unique = _unique((values,) if isinstance(values, str) else values)
        if unique is None:
            raise ArgumentError(f"{name} must be a string or a list of strings, not {values!r:.80}")
        return [f"{name}={quote(check(name, value), safe='')}" for value in unique]

    return encode


def _creators(_: str, creators: Creators) -> list[str]:
    several = _unique((creators,) if isinstance(creators, (str, UserInfo)) else creators)
    if several is None:
        raise ArgumentError(
            f"creator must be a UserInfo, 'org_id,user_id' or a list of these, not {creators!r:.80}"
        )
    texts = [f"{c.org_id},{c.user_id}" if isinstance(c, UserInfo) else c for c in several]
    for text in texts:
        if not _is_text(text) or not all(part for part in text.partition(",")):
            raise ArgumentError(f"creator must be a UserInfo or 'org_id,user_id', not {text!r:.80}")
    return [f"creator={quote(text, safe='')}" for text in dict.fromkeys(texts)]


def _unique(values: Iterable[T]) -> Collection[T] | None:
    """`values` without repeats; None if they cannot be gone through again, for another page."""
    try:
        return None if iter(values) is values else dict.fromkeys(values)
    except TypeError:  # no collection, or one of what cannot be compared
        return None


def _is_text(value: str) -> bool:
    return isinstance(value, str) and is_encodable(value)


def _flag(name: str, flag: bool | None) -> list[str]:
    if flag is None:
        return []
    if not isinstance(flag, bool):
        raise ArgumentError(f"{name} must be True, False or None, not {flag!r:.80}")
    return [f"{name}={'true' if flag else 'false'}"]


def _instant(name: str, instant: datetime | None) -> list[str]:
    if instant is None:
        return []
    if not isinstance(instant, datetime) or instant.utcoffset() is None:
        raise ArgumentError(
            f"{name} must be a datetime with a time zone, e.g. datetime.now(UTC), "
            f"not {instant!r:.80}"
        )
    try:
        utc = instant.astimezone(UTC)
    except OverflowError:
        raise ArgumentError(f"{name} is out of range in UTC: {instant!r:.80}") from None
    text = utc.isoformat().replace("+00:00", "Z")
    return [f"{name}={quote(text, safe='')}"]


def _sort(field: str) -> _Encoder:
    """Encode the order of a list, which is by `field`, if not by another one that is new."""

    def check(name: str, value: str) -> str:
        if not isinstance(value, str) or not re.fullmatch(_SORT, value):
            raise ArgumentError(f"{name} must be '+{field}' or '-{field}', not {value!r:.80}")
        return value

    return _each(check)


def check_tag(name: str, value: str) -> str:
    """Return `value`, which must be a tag to filter by.

    Raises:
        ArgumentError: If it is not one.
    """
    key = value.partition(":")[0] if isinstance(value, str) and ":" in value else ""
    if not key or not _is_text(value):
        raise ArgumentError(
            f"{name} must be 'key:value', 'key:*' for any value, or 'key:' for none, "
            f"not {value!r:.80}"
        )
    return value


def _metric_version(name: str, value: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(_METRIC_VERSION, value):
        raise ArgumentError(
            f"{name} must be 'METRIC_ID-VERSION', or 'METRIC_ID-' for any version, "
            f"not {value!r:.80}"
        )
    return value


def _word(name: str, value: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(_WORD, value):
        raise ArgumentError(f"{name} must be a word such as 'numerical', not {value!r:.80}")
    return value


def _search(name: str, value: str) -> list[str]:
    if not _is_text(value) or not value.strip():
        raise ArgumentError(f"{name} must be the text to search for, not {value!r:.80}")
    return [f"{name}={quote(value, safe='')}"]


def _shown(value: object) -> str:
    """`value` in a few characters; Python refuses to write an integer of thousands of digits."""
    huge = isinstance(value, int) and value.bit_length() > _LARGEST.bit_length()
    return "one beyond 64 bits" if huge else f"{value!r:.80}"


def _integer(name: str, value: int | None, most: int | None = None) -> list[str]:
    if value is None:
        return []
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 0 <= value <= (_LARGEST if most is None else most):
        upper = "" if most is None else f" to {most}"
        raise ArgumentError(f"{name} must be a whole number from 0{upper}, not {_shown(value)}")
    return [f"{name}={value}"]


_IDS: Final = _each(check_id)
_PAGED: Final[Mapping[str, _Encoder]] = {"continuation_token": _integer}
_DEFINED: Final[Mapping[str, _Encoder]] = {
    **_PAGED,
    "id": _IDS,
    "tag": _each(check_tag),
    "creator": _creators,
    "is_deleted": _flag,
    "sort_by": _sort("updated_at"),
}

# How each filter of each list is encoded; `limit` is checked against the size of the page.
_ENCODERS: Final[Mapping[Endpoint, Mapping[str, _Encoder]]] = {
    LIST: {
        **_PAGED,
        "id": _each(check_run_id),
        "simulation_unit_test_set_id": _IDS,
        "creator": _creators,
        "is_completed": _flag,
        "failed_metrics": _flag,
        "errored": _flag,
        "created_after": _instant,
        "created_before": _instant,
        "sort_by": _sort("created_at"),
    },
    UNIT_TEST_SETS: {**_DEFINED, "unit_test_id": _IDS},
    SEARCH_UNIT_TEST_SETS: {
        "query": _search,
        "tag": _each(check_tag),
        "creator": _creators,
        "unit_test_id": _IDS,
    },
    UNIT_TESTS: {
        **_DEFINED,
        **dict.fromkeys(("service_id", "persona_id", "scenario_id", "metric_id"), _IDS),
    },
    METRICS: {**_DEFINED, "applied_to_service": _IDS, "type": _each(_word)},
    EVALUATIONS: {
        **_PAGED,
        "simulation_unit_test_set_run_id": _each(check_run_id),
        "metric_id_and_version": _each(_metric_version),
        **dict.fromkeys(("metric_id", "conversation_id"), _IDS),
        "source_type": _each(_word),
        "timestamp_after": _instant,
        "timestamp_before": _instant,
        "sort_by": _sort("created_at"),
    },
}
