"""The requests are valid in the eyes of a mock server that others wrote."""

from __future__ import annotations

import asyncio

import pytest

from tests.interop.openapi_mock import FILTERS, main, mockable
from tests.support.needs import needs


@pytest.mark.timeout(120)
def test_prism_refuses_none_of_our_requests() -> None:
    prism = needs("prism", "@stoplight/prism-cli, with npm install -g")
    # Another process cannot know that time jumps, so this one runs in a loop of real time.
    said = asyncio.run(main(prism))
    assert said.startswith(f"{len(FILTERS) + 1 + 3 * 4} valid requests, none refused")


def test_every_filter_is_asked_for() -> None:
    assert set().union(*FILTERS) == {
        *("id", "simulation_unit_test_set_id", "creator", "is_completed", "failed_metrics"),
        *("errored", "created_after", "created_before", "sort_by", "limit", "continuation_token"),
    }


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
