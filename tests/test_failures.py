"""Every foreign exception becomes ours, with its cause, and shows nothing it should not."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import ssl
import traceback
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from amigo_async.errors import (
    ArgumentError,
    DeadlineError,
    RequestTimeoutError,
    TransportError,
    WaitTimeoutError,
)
from amigo_async.session.failures import mapped

SIGNED = "https://store.example/key?X-Amz-Signature=hunter2"
KEY = ConnectionKey("store.example", 443, True, True, None, None, None)
REFUSED = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
INFO = aiohttp.RequestInfo(URL(SIGNED), "GET", CIMultiDictProxy(CIMultiDict()), URL(SIGNED))

# For those that cannot be made from a message alone.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "LineTooLong": (b"line", 8190),
    "InvalidHeader": ("hdr",),
    "WebSocketError": (1002, "protocol"),
    "ServerFingerprintMismatch": (b"a", b"b", "store.example", 443),
    "UnixClientConnectorError": ("/socket", KEY, REFUSED),
    "ClientConnectorCertificateError": (KEY, ssl.CertificateError("expired")),
}


def aiohttps_modules() -> Iterator[str]:
    """The names of all of its modules but the server's and those of its tests."""
    yield "aiohttp"
    for module in pkgutil.walk_packages(aiohttp.__path__, "aiohttp."):
        name = module.name.removeprefix("aiohttp.")
        if not name.startswith(("web", "worker", "test_utils", "pytest_plugin")):
            yield module.name


def aiohttps_exceptions() -> list[type[BaseException]]:
    found: set[type[BaseException]] = set()
    for name in aiohttps_modules():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue  # an accelerator that was not built
        found |= {
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, BaseException)
            and value.__module__.split(".")[0] == "aiohttp"
        }
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def made(cls: type[BaseException]) -> BaseException:
    if cls.__name__ in ARGUMENTS:
        return cls(*ARGUMENTS[cls.__name__])
    if issubclass(cls, aiohttp.ClientResponseError):
        return cls(INFO, (), status=400, message=f"see {SIGNED}")
    if issubclass(cls, aiohttp.ClientConnectorError):
        return cls(KEY, REFUSED)
    if cls is http_exceptions.HttpProcessingError:
        return cls(code=400, message="")
    return cls(SIGNED)


def caught(error: BaseException) -> TransportError:
    with pytest.raises(TransportError) as caught_, mapped("GET", "/v1/org/x/"):
        raise error
    return caught_.value


def test_the_walk_finds_what_is_known() -> None:
    names = {cls.__name__ for cls in aiohttps_exceptions()}
    assert {
        *("ClientError", "ClientConnectionResetError", "ServerDisconnectedError", "EofStream"),
        *("HttpProcessingError", "WebSocketError", "ClientPayloadError", "LookupError"),
    } <= names
    assert len(names) > 40


@pytest.mark.parametrize("cls", aiohttps_exceptions(), ids=lambda cls: cls.__name__)
def test_no_exception_of_aiohttp_is_left_unmapped(cls: type[BaseException]) -> None:
    foreign = made(cls)
    error = caught(foreign)
    timeout = isinstance(foreign, TimeoutError)
    assert type(error) is (RequestTimeoutError if timeout else TransportError)
    assert error.__cause__ is foreign
    assert (error.method, error.path) == ("GET", "/v1/org/x/")
    assert str(error).startswith("GET /v1/org/x/ got no answer: ")
    assert str(error).split(": ", 1)[1].strip()
    assert "hunter2" not in f"{error} {vars(error)}"
    assert "\n" not in str(error)


class OfTheUser(aiohttp.ClientError):
    """What a connector of the user's own may raise."""


@pytest.mark.parametrize(
    ("foreign", "cls", "reason"),
    [
        (aiohttp.ClientConnectorError(KEY, REFUSED), TransportError, "Cannot connect to host stor"),
        (aiohttp.ServerDisconnectedError(), TransportError, "the connection was closed before"),
        (aiohttp.ClientPayloadError("cut"), TransportError, "the middle of the answer (cut)"),
        (aiohttp.ServerTimeoutError("x"), RequestTimeoutError, "no answer in time"),
        (aiohttp.ConnectionTimeoutError("x"), RequestTimeoutError, "no connection in time"),
        (aiohttp.SocketTimeoutError("x"), RequestTimeoutError, "no answer in time"),
        (TimeoutError(), RequestTimeoutError, "no answer in time"),
        (OSError(5, "broken"), TransportError, "[Errno 5] broken"),
        (ConnectionResetError(), TransportError, "ConnectionResetError"),
        (BrokenPipeError(32, "pipe"), TransportError, "pipe"),
        (ssl.SSLError(1, "bad record"), TransportError, "bad record"),
        (ssl.SSLCertVerificationError("expired"), TransportError, "expired"),
        (aiohttp.InvalidURL(SIGNED), TransportError, "https://store.example/key?***"),
        (aiohttp.ClientError("two\n lines"), TransportError, ": two lines"),
        (OfTheUser("mine"), TransportError, "mine"),
    ],
)
def test_the_reason_is_in_the_message(
    foreign: Exception, cls: type[TransportError], reason: str
) -> None:
    error = caught(foreign)
    assert type(error) is cls
    assert reason in str(error)


@pytest.mark.parametrize(
    ("foreign", "sent"),
    [
        (aiohttp.ClientConnectorError(KEY, REFUSED), False),
        (aiohttp.ClientConnectorDNSError(KEY, OSError("no such host")), False),
        (aiohttp.ClientConnectorSSLError(KEY, OSError("handshake")), False),
        (aiohttp.ConnectionTimeoutError(), False),
        (aiohttp.ClientProxyConnectionError(KEY, REFUSED), False),
        (aiohttp.InvalidURL("http://"), False),
        (aiohttp.ServerTimeoutError(), True),
        (aiohttp.SocketTimeoutError(), True),
        (TimeoutError(), True),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "reset"), True),
        (aiohttp.ClientPayloadError(), True),
        (ConnectionResetError(), True),
    ],
)
def test_only_what_surely_stayed_here_is_not_sent(foreign: Exception, sent: bool) -> None:
    assert caught(foreign).sent is sent


@pytest.mark.parametrize(
    "error",
    [
        ValueError("ours to fix"),
        TypeError("ours to fix"),
        RuntimeError("ours to fix"),
        KeyboardInterrupt(),
        SystemExit(3),
        asyncio.CancelledError(),
        GeneratorExit(),
        ArgumentError("limit"),
        TransportError("lost", method="POST", path="/other"),
        DeadlineError(endpoint="list", retry_after=1.0),
        WaitTimeoutError(["r"], timeout=1.0),
    ],
)
def test_everything_else_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught_, mapped("GET", "/p"):
        raise error
    assert caught_.value is error
    assert error.__cause__ is None


def test_without_an_error_nothing_happens() -> None:
    with mapped("GET", "/p"):
        reached = True
    assert reached


def raise_chained() -> None:
    """Fail as aiohttp does, with secrets in local variables and in messages."""
    secret = "hunter2"
    raise aiohttp.ClientPayloadError(f"{SIGNED} {len(secret)}") from OSError(f"see {SIGNED}")


def test_the_cause_has_no_traceback_and_no_query() -> None:
    with pytest.raises(TransportError) as caught_, mapped("GET", "/p"):
        raise_chained()
    error = caught_.value
    cause = error.__cause__
    assert cause is not None
    assert cause.__traceback__ is None
    assert cause.__cause__ is not None
    assert cause.__cause__.__traceback__ is None
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    shown = "".join(line for line in lines if "test_failures" not in line)
    assert "hunter2" not in shown
    assert "hunter2" not in repr((error, cause, cause.__cause__))


def test_a_chain_that_bites_its_tail_comes_to_an_end() -> None:
    first, second = aiohttp.ClientError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert caught(first).__cause__ is first


def test_what_the_caller_was_handling_is_left_alone() -> None:
    """Its traceback and its message are the caller's, who may raise it again."""
    outer = ValueError(f"mine, of {SIGNED}")
    try:
        raise outer
    except ValueError:
        before = outer.__traceback__
        error = caught(aiohttp.ServerDisconnectedError())
    assert error.__cause__ is not None
    assert error.__cause__.__context__ is outer
    assert before is not None
    assert outer.__traceback__ is before
    assert outer.args == (f"mine, of {SIGNED}",)
