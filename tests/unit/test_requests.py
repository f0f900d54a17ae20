"""What goes into a request, and what does not get that far."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.errors import ArgumentError, ConfigurationError
from amigo_async.models import UserInfo
from amigo_async.protocol import requests
from amigo_async.protocol.endpoints import (
    ARTIFACTS,
    CANCEL,
    CREATE,
    ENDPOINTS,
    EVALUATIONS,
    LIST,
    METRICS,
    SEARCH_UNIT_TEST_SETS,
    SIGN_IN,
    UNIT_TEST_SETS,
    UNIT_TESTS,
    Endpoint,
)
from amigo_async.protocol.requests import (
    Request,
    RunFilters,
    check_id,
    extra_headers,
    header_value,
    list_request,
    list_runs,
    organization_segment,
)

A, B = "6618791275130b73714e8d7f", "000000000000000000000000"
RUNS = "/v1/org/simulation/unit_test_set_run/"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Nowhere(tzinfo):
    """A zone that does not know its offset: what is in it is naive to Python."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    tzname = dst = utcoffset


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            requests.sign_in("org"),
            Request(SIGN_IN, "/v1/org/user/signin_with_api_key", "", None),
        ),
        (
            requests.create_run("org", A),
            Request(
                CREATE,
                RUNS,
                "",
                b'{"simulation_unit_test_set_id":"6618791275130b73714e8d7f"}',
            ),
        ),
        (requests.list_runs("org"), Request(LIST, RUNS, "", None)),
        (
            requests.cancel_run("org", A),
            Request(CANCEL, f"{RUNS}{A}/", "", None),
        ),
        (
            requests.artifacts_link("org", A),
            Request(ARTIFACTS, f"{RUNS}{A}/artifacts/", "", None),
        ),
    ],
)
def test_the_five_requests(request_: Request, expected: Request) -> None:
    assert request_ == expected


def test_endpoints_as_described() -> None:
    paths = json.loads((Path(__file__).parents[1] / "interop/openapi.json").read_text())["paths"]
    described = {re.sub(r"\{\w*run_id\}", "{run_id}", path): set(paths[path]) for path in paths}
    for endpoint in ENDPOINTS:
        assert endpoint.method.lower() in described[endpoint.path], endpoint


def test_documented_limits() -> None:
    limits = {endpoint.name: endpoint.limit for endpoint in ENDPOINTS}
    assert limits == {
        "sign_in": 5,
        "create": 20,
        "list": 50,
        "cancel": 10,
        "artifacts": 100,
        "unit_test_sets": 50,
        "search_unit_test_sets": 50,
        "unit_tests": 200,
        "metrics": 20,
        "evaluations": 10,
    }


@pytest.mark.parametrize(
    ("filters", "query"),
    [
        ({}, ""),
        ({"id": ()}, ""),
        ({"id": []}, ""),
        ({"id": A}, f"id={A}"),
        ({"id": [A]}, f"id={A}"),
        ({"id": [A, B]}, f"id={A}&id={B}"),
        ({"id": [B, A, B, A]}, f"id={B}&id={A}"),
        ({"id": (A,)}, f"id={A}"),
        ({"id": {A: 1}.keys()}, f"id={A}"),
        ({"simulation_unit_test_set_id": A}, f"simulation_unit_test_set_id={A}"),
        (
            {"simulation_unit_test_set_id": [A, B, A]},
            f"simulation_unit_test_set_id={A}&simulation_unit_test_set_id={B}",
        ),
        ({"creator": "org,user"}, "creator=org%2Cuser"),
        ({"creator": UserInfo("org", "user")}, "creator=org%2Cuser"),
        ({"creator": [UserInfo("org", "user"), "org,user"]}, "creator=org%2Cuser"),
        ({"creator": ["o,a", "o,b"]}, "creator=o%2Ca&creator=o%2Cb"),
        ({"creator": "o&x=1,ü #+"}, "creator=o%26x%3D1%2C%C3%BC%20%23%2B"),
        ({"is_completed": True}, "is_completed=true"),
        ({"is_completed": False}, "is_completed=false"),
        ({"is_completed": None}, ""),
        ({"failed_metrics": True}, "failed_metrics=true"),
        ({"failed_metrics": False}, "failed_metrics=false"),
        ({"failed_metrics": None}, ""),
        ({"errored": True}, "errored=true"),
        ({"errored": False}, "errored=false"),
        ({"errored": None}, ""),
        ({"created_after": NOON}, "created_after=2026-01-02T12%3A00%3A00Z"),
        ({"created_before": NOON}, "created_before=2026-01-02T12%3A00%3A00Z"),
        ({"created_after": None, "created_before": None}, ""),
        (
            {"created_after": NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30)))},
            "created_after=2026-01-02T12%3A00%3A00Z",
        ),
        (
            {"created_after": NOON + timedelta(microseconds=70)},
            "created_after=2026-01-02T12%3A00%3A00.000070Z",
        ),
        (
            {"created_before": datetime(1, 1, 1, tzinfo=UTC)},
            "created_before=0001-01-01T00%3A00%3A00Z",
        ),
        ({"sort_by": "+created_at"}, "sort_by=%2Bcreated_at"),
        ({"sort_by": "-created_at"}, "sort_by=-created_at"),
        ({"sort_by": ["+created_at", "-created_at"]}, "sort_by=%2Bcreated_at&sort_by=-created_at"),
        ({"sort_by": ["+created_at"] * 2}, "sort_by=%2Bcreated_at"),
        ({"limit": 0}, "limit=0"),
        ({"limit": 50}, "limit=50"),
        ({"limit": None}, ""),
        ({"continuation_token": 0}, "continuation_token=0"),
        ({"continuation_token": 10**12}, "continuation_token=1000000000000"),
        ({"continuation_token": None}, ""),
        (
            {"limit": 7, "errored": False, "id": [A], "sort_by": "+created_at"},
            f"limit=7&errored=false&id={A}&sort_by=%2Bcreated_at",
        ),
    ],
)
def test_filters(filters: RunFilters, query: str) -> None:
    assert list_runs("org", **filters) == Request(LIST, RUNS, query)


@pytest.mark.parametrize(
    ("endpoint", "filters", "query"),
    [
        (
            UNIT_TEST_SETS,
            {"limit": 20, "tag": ["suite:nightly", "team:*", "old:"]},
            "limit=20&tag=suite%3Anightly&tag=team%3A%2A&tag=old%3A",
        ),
        (
            UNIT_TEST_SETS,
            {"is_deleted": None, "unit_test_id": [A, B, A]},
            f"unit_test_id={A}&unit_test_id={B}",
        ),
        (
            UNIT_TEST_SETS,
            {"sort_by": "-updated_at", "is_deleted": True},
            "sort_by=-updated_at&is_deleted=true",
        ),
        (SEARCH_UNIT_TEST_SETS, {"query": "a & b", "tag": "k:v"}, "query=a%20%26%20b&tag=k%3Av"),
        (
            UNIT_TESTS,
            {"limit": 500, "service_id": A, "persona_id": B},
            f"limit=500&service_id={A}&persona_id={B}",
        ),
        (UNIT_TESTS, {"limit": 500, "is_deleted": True}, "limit=500&is_deleted=true"),
        (UNIT_TESTS, {"scenario_id": A, "metric_id": B}, f"scenario_id={A}&metric_id={B}"),
        (
            METRICS,
            {"type": ["numerical", "boolean"], "applied_to_service": A},
            f"type=numerical&type=boolean&applied_to_service={A}",
        ),
        (
            EVALUATIONS,
            {"metric_id_and_version": [f"{A}-3", f"{B}-"]},
            f"metric_id_and_version={A}-3&metric_id_and_version={B}-",
        ),
        (
            EVALUATIONS,
            {
                "simulation_unit_test_set_run_id": "a-run-of-another-kind",
                "source_type": "post-session",
            },
            "simulation_unit_test_set_run_id=a-run-of-another-kind&source_type=post-session",
        ),
        (
            EVALUATIONS,
            {"timestamp_after": NOON, "timestamp_before": None, "limit": 0},
            "timestamp_after=2026-01-02T12%3A00%3A00Z&limit=0",
        ),
    ],
)
def test_other_filters(endpoint: Endpoint, filters: dict[str, Any], query: str) -> None:
    assert list_request(endpoint, "org", filters).query == query


@pytest.mark.parametrize(
    ("endpoint", "filters", "message"),
    [
        (UNIT_TEST_SETS, {"limit": 21}, "limit must be a whole number from 0 to 20"),
        (UNIT_TESTS, {"limit": 501}, "0 to 500"),
        (METRICS, {"limit": 51}, "0 to 50"),
        (EVALUATIONS, {"limit": -1}, "0 to 500"),
        (UNIT_TEST_SETS, {"tag": "nightly"}, "tag must be 'key:value'"),
        (UNIT_TESTS, {"tag": ":value"}, "tag must be 'key:value'"),
        (METRICS, {"tag": 7}, "tag must be a string"),
        (METRICS, {"tag": [7]}, "tag must be 'key:value'"),
        (METRICS, {"type": "Numerical!"}, "type must be a word"),
        (UNIT_TESTS, {"sort_by": "updated_at"}, r"'\+updated_at' or '-updated_at'"),
        (EVALUATIONS, {"sort_by": "x"}, r"'\+created_at' or '-created_at'"),
        (EVALUATIONS, {"metric_id_and_version": A}, "'METRIC_ID-VERSION'"),
        (EVALUATIONS, {"metric_id_and_version": f"{A}-x"}, "'METRIC_ID-VERSION'"),
        (SEARCH_UNIT_TEST_SETS, {"query": " "}, "query must be the text to search for"),
        (UNIT_TEST_SETS, {"unit_test_id": "short"}, "unit_test_id must be 24 characters"),
    ],
)
def test_invalid_filters_name_themselves(
    endpoint: Endpoint, filters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        list_request(endpoint, "org", filters)


def test_unknown_filters_are_errors() -> None:
    with pytest.raises(TypeError, match="a list of metrics has no filter 'errored'"):
        list_request(METRICS, "org", {"errored": True})
    with pytest.raises(TypeError, match="no filter 'limits'"):
        list_runs("org", limits=1)  # type: ignore[call-arg]


WRONG: dict[str, list[Any]] = {
    "id": [
        *("", "x", A + "?", f"{A}\n", [A, ""], [None], None, 5),
        *(A.encode(), [[A]], [{A}], iter([A])),
    ],
    "simulation_unit_test_set_id": ["6618791275130b73714e8d9h", [5], None],
    "creator": [
        *("", "org", "org,", ",user", ",", ["org"], [None], [["o,u"]]),
        *(None, 5, "o,\ud800", iter(["o,u"]), UserInfo("", "u")),
    ],
    "is_completed": [1, 0, "true", ""],
    "failed_metrics": [1, "false"],
    "errored": [0, []],
    "created_after": [
        *("2026-01-02T12:00:00Z", 0, NOON.date(), NOON.replace(tzinfo=None)),
        NOON.replace(tzinfo=Nowhere()),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
    "created_before": [
        NOON.replace(tzinfo=None),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
    "sort_by": [
        *("created_at", "", "+", " created_at", "+created_at&x=1"),
        *("+Created", ["+created_at", ""], None, [{}], [5]),
    ],
    "limit": [-1, 51, True, False, 5.0, "5"],
    "continuation_token": [-1, True, 0.0, "0", []],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_invalid_filters(name: str, value: Any) -> None:
    filters: Any = {name: value}
    with pytest.raises(ArgumentError, match=name) as caught:
        list_runs("org", **filters)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 250


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=4),
    st.lists(st.sampled_from([A, B]), max_size=3),
)
def test_a_query_says_what_was_asked(users: list[str], ids: list[str]) -> None:
    creators = [UserInfo("org", user) for user in users]
    query = list_runs("org", id=ids, creator=creators).query
    assert query.isascii()
    assert not set(query) & set('+ #"<>\\^`{|}\r\n')
    asked = [("id", i) for i in dict.fromkeys(ids)]
    asked += [("creator", f"org,{user}") for user in dict.fromkeys(users)]
    assert parse_qsl(query, keep_blank_values=True, strict_parsing=bool(asked)) == asked


@pytest.mark.parametrize(
    "make", [requests.create_run, requests.cancel_run, requests.artifacts_link]
)
@pytest.mark.parametrize(
    "bad",
    [
        *(
            "",
            "..",
            "x",
            f"{A}/b",
            f"{A} b",
            A + "\n",
            " " + A,
            "../" * 8,
            f".{A}",
            f"%2e{A}",
            f"{A}?b",
            f"{A}#b",
        ),
        *(A[:-1] + "\u0661", None, 5, A.encode(), [A], "x" * 10_000),
    ],
)
def test_an_id_is_checked_before_it_is_sent(make: Callable[[str, Any], Request], bad: Any) -> None:
    with pytest.raises(ArgumentError, match="must be 24 characters of 0-9 and a-f") as caught:
        make("org", bad)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("bad", [A[:-1], A + "0", A.upper(), A[:-1] + "g"])
def test_run_ids_need_no_pattern(
    bad: str,
) -> None:
    """The id of a set is checked; that of a run is whatever the service says."""
    with pytest.raises(ArgumentError, match="must be 24 characters of 0-9 and a-f"):
        requests.create_run("org", bad)
    with pytest.raises(ArgumentError, match="must be 24 characters of 0-9 and a-f"):
        requests.list_runs("org", simulation_unit_test_set_id=bad)
    assert requests.cancel_run("org", bad).path.endswith(f"/{bad}/")
    assert requests.artifacts_link("org", bad).path.endswith(f"/{bad}/artifacts/")
    assert requests.list_runs("org", id=bad).query == f"id={bad}"


@given(st.from_regex(r"\A[0-9a-f]{24}\Z"))
def test_every_id_of_the_pattern_is_taken(value: str) -> None:
    assert check_id("id", value) == value


@pytest.mark.parametrize(
    ("organization", "segment"),
    [
        ("org", "org"),
        ("my-org_1.eu~x", "my-org_1.eu~x"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("%2e%2e", "%252e%252e"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("a b", "a%20b"),
        ("a;b", "a%3Bb"),
        ("a\r\nb", "a%0D%0Ab"),
        ("bücher", "b%C3%BCcher"),
        ("..a", "..a"),
        ("a..", "a.."),
        ("...a/b", "...a%2Fb"),
        ("\u2025", "%E2%80%A5"),
    ],
)
def test_an_organization_is_one_segment(organization: str, segment: str) -> None:
    assert organization_segment(organization) == segment


@pytest.mark.parametrize(
    "organization",
    [
        *(
            "",
            ".",
            "..",
            "...",
            " ",
            " .. ",
            "../x",
            "x/..",
            "x/../y",
            "..\\x",
            "/",
            "//",
            "/x",
            "x/",
        ),
        *("a/./b", "a/ . /b", "\ud800", None, 5, b"org"),
    ],
)
def test_an_organization_cannot_climb_out(organization: Any) -> None:
    with pytest.raises(ConfigurationError, match="organization_id"):
        organization_segment(organization)


@given(st.text())
def test_no_organization_leaves_its_segment(organization: str) -> None:
    try:
        segment = organization_segment(organization)
    except ConfigurationError:
        return
    assert segment.isascii()
    assert segment.isprintable()
    assert not set(segment) & set("/\\?#:;@ ")
    assert unquote(segment) == organization
    for step in unquote(segment).replace("\\", "/").split("/"):
        assert step.strip(". ") != ""


@pytest.mark.parametrize("value", ["", "a", "a b", "\t", "~!", "x" * 8000])
def test_a_header_value_goes_as_it_is(value: str) -> None:
    assert header_value("setting", value) == value
    assert extra_headers({"X-Mine": value}) == {"X-Mine": value}


@pytest.mark.parametrize(
    "value",
    [
        *(
            "a\r\nX-Evil: 1",
            "a\nb",
            "a\rb",
            "\0",
            "\x7f",
            "\x1b",
            "ü",
            "\u010a",
            "\u2028",
            "\ud800",
        ),
        *("\x85", "\x0b", "a\n", None, 5, b"a"),
    ],
)
def test_a_header_value_cannot_smuggle(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="my setting cannot be sent in a header") as caught:
        header_value("my setting", value)
    assert "Evil" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="X-Mine"):
        extra_headers({"X-Mine": value})


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", "a\r\nb", "ü", "a\n", "(a)", "a,b", "\0", None, 5, b"x"]
)
def test_a_header_name_cannot_smuggle(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a header name"):
        extra_headers({name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "AUTHORIZATION", "authorization", "X-ORG-ID", "x-org-id"),
        *("x-api-key", "X-Api-Key-Id", "x-user-id", "x-mongo-cluster-name"),
        *("Host", "Content-Length", "Transfer-Encoding", "Content-Type", "Connection"),
        *("Accept", "User-Agent", "Accept-Encoding", "Content-Encoding"),
    ],
)
def test_our_headers_are_not_replaced(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is set by the client itself") as caught:
        extra_headers({"X-Fine": "1", name: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_other_headers_go_along() -> None:
    given_ = {"Sec-WebSocket-Protocol": "a, b", "X-Request-Id": "1", "traceparent": "00-a-b-01"}
    made = extra_headers(given_)
    assert made == given_
    assert made is not given_
    assert extra_headers({}) == {}
