"""The tree of errors: its shape, its messages, and that it can be sent elsewhere."""

from __future__ import annotations

import copy
import copyreg
import inspect
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

import amigo_async
from amigo_async import errors
from amigo_async.models import Run, UserInfo

RUN = Run(
    *("org", "b" * 24, False, "a" * 24, True, False, False, [], []),
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    creator=UserInfo("org", "user"),
)
SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

ANSWER: dict[str, Any] = {
    "method": "GET",
    "path": "/v1/org/x/",
    "status": 418,
    "headers": {"x-request-id": "r-1"},
    "body": '{"detail": "short and stout"}',
    "detail": "short and stout",
    "request_id": "r-1",
    "retry_after": 2.5,
    "remedy": "use a cup",
}
ANSWERED = (
    "GET /v1/org/x/ answered 418: short and stout; use a cup (try again in 2.5 s) [request id r-1]"
)
KEPT = {name: value for name, value in ANSWER.items() if name != "remedy"}
WHERE: dict[str, Any] = {"method": "DELETE", "path": "/v1/org/x/"}

Case = tuple[Callable[[], errors.AmigoError], str, dict[str, Any]]


def api_case(cls: Callable[..., errors.APIError], **more: Any) -> Case:
    return (lambda: cls(**ANSWER, **more), ANSWERED, {**KEPT, **more})


CASES: dict[type[errors.AmigoError], Case] = {
    errors.AmigoError: (lambda: errors.AmigoError("plain"), "plain", {}),
    errors.ConfigurationError: (lambda: errors.ConfigurationError("set it"), "set it", {}),
    errors.ArgumentError: (lambda: errors.ArgumentError("limit must be"), "limit must be", {}),
    errors.APIError: api_case(errors.APIError),
    errors.BadRequestError: api_case(errors.BadRequestError),
    errors.ArtifactsNotReadyError: api_case(errors.ArtifactsNotReadyError),
    errors.ValidationError: api_case(errors.ValidationError, field_errors={"query.limit": "big"}),
    errors.AuthenticationError: api_case(errors.AuthenticationError),
    errors.ForbiddenError: api_case(errors.ForbiddenError),
    errors.NotFoundError: api_case(errors.NotFoundError),
    errors.ConflictError: api_case(errors.ConflictError, existing_run_id="b" * 24, after_loss=True),
    errors.RateLimitError: api_case(errors.RateLimitError),
    errors.ServerError: api_case(errors.ServerError),
    errors.ServiceUnavailableError: api_case(errors.ServiceUnavailableError),
    errors.TransportError: (
        lambda: errors.TransportError("reset", sent=False, **WHERE),
        "DELETE /v1/org/x/ got no response: reset",
        {**WHERE, "sent": False, "lasting": False},
    ),
    errors.RequestTimeoutError: (
        lambda: errors.RequestTimeoutError("no answer in time", **WHERE),
        "DELETE /v1/org/x/ got no response: no answer in time",
        {**WHERE, "sent": True, "lasting": False},
    ),
    errors.DecodeError: (
        lambda: errors.DecodeError("no JSON", status=200, request_id="r", body="<p>", **WHERE),
        "DELETE /v1/org/x/ answered 200 with a body that cannot be decoded: no JSON [request id r]",
        {**WHERE, "status": 200, "request_id": "r", "body": "<p>", "lasting": False, "run": None},
    ),
    errors.DeadlineError: (
        lambda: errors.DeadlineError(endpoint="create", retry_after=12.3456),
        "the rate limit for create allows the next request in 12.3 s, which is after the deadline",
        {"endpoint": "create", "retry_after": 12.3456},
    ),
    errors.WaitTimeoutError: (
        lambda: errors.WaitTimeoutError(["b" * 24], timeout=60.0, last_runs={RUN.id: RUN}),
        (
            f"1 run not completed within 60 s: {'b' * 24}. "
            "This ended the wait, not the runs; wait for the same ids to resume."
        ),
        {
            "run_ids": ("b" * 24,),
            "run_id": "b" * 24,
            "last_run": RUN,
            "last_runs": {RUN.id: RUN},
            "last_error": None,
            "last_errors": {},
            "timeout": 60.0,
        },
    ),
    errors.AmbiguousStartError: (
        lambda: errors.AmbiguousStartError(
            "lost", unit_test_set_id="a" * 24, since=SINCE, candidates=["r1", "r2"]
        ),
        (
            f"a run of set {'a' * 24} may have been started at 2026-01-02T03:04:05+00:00: "
            "lost. It may be one of these: r1, r2"
        ),
        {"unit_test_set_id": "a" * 24, "since": SINCE, "candidates": ("r1", "r2")},
    ),
    errors.JournalError: (
        lambda: errors.JournalError("is in use", path=PurePosixPath("a/b.jsonl")),
        "journal a/b.jsonl is in use",
        {"path": PurePosixPath("a/b.jsonl"), "in_use": False},
    ),
    errors.ArtifactError: (
        lambda: errors.ArtifactError("no room", run_id="r"),
        "artifact of run r: no room",
        {"run_id": "r", "lasting": True},
    ),
    errors.ArtifactChangedError: (
        lambda: errors.ArtifactChangedError("new ETag", run_id="r"),
        "artifact of run r: new ETag",
        {"run_id": "r", "lasting": True},
    ),
    errors.ArtifactTruncatedError: (
        lambda: errors.ArtifactTruncatedError("3 of 4 bytes", run_id="r"),
        "artifact of run r: 3 of 4 bytes",
        {"run_id": "r", "lasting": True},
    ),
    errors.ArtifactTimeoutError: (
        lambda: errors.ArtifactTimeoutError(run_id="r"),
        "artifact of run r: the deadline passed before it was downloaded",
        {"run_id": "r", "lasting": True},
    ),
}


def public_classes() -> dict[str, type[errors.AmigoError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value)
        and issubclass(value, errors.AmigoError)
        and not name.startswith("_")
    }


def parents() -> dict[str, set[str]]:
    return {
        name: {base.__name__ for base in inspect.getmro(cls)[1:]}
        for name, cls in public_classes().items()
    }


def test_every_error_has_a_case_here() -> None:
    assert set(CASES) == set(public_classes().values())


def test_every_error_is_exported() -> None:
    assert set(public_classes()) <= set(amigo_async.__all__)
    for name, cls in public_classes().items():
        assert getattr(amigo_async, name) is cls


def test_the_tree_is_as_drawn() -> None:
    assert errors.__doc__ is not None
    path: list[tuple[int, str]] = []
    drawn: dict[str, set[str]] = {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"\s{4}([│├└─ ]*)([A-Z]\w+)", line)
        if match is None:
            continue
        path = [(depth, name) for depth, name in path if depth < len(match[1])]
        drawn[match[2]] = {name for _, name in path}
        path.append((len(match[1]), match[2]))
    assert set(drawn) == set(public_classes())
    for name, above in parents().items():
        assert above & set(drawn) == drawn[name], name


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ArgumentError, ValueError),
        (errors.DeadlineError, TimeoutError),
        (errors.WaitTimeoutError, TimeoutError),
    ],
)
def test_some_are_builtin_errors_too(cls: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("cls", CASES, ids=lambda cls: cls.__name__)
def test_message_from_the_fields(cls: type[errors.AmigoError]) -> None:
    make, message, fields = CASES[cls]
    error = make()
    assert type(error) is cls
    assert str(error) == message
    assert {name: getattr(error, name) for name in fields} == fields
    assert set(vars(error)) == set(fields)


@pytest.mark.parametrize("cls", CASES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "send",
    [
        lambda error: pickle.loads(pickle.dumps(error)),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_pickling_and_copying(
    cls: type[errors.AmigoError], send: Callable[[errors.AmigoError], errors.AmigoError]
) -> None:
    make, message, fields = CASES[cls]
    error = make()
    error.__cause__ = OSError("not sent along")
    error.add_note("a note")
    received = send(error)
    assert type(received) is cls
    assert received is not error
    assert str(received) == message
    assert received.args == error.args
    assert {name: getattr(received, name) for name in fields} == fields
    assert received.__notes__ == ["a note"]


def test_pickling_of_a_users_subclass() -> None:
    error = MineError("b" * 24)
    received = pickle.loads(pickle.dumps(error))
    assert type(received) is MineError
    assert (received.run_id, received.mine, str(received)) == ("b" * 24, 1, str(error))


class MineError(errors.ArtifactError):
    """An error whose ``__init__`` takes something else than its parent's."""

    def __init__(self, only: str) -> None:
        super().__init__("mine", run_id=only)
        self.mine = 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "GET /p answered 500"),
        ({"detail": ""}, "GET /p answered 500"),
        ({"detail": "why"}, "GET /p answered 500: why"),
        ({"remedy": "do"}, "GET /p answered 500; do"),
        ({"retry_after": 0.0}, "GET /p answered 500 (try again in 0 s)"),
        ({"retry_after": 30.0}, "GET /p answered 500 (try again in 30 s)"),
        ({"request_id": "r"}, "GET /p answered 500 [request id r]"),
        ({"request_id": ""}, "GET /p answered 500"),
    ],
)
def test_message_without_unknown_fields(fields: dict[str, Any], message: str) -> None:
    assert str(errors.APIError(method="GET", path="/p", status=500, **fields)) == message


def test_decode_error_without_id() -> None:
    error = errors.DecodeError("empty", method="GET", path="/p", status=200)
    assert str(error) == "GET /p answered 200 with a body that cannot be decoded: empty"
    assert (error.request_id, error.body) == (None, "")


def test_not_found_of_a_run_names_it() -> None:
    error = errors.NotFoundError.of_run("b" * 24)
    assert type(error) is errors.NotFoundError
    assert error.status == 404
    assert "b" * 24 in str(error)


def test_long_wait_names_five_runs() -> None:
    ids = [f"{n:024x}" for n in range(7)]
    error = errors.WaitTimeoutError(ids, timeout=1.5, last_runs={ids[3]: RUN})
    assert error.run_ids == tuple(ids)
    assert (error.run_id, error.last_run) == (ids[0], None)
    assert str(error).startswith(f"7 runs not completed within 1.5 s: {', '.join(ids[:5])}, ...")
    assert ids[5] not in str(error)


def test_no_field_errors() -> None:
    assert errors.ValidationError(**ANSWER).field_errors == {}
    assert errors.ConflictError(**ANSWER).existing_run_id is None


def test_copy_has_no_traceback() -> None:
    """Not even where exceptions are taught to keep theirs, as `tblib` does."""

    def with_traceback(error: BaseException) -> tuple[Any, ...]:
        return _again, (type(error), error.args, error.__traceback__)

    with pytest.raises(errors.AmigoError) as caught:
        raise errors.AmigoError("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(copyreg.dispatch_table, errors.AmigoError, with_traceback)
        copied = copy.copy(caught.value)
    assert caught.value.__traceback__ is not None
    assert copied.args == ("x",)
    assert copied.__traceback__ is None


def _again(cls: type[BaseException], args: tuple[Any, ...], traceback: Any) -> BaseException:
    return cls(*args).with_traceback(traceback)


@pytest.mark.parametrize(
    "kind", [errors.AmigoError, errors.ConfigurationError, errors.ArgumentError]
)
def test_message_is_one_safe_line(kind: type[errors.AmigoError]) -> None:
    error = kind("run x\n##vso[a]\x1b[2J: GET https://h/k?X-Amz-Signature=hunter2 \ud800")
    shown = "run x # #vso[a]\ufffd[2J: GET https://h/k?*** \ufffd"
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == shown
    assert kind(1, "a\n").args == (1, "a")


def test_service_text_is_one_inert_line() -> None:
    odd = "r\n::error::x"
    for error in (
        errors.NotFoundError.of_run(odd),
        errors.WaitTimeoutError([odd], timeout=1.0),
        errors.ArtifactError("cut\n##[error]", run_id=odd),
        errors.DecodeError(f"not {odd}", method="GET", path="/p", status=200),
        errors.TransportError(odd, method="GET", path="/p"),
    ):
        assert str(error).isprintable()
        assert "##" not in str(error)
        assert "::error" not in str(error).replace(": :error", "")


def test_deadline_names_the_last_failure() -> None:
    first, second = errors.AmigoError("a list failed"), errors.AmigoError("another failed")
    told = errors.WaitTimeoutError(["a", "b"], timeout=1.0, last_errors={"a": first, "b": second})
    assert (told.last_error, told.last_errors) == (first, {"a": first, "b": second})
    assert str(told).endswith(" The last poll failed: a list failed.")
    other = pickle.loads(pickle.dumps(errors.WaitTimeoutError(["a"], timeout=1.0)))
    assert (other.last_error, other.last_errors) == (None, {})
    of_second = errors.WaitTimeoutError(["a", "b"], timeout=1.0, last_errors={"b": second})
    assert of_second.last_error is None
    assert "another failed" in str(of_second)
