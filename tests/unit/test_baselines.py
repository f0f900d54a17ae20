"""Baselines of a batch, where something unforeseen happens to them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from amigo_async.batch.baselines import Baselines
from amigo_async.batch.journal import JournaledSteps
from amigo_async.batch.options import BatchSettings
from amigo_async.batch.outcomes import BatchItem
from amigo_async.events import BaselineMissing, Event
from amigo_async.models import Run, RunPage
from amigo_async.names import Names
from amigo_async.resources.runs import RunCalls
from tests.support.report_samples import BEGAN, rated_run

pytestmark = pytest.mark.anyio

SETTINGS = BatchSettings.from_options({"baseline": "last"})
SETS = [f"{number:024x}" for number in (1, 2)]


class Calls:
    """Lists past runs, or does not."""

    def __init__(self, past: list[Run], error: Exception | None = None) -> None:
        self.past = past
        self.error = error

    async def page(self, **_: Any) -> RunPage:
        if self.error is not None:
            raise self.error
        return RunPage(self.past, False, None, None)


class CrowdedCalls(Calls):
    """Lists the runs of a single set on a page of several, and of each set once allowed to."""

    def __init__(self, past: list[Run]) -> None:
        super().__init__(past)
        self.asked, self.allowed = asyncio.Event(), asyncio.Event()

    async def page(self, **_: Any) -> RunPage:
        return RunPage(self.past[:1], True, 50, None)

    async def history(self, set_id: str, *_: Any) -> list[Run]:
        self.asked.set()
        await self.allowed.wait()
        return [run for run in self.past if run.simulation_unit_test_set_id == set_id]


def items(*set_ids: str) -> list[BatchItem]:
    found = []
    for set_id in set_ids:
        item = BatchItem(set_id, JournaledSteps(), SETTINGS, Names())
        item.started(f"run of {set_id}", BEGAN, attached=False)
        item.finished(rated_run(set_id, f"run of {set_id}", [10]), BEGAN, Names())
        found.append(item)
    return found


async def read(calls: Calls, some: list[BatchItem]) -> tuple[Baselines, list[Event]]:
    heard: list[Event] = []
    baselines = Baselines(
        SETTINGS, calls=cast("RunCalls", calls), batch_id="batch", emit=heard.append
    )
    concluded = asyncio.Event()
    concluded.set()
    await baselines.read_all(some, concluded)
    assert baselines.read.is_set()
    return baselines, heard


async def test_past_runs_are_compared() -> None:
    past = [rated_run(set_id, f"past of {set_id}", [10]) for set_id in SETS]
    baselines, heard = await read(Calls(past), items(*SETS))
    assert list(baselines.comparisons) == SETS
    assert [type(event).__name__ for event in heard] == ["RunCompared"] * 2


async def test_unforeseen_error_of_reading_is_said_once() -> None:
    baselines, heard = await read(Calls([], RuntimeError("no list today")), items(*SETS))
    reason = "the baseline could not be read: RuntimeError('no list today')"
    assert baselines.reasons == dict.fromkeys(SETS, reason)
    assert heard == [BaselineMissing(tuple(SETS), reason, "batch")]


async def test_unforeseen_error_of_comparing_concerns_one_set() -> None:
    past = [rated_run(set_id, f"past of {set_id}", [10]) for set_id in SETS]
    some = items(*SETS)
    assert some[0].run is not None
    some[0].run.unit_test_run_specs.append(cast("Any", None))  # nothing that the service sends
    baselines, heard = await read(Calls(past), some)
    assert list(baselines.comparisons) == [SETS[1]]
    assert "the runs could not be compared: AttributeError" in baselines.reasons[SETS[0]]
    assert BaselineMissing((SETS[0],), baselines.reasons[SETS[0]], "batch") in heard


async def test_nothing_is_said_of_a_set_whose_page_is_being_read() -> None:
    """Its run may end meanwhile, and past runs of it are to come."""
    calls = CrowdedCalls([rated_run(set_id, f"past of {set_id}", [10]) for set_id in SETS])
    first, second = items(*SETS)
    baselines = Baselines(
        SETTINGS, calls=cast("RunCalls", calls), batch_id="batch", emit=lambda _: None
    )
    concluded = asyncio.Event()
    reading = asyncio.create_task(baselines.read_all([first, second], concluded))
    await calls.asked.wait()
    await baselines.compare(first)
    await baselines.compare(second)
    assert (list(baselines.comparisons), baselines.reasons) == ([SETS[0]], {})
    calls.allowed.set()
    concluded.set()
    await reading
    assert (list(baselines.comparisons), baselines.reasons) == (SETS, {})
