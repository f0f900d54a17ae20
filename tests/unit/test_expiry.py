"""How long an attempt may take: one timer for all, and no cancellation is mistaken for another."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import pytest

from amigo_async.transport.expiry import Expiry
from tests.support.service import run


async def attempt(expiry: Expiry, seconds: float) -> float:
    """An attempt that takes so long; how long it was let take."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        with expiry.attempt(began):
            await asyncio.sleep(seconds)
    except TimeoutError:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling(), "the next await would be cancelled"
    return loop.time() - began


def timers() -> int:
    """The timers that are set in the running loop."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not handle.cancelled() for handle in scheduled)


def test_each_attempt_has_its_time_and_no_more() -> None:
    async def main() -> list[float]:
        expiry = Expiry(10.0)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for seconds in (5.0, 60.0, 9.9, 60.0, 60.0, 0.0):
                tasks.append(group.create_task(attempt(expiry, seconds)))
                await asyncio.sleep(1.0)
        assert not expiry.under_way
        return [task.result() for task in tasks]

    late = pytest.approx(10.1)
    assert run(main) == [5.0, late, pytest.approx(9.9), late, late, 0.0]


def test_expires_after_a_rest_too() -> None:
    async def main() -> list[float]:
        expiry = Expiry(10.0)
        took = [await attempt(expiry, 1.0), await attempt(expiry, 60.0)]
        await asyncio.sleep(100.0)
        return [*took, await attempt(expiry, 60.0)]

    assert run(main) == [1.0, pytest.approx(10.1), pytest.approx(10.1)]


def test_a_thousand_attempts_set_one_timer() -> None:
    async def main() -> None:
        expiry = Expiry(10.0)
        for _ in range(1000):
            with expiry.attempt(asyncio.get_running_loop().time()):
                assert timers() == 1
        expiry.close()
        assert timers() == 0

    run(main)


def test_inner_limit_comes_first() -> None:
    async def main() -> None:
        expiry = Expiry(10.0)
        with expiry.attempt(anyio.current_time()), pytest.raises(LookupError):
            try:
                async with asyncio.timeout(10.0):
                    await asyncio.sleep(60.0)
            except TimeoutError:
                raise LookupError from None

    run(main)


@pytest.mark.parametrize("own_first", [True, False])
def test_foreign_cancellation_is_kept(own_first: bool) -> None:
    async def main() -> None:
        expiry = Expiry(10.0)
        task = asyncio.create_task(attempt(expiry, 60.0))
        await asyncio.sleep(1.0)
        (under_way,) = expiry.under_way
        if own_first:
            under_way.expire()
        task.cancel()
        if not own_first:
            under_way.expire()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not expiry.under_way

    run(main)


def test_cancelled_outer_scope() -> None:
    async def main() -> None:
        expiry = Expiry(10.0)
        with anyio.move_on_after(3.0) as scope:
            await attempt(expiry, 60.0)
        assert scope.cancelled_caught
        await anyio.sleep(20.0)  # not cancelled any more, and the timer finds nobody

    run(main)


def test_swallowed_cancellation() -> None:
    async def main() -> None:
        expiry = Expiry(10.0)
        with expiry.attempt(anyio.current_time()), contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60.0)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(1.0)

    run(main)


def test_outside_a_task() -> None:
    async def main() -> None:
        expiry, found = Expiry(10.0), asyncio.get_running_loop().create_future()

        def look() -> None:
            try:
                expiry.attempt(0.0)
            except RuntimeError as error:
                found.set_result(str(error))

        asyncio.get_running_loop().call_soon(look)
        assert "from a task" in await found

    run(main)
