"""A rate-limited service without sockets, for tests of the limiter."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from amigo_async.events import Event
from amigo_async.ratelimit import Limiter, RateLimitInfo
from amigo_async.ratelimit.fair_share import FairShareBudget
from amigo_async.ratelimit.shared import SharedLimiter
from amigo_async.testing import VirtualTimeLoop

T = TypeVar("T")


class QuickLoop(VirtualTimeLoop):
    """No sockets, so nothing to watch before a wait is skipped, and no real time passes at all."""

    grace = turn = 0.0

    def time(self) -> float:
        return self.skipped


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in a loop of its own, with nothing left behind."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:

        async def checked() -> T:
            value = await main()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, "a task was left behind"
            return value

        return runner.run(checked())


class Service:
    """Counts calls in windows as a service would, refuses those beyond the limit."""

    def __init__(
        self,
        limit: int,
        *,
        window: float = 60.0,
        mode: Literal["fixed", "sliding"] = "fixed",
        tells: bool = True,
        latency: float = 0.05,
    ) -> None:
        self.limit = limit
        self.window = window
        self.mode = mode
        self.tells = tells
        self.latency = latency
        self.admitted: list[float] = []
        self.refused: list[float] = []
        self.foreign = 0
        self._window_began = -math.inf
        self._used: list[float] = []

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def _expire(self) -> None:
        now = self.now()
        if self.mode == "sliding":
            self._used = [t for t in self._used if t + self.window > now]
        elif now >= self._window_began + self.window:
            self._used = []
            self._window_began = now

    def count(self) -> bool:
        """Count a call; whether it is within the limit."""
        self._expire()
        if len(self._used) >= self.limit:
            return False
        self._used.append(self.now())
        return True

    def told(self) -> RateLimitInfo | None:
        if not self.tells:
            return None
        began = self._window_began if self.mode == "fixed" else min(self._used)
        reset = began + self.window
        return RateLimitInfo(self.limit, self.limit - len(self._used), reset, reset)

    def pause(self) -> float:
        began = self._window_began if self.mode == "fixed" else min(self._used)
        return max(0.0, began + self.window - self.now())

    async def call(
        self, limiter: Limiter | SharedLimiter, emit: Callable[[Event], None] = lambda _: None
    ) -> None:
        """Call through `limiter` until not refused."""
        turn: int | None = None
        while True:
            with await limiter.enter(emit, position=turn) as permit:
                await asyncio.sleep(self.latency / 2)
                admitted = self.count()
                told, pause = self.told(), self.pause() if not admitted else 0.0
                await asyncio.sleep(self.latency / 2)
                if admitted:
                    self.admitted.append(self.now() - self.latency / 2)
                    permit.answered(told)
                    return
                self.refused.append(self.now())
                permit.refused(pause)
                turn = permit.position


def limiter(limit: int) -> Limiter:
    return Limiter("create", FairShareBudget(limit))
