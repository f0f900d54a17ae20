"""Send GET requests to the artifact store, without credentials and without secrets in errors."""

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
# The least length of a query value that may be a secret; dates and the like are shorter.
_LONG: Final = 20
# aiohttp buffers up to twice as many bytes before it stops reading from the socket.
_BUFFER: Final = 512 * 1024

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class StoreBody:
    """A response of the store, with a body to be read in chunks.

    Attributes:
        status: The HTTP status.
        headers: The headers, with names in lower case.
    """

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._content = response.content
        self._url = url
        self._broken: TransportError | None = None

    async def read(self) -> bytes:
        """Return the next bytes as they arrive; empty at the end of the body.

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
        """Close the connection; after the end of the body, it is in the pool already."""
        self._response.close()

    async def _read(self) -> bytes:
        while True:
            # Unlike readany(), this returns chunks as they came from the socket, without copying.
            data, chunk_ended = await self._content.readchunk()
            if data or not chunk_ended:
                return data


class Store:
    """Sends requests to the artifact store.

    Args:
        http: Returns the aiohttp session, which must have no headers, cookies or credentials.
        allow_http: Whether URLs may be plain http, as they may if the base URL is.
        proxy: Returns the proxy for a URL, or None for no proxy; None never uses a proxy.
        connection: A context that is entered while a response is open, to limit connections.
        connect_timeout: Seconds to establish a connection.
        read_timeout: Seconds without a new byte after which a connection is closed. The whole
            response has no time limit.
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
        """Send a GET for `url`, unchanged, and follow redirects.

        Args:
            url: The URL. It is not normalized, because its signature covers it.
            headers: The request headers: ``Range`` and conditions.

        Raises:
            TransportError: If there is no response (`RequestTimeoutError`: not in time).
            UnsafeLinkError: If the URL, or one that it redirects to, must not be requested.
        """
        target = SecretUrl(url)
        check_link(target, allow_http=self._allow_http)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._connection():
                body = await self._get(target, headers)
                try:
                    location = SecretUrl(body.headers.get("location", ""))
                    # For a bucket in another region, S3 answers with a redirect without a location.
                    if body.status not in _REDIRECTS or not location:
                        yield body
                        return
                finally:
                    body.close()  # rather than read to its end
            target = redirect_target(target, location, allow_http=self._allow_http)
        raise UnsafeLinkError("the store redirects without end")

    async def _get(self, url: SecretUrl, headers: Mapping[str, str]) -> StoreBody:
        """Send one request.

        The response, which shows its URL, must not be in a local variable of a traceback.
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
    """Parts of `url` that a store may repeat without the URL around them."""
    query = urlsplit(url).query
    long = (value for _, value in parse_qsl(query) if len(value) >= _LONG)
    return (Secret(query), *map(Secret, long))


async def _mapped(url: str, asking: Awaitable[T]) -> T:
    """Map foreign exceptions and drop the causes, some of which hold the whole URL."""
    try:
        with mapped("GET", _path(url), lambda: _secrets(url)):
            return await asking
    except TransportError as error:
        ours = error
    ours.__cause__ = ours.__context__ = None
    raise ours.with_traceback(None)
