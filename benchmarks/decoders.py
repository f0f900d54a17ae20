"""What takes part in the benchmark of decoding: each makes something of the body of a list call.

Each is loaded where it is used, so that a process has one of them alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

Decode: TypeAlias = Callable[[bytes], Any]


def ours() -> Decode:
    """The package's decoder."""
    from amigo_async.decoding import decode_run_page  # noqa: PLC0415  # see above

    return decode_run_page


def official() -> Decode:
    """The vendor's model, which is of pydantic."""
    from amigo_sdk.generated.model import (  # noqa: PLC0415  # see above
        SimulationGetSimulationUnitTestSetRunsResponse,
    )

    return SimulationGetSimulationUnitTestSetRunsResponse.model_validate_json


def plain() -> Decode:
    """The standard library: dicts and lists, of which nothing is checked."""
    return json.loads


class _User(Struct, frozen=True, gc=False):
    org_id: str
    user_id: str


class _Run(Struct, frozen=True, gc=False):
    org_id: str
    id: str
    is_completed: bool
    simulation_unit_test_set_id: str
    failed_metrics: bool
    errored: bool
    artifacts_generated: bool
    unit_test_run_specs: msgspec.Raw
    unit_test_run_results: msgspec.Raw
    created_at: datetime
    creator: _User


class _Page(Struct, frozen=True, gc=False):
    simulation_unit_test_set_runs: list[_Run]
    has_more: bool
    continuation_token: int | None
    filter_values: msgspec.Raw


def lazy() -> Decode:
    """The least that msgspec can do: what makes a page large is skipped, and checked by nobody."""
    return msgspec.json.Decoder(_Page).decode


OURS: Final = "amigo_async"
OFFICIAL: Final = "amigo_sdk (pydantic)"

DECODERS: Final[dict[str, Callable[[], Decode]]] = {
    OURS: ours,
    "msgspec, gc=False and details as Raw": lazy,
    "json, dicts": plain,
    OFFICIAL: official,
}
