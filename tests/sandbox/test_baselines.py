"""Baselines of a batch: past runs to compare with, which outcomes never wait for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async import AmigoClient, ArgumentError, BatchResult, DecodeError
from amigo_async.events import BaselineMissing, BatchFinished, Event, RunCompared
from amigo_async.fleet import Assignment, FleetJob, execute_job
from amigo_async.report import from_json, to_json
from amigo_async.testing import Fault, Permission, Sandbox, SetPlan
from tests.support.small_api import SmallApi

pytestmark = pytest.mark.anyio

GOOD = SetPlan(seconds=5.0, repeats=40)
WORSE = SetPlan(seconds=5.0, repeats=40, outcome="failed", trouble_at=0.0)


async def past_runs(sandbox: Sandbox, set_id: str, count: int) -> list[str]:
    """Completed runs of a set, oldest first."""
    started = []
    for _ in range(count):
        started.append(sandbox.start_run(set_id))
        await anyio.sleep(10.0)
    return started


def change(sandbox: Sandbox, set_id: str, plan: SetPlan) -> None:
    """Let the next runs of a set go otherwise; those of the past stay as they are."""
    sandbox.add_set(plan, id=set_id)


def compared(result: BatchResult) -> list[tuple[str, ...] | None]:
    """The baseline of each outcome."""
    return [o.comparison.baseline_run_ids if o.comparison else None for o in result.outcomes]


def of_baselines(sandbox: Sandbox) -> int:
    """Requests for baselines: unlike others about sets, they ask for runs of all users."""
    completed = ("is_completed", "true")
    lists = [dict(r.query) for r in sandbox.requests if completed in r.query]
    return sum("simulation_unit_test_set_id" in q and "creator" not in q for q in lists)


async def test_history_is_one_request(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id, other = sandbox.add_set(GOOD), sandbox.add_set(GOOD)
    ids = await past_runs(sandbox, set_id, 7)
    await past_runs(sandbox, other, 2)
    sandbox.start_run(set_id)  # in progress
    runs = await client.history(set_id, limit=5)
    assert [run.id for run in runs] == ids[:1:-1]
    assert all(run.unit_test_run_results for run in runs)
    assert sandbox.count("list") == 1
    assert [run.id for run in await client.history(set_id)] == ids[::-1]
    assert sandbox.count("list") == 2


async def test_history_goes_on_beyond_a_page(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(GOOD)
    ids = await past_runs(sandbox, set_id, 60)
    assert [run.id for run in await client.history(set_id, limit=55)] == ids[:4:-1]
    assert sandbox.count("list") == 2


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "5"])
async def test_history_refuses_what_is_no_number(
    client: AmigoClient, sandbox: Sandbox, limit: Any
) -> None:
    with pytest.raises(ArgumentError, match="limit must be a whole number of at least 1"):
        await client.history(sandbox.add_set(), limit=limit)
    with pytest.raises(ArgumentError, match="unit_test_set_id"):
        await client.history("refunds")
    assert sandbox.requests == []


@pytest.mark.parametrize(("baseline", "count"), [("last", 1), (1, 1), (3, 3), (50, 4)])
async def test_last_runs(client: AmigoClient, sandbox: Sandbox, baseline: Any, count: int) -> None:
    set_id = sandbox.add_set(GOOD)
    ids = await past_runs(sandbox, set_id, 4)
    change(sandbox, set_id, WORSE)
    heard: list[Event] = []
    result = await client.run_many([set_id], baseline=baseline, on_event=heard.append)
    [outcome] = result.outcomes
    comparison = outcome.comparison
    assert comparison is not None
    assert comparison.baseline_run_ids == tuple(ids[::-1][:count])
    assert comparison.candidate_run_ids == (outcome.run_id,)
    assert comparison.verdict == "regressed"
    assert result.comparison is not None
    assert result.comparison.verdict == "regressed"
    assert result.comparison.regressed == (set_id,)
    assert outcome.uncompared is None
    [event] = [e for e in heard if isinstance(e, RunCompared)]
    [end] = [e for e in heard if isinstance(e, BatchFinished)]
    assert event == RunCompared(
        set_id,
        outcome.run_id or "",
        "regressed",
        comparison.baseline_run_ids,
        tuple(test.unit_test_id for test in comparison.regressed),
        end.batch_id,
        organization_id="sandbox",
    )
    assert not [e for e in heard if isinstance(e, BaselineMissing)]


async def test_same_agent_has_not_regressed(client: AmigoClient, sandbox: Sandbox) -> None:
    ids = [sandbox.add_set(GOOD), sandbox.add_set(GOOD)]
    for set_id in ids:
        await past_runs(sandbox, set_id, 1)
    result = await client.run_many(ids, baseline="last")
    assert result.comparison is not None
    assert result.comparison.verdict == "no_change_seen"
    assert [o.comparison and o.comparison.verdict for o in result.outcomes] == [
        "no_change_seen"
    ] * 2


async def test_not_asked_for_is_not_read(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(GOOD)
    await past_runs(sandbox, set_id, 1)
    result = await client.run_many([set_id])
    assert (result.comparison, result.outcomes[0].comparison) == (None, None)
    assert result.outcomes[0].uncompared is None
    assert of_baselines(sandbox) == 0


async def test_what_is_no_baseline(client: AmigoClient, sandbox: Sandbox) -> None:
    """Neither a run in progress, nor one that was cut short, nor one of another user's set."""
    set_id = sandbox.add_set(GOOD)
    [good] = await past_runs(sandbox, set_id, 1)
    cut = sandbox.start_run(set_id)
    await anyio.sleep(1.0)
    sandbox.cancel_run(cut)
    await anyio.sleep(10.0)
    sandbox.add_user("someone")
    change(sandbox, set_id, SetPlan(seconds=900.0, repeats=40))
    sandbox.start_run(set_id, user_id="someone")
    change(sandbox, set_id, GOOD)
    result = await client.run_many([set_id], baseline=3)
    assert compared(result) == [(good,)]


async def test_run_that_began_later_is_no_baseline(client: AmigoClient, sandbox: Sandbox) -> None:
    """Someone else's run that was started after this one and ended before its baseline was read."""
    set_id = sandbox.add_set(SetPlan(seconds=60.0, repeats=40))
    sandbox.add_user("someone")
    sandbox.fault("list", Fault.delay(20.0))
    async with client.open_batch([set_id], baseline="last") as batch:
        await anyio.sleep(5.0)
        change(sandbox, set_id, GOOD)
        sandbox.start_run(set_id, user_id="someone")
        async for _ in batch:
            pass
    [outcome] = batch.result().outcomes
    assert outcome.comparison is None
    assert outcome.uncompared == "no baseline: the set has no completed run from before this one"


async def test_first_run_has_no_baseline(client: AmigoClient, sandbox: Sandbox) -> None:
    new, old = sandbox.add_set(GOOD), sandbox.add_set(GOOD)
    other = sandbox.add_set(GOOD)
    await past_runs(sandbox, old, 1)
    heard: list[Event] = []
    result = await client.run_many([new, old, other], baseline="last", on_event=heard.append)
    assert result.passed
    assert [o.comparison is None for o in result.outcomes] == [True, False, True]
    reason = "no baseline: the set has no completed run from before this one"
    assert [o.uncompared for o in result.outcomes] == [reason, None, reason]
    [event] = [e for e in heard if isinstance(e, BaselineMissing)]
    assert (event.unit_test_set_ids, event.reason) == ((new, other), reason)
    alone = await client.run_many([sandbox.add_set(GOOD)], baseline=5)
    assert alone.comparison is None


async def test_runs_by_id(client: AmigoClient, sandbox: Sandbox) -> None:
    first, second = sandbox.add_set(GOOD), sandbox.add_set(GOOD)
    ids = await past_runs(sandbox, first, 3)
    foreign = await past_runs(sandbox, second, 1)
    result = await client.run_many([first, second], baseline={first: [ids[0], ids[2]]})
    assert compared(result) == [(ids[0], ids[2]), None]
    assert result.outcomes[1].uncompared == "no baseline was named for this set"
    wrong: dict[str, list[str]] = {first: [foreign[0]], second: ["f" * 24]}
    result = await client.run_many([first, second], baseline=wrong)
    assert compared(result) == [None, None]
    assert [o.uncompared for o in result.outcomes] == [
        f"no baseline: run {foreign[0]} is of set {second}",
        f"no baseline: run {'f' * 24} was not found",
    ]


async def test_named_run_that_is_none_is_told(client: AmigoClient, sandbox: Sandbox) -> None:
    """The others are the baseline, and the comparison says which one is missing."""
    set_id = sandbox.add_set(GOOD)
    [good] = await past_runs(sandbox, set_id, 1)
    cut = sandbox.start_run(set_id)
    await anyio.sleep(1.0)
    sandbox.cancel_run(cut)
    await anyio.sleep(10.0)
    result = await client.run_many([set_id], baseline={set_id: [cut, good]})
    assert compared(result) == [(good,)]
    [comparison] = [o.comparison for o in result.outcomes]
    assert comparison is not None
    assert comparison.reasons == (f"run {cut} was cut short",)
    alone = await client.run_many([set_id], baseline={set_id: [cut]})
    assert alone.outcomes[0].uncompared == f"no baseline: run {cut} was cut short"


async def test_run_is_no_baseline_of_itself(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_id, journal = sandbox.add_set(GOOD), tmp_path / "journal"
    [before] = await past_runs(sandbox, set_id, 1)
    [own] = (await client.run_many([set_id], journal=journal)).outcomes
    assert own.run_id is not None
    for named, found in (([own.run_id], None), ([own.run_id, before], (before,))):
        result = await client.run_many([set_id], journal=journal, baseline={set_id: named})
        assert compared(result) == [found]
        [outcome] = result.outcomes
        said = f"run {own.run_id} is the run itself"
        if outcome.comparison is None:
            assert outcome.uncompared == f"no baseline: {said}"
        else:
            assert outcome.comparison.reasons == (said,)


async def test_failing_page_of_named_runs_costs_its_sets_alone(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    past = await resumable(client, sandbox, journal := tmp_path / "journal")
    first, second = past
    sandbox.fault("list", Fault.status(403), times=1)
    many = [*past[first], *(f"{n:024x}" for n in range(49))]  # a page of them
    result = await client.run_many(
        list(past), journal=journal, baseline={first: many, second: past[second]}
    )
    assert compared(result) == [None, tuple(past[second])]
    assert "answered 403: Forbidden" in (result.outcomes[0].uncompared or "")
    assert sandbox.count("list") == 2


async def test_last_run_that_was_cut_short_hides_no_other(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    set_id, never = sandbox.add_set(GOOD), sandbox.add_set(GOOD)
    [good] = await past_runs(sandbox, set_id, 1)
    for one in (set_id, never):
        for _ in range(8):
            cut = sandbox.start_run(one)
            await anyio.sleep(1.0)
            sandbox.cancel_run(cut)
            await anyio.sleep(10.0)
    assert compared(await client.run_many([set_id], baseline="last")) == [(good,)]
    [outcome] = (await client.run_many([never], baseline="last")).outcomes
    said = f"no baseline: run {cut} was cut short; and 7 more runs are not usable"
    assert outcome.uncompared == said


@pytest.mark.parametrize("field", ["unit_test_run_specs", "failed_metrics"])
@pytest.mark.parametrize("baseline", ["last", "ids"])
async def test_run_that_cannot_be_decoded_is_no_baseline(field: str, baseline: str) -> None:
    """Whether its details or the whole run: it is not hidden, and not absent either."""
    sets = ["a" * 24, "b" * 24]
    async with SmallApi().serving() as api, api.client() as client:
        past = {
            i: [o.run_id or ""]
            for i, o in zip(sets, (await client.run_many(sets)).outcomes, strict=True)
        }
        bad = past[sets[0]][0]
        api.shape = lambda record, _: record.update({field: None} if record["id"] == bad else {})
        result = await client.run_many(sets, baseline="last" if baseline == "last" else past)
    assert compared(result) == [None, tuple(past[sets[1]])]
    assert (result.outcomes[0].uncompared or "").startswith(
        f"no baseline: run {bad} cannot be decoded: Expected "
    )
    assert field in (result.outcomes[0].uncompared or "")


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (0, "baseline must be a whole number of at least 1, not 0"),
        (True, "baseline must be a whole number"),
        ("first", 'baseline must be "last", a number of runs, run ids by set id, or None'),
        (2.5, 'baseline must be "last"'),
        ({"refunds": ["f" * 24]}, "a set id in baseline"),
        ({"a" * 24: "f" * 24}, "must be a list of run ids"),
        ({"a" * 24: []}, "must be a list of run ids"),
        ({"a" * 24: ["x"]}, "baseline of set a{24}"),
        ({"b" * 24: ["f" * 24]}, "baseline names set b{24}, which is not in the batch"),
    ],
)
async def test_refused_before_any_request(
    client: AmigoClient, sandbox: Sandbox, baseline: Any, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        await client.run_many(["a" * 24], baseline=baseline)
    assert sandbox.requests == []


# --- beside the work on the sets ---


async def test_sixty_sets_take_no_longer() -> None:
    """Under the documented limits: outcomes as soon as without, and few requests."""
    plans = [SetPlan(seconds=30.0 + 2.5 * n, unit_tests=4, repeats=2) for n in range(60)]
    made: list[tuple[list[float], int, BatchResult]] = []
    for options in ({}, {"baseline": 5}):
        async with Sandbox(seed=7) as sandbox, sandbox.client() as client:
            ids = [sandbox.add_set(plan) for plan in plans]
            for _ in range(7):
                for set_id in ids:
                    sandbox.start_run(set_id)
                await anyio.sleep(200.0)
            began, seconds = anyio.current_time(), []
            async with client.open_batch(ids, **options) as batch:  # type: ignore[arg-type]
                async for _ in batch:
                    seconds.append(anyio.current_time() - began)
            assert anyio.current_time() - began == pytest.approx(seconds[-1], abs=0.1)
            assert not [r for r in sandbox.requests if r.status == 429]
            made.append((seconds, of_baselines(sandbox), batch.result()))
    (plain, calls, without), (seconds, more, result) = made
    # An end falls on either side of a look, every 3 s, and a look takes a moment of its own.
    assert seconds == pytest.approx(plain, abs=4.5)
    assert (calls, more) == (0, 12)
    assert compared(without) == [None] * 60
    assert [len(of or ()) for of in compared(result)] == [5] * 60


async def test_set_that_ran_often_hides_no_other(client: AmigoClient, sandbox: Sandbox) -> None:
    """Several sets are read with one page, of which one set could fill all."""
    rare, often = sandbox.add_set(GOOD), sandbox.add_set(GOOD)
    [old] = await past_runs(sandbox, rare, 1)
    new = await past_runs(sandbox, often, 60)
    result = await client.run_many([rare, often], baseline="last")
    assert compared(result) == [(old,), (new[-1],)]


async def resumable(client: AmigoClient, sandbox: Sandbox, journal: Path) -> dict[str, list[str]]:
    """Past runs of two sets, which a journal says have been run: a batch lists baselines alone."""
    ids = [sandbox.add_set(GOOD), sandbox.add_set(GOOD)]
    past = {set_id: await past_runs(sandbox, set_id, 1) for set_id in ids}
    await client.run_many(ids, journal=journal)
    sandbox.forget_requests()
    return past


@pytest.mark.parametrize(
    ("fault", "times", "said"),
    [
        (Fault.status(503), 8, "503"),
        (Fault.status(403), 8, "403"),
        (Fault.status(429), 1, None),  # waited out
        (Fault.status(503), 1, None),  # sent again
        (Fault.garbage(), 8, "cannot be decoded"),
        (Fault.drop(), 8, "got no response"),
        (Fault.delay(1e5), 8, "no answer in time"),
        (Fault.stall(), 8, "no answer in time"),
    ],
)
@pytest.mark.parametrize("baseline", ["last", 60, "ids"])
async def test_failing_list_costs_no_outcome(
    client: AmigoClient,
    sandbox: Sandbox,
    tmp_path: Path,
    baseline: Any,
    fault: Fault,
    times: int,
    said: str | None,
) -> None:
    past = await resumable(client, sandbox, journal := tmp_path / "journal")
    heard: list[Event] = []
    sandbox.fault("list", fault, times=times)
    result = await client.run_many(
        list(past),
        journal=journal,
        baseline=past if baseline == "ids" else baseline,
        explain_timeout=None,
        on_event=heard.append,
    )
    assert [o.error for o in result.outcomes] == [None, None]
    assert result.counts == {"passed": 2}
    assert sandbox.count("create") == 0
    missing = [e for e in heard if isinstance(e, BaselineMissing)]
    if said is None:
        assert compared(result) == [tuple(run_ids) for run_ids in past.values()]
        assert missing == []
        return
    assert compared(result) == [None, None]
    assert {said in (o.uncompared or "") for o in result.outcomes} == {True}
    assert {(i, e.reason) for e in missing for i in e.unit_test_set_ids} == {
        (o.unit_test_set_id, o.uncompared) for o in result.outcomes
    }
    assert len({e.reason for e in missing}) == len(missing)


async def test_hanging_list_is_given_up(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """So that a batch whose runs have ended ends too."""
    past = await resumable(client, sandbox, journal := tmp_path / "journal")
    heard: list[Event] = []
    began = anyio.current_time()
    sandbox.fault("list", Fault.delay(1e5))
    options: Any = {"journal": journal, "explain_timeout": 7.0, "on_event": heard.append}
    result = await client.run_many(list(past), baseline="last", **options)
    assert anyio.current_time() - began == pytest.approx(7.0, abs=0.1)
    assert result.passed
    reason = "the baseline was not read in time"
    assert [o.uncompared for o in result.outcomes] == [reason, reason]
    [event] = [e for e in heard if isinstance(e, BaselineMissing)]
    assert (event.unit_test_set_ids, event.reason) == (tuple(past), reason)


async def test_outcomes_do_not_wait_for_a_hanging_list(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    past = await resumable(client, sandbox, journal := tmp_path / "journal")
    began, seconds = anyio.current_time(), []
    sandbox.fault("list", Fault.delay(20.0))
    options: Any = {"journal": journal, "baseline": "last"}
    async with client.open_batch(list(past), **options) as batch:
        async for outcome in batch:
            seconds.append(anyio.current_time() - began)
            assert (outcome.comparison, outcome.uncompared) == (None, None)
    assert seconds == pytest.approx([0.0, 0.0], abs=0.1)
    assert compared(batch.result()) == [tuple(run_ids) for run_ids in past.values()]


async def test_outcomes_have_the_comparison(client: AmigoClient, sandbox: Sandbox) -> None:
    """Read while the runs go on, it is there when an outcome comes."""
    set_id = sandbox.add_set(GOOD)
    [before] = await past_runs(sandbox, set_id, 1)
    async with client.open_batch([set_id], baseline="last") as batch:
        async for outcome in batch:
            assert outcome.comparison is not None
            assert outcome.comparison.baseline_run_ids == (before,)


async def test_known_failures_are_not_compared(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=5.0, repeats=40, unit_tests=2))
    await past_runs(sandbox, set_id, 2)
    worse = SetPlan(seconds=5.0, repeats=40, unit_tests=2, outcome="failed", trouble_at=0.0)
    change(sandbox, set_id, worse)
    found = []
    known: list[str] = []
    for _ in range(2):
        [outcome] = (
            await client.run_many([set_id], baseline=2, known_failing=known, on_conflict="wait")
        ).outcomes
        assert outcome.run is not None
        assert outcome.comparison is not None
        found.append((outcome.comparison.verdict, outcome.comparison.not_comparable))
        known = [spec.unit_test_id for spec in outcome.run.unit_test_run_specs]
    (without, left), (verdict, known_tests) = found
    assert (without, left) == ("regressed", ())
    assert verdict == "not_comparable"
    assert [(one.unit_test_id, one.reasons) for one in known_tests] == [
        (test_id, ("it is known to fail",)) for test_id in known
    ]


async def test_run_without_verdict_is_not_compared(client: AmigoClient, sandbox: Sandbox) -> None:
    cut, late = sandbox.add_set(GOOD), sandbox.add_set(SetPlan(seconds=900.0))
    await past_runs(sandbox, cut, 1)
    change(sandbox, cut, SetPlan(seconds=60.0, repeats=40, cancelled_at=20.0))
    sandbox.start_run(late)
    await anyio.sleep(1000.0)
    result = await client.run_many([cut, late], baseline="last", timeout=100.0)
    assert [o.verdict for o in result.outcomes] == ["cancelled", "timed_out"]
    assert compared(result) == [None, None]
    assert [o.uncompared for o in result.outcomes] == [None, None]


async def test_results_that_are_hidden_are_not_comparable(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    set_id = sandbox.add_set(GOOD)
    await past_runs(sandbox, set_id, 1)
    left = [one.value for one in Permission if one is not Permission.GET_TEST]
    sandbox.add_user(sandbox.user_id, permissions=left)
    [outcome] = (await client.run_many([set_id], baseline="last")).outcomes
    assert outcome.comparison is not None
    assert outcome.comparison.verdict == "not_comparable"


async def test_page_that_is_too_large_is_read_set_by_set(sandbox: Sandbox, tmp_path: Path) -> None:
    plan = SetPlan(seconds=5.0, unit_tests=5, repeats=20)
    past = {set_id: await past_runs(sandbox, set_id, 12) for set_id in (sandbox.add_sets(4, plan))}
    journal = tmp_path / "journal"  # with it, no other list is read
    async with sandbox.client() as client:
        await client.run_many(list(past), journal=journal)
    sandbox.forget_requests()
    async with sandbox.client(max_response_bytes=150_000) as client:
        for set_id in past:  # all at once is too much even of a single set
            with pytest.raises(DecodeError, match="more than 150000 bytes"):
                await client.history(set_id)
        sandbox.forget_requests()
        result = await client.run_many(list(past), journal=journal, baseline="last")
    assert compared(result) == [(run_ids[-1],) for run_ids in past.values()]
    assert sandbox.count("list") == 1 + 4
    async with sandbox.client(max_response_bytes=10_000) as client:
        result = await client.run_many(list(past), journal=journal, baseline="last")
    assert compared(result) == [None] * 4
    assert "more than 10000 bytes" in (result.outcomes[0].uncompared or "")


# --- kept and passed on ---


async def test_journal_knows_the_runs_of_the_batch(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """A resumed batch does not compare its run with the one that it had before."""
    set_id, journal = sandbox.add_set(GOOD), tmp_path / "journal.jsonl"
    [before] = await past_runs(sandbox, set_id, 1)
    await client.run_many([set_id], journal=journal)
    again = await client.run_many([set_id], journal=journal, baseline="last")
    assert compared(again) == [(before,)]
    # Another process has started a second run for this journal: the first is no baseline of it.
    started = [line for line in journal.read_text().splitlines() if '"started"' in line]
    second = sandbox.start_run(set_id)
    line = json.loads(started[0]) | {"run_id": second}
    journal.write_text(journal.read_text() + json.dumps(line) + "\n")
    resumed = await client.run_many([set_id], journal=journal, baseline=5)
    assert resumed.outcomes[0].run_id == second
    assert compared(resumed) == [(before,)]


async def test_json_keeps_the_comparison(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id, new = sandbox.add_set(GOOD), sandbox.add_set(GOOD)
    await past_runs(sandbox, set_id, 3)
    change(sandbox, set_id, WORSE)
    result = await client.run_many([set_id, new], baseline=3)
    text = to_json(result)
    document = json.loads(text)
    assert document["comparison"]["verdict"] == "regressed"
    again = from_json(text)
    assert [o.comparison for o in again.outcomes] == [o.comparison for o in result.outcomes]
    assert [o.uncompared for o in again.outcomes] == [o.uncompared for o in result.outcomes]
    assert again.comparison is not None
    assert again.comparison == result.comparison
    assert to_json(again) == text
    for outcome in document["outcomes"]:  # as earlier releases have written it
        del outcome["comparison"], outcome["uncompared"]
    del document["comparison"]
    old = from_json(json.dumps(document))
    assert (old.comparison, old.outcomes[0].comparison) == (None, None)
    assert old.counts == result.counts


async def test_fleet_passes_the_baseline_on(sandbox: Sandbox, tmp_path: Path) -> None:
    set_id = sandbox.add_set(GOOD)
    ids = await past_runs(sandbox, set_id, 2)
    job = FleetJob(
        organization_id=sandbox.organization_id,
        unit_test_set_ids=[set_id],
        connect=lambda _: sandbox.client(),
        baseline={set_id: ids},
    )
    done = await execute_job(Assignment(job, str(tmp_path)), lambda _: None)
    assert done.result is not None
    assert compared(done.result) == [tuple(ids)]
