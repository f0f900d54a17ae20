"""Puts requests on the wire and reads the responses, through aiohttp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from amigo_async.config import Configuration
from amigo_async.protocol.headers import read_date
from amigo_async.protocol.requests import Request
from amigo_async.protocol.responses import Response
from amigo_async.server_clock import ServerClock
from amigo_async.transport.aiohttp_compat import HEADER_LIMITS
from amigo_async.transport.body import ACCEPTED, body_at_hand, read_body
from amigo_async.transport.exceptions import mapped
from amigo_async.transport.expiry import Expiry
from amigo_async.version import __version__

_JSON = {"Content-Type": "application/json"}


class Sender:
    """Sends the requests of one client, each as it comes; the session says which, and when.

    Args:
        http: Gives the aiohttp session to use; called for each request.
        config: Where the API is, and the user's headers.
        request_timeout: Seconds for one attempt, from connecting to the end of the body.
        max_response_bytes: How many bytes the body of a response may have.

    Attributes:
        clock: The server's clock, as the responses tell it.
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
        self._credentials: Mapping[str, str] | None = None
        self._all_headers: CIMultiDict[str] = CIMultiDict()
        self._expiry = Expiry(request_timeout)
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=request_timeout, ceil_threshold=math.inf
        )
        self._most = max_response_bytes

    def close(self) -> None:
        """Leave no timer."""
        self._expiry.close()

    async def send(
        self, request: Request, credentials: Mapping[str, str], secrets: Callable[[], Iterable[str]]
    ) -> Response:
        """Put `request` on the wire and read the response to its end.

        Args:
            request: The request.
            credentials: The headers that authorize it.
            secrets: Gives what must not be in the message of an error.

        Raises:
            ConfigurationError: If the client is closed; nothing was sent.
            TransportError: If no answer comes.
        """
        method, path = request.endpoint.method, request.path
        url = f"{self._base_url}{path}?{request.query}" if request.query else self._base_url + path
        headers = self._with(credentials)
        if request.body is not None:
            headers = CIMultiDict(headers, **_JSON)
        with mapped(method, path, secrets):
            return await self._exchange(method, URL(url, encoded=True), headers, request.body)

    def _with(self, credentials: Mapping[str, str]) -> CIMultiDict[str]:
        """All headers, in the form in which aiohttp takes them as they are."""
        if credentials is not self._credentials:
            self._credentials = credentials
            self._all_headers = CIMultiDict({**self._headers, **credentials})
        return self._all_headers

    async def _exchange(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | None
    ) -> Response:
        """Talk to aiohttp; `mapped` leaves this frame, whose variables show much, out of errors."""
        sent = self.clock.loop_time()
        with self._expiry.attempt(sent):
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
            received = self.clock.loop_time()
            flaw = None
            if (content := body_at_hand(answer, self._most)) is None:
                content, flaw = await read_body(answer, self._most)
        date = read_date(answer.headers)
        if date is not None:
            self.clock.observe(date, sent, received)
        return Response(answer.status, answer.headers, content, flaw, received)
