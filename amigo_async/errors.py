"""The exceptions of this package.

::

    AmigoError
    ├── ConfigurationError            a setting of the client is missing or invalid
    ├── ArgumentError                 an argument of a call is invalid (also a ValueError)
    ├── APIError                      the service answered with an error status
    │   ├── BadRequestError           400, and every other 4xx without its own class
    │   │   ├── ArtifactsNotReadyError  400 of the artifacts endpoint
    │   │   └── ValidationError       422
    │   ├── AuthenticationError       401
    │   ├── ForbiddenError            403
    │   ├── NotFoundError             404
    │   ├── ConflictError             409
    │   ├── RateLimitError            429
    │   └── ServerError               5xx
    │       └── ServiceUnavailableError  503
    ├── TransportError                no response: connection refused or reset, TLS, DNS
    │   └── RequestTimeoutError       no response in time
    ├── DecodeError                   a response that cannot be decoded
    ├── DeadlineError                 the rate limit leaves no request before the deadline
    ├── WaitTimeoutError              the timeout of a wait passed
    ├── AmbiguousStartError           a run may have been started, or not
    ├── JournalError                  the journal of a batch cannot be used
    └── ArtifactError                 an artifact cannot be downloaded completely
        ├── ArtifactChangedError      the object changed during the download
        ├── ArtifactTruncatedError    the store sent fewer bytes than the object has
        └── ArtifactTimeoutError      not downloaded before the deadline

Each error builds its message from its attributes and can be pickled. None contains a key, a token
or the query of a presigned URL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, TypeVar

from amigo_async.escaping import log_line

if TYPE_CHECKING:
    from amigo_async.models import Run

E = TypeVar("E", bound="AmigoError")


def _rebuild(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class AmigoError(Exception):
    """Base class of all errors of this package; the message is one line without secrets."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(log_line(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the attributes, whatever the signature of ``__init__``."""
        return _rebuild, (type(self), self.args, self.__dict__)

    def __copy__(self) -> Self:
        """Copy without the traceback, even if `copyreg` has a function for exceptions."""
        return _rebuild(type(self), self.args, self.__dict__)


class ConfigurationError(AmigoError):
    """A setting of the client is missing or invalid; the message names it and the remedy."""


class ArgumentError(AmigoError, ValueError):
    """An argument is invalid; the message names it and the remedy. No request was sent."""


class APIError(AmigoError):
    """The service answered with an error status.

    Attributes:
        method: HTTP method of the request.
        path: Path of the request, without the query.
        status: HTTP status of the response.
        headers: Headers of the response, with names in lower case. Cookies are left out, and URLs
            have no query.
        body: Body as text, cut off after 16,384 characters.
        detail: The service's description of the error, in one line; None if the body has none.
        request_id: The service's id of the request, to quote to its support; None if it sent none.
        retry_after: Seconds after which the service asks to retry; None if it did not say.
    """

    def __init__(
        self,
        *,
        method: str,
        path: str,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: str = "",
        detail: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
    ) -> None:
        parts = [f"{method} {path} answered {status}"]
        parts += [f": {detail.rstrip('.')}"] if detail else []
        parts += [f"; {remedy}"] if remedy else []
        parts += [f" (try again in {retry_after:g} s)"] if retry_after is not None else []
        parts += [f" [request id {request_id}]"] if request_id else []
        super().__init__("".join(parts))
        self.method = method
        self.path = path
        self.status = status
        self.headers = dict(headers or {})
        self.body = body
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after


class BadRequestError(APIError):
    """400, and every other 4xx without its own class."""


class ArtifactsNotReadyError(BadRequestError):
    """400: the run has no artifacts yet; wait with ``require_artifacts=True``."""


class ValidationError(BadRequestError):
    """422: the service rejected the request as invalid.

    Attributes:
        field_errors: The error message for each field, e.g. of ``"query.limit"``.
    """

    def __init__(self, *, field_errors: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self.field_errors = dict(field_errors or {})


class AuthenticationError(APIError):
    """401: the key or token is wrong, expired, or belongs to another organization."""


class ForbiddenError(APIError):
    """403: the user lacks a permission."""


class NotFoundError(APIError):
    """404: the organization, set or run does not exist, or is not visible to the user."""

    @classmethod
    def of_run(cls, run_id: str) -> NotFoundError:
        """The error for a run that is missing from a list response."""
        return cls(
            method="GET",
            path=f"run {run_id}",
            status=404,
            detail="there is no such run in this organization, or the user may not see it",
        )


class ConflictError(APIError):
    """409: an unfinished run prevents a start, or the run to cancel has already ended.

    Attributes:
        existing_run_id: Id of the unfinished run that prevents a start; None if it could not be
            found.
        after_loss: Whether an earlier attempt of the request got no response, so that the request
            may conflict with itself.
    """

    def __init__(
        self, *, existing_run_id: str | None = None, after_loss: bool = False, **fields: Any
    ) -> None:
        super().__init__(**fields)
        self.existing_run_id = existing_run_id
        self.after_loss = after_loss


class RateLimitError(APIError):
    """429: the organization has used up its rate limit for this endpoint."""


class ServerError(APIError):
    """5xx: the service failed."""


class ServiceUnavailableError(ServerError):
    """503: the service is under maintenance or overloaded."""


class TransportError(AmigoError):
    """No response: the connection failed or was lost, or DNS or TLS failed.

    Attributes:
        method: HTTP method of the request.
        path: Path of the request, without the query.
        sent: False if the request was certainly not sent; True if it may have been.
        lasting: Whether a retry would fail the same way, as with an untrusted certificate; such an
            error is raised at once.
    """

    def __init__(
        self, reason: str, *, method: str, path: str, sent: bool = True, lasting: bool = False
    ) -> None:
        super().__init__(f"{method} {path} got no response: {reason}")
        self.method = method
        self.path = path
        self.sent = sent
        self.lasting = lasting


class RequestTimeoutError(TransportError):
    """No response within the `request_timeout` of an attempt."""


class DecodeError(AmigoError):
    """A response cannot be decoded.

    Attributes:
        method: HTTP method of the request.
        path: Path of the request, without the query.
        status: HTTP status of the response.
        request_id: The service's id of the request, to quote to its support; None if it sent none.
        body: Body as text, cut off after 16,384 characters.
        lasting: Whether a retry would fail the same way, as with a body over the size limit or
            the record of a single run; such an error is raised at once.
        run: The readable part of a run whose record cannot be decoded completely: its flags,
            without specs and results. None if nothing is readable or the error is not about a
            single run.
    """

    def __init__(
        self,
        reason: str,
        *,
        method: str,
        path: str,
        status: int,
        request_id: str | None = None,
        body: str = "",
        lasting: bool = False,
        run: Run | None = None,
    ) -> None:
        suffix = f" [request id {request_id}]" if request_id else ""
        super().__init__(
            f"{method} {path} answered {status} with a body that cannot be decoded: "
            f"{reason}{suffix}"
        )
        self.method = method
        self.path = path
        self.status = status
        self.request_id = request_id
        self.body = body
        self.lasting = lasting
        self.run = run


class DeadlineError(AmigoError, TimeoutError):
    """The rate limit leaves no request before the deadline of the caller. No request was sent.

    Attributes:
        endpoint: The endpoint whose rate limit is used up, such as ``"create"``.
        retry_after: Seconds until a request can be sent at the earliest.
    """

    def __init__(self, *, endpoint: str, retry_after: float) -> None:
        super().__init__(
            f"the rate limit for {endpoint} allows the next request in {retry_after:.3g} s, "
            "which is after the deadline"
        )
        self.endpoint = endpoint
        self.retry_after = retry_after


class WaitTimeoutError(AmigoError, TimeoutError):
    """The timeout of a wait passed. The runs go on; wait for the same ids to resume.

    Attributes:
        run_ids: Ids of the runs that were not completed.
        run_id: The first of them; for ``wait_for_completion``, the only one.
        last_run: The last state seen of that run; None if none was seen.
        last_runs: The last state seen of each run, by id.
        last_error: Why the last poll returned no state of that run; None if it did.
        last_errors: Why the last poll returned no state, by id, for the runs where it did not.
        timeout: The timeout in seconds.
    """

    def __init__(
        self,
        run_ids: Sequence[str],
        *,
        timeout: float,
        last_runs: Mapping[str, Run] | None = None,
        last_errors: Mapping[str, AmigoError] | None = None,
    ) -> None:
        self.run_ids = tuple(run_ids)
        self.run_id = self.run_ids[0]
        self.last_runs = dict(last_runs or {})
        self.last_run = self.last_runs.get(self.run_id)
        self.last_errors = dict(last_errors or {})
        self.last_error = self.last_errors.get(self.run_id)
        self.timeout = timeout
        said = self.last_error or next(iter(self.last_errors.values()), None)
        failed = f" The last poll failed: {said}." if said else ""
        shown = ", ".join(self.run_ids[:5]) + (", ..." if len(self.run_ids) > 5 else "")
        count = "1 run" if len(self.run_ids) == 1 else f"{len(self.run_ids)} runs"
        super().__init__(
            f"{count} not completed within {timeout:g} s: {shown}. "
            f"This ended the wait, not the runs; wait for the same ids to resume.{failed}"
        )


class AmbiguousStartError(AmigoError):
    """A run may have been started, or not. List the runs of the set before starting another.

    Attributes:
        unit_test_set_id: Id of the set.
        since: When the create request was sent that got no response, by the service's clock; None
            if the service sends no ``Date``.
        candidates: Ids of the runs that may be the one started, the earliest first; empty if
            none is listed. Wait for the right one with ``wait_for_completion``.
    """

    def __init__(
        self,
        reason: str,
        *,
        unit_test_set_id: str,
        since: datetime | None = None,
        candidates: Sequence[str] = (),
    ) -> None:
        at = "" if since is None else f" at {since.isoformat()}"
        shown = ", ".join(candidates[:5]) + (", ..." if len(candidates) > 5 else "")
        remedy = (
            f"It may be one of these: {shown}"
            if candidates
            else "Check with runs.list(simulation_unit_test_set_id=...) before starting another"
        )
        super().__init__(
            f"a run of set {unit_test_set_id} may have been started{at}: {reason}. {remedy}"
        )
        self.unit_test_set_id = unit_test_set_id
        self.since = since
        self.candidates = tuple(candidates)


class JournalError(AmigoError):
    """The journal of a batch cannot be opened, read or written.

    Attributes:
        path: Path of the journal.
        in_use: Whether the reason is that another batch has it open.
    """

    def __init__(self, reason: str, *, path: PathLike[str], in_use: bool = False) -> None:
        super().__init__(f"journal {path} {reason}")
        self.path = path
        self.in_use = in_use


class ArtifactError(AmigoError):
    """An artifact cannot be downloaded completely, or not be written to disk.

    Attributes:
        run_id: Id of the run.
        lasting: Whether a retry would fail the same way; False if transient errors of the store
            lasted longer than a download retries.
    """

    def __init__(self, reason: str, *, run_id: str, lasting: bool = True) -> None:
        super().__init__(f"artifact of run {run_id}: {reason}")
        self.run_id = run_id
        self.lasting = lasting


class ArtifactChangedError(ArtifactError):
    """The object in the store changed during the download."""


class ArtifactTruncatedError(ArtifactError):
    """The store sent fewer bytes than the artifact has, and did not send the rest."""


class ArtifactTimeoutError(ArtifactError, TimeoutError):
    """The artifact was not downloaded in time, or was never generated.

    The bytes downloaded so far are kept; the same call resumes from them.
    """

    def __init__(
        self, reason: str = "the deadline passed before it was downloaded", *, run_id: str
    ) -> None:
        super().__init__(reason, run_id=run_id)


def missing_extra(part: str, extra: str) -> ConfigurationError:
    """Return the error of a part of the package whose dependencies are not installed.

    Args:
        part: What needs them.
        extra: The extra that has them.
    """
    return ConfigurationError(
        f"{part} needs its extra: install amigo-async[{extra}] "
        f'(in a clone: pip install ".[{extra}]")'
    )


def is_transient(error: Exception) -> bool:
    """Return whether the same call may succeed if it is repeated later.

    Transient errors are a missing response, 408, 5xx except 501 and 505, and a response that cannot
    be decoded, which a proxy may have sent; none of them if marked as `lasting`. 429 is not among
    them: it is waited out by the rate limiter.
    """
    if isinstance(error, APIError):
        return error.status == 408 or (error.status >= 500 and error.status not in (501, 505))
    return isinstance(error, TransportError | DecodeError | ArtifactError) and not error.lasting


def may_be_too_long(error: Exception) -> bool:
    """Return whether a request may have been rejected for the length of its query.

    The API does not document a limit; 400, 413, 414, 422 and 431 are what servers and proxies
    answer.
    """
    return isinstance(error, APIError) and error.status in (400, 413, 414, 422, 431)
