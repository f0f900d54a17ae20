"""The one place where the exceptions of aiohttp, the OS and TLS become ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from amigo_async.errors import AmigoError, RequestTimeoutError, TransportError
from amigo_async.redact import redact

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
    outer = sys.exception()
    try:
        yield
    except Exception as error:
        if not _is_foreign(error):
            raise
        kind = RequestTimeoutError if isinstance(error, TimeoutError) else TransportError
        sent = not isinstance(error, _NOT_SENT)
        raise kind(_reason(error), method=method, path=path, sent=sent) from _bare(error, outer)


def _is_foreign(error: Exception) -> bool:
    """Whether `error` comes from the network: of the OS, of TLS, or any that aiohttp defines."""
    if isinstance(error, AmigoError):
        return False
    classes = type(error).__mro__
    return isinstance(error, OSError) or any(c.__module__.startswith("aiohttp.") for c in classes)


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


def _bare(error: BaseException, outer: BaseException | None) -> BaseException:
    """`error` and what led to it, without tracebacks and without queries in their messages.

    `outer`, which the caller was handling before, is not touched: it is the caller's.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and link is not outer and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link.args = tuple(redact(a) if isinstance(a, str) else a for a in link.args)
        link = link.__cause__ or link.__context__
    return error
