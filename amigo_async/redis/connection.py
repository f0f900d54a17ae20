"""A connection to Redis that is not used for a while after a failure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import anyio
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as LateAnswer

from amigo_async.events import Emit, SharingLost, SharingRestored
from amigo_async.ratelimit.backend import UnavailableError
from amigo_async.redact import redact

T = TypeVar("T")


class RedisConnection:
    """Sends commands to Redis, and pauses after a failure.

    Args:
        open: Returns the Redis client; called at the first command.
        emit: Receives an event when Redis is lost, and one when it is back.
        secrets: What must not be shown.
        timeout: Seconds for a response.
        cooldown: Seconds of the pause after a failure.
    """

    def __init__(
        self,
        open: Callable[[], Redis],
        emit: Emit,
        *,
        secrets: Iterable[str],
        timeout: float,
        cooldown: float,
    ) -> None:
        self._open = open
        self._emit = emit
        self._secrets = tuple(secrets)
        self._timeout = timeout
        self._cooldown = cooldown
        self._redis: Redis | None = None
        self._lost_at: float | None = None
        self._again_at = -math.inf
        self._closed = False

    @property
    def available(self) -> bool:
        """False during the pause after a failure."""
        return not self._closed and anyio.current_time() >= self._again_at

    async def run(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Run `work` with the Redis client, and return its result.

        Raises:
            UnavailableError: If it failed or took too long, or during the pause after a failure.
        """
        if not self.available:
            raise UnavailableError
        began = anyio.current_time()
        if self._lost_at is not None:  # one caller tries, the others do without Redis meanwhile
            self._again_at = began + self._cooldown
        if self._redis is None:
            self._redis = self._open()
        try:
            # Unlike an anyio scope, this cancels once, so that redis can release its connection.
            async with asyncio.timeout(self._timeout):
                result = await work(self._redis)
        except Exception as error:  # noqa: BLE001  # a client given by the caller may raise anything
            self._note_failure(error)
        else:
            self._note_success(began)
            return result
        raise UnavailableError

    async def aclose(self) -> None:
        """Close the Redis client, and do not open another."""
        self._closed = True
        redis, self._redis = self._redis, None
        if redis is not None:
            with anyio.move_on_after(self._timeout):
                await redis.aclose()

    def _note_failure(self, error: Exception) -> None:
        now = anyio.current_time()
        self._again_at = now + self._cooldown
        if self._lost_at is None and not self._closed:
            self._lost_at = now
            self._emit(SharingLost(reason=self._reason(error), delay=self._cooldown))

    def _note_success(self, began: float) -> None:
        if self._lost_at is not None and began >= self._lost_at:
            self._again_at = -math.inf
            after, self._lost_at = anyio.current_time() - self._lost_at, None
            self._emit(SharingRestored(after=after))

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError | LateAnswer):
            return "no answer in time"
        return redact(" ".join(str(error).split()), self._secrets) or type(error).__name__


def evaluation(script: str, key: str, *values: Any) -> Callable[[Redis], Awaitable[Any]]:
    """Work for `RedisConnection.run`: evaluate a Lua script with a key and arguments."""

    async def evaluate(redis: Redis) -> Any:
        answer: Any = redis.eval(script, 1, key, *values)  # typed differently in versions of redis
        return await answer

    return evaluate


def as_bytes(value: str | bytes) -> bytes:
    """A response of Redis as bytes; a client given by the caller may decode responses."""
    return value.encode() if isinstance(value, str) else value
