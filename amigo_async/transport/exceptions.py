"""Map the exceptions of aiohttp, the operating system and TLS to those of this package.

Tracebacks lose the frames whose local variables would show secrets. To debug this package itself,
set ``AMIGO_DEBUG=1``: the frames are kept, and their local variables are cleared instead.
"""

from __future__ import annotations

import os
import ssl
import sys
import traceback
from collections.abc import Callable, Iterable
from types import SimpleNamespace, TracebackType
from typing import Final

import aiohttp
from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy

from amigo_async.errors import AmigoError, RequestTimeoutError, TransportError
from amigo_async.redact import redact
from amigo_async.transport.aiohttp_compat import ConnectionKey, HttpProcessingError

# Raised before any byte of the request was sent.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ServerFingerprintMismatch,
)


_NO_HEADERS: Final = CIMultiDictProxy[str](CIMultiDict())


class mapped(Struct):  # noqa: N801  # read as a function: `with mapped(...)`
    """Turn exceptions of a request into a `TransportError`.

    Every exception that leaves the context, cancellations included, loses the part of its traceback
    inside the context, because the local variables there would show secrets.

    Args:
        method: The method of the request, for the message.
        path: Its path without the query, for the message.
        secrets: Returns what must not be in the message.
        outer: The exception that was being handled before; set on entering.

    Raises:
        RequestTimeoutError: For all timeouts.
        TransportError: For all other exceptions of aiohttp and the OS, which become its cause.
    """

    method: str
    path: str
    secrets: Callable[[], Iterable[str]] = tuple
    outer: BaseException | None = None

    def __enter__(self) -> None:
        self.outer = sys.exception()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        bare(error, self.secrets(), self.outer)
        if not _is_foreign(error):
            return
        kind = RequestTimeoutError if isinstance(error, TimeoutError) else TransportError
        reason, sent = _reason(error), not isinstance(error, _NOT_SENT)
        raise kind(
            reason, method=self.method, path=self.path, sent=sent, lasting=is_lasting(error)
        ) from error


def _is_foreign(error: BaseException) -> bool:
    """Whether `error` comes from the OS, from TLS, or is defined by aiohttp."""
    if isinstance(error, AmigoError):
        return False
    classes = type(error).__mro__
    return isinstance(error, OSError) or any(c.__module__.startswith("aiohttp.") for c in classes)


def _reason(error: BaseException) -> str:
    text = redact(" ".join((explained(error) or str(error)).split()))
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    if isinstance(error, aiohttp.ClientResponseError) and explained(error) is None:
        return f"the answer is not HTTP ({_flaw(error.message)})"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the connection broke off in the middle of the answer ({text})"
    return text or type(error).__name__


def bare(
    error: BaseException, secrets: Iterable[str] = (), outer: BaseException | None = None
) -> BaseException:
    """`error` and its causes, without tracebacks and without secrets in their messages.

    With ``AMIGO_DEBUG=1`` the tracebacks stay, without local variables.

    Args:
        error: Any exception; those of this package have no secrets anyway.
        secrets: What must not be in a message.
        outer: The exception that the caller was handling before, which is left unchanged.
    """
    secrets = tuple(secrets)
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and link is not outer and id(link) not in seen:
        seen.add(id(link))
        if debugging():
            traceback.clear_frames(link.__traceback__)
        else:
            link.__traceback__ = None
        if not isinstance(link, AmigoError):
            link.args = tuple(redact(a, secrets) if isinstance(a, str) else a for a in link.args)
            fields = vars(link).items()
            vars(link).update({n: redact(v, secrets) for n, v in fields if isinstance(v, str)})
            _forget_credentials(link)
            _forget_answer(link)
        if isinstance(link, UnicodeDecodeError):  # it holds all bytes that were to be decoded
            link.object, link.args = b"", (link.reason,)
        link = link.__cause__ or link.__context__
    return error


def debugging() -> bool:
    """Whether tracebacks of this package's own code are wanted."""
    return os.environ.get("AMIGO_DEBUG", "") not in ("", "0")


def _forget_answer(error: BaseException) -> None:
    """Keep the reason why a response is not HTTP; the bytes after it may be part of a token."""
    if isinstance(error, HttpProcessingError):
        error.message = _flaw(error.message)
        error.args = (error.message,)
    elif isinstance(error, aiohttp.ClientResponseError):
        error.message = _flaw(error.message)


def _flaw(message: str) -> str:
    """The reason, from a message that goes on with the offending bytes."""
    return " ".join(message.partition("\n")[0].partition(":")[0].split())[:80]


def _forget_credentials(error: BaseException) -> None:
    """Drop the request headers and the proxy's user, which aiohttp keeps and shows."""
    error.args = tuple(map(_without_credentials, error.args))
    vars(error).update({name: _without_credentials(v) for name, v in vars(error).items()})


def _without_credentials(value: object) -> object:
    if isinstance(value, aiohttp.RequestInfo):
        return aiohttp.RequestInfo(value.url, value.method, _NO_HEADERS, value.real_url)
    if isinstance(value, ConnectionKey):
        where = {"host": value.host, "port": value.port}
        return SimpleNamespace(**where, is_ssl=value.is_ssl, ssl=value.ssl)
    return value


# OpenSSL's codes for a certificate chain without a known authority.
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
# OpenSSL's reasons for a peer that does not speak TLS; which one depends on its version.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


def is_lasting(error: BaseException) -> bool:
    """Whether the same request would fail again until somebody changes the setup.

    That is so for a certificate that is not trusted, a port that does not speak TLS, an invalid URL
    and credentials that a proxy rejects.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status == 407
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return _speaks_no_tls(error)
    return isinstance(
        error,
        aiohttp.ClientConnectorCertificateError
        | aiohttp.ServerFingerprintMismatch
        | aiohttp.InvalidURL
        | ssl.SSLCertVerificationError,
    )


def explained(error: BaseException) -> str | None:
    """An explanation for users who do not know aiohttp; None if the message of `error` will do."""
    text = None
    match error:
        case aiohttp.ServerFingerprintMismatch():
            text = f"the certificate of {error.host}:{error.port} is not the one that was pinned"
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy refuses to connect: {error.status} {error.message}"
        case aiohttp.ClientConnectorCertificateError():
            text = _certificate(f"{error.host}:{error.port}", error.certificate_error)
        case aiohttp.ClientConnectorSSLError() if _speaks_no_tls(error):
            text = f"{error.host}:{error.port} does not speak TLS; is it plain http?"
        case aiohttp.ClientConnectorSSLError():
            text = f"no agreement on TLS with {error.host}:{error.port} ({error.strerror})"
        case aiohttp.ClientProxyConnectionError():
            text = f"cannot connect to the proxy {error.host}:{error.port} ({_os(error)})"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionResetError):
            # Before a connection exists, hardly anything but a TLS handshake can be reset.
            text = f"{error.host}:{error.port} closed the connection while TLS was agreed upon"
        case aiohttp.InvalidURL():
            text = f"this URL, or that of the proxy, cannot be used: {error}"
    return text


def _certificate(where: str, error: BaseException) -> str:
    why = getattr(error, "verify_message", None) or str(error)
    text = f"the certificate of {where} is refused: {why.rstrip('.')}"
    if getattr(error, "verify_code", None) in _UNKNOWN_AUTHORITY:
        text += "; if its authority is your own, name its file in SSL_CERT_FILE"
    return text


def _speaks_no_tls(error: aiohttp.ClientConnectorSSLError) -> bool:
    return getattr(error.os_error, "reason", None) in _NOT_TLS


def _os(error: aiohttp.ClientConnectorError) -> str:
    return error.os_error.strerror or type(error.os_error).__name__
