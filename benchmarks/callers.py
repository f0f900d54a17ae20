"""What takes part in the benchmark of calls: each asks for a page and gives its runs.

All may have as many connections at once, none of which is closed meanwhile, and all but the
vendor's decode into the same structs. Those that sign in do so before the time is taken. What is
large is loaded where it is used, so that a process has one of them alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

import aiohttp
import msgspec

from amigo_async import AmigoClient
from amigo_async.models import RunPage

# aiohttp's and httpx's own default; httpx keeps fewer of them open by default, which is left out.
CONNECTIONS: Final = 100

_PATH: Final = "/v1/acme/simulation/unit_test_set_run/"
_KEPT: Final = 60.0  # seconds that httpx keeps a connection on which nothing happens
_HEADERS: Final = {"Accept": "application/json", "Authorization": f"Bearer {'t' * 800}"}

# Asks for a page of so many runs, and gives how many came.
Call: TypeAlias = Callable[[int], Awaitable[int]]


@contextlib.asynccontextmanager
async def amigo_async(base_url: str) -> AsyncGenerator[Call, None]:
    """The package: ``client.runs.list``, as it ships."""
    async with AmigoClient(
        api_key="key",
        api_key_id="key-id",
        user_id="user-1",
        organization_id="acme",
        base_url=base_url,
    ) as client:

        async def call(limit: int) -> int:
            page = await client.runs.list(limit=limit)
            return len(page.simulation_unit_test_set_runs)

        yield call


@contextlib.asynccontextmanager
async def bare(base_url: str) -> AsyncGenerator[Call, None]:
    """The least that can be done with aiohttp and msgspec: no token, no limit, no retry."""
    decode = msgspec.json.Decoder(RunPage).decode
    url = base_url + _PATH
    # Without cookies, as in the package: looking for them takes time.
    async with aiohttp.ClientSession(
        headers=_HEADERS, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def call(limit: int) -> int:
            async with session.get(url, params={"limit": limit}) as answer:
                answer.raise_for_status()
                page = decode(await answer.read())
            return len(page.simulation_unit_test_set_runs)

        yield call


@contextlib.asynccontextmanager
async def with_httpx(base_url: str) -> AsyncGenerator[Call, None]:
    """The same with httpx."""
    import httpx  # noqa: PLC0415  # see above

    limits = httpx.Limits(
        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=_KEPT
    )
    decode = msgspec.json.Decoder(RunPage).decode
    async with httpx.AsyncClient(base_url=base_url, headers=_HEADERS, limits=limits) as client:

        async def call(limit: int) -> int:
            answer = await client.get(_PATH, params={"limit": limit})
            page = decode(answer.raise_for_status().content)
            return len(page.simulation_unit_test_set_runs)

        yield call


@contextlib.asynccontextmanager
async def vendors(base_url: str) -> AsyncGenerator[Call, None]:
    """The vendor's client and its model, put together as its own methods do."""
    import httpx  # noqa: PLC0415  # see above
    from amigo_sdk.config import AmigoConfig  # noqa: PLC0415
    from amigo_sdk.generated.model import (  # noqa: PLC0415
        SimulationGetSimulationUnitTestSetRunsResponse,
    )
    from amigo_sdk.http_client import AmigoAsyncHttpClient  # noqa: PLC0415

    limits = httpx.Limits(
        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=_KEPT
    )
    config = AmigoConfig(
        api_key="key",
        api_key_id="key-id",
        user_id="user-1",
        organization_id="acme",
        base_url=base_url,
    )
    model = SimulationGetSimulationUnitTestSetRunsResponse
    async with AmigoAsyncHttpClient(config, limits=limits) as client:

        async def call(limit: int) -> int:
            answer = await client.request("GET", _PATH, params={"limit": limit})
            page = model.model_validate_json(answer.text)
            return len(page.simulation_unit_test_set_runs)

        yield call


OURS: Final = "amigo_async"
BARE: Final = "aiohttp + msgspec"
VENDORS: Final = "amigo_sdk"

CALLERS: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Call]]]] = {
    OURS: amigo_async,
    BARE: bare,
    "httpx + msgspec": with_httpx,
    VENDORS: vendors,
}
