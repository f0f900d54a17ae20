"""One session for one organization: requests go out, structs or our errors come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import aiohttp
import anyio
import backoff
from yarl import URL

from amigo_async.auth import ApiKeyAuth, Authorizer, GivenToken, SignedInToken
from amigo_async.clock import ServerClock
from amigo_async.config import Configuration
from amigo_async.errors import AmigoError, RateLimitError, TransportError
from amigo_async.events import Events, RequestRetried, SignedIn
from amigo_async.limits import BudgetState, Gates, Told
from amigo_async.models import SignIn, decode_sign_in
from amigo_async.session import retry
from amigo_async.session.failures import mapped
from amigo_async.version import __version__
from amigo_async.wire.headers import (
    LONGEST_WAIT,
    read_date,
    read_rate_limit,
    read_retry_after,
)
from amigo_async.wire.requests import Request, organization_segment, sign_in
from amigo_async.wire.responses import Response, api_error, decode_error

T = TypeVar("T")
# How the answer to a request that is on the wire is awaited.
Guard: TypeAlias = Callable[[Coroutine[Any, Any, Response]], Awaitable[Response]]
_Call: TypeAlias = Callable[..., Awaitable[Any]]

# A budget's reset that has passed by less than this, in seconds, is news that came late; one that
# is further off is not an instant on the server's clock.
_STALE = 5.0


class Arrival:
    """One call on its way: whether the gate refused it before, and how its answer is awaited."""

    __slots__ = ("guard", "refused")

    def __init__(self, guard: Guard | None = None) -> None:
        self.guard = guard
        self.refused = False


class Session:
    """Sends the requests of one client, each through the gate of its endpoint.

    Args:
        http: Gives the aiohttp session to use; called for each request, inside a running loop.
        config: The organization, where the API is, the credentials and the user's headers.
        request_timeout: Seconds for one attempt, from connecting to the end of the body.
        max_attempts: How often a request that may be repeated is sent in all.
        events: Hears of retries and sign ins.

    Attributes:
        organization: The organization as a segment of a path.
        clock: The server's clock.
    """

    def __init__(
        self,
        *,
        http: Callable[[], aiohttp.ClientSession],
        config: Configuration,
        request_timeout: float,
        max_attempts: int,
        events: Events,
    ) -> None:
        self.organization = organization_segment(config.organization_id)
        self.clock = ServerClock()
        self._gates = Gates(config.base_url, config.organization_id)
        self._http = http
        self._base_url = config.base_url
        self._headers = {
            "Accept": "application/json",
            "User-Agent": f"amigo_async/{__version__}",
            **config.headers,
        }
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._events = events
        self._auth: Authorizer
        if isinstance(config.auth, ApiKeyAuth):
            self._key = config.auth
            self._auth = SignedInToken(self._sign_in, self.clock, config.auth.api_key)
        else:
            self._auth = GivenToken(config.auth, config.organization_id)
        self._once = self._with_refusals(self._authorized)
        self._replayed = self._with_retries(self._once, max_attempts)
        self._signed_in = self._with_retries(self._with_refusals(self._with_key), max_attempts)

    async def call(self, request: Request, decode: Callable[[bytes], T]) -> T:
        """Send `request` and decode the answer; what may pass is tried again.

        Raises:
            APIError: If the service says no.
            TransportError: If no answer comes.
            DecodeError: If the answer cannot be decoded.
        """
        return cast(T, await self._replayed(request, decode, Arrival()))

    async def call_once(self, request: Request, decode: Callable[[bytes], T], guard: Guard) -> T:
        """Send `request` until it is not refused, for one that must not be repeated blindly.

        A request that was refused (429) did nothing, and goes again when its gate opens.

        Args:
            request: The request.
            decode: Decodes the body of a success.
            guard: Awaits the answer once the request is past the gate.

        Raises:
            APIError: If the service says no.
            TransportError: If no answer comes.
            DecodeError: If the answer cannot be decoded.
        """
        return cast(T, await self._once(request, decode, Arrival(guard)))

    async def _authorized(
        self, request: Request, decode: Callable[[bytes], T], arrival: Arrival
    ) -> T:
        """Send with a token; one that is refused is renewed, once."""
        await self._auth.headers()  # before the queue: a wrong key fails here, once for all
        headers, response = await self._pass(request, self._auth.headers, arrival)
        if response.status == 401 and self._auth.refused(headers):
            _, response = await self._pass(request, self._auth.headers, arrival)
        return self._outcome(request, response, decode)

    async def _sign_in(self) -> SignIn:
        request = sign_in(self.organization)
        answer: SignIn = await self._signed_in(request, decode_sign_in, Arrival())
        life = answer.expires_at.timestamp() - self.clock.now()
        self._events.emit(SignedIn(expires_in=max(0.0, life)))
        return answer

    async def _with_key(
        self, request: Request, decode: Callable[[bytes], SignIn], arrival: Arrival
    ) -> SignIn:
        async def key() -> Mapping[str, str]:
            return self._key.headers()

        _, response = await self._pass(request, key, arrival)
        return self._outcome(request, response, decode)

    async def _pass(
        self,
        request: Request,
        credentials: Callable[[], Awaitable[Mapping[str, str]]],
        arrival: Arrival,
    ) -> tuple[Mapping[str, str], Response]:
        """Send through the gate, with the credentials that are valid when it opens."""
        endpoint = request.endpoint
        gate = self._gates.of(endpoint.name, endpoint.limit)
        with await gate.enter(self._events.emit, again=arrival.refused) as permit:
            try:
                headers = await credentials()
            except BaseException:
                permit.unused()
                raise
            try:
                sending = self._send(request, headers)
                response = await (arrival.guard(sending) if arrival.guard else sending)
            except TransportError as error:
                if not error.sent:
                    permit.unused()
                raise
            arrival.refused = response.status == 429
            if arrival.refused:
                permit.refused(self._pause(response))
            else:
                permit.answered(self._told(response))
        return headers, response

    async def _send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Put `request` on the wire and read the response to its end."""
        method, path = request.endpoint.method, request.path
        url = f"{self._base_url}{path}?{request.query}" if request.query else self._base_url + path
        sent = anyio.current_time()
        with mapped(method, path):
            async with self._http().request(
                method,
                URL(url, encoded=True),
                headers={**self._headers, **headers, **_content_type(request)},
                data=request.body,
                timeout=self._timeout,
                allow_redirects=False,
                raise_for_status=False,
            ) as answer:
                received = anyio.current_time()
                body = await answer.read()
        date = read_date(answer.headers)
        if date is not None:
            self.clock.observe(date, sent, received)
        return Response(answer.status, answer.headers, body)

    def _outcome(self, request: Request, response: Response, decode: Callable[[bytes], T]) -> T:
        """The struct of a response, or the error."""
        secrets = self._auth.secrets()
        if not 200 <= response.status < 300:
            raise api_error(request, response, secrets)
        try:
            return decode(response.body)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise decode_error(request, response, error, secrets) from error

    def budgets(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used so far, by endpoint."""
        return self._gates.states()

    def _told(self, response: Response) -> Told | None:
        """What a response tells of its budget; None where it makes no sense on its own clock."""
        rate = read_rate_limit(response.headers)
        if rate is None or not -_STALE <= rate.reset - self.clock.now() <= LONGEST_WAIT:
            return None
        turns_at = anyio.current_time() + self.clock.until(rate.reset)
        return Told(rate.limit, rate.remaining, rate.reset, turns_at)

    def _pause(self, response: Response) -> float | None:
        """For how long a refusal closes the budget; None where it does not say."""
        pause = read_retry_after(response.headers)
        if pause is None:
            told = self._told(response)
            pause = None if told is None else told.turns_at - anyio.current_time()
        return None if pause is None else min(pause, LONGEST_WAIT)

    def _with_retries(self, call: _Call, attempts: int) -> _Call:
        return backoff.on_exception(
            retry.delays,
            AmigoError,
            max_tries=attempts,
            giveup=lambda error: not retry.may_pass(error),
            on_backoff=self._tell,
            jitter=None,
            logger=None,
        )(call)

    def _with_refusals(self, call: _Call) -> _Call:
        """Refusals have a count of their own: the gate paces them, and nothing has been done."""
        return backoff.on_exception(
            retry.refusals,
            RateLimitError,
            max_tries=retry.REFUSALS,
            on_backoff=self._tell,
            jitter=None,
            logger=None,
        )(call)

    def _tell(self, details: Any) -> None:
        request: Request = details["args"][0]
        self._events.emit(
            RequestRetried(
                endpoint=request.endpoint.name,
                attempt=details["tries"],
                delay=details["wait"],
                reason=str(details["exception"]),
            )
        )


def _content_type(request: Request) -> Mapping[str, str]:
    return {} if request.body is None else {"Content-Type": "application/json"}
