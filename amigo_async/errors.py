"""Everything this package raises on purpose.

::

    AmigoError
    ├── ConfigurationError            the client cannot work as it was set up
    ├── ArgumentError                 a call's argument cannot be right (also a ValueError)
    ├── APIError                      the service answered, and said no
    │   ├── BadRequestError           400, and every 4xx without a class of its own
    │   │   ├── ArtifactsNotReadyError  400 of the artifacts link
    │   │   └── ValidationError       422
    │   ├── AuthenticationError       401
    │   ├── ForbiddenError            403
    │   ├── NotFoundError             404
    │   ├── ConflictError             409
    │   ├── RateLimitError            429
    │   └── ServerError               5xx
    │       └── ServiceUnavailableError  503
    ├── TransportError                no answer: refused, reset, TLS, DNS
    │   └── RequestTimeoutError       no answer in time
    ├── DecodeError                   an answer that is not what the API promises
    ├── DeadlineError                 the caller's deadline leaves no time for the call
    ├── WaitTimeoutError              the deadline of a wait passed
    ├── AmbiguousStartError           a run may have been started
    ├── JournalError                  the journal of a batch cannot be used
    └── ArtifactError                 an artifact cannot be had whole
        ├── ArtifactChangedError      the object changed during the download
        ├── ArtifactTruncatedError    fewer bytes than there are
        └── ArtifactTimeoutError      not had before the deadline

An error builds its message from its own fields. All of them survive pickling, and none of them
carries a key, a token or the query of a presigned URL.
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
    """Base of every error of this package; its message is one line, and has no secret."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(log_line(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the finished message and the fields, whatever ``__init__`` takes."""
        return _rebuild, (type(self), self.args, self.__dict__)

    def __copy__(self) -> Self:
        """A copy without a traceback, whatever others have taught `copy` about exceptions."""
        return _rebuild(type(self), self.args, self.__dict__)


class ConfigurationError(AmigoError):
    """The client cannot work as it was set up; the message names the setting and the remedy."""


class ArgumentError(AmigoError, ValueError):
    """An argument cannot be right; the message names it and the remedy. Nothing was sent."""


class _RequestError(AmigoError):
    def __init__(self, message: str, *, method: str, path: str) -> None:
        super().__init__(message)
        self.method = method
        self.path = path


class APIError(_RequestError):
    """The service answered with a status that is not success.

    Attributes:
        method: The method of the request.
        path: Its path, without the query.
        status: The status of the response.
        headers: The headers of the response, their names in lower case. Cookies are left out,
            and URLs are without their queries.
        body: The text of the body, at most its first 16,384 characters.
        detail: What the service says is wrong, in one line; None where the body does not say.
        request_id: The service's own name of the request, for its support; None without one.
        retry_after: Seconds after which the service wants to be asked again; None where it
            does not say.
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
        super().__init__("".join(parts), method=method, path=path)
        self.status = status
        self.headers = dict(headers or {})
        self.body = body
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after


class BadRequestError(APIError):
    """400, and every other 4xx that has no class of its own."""


class ArtifactsNotReadyError(BadRequestError):
    """The run has no artifacts yet; wait with ``require_artifacts=True``."""


class ValidationError(BadRequestError):
    """422: the service found the request invalid.

    Attributes:
        field_errors: What is wrong, by the place the service names, e.g. ``"query.limit"``.
    """

    def __init__(self, *, field_errors: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self.field_errors = dict(field_errors or {})


class AuthenticationError(APIError):
    """401: the key or token is wrong, expired or of another organization."""


class ForbiddenError(APIError):
    """403: the user lacks a permission."""


class NotFoundError(APIError):
    """404: no such organization in this region, no such set, or no such run for this user."""

    @classmethod
    def of_run(cls, run_id: str) -> NotFoundError:
        """The error for a run that a list, though it succeeded, does not show."""
        return cls(
            method="GET",
            path=f"run {run_id}",
            status=404,
            detail="there is no such run in this organization, or the user may not see it",
        )


class ConflictError(APIError):
    """409: an unfinished run is in the way of a start, or a run to be cancelled has ended.

    Attributes:
        existing_run_id: The unfinished run that is in the way of a start, where it could be
            found; otherwise None.
        after_loss: Whether the request had been sent before and its answer was lost, so that
            it may be in conflict with itself.
    """

    def __init__(
        self, *, existing_run_id: str | None = None, after_loss: bool = False, **fields: Any
    ) -> None:
        super().__init__(**fields)
        self.existing_run_id = existing_run_id
        self.after_loss = after_loss


class RateLimitError(APIError):
    """429: the budget of the organization for this endpoint is spent."""


class ServerError(APIError):
    """5xx: the service failed."""


class ServiceUnavailableError(ServerError):
    """503: the service is under maintenance or overloaded."""


class TransportError(_RequestError):
    """No answer came: connection refused or lost, name not found, TLS not agreed upon.

    Attributes:
        method: The method of the request.
        path: Its path, without the query.
        sent: False where the request is known not to have left; True where it may have.
        lasting: Whether the same would happen again, as with a certificate that is refused; it
            is raised at once then, and never tried again.
    """

    def __init__(
        self, reason: str, *, method: str, path: str, sent: bool = True, lasting: bool = False
    ) -> None:
        super().__init__(f"{method} {path} got no answer: {reason}", method=method, path=path)
        self.sent = sent
        self.lasting = lasting


class RequestTimeoutError(TransportError):
    """No answer came within the time of one attempt."""


class DecodeError(_RequestError):
    """An answer came that is not what the API promises.

    Attributes:
        method: The method of the request.
        path: Its path, without the query.
        status: The status of the response.
        request_id: The service's own name of the request; None without one.
        body: The text of the body, at most its first 16,384 characters.
        lasting: Whether the same would happen again, as with a body beyond the limit, or the
            record of a run; it is raised at once then, and never tried again.
        run: Where it is one run that cannot be read: as much of it as can, its flags but not its
            specs and results. None where that is nothing, or not one run.
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
            f"{method} {path} answered {status} with a body that cannot be read: {reason}{suffix}",
            method=method,
            path=path,
        )
        self.status = status
        self.request_id = request_id
        self.body = body
        self.lasting = lasting
        self.run = run


class DeadlineError(AmigoError, TimeoutError):
    """The deadline of the caller leaves no time for the call: the budget has no room before it.

    Nothing was sent.

    Attributes:
        endpoint: The endpoint whose budget is spent.
        retry_after: Seconds after which the call can get through at the earliest.
    """

    def __init__(self, *, endpoint: str, retry_after: float) -> None:
        super().__init__(
            f"the budget of {endpoint} has room in {retry_after:.3g} s at the earliest, "
            "which is after the deadline"
        )
        self.endpoint = endpoint
        self.retry_after = retry_after


class WaitTimeoutError(AmigoError, TimeoutError):
    """The deadline of a wait passed. The runs go on; wait for the same ids again to resume.

    Attributes:
        run_ids: The runs that were still being waited for.
        run_id: The first of them; the one of ``wait_for_completion``.
        last_run: The last state seen of that run; None where none was seen.
        last_runs: The last states seen, by run id.
        last_error: Why the last look at that run told nothing of it; None if it did.
        last_errors: The same for each run of which the last look told nothing, by run id.
        timeout: The seconds that were allowed.
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
        failed = f" The last look failed: {said}." if said else ""
        shown = ", ".join(self.run_ids[:5]) + (", ..." if len(self.run_ids) > 5 else "")
        count = "1 run" if len(self.run_ids) == 1 else f"{len(self.run_ids)} runs"
        super().__init__(
            f"{count} not completed within {timeout:g} s: {shown}. "
            f"They go on; wait for the same ids again to resume.{failed}"
        )


class AmbiguousStartError(AmigoError):
    """A run may have been started, and it could not be found out. Look before starting again.

    Attributes:
        unit_test_set_id: The set.
        since: When the create left whose answer was lost, by the service's clock; None if the
            service does not tell the time.
        candidates: The ids of the runs that may be the one in question, the earliest first; empty
            if none is listed. Wait for the right one with ``wait_for_completion``.
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
            f"Find out which of these it is: {shown}"
            if candidates
            else "Look with runs.list(simulation_unit_test_set_id=...) before starting again"
        )
        super().__init__(
            f"a run of set {unit_test_set_id} may have been started{at}: {reason}. {remedy}"
        )
        self.unit_test_set_id = unit_test_set_id
        self.since = since
        self.candidates = tuple(candidates)


class JournalError(AmigoError):
    """The journal of a batch cannot be used or written.

    Attributes:
        path: The journal.
        in_use: Whether it is only that another batch has it open.
    """

    def __init__(self, reason: str, *, path: PathLike[str], in_use: bool = False) -> None:
        super().__init__(f"journal {path} {reason}")
        self.path = path
        self.in_use = in_use


class ArtifactError(AmigoError):
    """An artifact cannot be had whole, or not be written.

    Attributes:
        run_id: The run whose artifact it is.
        lasting: Whether the same would happen again; False where the store failed in passing,
            for longer than a download bears.
    """

    def __init__(self, reason: str, *, run_id: str, lasting: bool = True) -> None:
        super().__init__(f"artifact of run {run_id}: {reason}")
        self.run_id = run_id
        self.lasting = lasting


class ArtifactChangedError(ArtifactError):
    """The object in the store changed while it was being fetched."""


class ArtifactTruncatedError(ArtifactError):
    """The store gave fewer bytes than the artifact has, and would not give the rest."""


class ArtifactTimeoutError(ArtifactError, TimeoutError):
    """The artifact was not had in time: the caller's deadline passed, or it is never generated.

    What was fetched by then is kept; the same call again goes on from there.
    """

    def __init__(
        self, reason: str = "the time was over before it was fetched", *, run_id: str
    ) -> None:
        super().__init__(reason, run_id=run_id)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later.

    It may after no answer, 408, 5xx other than 501 and 505, or an answer that cannot be read,
    which may be of something in between. It will not after anything that is marked as `lasting`,
    as the record of a run that cannot be read. A refusal (429) is not a failure, and is waited out
    before this is asked.
    """
    if isinstance(error, APIError):
        return error.status == 408 or (error.status >= 500 and error.status not in (501, 505))
    return isinstance(error, TransportError | DecodeError | ArtifactError) and not error.lasting
