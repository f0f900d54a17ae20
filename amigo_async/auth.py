"""Credentials, and the one token that a client holds."""

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

# A token is renewed this long before it expires, or a tenth of its life if that is shorter, so
# that it does not expire on the way.
_MARGIN = 60.0
_MARGIN_SHARE = 0.1

# While another process signs in, its token is looked for this often, in seconds.
_LOOK = 0.1


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
        _settle(self, "api_key")

    def headers(self) -> dict[str, str]:
        """The headers of the sign in."""
        return {
            "x-api-key": self.api_key,
            "x-api-key-id": self.api_key_id,
            "x-user-id": self.user_id,
        }


class BearerAuth(Struct, frozen=True):
    """Use a token that was issued before; it cannot be renewed.

    Args:
        token: The token.
        user_id: The user the token is of; None if not known. Without it a lost start cannot be
            told from another user's run.
        organization_id: The organization that issued the token; None if it is the client's.
    """

    token: str
    user_id: str | None = None
    organization_id: str | None = None

    def __post_init__(self) -> None:
        _settle(self, "token", optional=("user_id", "organization_id"))


class BasicAuth(Struct, frozen=True):
    """Use a token that was issued before as the password of a Basic authorization.

    Args:
        token: The token.
        user_id: The user the token is of.
        organization_id: The organization that issued the token; None if it is the client's.
    """

    token: str
    user_id: str
    organization_id: str | None = None

    def __post_init__(self) -> None:
        _settle(self, "token", optional=("organization_id",))


Auth: TypeAlias = ApiKeyAuth | BearerAuth | BasicAuth


class Authorizer(Protocol):
    """What the session needs to know of an authorization."""

    def current(self) -> Mapping[str, str] | None:
        """As `headers`, where nothing has to be awaited for them; None where it has."""

    async def headers(self) -> Mapping[str, str]:
        """The headers that authorize a request; the same object while they are valid."""

    def refused(self, refused: Mapping[str, str], /) -> bool:
        """Take note of headers that met a 401; True if asking for `headers` again may help."""

    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be shown."""

    async def aclose(self) -> None:
        """Leave no task behind. Who waits for `headers` gets a `ConfigurationError`."""


class KeptToken(Struct, frozen=True):
    """A token that several processes share.

    Attributes:
        token: The token.
        renew_at: When it is to be renewed, in seconds since the epoch on the server's clock.
    """

    token: str
    renew_at: float

    def __post_init__(self) -> None:
        force_setattr(self, "token", Secret(self.token))


class Tokens(Protocol):
    """Where processes keep a token in common. Nothing is raised: without the place there is none.

    One process at a time may sign in: the one that has `claim`ed it.
    """

    async def load(self) -> KeptToken | None:
        """The token that is kept; None where there is none, or none that can be read."""

    async def save(self, kept: KeptToken, life: float) -> None:
        """Keep a token for `life` seconds."""

    async def drop(self, token: str) -> None:
        """Keep `token` no longer, if it is still the one that is kept."""

    async def claim(self) -> bool:
        """Whether this process may sign in now; others may after its `release`, or in a while."""

    async def release(self) -> None:
        """Let others sign in."""


class GivenToken:
    """An authorization with a token from elsewhere."""

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

    def current(self) -> Mapping[str, str]:
        """Always the same."""
        return self._headers

    async def headers(self) -> Mapping[str, str]:
        """As `current`."""
        return self._headers

    def refused(self, _: Mapping[str, str]) -> bool:
        """Nothing helps: there is only this token."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """The token, and its encoded form."""
        return self._secrets

    async def aclose(self) -> None:
        """There is nothing to leave."""


class SignedInToken:
    """An authorization that signs in when it has to, once for all who wait.

    The sign in belongs to none of them: it goes on when those leave who wait for it, so that
    callers with little time neither throw away a token that is on its way nor spend, one after the
    other, the five sign ins a minute of the whole organization.

    Args:
        sign_in: Signs in.
        clock: The server's clock, on which tokens expire.
        api_key: The key's secret, only to keep it from being shown.
        held: For how many seconds the budget holds the sign in at the least; 0 if it may go, or
            is under way.
        tokens: Where the token is shared with other processes; None where it is not.
    """

    def __init__(
        self,
        sign_in: Callable[[], Awaitable[SignIn]],
        clock: ServerClock,
        api_key: str,
        held: Callable[[], float],
        tokens: Tokens | None = None,
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

    def current(self) -> Mapping[str, str] | None:
        """The headers with the token that is held; None where it is about to expire, or refused."""
        return self._headers if self._clock.now() < self._renew_at else None

    async def headers(self) -> Mapping[str, str]:
        """The headers with a token that is not about to expire.

        All who come while a sign in is under way share its outcome, its failure included: with
        five sign-ins a minute for a whole organization, one wrong key asks once.

        Raises:
            DeadlineError: If the budget holds the sign in for longer than the caller has time.
            ConfigurationError: If the client is closed meanwhile.
        """
        while True:
            current = self.current()
            if current is not None:
                return current
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
            await asyncio.wait({signing})  # which, unlike to await it, does not cancel it
            if not signing.cancelled():
                if (error := signing.exception()) is not None:
                    # A copy for each: the traceback would keep all that a caller works with alive.
                    raise copy.copy(error) from error.__cause__
                return signing.result()

    def refused(self, refused: Mapping[str, str], /) -> bool:
        """Drop the token if it is still the refused one; a late 401 leaves a fresh one alone."""
        if refused is self._headers:
            self._headers = None
            self._refused = self._token
        return True

    def secrets(self) -> tuple[str, ...]:
        """The key, the current token, and the one before: answers to it may be on their way."""
        return (self._api_key, self._token, self._token_before)

    async def aclose(self) -> None:
        """Leave no task behind; a sign in that is under way is given up."""
        self._closed = True
        signing = self._signing
        if signing is not None and signing.get_loop() is asyncio.get_running_loop():
            signing.cancel()
            await asyncio.wait({signing})

    def _signed_in(self, signing: asyncio.Task[Mapping[str, str]]) -> None:
        self._signing = None
        if not signing.cancelled():
            signing.exception()  # it has been seen, whether or not anybody still waits for it

    async def _share(self, tokens: Tokens) -> Mapping[str, str]:
        """Take the token that is kept, or sign in for all; if others do, wait for theirs."""
        while True:
            headers = await self._kept(tokens)
            if headers is not None:
                return headers
            if await tokens.claim():
                break
            await anyio.sleep(_LOOK)
        try:
            # Whoever released its claim just before has left a token.
            return await self._kept(tokens) or await self._renew_for_all(tokens)
        finally:
            with anyio.CancelScope(shield=True):
                await tokens.release()

    async def _kept(self, tokens: Tokens) -> Mapping[str, str] | None:
        """The headers with the token that is kept, if it is good."""
        kept = await tokens.load()
        if kept is None:
            return None
        if kept.token == self._refused:
            await tokens.drop(kept.token)
            return None
        return self._hold(kept) if self._clock.now() < kept.renew_at else None

    async def _renew_for_all(self, tokens: Tokens) -> Mapping[str, str]:
        headers = await self._renew()
        life = self._renew_at - self._clock.now()
        if 0 < life < math.inf:
            await tokens.save(KeptToken(self._token, self._renew_at), life)
        return headers

    async def _renew(self) -> Mapping[str, str]:
        answer = await self._sign_in()
        expires_at = answer.expires_at.timestamp()
        life = expires_at - self._clock.now()
        # A token that comes expired is a sign of broken clocks: use it until it is refused.
        margin = min(_MARGIN, life * _MARGIN_SHARE)
        return self._hold(KeptToken(answer.id_token, expires_at - margin if life > 0 else math.inf))

    def _hold(self, kept: KeptToken) -> Mapping[str, str]:
        self._renew_at = kept.renew_at
        self._token, self._token_before = Secret(kept.token), self._token
        self._headers = {"Authorization": Secret(f"Bearer {kept.token}")}
        return self._headers


def creator_of(auth: Auth, organization_id: str) -> UserInfo | None:
    """Who the service will name as creator of this authorization's runs; None if not known."""
    if auth.user_id is None:
        return None
    issuer = None if isinstance(auth, ApiKeyAuth) else auth.organization_id
    return UserInfo(org_id=issuer or organization_id, user_id=auth.user_id)


def _settle(auth: Auth, secret: str, *, optional: Collection[str] = ()) -> None:
    """Cut blank ends, as values read from files have them, and check what is left.

    Args:
        auth: Credentials that are being made.
        secret: The field that is kept from being shown.
        optional: The fields that may be None.

    Raises:
        ConfigurationError: If a field is missing, or cannot be sent.
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
