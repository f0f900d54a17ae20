"""Credentials, and the token that a client obtains with them."""

from __future__ import annotations

import asyncio
import copy
import math
from base64 import b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, TypeAlias

import anyio
from msgspec import Struct
from msgspec.structs import force_setattr

from amigo_async.errors import ConfigurationError, DeadlineError
from amigo_async.models import SignIn, UserInfo
from amigo_async.protocol.requests import header_value
from amigo_async.redact import Secret, masked
from amigo_async.server_clock import ServerClock

# A token is renewed this many seconds before it expires, or a tenth of its lifetime if that is
# shorter, so that it does not expire while a request is under way.
_MARGIN = 60.0
_MARGIN_SHARE = 0.1

# Seconds between two polls for the token of another process that is signing in.
_POLL = 0.1


class ApiKeyAuth(Struct, frozen=True):
    """Sign in with an API key; the token is renewed as needed.

    Args:
        api_key: The API key's secret.
        api_key_id: The API key's id.
        user_id: The user to act as.
    """

    api_key: str
    api_key_id: str
    user_id: str

    def __post_init__(self) -> None:
        _normalize(self, "api_key")

    def headers(self) -> dict[str, str]:
        """The headers of the sign-in request."""
        return {
            "x-api-key": self.api_key,
            "x-api-key-id": self.api_key_id,
            "x-user-id": self.user_id,
        }


class BearerAuth(Struct, frozen=True):
    """Use a token that was issued elsewhere; it cannot be renewed.

    Args:
        token: The token.
        user_id: The user the token belongs to; None if not known. Without it, a run whose create
            got no response cannot be distinguished from another user's run.
        organization_id: The organization that issued the token; None if it is the client's.
    """

    token: str
    user_id: str | None = None
    organization_id: str | None = None

    def __post_init__(self) -> None:
        _normalize(self, "token", optional=("user_id", "organization_id"))


class BasicAuth(Struct, frozen=True):
    """Use a token that was issued elsewhere as the password of Basic authentication.

    Args:
        token: The token.
        user_id: The user the token belongs to.
        organization_id: The organization that issued the token; None if it is the client's.
    """

    token: str
    user_id: str
    organization_id: str | None = None

    def __post_init__(self) -> None:
        _normalize(self, "token", optional=("organization_id",))


Auth: TypeAlias = ApiKeyAuth | BearerAuth | BasicAuth


class Authorizer(Protocol):
    """Authorizes requests; the session's view of the credentials."""

    async def headers(self) -> Mapping[str, str]:
        """The headers that authorize a request; the same object while they are valid."""

    def refused(self, refused: Mapping[str, str], /) -> bool:
        """Note that `refused` headers were answered with 401; True if `headers` may give others."""

    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be shown."""

    async def aclose(self) -> None:
        """Leave no task behind; pending calls of `headers` raise a `ConfigurationError`."""


class StoredToken(Struct, frozen=True):
    """A token that several processes share.

    Attributes:
        token: The token.
        renew_at: When to renew it, in seconds since the epoch on the server's clock.
    """

    token: str
    renew_at: float

    def __post_init__(self) -> None:
        force_setattr(self, "token", Secret(self.token))


class TokenStore(Protocol):
    """Stores one token for several processes. Nothing is raised while the store is unavailable.

    One process at a time signs in: the one whose `claim` succeeded.
    """

    async def load(self) -> StoredToken | None:
        """The stored token; None if there is none, or none that can be decrypted."""

    async def save(self, stored: StoredToken, life: float) -> None:
        """Store a token for `life` seconds."""

    async def drop(self, token: str) -> None:
        """Delete `token` if it is still the stored one."""

    async def claim(self) -> bool:
        """Whether this process may sign in; others may after its `release`, or some seconds."""

    async def release(self) -> None:
        """Let other processes sign in."""


class GivenToken:
    """Authorizes with a token that was issued elsewhere."""

    def __init__(self, auth: BearerAuth | BasicAuth, organization_id: str) -> None:
        self._secrets: tuple[str, ...]
        token = auth.token
        if isinstance(auth, BasicAuth):
            user = f"{auth.organization_id or organization_id}_{auth.user_id}"
            if ":" in user:  # RFC 7617, 2: the password begins behind the first colon
                raise ConfigurationError(
                    "organization_id and user_id cannot have a colon in a Basic authorization"
                )
            encoded = Secret(b64encode(f"{user}:{token}".encode()).decode())
            self._secrets = (token, encoded)
            headers: dict[str, str] = {"Authorization": Secret(f"Basic {encoded}")}
        else:
            self._secrets = (token,)
            headers = {"Authorization": Secret(f"Bearer {token}")}
        if auth.organization_id is not None:
            headers["X-ORG-ID"] = auth.organization_id
        self._headers: Mapping[str, str] = headers

    async def headers(self) -> Mapping[str, str]:
        """The headers, which never change."""
        return self._headers

    def refused(self, _: Mapping[str, str]) -> bool:
        """Return False: there is no other token."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """The token, and its encoded form."""
        return self._secrets

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


class SignedInToken:
    """Authorizes with a token from a sign-in, which is renewed as needed.

    All callers share one sign-in, in a task that none of them owns. It continues when callers
    leave, so that callers with short deadlines neither discard a token that is on its way nor use
    up, one after another, the five sign-ins a minute of the whole organization.

    Args:
        sign_in: Signs in.
        clock: The server's clock, by which tokens expire.
        api_key: The secret of the API key, only to keep it from being shown.
        held: Returns the seconds for which the limiter holds a sign-in at least; 0 if it may be
            sent, or is in flight.
        tokens: Where the token is shared with other processes; None if it is not.
    """

    def __init__(
        self,
        sign_in: Callable[[], Awaitable[SignIn]],
        clock: ServerClock,
        api_key: str,
        held: Callable[[], float],
        tokens: TokenStore | None = None,
    ) -> None:
        self._sign_in = sign_in
        self._held = held
        self._tokens = tokens
        self._refused: str | None = None
        self._clock = clock
        self._api_key = Secret(api_key)
        self._signing: asyncio.Task[Mapping[str, str]] | None = None
        self._closed = False
        self._headers: Mapping[str, str] | None = None
        self._token = self._token_before = Secret()
        self._renew_at = 0.0

    async def headers(self) -> Mapping[str, str]:
        """The headers with a token that is not about to expire.

        All callers during a sign-in share its outcome, and its failure too: with five sign-ins a
        minute for a whole organization, a wrong key is tried once.

        Raises:
            DeadlineError: If the limiter holds the sign-in for longer than the caller has time.
            ConfigurationError: If the client is closed meanwhile.
        """
        while True:
            if self._headers is not None and self._clock.now() < self._renew_at:
                return self._headers
            held = self._held()
            if anyio.current_time() + held > anyio.current_effective_deadline():
                raise DeadlineError(endpoint="sign_in", retry_after=held)
            if self._closed:
                raise ConfigurationError("the client is closed; make a new one")
            signing = self._signing
            if signing is None:
                work = self._renew() if self._tokens is None else self._share(self._tokens)
                signing = self._signing = asyncio.get_running_loop().create_task(work)
                signing.add_done_callback(self._signed_in)
            await asyncio.wait({signing})  # unlike `await signing`, does not cancel it
            if not signing.cancelled():
                if (error := signing.exception()) is not None:
                    # A copy for each caller: a shared traceback would keep their frames alive.
                    raise copy.copy(error) from error.__cause__
                return signing.result()

    def refused(self, refused: Mapping[str, str], /) -> bool:
        """Drop the token if it is still the refused one; a late 401 does not drop a fresh one."""
        if refused is self._headers:
            self._headers = None
            self._refused = self._token
        return True

    def secrets(self) -> tuple[str, ...]:
        """The key, the token, and the token before, whose responses may still be on their way."""
        return (self._api_key, self._token, self._token_before)

    async def aclose(self) -> None:
        """Leave no task behind; a sign-in that is under way is cancelled."""
        self._closed = True
        signing = self._signing
        if signing is not None and signing.get_loop() is asyncio.get_running_loop():
            signing.cancel()
            await asyncio.wait({signing})

    def _signed_in(self, signing: asyncio.Task[Mapping[str, str]]) -> None:
        self._signing = None
        if not signing.cancelled():
            signing.exception()  # retrieved, even if no caller is left

    async def _share(self, tokens: TokenStore) -> Mapping[str, str]:
        """Use the stored token or sign in; while another process signs in, wait for its token."""
        while True:
            headers = await self._stored(tokens)
            if headers is not None:
                return headers
            if await tokens.claim():
                break
            await anyio.sleep(_POLL)
        try:
            # A process that released its claim just before has stored a token.
            return await self._stored(tokens) or await self._renew_for_all(tokens)
        finally:
            with anyio.CancelScope(shield=True):
                await tokens.release()

    async def _stored(self, tokens: TokenStore) -> Mapping[str, str] | None:
        """The headers with the stored token, if it is valid."""
        stored = await tokens.load()
        if stored is None:
            return None
        if stored.token == self._refused:
            await tokens.drop(stored.token)
            return None
        return self._hold(stored) if self._clock.now() < stored.renew_at else None

    async def _renew_for_all(self, tokens: TokenStore) -> Mapping[str, str]:
        headers = await self._renew()
        life = self._renew_at - self._clock.now()
        if 0 < life < math.inf:
            await tokens.save(StoredToken(self._token, self._renew_at), life)
        return headers

    async def _renew(self) -> Mapping[str, str]:
        answer = await self._sign_in()
        expires_at = answer.expires_at.timestamp()
        life = expires_at - self._clock.now()
        # A token that is expired on arrival means that a clock is wrong: use it until refused.
        margin = min(_MARGIN, life * _MARGIN_SHARE)
        return self._hold(
            StoredToken(answer.id_token, expires_at - margin if life > 0 else math.inf)
        )

    def _hold(self, stored: StoredToken) -> Mapping[str, str]:
        self._renew_at = stored.renew_at
        self._token, self._token_before = Secret(stored.token), self._token
        self._headers = {"Authorization": Secret(f"Bearer {stored.token}")}
        return self._headers


def creator_of(auth: Auth, organization_id: str) -> UserInfo | None:
    """The user whom the service names as creator of these credentials' runs; None if unknown."""
    if auth.user_id is None:
        return None
    issuer = None if isinstance(auth, ApiKeyAuth) else auth.organization_id
    return UserInfo(org_id=issuer or organization_id, user_id=auth.user_id)


def _normalize(auth: Auth, secret: str, *, optional: Collection[str] = ()) -> None:
    """Strip whitespace, which values read from files often end with, and check the fields.

    Args:
        auth: Credentials that are being created.
        secret: The field that must not be shown.
        optional: The fields that may be None.

    Raises:
        ConfigurationError: If a field is missing, or cannot be sent in a header.
    """
    for field in auth.__struct_fields__:
        if isinstance(getattr(auth, field), str):
            force_setattr(auth, field, getattr(auth, field).strip())
    force_setattr(auth, secret, masked(getattr(auth, secret)))
    for field in auth.__struct_fields__:
        if field not in optional or getattr(auth, field) is not None:
            _required(field, getattr(auth, field))


def _required(name: str, value: str | None) -> None:
    if not value:
        raise ConfigurationError(f"{name} is missing or empty")
    header_value(name, value)
