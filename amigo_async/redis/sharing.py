"""Store rate-limit budgets, and optionally tokens, in Redis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
from cryptography.fernet import MultiFernet
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as BrokenConnection

from amigo_async.auth import TokenStore
from amigo_async.errors import ConfigurationError
from amigo_async.events import Emit
from amigo_async.ratelimit import Limiters
from amigo_async.ratelimit.backend import ClockReading, Update
from amigo_async.ratelimit.shared import SharedLimiters
from amigo_async.redact import masked
from amigo_async.redis.connection import RedisConnection, as_bytes, evaluation
from amigo_async.redis.tokens import RedisTokens, cipher_of, masked_keys

T = TypeVar("T")

# Seconds after which an unchanged record expires. It no longer matters by then, because this is
# longer than the longest Retry-After that is obeyed.
_KEPT: Final = 7200

# Store a record if it is unchanged; otherwise return the current one, and the time. Unlike WATCH,
# this takes one round trip and no dedicated connection, and works through proxies.
_SWAP: Final = """
local kept = redis.call('GET', KEYS[1])
if (kept or '') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
  return {}
end
local time = redis.call('TIME')
return {kept or '', time[1], time[2]}
"""


class RedisSharing:
    """Share rate limits, and optionally tokens, with all processes that use the same Redis.

    Each client opens a connection of its own and closes it, so one object can be used by any number
    of clients and event loops.

    Args:
        redis: The URL (``redis://``, ``rediss://`` or ``unix://``), whose password is treated as a
            secret; or a `redis.asyncio.Redis`, which is used in its event loop and stays open.
        token_key: A key from ``cryptography.fernet.Fernet.generate_key()`` that encrypts tokens in
            Redis, so that all processes together sign in once. With several keys, the first one
            encrypts and all decrypt, which allows rotation. None keeps tokens out of Redis: each
            process signs in for itself.
        prefix: Prefix of all Redis keys.
        timeout: Seconds for a response of Redis, after which it counts as unavailable.
        cooldown: Seconds for which Redis is not contacted after a failure.

    Raises:
        ConfigurationError: If an argument is invalid; the message names it.
    """

    def __init__(
        self,
        redis: str | Redis,
        *,
        token_key: str | bytes | Sequence[str | bytes] | None = None,
        prefix: str = "amigo_async",
        timeout: float = 1.0,
        cooldown: float = 30.0,
    ) -> None:
        # Masked first, so that the traceback of an error shows no secret in local variables.
        redis, keys = masked(redis), masked_keys(token_key)
        token_key, self._where = None, "unknown"
        for name, seconds in {"timeout": timeout, "cooldown": cooldown}.items():
            number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not number or not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name} must be seconds above 0, not {seconds!r:.80}")
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError("prefix must be a text that is not empty")
        if not isinstance(redis, str | Redis):
            raise ConfigurationError(
                f"redis must be a URL or a redis.asyncio.Redis, not {type(redis).__name__}"
            )
        self._redis = redis
        self._prefix = prefix
        self._timeout = timeout
        self._cooldown = cooldown
        self._cipher = None if keys is None else cipher_of(keys)
        self._secrets: tuple[str, ...] = ()
        if isinstance(redis, str):
            opened = self._open()  # raises if it is not a URL; nothing is connected
            self._secrets = _passwords(opened.connection_pool.connection_kwargs)
        self._where = _where(self._redis)

    def connect(self, emit: Emit) -> _ClientSharing:
        """A connection for one client; nothing is opened before it is used.

        Args:
            emit: Receives `SharingLost` and `SharingRestored` events.
        """
        connection = RedisConnection(
            self._open,
            emit,
            secrets=self._secrets,
            timeout=self._timeout,
            cooldown=self._cooldown,
        )
        owned = isinstance(self._redis, str)
        return _ClientSharing(connection, f"{self._prefix}:2:", self._cipher, owned=owned)

    def __repr__(self) -> str:
        """Show the address, and no secret."""
        return f"<RedisSharing {self._where}>"

    def _open(self) -> Redis:
        if isinstance(self._redis, Redis):
            return self._redis
        try:
            opened: Redis | None = Redis.from_url(
                str(self._redis),
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                # An idle connection may have been closed by the server.
                retry=Retry(NoBackoff(), 1),
                retry_on_error=[BrokenConnection],
            )
        except (ValueError, TypeError):
            opened = None
        # In a malformed URL, a part of the password may end up elsewhere, where it would be shown.
        if opened is None or "@" in str(self._redis).partition("://")[2].partition("/")[2]:
            raise ConfigurationError(
                "redis cannot be read: it must be like redis://:password@host:6379/0, "
                "with signs like / and @ in the password percent-encoded"
            )
        return opened


class _ClientSharing:
    """The Redis of one client; implements `SharingConnection`."""

    def __init__(
        self,
        connection: RedisConnection,
        prefix: str,
        cipher: MultiFernet | None,
        *,
        owned: bool,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._cipher = cipher
        self._owned = owned

    @property
    def available(self) -> bool:
        """False for a while after a failure."""
        return self._connection.available

    async def change(self, key: str, update: Update[T]) -> T:
        """Change a record; repeated while other processes change it at the same time."""
        name = self._prefix + key
        asked = anyio.current_time()
        record, now = await self._connection.run(lambda redis: _read(redis, name))
        while True:
            changed, value = update(record or None, ClockReading(now, asked))
            if changed is None:
                return value
            asked = anyio.current_time()
            answer = await self._connection.run(evaluation(_SWAP, name, record, changed, _KEPT))
            if not answer:
                return value
            record, now = as_bytes(answer[0]), _time(answer[1:])

    def limiters(self, limiters: Limiters, name: str, lease: float) -> SharedLimiters:
        """Limiters whose budgets are kept in this Redis."""
        return SharedLimiters(limiters, self, name=name, lease=lease)

    def tokens(self, name: str) -> TokenStore | None:
        """Storage for the token of `name`, under a Redis key that does not reveal the name."""
        if self._cipher is None:
            return None
        key = f"{self._prefix}token:{sha256(name.encode()).hexdigest()}"
        return RedisTokens(self._connection, key, self._cipher)

    async def aclose(self) -> None:
        """Close the connection, unless the caller gave it."""
        if self._owned:
            await self._connection.aclose()


async def _read(redis: Redis, name: str) -> tuple[bytes, float]:
    """A record, empty if there is none, and the time of Redis."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.get(name)
        pipeline.time()
        record, time = await pipeline.execute()
    return as_bytes(record or b""), _time(time)


def _time(time: Sequence[Any]) -> float:
    return int(time[0]) + int(time[1]) / 1e6


def _passwords(settings: Mapping[str, Any]) -> tuple[str, ...]:
    password = masked(settings.get("password"))
    return (password,) if password else ()


def _where(redis: str | Redis) -> str:
    """The address of Redis for people, without what may be secret in a URL."""
    if isinstance(redis, Redis):
        return "with a given Redis client"
    url = urlsplit(redis)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
