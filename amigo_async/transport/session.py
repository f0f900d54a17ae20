"""The calls of one organization: authorized, rate-limited, retried, decoded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import anyio
from msgspec import Struct

from amigo_async.auth import ApiKeyAuth, Authorizer, GivenToken, SignedInToken
from amigo_async.config import Configuration
from amigo_async.decoding import decode_sign_in
from amigo_async.errors import (
    AmigoError,
    APIError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    RateLimitError,
    TransportError,
    is_transient,
)
from amigo_async.events import Events, RequestRetried, SignedIn
from amigo_async.models import SignIn
from amigo_async.protocol.endpoints import SIGN_IN
from amigo_async.protocol.headers import LONGEST_WAIT, read_rate_limit, read_retry_after
from amigo_async.protocol.requests import Request, organization_segment, sign_in
from amigo_async.protocol.responses import Response, api_error, decode_error
from amigo_async.ratelimit import BudgetState, DeniedError, Limiters, Permit, RateLimitInfo
from amigo_async.ratelimit.backend import SharingConnection
from amigo_async.redact import redact_body
from amigo_async.server_clock import ServerClock
from amigo_async.transport.exceptions import bare
from amigo_async.transport.retry import REFUSALS, Retries, fits
from amigo_async.transport.sender import Sender

if TYPE_CHECKING:  # loaded only where budgets are shared
    from amigo_async.ratelimit.shared import SharedLimiters, SharedPermit

T = TypeVar("T")
# Awaits the response to a request that is being sent.
Guard: TypeAlias = Callable[[Coroutine[Any, Any, Response]], Awaitable[Response]]

# Other processes treat a request as lost if its outcome is not reported within the request timeout
# plus these seconds.
_OVERDUE: Final = 5.0

# How often a call that is answered with 401 is sent again with another token. More than one token
# in a row may be refused if it was shared, or revoked in between.
_RENEWALS: Final = 3

# A rate-limit reset up to this many seconds ago comes from a late response. One further off is not
# a time on the server's clock.
_STALE: Final = 5.0


class _Call(Struct, Generic[T], eq=False):
    """A call through all its attempts.

    Attributes:
        request: The request.
        decode: Decodes the body of a success.
        guard: Awaits the response; None to await it directly.
        key: Headers that authorize it instead of a token: those of a sign-in.
        position: Its position in the queue of the limiter, kept after a refusal; None if new.
        response_lost: Whether an attempt may have been carried out without a usable response.
    """

    request: Request
    decode: Callable[[bytes], T]
    guard: Guard | None = None
    key: Mapping[str, str] | None = None
    position: int | None = None
    response_lost: bool = False


class Session:
    """Sends the requests of one client, each through the limiter of its endpoint.

    Args:
        sender: Sends requests over HTTP.
        check: Raises if the client cannot be used; called before each call.
        config: The organization, the base URL and the credentials.
        request_timeout: Seconds that the sender gives one attempt.
        max_attempts: Attempts in all for a request that is repeatable.
        events: Receives events of retries and sign-ins.
        shared: The store where budgets and tokens are shared with other processes; None for none.

    Attributes:
        organization: The organization as a segment of a path.
        clock: The server's clock.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        check: Callable[[], None],
        config: Configuration,
        request_timeout: float,
        max_attempts: int,
        events: Events,
        shared: SharingConnection | None = None,
    ) -> None:
        self.organization = organization_segment(config.organization_id)
        self.clock = sender.clock
        self._sender = sender
        self._shared = shared
        self._limiters = _limiters(config, shared, request_timeout + _OVERDUE)
        self._check = check
        self._max_attempts = max_attempts
        self._events = events
        self._auth: Authorizer
        if isinstance(config.auth, ApiKeyAuth):
            self._key = config.auth
            tokens = None if shared is None else shared.tokens(_token_name(config, config.auth))
            self._auth = SignedInToken(
                self._sign_in, self.clock, config.auth.api_key, self._sign_in_held, tokens
            )
        else:
            self._auth = GivenToken(config.auth, config.organization_id)

    async def call(
        self,
        request: Request,
        decode: Callable[[bytes], T],
        *,
        guard: Guard | None = None,
        attempts: int | None = None,
    ) -> T:
        """Send `request` and decode the response, with retries.

        Args:
            request: The request.
            decode: Decodes the body of a success.
            guard: Awaits the response once the request is being sent; None to await it directly.
            attempts: Attempts in all; None for the client's number if the endpoint is repeatable,
                and for one otherwise. Refusals (429) do not count.

        Raises:
            APIError: If the service refuses.
            TransportError: If there is no response.
            DecodeError: If the response cannot be decoded.
        """
        self._check()
        # Sign in before queueing, so that a wrong key fails once for all, with attempts of its own.
        await self._auth.headers()
        if attempts is None:
            attempts = self._max_attempts if request.endpoint.repeatable else 1
        return await self._with_retries(_Call(request, decode, guard), attempts)

    async def aclose(self) -> None:
        """Release what is shared, and leave no task behind."""
        await self._auth.aclose()
        await self._limiters.aclose()
        if self._shared is not None:
            await self._shared.aclose()

    def budgets(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used so far, by endpoint."""
        return self._limiters.states()

    async def _with_retries(self, call: _Call[T], attempts: int) -> T:
        """Retry transient failures and refusals, which are counted separately."""
        retries, refusals = Retries(attempts), 0
        while True:
            try:
                return await self._attempt(call)
            except RateLimitError as error:
                refusals += 1
                if refusals == REFUSALS or not fits(error.retry_after or 0.0):
                    raise
                delay = 0.0  # the limiter holds the next attempt
                self._report_retry(call.request, refusals, delay, error)
            except AmigoError as error:
                if not is_transient(error):
                    raise
                wait = retries.next_delay(
                    error.retry_after if isinstance(error, APIError) else None
                )
                if wait is None:
                    raise
                delay, refusals = wait, 0
                self._report_retry(call.request, retries.failures, delay, error)
            await anyio.sleep(delay)

    def _report_retry(
        self, request: Request, attempt: int, delay: float, error: AmigoError
    ) -> None:
        self._events.emit(
            RequestRetried(
                endpoint=request.endpoint.name, attempt=attempt, delay=delay, reason=str(error)
            )
        )

    async def _attempt(self, call: _Call[T]) -> T:
        """Send once; after a 401, again with another token."""
        headers, response = await self._send(call)
        renewals = 0 if call.key is not None else _RENEWALS
        while response.status == 401 and renewals and self._auth.refused(headers):
            renewals -= 1
            error = api_error(call.request, response, self._auth.secrets())
            self._report_retry(call.request, _RENEWALS - renewals, 0.0, error)
            headers, response = await self._send(call)
        try:
            return self._outcome(call, response)
        except ConflictError as error:
            error.after_loss = call.response_lost
            raise
        except DecodeError:
            call.response_lost = True
            raise

    async def _sign_in(self) -> SignIn:
        call = _Call(sign_in(self.organization), decode_sign_in, key=self._key.headers())
        answer = await self._with_retries(call, self._max_attempts)
        life = answer.expires_at.timestamp() - self.clock.now()
        self._events.emit(SignedIn(expires_in=max(0.0, life)))
        return answer

    def _sign_in_held(self) -> float:
        """Seconds for which the limiter holds a sign-in at least; 0 while one is in flight."""
        return self._limiters.of(SIGN_IN.name, SIGN_IN.limit).held()

    async def _send(self, call: _Call[T]) -> tuple[Mapping[str, str], Response]:
        """Send through the limiter, with the token that is valid once it admits the request."""
        endpoint = call.request.endpoint
        limiter = self._limiters.of(endpoint.name, endpoint.limit)
        try:
            permit = await limiter.enter(self._events.emit, position=call.position)
        except DeniedError as error:
            raise _denied(call.request, error) from None
        with permit:
            headers = call.key or await self._authorization(permit)
            try:
                sending = self._sender.send(call.request, headers, self._auth.secrets)
                response = await (sending if call.guard is None else call.guard(sending))
            except TransportError as error:
                if not error.sent:
                    permit.unsent()
                call.response_lost |= error.sent
                raise
            except ConfigurationError:  # the client was closed meanwhile
                permit.unsent()
                raise
            refused = response.status == 429
            call.position = permit.position if refused else None
            call.response_lost |= response.status >= 500 or response.status == 408
            info = _rate_limit(response, self.clock)
            if refused:
                permit.refused(_pause(response, info))
            elif info is not None or not _may_be_from_proxy(response.status):
                permit.answered(info)
        return headers, response

    async def _authorization(self, permit: Permit | SharedPermit) -> Mapping[str, str]:
        """The headers with the token, which is renewed if it has expired in the queue."""
        try:
            return await self._auth.headers()
        except BaseException:
            permit.unsent()
            raise

    def _outcome(self, call: _Call[T], response: Response) -> T:
        """The decoded body of a success, or the error."""
        request = call.request
        if not 200 <= response.status < 300:
            raise api_error(request, response, self._auth.secrets())
        try:
            if response.flaw is not None:
                raise response.flaw
            return call.decode(self._without_own_secrets(request, response.body))
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            secrets = self._auth.secrets()
            raise decode_error(request, response, error, secrets) from bare(error, secrets)

    def _without_own_secrets(self, request: Request, body: bytes) -> bytes:
        """`body` without this client's secrets, which errors and justifications may repeat."""
        is_list = bool(request.endpoint.permission)
        return redact_body(body, self._auth.secrets()) if is_list else body


def _rate_limit(response: Response, clock: ServerClock) -> RateLimitInfo | None:
    """The rate-limit headers of a response on the loop's clock; None if missing or implausible."""
    rate, at = read_rate_limit(response.headers), response.received
    if rate is None or not -_STALE <= rate.reset - clock.now(at) <= LONGEST_WAIT:
        return None
    return RateLimitInfo(rate.limit, rate.remaining, rate.reset, at + clock.until(rate.reset, at))


def _pause(response: Response, info: RateLimitInfo | None) -> float | None:
    """Seconds for which a refusal closes the limiter; None if the response does not say."""
    seconds = read_retry_after(response.headers)
    if seconds is None and info is not None:
        seconds = info.resets_at - response.received
    return seconds


def _may_be_from_proxy(status: int) -> bool:
    """Whether a response may come from a proxy, which knows nothing of rate limits."""
    return status >= 500 or status in (407, 408)


def _denied(request: Request, error: DeniedError) -> RateLimitError:
    """The error for a request that was not sent, because an earlier one was refused for long."""
    return RateLimitError(
        method=request.endpoint.method,
        path=request.path,
        status=429,
        detail="an earlier request was refused until then, so this one was not sent",
        retry_after=error.retry_after,
    )


def _limiters(
    config: Configuration, shared: SharingConnection | None, lease: float
) -> Limiters | SharedLimiters:
    limiters = Limiters(config.base_url, config.organization_id)
    return limiters if shared is None else shared.limiters(limiters, _owner(config), lease)


def _owner(config: Configuration) -> str:
    """The name under which processes share budgets."""
    return f"{config.base_url}/{config.organization_id}"


def _token_name(config: Configuration, key: ApiKeyAuth) -> str:
    """The name under which processes share a token."""
    return f"{_owner(config)}:{key.api_key_id}:{key.user_id}"
