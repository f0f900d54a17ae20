"""A missing tool skips a test at home, and fails it in CI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needs import needs, needs_module


@pytest.fixture(autouse=True)
def _with_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_WITHOUT_PROGRAMS", raising=False)


MISSING: list[Callable[[], object]] = [
    lambda: needs("no-such-program", "the-package"),
    lambda: needs_module("no_such_module", "the-package"),
]


def test_what_is_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path(sys.executable)
    monkeypatch.setenv("PATH", str(python.parent))
    assert needs(python.name, "python") == str(python)
    needs_module("json", "python")


@pytest.mark.parametrize("ask", MISSING)
@pytest.mark.parametrize("value", [None, "", "0", "false"])
def test_at_home_a_test_is_skipped(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object], value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.skip.Exception, match=r"install the-package$"):
        ask()


@pytest.mark.parametrize("ask", MISSING)
@pytest.mark.parametrize("value", ["true", "1"])
def test_in_ci_a_test_fails(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object], value: str
) -> None:
    monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.fail.Exception, match=r"install the-package; in CI"):
        ask()


def test_programs_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_WITHOUT_PROGRAMS", "1")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception, match="sh is left out"):
        needs("sh", "dash")
