"""Turn a response that says no into an error that says why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from amigo_async.errors import (
    APIError,
    ArtifactsNotReadyError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DecodeError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
    ValidationError,
)
from amigo_async.redact import redact
from amigo_async.wire.headers import read_retry_after
from amigo_async.wire.requests import ARTIFACTS, Endpoint, Request

_CLASSES: Final[Mapping[int, type[APIError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: ValidationError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}
_REMEDIES: Final[Mapping[tuple[str, int] | int, str]] = {
    ("sign_in", 401): "check api_key, api_key_id and user_id (AMIGO_API_KEY, AMIGO_API_KEY_ID, "
    "AMIGO_USER_ID)",
    ("create", 403): "the user needs Simulation:CreateSimulationUnitTestSetRun",
    ("create", 404): "check the id of the set, organization_id, and base_url: it has the region",
    ("create", 409): "the user already has an unfinished run of this set; see on_conflict",
    ("list", 403): "the user needs Simulation:GetSimulationUnitTestSetRun",
    ("cancel", 403): "the user needs Simulation:CancelSimulationUnitTestSetRun",
    ("artifacts", 400): "wait for the run with require_artifacts=True",
    ("artifacts", 403): "the user needs Simulation:GetSimulationUnitTestSetRun and "
    "Organization:GetServiceHierarchicalStateMachine",
    401: "the token is expired, or of another organization",
    404: "check organization_id, and base_url: it has the region",
}
_REQUEST_IDS = ("x-request-id", "x-correlation-id", "x-amzn-requestid", "x-amz-request-id")
_BODY_KEPT = 16_384
_DETAIL_KEPT = 300
_TITLE = re.compile(r"(?is)<title[^>]*>(.*?)</title>")


class Response(NamedTuple):
    """A response that was read to its end.

    Attributes:
        status: Its status.
        headers: Its headers; looked up by their names in lower case.
        body: Its body, decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def error_class(status: int) -> type[APIError]:
    """The class of error for a status that is not success."""
    if status in _CLASSES:
        return _CLASSES[status]
    if status >= 500:
        return ServerError
    return BadRequestError if status >= 400 else APIError


def api_error(request: Request, response: Response, secrets: Iterable[str] = ()) -> APIError:
    """The error for a response that is not success, without `secrets` in any of its fields."""
    secrets = tuple(secrets)
    status, headers = response.status, _shown_headers(response.headers, secrets)
    body = redact(_text(response.body), secrets)
    fields: dict[str, Any] = {
        "method": request.endpoint.method,
        "path": request.path,
        "status": status,
        "headers": headers,
        "body": body,
        "request_id": request_id(headers),
        "retry_after": read_retry_after(response.headers),
        "remedy": _remedy(request.endpoint, status),
    }
    kind = error_class(status)
    if kind is BadRequestError and status == 400 and request.endpoint is ARTIFACTS:
        kind = ArtifactsNotReadyError
    problems = _field_errors(body)
    if kind is ValidationError:
        fields["field_errors"] = problems
    detail = _detail(body, problems)
    if 300 <= status < 400:
        detail = f"a redirect to {headers.get('location')}, which is not followed; check base_url"
    return kind(detail=detail, **fields)


def decode_error(
    request: Request, response: Response, reason: Exception, secrets: Iterable[str] = ()
) -> DecodeError:
    """The error for a response that is a success with a body that cannot be read."""
    return DecodeError(
        str(reason),
        method=request.endpoint.method,
        path=request.path,
        status=response.status,
        request_id=request_id(response.headers),
        body=redact(_text(response.body), secrets),
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The service's own name of a request; None where no header has it."""
    found = (headers.get(name) for name in _REQUEST_IDS)
    return next((value[:128] for value in found if value), None)


def _remedy(endpoint: Endpoint, status: int) -> str | None:
    return _REMEDIES.get((endpoint.name, status)) or _REMEDIES.get(status)


def _shown_headers(headers: Mapping[str, str], secrets: tuple[str, ...]) -> dict[str, str]:
    return {
        name.lower(): redact(value, secrets)
        for name, value in headers.items()
        if name.lower() not in ("set-cookie", "set-cookie2")
    }


def _text(body: bytes) -> str:
    return body[:_BODY_KEPT].decode("utf-8", "replace")


def _json(body: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _field_errors(body: str) -> dict[str, str]:
    """``{"detail": [{"loc": [...], "msg": "..."}]}`` as ``{"loc.loc": "msg"}``."""
    content = _json(body)
    detail = content.get("detail") if isinstance(content, dict) else None
    entries = [e for e in detail if isinstance(e, dict)] if isinstance(detail, list) else []
    return {_place(entry.get("loc")): str(entry.get("msg", "invalid")) for entry in entries}


def _place(loc: Any) -> str:
    return ".".join(str(part) for part in loc) if isinstance(loc, list) else str(loc)


def _detail(body: str, problems: Mapping[str, str]) -> str | None:
    """What the body says is wrong, in one line."""
    if problems:
        return _line("; ".join(f"{place}: {message}" for place, message in problems.items()))
    content = _json(body)
    if isinstance(content, dict):
        said = next((content[k] for k in ("detail", "message", "error") if content.get(k)), None)
        return None if said is None else _line(str(said))
    title = _TITLE.search(body)
    if title:
        return _line(title[1])
    return None if body.lstrip().startswith(("<", "{", "[")) else _line(body)


def _line(text: str) -> str | None:
    line = " ".join(text.split())
    return line[:_DETAIL_KEPT] or None
