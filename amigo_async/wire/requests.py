"""Build the requests of the five endpoints, and check what goes into them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias, TypedDict
from urllib.parse import quote, urlencode

import msgspec

from amigo_async.errors import ArgumentError, ConfigurationError
from amigo_async.models import UserInfo

_ID = re.compile(r"[a-f0-9]{24}")
_SORT = re.compile(r"[+-][a-z_]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")  # RFC 9110, 5.5: what is beyond ASCII is opaque
_DOTS = re.compile(r"(?:^|[/\\])[. ]*(?:$|[/\\])")
_OURS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "user-agent"),
        *("content-encoding", "content-length", "content-type", "transfer-encoding"),
        *("connection", "host", "x-mongo-cluster-name", "x-org-id"),
        *("x-api-key", "x-api-key-id", "x-user-id"),
    }
)

OneOrMany: TypeAlias = str | Sequence[str]


class Endpoint(NamedTuple):
    """One of the five calls of the API.

    Attributes:
        name: Its name in events and budgets.
        method: Its HTTP method.
        limit: Requests a minute for a whole organization, as documented.
    """

    name: str
    method: str
    limit: int


SIGN_IN: Final = Endpoint("sign_in", "POST", 5)
CREATE: Final = Endpoint("create", "POST", 20)
LIST: Final = Endpoint("list", "GET", 50)
CANCEL: Final = Endpoint("cancel", "DELETE", 10)
ARTIFACTS: Final = Endpoint("artifacts", "GET", 100)


class Request(NamedTuple):
    """A request, but for its headers: they belong to the session.

    Attributes:
        endpoint: Which of the five calls it is.
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
    return Request(SIGN_IN, f"/v1/{organization}/user/signin_with_api_key")


def create_run(organization: str, unit_test_set_id: str) -> Request:
    """Start a run of a set."""
    check_id("unit_test_set_id", unit_test_set_id)
    body = msgspec.json.encode({"simulation_unit_test_set_id": unit_test_set_id})
    return Request(CREATE, _runs_path(organization), body=body)


def cancel_run(organization: str, run_id: str) -> Request:
    """Cancel a run."""
    return Request(CANCEL, f"{_runs_path(organization)}{check_id('run_id', run_id)}/")


def artifacts_link(organization: str, run_id: str) -> Request:
    """Get a link to the artifacts of a run."""
    return Request(ARTIFACTS, f"{_runs_path(organization)}{check_id('run_id', run_id)}/artifacts/")


class RunFilters(TypedDict, total=False):
    """The filters of a list, as `list_runs` takes them."""

    id: OneOrMany
    simulation_unit_test_set_id: OneOrMany
    creator: str | UserInfo | Sequence[str | UserInfo]
    is_completed: bool | None
    failed_metrics: bool | None
    errored: bool | None
    created_after: datetime | None
    created_before: datetime | None
    sort_by: OneOrMany
    limit: int | None
    continuation_token: int | None


def list_runs(
    organization: str,
    *,
    id: OneOrMany = (),
    simulation_unit_test_set_id: OneOrMany = (),
    creator: str | UserInfo | Sequence[str | UserInfo] = (),
    is_completed: bool | None = None,
    failed_metrics: bool | None = None,
    errored: bool | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    sort_by: OneOrMany = (),
    limit: int | None = None,
    continuation_token: int | None = None,
) -> Request:
    """List runs; what is None or empty is not sent, and values that repeat are sent once."""
    pairs = [("id", check_id("id", i)) for i in _many("id", id)]
    pairs += [
        ("simulation_unit_test_set_id", check_id("simulation_unit_test_set_id", i))
        for i in _many("simulation_unit_test_set_id", simulation_unit_test_set_id)
    ]
    pairs += [("creator", c) for c in _creators(creator)]
    pairs += _flags(is_completed=is_completed, failed_metrics=failed_metrics, errored=errored)
    pairs += _instants(created_after=created_after, created_before=created_before)
    pairs += [("sort_by", _sort(s)) for s in _many("sort_by", sort_by)]
    pairs += _integer("limit", limit, 50)
    pairs += _integer("continuation_token", continuation_token, None)
    return Request(LIST, _runs_path(organization), urlencode(pairs, quote_via=quote, safe=""))


def organization_segment(organization: str) -> str:
    """`organization` as one segment of a path, which it cannot leave.

    Raises:
        ConfigurationError: If it is empty, or has a step to another folder: a proxy on the way
            may take it even though it is percent-encoded.
    """
    if not _is_text(organization) or _DOTS.search(organization):
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
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
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
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise ConfigurationError(
            f"{setting} cannot be sent in a header: it must be text without line breaks, other "
            "control characters, and characters beyond ASCII"
        )
    return value


def check_id(argument: str, value: str) -> str:
    """`value`, if it is an id that the API takes.

    Raises:
        ArgumentError: If it is not.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ArgumentError(f"{argument} must be 24 characters of 0-9 and a-f, not {value!r:.80}")
    return value


def _runs_path(organization: str) -> str:
    return f"/v1/{organization}/simulation/unit_test_set_run/"


def _many(argument: str, values: OneOrMany) -> Iterable[str]:
    """The values without repeats, which the API refuses; a single string is one value."""
    if isinstance(values, str):
        return (values,)
    if not _is_collection(values):
        raise ArgumentError(f"{argument} must be a string or a list of strings, not {values!r:.80}")
    return dict.fromkeys(values)


def _creators(creators: str | UserInfo | Sequence[str | UserInfo]) -> Iterable[str]:
    several = (creators,) if isinstance(creators, str | UserInfo) else creators
    if not _is_collection(several):
        raise ArgumentError(
            f"creator must be a UserInfo, 'org_id,user_id' or a list of these, not {several!r:.80}"
        )
    texts = [f"{c.org_id},{c.user_id}" if isinstance(c, UserInfo) else c for c in several]
    for text in texts:
        if not _is_text(text) or not all(part for part in text.partition(",")):
            raise ArgumentError(f"creator must be a UserInfo or 'org_id,user_id', not {text!r:.80}")
    return dict.fromkeys(texts)


def _is_collection(values: Iterable[object]) -> bool:
    """Whether `values` can be gone through again, for another page, and compared."""
    again = isinstance(values, Iterable) and not isinstance(values, Iterator)
    return again and all(isinstance(value, Hashable) for value in values)


def _is_text(value: str) -> bool:
    """Whether `value` is a string that can be encoded: lone surrogates cannot."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _flags(**flags: bool | None) -> list[tuple[str, str]]:
    for name, flag in flags.items():
        if flag is not None and not isinstance(flag, bool):
            raise ArgumentError(f"{name} must be True, False or None, not {flag!r:.80}")
    return [(name, str(flag).lower()) for name, flag in flags.items() if flag is not None]


def _instants(**instants: datetime | None) -> list[tuple[str, str]]:
    pairs = []
    for name, instant in instants.items():
        if instant is None:
            continue
        if not isinstance(instant, datetime) or instant.utcoffset() is None:
            raise ArgumentError(
                f"{name} must be a datetime with a time zone, e.g. datetime.now(UTC), "
                f"not {instant!r:.80}"
            )
        try:
            utc = instant.astimezone(UTC)
        except OverflowError:
            raise ArgumentError(f"{name} is out of range in UTC: {instant!r:.80}") from None
        pairs.append((name, utc.isoformat().replace("+00:00", "Z")))
    return pairs


def _sort(value: str) -> str:
    if not isinstance(value, str) or not _SORT.fullmatch(value):
        raise ArgumentError(f"sort_by must be '+created_at' or '-created_at', not {value!r:.80}")
    return value


def _integer(name: str, value: int | None, most: int | None) -> list[tuple[str, str]]:
    if value is None:
        return []
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 0 or (most is not None and value > most):
        upper = "" if most is None else f" to {most}"
        raise ArgumentError(f"{name} must be a whole number from 0{upper}, not {value!r:.80}")
    return [(name, str(value))]
