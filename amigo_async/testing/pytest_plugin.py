"""The pytest plugin, which pytest finds by itself: the fixture ``amigo_sandbox``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from amigo_async.testing.sandbox import Sandbox

_MARKER = "amigo_sandbox(**settings): arguments of the Sandbox that the fixture amigo_sandbox gives"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def amigo_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A `Sandbox` that serves from a thread of its own, for plain and for async tests.

    So that tests are quick, runs take 0.2 seconds unless planned and their artifacts 0.05 more,
    a cancel as long, and a window of the rate limits is a second. The marker
    ``@pytest.mark.amigo_sandbox(...)`` gives any argument of `Sandbox` another value.
    """
    # Only where the fixture is used: every run of pytest loads its plugins.
    from amigo_async.testing import Sandbox, SetPlan  # noqa: PLC0415

    settings: dict[str, Any] = {
        "plan": SetPlan(seconds=0.2, artifacts_after=0.05, cancel_after=0.05),
        "window": 1.0,
    }
    for marker in reversed(list(request.node.iter_markers("amigo_sandbox"))):
        settings |= marker.kwargs
    with Sandbox(**settings).in_thread() as sandbox:
        yield sandbox
