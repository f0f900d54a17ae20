"""Everything about one run, and one evaluation in full."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import msgspec
import pytest

from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.cli.test_names import BARE, ONE_FAILURE, explain_with
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    ERRING,
    LASTING,
    Said,
    elsewhere,
    on_terminal,
    served,
    some_id,
    start,
)


def fields(out: str) -> dict[str, str]:
    """The labelled lines before the unit tests."""
    head = out.partition("\n\n")[0].splitlines()[1:]
    return {line[2:15].strip(): line[16:].strip() for line in head}


def test_show_has_everything(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(ONE_FAILURE, artifacts_after=0.0)
    set_id = sandbox.add_set(plan, name="Refund policy")
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "show", run_id)
    assert (said.status, said.err) == (0, "")
    record = msgspec.json.decode(Said(capsys, "list", "--json").out)
    [spec] = record["unit_test_run_specs"]
    agent, version = spec["agent_version_info"]
    shown = fields(said.out)
    assert said.out.startswith("Refund policy failed\n")
    assert (shown["run"], shown["set"]) == (run_id, set_id)
    assert shown["agent"] == f"{agent}, version {version}"
    assert shown["by"] == f"user {sandbox.user_id} of {sandbox.organization_id}"
    assert shown["artifacts"] == f"amigo-async download {run_id}"
    assert shown["in all"].startswith("1 of 1 unit test failed; 0 of 1 repeat passed")
    [test] = said.out.split("\n\n")[1:]
    assert test.startswith("✗ Angry caller wants money back\n")
    assert f"  unit test     {spec['unit_test_id']}\n" in test
    assert "; at most 20 interactions each\n" in test
    why = '"The caller asked three times and hung up without an answer."'
    assert "  ✗ Problem solved: expected yes; 0 of 1 repeat passed, 1 failed\n" in test
    assert f"      saw no in repeat 1: {why}\n      evaluation " in test


@pytest.mark.parametrize("command", ["show", "compare"])
def test_a_narrow_terminal_breaks_no_word(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    set_id = sandbox.add_set(replace(ONE_FAILURE, artifacts_after=0.0), name="Refund policy")
    first, second = (start(sandbox, set_id)[0] for _ in range(2))
    arguments = [command, first, *([second] if command == "compare" else [])]
    wide = Said(capsys, *arguments).out
    on_terminal(monkeypatch, 40)
    narrow = re.sub(r"\x1b\[[0-9;]*m", "", Said(capsys, *arguments).out)
    assert max(map(len, wide.splitlines())) > 40
    assert max(map(len, narrow.splitlines())) <= 40
    assert narrow.split() == wide.split()
    assert max(line.count("      ") for line in narrow.splitlines()) > 0


def test_show_errors_and_progress(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    erring, lasting, fine = (sandbox.add_set(plan) for plan in (ERRING, LASTING, AT_ONCE))
    runs = start(sandbox, erring, lasting, fine)
    said = Said(capsys, "show", runs[0])
    assert " errored\n" in said.out.splitlines(keepends=True)[0]
    assert "  ! " in said.out
    said = Said(capsys, "show", runs[1])
    assert " running, 0 of 9 repeats done\n" in said.out.splitlines(keepends=True)[0]
    assert fields(said.out)["artifacts"] == "generated after the end of the run"
    assert "reason" not in fields(said.out)
    said = Said(capsys, "show", runs[2])
    assert " passed\n" in said.out.splitlines(keepends=True)[0]
    assert "✗" not in said.out


def test_an_evaluation_in_full(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    [run_id] = start(sandbox, sandbox.add_set(ONE_FAILURE))
    out = Said(capsys, "show", run_id).out
    evaluation = out.split("evaluation ")[1].split()[0]
    long = "First.\n\nSecond: " + "long " * 500 + "end \x1b[2J"
    explain_with(sandbox, run_id, long)
    said = Said(capsys, "show", run_id, "--evaluation", evaluation)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("Problem solved failed\n")
    shown = fields(said.out)
    assert shown["evaluation"] == evaluation
    assert shown["unit test"].startswith("Angry caller wants money back (")
    assert (shown["repeat"], shown["seen"]) == ("1", "no")
    assert len(shown["messages"].split(", ")) >= 1
    text = said.out.partition("\n\n")[2]
    assert text.startswith("First.\n\nSecond: long long ")
    assert text.endswith("end \ufffd[2J\n")
    said = Said(capsys, "show", run_id, "--evaluation", some_id(1))
    assert (said.status, said.out) == (2, "")
    assert f"has no evaluation {some_id(1)}" in said.err


def test_show_without_permissions(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.add_user(sandbox.user_id, permissions=BARE)
    set_id = sandbox.add_set(ONE_FAILURE)
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "show", run_id)
    assert said.status == 0
    assert said.out.startswith(f"{set_id} failed\n")
    assert fields(said.out)["reason"].startswith("a metric failed, but ")
    assert "Simulation:GetSimulationUnitTestSet " in said.err


def test_show_without_names_or_reasons(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(ONE_FAILURE)
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "show", run_id, "--no-names", "--no-reasons")
    assert said.out.startswith(f"{set_id} failed\n")
    assert "hung up" not in said.out
    for endpoint in ("unit_test_sets", "unit_tests", "metrics", "evaluations"):
        assert sandbox.count(endpoint) == 0


def test_a_run_that_is_not_there(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "show", sandbox.add_set(AT_ONCE))
    assert (said.status, said.out) == (3, "")
    assert "is this the id of a set? amigo-async list --set ID" in said.err


def test_what_can_be_read_of_a_run_is_shown(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    [run_id] = start(sandbox, sandbox.add_set(SetPlan(seconds=0.0)))
    page = {
        "simulation_unit_test_set_runs": [
            json.loads(Said(capsys, "list", "--json").out) | {"unit_test_run_specs": [7]}
        ],
        "has_more": False,
        "continuation_token": None,
    }
    sandbox.fault("list", Fault.garbage(msgspec.json.encode(page), "application/json"))
    said = Said(capsys, "show", run_id)
    assert said.status == 3
    assert f"  run           {run_id}\n" in said.out
    assert "unit_test_run_specs" in said.err
