from __future__ import annotations

from collections.abc import Iterator

import pytest

from amigo_async.ratelimit import forget


@pytest.fixture(autouse=True)
def _no_budget_of_another_test() -> Iterator[None]:
    """What is known of the limits of a made-up service is of one test."""
    forget()
    yield
    forget()
