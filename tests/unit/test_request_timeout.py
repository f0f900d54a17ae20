"""How long one attempt may take, and which of two limits or cancellations wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp
import anyio
import pytest

from amigo_async import ApiKeyAuth, RequestTimeoutError
from amigo_async.config import Configuration
from amigo_async.protocol.requests import list_runs
from amigo_async.protocol.responses import Response
from amigo_async.transport import Sender
from tests.unit.service import run

CONFIG = Configuration(
    auth=ApiKeyAuth("key", "id", "user"),
    organization_id="acme",
    base_url="https://api.example",
    headers={},
)


class Http:
    """An aiohttp session whose requests take as long as `work`."""

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self._work = work

    async def request(self, *_: object, **__: object) -> Any:
        return await self._work()


async def send(work: Callable[[], Awaitable[Any]]) -> Response:
    """Send a request with a timeout of ten seconds."""
    sender = Sender(
        http=lambda: cast("aiohttp.ClientSession", Http(work)),
        config=CONFIG,
        request_timeout=10.0,
        max_response_bytes=1000,
    )
    return await sender.send(list_runs("acme"), {}, tuple)


def test_an_attempt_that_takes_too_long_times_out() -> None:
    async def main() -> None:
        began = anyio.current_time()
        with pytest.raises(RequestTimeoutError, match="no answer in time") as caught:
            await send(lambda: asyncio.sleep(60.0))
        assert anyio.current_time() - began == pytest.approx(10.1)
        assert caught.value.sent
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling(), "the next await would be cancelled"
        await asyncio.sleep(1.0)

    run(main)


def test_the_limit_on_connecting_fires_first() -> None:
    async def connect() -> None:
        await asyncio.sleep(10.0)
        raise aiohttp.ConnectionTimeoutError

    async def main() -> None:
        with pytest.raises(RequestTimeoutError, match="no connection in time") as caught:
            await send(connect)
        assert not caught.value.sent

    run(main)


def test_an_earlier_deadline_wins() -> None:
    async def main() -> None:
        with anyio.move_on_after(3.0) as scope:
            await send(lambda: asyncio.sleep(60.0))
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(3.0)
        await anyio.sleep(20.0)  # neither the deadline nor the timeout has any effect later

    run(main)


@pytest.mark.parametrize("after", [10.1, 10.0999])
def test_a_cancellation_at_the_moment_of_the_timeout_wins(after: float) -> None:
    async def main() -> None:
        task = asyncio.create_task(send(lambda: asyncio.sleep(60.0)))
        asyncio.get_running_loop().call_later(after, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    run(main)
