"""Runs of the sandbox: starting, listing, living, ending."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from amigo_async.testing import Sandbox, SetPlan
from tests.support.sandbox_kit import NOWHERE, RUNS, Caller, serving, sleep

pytestmark = pytest.mark.anyio


# Starting


@pytest.mark.parametrize(
    ("more", "loc"),
    [
        ({}, ["body"]),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, ["body", 0]),
        ({"data": b"\xff", "headers": {"Content-Type": "application/json"}}, ["body", 0]),
        ({"data": b"{}", "headers": {"Content-Type": "text/plain"}}, ["body"]),
        ({"json": []}, ["body"]),
        ({"json": {}}, ["body", "simulation_unit_test_set_id"]),
        ({"json": {"simulation_unit_test_set_id": 1}}, ["body", "simulation_unit_test_set_id"]),
        (
            {"json": {"simulation_unit_test_set_id": "6618791275130b73714e8d9h"}},
            ["body", "simulation_unit_test_set_id"],
        ),
    ],
)
async def test_malformed_create_is_422(more: Any, loc: list[Any]) -> None:
    async with serving() as caller:
        answer = await caller.call("POST", **more)
        assert answer.status == 422
        assert [entry["loc"] for entry in answer.detail] == [loc]
        assert caller.sandbox.runs == []


async def test_create_for_no_set_is_404() -> None:
    async with serving() as caller:
        foreign = caller.sandbox.add_set(organization_id="other")
        for set_id in (NOWHERE, foreign):
            assert (await caller.create(set_id)).status == 404
        assert caller.sandbox.runs == []


async def test_one_unfinished_run_a_user_and_set() -> None:
    async with serving(plan=SetPlan(seconds=10)) as caller:
        one, two = caller.sandbox.add_sets(2)
        caller.sandbox.add_user("other")
        first = await caller.start(one)
        refused = await caller.create(one)
        assert refused.status == 409
        assert first not in refused.body.decode()
        await caller.start(two)
        await caller.start(one, token=caller.sandbox.issue_token("other"))
        await sleep(10)
        again = await caller.start(one)
        assert again != first
        assert [run.id for run in caller.sandbox.runs][:1] == [first]
        assert len(caller.sandbox.runs) == 4


async def test_concurrent_creates_start_one_run() -> None:
    async with serving() as caller:
        set_id = caller.sandbox.add_set()
        answers = await asyncio.gather(*(caller.create(set_id) for _ in range(10)))
        assert Counter(answer.status for answer in answers) == {201: 1, 409: 9}
        assert len(caller.sandbox.runs) == 1


async def test_run_info() -> None:
    async with serving(plan=SetPlan(seconds=4, outcome="errored", trouble_at=0.0)) as caller:
        set_id = caller.sandbox.add_set()
        run_id = await caller.start(set_id)
        await caller.cancel(run_id)
        await sleep(1)
        (info,) = caller.sandbox.runs
        assert (info.id, info.unit_test_set_id, info.organization_id) == (run_id, set_id, "sandbox")
        assert info.creator == ("sandbox", caller.sandbox.user_id)
        assert abs(info.created_at.timestamp() - (caller.now() - 1)) < 1
        assert (info.cancelled, info.is_completed, info.artifacts_generated) == (True, True, False)
        assert (info.failed_metrics, info.errored) == (False, True)
        assert (info.done, info.total) == (1, 9)


# Living


async def progress(caller: Caller, run_id: str) -> tuple[int, bool, bool, bool, bool]:
    """Repeats that have ended, and the flags."""
    run = await caller.get(run_id)
    done = sum(len(r["run_errors"]) for r in run["unit_test_run_results"] if r is not None)
    return (
        done,
        run["failed_metrics"],
        run["errored"],
        run["is_completed"],
        run["artifacts_generated"],
    )


@pytest.mark.parametrize(
    ("outcome", "failed", "errored"),
    [("passed", False, False), ("failed", True, False), ("errored", False, True)],
)
async def test_run_as_planned(outcome: Any, failed: bool, errored: bool) -> None:
    plan = SetPlan(seconds=8, outcome=outcome, unit_tests=2, repeats=4, artifacts_after=5)
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        await sleep(0.5)
        assert await progress(caller, run_id) == (0, False, False, False, False)
        await sleep(4)
        assert await progress(caller, run_id) == (4, False, False, False, False)
        await sleep(1)  # the first trouble shows while the run goes on
        assert await progress(caller, run_id) == (5, failed, errored, False, False)
        await sleep(2)
        assert await progress(caller, run_id) == (7, failed, errored, False, False)
        await sleep(1)
        assert await progress(caller, run_id) == (8, failed, errored, True, False)
        await sleep(4)
        assert (await progress(caller, run_id))[4] is False
        await sleep(1)
        assert (await progress(caller, run_id))[4] is True


async def test_chance_as_planned() -> None:
    plan = SetPlan(
        seconds=0, unit_tests=3, repeats=400, metrics=2, pass_rate=(n for n in (1.0, 0.75, 0.0))
    )
    async with serving(plan=replace(plan, agent_version=7)) as caller:
        run = await caller.get(await caller.start(caller.sandbox.add_set()))
        failed = [
            sum(
                not all(passed for _, passed in metrics)
                for metrics in zip(
                    *(m["results"] for m in result["metric_evaluation_results"]), strict=True
                )
            )
            for result in run["unit_test_run_results"]
        ]
        assert (failed[0], failed[2]) == (0, 400)
        assert 60 < failed[1] < 140
        assert run["failed_metrics"]
        versions = {spec["agent_version_info"][1] for spec in run["unit_test_run_specs"]}
        assert versions == {7}
        for metric in run["unit_test_run_results"][2]["metric_evaluation_results"]:
            assert 140 < sum(not passed for _, passed in metric["results"]) < 260


async def test_results_do_not_change() -> None:
    plan = SetPlan(seconds=6, unit_tests=2, repeats=3, outcome="failed", trouble_at=0.0)
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        await sleep(3.5)
        early = (await caller.get(run_id))["unit_test_run_results"]
        await sleep(10)
        late = (await caller.get(run_id))["unit_test_run_results"]
        for before, after in zip(early, late, strict=True):
            for one, all_ in zip(
                before["metric_evaluation_results"], after["metric_evaluation_results"], strict=True
            ):
                assert one["results"] == all_["results"][: len(one["results"])]
                assert len(one["results"]) < len(all_["results"])


@pytest.mark.parametrize("outcome", ["passed", "failed", "errored"])
async def test_flags_and_results_agree(outcome: Any) -> None:
    plan = SetPlan(outcome=outcome, unit_tests=4, repeats=5, trouble_at=0.2)
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        for _ in range(10):
            run = await caller.get(run_id)
            known = [result for result in run["unit_test_run_results"] if result is not None]
            failed = [
                not passed
                for result in known
                for metric in result["metric_evaluation_results"]
                for _, passed in metric["results"]
            ]
            errors = [error for result in known for error in result["run_errors"]]
            assert run["failed_metrics"] is any(failed)
            assert run["errored"] is any(errors)
            assert all(error is None or error for error in errors)
            await sleep(0.25)
        assert run["is_completed"]
        assert (run["failed_metrics"], run["errored"]) == (
            outcome == "failed",
            outcome == "errored",
        )


async def test_criteria_of_all_kinds() -> None:
    async with serving(plan=SetPlan(unit_tests=6, metrics=14)) as caller:
        run = await caller.get(await caller.start(caller.sandbox.add_set()))
        specs, results = run["unit_test_run_specs"], run["unit_test_run_results"]
        criteria = [
            metric["success_criterion"] for spec in specs for metric in spec["metrics_to_evaluate"]
        ]
        kinds = {criterion["type"] for criterion in criteria}
        assert kinds == {"boolean", "numerical", "categorical"}
        verbs = {criterion["verb"] for criterion in criteria if criterion["type"] == "numerical"}
        assert verbs == {"==", "!=", "<=", "<", ">=", ">"}
        assert len(results) == len(specs) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": -1},
        {"seconds": (2, 1)},
        {"seconds": float("inf")},
        {"unit_tests": 0},
        {"repeats": 0},
        {"metrics": -1},
        {"metrics": 0, "outcome": "failed"},
        {"metrics": 0, "pass_rate": 0.5},
        {"pass_rate": 1.1},
        {"pass_rate": [0.5, -0.1, 0.5]},
        {"pass_rate": [0.5, 0.5]},
        {"pass_rate": 0.5, "outcome": "failed"},
        {"cancelled_at": -1.0},
        {"unlisted": [(3, 2)]},
    ],
)
def test_impossible_plan(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"seconds|unit_tests|repeats|metrics|cancelled_at|unlisted|pass_rate"
    ):
        SetPlan(**wrong)


async def test_run_of_no_time() -> None:
    async with serving(plan=SetPlan(seconds=0, artifacts_after=0)) as caller:
        run = await caller.get(await caller.start(caller.sandbox.add_set()))
        assert run["is_completed"]
        assert run["artifacts_generated"]


async def test_range_of_seconds() -> None:
    async with serving(plan=SetPlan(seconds=(10, 100))) as caller:
        for set_id in caller.sandbox.add_sets(20):
            await caller.start(set_id)
        await sleep(10)
        assert not any(run.is_completed for run in caller.sandbox.runs)
        await sleep(45)
        assert 0 < sum(run.is_completed for run in caller.sandbox.runs) < 20
        await sleep(46)
        assert all(run.is_completed for run in caller.sandbox.runs)


# Listing


async def twelve(caller: Caller) -> list[str]:
    """Runs a second apart: a set each, every second one failing, every third one long."""
    caller.sandbox.add_user("other")
    found = []
    for number in range(12):
        plan = SetPlan(
            seconds=1000 if number % 3 == 0 else 1,
            outcome="failed" if number % 2 else "errored" if number % 4 == 0 else "passed",
            trouble_at=0.0,
            repeats=40,
        )
        user = "other" if number >= 9 else None
        token = caller.sandbox.issue_token(user)
        found.append(await caller.start(caller.sandbox.add_set(plan), token=token))
        await sleep(1)
    await sleep(10)
    return found


FILTERS: list[tuple[list[tuple[str, str]], Sequence[int]]] = [
    ([], range(12)),
    ([("sort_by", "+created_at")], range(12)),
    ([("sort_by", "-created_at")], range(11, -1, -1)),
    ([("sort_by", "-created_at"), ("sort_by", "+created_at")], range(11, -1, -1)),
    ([("is_completed", "true")], [1, 2, 4, 5, 7, 8, 10, 11]),
    ([("is_completed", "0")], [0, 3, 6, 9]),
    ([("failed_metrics", "True")], [1, 3, 5, 7, 9, 11]),
    ([("failed_metrics", "FALSE")], [0, 2, 4, 6, 8, 10]),
    ([("errored", "true")], [0, 4, 8]),
    ([("is_completed", "true"), ("errored", "true")], [4, 8]),
    ([("creator", "sandbox,other")], [9, 10, 11]),
    ([("creator", "sandbox,other"), ("creator", "sandbox,user-1")], range(12)),
    ([("creator", "sandbox,nobody")], []),
    ([("id", NOWHERE)], []),
    ([("limit", "3")], [0, 1, 2]),
    ([("limit", "3"), ("continuation_token", "3")], [3, 4, 5]),
    ([("limit", "3"), ("continuation_token", "11")], [11]),
    ([("continuation_token", "12")], []),
    ([("limit", "0")], []),
    ([("unknown", "is ignored")], range(12)),
]


async def test_filters() -> None:
    async with serving() as caller:
        runs = await twelve(caller)
        for query, wanted in FILTERS:
            assert await caller.ids(query) == [runs[number] for number in wanted], query


async def test_repeated_filters() -> None:
    async with serving() as caller:
        runs = await twelve(caller)
        sets = [run.unit_test_set_id for run in caller.sandbox.runs]
        assert await caller.ids([("id", runs[7]), ("id", runs[2])]) == [runs[2], runs[7]]
        wanted = [("simulation_unit_test_set_id", sets[number]) for number in (4, 5)]
        assert await caller.ids(wanted) == [runs[4], runs[5]]
        assert await caller.ids([*wanted, ("id", runs[5])]) == [runs[5]]


async def test_times_are_inclusive() -> None:
    async with serving() as caller:
        runs = await twelve(caller)
        times = [run.created_at.isoformat() for run in caller.sandbox.runs]
        assert await caller.ids([("created_after", times[9])]) == runs[9:]
        assert await caller.ids([("created_before", times[2])]) == runs[:3]
        both = [("created_after", times[5]), ("created_before", times[5])]
        assert await caller.ids(both) == [runs[5]]
        told = (await caller.get(runs[5]))["created_at"]
        assert await caller.ids([("created_after", told), ("created_before", told)]) == [runs[5]]


async def test_pages() -> None:
    async with serving() as caller:
        runs = await twelve(caller)
        seen, token = [], 0
        for _ in range(3):
            page = await caller.page([("limit", "5"), ("continuation_token", str(token))])
            seen += [run["id"] for run in page["simulation_unit_test_set_runs"]]
            token = page["continuation_token"]
            assert page["has_more"] is (token is not None)
        assert seen == runs
        assert token is None


async def test_pages_shift() -> None:
    async with serving() as caller:
        runs = await twelve(caller)
        newest = [("sort_by", "-created_at"), ("limit", "6")]
        first = await caller.ids(newest)
        await caller.start(caller.sandbox.add_set())
        second = await caller.ids([*newest, ("continuation_token", "6")])
        assert set(first) & set(second) == {runs[6]}


async def test_empty_page() -> None:
    async with serving() as caller:
        empty = await caller.page([("limit", "0")])
        assert (empty["has_more"], empty["continuation_token"]) == (False, None)
        await caller.start(caller.sandbox.add_set())
        some = await caller.page([("limit", "0")])
        assert (some["has_more"], some["continuation_token"]) == (True, 0)


async def test_filter_values() -> None:
    async with serving() as caller:
        await twelve(caller)
        first = await caller.page([("limit", "1"), ("creator", "sandbox,other")])
        sets = [run.unit_test_set_id for run in caller.sandbox.runs]
        assert first["filter_values"] == {
            "creators": [{"org_id": "sandbox", "user_id": "other"}],
            "simulation_unit_test_set_ids": sets[9:],
            "tags": [],
        }
        later = await caller.page([("limit", "1"), ("continuation_token", "1")])
        assert later["filter_values"] is None


async def test_organizations_are_apart() -> None:
    async with serving() as caller:
        caller.sandbox.add_user("boss", organization_id="other")
        token = caller.sandbox.issue_token("boss", organization_id="other")
        foreign = caller.sandbox.add_set(organization_id="other")
        run_id = await caller.start(foreign, token=token, organization="other")
        assert await caller.ids([("id", run_id)]) == []
        assert (await caller.cancel(run_id)).status == 404
        assert (await caller.artifacts(run_id)).status == 404


MALFORMED: list[tuple[str, list[Any]]] = [
    (f"id={NOWHERE}&id=nope", ["query", "id", 1]),
    ("id=6618791275130b73714e8d9h", ["query", "id", 0]),
    ("id=0123456789ABCDEF01234567", ["query", "id", 0]),
    (f"id={NOWHERE}%0A", ["query", "id", 0]),
    (f"id={NOWHERE}&id={NOWHERE}", ["query", "id"]),
    ("simulation_unit_test_set_id=x", ["query", "simulation_unit_test_set_id", 0]),
    ("creator=a,b&creator=a,b", ["query", "creator"]),
    ("creator=a", ["query", "creator", 0]),
    ("creator=,b", ["query", "creator", 0]),
    ("creator=a,", ["query", "creator", 0]),
    ("limit=51", ["query", "limit"]),
    ("limit=-1", ["query", "limit"]),
    ("limit=", ["query", "limit"]),
    ("limit=5.5", ["query", "limit"]),
    ("limit=1&limit=x", ["query", "limit"]),
    ("continuation_token=-1", ["query", "continuation_token"]),
    ("continuation_token=null", ["query", "continuation_token"]),
    ("is_completed=maybe", ["query", "is_completed"]),
    ("failed_metrics=", ["query", "failed_metrics"]),
    ("errored=2", ["query", "errored"]),
    ("errored=null", ["query", "errored"]),
    ("created_after=null", ["query", "created_after"]),
    ("created_after=yesterday", ["query", "created_after"]),
    ("created_after=2024-01-02", ["query", "created_after"]),
    ("created_after=2024-01-02T03:04:05", ["query", "created_after"]),
    ("created_after=2024-01-02T03:04:05+00:00", ["query", "created_after"]),
    ("created_before=2024-13-02T03:04:05Z", ["query", "created_before"]),
    ("sort_by=+created_at", ["query", "sort_by", 0]),
    ("sort_by=created_at", ["query", "sort_by", 0]),
    ("sort_by=-id", ["query", "sort_by", 0]),
]


async def test_malformed_query_is_422() -> None:
    async with serving() as caller:
        for query, loc in MALFORMED:
            answer = await caller.call("GET", query=query)
            assert answer.status == 422, query
            assert [entry["loc"] for entry in answer.detail] == [loc], query
            assert all(entry["msg"] and entry["type"] for entry in answer.detail), query


async def test_well_formed_query() -> None:
    async with serving() as caller:
        for query in (
            "sort_by=%2Bcreated_at",
            "created_after=2024-01-02T03:04:05Z",
            "created_after=2024-01-02T03:04:05.123456%2B02:00",
            "limit=50",
            "limit=x&limit=1",
            "is_completed=TRUE",
        ):
            assert (await caller.call("GET", query=query)).status == 200, query


# Ending


async def test_cancel() -> None:
    plan = SetPlan(seconds=100, cancel_after=3, artifacts_after=1)
    async with serving(plan=plan) as caller:
        set_id = caller.sandbox.add_set()
        run_id = await caller.start(set_id)
        await sleep(20)
        answer = await caller.cancel(run_id)
        assert (answer.status, answer.body) == (204, b"")
        assert (await caller.cancel(run_id)).status == 204  # it still is in progress
        assert (await caller.get(run_id))["is_completed"] is False
        assert (await caller.create(set_id)).status == 409
        await sleep(3)
        ended = await caller.get(run_id)
        assert ended["is_completed"] is True
        assert (await caller.cancel(run_id)).status == 409
        await sleep(1000)
        assert await caller.get(run_id) == ended
        assert ended["artifacts_generated"] is False
        assert (await caller.artifacts(run_id)).status == 400
        await caller.start(set_id)


async def test_artifacts_of_a_cancelled_run() -> None:
    plan = SetPlan(seconds=100, cancel_after=3, artifacts_after=1, artifacts_when_cancelled=True)
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        early = caller.sandbox.artifact_bytes(run_id)
        await caller.cancel(run_id)
        await sleep(5)
        answer = await caller.fetch("GET", await caller.link(run_id))
        assert answer.body == caller.sandbox.artifact_bytes(run_id)
        assert answer.body != early  # what was done before the cancel, and no more


async def test_cancel_just_before_the_end() -> None:
    plan = SetPlan(seconds=10, cancel_after=3, artifacts_after=1)
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        await sleep(9)
        assert (await caller.cancel(run_id)).status == 204
        await sleep(1)
        assert (await caller.get(run_id))["is_completed"] is True
        await sleep(1)
        assert (await caller.get(run_id))["artifacts_generated"] is True


async def test_cancel_without_effect() -> None:
    async with serving(plan=SetPlan(seconds=100, cancel_after=None)) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        assert (await caller.cancel(run_id)).status == 204
        await sleep(99)
        assert (await caller.get(run_id))["is_completed"] is False
        await sleep(2)
        run = await caller.get(run_id)
        assert (run["is_completed"], run["artifacts_generated"]) == (True, True)


async def test_start_and_cancel_by_others() -> None:
    async with serving(plan=SetPlan(seconds=100)) as caller:
        set_id = caller.sandbox.add_set()
        mine = caller.sandbox.start_run(set_id)
        assert (await caller.create(set_id)).status == 409
        other = caller.sandbox.start_run(set_id, user_id="other")
        assert await caller.ids() == [mine, other]
        assert (await caller.get(other))["creator"]["user_id"] == "other"
        caller.sandbox.cancel_run(mine)
        await sleep(1)
        assert (await caller.get(mine))["is_completed"] is True
        caller.sandbox.cancel_run(mine)
        await sleep(200)
        caller.sandbox.cancel_run(other)
        cancelled = {run.id: run.cancelled for run in caller.sandbox.runs}
        assert cancelled == {mine: True, other: False}


async def test_cancelled_by_others_as_planned() -> None:
    plan = SetPlan(seconds=9, cancelled_at=4.0, cancel_after=1.0, artifacts_after=1.0)
    async with serving(plan=plan) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        await sleep(3.5)
        (before,) = caller.sandbox.runs
        await sleep(1)
        (after,) = caller.sandbox.runs
        assert (before.cancelled, after.cancelled) == (False, True)
        assert not (await caller.get(run_id))["is_completed"]
        await sleep(10)
        run = await caller.get(run_id)
        flags = ("is_completed", "failed_metrics", "errored", "artifacts_generated")
        assert [run[name] for name in flags] == [True, False, False, False]
        assert sum(len(result["run_errors"]) for result in run["unit_test_run_results"]) == 5


@pytest.mark.parametrize("query", [[], [("id", "")], [("is_completed", "false")]])
async def test_unlisted(query: list[tuple[str, str]]) -> None:
    plan = SetPlan(seconds=100, unlisted=[(0, 3), (10, 12)])
    async with serving(plan=plan) as caller:
        set_id = caller.sandbox.add_set()
        run_id = await caller.start(set_id)
        other = caller.sandbox.start_run(caller.sandbox.add_set(SetPlan(seconds=100)))
        query = [(name, value or run_id) for name, value in query]
        seen = []
        for _ in range(13):
            seen.append(run_id in await caller.ids(query))
            await sleep(1)
        assert seen == [False] * 3 + [True] * 7 + [False] * 2 + [True]
        assert other in await caller.ids()
        assert (await caller.create(set_id)).status == 409


@pytest.mark.parametrize(("method", "tail"), [("DELETE", ""), ("GET", "artifacts/")])
async def test_unknown_run_is_404_or_422(method: str, tail: str) -> None:
    async with serving() as caller:
        assert (await caller.call(method, f"{RUNS}{NOWHERE}/{tail}")).status == 404
        for wrong in ("6618791275130b73714e8d9h", "x", NOWHERE.upper()):
            answer = await caller.call(method, f"{RUNS}{wrong}/{tail}")
            assert answer.status == 422
            (entry,) = answer.detail
            assert entry["loc"] == ["path", "simulation_unit_test_set_run_id"]


async def test_early_artifacts_are_400() -> None:
    async with serving(plan=SetPlan(seconds=5, artifacts_after=5)) as caller:
        run_id = await caller.start(caller.sandbox.add_set())
        assert (await caller.artifacts(run_id)).status == 400
        await sleep(6)
        late = await caller.artifacts(run_id)
        assert (late.status, isinstance(late.detail, str)) == (400, True)
        await sleep(4)
        assert (await caller.artifacts(run_id)).status == 200


async def test_paths_are_exact() -> None:
    async with serving() as caller:
        for method, path, status, allowed in (
            ("GET", RUNS.rstrip("/"), 404, None),
            ("GET", "simulation/else/", 404, None),
            ("GET", f"{RUNS}{NOWHERE}/artifacts", 404, None),
            ("PUT", RUNS, 405, {"GET", "POST"}),
            ("GET", f"{RUNS}{NOWHERE}/", 405, {"DELETE"}),
            ("GET", "user/signin_with_api_key", 405, {"POST"}),
        ):
            answer = await caller.call(method, path)
            found = answer.headers.get("Allow")
            assert answer.status == status
            assert (set(found.split(", ")) if found else None) == allowed
            assert caller.sandbox.requests[-1].route == "unknown"


async def test_seed() -> None:
    async with serving(seed=5) as one, serving(seed=5) as two, serving(seed=6) as three:
        sets = [caller.sandbox.add_sets(3) for caller in (one, two, three)]
        assert sets[0] == sets[1] != sets[2]
        runs = [await caller.start(sets[0][0]) for caller in (one, two)]
        assert runs[0] == runs[1]


async def test_seed_of_the_process() -> None:
    """Without one of its own, a sandbox follows `random.seed`, as do the data that tests draw."""
    sets = []
    for seed in (5, 5, 6):
        random.seed(seed)
        sets.append(Sandbox().add_sets(3))
    assert sets[0] == sets[1] != sets[2]
