"""Reports from a saved result: without the service, unless names or reasons are asked for."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from amigo_async.report import from_json, to_json
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

ONE_FAILURE = SetPlan(
    seconds=0.0, artifacts_after=0.0, outcome="failed", unit_tests=1, repeats=1, metrics=1
)


def asked(sandbox: Sandbox) -> int:
    names = sandbox.count("unit_test_sets") + sandbox.count("unit_tests") + sandbox.count("metrics")
    return names + sandbox.count("evaluations") + sandbox.count("list") + sandbox.count("sign_in")


@pytest.fixture(name="offline")
def without_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Ends the credentials: what still asks the service fails with status 2."""
    with monkeypatch.context() as patch:
        yield patch


def forget(patch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    for name in sandbox.environment():
        patch.delenv(name)


def test_every_report_is_the_one_that_run_wrote(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], offline: pytest.MonkeyPatch
) -> None:
    ids = [sandbox.add_set(plan) for plan in (AT_ONCE, FAILING, ERRING)]
    link = ["--link", "https://console.test/{run_id}"]
    kinds = {"json": "r.json", "junit": "r.xml", "markdown": "r.md", "html": "r.html"}
    written = Said(
        capsys, "run", *ids, *link, *(f"--{kind}={name}" for kind, name in kinds.items())
    )
    forget(offline, sandbox)
    options = [f"--{kind}=again-{name}" for kind, name in kinds.items()]
    again = Said(capsys, "report", "r.json", *link, *options)
    assert (written.status, again.status) == (1, 1)
    for name in kinds.values():
        assert Path(f"again-{name}").read_bytes() == Path(name).read_bytes()
    time = re.compile(r" in [\d.]+ m?s\n")
    assert time.sub("\n", again.out) == time.sub("\n", written.out)
    assert time.search(again.out)
    assert again.err == ""


@pytest.mark.parametrize(
    ("plans", "options", "status"),
    [
        ([AT_ONCE], [], 0),
        ([AT_ONCE, FAILING], [], 1),
        ([AT_ONCE, ERRING], [], 3),
        ([AT_ONCE, LASTING], ["--timeout=0.5"], 4),
        ([AT_ONCE, LASTING], ["--timeout=0.5", "--artifacts=got"], 4),
    ],
)
def test_exit_status_is_that_of_run(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    plans: list[SetPlan],
    options: list[str],
    status: int,
) -> None:
    ids = [sandbox.add_set(plan) for plan in plans]
    assert Said(capsys, "run", *ids, "--json=r.json", *options).status == status
    assert Said(capsys, "report", "r.json").status == status


def test_recorded_errors_keep_their_exit_status_and_remedy(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(LASTING)
    start(sandbox, set_id)
    first = Said(capsys, "run", set_id, "--json=r.json")
    assert first.status == 3
    again = Said(capsys, "report", "r.json")
    assert again.status == 3
    assert "--on-conflict attach, wait or restart" in again.out


@pytest.mark.parametrize(
    ("type_name", "status"),
    [
        ("WaitTimeoutError", 4),
        ("TimeoutError", 4),
        ("ConfigurationError", 3),
        ("ArgumentError", 3),
        ("ServerError", 3),
        ("SomebodysError", 3),
        ("Any", 3),
    ],
)
def test_status_of_an_error_that_was_read(
    capsys: pytest.CaptureFixture[str], type_name: str, status: int
) -> None:
    Path("r.json").write_text(
        '{"outcomes": [{"unit_test_set_id": "s", "verdict": "not_started", '
        f'"error": {{"type": "{type_name}", "message": "m"}}}}]}}'
    )
    assert Said(capsys, "report", "r.json").status == status


def test_artifacts_cut_off_by_the_deadline(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sandbox.add_sets(2, AT_ONCE)
    assert Said(capsys, "run", *ids, "--artifacts=got", "--json=r.json").status == 0
    result = from_json(Path("r.json").read_bytes())
    first = msgspec.structs.replace(result.outcomes[0], artifacts=None)
    Path("r.json").write_text(
        to_json(msgspec.structs.replace(result, outcomes=[first, result.outcomes[1]]))
    )
    assert Said(capsys, "report", "r.json").status == 4


def test_names_and_reasons_are_read_once_and_kept(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], offline: pytest.MonkeyPatch
) -> None:
    set_id = sandbox.add_set(ONE_FAILURE, name="Refund policy")
    Said(capsys, "run", set_id, "--no-names", "--no-reasons", "--json=r.json")
    before = asked(sandbox)
    bare = Said(capsys, "report", "r.json")
    assert asked(sandbox) == before
    assert "Refund policy" not in bare.out
    full = Said(capsys, "report", "r.json", "--names", "--reasons", "--json=r.json")
    assert f"Refund policy failed  {set_id}\n" in full.out
    assert "hung up without an answer" in full.out
    result = from_json(Path("r.json").read_bytes())
    assert result.outcomes[0].name == "Refund policy"
    assert len(result.explanations.evaluations) == 1

    before = asked(sandbox)
    Said(capsys, "report", "r.json", "--names", "--reasons")
    assert asked(sandbox) == before
    forget(offline, sandbox)
    assert Said(capsys, "report", "r.json").out == full.out


def test_missing_names_alone(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(ONE_FAILURE, name="Refund policy")
    Said(capsys, "run", set_id, "--no-names", "--no-reasons", "--json=r.json")
    said = Said(capsys, "report", "r.json", "--names")
    assert f"Refund policy failed  {set_id}\n" in said.out
    assert sandbox.count("evaluations") == 0
    said = Said(capsys, "report", "r.json", "--reasons")
    assert "Refund policy failed" not in said.out
    assert "hung up without an answer" in said.out


def test_what_cannot_be_read_is_said(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(ONE_FAILURE)
    Said(capsys, "run", set_id, "--no-names", "--no-reasons", "--json=r.json")
    sandbox.add_user(sandbox.user_id, permissions=["Simulation:GetSimulationUnitTestSetRun"])
    said = Said(capsys, "report", "r.json", "--reasons")
    assert said.status == 1
    assert said.err.count("Note: ") == 1
    assert "Metric:GetMetricEvaluationResult" in said.err


def test_another_gate(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(FAILING)
    Said(capsys, "run", set_id, "--json=r.json")
    assert Said(capsys, "report", "r.json", "--min-pass-rate=0").status == 0
    assert Said(capsys, "report", "r.json", "--min-pass-rate=1").status == 1
    assert Said(capsys, "report", "r.json").status == 1


def test_from_stdin_and_to_stdout(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    text = Said(capsys, "run", set_id, "--json=-").out
    for content in (text.encode(), text.encode("utf-16")):
        stdin = io.TextIOWrapper(io.BytesIO(content))
        monkeypatch.setattr(sys, "stdin", stdin)
        said = Said(capsys, "report", "-", "--json=-")
        assert said.status == 0
        assert said.out == text
        assert "1 passed" in said.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is not a result"),
        (b'{"outcomes": 3}', "is not a result"),
        (b'{"outcomes": []}', "has no outcome"),
        (b"\xff\xfe\xff", "is not text"),
        (b'{"outcomes": [{"unit_test_set_id": "s", "verdict": "\x1b[2J"}]}', "is not a result"),
    ],
)
def test_a_file_that_is_no_result(
    capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    if content is not None:
        Path("r.json").write_bytes(content)
    said = Said(capsys, "report", "r.json", "--html=r.html")
    assert (said.status, said.out) == (2, "")
    [line] = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    assert words in line
    assert "r.json" in line
    assert "\x1b" not in said.err
    assert not Path("r.html").exists()


def test_a_folder_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.json").mkdir()
    said = Said(capsys, "report", "r.json")
    assert said.status == 2
    assert "r.json" in said.err
