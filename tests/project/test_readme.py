"""What README and guides show works as it is shown, and their tables leave nothing out."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import yaml
from packaging.requirements import Requirement

import amigo_async
from amigo_async import AmigoClient, AmigoError, Gate
from amigo_async.events import Event
from amigo_async.otel import Telemetry
from amigo_async.report import from_json
from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.support.blocks import (
    AT_ONCE,
    BLOCKS,
    FOREIGN,
    README,
    ROOT,
    Driver,
    check_project,
    drive,
    of,
)
from tests.support.workflow import ACTION, action, run_step

SET_ID: Final = re.compile(r"\b[0-9a-f]{24}\b")


# --- Python ---


async def drive_check(names: dict[str, Any], sandbox: Sandbox) -> None:
    passing, failing = sandbox.add_set(), sandbox.add_set(SetPlan(outcome="failed"))
    assert await names["check"]([passing]) is True
    assert await names["check"]([passing, failing]) is False
    assert len(list(Path("results").glob("*/*"))) == 3


async def drive_start_soon(names: dict[str, Any], sandbox: Sandbox) -> None:
    async with AmigoClient() as client:
        run_ids = [await names["start_soon"](client, s) for s in sandbox.add_sets(21)]
    assert run_ids[:20] == [run.id for run in sandbox.runs]
    assert run_ids[20] is None


async def drive_start_once(names: dict[str, Any], sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    async with AmigoClient() as client:
        assert await names["start_once"](client, set_id) == sandbox.runs[0].id
        sandbox.fault("create", Fault.drop(after_work=True))
        assert await names["start_once"](client, set_id) is None


async def drive_watch(names: dict[str, Any], sandbox: Sandbox) -> None:
    set_ids = sandbox.add_sets(2)
    async with AmigoClient() as client:
        for _ in range(2):
            with redirect_stdout(io.StringIO()) as out:
                await names["watch"](client, set_ids)
            assert sorted(out.getvalue().split()[::2]) == sorted(set_ids)
    assert len(sandbox.runs) == 2


async def drive_gated(names: dict[str, Any], sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(SetPlan(seconds=1.0, repeats=30))
    async with AmigoClient() as client:
        assert await names["gated"](client, [set_id]) == "passed"


async def drive_compared(names: dict[str, Any], sandbox: Sandbox) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    async with AmigoClient() as client:
        for _ in range(3):
            await client.run_many([set_id])
        assert await names["compared"](client, set_id) == "no_change_seen"


async def drive_check_services(names: dict[str, Any], sandbox: Sandbox) -> None:
    with redirect_stdout(io.StringIO()) as out:
        assert await names["check_services"](sandbox.add_sets(1)) is True
    assert out.getvalue() == f"{sandbox.organization_id}\n"


async def drive_one(names: dict[str, Any], sandbox: Sandbox) -> None:
    async with AmigoClient() as client:
        await names["one"](client, sandbox.add_set())
    (run,) = sandbox.runs
    (artifact,) = [path for path in Path("results").iterdir() if path.is_file()]
    assert artifact.read_bytes() == sandbox.artifact_bytes(run.id)


async def drive_from_inside(names: dict[str, Any], sandbox: Sandbox) -> None:
    trustme.CA().cert_pem.write_to_path("ca.pem")
    assert await names["from_inside"](sandbox.add_sets(1)) is True


async def drive_judged(names: dict[str, Any], sandbox: Sandbox) -> None:
    set_id, failing = sandbox.add_set(AT_ONCE), sandbox.add_set(SetPlan(outcome="failed"))
    with redirect_stdout(io.StringIO()) as out:
        async with AmigoClient() as client:
            await names["judged"](client, [set_id])
            result = await names["judged"](client, [set_id, failing])
    assert result.counts == {"passed": 1, "failed": 1}
    assert out.getvalue() == f"{set_id} passed no_change_seen\n"


async def drive_write_reports(names: dict[str, Any], sandbox: Sandbox) -> None:
    async with AmigoClient() as client:
        result = await client.run_many(sandbox.add_sets(1, AT_ONCE), artifacts_dir="results")
    names["write_reports"](result, Gate())
    assert "<testsuites" in Path("report.xml").read_text()
    assert "results/" in Path("report.html").read_text()
    assert from_json(Path("report.json").read_text()).passed


async def drive_is_no_worse(names: dict[str, Any], sandbox: Sandbox) -> None:
    steady = SetPlan(seconds=0.0, artifacts_after=None, repeats=20)
    set_id, new = sandbox.add_set(steady), sandbox.add_set(steady)
    sandbox.start_run(set_id)
    with redirect_stdout(io.StringIO()) as out:
        async with AmigoClient() as client:
            assert await names["is_no_worse"](client, [set_id, new]) is True
            worse = SetPlan(seconds=0.0, artifacts_after=None, repeats=20, pass_rate=0.1)
            sandbox.add_set(worse, id=set_id)
            assert await names["is_no_worse"](client, [set_id]) is False
    said = out.getvalue()
    assert f"{set_id} no_change_seen ()" in said
    assert f"{new} no baseline" in said
    assert "1.0 -> " in said


async def drive_nightly(names: dict[str, Any], sandbox: Sandbox) -> None:
    failing = SetPlan(seconds=1.0, outcome="failed")
    sandbox.add_set(failing, name="Refund policy")
    sandbox.add_set(AT_ONCE, name="Returns", tags={"suite": "nightly"})
    with redirect_stdout(io.StringIO()) as out:
        await names["nightly"]()
    said = out.getvalue()
    assert said.startswith("Refund policy failed\nReturns passed\n")
    assert len(said.splitlines()) > 2


async def drive_observed(names: dict[str, Any], sandbox: Sandbox) -> None:
    # There is no SDK behind the API here; what it would be given is tested elsewhere.
    heard: list[str] = []
    take_note = Telemetry.on_event

    def hear(telemetry: Telemetry, event: Event) -> None:
        heard.append(type(event).__name__)
        take_note(telemetry, event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Telemetry, "on_event", hear)
        await names["observed"](sandbox.add_sets(1))
    names["telemetry"].close()
    assert {"RunStarted", "RunFinished", "ArtifactSaved"} <= set(heard)


DRIVERS: Final[dict[str, Driver]] = {
    "check": drive_check,
    "check_services": drive_check_services,
    "compared": drive_compared,
    "gated": drive_gated,
    "one": drive_one,
    "start_once": drive_start_once,
    "start_soon": drive_start_soon,
    "watch": drive_watch,
    "from_inside": drive_from_inside,
    "judged": drive_judged,
    "nightly": drive_nightly,
    "is_no_worse": drive_is_no_worse,
    "write_reports": drive_write_reports,
    "observed": drive_observed,
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", DRIVERS)
async def test_python_blocks_work(
    name: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in sandbox.environment().items():
        monkeypatch.setenv(variable, value)
    await drive(name, DRIVERS, sandbox)
    assert "listener failed" not in caplog.text


def test_every_driver_has_a_block() -> None:
    driven = {*DRIVERS, *FOREIGN}
    for block in of("python"):
        tested = block.is_test or block.is_conftest
        assert tested or len(driven.intersection(block.functions)) == 1, block


def test_pytest_blocks_pass(tmp_path: Path) -> None:
    blocks = [block for block in of("python") if block.is_test and "mark.anyio" in block.text]
    assert blocks
    check_project(tmp_path, blocks, options="-p no:asyncio")


# --- the shell ---


@pytest.fixture
def quick() -> Iterator[Sandbox]:
    with Sandbox(plan=AT_ONCE).in_thread() as served:
        yield served


def in_shell(command: str, sandbox: Sandbox, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a shell, with `amigo-async` and the sandbox in the environment."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=command_environment(sandbox, folder),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def command_environment(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    """Variables with which a shell finds the command, and the command the sandbox.

    The command is also where the action installs it.
    """
    script = folder / "temp" / "amigo-async" / "bin" / "amigo-async"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m amigo_async.cli "$@"\n')
    script.chmod(0o755)
    foreign = ("AMIGO_", "GITHUB_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        **sandbox.environment(),
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


def check_install(command: str) -> None:
    """What is installed is this package, with extras that it has."""
    (wanted,) = shlex.split(command, comments=True)[2:]
    wanted = wanted.replace(".[", "amigo-async[")  # from a clone
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = Requirement(wanted)
    assert requirement.name == project["name"]
    assert requirement.extras <= set(project["optional-dependencies"])


def test_test_commands_are_one_line() -> None:
    demo, tests, *_ = of("sh", "README.md")
    for block in (demo, tests):
        assert block.text.count("\n") == 1
        assert block.text.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    assert demo.text.endswith('".[cli]" && .venv/bin/amigo-async demo\n')
    for script in (".ci/run", ".github/workflows/tests.yml"):
        (pattern,) = re.findall(r"grep -m1 '(.+)' README\.md", (ROOT / script).read_text())
        lines = README.splitlines(keepends=True)
        assert [line for line in lines if re.search(pattern, line.rstrip())] == [tests.text]


def test_shell_lines_work(quick: Sandbox, tmp_path: Path) -> None:
    _, _, setting_up, use = of("sh", "README.md")
    install, export = setting_up.text.splitlines()
    check_install(install)
    exported = [word.partition("=")[0] for word in shlex.split(export)[1:]]
    assert {*exported, "AMIGO_BASE_URL"} == set(quick.environment())
    quick.add_set(AT_ONCE, name="Refund policy")
    quick.add_set(AT_ONCE, name="Returns", tags={"suite": "nightly"})
    ended = in_shell(use.text, quick, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "2 passed" in ended.stdout
    assert all(run.id in ended.stdout for run in quick.runs)
    assert len(list((tmp_path / "results").glob("*/*"))) == 2
    assert "Refund policy" in (tmp_path / "report.html").read_text()


def test_lines_that_compare_work(quick: Sandbox, tmp_path: Path) -> None:
    (compare,) = of("sh", "chance.md")
    steady = SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20)
    set_id = quick.add_set(steady, name="Refund policy")
    for _ in range(5):
        quick.start_run(set_id)
    run, *shown = compare.text.splitlines()
    ended = in_shell(run, quick, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "before 300 of 300" in ended.stdout
    worse = SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20, pass_rate=0.5)
    quick.add_set(worse, id=set_id, name="Refund policy")
    assert in_shell(run, quick, tmp_path).returncode == 1
    for line in shown:
        ended = in_shell(line, quick, tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "Refund policy" in ended.stdout
    assert (tmp_path / "history.html").exists()


def workflow(number: int = 0) -> Any:
    """A workflow of GitHub Actions that the README shows."""
    block = [block for block in of("yaml") if block.text.startswith("name:")][number]
    # YAML 1.1 takes the key "on" for a truth; GitHub does not.
    return yaml.safe_load(re.sub("^on:", '"on":', block.text, flags=re.MULTILINE))


def test_options_fail_on_a_regression_alone(quick: Sandbox, tmp_path: Path) -> None:
    guide = (ROOT / "amigo_async/guides/ci.md").read_text(encoding="utf-8")
    (options,) = re.findall(r"`(--baseline 5 [^`]+)`", guide)
    given: dict[str, Any] = {
        "inputs": {"from": "sets.txt", "options": options},
        "environment": command_environment(quick, tmp_path),
    }
    set_id = quick.add_set(
        SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20, pass_rate=0.6), name="Refund policy"
    )
    (tmp_path / "sets.txt").write_text("Refund policy")
    for _ in range(5):
        quick.start_run(set_id)
    # Better than before, so that chance cannot make it a regression; and metrics fail all the same.
    quick.add_set(
        SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20, pass_rate=0.8),
        id=set_id,
        name="Refund policy",
    )
    better = run_step("Run the sets", folder=tmp_path, **given)
    assert better.returncode == 0, better.stderr
    text = (tmp_path / "amigo-async" / "report.md").read_text()
    assert "Against the baseline" in text
    assert "regressed" not in text
    quick.add_set(
        SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20, pass_rate=0.1),
        id=set_id,
        name="Refund policy",
    )
    assert run_step("Run the sets", folder=tmp_path, **given).returncode == 1


def test_candidate_is_gated_by_the_release(quick: Sandbox, tmp_path: Path) -> None:
    parsed = workflow(1)
    assert set(parsed["env"]) == set(quick.environment())
    (job,) = parsed["jobs"].values()
    _, download, use = job["steps"]
    saved, release = re.findall(r"[\w.]+\.json", download["run"])
    environment = command_environment(quick, tmp_path)
    set_id = quick.add_set(SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20, pass_rate=0.9))
    (tmp_path / "sets.txt").write_text(set_id)
    given: dict[str, Any] = {"environment": environment, "folder": tmp_path}
    run_step("Run the sets", inputs={"from": "sets.txt"}, **given)
    (tmp_path / "amigo-async" / saved).rename(tmp_path / release)
    quick.add_set(SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20), id=set_id)
    assert run_step("Run the sets", inputs=use["with"], **given).returncode == 0
    quick.add_set(SetPlan(seconds=0.0, artifacts_after=0.0, repeats=20, pass_rate=0.3), id=set_id)
    assert run_step("Run the sets", inputs=use["with"], **given).returncode == 1


def test_workflow_uses_the_action(quick: Sandbox, tmp_path: Path) -> None:
    parsed = workflow()
    assert set(parsed["on"]) == {"pull_request", "schedule"}
    assert set(parsed["env"]) == set(quick.environment())
    assert all(name in value for name, value in parsed["env"].items())
    (job,) = parsed["jobs"].values()
    checkout, use, comment = job["steps"]
    assert use["uses"].endswith(f"{ACTION.parent.relative_to(ROOT)}@main")
    assert len(yaml.safe_dump([use, checkout], sort_keys=False, width=200).splitlines()) == 5
    given = {"inputs": use["with"], "environment": command_environment(quick, tmp_path)}
    (tmp_path / "sets.txt").write_text("\n".join(quick.add_sets(2)))
    ended = run_step("Run the sets", folder=tmp_path, **given)
    assert ended.returncode == 0, ended.stderr
    assert "2 passed" in ended.stdout
    assert (tmp_path / "output").read_text() == "exit-code=0\n"
    # What the comment sends is there, and is what was uploaded.
    uploaded = action()["inputs"]["folder"]["default"]
    assert comment["with"]["path"] == f"{uploaded}/report.md"
    assert parsed["permissions"]["pull-requests"] == "write"
    kept = {path.name for path in (tmp_path / uploaded).iterdir()}
    assert kept == {"report.xml", "report.md", "report.html", "report.json", "artifacts"}
    failing = quick.add_set(SetPlan(seconds=0.0, artifacts_after=0.0, outcome="failed"))
    (tmp_path / "sets.txt").write_text(failing)
    assert run_step("Run the sets", folder=tmp_path, **given).returncode == 1
    assert (tmp_path / "output").read_text() == "exit-code=0\nexit-code=1\n"


def test_action_takes_names_and_options(quick: Sandbox, tmp_path: Path) -> None:
    for name in ("Refund policy", "$(touch hacked)", "Billing"):
        quick.add_set(name=name)
    (tmp_path / "more.txt").write_text("Billing\n")
    ended = run_step(
        "Run the sets",
        inputs={
            "sets": "Refund policy\n$(touch hacked)",
            "from": "more.txt",
            "options": "--timeout 1h --journal 'a journal' --no-reasons",
            "folder": "a folder",
        },
        environment=command_environment(quick, tmp_path),
        folder=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert "3 passed" in ended.stdout
    assert {"a folder", "a journal"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "hacked").exists()
    wrong = run_step(
        "Run the sets",
        inputs={"options": "--no-such-option"},
        environment=command_environment(quick, tmp_path),
        folder=tmp_path,
    )
    assert wrong.returncode == 2
    assert (tmp_path / "output").read_text().splitlines()[-1] == "exit-code=2"


def test_action_installs_its_own_version(tmp_path: Path) -> None:
    python = tmp_path / "python"
    pip = 'mkdir -p "$3/bin" && cp "$0" "$3/bin/pip"'
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n[ "$1" = -m ] && {pip}\nexit 0\n')
    python.chmod(0o755)
    context = {"steps.python.outputs.python-path": str(python), "github.action_path": ACTION.parent}
    ended = run_step(
        "Install amigo-async",
        context={name: str(value) for name, value in context.items()},
        environment={},
        folder=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    venv = tmp_path / "temp" / "amigo-async"
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [f"-m venv {venv}", f"install -q {ROOT}[cli]"]


def test_gitlab_pipeline_runs_the_command(quick: Sandbox, tmp_path: Path) -> None:
    (block,) = [block for block in of("yaml") if not block.text.startswith("name:")]
    assert len(block.text.splitlines()) == 6
    (job,) = yaml.safe_load(block.text).values()
    check_install(job["before_script"])
    failing = quick.add_set(SetPlan(seconds=0.0, artifacts_after=0.0, outcome="failed"))
    (tmp_path / "sets.txt").write_text("\n".join([*quick.add_sets(2), failing]))
    ended = in_shell(job["script"], quick, tmp_path)
    assert ended.returncode == 1, ended.stderr
    report = tmp_path / job["artifacts"]["reports"]["junit"]
    assert report.suffix == ".xml"  # otherwise, GitLab does not read it
    assert report.stat().st_size > 1000


def test_every_block_is_tested() -> None:
    assert {block.language for block in BLOCKS} == {"python", "sh", "yaml"}
    assert (len(of("sh")), len(of("yaml"))) == (5, 3)


# --- tables ---


def test_table_of_errors_is_complete() -> None:
    guide = (ROOT / "amigo_async/guides/troubleshooting.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in guide.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    public = {
        name
        for name in amigo_async.__all__
        if isinstance(kind := getattr(amigo_async, name), type) and issubclass(kind, AmigoError)
    }
    assert len(public) > 20
    assert sorted(named) == sorted(public)
