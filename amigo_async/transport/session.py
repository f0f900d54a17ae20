"""One session for one organization: requests go out, structs or our errors come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import backoff
from msgspec import Struct

from amigo_async.auth import ApiKeyAuth, Authorizer, GivenToken, SignedInToken
from amigo_async.config import Configuration
from amigo_async.decoding import decode_sign_in
from amigo_async.errors import (
    AmigoError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    RateLimitError,
    TransportError,
    is_transient,
)
from amigo_async.events import Events, RequestRetried, SignedIn
from amigo_async.models import SignIn
from amigo_async.protocol.endpoints import LIST, SIGN_IN
from amigo_async.protocol.requests import Request, organization_segment, sign_in
from amigo_async.protocol.responses import Response, api_error, decode_error
from amigo_async.ratelimit import BudgetState, DeniedError, Gates, Permit
from amigo_async.ratelimit.backend import Shared
from amigo_async.redact import redact_body
from amigo_async.transport import rate_headers as budgets
from amigo_async.transport import retry
from amigo_async.transport.exceptions import bare
from amigo_async.transport.sender import Sender

if TYPE_CHECKING:  # whoever shares nothing does not load it
    from amigo_async.ratelimit.shared import SharedGates, SharedPermit

T = TypeVar("T")
# How the answer to a request that is on the wire is awaited.
Guard: TypeAlias = Callable[[Coroutine[Any, Any, Response]], Awaitable[Response]]
_Call: TypeAlias = Callable[..., Awaitable[Any]]

# A call of which other processes hear nothing for this many seconds longer than a request can
# take is taken for lost by them.
_OVERDUE = 5.0

# How often a call that is answered with 401 is sent again with another token: a token that was
# shared, or is revoked just then, may be refused more than once in a row.
_RENEWALS = 3


class Arrival(Struct, eq=False):
    """One call on its way.

    Attributes:
        guard: How its answer is awaited; None for as it comes.
        turn: Its place at the gate, where it was let through before and refused; else None.
        lost: Whether an answer was lost, of which it is not known what it was.
        failure: How it has failed without `backoff`, which has yet to hear of it; None for not.
    """

    guard: Guard | None = None
    turn: int | None = None
    lost: bool = False
    failure: AmigoError | None = None


class Session:
    """Sends the requests of one client, each through the gate of its endpoint.

    Args:
        sender: Puts requests on the wire.
        check: Raises where nothing of the client works; called before each request.
        config: The organization, where the API is, and the credentials.
        request_timeout: Seconds that the sender gives one attempt.
        max_attempts: How often a request that may be repeated is sent in all.
        events: Hears of retries and sign ins.
        shared: Where budgets and tokens are shared with other processes; None for nowhere.

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
        shared: Shared | None = None,
    ) -> None:
        self.organization = organization_segment(config.organization_id)
        self.clock = sender.clock
        self._sender = sender
        self._shared = shared
        self._gates = _gates(config, shared, request_timeout + _OVERDUE)
        self._check = check
        self._events = events
        self._auth: Authorizer
        if isinstance(config.auth, ApiKeyAuth):
            self._key = config.auth
            tokens = None if shared is None else shared.tokens(_holder(config, config.auth))
            self._auth = SignedInToken(
                self._sign_in, self.clock, config.auth.api_key, self._sign_in_held, tokens
            )
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
        self._check()
        # Before the queue, where a wrong key fails once for all; a sign in has its own attempts.
        if self._auth.current() is None:
            await self._auth.headers()
        arrival = Arrival()
        try:
            return await self._authorized(request, decode, arrival)
        except AmigoError as error:
            arrival.failure = error
        # Only now: most calls succeed at once, and need not go through two decorators.
        return cast(T, await self._replayed(request, decode, arrival))

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
        self._check()
        await self._auth.headers()
        return cast(T, await self._once(request, decode, Arrival(guard)))

    async def aclose(self) -> None:
        """Leave what is shared, and no task behind."""
        self._sender.close()
        await self._auth.aclose()
        await self._gates.aclose()
        if self._shared is not None:
            await self._shared.aclose()

    async def _authorized(
        self, request: Request, decode: Callable[[bytes], T], arrival: Arrival
    ) -> T:
        """Send with a token; one that is refused is renewed, a few times."""
        if arrival.failure is not None:
            failure, arrival.failure = arrival.failure, None
            raise failure
        headers, response = await self._pass(request, arrival)
        renewals = _RENEWALS
        while response.status == 401 and renewals and self._auth.refused(headers):
            renewals -= 1
            headers, response = await self._pass(request, arrival)
        try:
            return self._outcome(request, response, decode)
        except ConflictError as error:
            error.after_loss = arrival.lost
            raise
        except DecodeError:
            arrival.lost = True
            raise

    async def _sign_in(self) -> SignIn:
        request = sign_in(self.organization)
        answer: SignIn = await self._signed_in(request, decode_sign_in, Arrival())
        life = answer.expires_at.timestamp() - self.clock.now()
        self._events.emit(SignedIn(expires_in=max(0.0, life)))
        return answer

    def _sign_in_held(self) -> float:
        """For how many seconds its budget holds a sign in at the least; 0 if one is under way."""
        return self._gates.of(SIGN_IN.name, SIGN_IN.limit).held()

    async def _with_key(
        self, request: Request, decode: Callable[[bytes], SignIn], arrival: Arrival
    ) -> SignIn:
        _, response = await self._pass(request, arrival, self._key.headers())
        return self._outcome(request, response, decode)

    async def _pass(
        self, request: Request, arrival: Arrival, key: Mapping[str, str] | None = None
    ) -> tuple[Mapping[str, str], Response]:
        """Send through the gate, with `key` or the token that is valid when it opens."""
        endpoint = request.endpoint
        gate = self._gates.of(endpoint.name, endpoint.limit)
        permit: Permit | SharedPermit | None = None
        if arrival.turn is None:
            permit = gate.enter_nowait()
        if permit is None:
            try:
                permit = await gate.enter(self._events.emit, turn=arrival.turn)
            except DeniedError as error:
                raise _denied(request, error) from None
        with permit:
            headers = key or self._auth.current()
            if headers is None:
                headers = await self._renewed(permit)
            try:
                sending = self._sender.send(request, headers, self._auth.secrets)
                response = await (arrival.guard(sending) if arrival.guard else sending)
            except TransportError as error:
                if not error.sent:
                    permit.unused()
                arrival.lost |= error.sent
                raise
            except ConfigurationError:  # the client was closed meanwhile
                permit.unused()
                raise
            arrival.turn = permit.turn if response.status == 429 else None
            arrival.lost |= response.status >= 500 or response.status == 408
            if arrival.turn is not None:
                permit.refused(budgets.pause(response, self.clock))
                return headers, response
            told = budgets.told(response, self.clock)
            if told is not None or not budgets.may_be_of_a_proxy(response.status):
                permit.answered(told)
        return headers, response

    async def _renewed(self, permit: Permit | SharedPermit) -> Mapping[str, str]:
        """The headers with another token, as the one there was has expired in the queue."""
        try:
            return await self._auth.headers()
        except BaseException:
            permit.unused()
            raise

    def _outcome(self, request: Request, response: Response, decode: Callable[[bytes], T]) -> T:
        """The struct of a response, or the error."""
        if not 200 <= response.status < 300:
            raise api_error(request, response, self._auth.secrets())
        try:
            if response.flaw is not None:
                raise response.flaw
            return decode(self._own_secrets_masked(request, response.body))
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            secrets = self._auth.secrets()
            raise decode_error(request, response, error, secrets) from bare(error, secrets)

    def _own_secrets_masked(self, request: Request, body: bytes) -> bytes:
        """`body` without the secrets of this client: errors of agents can repeat what they got."""
        return redact_body(body, self._auth.secrets()) if request.endpoint is LIST else body

    def budgets(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used so far, by endpoint."""
        return self._gates.states()

    def _with_retries(self, call: _Call, attempts: int) -> _Call:
        return backoff.on_exception(
            retry.delays,
            AmigoError,
            max_tries=attempts,
            giveup=lambda error: not is_transient(error),
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


def _denied(request: Request, error: DeniedError) -> RateLimitError:
    """What the service said to an earlier request, and holds for this one, which was not sent."""
    return RateLimitError(
        method=request.endpoint.method,
        path=request.path,
        status=429,
        detail="this is what the service said before, so nothing was sent",
        retry_after=error.retry_after,
    )


def _gates(config: Configuration, shared: Shared | None, lease: float) -> Gates | SharedGates:
    gates = Gates(config.base_url, config.organization_id)
    return gates if shared is None else shared.gates(gates, _owner(config), lease)


def _owner(config: Configuration) -> str:
    """Whose budgets they are, in writing."""
    return f"{config.base_url}/{config.organization_id}"


def _holder(config: Configuration, key: ApiKeyAuth) -> str:
    """Whose token it is, in writing."""
    return f"{_owner(config)}:{key.api_key_id}:{key.user_id}"
