"""Gates with a confidence, and unit tests that are known to fail, over a whole batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async import AmigoClient, ArgumentError, BatchResult, Gate
from amigo_async.events import Event, RunFinished, TooFewRepeats
from amigo_async.fleet import Assignment, FleetJob, execute_job
from amigo_async.report import from_json, to_json
from amigo_async.testing import Fault, Permission, Sandbox, SetPlan

pytestmark = pytest.mark.anyio

SURE = Gate(min_pass_rate=0.9, confidence=0.95)
ENOUGH = SetPlan(seconds=5.0, unit_tests=2, repeats=29)
FEW = SetPlan(seconds=5.0, unit_tests=2, repeats=5)
# The last repeat of the last unit test fails.
LAST_FAILS = SetPlan(seconds=20.0, outcome="failed", trouble_at=0.99, unit_tests=2, repeats=3)


async def units_of(client: AmigoClient, set_id: str) -> list[str]:
    """The ids of the unit tests of a set."""
    [one] = (await client.unit_test_sets.list(id=[set_id])).simulation_unit_test_sets
    return [each.unit_test_id for each in one.unit_test_runs]


async def name_of(client: AmigoClient, test_id: str) -> str:
    [one] = (await client.unit_tests.list(id=[test_id])).simulation_unit_tests
    return one.name


def without(sandbox: Sandbox, missing: Permission) -> None:
    """Take a permission from the user."""
    left = [one.value for one in Permission if one is not missing]
    sandbox.add_user(sandbox.user_id, permissions=left)


class Heard:
    """The events of a batch, and how many runs there were when each came."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.events: list[tuple[Event, int]] = []
        self._sandbox = sandbox

    def __call__(self, event: Event) -> None:
        self.events.append((event, len(self._sandbox.runs)))

    def of(self, cls: type[Event]) -> list[Any]:
        return [event for event, _ in self.events if isinstance(event, cls)]


# --- before the first start ---


async def test_sets_with_too_few_repeats_are_named_first(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    short = sandbox.add_set(FEW, name="Refund policy")
    set_ids = [sandbox.add_set(ENOUGH), short]
    heard = Heard(sandbox)
    result = await client.run_many(set_ids, gate=SURE, on_event=heard)
    assert result.counts == {"passed": 1, "undecided": 1}
    assert not result.passed
    [(event, runs)] = [pair for pair in heard.events if isinstance(pair[0], TooFewRepeats)]
    assert runs == 0
    assert isinstance(event, TooFewRepeats)
    assert (event.unit_test_set_ids, event.fewest_repeats) == ((short,), 29)
    assert event.reason == (
        "90% with 95% confidence needs at least 29 repeats of each unit test, all of them passed, "
        "and there are fewer in Refund policy; add repeats, or lower the rate or the confidence"
    )
    assert result.notes == (event.reason,)
    assert result.outcomes[1].reason is not None
    assert "24 more repeats at this rate would show at least 90%" in result.outcomes[1].reason
    assert result.outcomes[0].reason is None
    assert sandbox.count("unit_test_sets") == 1
    assert from_json(to_json(result)) == result


async def test_all_sets_that_are_too_short_are_named(client: AmigoClient, sandbox: Sandbox) -> None:
    """Those of later pages too; the sentence names the first."""
    short = [sandbox.add_set(FEW, name=f"Set {n}") for n in range(24)]
    heard = Heard(sandbox)
    await client.run_many([*short, sandbox.add_set(ENOUGH)], gate=SURE, on_event=heard)
    [event] = heard.of(TooFewRepeats)
    assert set(event.unit_test_set_ids) == set(short)
    assert "and 21 more" in event.reason
    assert sandbox.count("unit_test_sets") == 2
    with pytest.raises(ArgumentError, match="no set could pass"):
        await client.run_many(short, gate=SURE)


async def test_another_batch_does_not_hear_it(client: AmigoClient, sandbox: Sandbox) -> None:
    heard = Heard(sandbox)
    async with client.open_batch([sandbox.add_set(ENOUGH)], on_event=heard) as batch:
        async for _ in batch:
            pass
        await client.run_many([sandbox.add_set(ENOUGH), sandbox.add_set(FEW)], gate=SURE)
    assert heard.of(TooFewRepeats) == []
    assert heard.of(RunFinished)


async def test_nothing_starts_if_no_set_could_pass(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = [sandbox.add_set(FEW, name=f"Set {n}") for n in range(5)]
    with pytest.raises(ArgumentError, match=r"gate: no set could pass.*29 repeats.*Set 0, Set 1"):
        await client.run_many(set_ids, gate=SURE)
    assert len(sandbox.runs) == sandbox.count("create") == 0
    lenient = await client.run_many(set_ids, gate=Gate(min_pass_rate=0.9))
    assert lenient.passed
    together = await client.run_many(
        [sandbox.add_set(SetPlan(seconds=5.0, unit_tests=6, repeats=5))],
        gate=Gate(min_pass_rate=0.9, confidence=0.95, per="run"),
    )
    assert together.passed


@pytest.mark.parametrize("known", [True, False])
async def test_known_failures_need_no_repeats(
    client: AmigoClient, sandbox: Sandbox, known: bool
) -> None:
    set_id = sandbox.add_set(FEW)
    ids = await units_of(client, set_id)
    names = [await name_of(client, i) for i in ids]
    options: dict[str, Any] = {"gate": SURE, "known_failing": ids if known else names}
    if not known:
        options["describe"] = True
    result = await client.run_many([set_id], **options)
    assert result.passed
    assert result.notes == ()
    with pytest.raises(ArgumentError, match="no set could pass"):
        await client.run_many([set_id], **(options | {"known_failing": ids[:1]}))


async def test_a_slow_list_of_sets_delays_the_start_little(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    set_id = sandbox.add_set(FEW)
    sandbox.fault("unit_test_sets", Fault.delay(60.0))
    heard = Heard(sandbox)
    began = anyio.current_time()
    async with client.open_batch([set_id], gate=SURE, on_event=heard) as batch:
        assert anyio.current_time() - began == pytest.approx(2.0, abs=0.1)
        async for _ in batch:
            pass
    assert batch.result().counts == {"undecided": 1}
    assert heard.of(TooFewRepeats) == []


async def test_sets_that_cannot_be_read_run_anyway(sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(ENOUGH)
    sandbox.fault("unit_test_sets", Fault.status(403))
    async with sandbox.client() as client:
        result = await client.run_many([set_id, sandbox.add_set(FEW)], gate=SURE)
        assert result.notes == ()
    assert result.counts == {"passed": 1, "undecided": 1}


async def test_a_gate_without_confidence_asks_nothing(
    client: AmigoClient, sandbox: Sandbox
) -> None:
    await client.run_many([sandbox.add_set(FEW)], gate=Gate(min_pass_rate=0.9))
    assert sandbox.count("unit_test_sets") == 0


async def test_a_resumed_batch_is_not_refused(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """What was started is judged, whatever its repeats."""
    journal = tmp_path / "journal"
    set_ids = [sandbox.add_set(FEW)]
    await client.run_many(set_ids, journal=journal)
    result = await client.run_many(set_ids, journal=journal, gate=SURE)
    assert result.counts == {"undecided": 1}
    assert len(sandbox.runs) == 1


async def test_undecided_is_no_failure_to_react_to(client: AmigoClient, sandbox: Sandbox) -> None:
    set_ids = [sandbox.add_set(FEW), *sandbox.add_sets(24, ENOUGH)]
    result = await client.run_many(set_ids, gate=SURE, on_failure="stop")
    assert result.counts == {"undecided": 1, "passed": 24}


async def test_undecided_in_the_journal(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    options: dict[str, Any] = {"journal": journal, "gate": SURE}
    set_ids = [sandbox.add_set(FEW), sandbox.add_set(ENOUGH)]
    first = await client.run_many(set_ids, **options)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {line["verdict"] for line in lines if line["what"] == "finished"} == {
        "undecided",
        "passed",
    }
    again = await client.run_many(set_ids, **options)
    assert again.counts == first.counts == {"undecided": 1, "passed": 1}
    assert [o.reason for o in again.outcomes] == [o.reason for o in first.outcomes]


# --- known to fail ---


@pytest.mark.parametrize("gate", [None, Gate(), Gate(per="metric"), Gate(per="run")])
async def test_known_failures_do_not_decide(
    client: AmigoClient, sandbox: Sandbox, gate: Gate | None
) -> None:
    set_ids = [sandbox.add_set(LAST_FAILS), sandbox.add_set(SetPlan(seconds=5.0))]
    first, last = await units_of(client, set_ids[0])
    assert (await client.run_many(set_ids, gate=gate)).counts == {"failed": 1, "passed": 1}
    heard = Heard(sandbox)
    result = await client.run_many(set_ids, gate=gate, known_failing={last}, on_event=heard)
    assert result.passed
    assert [o.known_failing for o in result.outcomes] == [(last,), ()]
    assert [o.passing_again for o in result.outcomes] == [(), ()]
    assert {event.verdict for event in heard.of(RunFinished)} == {"passed"}
    other = await client.run_many(set_ids, gate=gate, known_failing=[first])
    assert other.counts == {"failed": 1, "passed": 1}
    assert other.outcomes[0].passing_again == (first,)
    assert other.notes == ()
    assert from_json(to_json(other)) == other


async def test_known_failures_by_name(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_id, journal = sandbox.add_set(LAST_FAILS), tmp_path / "journal"
    first, last = await units_of(client, set_id)
    name = (await name_of(client, last)).upper()
    async with sandbox.client() as other:  # which has read no name before
        result = await other.run_many(
            [set_id], known_failing=[name], describe=True, journal=journal
        )
    assert result.passed
    assert result.outcomes[0].known_failing == (last,)
    assert result.outcomes[0].reason is None
    name = f" {await name_of(client, first)} "
    async with sandbox.client() as other:
        again = await other.run_many([set_id], known_failing=[name], describe=True, journal=journal)
    assert again.counts == {"failed": 1}
    assert again.outcomes[0].known_failing == (first,)
    assert len(sandbox.runs) == 1
    with pytest.raises(ArgumentError, match=r"known_failing has the name .*describe=True"):
        await client.run_many([set_id], known_failing=[name])


async def test_a_journal_without_names_is_judged_by_name(
    client: AmigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    set_id, journal = sandbox.add_set(LAST_FAILS), tmp_path / "journal"
    _, last = await units_of(client, set_id)
    assert not (await client.run_many([set_id], journal=journal)).passed
    async with sandbox.client() as other:
        result = await other.run_many(
            [set_id],
            journal=journal,
            describe=True,
            known_failing=[await name_of(client, last)],
        )
    assert result.passed
    assert len(sandbox.runs) == 1


async def test_names_that_cannot_be_read_do_not_excuse(sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(LAST_FAILS)
    async with sandbox.client() as client:
        _, last = await units_of(client, set_id)
        name = await name_of(client, last)
    sandbox.fault("unit_tests", Fault.status(403), times=9)
    async with sandbox.client() as client:
        result = await client.run_many([set_id], known_failing=[name], describe=True)
        by_id = await client.run_many([set_id], known_failing=[last])
    assert result.counts == {"failed": 1}
    assert result.outcomes[0].reason == (
        "known failures may have counted, because the names of its unit tests could not be read"
    )
    assert (by_id.counts, by_id.outcomes[0].reason) == ({"passed": 1}, None)
    assert any("names of unit tests could not be read" in note for note in result.names.notes)


async def test_unknown_entries_are_named(client: AmigoClient, sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(LAST_FAILS)
    _, last = await units_of(client, set_id)
    known = ["f" * 24, last, "Angry cller"]
    result = await client.run_many([set_id], known_failing=known, describe=True)
    assert result.passed
    assert result.notes == (
        f"the known failures name what is no unit test of these sets: {'f' * 24}, Angry cller",
    )


async def test_known_failures_do_not_stop_the_rest(client: AmigoClient, sandbox: Sandbox) -> None:
    failing = SetPlan(seconds=600.0, outcome="failed", trouble_at=0.0, unit_tests=1, repeats=100)
    set_ids = [sandbox.add_set(failing), *sandbox.add_sets(39, SetPlan(seconds=100.0))]
    [only] = await units_of(client, set_ids[0])
    for known in (only, await name_of(client, only)):
        result = await client.run_many(
            set_ids, on_failure="stop", known_failing=[known], describe=True
        )
        assert result.counts == {"passed": 40}
    early = await client.run_many(set_ids, on_failure="stop", known_failing=["f" * 24])
    assert early.counts == {"failed": 1, "passed": 19, "not_started": 20}


async def test_hidden_results_are_judged_by_the_flags(sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(LAST_FAILS)
    async with sandbox.client() as client:
        _, last = await units_of(client, set_id)
    without(sandbox, Permission.GET_TEST)
    async with sandbox.client() as client:
        result = await client.run_many([set_id], known_failing=[last])
    assert result.counts == {"failed": 1}
    assert result.outcomes[0].reason is not None
    assert "flags of the run" in result.outcomes[0].reason


@pytest.mark.parametrize(
    ("given", "told"),
    [("a" * 24, "not a single string"), ([""], "ids of unit tests"), ([3], "ids of unit tests")],
)
async def test_what_known_failing_is_not(client: AmigoClient, given: Any, told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        await client.run_many(["a" * 24], known_failing=given)


async def test_fleet_passes_both_on(sandbox: Sandbox, tmp_path: Path) -> None:
    set_ids = [sandbox.add_set(LAST_FAILS), sandbox.add_set(FEW), sandbox.add_set(ENOUGH)]
    async with sandbox.client() as client:
        _, last = await units_of(client, set_ids[0])
    job = FleetJob(
        organization_id=sandbox.organization_id,
        unit_test_set_ids=set_ids[1:],
        connect=lambda _: sandbox.client(),
        artifacts=False,
        gate=SURE,
    )
    done = await execute_job(Assignment(job, str(tmp_path / "sure")), lambda _: None)
    assert isinstance(done.result, BatchResult)
    assert done.result.counts == {"undecided": 1, "passed": 1}
    assert not done.passed
    known = FleetJob(
        organization_id=sandbox.organization_id,
        unit_test_set_ids=set_ids[:1],
        connect=lambda _: sandbox.client(),
        artifacts=False,
        known_failing=[last],
    )
    assert (await execute_job(Assignment(known, str(tmp_path / "known")), lambda _: None)).passed
