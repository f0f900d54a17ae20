"""Sends requests over HTTP and reads their responses, with aiohttp."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import aiohttp
from yarl import URL

from amigo_async.config import Configuration
from amigo_async.protocol.headers import read_date
from amigo_async.protocol.requests import Request
from amigo_async.protocol.responses import Response
from amigo_async.server_clock import ServerClock
from amigo_async.transport.aiohttp_compat import HEADER_LIMITS
from amigo_async.transport.body import ACCEPTED, read_body
from amigo_async.transport.exceptions import mapped
from amigo_async.version import __version__

_JSON: Final = {"Content-Type": "application/json"}

# Seconds that the limit on a whole attempt exceeds the limit on connecting, so that the latter
# fires first: its error says that nothing was sent.
_MARGIN: Final = 0.1


class Sender:
    """Sends the requests of one client, without limits or retries.

    Args:
        http: Returns the aiohttp session to use; called for each request.
        config: The base URL and the user's headers.
        request_timeout: Seconds for one attempt, from connecting to the end of the body.
        max_response_bytes: Bytes that the body of a response may have.

    Attributes:
        clock: The server's clock, estimated from the responses.
    """

    def __init__(
        self,
        *,
        http: Callable[[], aiohttp.ClientSession],
        config: Configuration,
        request_timeout: float,
        max_response_bytes: int,
    ) -> None:
        self.clock = ServerClock()
        self._http = http
        self._base_url = config.base_url
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": ACCEPTED,
            "User-Agent": f"amigo_async/{__version__}",
            **config.headers,
        }
        self._seconds = request_timeout + _MARGIN
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=request_timeout, ceil_threshold=math.inf
        )
        self._max_bytes = max_response_bytes

    async def send(
        self, request: Request, credentials: Mapping[str, str], secrets: Callable[[], Iterable[str]]
    ) -> Response:
        """Send `request` and read the response to its end.

        Args:
            request: The request.
            credentials: The headers that authorize it.
            secrets: Returns what error messages must not contain.

        Raises:
            ConfigurationError: If the client is closed; nothing was sent.
            TransportError: If there is no response.
        """
        method, path = request.endpoint.method, request.path
        url = f"{self._base_url}{path}?{request.query}" if request.query else self._base_url + path
        headers = {**self._headers, **credentials}
        if request.body is not None:
            headers |= _JSON
        with mapped(method, path, secrets):
            return await self._exchange(method, URL(url, encoded=True), headers, request.body)

    async def _exchange(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Use aiohttp in a frame of its own, which `mapped` cuts from tracebacks.

        Its local variables show secrets.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._seconds):
            sent = loop.time()
            answer = await self._http().request(
                method,
                url,
                headers=headers,
                data=body,
                timeout=self._timeout,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
                **HEADER_LIMITS,
            )
            received = loop.time()
            content, flaw = await read_body(answer, self._max_bytes)
        date = read_date(answer.headers)
        if date is not None:
            self.clock.observe(date, sent, received)
        return Response(answer.status, answer.headers, content, flaw, received)
