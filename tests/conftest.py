from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from amigo_async import AmigoClient
from amigo_async.limits import forget
from amigo_async.testing import Sandbox, VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every async test runs in debug mode, on a loop that skips waits."""
    return "asyncio", {"loop_factory": VirtualTimeLoop, "debug": True}


@pytest.fixture(autouse=True)
def _no_budget_of_another_test() -> Iterator[None]:
    """A port is given again to another sandbox, whose budget is another one."""
    forget()
    yield
    forget()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox in the loop of the test."""
    async with Sandbox() as serving:
        yield serving


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AmigoClient]:
    """A client of that sandbox."""
    async with sandbox.client() as connected:
        yield connected
