"""The command, its files and its processes show no secret of its environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from amigo_async.testing import (
    Fault,
    Sandbox,
    SetPlan,
)
from tests.cli.test_process import environment as environment_of
from tests.support.evidence import Evidence
from tests.support.secret_scenes import KEY, NO_LIMITS, ROUTES, echoes, used

# Whatever is logged is to be seen, and a traceback has its local variables.
PROGRAM: Final = """
import logging, sys, rich.traceback
logging.basicConfig(level=logging.DEBUG)
rich.traceback.install(show_locals=True, width=10_000)
from amigo_async.cli import main
sys.exit(main())
"""


def about_process(process: subprocess.Popen[str]) -> Iterator[str]:
    """What anyone sees of a process, and the environments of its children."""
    folder = Path(f"/proc/{process.pid}")
    with suppress(OSError):
        yield (folder / "cmdline").read_text()
        children = (folder / "task" / str(process.pid) / "children").read_text().split()
        for child in children:
            for name in ("cmdline", "environ"):
                yield Path(f"/proc/{child}/{name}").read_text()


def told_by(sandbox: Sandbox, folder: Path, key: str, *arguments: str) -> Evidence:
    """What the command shows and leaves behind, with its secrets in the environment alone."""
    evidence = Evidence()
    folder.mkdir()
    environment = {
        **environment_of(sandbox),
        "AMIGO_API_KEY": key,
        "AMIGO_API_KEY_ID": "odd",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_ACTIONS": "true",
    }
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROGRAM, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            evidence.add("output", line)
            if number % 50 == 0:
                evidence.add("process", *about_process(process))
    evidence.files("files", folder)
    return evidence


def test_command_shows_no_secret(tmp_path: Path) -> None:
    plan = SetPlan(seconds=0.1, artifacts_after=0.0, outcome="failed")
    with Sandbox(limits=NO_LIMITS).in_thread() as sandbox, Sandbox().in_thread() as other:
        sandbox.add_api_key("odd", KEY)
        # A create that is answered with 503 may be lost, which takes half a minute to find out.
        for route in set(ROUTES) - {"create"}:
            sandbox.fault(route, echoes(KEY)["status 503"])
        sandbox.fault("store", Fault.truncate())
        sandbox.fault("create", echoes(KEY)["status 403"])
        sets = [*sandbox.add_sets(3, plan), "0" * 24]
        reports = [f"--{kind}=report.{kind}" for kind in ("json", "junit", "markdown", "html")]
        options = ["--debug", "--artifacts=artifacts", "--journal=journal.jsonl", *reports]
        with ThreadPoolExecutor() as pool:
            refused = pool.submit(told_by, other, tmp_path / "wrong", KEY, "list", "--debug")
            evidence = told_by(sandbox, tmp_path / "batch", KEY, "run", *sets, *options)
            wrong = refused.result()
        names = {path.name for path in (tmp_path / "batch").iterdir()}
        secrets = {KEY} | used(sandbox) | used(other)
    assert {"journal.jsonl", "artifacts", "summary.md", "report.html"} <= names
    assert any("answered 403" in line for line in evidence.texts["output"])
    assert any("answered 401" in line for line in wrong.texts["output"])
    assert not evidence.leaks(secrets)
    assert not wrong.leaks(secrets)
