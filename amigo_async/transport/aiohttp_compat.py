"""Everything private that this package uses of aiohttp, and what differs between its versions.

If aiohttp renamed any of it, no error would be raised: a request would be sent twice, or a proxy
would not be used. So ``tests/unit/test_aiohttp_compat.py`` fails in that case, and no other module
uses a private name of aiohttp.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from typing import Final, TypedDict

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

__all__ = [
    "HEADER_LIMITS",
    "ConnectionKey",
    "HttpProcessingError",
    "has_authorization",
    "loop_of",
    "proxy_of",
    "unread",
    "without_replay",
]


class _HeaderLimits(TypedDict, total=False):
    max_line_size: int
    max_field_size: int
    max_headers: int


# The policies and cookies of a gateway may exceed aiohttp's defaults of 8 KiB and 128 lines. Values
# may have 64 KiB, with one more for the name, and there may be a thousand headers, with
# twenty more for those that servers add.
HEADER_LIMITS: Final[_HeaderLimits] = {"max_line_size": 65 * 1024, "max_field_size": 65 * 1024}
if "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters:  # since 3.14
    HEADER_LIMITS["max_headers"] = 1_020


def without_replay(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """A copy of `session` that does not repeat requests by itself.

    On a keep-alive connection that turns out to be closed, aiohttp sends a GET or a DELETE again:
    past the limiter, in spite of ``max_attempts=1``, and silently, so that a cancel request whose
    response was lost would be answered with a conflict that it caused itself.

    `session` belongs to its owner and is not changed. The copy shares everything with it:
    connections, headers, cookies, proxy, middlewares and tracing. It must be detached rather than
    closed, which would close the connections of both.
    """
    other = copy.copy(session)
    other._retry_connection = False  # noqa: SLF001  # there is no public switch
    return other


def loop_of(session: aiohttp.ClientSession) -> asyncio.AbstractEventLoop:
    """The event loop that `session` belongs to; the public property is deprecated."""
    return session._loop  # noqa: SLF001


def has_authorization(session: aiohttp.ClientSession) -> bool:
    """Whether `session` sends an authorization; its property ``auth`` is deprecated."""
    return session._default_auth is not None or "authorization" in session.headers  # noqa: SLF001


def proxy_of(session: aiohttp.ClientSession) -> URL | None:
    """The ``proxy`` of `session`, with its ``proxy_auth``; None without one."""
    if session._default_proxy is None:  # noqa: SLF001
        return None
    proxy, auth = URL(session._default_proxy), session._default_proxy_auth  # noqa: SLF001
    return proxy if auth is None else proxy.with_user(auth.login).with_password(auth.password)


def unread(content: aiohttp.StreamReader) -> bytes:
    """The bytes of a body that were received before its connection broke, but not read.

    aiohttp raises at once in that case. Without these bytes, up to a whole buffer would be fetched
    again, and a download from a store that breaks every connection early would never end.
    """
    return b"".join(content._buffer)[content._buffer_offset :]  # noqa: SLF001
