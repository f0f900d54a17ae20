"""What the commands do where something inside of them goes wrong or is shorter than usual."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from amigo_async.cli import main
from amigo_async.errors import AmigoError
from amigo_async.testing import Sandbox, SetPlan
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    Said,
    elsewhere,
    on_terminal,
    served,
    start,
)

WITHOUT_EXTRA = (
    "amigo-async: the command needs its extra: "
    'install amigo-async[cli] (in a clone: pip install ".[cli]")\n'
)


def test_wait_gives_up_on_artifacts(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amigo_async.cli.run.ARTIFACTS_PATIENCE", 0.3)
    runs = start(sandbox, sandbox.add_set(SetPlan(seconds=0.0, artifacts_after=None)))
    said = Said(capsys, "wait", *runs, "--artifacts", "got")
    assert said.status == 4
    assert "1 passed" in said.out
    assert "0 artifacts in got" in said.out


@pytest.mark.parametrize(
    ("columns", "form"), [(80, r"\d\d-\d\d \d\d:\d\d"), (100, r"20.*:\d\d:\d\d")]
)
def test_a_list_fits_the_terminal(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    form: str,
) -> None:
    [run_id] = start(sandbox, sandbox.add_set(AT_ONCE))
    on_terminal(monkeypatch, columns)
    monkeypatch.setattr("amigo_async.cli.summary._WIDTH", columns)
    [line] = [line for line in Said(capsys, "list").out.splitlines() if run_id in line]
    assert len(line) <= columns
    assert re.fullmatch(form, re.split(r"\d+/\d+", line)[1].partition(run_id)[0].strip())


def test_traceback_is_inert(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("x\n::error::y\n##vso[a]\x1b[2J https://h/k?X-Amz-Signature=hunter2")

    monkeypatch.setattr("amigo_async.cli.listing.open_client", fail)
    said = Said(capsys, "list", "--debug")
    assert said.status == 3
    lines = said.err.splitlines()
    assert "    async with open_client() as client:" in lines
    assert ": :error::y" in lines
    assert "# #vso[a]\ufffd[2J https://h/k?***" in lines
    assert "hunter2" not in said.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "r.json"), "Error: r.json: No space left"),
        (OSError("odd"), "Error: cannot continue: odd"),
        (AmigoError("plain"), "Error: plain"),
        (ZeroDivisionError("by 0"), "Error: unexpected ZeroDivisionError: by 0; --debug shows"),
    ],
)
def test_any_error_is_one_line(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("amigo_async.cli.run.run_job", fail)
    told = Said(capsys, "run", "-q", sandbox.add_set(AT_ONCE))
    assert told.status == 3
    assert told.err.startswith(said)
    assert told.err.count("\n") == 1


def test_debug_shows_a_failed_output(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("by 0")

    monkeypatch.setattr("amigo_async.cli.run.annotate", fail)
    said = Said(capsys, "run", "-q", "--debug", sandbox.add_set(AT_ONCE), "--json", "r.json")
    assert said.status == 0
    assert "Traceback" in said.err
    assert "Error: the annotations was not written: unexpected ZeroDivisionError" in said.err
    assert Path("r.json").exists()


def test_an_abort_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(*_: object, **__: object) -> None:
        raise click.Abort

    monkeypatch.setattr("amigo_async.cli.app.app.main", abort)
    assert main([]) == 130


def test_missing_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "amigo_async.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "click", None)
    assert main([]) == 3
    assert capsys.readouterr() == ("", WITHOUT_EXTRA)


def test_other_missing_module_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "amigo_async.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "amigo_async.cli.run", None)
    with pytest.raises(ModuleNotFoundError):
        main([])


def test_wait_for_a_run_that_is_not_there(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amigo_async.polling.schedule.SHORTEST", 0.1)
    monkeypatch.setattr("amigo_async.polling.poller._DOUBTED_FOR", 0.5)
    said = Said(capsys, "wait", "0" * 24)
    assert said.status == 3
    assert "there is no such run" in said.out
