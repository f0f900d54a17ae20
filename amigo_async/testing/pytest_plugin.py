"""The pytest plugin, loaded by its entry point: the fixture ``amigo_sandbox``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from amigo_async.testing.sandbox import Sandbox

_MARKER = "amigo_sandbox(**settings): arguments of `Sandbox` for the fixture amigo_sandbox"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def amigo_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A `Sandbox` that serves from a thread of its own, for plain and for async tests.

    To keep tests fast, by default runs take 0.2 seconds, artifacts are available 0.05 seconds
    later, a cancel takes effect after 0.05 seconds, and rate limit windows last one second. The
    marker ``@pytest.mark.amigo_sandbox(...)`` overrides any argument of `Sandbox`::

        @pytest.mark.amigo_sandbox(limits={"create": 2})
        async def test_start(amigo_sandbox):
            async with amigo_sandbox.client() as client:
                await client.runs.create(amigo_sandbox.add_set())
    """
    # Imported only if the fixture is used: every run of pytest loads its plugins.
    from amigo_async.testing import Sandbox, SetPlan  # noqa: PLC0415

    settings: dict[str, Any] = {
        "plan": SetPlan(seconds=0.2, artifacts_after=0.05, cancel_after=0.05),
        "window": 1.0,
    }
    for marker in reversed(list(request.node.iter_markers("amigo_sandbox"))):
        settings |= marker.kwargs
    with Sandbox(**settings).in_thread() as sandbox:
        yield sandbox
