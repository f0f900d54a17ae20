"""The pytest plugin, which pytest finds by itself: the fixture ``amigo_sandbox``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from amigo_async.testing.sandbox import Sandbox


@pytest.fixture
def amigo_sandbox() -> Iterator[Sandbox]:
    """A `Sandbox` that serves from a thread of its own; runs take two seconds unless planned."""
    # Only where the fixture is used: every run of pytest loads its plugins.
    from amigo_async.testing.sandbox import Sandbox  # noqa: PLC0415

    with Sandbox().in_thread() as sandbox:
        yield sandbox
