"""Decodes the responses, each into its struct.

What msgspec has to know of a struct it learns with the first response, not with the import.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from amigo_async.models import (
    ArtifactsLink,
    CreatedRun,
    RunPage,
    SignIn,
    SuccessCriterion,
    UnknownSuccessCriterion,
)


class _Created(Struct, frozen=True):
    """What of `CreatedRun` is on the wire; a new field there is not our `attached`."""

    simulation_unit_test_set_run_id: str


@cache
def _page_decoder() -> msgspec.json.Decoder[RunPage]:
    return msgspec.json.Decoder(RunPage)


def decode_sign_in(body: bytes) -> SignIn:
    """Decode the answer of a sign in.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or has no token.
    """
    return msgspec.json.decode(body, type=SignIn)


def decode_artifacts_link(body: bytes) -> ArtifactsLink:
    """Decode a link to artifacts.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not a link.
    """
    return msgspec.json.decode(body, type=ArtifactsLink)


def decode_nothing(body: bytes) -> None:
    """Decode an answer that needs no body. Any JSON will do; a page of a proxy will not.

    Raises:
        msgspec.DecodeError: If there is a body that is not JSON.
    """
    if body:
        msgspec.json.decode(body)


def decode_created_run(body: bytes) -> CreatedRun:
    """Decode the answer of a create.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or has no id.
    """
    created = msgspec.json.decode(body, type=_Created)
    return CreatedRun(created.simulation_unit_test_set_run_id)


def decode_run_page(body: bytes) -> RunPage:
    """Decode a page; only one with criteria that are not known takes the longer way.

    Raises:
        msgspec.DecodeError: If `body` is not JSON, or not a page of runs.
    """
    try:
        return _page_decoder().decode(body)
    except msgspec.ValidationError:
        page = msgspec.json.decode(body)
        _wrap_unknown_criteria(page)
        return msgspec.convert(page, RunPage)


def _wrap_unknown_criteria(value: Any) -> None:
    """Replace, in place, each criterion that does not convert by an `UnknownSuccessCriterion`."""
    if isinstance(value, list):
        for item in value:
            _wrap_unknown_criteria(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "success_criterion" and not _is_known(item):
                value[key] = {"type": "?", "data": item}
            elif key != "params":
                _wrap_unknown_criteria(item)


def _is_known(criterion: Any) -> bool:
    try:
        return not isinstance(msgspec.convert(criterion, SuccessCriterion), UnknownSuccessCriterion)
    except msgspec.ValidationError:
        return False
