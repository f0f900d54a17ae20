"""Tokens that are shared in Redis, where nobody can read them without the key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import Any, Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from redis.asyncio import Redis

from amigo_async.auth import StoredToken
from amigo_async.errors import ConfigurationError
from amigo_async.ratelimit.backend import UnavailableError
from amigo_async.redact import masked
from amigo_async.redis.connection import Line, as_bytes, evaluation

# A process that signs in keeps the others from it for as many seconds at the most.
_CLAIM: Final = 10.0

_DELETE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class _Sealed(msgspec.Struct, frozen=True):
    """What is encrypted: with its key, so that it is good for no other."""

    key: str
    token: str
    renew_at: float


class SealedTokens:
    """The token of one user, encrypted; as `TokenStore` says.

    Args:
        line: The line to Redis.
        key: The key under which it is kept.
        cipher: Encrypts and decrypts.
    """

    def __init__(self, line: Line, key: str, cipher: MultiFernet) -> None:
        self._line = line
        self._key = key
        self._cipher = cipher
        self._claim = f"{key}:claim"
        self._me = token_hex(16)

    async def load(self) -> StoredToken | None:
        """As `TokenStore.load`."""
        sealed = await self._ask(lambda redis: redis.get(self._key))
        return None if sealed is None else self._unsealed(as_bytes(sealed))

    async def save(self, kept: StoredToken, life: float) -> None:
        """As `TokenStore.save`."""
        plain = msgspec.json.encode(_Sealed(self._key, str(kept.token), kept.renew_at))
        sealed = self._cipher.encrypt(plain)
        await self._ask(lambda redis: redis.set(self._key, sealed, px=max(1, int(life * 1000))))

    async def drop(self, token: str) -> None:
        """As `TokenStore.drop`."""
        sealed = await self._ask(lambda redis: redis.get(self._key))
        kept = None if sealed is None else self._unsealed(as_bytes(sealed))
        if kept is not None and kept.token == token:
            await self._ask(evaluation(_DELETE, self._key, sealed))

    async def claim(self) -> bool:
        """As `TokenStore.claim`; without Redis everybody may."""
        seconds = int(_CLAIM * 1000)
        claimed = await self._ask(
            lambda redis: redis.set(self._claim, self._me, px=seconds, nx=True), without=True
        )
        return bool(claimed)

    async def release(self) -> None:
        """As `TokenStore.release`."""
        await self._ask(evaluation(_DELETE, self._claim, self._me))

    async def _ask(self, work: Callable[[Redis], Awaitable[Any]], *, without: Any = None) -> Any:
        try:
            return await self._line.ask(work)
        except UnavailableError:
            return without

    def _unsealed(self, sealed: bytes) -> StoredToken | None:
        """The token; None for one of another key, or of another place."""
        try:
            plain = msgspec.json.decode(self._cipher.decrypt(sealed), type=_Sealed)
        except (InvalidToken, msgspec.DecodeError):
            return None
        return StoredToken(plain.token, plain.renew_at) if plain.key == self._key else None


def masked_keys(token_key: Any) -> Any:
    """The keys as a list of secrets; None, and what are none, as they are."""
    keys = [token_key] if isinstance(token_key, str | bytes) else token_key
    if not isinstance(keys, list | tuple):
        return keys
    return [masked(key.decode("latin-1") if isinstance(key, bytes) else key) for key in keys]


def cipher_of(keys: Sequence[str]) -> MultiFernet:
    """Encrypts with the first key, decrypts with each.

    Raises:
        ConfigurationError: If one of them is none.
    """
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError):
        pass
    raise ConfigurationError(
        "token_key must be a key as Fernet.generate_key() gives, or a list of them"
    )
