"""The sandbox's rate limits, their headers, and its clock."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from amigo_async.testing import Sandbox, SetPlan
from tests.support.sandbox_kit import NOWHERE, Answer, Caller, serving, sleep

pytestmark = pytest.mark.anyio

DOCUMENTED: list[tuple[Any, int]] = [
    ("sign_in", 5),
    ("create", 20),
    ("list", 50),
    ("cancel", 10),
    ("artifacts", 100),
]


async def ask(caller: Caller, endpoint: Any) -> Answer:
    """One request, whatever its answer."""
    if endpoint == "sign_in":
        return await caller.sign_in()
    if endpoint == "create":
        return await caller.create(NOWHERE)
    if endpoint == "list":
        return await caller.call("GET")
    if endpoint == "cancel":
        return await caller.cancel(NOWHERE)
    return await caller.artifacts(NOWHERE)


@pytest.mark.parametrize(("endpoint", "limit"), DOCUMENTED)
async def test_documented_limits(endpoint: Any, limit: int) -> None:
    async with serving(limits=None) as caller:
        for number in range(limit):
            answer = await ask(caller, endpoint)
            assert answer.status != 429
            assert answer.headers["X-RateLimit-Limit"] == str(limit)
            assert answer.headers["X-RateLimit-Remaining"] == str(limit - 1 - number)
            assert "Retry-After" not in answer.headers
        refused = await ask(caller, endpoint)
        assert (refused.status, refused.headers["X-RateLimit-Remaining"]) == (429, "0")
        assert isinstance(refused.detail, str)
        for other, _ in DOCUMENTED:
            if other != endpoint:
                assert (await ask(caller, other)).status != 429


async def test_fixed_window() -> None:
    async with serving(limits={"list": 3}) as caller:
        first = await caller.call("GET")
        reset = float(first.headers["X-RateLimit-Reset"])
        assert reset == pytest.approx(caller.now() + 60, abs=0.5)
        await sleep(30)
        for _ in range(2):
            assert (await caller.call("GET")).headers["X-RateLimit-Reset"] == first.headers[
                "X-RateLimit-Reset"
            ]
        refused = await caller.call("GET")
        assert refused.headers["Retry-After"] == "30"
        await sleep(reset - caller.now())
        answers = [await caller.call("GET") for _ in range(4)]
        assert Counter(answer.status for answer in answers) == {200: 3, 429: 1}


async def test_window_begins_with_a_request() -> None:
    async with serving(limits={"list": 1}) as caller:
        await sleep(1000)
        answer = await caller.call("GET")
        assert float(answer.headers["X-RateLimit-Reset"]) == pytest.approx(
            caller.now() + 60, abs=0.5
        )


async def test_sliding_window() -> None:
    async with serving(limits={"list": 2}, window_mode="sliding") as caller:
        await caller.call("GET")
        await sleep(40)
        await caller.call("GET")
        refused = await caller.call("GET")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "20")
        await sleep(20)
        assert [(await caller.call("GET")).status for _ in range(2)] == [200, 429]
        await sleep(40)
        assert [(await caller.call("GET")).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("mode", ["fixed", "sliding"])
async def test_refused_requests_do_not_count(mode: Any) -> None:
    async with serving(limits={"list": 1}, window_mode=mode) as caller:
        await caller.call("GET")
        for _ in range(5):
            await sleep(10)
            assert (await caller.call("GET")).status == 429
        await sleep(10)
        assert (await caller.call("GET")).status == 200


async def test_reset_in_whole_seconds() -> None:
    async with serving(limits={"list": 1}, rate_limit_headers="whole") as caller:
        await caller.call("GET")
        began = caller.sandbox.requests[0].time
        refused = await caller.call("GET")
        reset = refused.headers["X-RateLimit-Reset"]
        assert (reset.isdigit(), int(reset)) == (True, math.ceil(began + 60))
        assert int(refused.headers["Retry-After"]) >= began + 60 - caller.now()


@pytest.mark.parametrize("style", ["whole", "decimal"])
async def test_retry_after_is_enough(style: Any) -> None:
    async with serving(limits={"list": 1}, window=1.2345, retry_after=style) as caller:
        await caller.call("GET")
        for _ in range(20):
            refused = await caller.call("GET")
            assert refused.status == 429
            pause = refused.headers["Retry-After"]
            assert pause.isdigit() is (style == "whole")
            await sleep(float(pause))
            assert (await caller.call("GET")).status == 200


async def test_without_headers() -> None:
    async with serving(limits={"list": 1}, rate_limit_headers=None, retry_after=None) as caller:
        await caller.call("GET")
        refused = await caller.call("GET")
        assert refused.status == 429
        assert not [name for name in refused.headers if "ate" in name and name != "Date"]


async def test_unlimited_endpoint() -> None:
    async with serving(limits={"list": None}) as caller:
        for _ in range(60):
            answer = await caller.call("GET")
            assert (answer.status, "X-RateLimit-Limit" in answer.headers) == (200, False)


async def test_quota_of_an_organization() -> None:
    async with serving(limits={"list": 2}) as caller:
        caller.sandbox.add_user("second")
        caller.sandbox.add_user("other", organization_id="elsewhere")
        second = caller.sandbox.issue_token("second")
        other = caller.sandbox.issue_token("other", organization_id="elsewhere")
        assert (await caller.call("GET")).status == 200
        assert (await caller.call("GET", token=second)).status == 200
        assert (await caller.call("GET", token=second)).status == 429
        answer = await caller.call("GET", token=other, organization="elsewhere")
        assert answer.status == 200


async def test_spend() -> None:
    async with serving(limits={"create": 20, "list": None}) as caller:
        assert caller.sandbox.spend("create", 15) == 15
        answer = await ask(caller, "create")
        assert answer.headers["X-RateLimit-Remaining"] == "4"
        assert caller.sandbox.spend("create", 10) == 4
        assert (await ask(caller, "create")).status == 429
        assert caller.sandbox.spend("create", 3, organization_id="another") == 3
        assert caller.sandbox.spend("list", 500) == 500
        await sleep(60)
        assert (await ask(caller, "create")).status == 404


async def test_unauthorized_requests_do_not_count() -> None:
    async with serving(limits={"list": 1}) as caller:
        for _ in range(3):
            assert (await caller.call("GET", token="bad")).status == 401
        assert (await caller.call("GET")).status == 200


async def test_failed_sign_ins_count() -> None:
    async with serving(limits={"sign_in": 2}) as caller:
        answers = [await caller.sign_in(x_api_key="wrong") for _ in range(3)]
        assert [answer.status for answer in answers] == [401, 401, 429]


def test_limit_of_no_endpoint() -> None:
    with pytest.raises(ValueError, match=r"there is no 'lost'; there are .*create"):
        Sandbox(limits={"lost": 3})  # type: ignore[dict-item]  # the point of it


# The clock


@pytest.mark.parametrize("skew", [0.0, 300.0, -300.0])
async def test_clock_skew(skew: float) -> None:
    async with serving(clock_skew=skew, plan=SetPlan(seconds=1)) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        await sleep(10)
        answers = [await caller.call("GET"), await caller.call("GET", token="bad")]
        answers.append(await caller.call("PATCH", "elsewhere"))
        link = await caller.link(run_id)
        answers += [await caller.fetch("GET", link), await caller.fetch("GET", link + "0")]
        assert [answer.status for answer in answers] == [200, 401, 404, 200, 403]
        for answer in answers:
            date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
            assert 0 <= caller.now() - date < 1.5
        created = caller.sandbox.runs[0].created_at.timestamp()
        assert created - time.time() == pytest.approx(skew, abs=5)


@pytest.mark.parametrize("skew", [100.0, -100.0])
async def test_created_at_skew(skew: float) -> None:
    async with serving(created_at_skew=skew, clock_skew=7.0) as caller:
        run = await caller.get(await caller.start(caller.sandbox.add_set()))
        answer = await caller.call("GET")
        date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        created = datetime.fromisoformat(run["created_at"]).timestamp()
        assert created - date == pytest.approx(skew, abs=5)
        assert caller.sandbox.runs[0].created_at.timestamp() == created


async def test_clock_can_be_set() -> None:
    async with serving(plan=SetPlan(seconds=10)) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        caller.sandbox.clock_skew = -100.0
        assert caller.sandbox.now() == pytest.approx(time.time() - 100, abs=5)
        run = await caller.get(run_id)
        assert run["unit_test_run_results"] == [None, None, None]
        assert caller.sandbox.runs[0].done == 0
        caller.sandbox.clock_skew = 100.0
        assert (await caller.get(run_id))["is_completed"]


async def test_clock_jumps_with_skipped_time() -> None:
    async with serving() as caller:
        before, real = caller.now(), time.monotonic()
        await asyncio.sleep(100_000)
        assert caller.now() - before >= 100_000
        assert time.monotonic() - real < 30
