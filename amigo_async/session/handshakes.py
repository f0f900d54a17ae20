"""Why no connection came about, as far as TLS and proxies are concerned. No I/O."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp

# OpenSSL's codes for a chain that does not lead to an authority that is known here.
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
# Its names for a first byte that is not TLS; which one depends on its version.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


def is_lasting(error: BaseException) -> bool:
    """Whether the same request would fail in the same way, however often it is sent.

    So do a certificate that is refused, a port that does not speak TLS, a URL that cannot be
    used and credentials that a proxy refuses: somebody has to see to them.
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
    """What is wrong, for somebody who does not know aiohttp; None where `error` says it itself."""
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
            # Of all that can be reset before there is a connection, only a handshake is likely.
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
