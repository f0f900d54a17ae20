"""The line to Redis: what is asked in time is answered, or Redis is left alone for a while."""

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


class Line:
    """Asks Redis, and leaves it alone for a while when it does not answer.

    Args:
        open: Gives the client of Redis; called when it is first needed.
        emit: Hears when Redis is lost, and when it is back.
        secrets: What must not be shown.
        timeout: Seconds for an answer.
        cooldown: Seconds for which Redis is left alone.
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
        """Whether Redis is not left alone at present."""
        return not self._closed and anyio.current_time() >= self._again_at

    async def ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """The outcome of `work`.

        Raises:
            UnavailableError: If Redis does not do it, or not in time.
        """
        if not self.available:
            raise UnavailableError
        began = anyio.current_time()
        if self._lost_at is not None:  # one tries; the others do without for as long
            self._again_at = began + self._cooldown
        if self._redis is None:
            self._redis = self._open()
        try:
            # Unlike a scope of anyio's it cancels once, so that a connection is put away in order.
            async with asyncio.timeout(self._timeout):
                outcome = await work(self._redis)
        except Exception as error:  # noqa: BLE001  # a Redis that was given may raise anything
            self._lose(error)
        else:
            self._find(began)
            return outcome
        raise UnavailableError

    async def aclose(self) -> None:
        """Close what was opened, and open nothing any more."""
        self._closed = True
        redis, self._redis = self._redis, None
        if redis is not None:
            with anyio.move_on_after(self._timeout):
                await redis.aclose()

    def _lose(self, error: Exception) -> None:
        now = anyio.current_time()
        self._again_at = now + self._cooldown
        if self._lost_at is None and not self._closed:
            self._lost_at = now
            self._emit(SharingLost(reason=self._reason(error), delay=self._cooldown))

    def _find(self, began: float) -> None:
        if self._lost_at is not None and began >= self._lost_at:
            self._again_at = -math.inf
            after, self._lost_at = anyio.current_time() - self._lost_at, None
            self._emit(SharingRestored(after=after))

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError | LateAnswer):
            return "no answer in time"
        return redact(" ".join(str(error).split()), self._secrets) or type(error).__name__


def evaluation(script: str, key: str, *values: Any) -> Callable[[Redis], Awaitable[Any]]:
    """Asks Redis to evaluate a Lua script on a key, with some arguments."""

    async def evaluate(redis: Redis) -> Any:
        answer: Any = redis.eval(script, 1, key, *values)  # its type differs by version
        return await answer

    return evaluate


def as_bytes(value: str | bytes) -> bytes:
    """What Redis answered; a client that was given may decode answers."""
    return value.encode() if isinstance(value, str) else value
