"""Sets selected by name and tag, and the names and reasons that the command shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from amigo_async.testing import Sandbox, SetPlan
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    Said,
    elsewhere,
    served,
    some_id,
    start,
)

# Without the permissions to read sets, unit tests, metrics and evaluations.
BARE = [
    "Simulation:CreateSimulationUnitTestSetRun",
    "Simulation:GetSimulationUnitTestSetRun",
]

# --- selecting ---


def test_run_by_name(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    policy = sandbox.add_set(AT_ONCE, name="Refund policy")
    sandbox.add_set(AT_ONCE, name="Refund policy, long")
    said = Said(capsys, "run", "refund POLICY")
    assert said.status == 0
    assert [run.unit_test_set_id for run in sandbox.runs] == [policy]
    assert f"Refund policy ({policy})  started as run" in said.err
    [line] = [line for line in said.out.splitlines() if policy in line]
    assert line.startswith("passed   Refund policy  ")


def test_names_and_ids_from_a_file(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(AT_ONCE, name=name) for name in ("C# help", "Billing", "Deliveries")]
    Path("sets").write_text(f"Deliveries  # late ones\n{ids[1]} # by id\nC# help\n")
    assert Said(capsys, "run", "--from", "sets").status == 0
    assert {run.unit_test_set_id for run in sandbox.runs} == set(ids)


def test_tags_must_all_fit(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    both = sandbox.add_set(AT_ONCE, tags={"suite": "nightly", "area": "billing"})
    sandbox.add_set(AT_ONCE, tags={"suite": "nightly"})
    sandbox.add_set(AT_ONCE, tags={"area": "billing"})
    assert Said(capsys, "run", "--tag", "suite:nightly", "--tag", "area:billing").status == 0
    assert [run.unit_test_set_id for run in sandbox.runs] == [both]


def test_a_name_that_fits_none(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    policy = sandbox.add_set(AT_ONCE, name="Refund policy")
    said = Said(capsys, "run", "Refunds policy")
    assert (said.status, said.out) == (2, "")
    assert f"'Refund policy' ({policy})" in said.err
    assert sandbox.runs == []


def test_a_name_that_fits_several(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(AT_ONCE, name="Billing") for _ in range(2)]
    said = Said(capsys, "run", "billing")
    assert (said.status, said.out) == (2, "")
    assert all(set_id in said.err for set_id in ids)
    assert sandbox.runs == []


def test_dry_run_starts_nothing(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    plan = SetPlan(unit_tests=2, repeats=3)
    ids = [sandbox.add_set(plan, name=f"Set {n}", tags={"suite": "all"}) for n in range(21)]
    said = Said(capsys, "run", "--dry-run", "--tag", "suite:all", "--json", "r.json")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split() for line in lines if ids[3] in line] == [["Set", "3", "2", "6", ids[3]]]
    assert lines[-3:] == [
        "21 sets, 42 unit tests, 126 repeats in all",
        "Starting them takes 2 windows of the create limit (20 a minute).",
        "Nothing was started.",
    ]
    assert sandbox.runs == []
    assert not Path("r.json").exists()


def test_dry_run_by_id_counts_a_set_once(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(SetPlan(unit_tests=1, repeats=4), name="Billing")
    said = Said(capsys, "run", "--dry-run", set_id, set_id, "--journal", "j")
    assert said.status == 0
    assert "1 set, 1 unit test, 4 repeats in all\n" in said.out
    assert "1 window of the create limit" in said.out
    assert "A run with j does not start again what that has finished." in said.out
    assert Said(capsys, "run", "--dry-run", some_id(1)).status == 2


def test_by_id_needs_no_permission_to_read_sets(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_user(sandbox.user_id, permissions=BARE)
    set_id = sandbox.add_set(AT_ONCE, name="Billing")
    said = Said(capsys, "run", set_id)
    assert said.status == 0
    assert set_id in said.out
    assert "Billing" not in said.out + said.err


# --- names ---


def test_list_shows_names(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(AT_ONCE, name="Refund policy")
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "list")
    [line] = [line for line in said.out.splitlines() if run_id in line]
    assert line.startswith("passed  Refund policy  ")
    assert set_id in line
    assert sandbox.count("unit_tests") == sandbox.count("metrics") == 0
    asked = sandbox.count("unit_test_sets")
    said = Said(capsys, "list", "--no-names")
    assert "Refund policy" not in said.out
    assert set_id in said.out
    assert sandbox.count("unit_test_sets") == asked


def test_list_names_the_missing_permission(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_user(sandbox.user_id, permissions=BARE)
    set_id = sandbox.add_set(AT_ONCE)
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "list")
    assert said.status == 0
    assert run_id in said.out
    assert set_id in said.out
    assert said.err.startswith("Note: ")
    assert said.err.count("Simulation:GetSimulationUnitTestSet ") == said.err.count("\n") == 1
