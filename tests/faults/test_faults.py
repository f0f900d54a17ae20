"""Every fault at every endpoint under every call: what FAULTS.md says comes of it."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import cache
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.faults.calls import Stage
from tests.faults.kinds import KINDS, Kind
from tests.faults.table import API, EXCEPTIONS, STORE, VERDICT, Cell, cells, chosen

pytestmark = pytest.mark.anyio


# aiohttp's parser takes it for a header like any other before this version.
NULLS_REFUSED: Final = (3, 14)


@cache
def played() -> frozenset[Cell]:
    return frozenset(cells()) if os.environ.get("AMIGO_FAULTS") == "all" else chosen()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_outcome_of_a_fault(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = tuple(map(int, aiohttp.__version__.split(".")[:2]))
    if kind.name == "header with a null" and version < NULLS_REFUSED:
        pytest.skip("aiohttp takes a null in a header before 3.14")
    caplog.set_level(logging.CRITICAL, "amigo_async")  # thousands of retries
    before = asyncio.all_tasks()
    wrong = []
    async with Stage.open(kind, tmp_path / "files") as stage:
        for cell in played().intersection(cells(kind)):
            try:
                came = await stage.play(cell)
            except AssertionError as error:
                came = f"wrong: {error}"
            if came != cell.outcome:
                wrong.append(f"{cell}: {cell.outcome!r} by the page, but: {came}")
    for _ in range(20):
        if asyncio.all_tasks() <= before:
            break
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= before, "a task is left"
    assert not wrong, "\n".join(wrong)


def test_nothing_on_the_page_is_left_out() -> None:
    places = {
        (label, column)
        for table in (API, STORE)
        for label, row in table.items()
        for column, words in row.items()
        if words and label != VERDICT and column not in ("Fault", "Error")
    }
    places |= {(f"exception {n}", row["Column"]) for n, row in enumerate(EXCEPTIONS)}
    assert {cell.place for cell in played()} == places
