"""Names and reasons: few requests for a batch, and never an error of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from amigo_async import AmigoClient, ArgumentError, DecodeError, ForbiddenError, Run
from amigo_async.models import SimulationEvaluationSource
from amigo_async.testing import Fault, Permission, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

CALLS = ("unit_test_sets", "search_unit_test_sets", "unit_tests", "metrics", "evaluations")
FAILING = SetPlan(seconds=1.0, outcome="failed", unit_tests=4, repeats=3, metrics=3)


async def finished(client: AmigoClient, *set_ids: str) -> list[Run]:
    result = await client.run_many(set_ids)
    return [outcome.run for outcome in result.outcomes if outcome.run is not None]


def asked(sandbox: Sandbox) -> dict[str, int]:
    return {call: n for call in CALLS if (n := sandbox.count(call))}  # type: ignore[arg-type]


def without(sandbox: Sandbox, *missing: Permission) -> AmigoClient:
    """A client of a user who lacks some permissions."""
    left = [one.value for one in Permission if one not in missing]
    sandbox.add_user(sandbox.user_id, permissions=left)
    return sandbox.client()


# --- lists ---


async def test_each_list_pages_and_filters(client: AmigoClient, sandbox: Sandbox) -> None:
    ids = sandbox.add_sets(25, SetPlan(unit_tests=30, metrics=6))
    assert [one.id async for one in client.unit_test_sets.iterate(limit=7)] == ids
    tests = [one async for one in client.unit_tests.iterate()]
    assert len({one.id for one in tests}) == 750
    first = await client.unit_test_sets.list(id=ids[0])
    assert first.simulation_unit_test_sets[0].repeats == 90
    contained = first.simulation_unit_test_sets[0].unit_test_runs[0].unit_test_id
    with_test = await client.unit_test_sets.list(unit_test_id=contained)
    assert [one.id for one in with_test.simulation_unit_test_sets] == [ids[0]]
    numerical = await client.metrics.list(type="numerical")
    assert {one.metric_value_type for one in numerical.metrics} == {"numerical"}
    newest = [one async for one in client.unit_test_sets.iterate(sort_by="-updated_at")]
    assert [one.id for one in newest] == ids[::-1]


async def test_deleted_records(client: AmigoClient, sandbox: Sandbox) -> None:
    [kept, gone] = sandbox.add_sets(2)
    sandbox.delete(gone)
    metric = (await client.metrics.list()).metrics[0]
    sandbox.delete(metric.id)
    both = await client.unit_test_sets.list()
    assert [one.is_deleted for one in both.simulation_unit_test_sets] == [False, True]
    left = await client.unit_test_sets.list(is_deleted=False)
    assert [one.id for one in left.simulation_unit_test_sets] == [kept]
    assert metric.id not in {one.id for one in (await client.metrics.list()).metrics}
    assert [one.id for one in (await client.metrics.list(is_deleted=True)).metrics] == [metric.id]


async def test_evaluations_join_the_results(client: AmigoClient, sandbox: Sandbox) -> None:
    [run] = await finished(client, sandbox.add_set(FAILING))
    found = {
        one.id: one
        async for one in client.evaluations.iterate(simulation_unit_test_set_run_id=run.id, limit=5)
    }
    for result in run.unit_test_run_results:
        assert result is not None
        for metric in result.metric_evaluation_results:
            for one in metric.results:
                evaluation = found.pop(one.metric_evaluation_result_id)
                assert evaluation.metric_id == metric.metric_id
                assert isinstance(evaluation.source, SimulationEvaluationSource)
                assert evaluation.source.unit_test_id == result.unit_test_id
                assert evaluation.justification
    assert found == {}


@pytest.mark.parametrize("call", ["unit_test_sets", "unit_tests", "metrics", "evaluations"])
async def test_errors_are_those_of_runs(client: AmigoClient, sandbox: Sandbox, call: Any) -> None:
    resource = getattr(client, call)
    sandbox.fault(call, Fault.status(403))
    with pytest.raises(ForbiddenError):
        await resource.list()
    sandbox.fault(call, Fault.status(503), times=2)
    await resource.list()
    sandbox.fault(call, Fault.garbage(), times=9)
    with pytest.raises(DecodeError):
        await resource.list()


# --- selecting ---


async def test_select_by_name_id_and_tag(client: AmigoClient, sandbox: Sandbox) -> None:
    refunds = sandbox.add_set(name="Refunds", tags={"suite": "nightly", "team": "a"})
    access = sandbox.add_set(name="Refunds and access", tags={"suite": "nightly", "old": None})
    billing = sandbox.add_set(name="Billing", tags={"suite": "weekly"})

    async def select(*selectors: str, tags: Any = ()) -> list[str]:
        return [one.id for one in await client.select_sets(*selectors, tags=tags)]

    assert await select("rEFUNDS") == [refunds]
    assert await select(billing, "Refunds", billing) == [billing, refunds]
    assert await select(tags="suite:nightly") == [refunds, access]
    assert await select(tags=["suite:nightly", "old:"]) == [access]
    assert await select(tags=["suite:*", "team:a"]) == [refunds]
    assert await select("Billing", tags=["team:*"]) == [billing, refunds]


async def test_select_says_what_is_near(client: AmigoClient, sandbox: Sandbox) -> None:
    first = sandbox.add_set(name="Refund policy")
    with pytest.raises(ArgumentError, match=rf"'Refund polcy'.*'Refund policy' \({first}\)"):
        await client.select_sets("Refund polcy")
    with pytest.raises(ArgumentError, match=rf"'Refund'.*'Refund policy' \({first}\)"):
        await client.select_sets("Refund")
    second = sandbox.add_set(name="refund policy")
    with pytest.raises(ArgumentError, match=rf"2 sets are called.*{first}.*{second}"):
        await client.select_sets("Refund policy")
    with pytest.raises(ArgumentError, match=r"no set has the id 0{24}.*the id of a run"):
        await client.select_sets("0" * 24)
    with pytest.raises(ArgumentError, match=r"no set has the tags a:b, or the permission Sim"):
        await client.select_sets(tags=["a:b"])
    with pytest.raises(ArgumentError, match="at least one set"):
        await client.select_sets()
    sandbox.delete(first)
    assert [one.id for one in await client.select_sets("Refund policy")] == [second]
    with pytest.raises(ArgumentError, match=r"deleted sets cannot be run: 'Refund policy'"):
        await client.select_sets(first)


async def test_select_a_name_that_the_search_misses(client: AmigoClient, sandbox: Sandbox) -> None:
    wanted = sandbox.add_set(name="Refunds & returns")
    sandbox.add_sets(30)
    nothing = msgspec.json.encode({"simulation_unit_test_sets": []})
    sandbox.fault("search_unit_test_sets", Fault.garbage(nothing, "application/json"))
    assert [one.id for one in await client.select_sets("refunds & RETURNS")] == [wanted]


async def test_selected_sets_are_not_read_again(client: AmigoClient, sandbox: Sandbox) -> None:
    sandbox.add_set(FAILING, name="Refunds")
    [selected] = await client.select_sets("Refunds")
    before = asked(sandbox)
    result = await client.run_many([selected.id], describe=True)
    assert result.outcomes[0].name == "Refunds"
    assert result.names.unit_tests
    assert asked(sandbox) == before | {"unit_tests": 1, "metrics": 1}


async def test_wrong_tags_are_told_before_any_request(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    with pytest.raises(ArgumentError, match="tag must be 'key:value'"):
        await client.select_sets("Refunds", tags=["nightly"])
    assert sandbox.requests == []


# --- names ---


async def test_names_of_a_large_batch_take_six_requests(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    plan = SetPlan(seconds=1.0, unit_tests=20, repeats=1, metrics=40, pool=500)
    ids = sandbox.add_sets(60, plan)
    runs = await finished(client, *ids)
    used = {spec.unit_test_id for run in runs for spec in run.unit_test_run_specs}
    assert len(used) > 400
    names = await client.describe(runs)
    assert asked(sandbox) == {"unit_test_sets": 3, "unit_tests": 2, "metrics": 1}
    assert set(names.unit_test_sets) == set(ids)
    assert set(names.unit_tests) == used
    assert len(names.metrics) == 40
    assert names.notes == ()
    assert all(len(str(request.path)) < 8_000 for request in sandbox.requests)
    assert await client.describe(runs) == names
    assert sum(asked(sandbox).values()) == 6  # once per client and id


async def test_deleted_metrics_take_one_more(client: AmigoClient, sandbox: Sandbox) -> None:
    runs = await finished(client, sandbox.add_set(FAILING))
    metrics = [one.metric_id for one in runs[0].unit_test_run_specs[0].metrics_to_evaluate]
    sandbox.delete(metrics[0])
    names = await client.describe(runs)
    assert set(names.metrics) == set(metrics)
    assert asked(sandbox) == {"unit_test_sets": 1, "unit_tests": 1, "metrics": 2}
    assert names.notes == ()


@pytest.mark.parametrize(
    ("missing", "noun"),
    [
        (Permission.GET_SET, "sets"),
        (Permission.GET_TEST, "unit tests"),
        (Permission.GET_METRIC, "metrics"),
    ],
)
async def test_hidden_names_are_noted_once(
    client: AmigoClient, sandbox: Sandbox, missing: Permission, noun: str
) -> None:
    runs = await finished(client, *sandbox.add_sets(3, FAILING))
    async with without(sandbox, missing) as limited:
        names = await limited.describe(runs)
        [note] = names.notes
        assert noun in note
        assert missing.value in note
        before = asked(sandbox)
        assert (await limited.describe(runs)).unit_tests == names.unit_tests
        assert asked(sandbox) == before
    run = runs[0]
    hidden = {
        "sets": names.unit_test_set(run.simulation_unit_test_set_id),
        "unit tests": names.unit_test(run.unit_test_run_specs[0].unit_test_id),
        "metrics": names.metric(run.unit_test_run_specs[0].metrics_to_evaluate[0].metric_id),
    }
    assert len(hidden.pop(noun)) == 24  # the id stays
    assert all(" " in name for name in hidden.values())


@pytest.mark.parametrize("fault", [Fault.status(500), Fault.status(403), Fault.garbage()])
@pytest.mark.parametrize("call", ["unit_test_sets", "unit_tests", "metrics"])
async def test_failing_lists_cost_their_names_alone(
    client: AmigoClient, sandbox: Sandbox, call: Any, fault: Fault
) -> None:
    runs = await finished(client, sandbox.add_set(FAILING))
    sandbox.fault(call, fault, times=9)
    names = await client.describe(runs)
    [note] = names.notes
    assert "could not be read" in note
    known = (names.unit_test_sets, names.unit_tests, names.metrics)
    assert [bool(one) for one in known].count(False) == 1
    sandbox.clear_faults()
    assert (await client.describe(runs)).notes == ()  # asked again


async def test_hanging_lists_end_in_time(client: AmigoClient, sandbox: Sandbox) -> None:
    runs = await finished(client, sandbox.add_set(FAILING))
    sandbox.fault("unit_tests", Fault.delay(1e4), times=9)
    before = sandbox.now()
    names = await client.describe(runs, timeout=10.0)
    assert sandbox.now() - before < 11.0
    assert names.unit_test_sets
    assert names.metrics
    assert any("10 s" in note for note in names.notes)


async def test_long_urls_are_halved(client: AmigoClient, sandbox: Sandbox) -> None:
    runs = await finished(client, sandbox.add_set(SetPlan(seconds=1.0, unit_tests=40)))
    sandbox.fault("unit_tests", Fault.status(414))
    names = await client.describe(runs)
    assert len(names.unit_tests) == 40
    assert sandbox.count("unit_tests") == 3


# --- reasons ---


def failed_ids(runs: list[Run]) -> set[str]:
    return {
        one.metric_evaluation_result_id
        for run in runs
        for result in run.unit_test_run_results
        if result
        for metric in result.metric_evaluation_results
        for one in metric.results
        if not one.passed
    }


async def test_reasons_of_what_failed(client: AmigoClient, sandbox: Sandbox) -> None:
    passing = sandbox.add_set(SetPlan(seconds=1.0))
    runs = await finished(client, *sandbox.add_sets(12, FAILING), passing)
    explanations = await client.explain(runs)
    assert set(explanations.evaluations) == failed_ids(runs)
    assert explanations.notes == ()
    assert sandbox.count("evaluations") == 1
    every = await client.explain(runs[:2], failed_only=False)
    assert len(every.evaluations) == 2 * 4 * 3 * 3
    assert every.get("none") is None


async def test_nothing_failed_takes_no_request(client: AmigoClient, sandbox: Sandbox) -> None:
    runs = await finished(client, sandbox.add_set(SetPlan(seconds=1.0)))
    assert (await client.explain(runs)).evaluations == {}
    assert sandbox.count("evaluations") == 0


async def test_reasons_stop_at_the_timeout(client: AmigoClient, sandbox: Sandbox) -> None:
    runs = await finished(client, *sandbox.add_sets(2, FAILING))
    sandbox.spend("evaluations", 10)
    before = sandbox.now()
    explanations = await client.explain(runs, timeout=20.0)
    assert sandbox.now() - before < 21.0
    count = len(failed_ids(runs))
    assert explanations.notes == (f"{count} of {count} reasons were not read within 20 s",)


async def test_hidden_reasons_name_the_permission(client: AmigoClient, sandbox: Sandbox) -> None:
    runs = await finished(client, sandbox.add_set(FAILING))
    async with without(sandbox, Permission.GET_EVALUATION) as limited:
        [note] = (await limited.explain(runs)).notes
    assert "Metric:GetMetricEvaluationResult" in note
    sandbox.fault("evaluations", Fault.status(500), times=9)
    [note] = (await client.explain(runs)).notes
    assert "could not be read" in note


async def test_own_secrets_in_a_justification(client: AmigoClient, sandbox: Sandbox) -> None:
    body = {
        "metric_evaluation_results": [
            {
                "id": "e",
                "org_id": "o",
                "metric_id": "m",
                "metric_version": 1,
                "result": None,
                "justification": f"the tool said {sandbox.api_key}",
                "source": {"type": "tomorrow", "number": 1},
            }
        ],
        "has_more": False,
        "continuation_token": None,
        "filter_values": None,
    }
    sandbox.fault("evaluations", Fault.garbage(msgspec.json.encode(body), "application/json"))
    page = await client.evaluations.list()
    [evaluation] = page.metric_evaluation_results
    assert sandbox.api_key not in evaluation.justification
    assert evaluation.source.data == {"type": "tomorrow", "number": 1}  # type: ignore[union-attr]


async def test_own_secrets_in_a_name(client: AmigoClient, sandbox: Sandbox) -> None:
    sandbox.add_set(name=f"Key {sandbox.api_key}")
    for found in (
        await client.unit_test_sets.search("Key"),
        (await client.unit_test_sets.list()).simulation_unit_test_sets,
    ):
        assert [one.name for one in found] == ["Key ***"]
