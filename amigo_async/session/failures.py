"""The one place where the exceptions of aiohttp, the OS and TLS become ours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import http_exceptions, streams
from aiohttp.http_websocket import WebSocketError

from amigo_async.errors import RequestTimeoutError, TransportError
from amigo_async.redact import redact

# Everything aiohttp may raise out of a request; the rest of its classes derive from these.
FOREIGN: tuple[type[Exception], ...] = (
    aiohttp.ClientError,
    aiohttp.ClientConnectionResetError,
    http_exceptions.HttpProcessingError,
    streams.EofStream,
    WebSocketError,
    ssl.SSLError,
    OSError,
    TimeoutError,
)
# Raised before a single byte of the request has left.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ClientProxyConnectionError,
)


@contextmanager
def mapped(method: str, path: str) -> Iterator[None]:
    """Turn what goes wrong with a request into a `TransportError`.

    Args:
        method: The method of the request, for the message.
        path: Its path without the query, for the message.

    Raises:
        RequestTimeoutError: For every kind of timeout.
        TransportError: For everything else that aiohttp and the OS raise. The cause is
            attached without its traceback, whose local variables would show secrets.
    """
    try:
        yield
    except FOREIGN as error:
        kind = RequestTimeoutError if isinstance(error, TimeoutError) else TransportError
        sent = not isinstance(error, _NOT_SENT)
        raise kind(_reason(error), method=method, path=path, sent=sent) from _bare(error)


def _reason(error: Exception) -> str:
    text = redact(" ".join(str(error).split()))
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the connection broke off in the middle of the answer ({text})"
    return text or type(error).__name__


def _bare(error: BaseException) -> BaseException:
    """`error` and what led to it, without tracebacks and without queries in their messages."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link.args = tuple(redact(a) if isinstance(a, str) else a for a in link.args)
        link = link.__cause__ or link.__context__
    return error
