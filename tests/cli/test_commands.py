"""Every command in this process, against a sandbox over real sockets."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from amigo_async.cli import main
from amigo_async.models import Run
from amigo_async.report import from_json
from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    ERRING,
    FAILING,
    LASTING,
    Said,
    elsewhere,
    on_terminal,
    served,
    some_id,
    start,
)

WITHOUT_EXTRA = (
    "amigo-async: the command needs its extra: "
    'install amigo-async[cli] (in a clone: pip install ".[cli]")\n'
)
# --- run ---


@pytest.mark.parametrize(
    ("plans", "status"),
    [([AT_ONCE, AT_ONCE], 0), ([AT_ONCE, FAILING, ERRING], 1), ([AT_ONCE, ERRING], 3)],
)
def test_exit_status_of_run(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], plans: list[SetPlan], status: int
) -> None:
    ids = [sandbox.add_set(plan) for plan in plans]
    said = Said(capsys, "run", *ids)
    assert said.status == status
    for set_id in ids:
        assert set_id in said.out
        assert f" ({set_id})  started as run" in said.err
    assert f"{plans.count(AT_ONCE)} passed" in said.out


def test_run_fetches_the_artifacts(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "run", sandbox.add_set(AT_ONCE), "--artifacts", "got")
    assert said.status == 0
    [path] = Path("got").glob("*/*.zip")
    assert path.read_bytes() == sandbox.artifact_bytes(path.parent.name)
    assert said.out.endswith("1 artifact in got\n")


def test_run_says_why_a_set_failed(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(FAILING)
    said = Said(capsys, "run", set_id)
    assert f"Refund policy failed  {set_id}\n  Refund policy / " in said.out
    assert ": expected " in said.out


def test_quiet_shows_no_progress(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "run", "-q", sandbox.add_set(AT_ONCE))
    assert said.err == ""
    assert "1 passed" in said.out


def test_json_is_alone_on_stdout(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(AT_ONCE), sandbox.add_set(FAILING)]
    said = Said(capsys, "run", "--json", "-", "--artifacts", "got", *ids)
    result = from_json(said.out)
    assert [(o.unit_test_set_id, o.verdict) for o in result.outcomes] == [
        (ids[0], "passed"),
        (ids[1], "failed"),
    ]
    assert result.outcomes[0].artifacts is not None
    assert result.outcomes[0].artifacts.exists()
    assert "1 passed, 1 failed" in said.err


def test_run_writes_all_reports(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json=r.json", "--junit=r.xml", "--markdown=r.md", "--html=r.html"]
    assert Said(capsys, "run", sandbox.add_set(AT_ONCE), *options).status == 0
    assert all(Path(option.partition("=")[2]).stat().st_size for option in options)


def test_ids_come_from_a_file_and_stdin(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sandbox.add_sets(2, AT_ONCE)
    Path("sets.txt").write_text(f"# mine\n{first}\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(second))
    said = Said(capsys, "run", "--from", "sets.txt", "-")
    assert said.status == 0
    assert "2 passed" in said.out


@pytest.mark.parametrize("command", ["run", "wait", "cancel", "download"])
def test_an_empty_stdin_is_named(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """It is no success: what should have written ids to it may have failed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = Said(capsys, command, "-")
    assert said.status == 2
    what = "set" if command == "run" else "id of a run"
    assert f"Error: stdin has no {what}: there is nothing to do.\n" in said.err


def test_a_conflict_says_what_to_do(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(LASTING)
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "run", set_id)
    assert said.status == 3
    assert f"(run {run_id})" in said.out
    assert "--on-conflict attach, wait or restart" in said.out


def test_on_conflict_restart(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(LASTING)
    start(sandbox, set_id)
    sandbox.add_set(AT_ONCE, id=set_id)
    assert Said(capsys, "run", set_id, "--on-conflict", "restart").status == 0
    assert [run.cancelled for run in sandbox.runs] == [True, False]


def test_timeout_says_how_to_resume(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "run", sandbox.add_set(LASTING), "--timeout", "0.2", "--artifacts", "a b")
    [run] = sandbox.runs
    assert said.status == 4
    assert said.err.endswith(
        "1 run continues on the service. To resume:\n"
        f"  amigo-async wait --artifacts 'a b' {run.id}\n"
    )
    assert not run.cancelled


def test_on_exit_cancel_is_obeyed_and_said(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sandbox.add_sets(2, LASTING)
    said = Said(capsys, "run", *ids, "--timeout=0.5", "--on-exit=cancel", "--journal=j")
    assert said.status == 4
    assert all(run.cancelled for run in sandbox.runs)
    assert "The service was asked to cancel 2 runs. To wait for their end:\n" in said.err


def test_a_journal_resumes(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(LASTING), sandbox.add_set(AT_ONCE)]
    arguments = ["run", *ids, "--journal", "j.jsonl", "--timeout", "0.3"]
    said = Said(capsys, *arguments)
    assert said.status == 4
    assert said.err.endswith("To resume, run the same command again: the journal has them.\n")
    assert Said(capsys, *arguments).status == 4
    assert len(sandbox.runs) == 2


# --- wait ---


def test_wait_collects_runs(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    runs = start(sandbox, sandbox.add_set(AT_ONCE), sandbox.add_set(FAILING))
    said = Said(capsys, "wait", *runs, "--artifacts", "got", "--json", "r.json")
    assert said.status == 1
    assert "1 passed, 1 failed" in said.out
    for run_id in runs:
        [path] = Path("got", run_id).iterdir()
        assert path.read_bytes() == sandbox.artifact_bytes(run_id)
    assert len(from_json(Path("r.json").read_text()).outcomes) == 2


def test_wait_for_late_artifacts(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    runs = start(sandbox, sandbox.add_set(SetPlan(seconds=0.0, artifacts_after=0.3)))
    said = Said(capsys, "wait", *runs, "--artifacts", "got")
    assert said.status == 0
    assert said.out.endswith("1 artifact in got\n")


def test_wait_shows_progress(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    plan = SetPlan(seconds=0.8, outcome="failed", trouble_at=0.0, unit_tests=10)
    runs = start(sandbox, sandbox.add_set(plan), sandbox.add_set(LASTING))
    said = Said(capsys, "wait", *runs, "--timeout", "2")
    assert said.status == 1
    assert f"{runs[0]}  a metric failed after " in said.err
    assert "artifact" not in said.out
    assert said.err.endswith(f"To resume:\n  amigo-async wait {runs[1]}\n")


LATE = SetPlan(seconds=0.0, artifacts_after=600.0)


@pytest.mark.parametrize("plan", [LATE, AT_ONCE], ids=["generated too late", "fetched too slowly"])
@pytest.mark.parametrize("command", ["run", "wait"])
def test_deadline_before_the_artifacts(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], plan: SetPlan, command: str
) -> None:
    sandbox.fault("store", Fault.delay(60.0))
    given = sandbox.add_set(plan)
    if command == "wait":
        [given] = start(sandbox, given)
    said = Said(capsys, command, given, "--timeout=0.7", "--artifacts=got", "--json=r.json")
    assert said.status == 4
    result = from_json(Path("r.json").read_text())
    assert [(o.verdict, str(o.error)[:8]) for o in result.outcomes] == [("passed", "artifact")]
    assert not result.passed


def test_deadline_cuts_off_a_download(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.fault("store", Fault.delay(60.0))
    [run_id] = start(sandbox, sandbox.add_set(AT_ONCE))
    said = Said(capsys, "download", run_id, "--timeout=0.7")
    assert (said.status, said.out) == (4, "")
    assert said.err.endswith("the deadline passed before it was downloaded\n")


def test_run_applies_a_pass_rate(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    plan = SetPlan(seconds=0.0, outcome="failed", unit_tests=1, repeats=2, trouble_at=0.6)
    set_id = sandbox.add_set(plan)
    said = Said(capsys, "run", set_id, "--min-pass-rate", "0.5")
    assert said.status == 0
    assert f"Refund policy passed  {set_id}\n  every unit test reached 50%" in said.out
    assert Said(capsys, "run", set_id, "--min-pass-rate", "0.6").status == 1


def test_wait_applies_a_pass_rate(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    plan = SetPlan(seconds=0.0, outcome="failed", unit_tests=1, repeats=2, trouble_at=0.6)
    runs = start(sandbox, sandbox.add_set(plan))
    assert Said(capsys, "wait", *runs, "--min-pass-rate", "0.5").status == 0
    assert Said(capsys, "wait", *runs, "--min-pass-rate", "0.6").status == 1


def test_wait_without_list_budget(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    runs = start(sandbox, sandbox.add_set(LASTING))
    sandbox.spend("list", 5_000)
    said = Said(capsys, "wait", *runs, "--timeout", "1")
    assert said.status == 4
    assert "1 run continues" in said.err


# --- list ---


def test_list_is_a_table(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    plans = [AT_ONCE, FAILING, ERRING, LASTING]
    runs = start(sandbox, *(sandbox.add_set(plan) for plan in plans))
    said = Said(capsys, "list")
    assert said.status == 0
    assert said.err == ""
    states = {
        run_id: line.split()[0]
        for line in said.out.splitlines()
        for run_id in runs
        if run_id in line
    }
    assert states == dict(zip(runs, ("passed", "failed", "errored", "running"), strict=True))
    assert list(states) == runs[::-1]  # the newest first
    zone = datetime.now().astimezone().strftime("%Z")
    assert f"created ({zone})" in said.out.splitlines()[0]
    assert said.out.endswith("\n4 runs\n")


def test_a_list_that_was_cut_off_says_so(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    runs = [sandbox.start_run(set_id) for _ in range(52)]
    said = Said(capsys, "list", "--ids")
    assert said.out.splitlines() == runs[:1:-1]
    assert said.err == "50 runs; --all lists more\n"
    said = Said(capsys, "list", "--ids", "--limit", "51")
    assert (said.out.splitlines(), said.err) == (runs[:0:-1], "51 runs; --all lists more\n")
    for options in (["--all"], ["--limit", "52"]):
        said = Said(capsys, "list", "--ids", *options)
        assert (said.out.splitlines(), said.err) == (runs[::-1], "")
    said = Said(capsys, "list", "--ids", "--sort-by", "+created_at", "--limit", "3")
    assert said.out.splitlines() == runs[:3]
    on_terminal(monkeypatch)
    said = Said(capsys, "list", "--limit", "2")
    assert said.out.endswith("\n2 runs; --all lists more\n")
    assert said.err == ""


def test_a_piped_list_has_fields(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(FAILING, name="Refund\tpolicy")
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "list")
    assert said.err == ""
    [line] = said.out.splitlines()
    state, run, created, done, of_set, name = line.split("\t")
    assert (state, run, done, of_set) == ("failed", run_id, "9/9", set_id)
    assert name == "Refund policy"
    assert datetime.fromisoformat(created).utcoffset() is not None


def test_nothing_found_is_one_line(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--ids"]):
        said = Said(capsys, "list", "--in-progress", *options)
        assert (said.status, said.out, said.err) == (0, "", "No runs found.\n")
    assert Said(capsys, "list", "--json").err == ""
    assert Said(capsys, "list", "--json", "--ids").status == 2


def test_a_narrow_terminal_shows_verdicts(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = sandbox.add_set(AT_ONCE, name="A name that is longer than the terminal is wide")
    on_terminal(monkeypatch, 40)
    said = Said(capsys, "run", set_id)
    [run] = sandbox.runs
    for out, label in ((said.out, "verdict"), (Said(capsys, "list").out, "state")):
        head, _, row, below, *_ = out.splitlines()
        assert head.startswith(label)
        assert row.startswith("passed ")
        assert below.strip() == run.id
        assert max(map(len, out.splitlines())) <= 40


def test_listed_ids_can_be_waited_for(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = start(sandbox, sandbox.add_set(AT_ONCE), sandbox.add_set(FAILING))
    ids = Said(capsys, "list", "--ids").out
    monkeypatch.setattr(sys, "stdin", io.StringIO(ids))
    said = Said(capsys, "wait", "-")
    assert said.status == 1
    assert "1 passed, 1 failed" in said.out
    assert all(run_id in said.out for run_id in runs)


def test_list_shows_cancelled_runs(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    [run_id] = start(sandbox, sandbox.add_set(LASTING))
    assert Said(capsys, "cancel", run_id).status == 0
    [line] = [line for line in Said(capsys, "list").out.splitlines() if run_id in line]
    assert line.split()[0] == "cancelled"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_list_names_unreadable_runs(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    [run_id] = start(sandbox, sandbox.add_set(AT_ONCE))
    record = msgspec.json.decode(Said(capsys, "list", "--json").out)
    bad = record | {"id": some_id(7), "created_at": None}
    page = {
        "simulation_unit_test_set_runs": [bad, record],
        "has_more": False,
        "continuation_token": None,
    }
    sandbox.fault("list", Fault.garbage(msgspec.json.encode(page), "application/json"))
    said = Said(capsys, "list", *options)
    assert said.status == 3
    assert run_id in said.out
    assert some_id(7) in said.err
    assert "created_at" in said.err


def test_list_as_json_lines_decodes(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    runs = start(sandbox, *sandbox.add_sets(2, AT_ONCE))
    said = Said(capsys, "list", "--json", "--sort-by", "+created_at")
    listed = [msgspec.json.decode(line, type=Run) for line in said.out.splitlines()]
    assert [run.id for run in listed] == runs


def test_list_sends_every_filter(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(
        capsys,
        *("list", "--id", some_id(1), "--id", some_id(2), "--set", some_id(3)),
        *("--creator", "org,user", "--completed", "--not-failed", "--errored"),
        *("--created-after", "2026-05-04T12:00:00Z", "--created-before", "1h"),
        *("--sort-by", "-created_at", "--continuation-token", "5", "--limit", "7"),
    )
    assert said.status == 0
    query = [pair for pair in sandbox.requests[-1].query if pair[0] != "created_before"]
    assert sorted(query) == [
        ("continuation_token", "5"),
        ("created_after", "2026-05-04T12:00:00Z"),
        ("creator", "org,user"),
        ("errored", "true"),
        ("failed_metrics", "false"),
        ("id", some_id(1)),
        ("id", some_id(2)),
        ("is_completed", "true"),
        ("limit", "7"),
        ("simulation_unit_test_set_id", some_id(3)),
        ("sort_by", "-created_at"),
    ]


@pytest.mark.parametrize(
    ("options", "count"), [(["--limit", "2"], 2), ([], 3), (["--all", "--limit", "1"], 3)]
)
def test_list_limits(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], options: list[str], count: int
) -> None:
    start(sandbox, *sandbox.add_sets(3, AT_ONCE))
    assert len(Said(capsys, "list", "--json", *options).out.splitlines()) == count


# --- cancel ---


def test_cancel_asks(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    going, over = start(sandbox, sandbox.add_set(LASTING), sandbox.add_set(AT_ONCE))
    said = Said(capsys, "cancel", going, over)
    assert said.status == 0
    assert said.out.splitlines() == [f"{going} asked", f"{over} over"]
    assert "errored" not in said.err
    assert [line.partition("] ")[2] for line in said.err.splitlines()[1:]] == [
        f"{going}  asked",
        f"{over}  over",
    ]


def test_cancel_waits_for_the_end(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    going, over = start(sandbox, sandbox.add_set(LASTING), sandbox.add_set(AT_ONCE))
    said = Said(capsys, "cancel", "--wait", going, over)
    assert said.status == 0
    assert said.out.splitlines() == [f"{going} cancelled", f"{over} over"]


def test_a_cancel_without_effect_is_running(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    [run_id] = start(sandbox, sandbox.add_set(SetPlan(seconds=600, cancel_after=600)))
    said = Said(capsys, "cancel", "--wait", "--timeout", "0.4", run_id)
    assert (said.status, said.out) == (4, f"{run_id} running\n")


def test_a_cancel_that_fails_is_an_error(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(capsys, "cancel", "-q", some_id(1))
    assert (said.status, said.out) == (3, f"{some_id(1)} error\n")
    assert said.err.startswith("Error: DELETE ")


# --- download ---


def test_download_writes_the_paths(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    runs = start(sandbox, *sandbox.add_sets(2, AT_ONCE))
    said = Said(capsys, "download", *runs, "--connections", "2")
    assert said.status == 0
    paths = [Path(line) for line in said.out.splitlines()]
    assert [path.parent for path in paths] == [Path("results") / run_id for run_id in runs]
    assert [path.read_bytes() for path in paths] == [sandbox.artifact_bytes(r) for r in runs]
    again = Said(capsys, "download", *runs)
    assert again.status == 0
    assert said.err.count("saved results/") == again.err.count("is there already: results/") == 2
    assert "errored" not in said.err + again.err


def test_download_too_early(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    [run_id] = start(sandbox, sandbox.add_set(LASTING))
    said = Said(capsys, "download", run_id)
    assert (said.status, said.out) == (3, "")
    assert "amigo-async wait RUN_ID --artifacts" in said.err


# --- errors and the rest ---


def test_missing_variables_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMIGO_API_KEY", "hush-hush")
    said = Said(capsys, "list")
    assert said.status == 2
    assert said.err == (
        "Error: set AMIGO_ORGANIZATION_ID, AMIGO_API_KEY_ID, AMIGO_USER_ID, or name a file that "
        "has them with --env-file; `amigo-async sandbox` prints values to try it with\n"
    )


def test_a_wrong_variable_is_named(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMIGO_BASE_URL", "not a url")
    said = Said(capsys, "list")
    assert said.status == 2
    assert said.err.startswith("Error: AMIGO_BASE_URL ")


def test_wrong_key_is_one_line(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMIGO_API_KEY", "hush-hush")
    said = Said(capsys, "list")
    assert said.status == 3
    assert said.err.count("\n") == 1
    assert "AMIGO_API_KEY_ID" in said.err
    assert "hush-hush" not in said.err


def test_debug_shows_the_traceback(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMIGO_API_KEY", "hush-hush")
    said = Said(capsys, "list", "--debug")
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("Error: POST ")
    assert "hush-hush" not in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--tag", "nightly"],
        ["run", "--tag", ":nightly"],
        ["run", some_id(1), "--timeout", "soon"],
        ["run", some_id(1), "--on-failure", "panic"],
        ["run", some_id(1), "--min-pass-rate", "2"],
        ["run", some_id(1), "--json", "-", "--html", "-"],
        ["run", some_id(1), "--junit", "."],
        ["run", some_id(1), "--junit", "/dev/null/r.xml"],
        ["run", some_id(1), "--junit", "r", "--json", "./r"],
        ["run", some_id(1), "--junit", "j", "--journal", "j"],
        ["run", "--from", "no-such-file"],
        ["list", "--created-after", "then"],
        ["list", "--creator", "user-1"],
        ["show"],
        ["show", "short"],
        ["fly"],
        [],
    ],
)
def test_used_wrongly(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    said = Said(capsys, *arguments)
    assert said.status == 2
    assert said.out == ""
    assert said.err != ""
    assert sandbox.requests == []


def test_a_journal_that_cannot_be_used(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(capsys, "run", sandbox.add_set(AT_ONCE), "--journal", "no/such/folder")
    assert said.status == 3
    assert said.err.splitlines()[-1].startswith("Error: journal ")


def test_failed_job_summary_costs_no_report(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
    said = Said(capsys, "run", "-q", sandbox.add_set(AT_ONCE), "--json", "a/b/r.json")
    assert said.status == 0
    assert said.err == (
        "Error: the summary of the job (GITHUB_STEP_SUMMARY) was not written: "
        "No such file or directory\n"
    )
    assert from_json(Path("a/b/r.json").read_text()).passed


def test_github_annotations_and_summary(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    set_id = sandbox.add_set(FAILING)
    said = Said(capsys, "run", set_id)
    assert "::error title=Unit test set Refund policy failed::Refund policy / " in said.err
    assert f"%0Aset {set_id}, run " in said.err
    assert set_id in (tmp_path / "summary.md").read_text()


def test_verbose_writes_the_log(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "run", "--verbose", sandbox.add_set(AT_ONCE))
    assert said.status == 0
    assert re.search(r"^\d\d:\d\d:\d\d INFO .*run \w+ of set ", said.err, re.MULTILINE), said.err
    assert "passed" in said.out
    logger = logging.getLogger("amigo_async")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert "INFO" not in Said(capsys, "list").err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    said = Said(capsys, "completion", shell)
    assert said.status == 0
    assert "_AMIGO_ASYNC_COMPLETE" in said.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("amigo-async ca", "cancel"), ("amigo-async run --on-e", "--on-exit")],
)
def test_arguments_are_completed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    offered: str,
) -> None:
    monkeypatch.setenv("_AMIGO_ASYNC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    with pytest.raises(SystemExit):
        main([])
    assert f"plain,{offered}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "command",
    [
        *("", "run", "wait", "report", "list", "show", "history", "cancel", "download"),
        *("auth", "auth check", "auth logout", "sandbox", "demo", "completion"),
    ],
)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    said = Said(capsys, *command.split(), "--help")
    assert said.status == 0
    assert said.out.startswith(f"Usage: amigo-async {command}".rstrip())
    assert "\b" not in said.out


def test_streams_that_are_not_files(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["--version"]) == 0
    assert out.getvalue().startswith("amigo-async, version ")


# --- without the extra ---


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_allows_import(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import amigo_async.cli as c; print('in')"
    script = f"{code}; sys.exit(c.main(['run']))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\n", WITHOUT_EXTRA)
