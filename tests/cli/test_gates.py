"""Gates and known failures in the command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from amigo_async.testing import Sandbox, SetPlan
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    ERRING,
    FAILING,
    LASTING,
    Said,
    elsewhere,
    served,
    start,
)

ENOUGH = SetPlan(seconds=0.0, artifacts_after=0.0, unit_tests=1, repeats=29, metrics=1)
FEW = SetPlan(seconds=0.0, artifacts_after=0.0, unit_tests=1, repeats=5, metrics=1)
SURE = ("--min-pass-rate=90%", "--confidence=95%")
# The last repeat of the second unit test fails.
LAST_FAILS = SetPlan(
    seconds=0.0,
    artifacts_after=0.0,
    outcome="failed",
    trouble_at=0.99,
    unit_tests=2,
    repeats=3,
)


def units_of(sandbox: Sandbox, set_id: str) -> list[tuple[str, str]]:
    """The ids and names of the unit tests of a set."""

    async def read() -> list[tuple[str, str]]:
        async with sandbox.client() as client:
            [one] = (await client.unit_test_sets.list(id=[set_id])).simulation_unit_test_sets
            ids = [each.unit_test_id for each in one.unit_test_runs]
            tests = (await client.unit_tests.list(id=ids)).simulation_unit_tests
            names = {each.id: each.name for each in tests}
            return [(i, names[i]) for i in ids]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("plans", "options", "status"),
    [
        ([ENOUGH], [], 0),
        ([ENOUGH, FEW], [], 5),
        ([ENOUGH, FEW, ERRING], [], 3),
        ([ENOUGH, FEW, LASTING], ["--timeout=4"], 4),
    ],
)
def test_undecided_is_status_5_where_nothing_is_worse(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    plans: list[SetPlan],
    options: list[str],
    status: int,
) -> None:
    ids = [sandbox.add_set(plan) for plan in plans]
    assert Said(capsys, "run", *ids, *SURE, *options).status == status


def test_what_is_said_of_an_undecided_set(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [sandbox.add_set(ENOUGH), sandbox.add_set(FEW, name="Refund policy")]
    said = Said(capsys, "run", *ids, *SURE, "--json=r.json", "--junit=r.xml")
    assert said.status == 5
    [(_, name)] = units_of(sandbox, ids[1])
    reason = (
        f"unit test {name}: 5 of 5 repeats passed (100%, with 95% confidence at least 54.9%); "
        "24 more repeats at this rate would show at least 90%"
    )
    assert f"  {reason}" in said.out
    assert "1 passed, 1 undecided in " in said.out
    lines = said.err.splitlines()
    warned = next(n for n, line in enumerate(lines) if "there are fewer in Refund policy" in line)
    assert warned < next(n for n, line in enumerate(lines) if "started as run" in line)
    assert "at least 29 repeats of each unit test" in lines[warned]
    assert any(f"Refund policy ({ids[1]})  undecided: " in line for line in lines)
    result = json.loads(Path("r.json").read_text())
    assert (result["passed"], result["counts"]) == (False, {"passed": 1, "undecided": 1})
    assert 'failures="0"' in Path("r.xml").read_text()


def test_nothing_starts_if_no_set_could_pass(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(capsys, "run", sandbox.add_set(FEW), *SURE)
    assert said.status == 2
    assert (
        "Error: --confidence: no set could pass, so nothing was started: 90% with 95% confidence"
        in said.err
    )
    assert not sandbox.runs


def test_a_dry_run_says_what_could_not_pass(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [sandbox.add_set(ENOUGH), sandbox.add_set(FEW, name="Refund policy")]
    said = Said(capsys, "run", *ids, "--dry-run", *SURE)
    assert said.status == 0
    assert "1 set could not pass: 90% with 95% confidence needs at least 29 repeats" in said.out
    [(known, name)] = units_of(sandbox, ids[1])
    for entry in (known, name):
        Path("known").write_text(entry)
        said = Said(capsys, "run", *ids, "--dry-run", *SURE, "--known-failing=known")
        assert "could not pass" not in said.out
    assert "could not pass" not in Said(capsys, "run", *ids, "--dry-run").out
    assert not sandbox.runs


def test_quiet_still_warns(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(ENOUGH), sandbox.add_set(FEW)]
    assert "at least 29 repeats" in Said(capsys, "run", "-q", *ids, *SURE).err


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 3),
        (["--errored=ignore"], 0),
        (["--errored=fail"], 1),
        (["--errored=fail", "--min-pass-rate=10%", "--per=run"], 0),
        (["--errored=fail", "--min-pass-rate=60%", "--per=metric"], 1),
    ],
)
def test_all_arguments_of_a_gate(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], options: list[str], status: int
) -> None:
    last_errs = SetPlan(
        seconds=0.0,
        artifacts_after=0.0,
        outcome="errored",
        trouble_at=0.99,
        unit_tests=2,
        repeats=2,
    )
    assert Said(capsys, "run", sandbox.add_set(last_errs), *options).status == status


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--confidence=95%"], "--confidence needs a --min-pass-rate below 100%"),
        (["--confidence=95%", "--min-pass-rate=100%"], "--confidence needs a --min-pass-rate"),
        (["--confidence=95", "--min-pass-rate=90%"], "like 90% or 0.9"),
        (["--confidence=40%", "--min-pass-rate=90%"], "Error: --confidence must be from 0.5"),
        (["--min-pass-rate=90"], "like 90% or 0.9"),
        (["--known-failing=none"], "none"),
    ],
)
def test_wrong_use(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    said = Said(capsys, "run", sandbox.add_set(AT_ONCE), *options)
    assert (said.status, len(sandbox.runs)) == (2, 0)
    assert told in said.err


def test_help_says_what_undecided_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(Said(capsys, "run", "--help").out.split())
    assert "5 undecided: with --confidence, there were too few repeats" in said


# --- known to fail ---


@pytest.mark.parametrize("command", ["run", "wait"])
@pytest.mark.parametrize("by_name", [True, False])
def test_known_failures_from_a_file(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], command: str, by_name: bool
) -> None:
    set_id = sandbox.add_set(LAST_FAILS)
    first, last = units_of(sandbox, set_id)
    target = start(sandbox, set_id)[0] if command == "wait" else set_id
    assert Said(capsys, command, target).status == 1
    Path("known").write_text(f"# flaky\n{last[by_name]}  # since May\n")
    known = Said(capsys, command, target, "--known-failing=known", "--markdown=r.md")
    assert known.status == 0
    assert "1 of 2 unit tests known to fail" in Path("r.md").read_text()
    assert f"  known to fail: {last[1]}: 2 of 3 repeats passed, 1 failed" in known.out
    Path("known").write_text(first[by_name])
    other = Said(capsys, command, target, "--known-failing=known")
    assert other.status == 1
    assert f"Note: unit test {first[1]} ({first[0]}) is known to fail, and passed" in other.err


def test_a_saved_result_with_known_failures(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [sandbox.add_set(LAST_FAILS), sandbox.add_set(ENOUGH)]
    (first, _), (last, name) = units_of(sandbox, ids[0])
    assert Said(capsys, "run", *ids, "--json=r.json").status == 1
    for entry, status in ((last, 0), (name, 0), (first, 1)):
        Path("known").write_text(entry)
        said = Said(capsys, "report", "r.json", "--known-failing=known", "--json=known.json")
        assert said.status == status
        assert Said(capsys, "report", "known.json").status == status
    said = Said(capsys, "report", "r.json", *SURE, "--json=sure.json")
    assert said.status == 5
    assert "repeats at this rate would show" in said.out
    [outcome, _] = json.loads(Path("sure.json").read_text())["outcomes"]
    assert "repeats at this rate would show" in outcome["reason"]


def test_names_need_names(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    Path("known").write_text("Angry caller\n")
    set_id = sandbox.add_set(AT_ONCE)
    said = Said(capsys, "run", set_id, "--no-names", "--known-failing=known")
    assert said.status == 2
    assert "--known-failing has names: leave out --no-names, or give ids." in said.err
    said = Said(capsys, "run", set_id, "--known-failing=known")
    assert said.status == 0
    note = "Note: the known failures name what is no unit test of these sets: Angry caller"
    assert note in said.err
    # Of a report that has names an entry may be one, and of one that has none it may not be told.
    Said(capsys, "run", set_id, "--json=named.json")
    Said(capsys, "run", set_id, "--no-names", "--json=r.json")
    Path("known").write_text(f"Angry caller\n{'f' * 24}\n")
    for file, words in (("named.json", f"Angry caller, {'f' * 24}"), ("r.json", "f" * 24)):
        said = Said(capsys, "report", file, "--known-failing=known", f"--json={file}")
        assert f"Note: the known failures name what is no unit test of these sets: {words}\n" in (
            said.err
        )
    Path("known").write_text("f" * 24)
    said = Said(capsys, "report", "named.json", "--known-failing=known")
    assert said.err.count("what is no unit test of these sets") == 1  # not what the file says
    for entry, runs in (("Angry caller", ""), ("f" * 24, "--no-names")):
        Path("known").write_text(entry)
        run_id = sandbox.runs[0].id
        said = Said(capsys, "wait", run_id, "--known-failing=known", *filter(None, [runs]))
        assert f"Note: the known failures name what is no unit test of these sets: {entry}\n" in (
            said.err
        )


def test_an_annotation_is_a_warning(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ids = [sandbox.add_set(ENOUGH), sandbox.add_set(FEW, name="Refund policy")]
    said = Said(capsys, "run", *ids, *SURE)
    [line] = [line for line in said.err.splitlines() if line.startswith("::")]
    assert line.startswith("::warning title=Unit test set Refund policy undecided")
    assert "24 more repeats at this rate" in line
