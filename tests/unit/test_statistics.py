from __future__ import annotations

import doctest

from amigo_async.verdicts import statistics


def test_examples_in_docstrings_are_right() -> None:
    found = doctest.testmod(statistics)
    assert found.failed == 0
    assert found.attempted >= 17
