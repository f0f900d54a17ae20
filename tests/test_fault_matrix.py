"""Every fault at every endpoint under every call: what has to come of it, comes of it."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from amigo_async.limits import forget
from amigo_async.testing import VirtualTimeLoop
from tests.fault_calls import Stage, tasks_end
from tests.fault_kinds import Kind
from tests.fault_matrix import DOCUMENT, KINDS, cells, chosen, document

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Without debug mode, which doubles the time of some thousand requests."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def _less_patience(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Minutes of failing looks are some hundred requests; three seconds show the same."""
    monkeypatch.setattr("amigo_async.polling.poller.PATIENCE", 3.0)
    monkeypatch.setattr("amigo_async.batch.batch.PATIENCE", 3.0)
    monkeypatch.setattr("amigo_async.batch.downloads.PATIENCE", 3.0)
    caplog.set_level(logging.CRITICAL, "amigo_async")  # thousands of retries


# aiohttp's parser takes it for a header like any other before this version.
NULLS_REFUSED: Final = (3, 14)

PLAYED: Final = frozenset(cells()) if os.environ.get("AMIGO_FAULTS") == "all" else chosen()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_what_comes_of_a_fault(kind: Kind, tmp_path: Path) -> None:
    version = tuple(map(int, aiohttp.__version__.split(".")[:2]))
    if kind.name == "header with a null" and version < NULLS_REFUSED:
        pytest.skip("aiohttp takes a null in a header before 3.14")
    before = asyncio.all_tasks()
    wrong = []
    async with Stage.open(kind, tmp_path / "files") as stage:
        for cell in PLAYED.intersection(cells(kind)):
            try:
                came = await stage.play(cell)
            except AssertionError as error:
                came = f"wrong: {error}"
            if came != cell.outcome:
                wrong.append(f"{cell}: {cell.outcome!r} by the table, but: {came}")
            forget()
    await tasks_end(before)
    assert not wrong, "\n".join(wrong)


def test_the_document_is_that_of_the_table() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "python -m tests.fault_matrix"
