"""Responses, and the errors for those that are not a success."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

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
from amigo_async.escaping import log_line
from amigo_async.protocol.endpoints import ARTIFACTS, Endpoint
from amigo_async.protocol.headers import read_retry_after
from amigo_async.protocol.requests import Request
from amigo_async.redact import redact

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
# Secrets are searched in more than is kept, so that none is cut in two and missed.
_BODY_SEARCHED = 4 * _BODY_KEPT
_DETAIL_KEPT = 300
_MOST_PROBLEMS = 100
_TITLE = r"(?i)<title[^<>]*>([^<]*)</title>"


class BodyError(ValueError):
    """Why a body is incomplete. Internal: a success becomes a `DecodeError`."""


class OversizeError(BodyError):
    """The body exceeds `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"it has more than {most} bytes; give AmigoClient larger max_response_bytes, "
            "or ask for fewer runs at once"
        )


class Response:
    """A response that was read to its end, or to the limit.

    Not a `Struct`, which rich would show field by field in a traceback.

    Args:
        status: The HTTP status.
        headers: The headers, looked up by names in lower case.
        body: The body, decompressed.
        flaw: Why the body is incomplete; None if it is complete.
        received: Loop time at which the headers were received.
    """

    __slots__ = ("body", "flaw", "headers", "received", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        flaw: BodyError | None = None,
        received: float = 0.0,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.flaw = flaw
        self.received = received

    def __repr__(self) -> str:
        """Leave out the headers and the body, which may contain secrets."""
        return f"<Response {self.status}, {len(self.body)} bytes>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Leave them out in tracebacks by Rich too, which shows the fields of structs."""
        return [("status", self.status)]


def error_class(status: int) -> type[APIError]:
    """The class of the error for a status that is not a success."""
    if status in _CLASSES:
        return _CLASSES[status]
    if status >= 500:
        return ServerError
    return BadRequestError if status >= 400 else APIError


def api_error(request: Request, response: Response, secrets: Iterable[str] = ()) -> APIError:
    """The error for a response that is not a success, without `secrets` in any field."""
    secrets = tuple(secrets)
    status, headers = response.status, _shown_headers(response.headers, secrets)
    body = _text(response.body, secrets)
    content = _json(response.body)
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
    problems = _field_errors(content, secrets)
    if kind is ValidationError:
        fields["field_errors"] = problems
    detail = _line(_message(content, body, problems), secrets)
    if 300 <= status < 400 and "location" in headers:
        where = log_line(headers["location"][:_DETAIL_KEPT])
        detail = f"a redirect to {where}, which is not followed; check base_url"
    return kind(detail=detail, **fields)


def decode_error(
    request: Request, response: Response, reason: Exception, secrets: Iterable[str] = ()
) -> DecodeError:
    """The error for a successful response whose body cannot be decoded."""
    secrets = tuple(secrets)
    return DecodeError(
        redact(str(reason), secrets),
        method=request.endpoint.method,
        path=request.path,
        status=response.status,
        request_id=request_id(_shown_headers(response.headers, secrets)),
        body=_text(response.body, secrets),
        lasting=isinstance(reason, OversizeError),
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The service's id of a request; None if no header has one."""
    found = (headers.get(name) for name in _REQUEST_IDS)
    return next((log_line(value[:128]) for value in found if value), None)


def _remedy(endpoint: Endpoint, status: int) -> str | None:
    return _REMEDIES.get((endpoint.name, status)) or _REMEDIES.get(status)


def _shown_headers(headers: Mapping[str, str], secrets: tuple[str, ...]) -> dict[str, str]:
    return {
        redact(name, secrets).lower(): redact(value, secrets)
        for name, value in headers.items()
        if name.lower() not in ("set-cookie", "set-cookie2")
    }


def _text(body: bytes, secrets: tuple[str, ...]) -> str:
    return redact(body[:_BODY_SEARCHED].decode("utf-8", "replace"), secrets)[:_BODY_KEPT]


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so is bad UTF-8
        return None


def _field_errors(content: Any, secrets: tuple[str, ...]) -> dict[str, str]:
    """``{"detail": [{"loc": [...], "msg": "..."}]}`` as ``{"loc.loc": "msg"}``."""
    detail = content.get("detail") if isinstance(content, dict) else None
    listed = detail[:_MOST_PROBLEMS] if isinstance(detail, list) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    return {
        redact(_location(entry.get("loc")), secrets): redact(
            str(entry.get("msg", "invalid")), secrets
        )
        for entry in entries
    }


def _location(loc: Any) -> str:
    return ".".join(str(part) for part in loc) if isinstance(loc, list) else str(loc)


def _message(content: Any, body: str, problems: Mapping[str, str]) -> str:
    """The error message of the body; empty if it has none."""
    if problems:
        return "; ".join(f"{location}: {message}" for location, message in problems.items())
    if isinstance(content, dict):
        found = (content[k] for k in ("detail", "message", "error") if content.get(k))
        return str(next(found, ""))
    title = re.search(_TITLE, body)
    if title:
        return title[1]
    return "" if body.lstrip().startswith(("<", "{", "[")) else body


def _line(text: str, secrets: tuple[str, ...]) -> str | None:
    """`text` in one line, redacted again because JSON escapes and line breaks are gone."""
    line = redact(" ".join(text[:_BODY_KEPT].split()), secrets)
    return log_line(line[:_DETAIL_KEPT]) or None
