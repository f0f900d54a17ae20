"""Runs without sockets: a list call that answers from a table, for tests of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Unpack

import msgspec
from msgspec.structs import replace

from amigo_async.decoding import RecordPage, decode_record_page
from amigo_async.errors import AmigoError
from amigo_async.models import Run, RunPage, UserInfo
from amigo_async.protocol.requests import RunFilters

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CREATOR = UserInfo("acme", "user-1")


def run_id(number: int) -> str:
    return f"{number:024x}"


def ids(count: int) -> list[str]:
    return [run_id(number) for number in range(count)]


def some_run(id: str, **fields: object) -> Run:
    run = Run(
        org_id="acme",
        id=id,
        is_completed=False,
        simulation_unit_test_set_id=run_id(0xABC),
        failed_metrics=False,
        errored=False,
        artifacts_generated=False,
        unit_test_run_specs=[],
        unit_test_run_results=[],
        created_at=EPOCH,
        creator=CREATOR,
    )
    return replace(run, **fields)


class FakeRuns:
    """Answers list calls; a run ends, and has artifacts, at the time it is told to.

    Attributes:
        asked: Each call for runs: when, for which ids, and whether only for completed ones.
        errors: What the next calls fail with; None for those that do not.
        fails: Gives the error of a call for these ids once there are no `errors` left.
        mangle: Changes each page.
        sent: Changes its JSON.
        asked_whether_up: When there was a call that no run can match.
    """

    def __init__(self, ends: dict[str, float], *, artifacts_after: float = 0.0) -> None:
        self.ends = dict(ends)
        self.artifacts_after = artifacts_after
        self.asked: list[tuple[float, tuple[str, ...], bool]] = []
        self.asked_whether_up: list[float] = []
        self.errors: list[AmigoError | None] = []
        self.mangle: Callable[[RunPage], RunPage] = lambda page: page
        self.fails: Callable[[tuple[str, ...]], AmigoError | None] = lambda _: None
        self.latency = 0.0
        self.sent: Callable[[bytes], bytes] = lambda body: body
        self.hold: asyncio.Event | None = None
        self.began = -1.0

    def now(self) -> float:
        now = asyncio.get_running_loop().time()
        if self.began < 0:
            self.began = now
        return now - self.began

    def now_at_end(self) -> float:
        """When the last run ended, without a loop."""
        return max(self.ends.values())

    def state(self, id: str) -> Run:
        now, end = self.now(), self.ends[id]
        return some_run(
            id,
            is_completed=now >= end,
            artifacts_generated=now >= end + self.artifacts_after,
            failed_metrics=False,
        )

    async def look(self, **filters: Unpack[RunFilters]) -> RecordPage:
        wanted, completed = tuple(filters.get("id", ())), filters.get("is_completed")
        assert len(wanted) <= (200 if completed else 50)
        if wanted:
            assert filters["limit"] == 50
            self.asked.append((self.now(), wanted, completed is True))
        else:
            after = filters["created_after"]
            assert after is not None
            assert after > EPOCH + timedelta(days=36_500)
            self.asked_whether_up.append(self.now())
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(self.latency)
        error = self.errors.pop(0) if self.errors else self.fails(wanted)
        if error is not None:
            raise error
        runs = [self.state(i) for i in wanted if i in self.ends]
        found = [run for run in runs if completed is None or run.is_completed == completed]
        page = page_of(found[:50], has_more=len(found) > 50)
        return decode_record_page(self.sent(msgspec.json.encode(self.mangle(page))))

    def ticks(self) -> list[list[tuple[float, tuple[str, ...], bool]]]:
        """The calls, those made within a moment together."""
        ticks: list[list[tuple[float, tuple[str, ...], bool]]] = []
        for call in self.asked:
            if ticks and call[0] - ticks[-1][-1][0] < 0.2:
                ticks[-1].append(call)
            else:
                ticks.append([call])
        return ticks


def page_of(runs: Iterable[Run], *, has_more: bool = False) -> RunPage:
    return RunPage(list(runs), has_more, 50 if has_more else None, None)
