from __future__ import annotations

from typing import Any

import pytest

from amigo_async.testing.clock import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Every async test runs in debug mode, on a loop that skips waits."""
    return "asyncio", {"loop_factory": VirtualTimeLoop, "debug": True}
