"""The requests are valid in the eyes of a mock server that others wrote."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.interop.openapi_mock import DESCRIPTION, FILTERS, OTHER_FILTERS, main, mockable
from tests.support.needs import needs


@pytest.mark.timeout(120)
def test_prism_refuses_none_of_our_requests() -> None:
    prism = needs("prism", "@stoplight/prism-cli, with npm install -g")
    # Another process cannot know that time jumps, so this one runs in a loop of real time.
    said = asyncio.run(main(prism))
    others = 2 * len(OTHER_FILTERS) + 1
    others += sum(len(OTHER_FILTERS[name]) for name in ("unit_test_sets", "unit_tests"))
    assert said.startswith(f"{len(FILTERS) + 1 + others + 3 * 4} valid requests, none refused")


def test_every_filter_is_asked_for() -> None:
    assert set().union(*FILTERS) == {
        *("id", "simulation_unit_test_set_id", "creator", "is_completed", "failed_metrics"),
        *("errored", "created_after", "created_before", "sort_by", "limit", "continuation_token"),
    }


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("unit_test_sets", "simulation/unit_test_set/"),
        ("unit_tests", "simulation/unit_test/"),
        ("metrics", "metric/"),
        ("evaluations", "metric/metric_evaluation_result"),
    ],
)
def test_other_filters_are_those_described(resource: str, path: str) -> None:
    described = json.loads(DESCRIPTION.read_bytes())["paths"][f"/v1/{{organization}}/{path}"]
    parameters = {p["name"] for p in described["get"]["parameters"] if p["in"] == "query"}
    assert set(OTHER_FILTERS[resource]) == parameters


def test_what_the_mock_leaves_out() -> None:
    parameter = {"name": "Sec-WebSocket-Protocol", "in": "header"}
    kept = {"name": "limit", "in": "query"}
    given = {
        "paths": {"/": {"get": {"parameters": [parameter, kept]}}},
        "security": [{"A": [], "B": []}],
        "components": {"securitySchemes": {}},
    }
    made = mockable(given)
    assert made["paths"]["/"]["get"]["parameters"] == [kept]
    assert made["security"] == [{"A": []}, {"B": []}]
    assert given["security"] == [{"A": [], "B": []}]
