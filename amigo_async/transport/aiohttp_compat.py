"""All that this package uses of aiohttp without a public name, and what differs by its version.

Nothing of it would be missed with an error if aiohttp gave it another name: a request would be sent
twice, a proxy not be used. So ``tests/unit/test_aiohttp_compat.py`` fails then, and no other module
touches a private name of aiohttp.
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


# A gateway's policies and cookies take more than the 8 KiB and 128 lines that aiohttp allows by
# default. A kibibyte more than 64 is for the name of the header, and twenty lines for what servers
# add to a thousand.
HEADER_LIMITS: Final[_HeaderLimits] = {"max_line_size": 65 * 1024, "max_field_size": 65 * 1024}
if "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters:  # since 3.14
    HEADER_LIMITS["max_headers"] = 1_020


def without_replay(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """A session that does as `session`, but leaves it to us to send a request again.

    On a connection that turns out to have been closed aiohttp sends a GET or a DELETE again by
    itself: past the limiter, in spite of ``max_attempts=1``, and without a word, so that a cancel
    whose answer was lost would raise the conflict that it has made itself.

    The session given is its owner's and stays as it is. The one returned shares with it all there
    is: connections, headers, cookies, proxy, middlewares and tracing. It is not to be closed, which
    would close the connections of both, but to be detached.
    """
    other = copy.copy(session)
    other._retry_connection = False  # noqa: SLF001  # there is no public switch
    return other


def loop_of(session: aiohttp.ClientSession) -> asyncio.AbstractEventLoop:
    """The event loop that `session` belongs to; its public name is on its way out."""
    return session._loop  # noqa: SLF001


def has_authorization(session: aiohttp.ClientSession) -> bool:
    """Whether `session` sends an authorization of its own; ``auth`` is on its way out."""
    return session._default_auth is not None or "authorization" in session.headers  # noqa: SLF001


def proxy_of(session: aiohttp.ClientSession) -> URL | None:
    """What `session` was given as ``proxy`` and ``proxy_auth``; None if nothing was."""
    if session._default_proxy is None:  # noqa: SLF001
        return None
    proxy, auth = URL(session._default_proxy), session._default_proxy_auth  # noqa: SLF001
    return proxy if auth is None else proxy.with_user(auth.login).with_password(auth.password)


def unread(content: aiohttp.StreamReader) -> bytes:
    """What of a body had come before its connection broke, and was not read.

    aiohttp raises as soon as it knows. Without these bytes as much as a whole buffer would be
    fetched again, and a store that breaks off early every time would never come to an end.
    """
    return b"".join(content._buffer)[content._buffer_offset :]  # noqa: SLF001
