"""The server's clock as its responses tell it."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.server_clock import ServerClock
from tests.unit.service import QuickLoop, run

pytestmark = pytest.mark.anyio

EPOCH = 1_767_355_200.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": QuickLoop}


class Server:
    """A server whose clock is `skew` seconds before the loop's, and whose Date is cut off."""

    def __init__(self, skew: float = EPOCH) -> None:
        self.skew = skew

    def time(self) -> float:
        return anyio.current_time() + self.skew

    async def ask(self, clock: ServerClock, there: float = 0.1, back: float = 0.1) -> None:
        sent = anyio.current_time()
        await anyio.sleep(there)
        date = math.floor(self.time())
        await anyio.sleep(back)
        clock.observe(date, sent, anyio.current_time())


async def test_local_clock_before_a_response() -> None:
    clock = ServerClock()
    before = time.time()
    assert before <= clock.now() <= time.time()
    assert before <= clock.earliest() <= time.time()
    assert abs(clock.utcnow() - datetime.now(UTC)).total_seconds() < 5
    assert clock.until(time.time() + 1000) == pytest.approx(1000, abs=5)


async def test_one_response_bounds_the_time() -> None:
    clock, server = ServerClock(), Server()
    await server.ask(clock, there=0.5, back=0.25)
    assert clock.earliest() <= server.time() <= clock.now()
    # A second of the Date, and the time of the request.
    assert clock.now() - clock.earliest() == pytest.approx(1.75, abs=0.1)


async def test_each_response_narrows_the_bounds() -> None:
    clock, server = ServerClock(), Server()
    widths = []
    for _ in range(40):
        await server.ask(clock)
        widths.append(round(clock.now() - clock.earliest(), 3))
        assert clock.earliest() <= server.time() <= clock.now()
        # With the answers a step of the golden ratio: the phases spread evenly over the second.
        await anyio.sleep(3.418)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.25 < widths[0]


async def test_a_slow_response_does_not_widen_them() -> None:
    clock, server = ServerClock(), Server()
    await server.ask(clock)
    width = clock.now() - clock.earliest()
    await server.ask(clock, there=20.0, back=20.0)
    assert clock.now() - clock.earliest() == pytest.approx(width, abs=1e-3)


@pytest.mark.parametrize("minutes", [5, -5])
async def test_a_skew_of_five_minutes_is_learnt(minutes: int) -> None:
    clock = ServerClock()
    began = anyio.current_time()
    server = Server(time.time() - began + 60 * minutes)
    await server.ask(clock)
    ahead = clock.now() - time.time() - (anyio.current_time() - began)
    assert ahead == pytest.approx(60 * minutes, abs=3)
    assert clock.utcnow().timestamp() == pytest.approx(server.time(), abs=2)


@pytest.mark.parametrize("jump", [-3600.0, -5.0, 5.0, 3600.0])
async def test_set_clock_is_believed_at_once(jump: float) -> None:
    clock, server = ServerClock(), Server()
    for _ in range(5):
        await server.ask(clock)
        await anyio.sleep(1.3)
    server.skew += jump
    await server.ask(clock)
    assert clock.earliest() <= server.time() <= clock.now()
    assert clock.now() - clock.earliest() < 1.5


async def test_until_is_on_the_safe_side() -> None:
    clock, server = ServerClock(), Server()
    await server.ask(clock)
    reset = server.time() + 30
    await anyio.sleep(clock.until(reset))
    assert server.time() >= reset - 1e-6


async def test_until_the_past_is_nothing() -> None:
    clock, server = ServerClock(), Server()
    await server.ask(clock)
    assert clock.until(server.time() - 100) == 0.0


@given(
    st.floats(-1e9, 1e9),
    st.lists(
        st.tuples(st.floats(0, 30), st.floats(0, 30), st.floats(0, 100)), min_size=1, max_size=10
    ),
)
def test_the_bounds_hold_for_any_server(
    skew: float, requests: list[tuple[float, float, float]]
) -> None:
    async def main() -> None:
        clock, server = ServerClock(), Server(EPOCH + skew)
        for there, back, pause in requests:
            await server.ask(clock, there, back)
            assert clock.earliest() - 1e-3 <= server.time() <= clock.now() + 1e-3
            await anyio.sleep(pause)

    run(main)
