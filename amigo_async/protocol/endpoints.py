"""The endpoints of the API: one table for the client, the limiters, the sandbox and the command."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

EndpointName: TypeAlias = Literal["sign_in", "create", "list", "cancel", "artifacts"]

_RUNS: Final = "/v1/{organization}/simulation/unit_test_set_run/"


class Endpoint(Struct, frozen=True):
    """One endpoint.

    Attributes:
        name: Its name in events and rate limits.
        method: Its HTTP method.
        path: Its path under the base URL, with ``{organization}`` and ``{run_id}`` to fill in.
        limit: Documented requests per minute for a whole organization.
        repeatable: Whether a request may be sent again after its response was lost.
    """

    name: EndpointName
    method: str
    path: str
    limit: int
    repeatable: bool = True


SIGN_IN: Final = Endpoint("sign_in", "POST", "/v1/{organization}/user/signin_with_api_key", 5)
CREATE: Final = Endpoint("create", "POST", _RUNS, 20, repeatable=False)
LIST: Final = Endpoint("list", "GET", _RUNS, 50)
CANCEL: Final = Endpoint("cancel", "DELETE", _RUNS + "{run_id}/", 10)
ARTIFACTS: Final = Endpoint("artifacts", "GET", _RUNS + "{run_id}/artifacts/", 100)

ENDPOINTS: Final = (SIGN_IN, CREATE, LIST, CANCEL, ARTIFACTS)
