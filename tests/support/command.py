"""The command run in this process, against a sandbox over real sockets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amigo_async.cli import main
from amigo_async.testing import Sandbox, SetPlan

VARIABLES = (
    *("AMIGO_BASE_URL", "AMIGO_ORGANIZATION_ID", "AMIGO_API_KEY", "AMIGO_API_KEY_ID"),
    *("AMIGO_USER_ID", "AMIGO_NO_TOKEN_CACHE"),
    *("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "NO_COLOR", "FORCE_COLOR"),
)

# Over at the first look, so that nothing waits.
AT_ONCE = SetPlan(seconds=0.0, artifacts_after=0.0)
FAILING = SetPlan(seconds=0.0, artifacts_after=0.0, outcome="failed")
ERRING = SetPlan(seconds=0.0, artifacts_after=0.0, outcome="errored")
LASTING = SetPlan(seconds=600.0, cancel_after=0.0)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, no CI, and a folder of its own."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="sandbox")
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(limits={"list": 5_000}).in_thread() as serving:
        for name, value in serving.environment().items():
            monkeypatch.setenv(name, value)
        yield serving


class Said:
    """What a command wrote, and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(arguments)
        self.out, self.err = capsys.readouterr()


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 120) -> None:
    """Take stdout for a terminal without colors."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "25")  # without it, rich takes a dumb terminal for 80 columns wide
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def some_id(number: int) -> str:
    return f"{number:024x}"


def start(sandbox: Sandbox, *set_ids: str) -> list[str]:
    """Start a run of each set; their ids."""

    async def create() -> list[str]:
        async with sandbox.client() as client:
            created = [await client.runs.create(set_id) for set_id in set_ids]
        return [one.simulation_unit_test_set_run_id for one in created]

    return asyncio.run(create())
