"""GET from the artifact store: nothing of ours goes along, nothing secret comes back in errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from amigo_async.errors import TransportError
from amigo_async.redact import SecretUrl
from amigo_async.session.failures import mapped
from amigo_async.wire.links import UnsafeLinkError, check_link, redirect_target

CONNECT_TIMEOUT: Final = 30.0
READ_TIMEOUT: Final = 60.0
MAX_REDIRECTS: Final = 5
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

    def __init__(self, response: aiohttp.ClientResponse, path: str) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._content = response.content
        self._path = path
        self._broken: TransportError | None = None

    async def read(self) -> bytes:
        """The next bytes as they come; empty at the end of the body.

        Raises:
            TransportError: If the connection broke, stalled, or ended before the body did.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return await _mapped(self._path, self._read())
        except TransportError as error:
            self._broken = error
        if rest := _unread(self._content):
            return rest
        raise self._broken

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
        connect_timeout: Seconds for a connection to come about.
        read_timeout: Seconds without a byte after which a connection is given up. There is no
            limit on the whole, however long it takes.
    """

    def __init__(
        self,
        http: Callable[[], aiohttp.ClientSession],
        *,
        allow_http: bool,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._http = http
        self._allow_http = allow_http
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
            async with self._get(target, headers) as response:
                if response.status not in _REDIRECTS:
                    yield StoreBody(response, _path(target))
                    return
                location = SecretUrl(response.headers.get("Location", ""))
            target = redirect_target(target, location, allow_http=self._allow_http)
        raise UnsafeLinkError("the store redirects without end")

    @asynccontextmanager
    async def _get(
        self, url: SecretUrl, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. The response is closed rather than read to its end on the way out."""
        request = self._http().get(
            URL(str(url), encoded=True),
            headers={"Accept": "*/*", "Accept-Encoding": "identity", **headers},
            timeout=self._timeout,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            read_bufsize=_BUFFER,
        )
        response = await _mapped(_path(url), request)
        try:
            yield response
        finally:
            # Where the body was read to its end the connection is back in the pool already.
            response.close()


def _unread(content: aiohttp.StreamReader) -> bytes:
    """What had come before the connection broke.

    aiohttp raises as soon as it knows, and keeps what it has in attributes that are private.
    Without them nothing is wrong, but as much as a whole buffer would be fetched again, and a
    store that breaks off early every time would never come to an end.
    """
    return b"".join(getattr(content, "_buffer", ()))[getattr(content, "_buffer_offset", 0) :]


def _path(url: str) -> str:
    return urlsplit(url).path


async def _mapped(path: str, asking: Awaitable[T]) -> T:
    """Map foreign exceptions, then drop them: some hold the whole URL in their attributes."""
    try:
        with mapped("GET", path):
            return await asking
    except TransportError as error:
        ours = error
    ours.__cause__ = ours.__context__ = None
    raise ours.with_traceback(None)
