"""GET from the artifact store: nothing of ours goes along, nothing secret comes back in errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from yarl import URL

from amigo_async.errors import TransportError
from amigo_async.protocol.urls import UnsafeLinkError, check_link, redirect_target
from amigo_async.redact import Secret, SecretUrl
from amigo_async.transport.aiohttp_compat import HEADER_LIMITS, unread
from amigo_async.transport.exceptions import mapped

CONNECT_TIMEOUT: Final = 30.0
READ_TIMEOUT: Final = 60.0
MAX_REDIRECTS: Final = 5
# Characters from which on a value in a query may be a secret: dates and the like are shorter.
_LONG: Final = 20
# What aiohttp holds before it stops reading from the socket is twice this.
_BUFFER: Final = 512 * 1024

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class StoreBody:
    """A response of the store whose body is read piece by piece.

    Attributes:
        status: The status.
        headers: The headers, their names in lower case.
    """

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._content = response.content
        self._url = url
        self._broken: TransportError | None = None

    async def read(self) -> bytes:
        """The next bytes as they come; empty at the end of the body.

        Raises:
            TransportError: If the connection broke, stalled, or ended before the body did.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return await _mapped(self._url, self._read())
        except TransportError as error:
            self._broken = error
        if rest := unread(self._content):
            return rest
        raise self._broken

    def close(self) -> None:
        """Let go of the connection; one whose body was read to its end is in the pool already."""
        self._response.close()

    async def _read(self) -> bytes:
        while True:
            # Unlike readany() this joins nothing: each piece is as it came from the socket.
            data, chunk_ended = await self._content.readchunk()
            if data or not chunk_ended:
                return data


class Store:
    """Opens URLs of the artifact store.

    Args:
        http: Gives the session. It must have no headers, cookies or credentials of its own.
        allow_http: Whether URLs may be plain http, as they may where the base URL is.
        proxy: Gives the proxy for a URL, or None for none; None for no proxy ever.
        connection: To be entered for as long as a response is open; None for nothing.
        connect_timeout: Seconds for a connection to come about.
        read_timeout: Seconds without a byte after which a connection is given up. There is no
            limit on the whole, however long it takes.
    """

    def __init__(
        self,
        http: Callable[[], aiohttp.ClientSession],
        *,
        allow_http: bool,
        proxy: Callable[[str], URL | None] | None = None,
        connection: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._http = http
        self._allow_http = allow_http
        self._proxy = proxy
        self._connection = connection
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout, sock_read=read_timeout
        )

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[StoreBody]:
        """Ask for `url`, as it is, and follow where it leads.

        Args:
            url: The URL, which is not changed in any way: its signature covers it.
            headers: The headers of the request; ``Range`` and conditions.

        Raises:
            TransportError: If no answer came (`RequestTimeoutError`: not in time).
            UnsafeLinkError: If the URL, or one it redirects to, must not be asked.
        """
        target = SecretUrl(url)
        check_link(target, allow_http=self._allow_http)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._connection():
                body = await self._get(target, headers)
                try:
                    location = SecretUrl(body.headers.get("location", ""))
                    # One that leads nowhere is an answer: S3 says so of a bucket in another region.
                    if body.status not in _REDIRECTS or not location:
                        yield body
                        return
                finally:
                    body.close()  # rather than read to its end
            target = redirect_target(target, location, allow_http=self._allow_http)
        raise UnsafeLinkError("the store redirects without end")

    async def _get(self, url: SecretUrl, headers: Mapping[str, str]) -> StoreBody:
        """One request.

        The response is in no local variable: it shows its URL, and an error may come this way.
        """
        request = self._http().get(
            URL(str(url), encoded=True),
            proxy=None if self._proxy is None else self._proxy(url),
            headers={"Accept": "*/*", "Accept-Encoding": "identity", **headers},
            timeout=self._timeout,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            read_bufsize=_BUFFER,
            **HEADER_LIMITS,
        )
        return StoreBody(await _mapped(url, request), url)


def _path(url: str) -> str:
    return urlsplit(url).path


def _secrets(url: str) -> tuple[Secret, ...]:
    """What of `url` a store may repeat in a form in which it is not recognized as a URL."""
    query = urlsplit(url).query
    long = (value for _, value in parse_qsl(query) if len(value) >= _LONG)
    return (Secret(query), *map(Secret, long))


async def _mapped(url: str, asking: Awaitable[T]) -> T:
    """Map foreign exceptions, then drop them: some hold the whole URL in their attributes."""
    try:
        with mapped("GET", _path(url), lambda: _secrets(url)):
            return await asking
    except TransportError as error:
        ours = error
    ours.__cause__ = ours.__context__ = None
    raise ours.with_traceback(None)
