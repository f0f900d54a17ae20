"""Every foreign exception becomes ours, with its cause, and shows nothing it should not."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import ssl
import traceback
import warnings
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
    is_transient,
)
from amigo_async.transport.exceptions import mapped

SIGNED = "https://store.example/key?X-Amz-Signature=hunter2"
KEY = ConnectionKey("store.example", 443, True, True, None, None, None)
NO_TLS = ssl.SSLError(1, "wrong version number")
NO_TLS.reason = "WRONG_VERSION_NUMBER"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated in newer versions of aiohttp
    PROXY_AUTH = aiohttp.BasicAuth("user", "hunter2")
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
def test_every_aiohttp_error_is_mapped(cls: type[BaseException]) -> None:
    foreign = made(cls)
    error = caught(foreign)
    timeout = isinstance(foreign, TimeoutError)
    assert type(error) is (RequestTimeoutError if timeout else TransportError)
    assert error.__cause__ is foreign
    assert (error.method, error.path) == ("GET", "/v1/org/x/")
    assert str(error).startswith("GET /v1/org/x/ got no response: ")
    assert str(error).split(": ", 1)[1].strip()
    assert "hunter2" not in f"{error} {vars(error)}"
    assert "\n" not in str(error)


class OfTheUser(aiohttp.ClientError):
    """What a connector of the user's own may raise."""


@pytest.mark.parametrize(
    ("foreign", "cls", "reason"),
    [
        (aiohttp.ClientConnectorError(KEY, REFUSED), TransportError, "Cannot connect to host stor"),
        (
            aiohttp.ClientProxyConnectionError(KEY, REFUSED),
            TransportError,
            "cannot connect to the proxy store.example:443 (Connect call failed",
        ),
        (
            aiohttp.ClientConnectorError(KEY, ConnectionResetError()),
            TransportError,
            "store.example:443 closed the connection while TLS was agreed upon",
        ),
        (
            aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "no protocols available")),
            TransportError,
            "no agreement on TLS with store.example:443 (no protocols available)",
        ),
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
        (aiohttp.ServerFingerprintMismatch(b"a", b"b", "store.example", 443), False),
        (aiohttp.ClientHttpProxyError(INFO, (), status=503), False),
        (aiohttp.ServerTimeoutError(), True),
        (aiohttp.SocketTimeoutError(), True),
        (TimeoutError(), True),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "reset"), True),
        (aiohttp.ClientPayloadError(), True),
        (ConnectionResetError(), True),
    ],
)
def test_sent_unless_surely_not(foreign: Exception, sent: bool) -> None:
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
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught_, mapped("GET", "/p"):
        raise error
    assert caught_.value is error
    assert error.__cause__ is None


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), KeyboardInterrupt(), RuntimeError("session is closed")]
)
def test_inner_traceback_is_dropped(error: BaseException) -> None:
    def beneath() -> None:
        error.__context__ = OSError(f"see {SIGNED}")
        raise error

    with pytest.raises(type(error)) as caught_, mapped("GET", "/p"):
        beneath()
    for link in (caught_.value, caught_.value.__context__):
        assert link is not None
        assert "beneath" not in {f.name for f in traceback.extract_tb(link.__traceback__)}
        assert "hunter2" not in repr(link)


def test_known_secrets_are_hidden() -> None:
    foreign = aiohttp.http_exceptions.BadStatusLine("HTTP/1.1 hunter2", "bad: hunter2")
    foreign.__cause__ = UnicodeDecodeError("utf-8", b"hunter2\xff", 7, 8, "invalid start byte")
    with pytest.raises(TransportError) as caught_, mapped("GET", "/p", lambda: ["hunter2"]):
        raise foreign
    cause = foreign.__cause__
    said = (caught_.value, vars(caught_.value), foreign, vars(foreign), cause, cause.object)
    assert "hunter2" not in f"{said} {foreign} {cause}"


def test_without_an_error_nothing_happens() -> None:
    with mapped("GET", "/p"):
        reached = True
    assert reached


@pytest.mark.parametrize(
    ("foreign", "lasting"),
    [
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("expired")), True),
        (ssl.SSLCertVerificationError("expired"), True),
        (aiohttp.ServerFingerprintMismatch(b"a", b"b", "store.example", 443), True),
        (aiohttp.ClientConnectorSSLError(KEY, NO_TLS), True),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "internal error")), False),
        (aiohttp.InvalidURL("proxy:3128"), True),
        (aiohttp.ClientHttpProxyError(INFO, (), status=407), True),
        (aiohttp.ClientHttpProxyError(INFO, (), status=503), False),
        (aiohttp.ClientConnectorDNSError(KEY, OSError("no such host")), False),
        (aiohttp.ClientConnectorError(KEY, REFUSED), False),
        (aiohttp.ServerDisconnectedError(), False),
        (TimeoutError(), False),
    ],
)
def test_lasting_errors_are_known(foreign: Exception, lasting: bool) -> None:
    error = caught(foreign)
    assert error.lasting is lasting
    assert is_transient(error) is not lasting


def raise_chained() -> None:
    """Fail as aiohttp does, with secrets in local variables and in messages."""
    secret = "hunter2"
    raise aiohttp.ClientPayloadError(f"{SIGNED} {len(secret)}") from OSError(f"see {SIGNED}")


def test_cause_has_no_query() -> None:
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


def test_circular_causes_end() -> None:
    first, second = aiohttp.ClientError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert caught(first).__cause__ is first


def test_callers_context_is_kept() -> None:
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


WITH_PROXY = ConnectionKey(
    "store.example", 443, True, True, URL("http://u:hunter2@proxy"), PROXY_AUTH, None
)
WITH_TOKEN = aiohttp.RequestInfo(
    URL("https://api.example/"),
    "GET",
    CIMultiDictProxy(CIMultiDict({"Authorization": "Bearer hunter2"})),
    URL("https://api.example/"),
)


@pytest.mark.parametrize(
    "foreign",
    [
        aiohttp.ClientConnectorError(WITH_PROXY, REFUSED),
        aiohttp.ClientProxyConnectionError(WITH_PROXY, REFUSED),
        aiohttp.ClientConnectorCertificateError(WITH_PROXY, ssl.CertificateError("expired")),
        aiohttp.ClientConnectorSSLError(WITH_PROXY, NO_TLS),
        aiohttp.ClientHttpProxyError(WITH_TOKEN, (), status=407),
        aiohttp.ClientResponseError(WITH_TOKEN, (), status=400, message="Bad status line"),
    ],
)
def test_cause_has_no_proxy_password(foreign: Exception) -> None:
    cause = caught(foreign).__cause__
    assert cause is foreign
    assert "hunter2" not in f"{cause} {cause!r} {vars(cause)}"


@pytest.mark.parametrize(("debug", "frames"), [(None, False), ("0", False), ("1", True)])
def test_frames_are_kept_for_debugging(
    monkeypatch: pytest.MonkeyPatch, debug: str | None, frames: bool
) -> None:
    def with_a_bug() -> None:
        token = "hunter2"
        raise ZeroDivisionError(len(token))

    monkeypatch.delenv("AMIGO_DEBUG", raising=False)
    if debug is not None:
        monkeypatch.setenv("AMIGO_DEBUG", debug)
    with pytest.raises(ZeroDivisionError) as caught, mapped("GET", "/x"):
        with_a_bug()
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert ("with_a_bug" in [frame.name for frame in told.stack]) == frames
    assert "hunter2" not in "".join(
        str(frame.locals) for frame in told.stack if frame.name == "with_a_bug"
    )
