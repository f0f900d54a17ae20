"""Keeps budgets, and tokens if wished, in Redis."""

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
from amigo_async.redis.connection import Line, as_bytes, evaluation
from amigo_async.redis.tokens import SealedTokens, cipher_of, masked_keys

T = TypeVar("T")

# A record that nobody has changed for this long, in seconds, tells nothing any more: it is longer
# than the longest wait that a service is believed to ask for.
_KEPT: Final = 7200

# Store a record if it is still as it was; otherwise give it as it is now, and the time. Unlike
# WATCH this takes one round trip, no connection of its own, and works behind proxies.
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
    """Shares budgets, and tokens if wished, with all processes that use the same Redis.

    It opens nothing itself: each client has a connection of its own, which it closes, so one
    object serves any number of clients and event loops.

    Args:
        redis: The URL (``redis://``, ``rediss://`` or ``unix://``), whose password is a secret; or
            a `redis.asyncio.Redis` of the caller's, who closes it, to be used in its event loop.
        token_key: Encrypts tokens in Redis, so that all processes together sign in once: a key
            as ``cryptography.fernet.Fernet.generate_key()`` gives, or several of which the first
            encrypts and all decrypt, to change it without a break. None keeps tokens out of
            Redis: each process signs in for itself.
        prefix: The beginning of the names of all keys.
        timeout: Seconds for an answer of Redis, after which it is taken for lost.
        cooldown: Seconds for which Redis is left alone when it was lost.

    Raises:
        ConfigurationError: If an argument cannot be right; the message names it.
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
        # Whatever is wrong with them, the traceback of an error shows none of these.
        redis, keys = masked(redis), masked_keys(token_key)
        token_key, self._where = None, "somewhere"
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
            opened = self._open()  # refuses what is no URL; nothing is connected
            self._secrets = _passwords(opened.connection_pool.connection_kwargs)
        self._where = _where(self._redis)

    def connect(self, emit: Emit) -> _Place:
        """The place for one client; nothing is opened before it is asked for.

        Args:
            emit: Hears of a `SharingLost` and a `SharingRestored`.
        """
        line = Line(
            self._open,
            emit,
            secrets=self._secrets,
            timeout=self._timeout,
            cooldown=self._cooldown,
        )
        return _Place(line, f"{self._prefix}:2:", self._cipher, owned=isinstance(self._redis, str))

    def __repr__(self) -> str:
        """Say where, and no secret."""
        return f"<RedisSharing {self._where}>"

    def _open(self) -> Redis:
        if isinstance(self._redis, Redis):
            return self._redis
        try:
            opened: Redis | None = Redis.from_url(
                str(self._redis),
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                # One that was idle may have been closed by the other end.
                retry=Retry(NoBackoff(), 1),
                retry_on_error=[BrokenConnection],
            )
        except (ValueError, TypeError):
            opened = None
        # What is not spelled as a URL is may put a part of the password elsewhere, to be shown.
        if opened is None or "@" in str(self._redis).partition("://")[2].partition("/")[2]:
            raise ConfigurationError(
                "redis cannot be read: it must be like redis://:password@host:6379/0, "
                "with signs like / and @ in the password percent-encoded"
            )
        return opened


class _Place:
    """The Redis of one client."""

    def __init__(self, line: Line, prefix: str, cipher: MultiFernet | None, *, owned: bool) -> None:
        self._line = line
        self._prefix = prefix
        self._cipher = cipher
        self._owned = owned

    @property
    def available(self) -> bool:
        """Whether Redis is not left alone at present."""
        return self._line.available

    async def change(self, key: str, update: Update[T]) -> T:
        """Change a record; as often as others do at the same time, it is tried again."""
        name = self._prefix + key
        asked = anyio.current_time()
        record, now = await self._line.ask(lambda redis: _read(redis, name))
        while True:
            changed, value = update(record or None, ClockReading(now, asked))
            if changed is None:
                return value
            asked = anyio.current_time()
            answer = await self._line.ask(evaluation(_SWAP, name, record, changed, _KEPT))
            if not answer:
                return value
            record, now = as_bytes(answer[0]), _time(answer[1:])

    def limiters(self, limiters: Limiters, name: str, lease: float) -> SharedLimiters:
        """Limiters whose budgets are kept in this Redis."""
        return SharedLimiters(limiters, self, name=name, lease=lease)

    def tokens(self, name: str) -> TokenStore | None:
        """Where the token of `name` is kept; the key tells nothing of whose it is."""
        if self._cipher is None:
            return None
        key = f"{self._prefix}token:{sha256(name.encode()).hexdigest()}"
        return SealedTokens(self._line, key, self._cipher)

    async def aclose(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            await self._line.aclose()


async def _read(redis: Redis, name: str) -> tuple[bytes, float]:
    """A record, empty where there is none, and the time of Redis."""
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
    """Where Redis is, for people; what may be secret in a URL is left out."""
    if isinstance(redis, Redis):
        return "with a Redis that was given"
    url = urlsplit(redis)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
