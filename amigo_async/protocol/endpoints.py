"""The endpoints of the API: one table for the client, the limiters, the sandbox and the command."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

EndpointName: TypeAlias = Literal[
    "sign_in",
    "create",
    "list",
    "cancel",
    "artifacts",
    "unit_test_sets",
    "search_unit_test_sets",
    "unit_tests",
    "metrics",
    "evaluations",
]

_SIMULATION: Final = "/v1/{organization}/simulation/"
_RUNS: Final = _SIMULATION + "unit_test_set_run/"
_SETS: Final = _SIMULATION + "unit_test_set/"
_METRIC: Final = "/v1/{organization}/metric/"


class Endpoint(Struct, frozen=True):
    """One endpoint.

    Attributes:
        name: Its name in events and rate limits.
        method: Its HTTP method.
        path: Its path under the base URL, with ``{organization}`` and ``{run_id}`` to fill in.
        limit: Documented requests per minute for a whole organization.
        repeatable: Whether a request may be sent again after its response was lost.
        page_size: Records of the largest page of a list; 0 for endpoints without pages.
        permission: Permission without which a list leaves records out; empty if there is none.
    """

    name: EndpointName
    method: str
    path: str
    limit: int
    repeatable: bool = True
    page_size: int = 0
    permission: str = ""


SIGN_IN: Final = Endpoint("sign_in", "POST", "/v1/{organization}/user/signin_with_api_key", 5)
CREATE: Final = Endpoint("create", "POST", _RUNS, 20, repeatable=False)
LIST: Final = Endpoint(
    *("list", "GET", _RUNS, 50), page_size=50, permission="Simulation:GetSimulationUnitTestSetRun"
)
CANCEL: Final = Endpoint("cancel", "DELETE", _RUNS + "{run_id}/", 10)
ARTIFACTS: Final = Endpoint("artifacts", "GET", _RUNS + "{run_id}/artifacts/", 100)

UNIT_TEST_SETS: Final = Endpoint(
    *("unit_test_sets", "GET", _SETS, 50),
    page_size=20,
    permission="Simulation:GetSimulationUnitTestSet",
)
SEARCH_UNIT_TEST_SETS: Final = Endpoint(
    *("search_unit_test_sets", "GET", _SETS + "search/", 50),
    permission="Simulation:GetSimulationUnitTestSet",
)
UNIT_TESTS: Final = Endpoint(
    *("unit_tests", "GET", _SIMULATION + "unit_test/", 200),
    page_size=500,
    permission="Simulation:GetSimulationUnitTest",
)
METRICS: Final = Endpoint(
    "metrics", "GET", _METRIC, 20, page_size=50, permission="Metric:GetMetric"
)
EVALUATIONS: Final = Endpoint(
    *("evaluations", "GET", _METRIC + "metric_evaluation_result", 10),
    page_size=500,
    permission="Metric:GetMetricEvaluationResult",
)

ENDPOINTS: Final = (
    SIGN_IN,
    CREATE,
    LIST,
    CANCEL,
    ARTIFACTS,
    UNIT_TEST_SETS,
    SEARCH_UNIT_TEST_SETS,
    UNIT_TESTS,
    METRICS,
    EVALUATIONS,
)
