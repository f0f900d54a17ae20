"""Tokens that are shared in Redis, encrypted."""

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
from amigo_async.redis.connection import RedisConnection, as_bytes, evaluation

# Seconds after which the claim of a process that signs in expires.
_CLAIM: Final = 10.0

_DELETE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class _Plaintext(msgspec.Struct, frozen=True):
    """What is encrypted. It includes the Redis key, so that it is not valid under another key."""

    key: str
    token: str
    renew_at: float


class RedisTokens:
    """Stores the token of one user in Redis, encrypted; implements `TokenStore`.

    Args:
        connection: The connection to Redis.
        key: The Redis key of the token.
        cipher: Encrypts and decrypts.
    """

    def __init__(self, connection: RedisConnection, key: str, cipher: MultiFernet) -> None:
        self._connection = connection
        self._key = key
        self._cipher = cipher
        self._claim = f"{key}:claim"
        self._me = token_hex(16)

    async def load(self) -> StoredToken | None:
        """The stored token; None if there is none, or none that can be decrypted."""
        encrypted = await self._run(lambda redis: redis.get(self._key))
        return None if encrypted is None else self._decode(as_bytes(encrypted))

    async def save(self, stored: StoredToken, life: float) -> None:
        """Store a token for `life` seconds."""
        plain = msgspec.json.encode(_Plaintext(self._key, str(stored.token), stored.renew_at))
        encrypted = self._cipher.encrypt(plain)
        await self._run(lambda redis: redis.set(self._key, encrypted, px=max(1, int(life * 1000))))

    async def drop(self, token: str) -> None:
        """Delete `token` if it is still the stored one."""
        encrypted = await self._run(lambda redis: redis.get(self._key))
        stored = None if encrypted is None else self._decode(as_bytes(encrypted))
        if stored is not None and stored.token == token:
            await self._run(evaluation(_DELETE, self._key, encrypted))

    async def claim(self) -> bool:
        """Whether this process may sign in; always True while Redis is unavailable."""
        seconds = int(_CLAIM * 1000)
        claimed = await self._run(
            lambda redis: redis.set(self._claim, self._me, px=seconds, nx=True), default=True
        )
        return bool(claimed)

    async def release(self) -> None:
        """Let other processes sign in."""
        await self._run(evaluation(_DELETE, self._claim, self._me))

    async def _run(self, work: Callable[[Redis], Awaitable[Any]], *, default: Any = None) -> Any:
        try:
            return await self._connection.run(work)
        except UnavailableError:
            return default

    def _decode(self, encrypted: bytes) -> StoredToken | None:
        """The token; None if it was encrypted with another secret, or for another Redis key."""
        try:
            plain = msgspec.json.decode(self._cipher.decrypt(encrypted), type=_Plaintext)
        except (InvalidToken, msgspec.DecodeError):
            return None
        return StoredToken(plain.token, plain.renew_at) if plain.key == self._key else None


def masked_keys(token_key: Any) -> Any:
    """The keys as a list of secrets; anything else unchanged."""
    keys = [token_key] if isinstance(token_key, str | bytes) else token_key
    if not isinstance(keys, list | tuple):
        return keys
    return [masked(key.decode("latin-1") if isinstance(key, bytes) else key) for key in keys]


def cipher_of(keys: Sequence[str]) -> MultiFernet:
    """A cipher that encrypts with the first key, and decrypts with any.

    Raises:
        ConfigurationError: If a key is malformed.
    """
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (ValueError, TypeError):
        pass
    raise ConfigurationError(
        "token_key must be a key as Fernet.generate_key() gives, or a list of them"
    )
