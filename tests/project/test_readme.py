"""What the README shows works as it is shown, and its tables leave nothing out."""

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
from amigo_async import AmigoClient, AmigoError, BatchResult
from amigo_async.events import Event
from amigo_async.otel import Telemetry
from amigo_async.testing import Sandbox, SetPlan
from tests.support.blocks import (
    AT_ONCE,
    BLOCKS,
    FOREIGN,
    README,
    ROOT,
    Block,
    Driver,
    drive,
    of,
)

SET_ID: Final = re.compile(r"\b[0-9a-f]{24}\b")


# --- Python ---


async def drive_check(names: dict[str, Any], sandbox: Sandbox) -> None:
    passing, failing = sandbox.add_set(), sandbox.add_set(SetPlan(outcome="failed"))
    assert await names["check"]([passing]) is True
    assert await names["check"]([passing, failing]) is False
    assert len(list(Path("results").glob("*/*"))) == 3


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
    ids = [sandbox.add_set(), sandbox.add_set(SetPlan(outcome="failed"))]
    async with AmigoClient() as client:
        result = await names["judged"](client, ids)
    assert isinstance(result, BatchResult)
    assert result.counts == {"passed": 1, "failed": 1}
    names["write_reports"](result)
    assert "<testsuites" in Path("report.xml").read_text()
    assert "results/" in Path("report.html").read_text()


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
    "one": drive_one,
    "from_inside": drive_from_inside,
    "judged": drive_judged,
    "nightly": drive_nightly,
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
        assert block.is_test or len(driven.intersection(block.functions)) == 1, block


@pytest.mark.parametrize("block", [b for b in of("python") if b.is_test], ids=str)
def test_pytest_blocks_pass(block: Block, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(block.text)
    command = [
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "test_mine.py",
    ]
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    tests = [name for name in block.functions if name.startswith("test_")]
    assert ended.returncode == 0, ended.stdout
    assert f"{len(tests)} passed" in ended.stdout


# --- the shell ---


@pytest.fixture
def quick() -> Iterator[Sandbox]:
    with Sandbox(plan=AT_ONCE).in_thread() as served:
        yield served


def in_shell(command: str, sandbox: Sandbox, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as it is, with the command on the path and the sandbox in the environment."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    script = programs / "amigo-async"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m amigo_async.cli "$@"\n')
    script.chmod(0o755)
    foreign = ("AMIGO_", "GITHUB_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={
            **kept,
            **sandbox.environment(),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def check_install(command: str) -> None:
    """What is installed is this package, with extras that it has."""
    (wanted,) = shlex.split(command, comments=True)[2:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = Requirement(wanted)
    assert requirement.name == project["name"]
    assert requirement.extras <= set(project["optional-dependencies"])


def test_test_commands_are_one_line() -> None:
    demo, tests, _ = of("sh")
    for block in (demo, tests):
        assert block.text.count("\n") == 1
        assert block.text.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    assert demo.text.endswith('".[cli]" && .venv/bin/amigo-async demo\n')
    for script in (".ci/run", ".github/workflows/tests.yml"):
        (pattern,) = re.findall(r"grep -m1 '(.+)' README\.md", (ROOT / script).read_text())
        lines = README.splitlines(keepends=True)
        assert [line for line in lines if re.search(pattern, line.rstrip())] == [tests.text]


def test_shell_lines_work(quick: Sandbox, tmp_path: Path) -> None:
    _, _, use = of("sh")
    lines = use.text.splitlines()
    ids = SET_ID.findall(use.text)
    for set_id in ids:
        quick.add_set(id=set_id)
    install, export, run = lines
    check_install(install)
    exported = [word.partition("=")[0] for word in shlex.split(export)[1:]]
    assert {*exported, "AMIGO_BASE_URL"} == set(quick.environment())
    ended = in_shell(run, quick, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(ids)} passed" in ended.stdout
    assert len(list((tmp_path / "results").glob("*/*"))) == len(ids)


def test_ci_job_runs_the_command(quick: Sandbox, tmp_path: Path) -> None:
    (block,) = of("yaml")
    # YAML 1.1 takes the key "on" for a truth; GitHub does not.
    workflow = yaml.safe_load(re.sub("^on:", '"on":', block.text, flags=re.MULTILINE))
    assert set(workflow["on"]) == {"workflow_dispatch", "schedule"}
    (job,) = workflow["jobs"].values()
    install, run = [step for step in job["steps"] if "run" in step]
    check_install(install["run"])
    assert set(run["env"]) == set(quick.environment())
    assert all(name in value for name, value in run["env"].items())
    (tmp_path / "sets.txt").write_text("\n".join(quick.add_sets(2)))
    ended = in_shell(run["run"], quick, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "2 passed" in ended.stdout
    upload = job["steps"][-1]["with"]["path"].split()
    kept = {path.name for pattern in upload for path in tmp_path.glob(pattern.rstrip("/"))}
    assert kept == {"report.xml", "report.md", "report.html", "results"}
    failing = quick.add_set(SetPlan(seconds=0.0, outcome="failed"))
    (tmp_path / "sets.txt").write_text(failing)
    assert in_shell(run["run"], quick, tmp_path).returncode == 1


def test_every_block_is_tested() -> None:
    assert {block.language for block in BLOCKS} == {"python", "sh", "yaml"}
    assert (len(of("sh")), len(of("yaml"))) == (3, 1)


# --- tables ---


def test_table_of_errors_is_complete() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    public = {
        name
        for name in amigo_async.__all__
        if isinstance(kind := getattr(amigo_async, name), type) and issubclass(kind, AmigoError)
    }
    assert len(public) > 20
    assert sorted(named) == sorted(public)
