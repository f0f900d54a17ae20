from __future__ import annotations

import io
import re
import sys
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from amigo_async import BatchResult, Gate, RunOutcome
from amigo_async.cli.jobs import FinishedJob, Job
from amigo_async.cli.reasons import gate_reasons
from amigo_async.cli.reports import Reports
from amigo_async.cli.run import report_result
from amigo_async.cli.summary import console_of, show_continuing_runs, show_summary
from amigo_async.errors import NotFoundError, TransportError
from amigo_async.events import StartUnresolved
from tests.unit.cli.cli_samples import ALLOWED, SHORT, gated, outcome, run, some_id

JOB = Job([some_id(1)], {})
LOST = TransportError("reset", method="GET", path="/p")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(*outcomes: RunOutcome, **fields: Any) -> str:
    given: dict[str, Any] = {"elapsed": 12.0, "interrupted": False, "unresolved": []}
    file = fields.pop("file", None) or io.StringIO()
    show_summary(FinishedJob(BatchResult(outcomes), **(given | fields)), JOB, file)
    return file.getvalue()


def test_the_summary_is_a_table_and_reasons() -> None:
    failed = outcome("failed", 2, run=run(failed=1))
    lines = [line.rstrip() for line in shown(outcome(run=run()), failed).splitlines()]
    assert lines[0].split() == ["verdict", "set", "tests", "time", "run"]
    assert lines[2].split() == ["passed", some_id(1), "2/2", "-", some_id(0xA1)]
    assert lines[3].split()[0] == "failed"
    assert lines[4:] == [
        f"{some_id(2)} failed",
        "  test-1 / is polite: expected yes; 1 of 2 repeats passed, 1 failed",
        "1 passed, 1 failed in 12 s",
    ]


def test_what_the_gate_allows_is_no_reason() -> None:
    file, gate = io.StringIO(), Gate(min_pass_rate=0.9)
    finished = FinishedJob(BatchResult([gated()]), None, False, [])
    show_summary(finished, Job([some_id(1)], {"gate": gate}), file)
    assert f"  {SHORT} / Polite throughout: expected yes; 5 of 10 repeats" in file.getvalue()
    assert ALLOWED not in file.getvalue()


@pytest.mark.parametrize(("columns", "with_ids"), [("80", False), ("120", True)])
def test_names_come_first(monkeypatch: pytest.MonkeyPatch, columns: str, with_ids: bool) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    named = outcome(run=run(), name="The refund policy of the northern shops")
    text = shown(named, outcome("failed", 2, run=run(failed=1)), file=Terminal())
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]
    cells = ["passed", "The refund policy of the …", "2/2", "-", some_id(0xA1)]
    assert re.split(r"  +", lines[2]) == [*cells, *([some_id(1)] * with_ids)]
    assert lines[3].split()[:2] == ["failed", some_id(2)]
    assert max(map(len, lines[2:4])) <= max(int(columns), 80)


def test_narrow_terminal_has_ids_below_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    named = outcome(run=run(), name="The refund policy of the northern shops")
    lost = outcome("not_started", 2, run_id=None)
    lines = shown(named, lost, file=Terminal()).splitlines()
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in lines]
    assert lines[2].split(maxsplit=1) == ["passed", "The refund policy of the …"]
    assert lines[3].strip() == some_id(0xA1)
    assert lines[4] == f"not started  {some_id(2)}"
    assert max(map(len, lines[:5])) <= 40


def test_time_of_a_set() -> None:
    began = run().created_at
    line = shown(outcome(started_at=began, finished_at=began.replace(minute=2))).splitlines()[2]
    assert line.split()[3:5] == ["2", "min"]


@pytest.mark.parametrize(("interrupted", "word"), [(True, "running"), (False, "timed out")])
def test_what_was_interrupted_is_running(interrupted: bool, word: str) -> None:
    text = shown(outcome("timed_out"), interrupted=interrupted)
    assert text.splitlines()[-1] == f"1 {word} in 12 s"


def test_no_wrapping_without_terminal() -> None:
    long = TransportError("x" * 300, method="GET", path="/p")
    assert "x" * 300 in shown(outcome("errored", error=long))


@pytest.mark.parametrize("columns", ["0", "1", "10", "39", "80", "65535"])
def test_ids_are_never_cut(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    failed = outcome("failed", 2, run=run(failed=1, errors=(f"see {some_id(7)}", None)))
    text = shown(outcome(run=run()), failed, file=Terminal())
    table, _, reasons = text.rpartition(f"{some_id(2)} failed")
    assert some_id(1) in table
    assert some_id(0xA2) in table
    assert some_id(7) in reasons
    assert "1 passed, 1 failed in 12 s" in text
    assert len(text) < 3000


def test_wrapping_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    long = TransportError("word " * 60, method="GET", path="/p")
    lines = shown(outcome("errored", error=long)).splitlines()
    told = [line for line in lines if "word" in line]
    assert len(told) > 1
    assert all(line.startswith("  ") for line in told)


def test_departed_reader_ends_output(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[bool] = []
    monkeypatch.setattr("amigo_async.cli.summary.drop_stdout", lambda: dropped.append(True))

    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    noted = console_of(Gone())
    noted.print("one")
    assert dropped == []
    monkeypatch.setattr(sys, "stdout", Gone())
    console = console_of(sys.stdout)
    console.print("one")
    console.print("two")
    assert dropped == [True]


@pytest.mark.parametrize(
    ("one", "goes_on"),
    [
        (outcome("timed_out"), True),
        (outcome("errored", error=LOST), True),
        (outcome("errored", error=LOST, run=run(is_completed=False)), True),
        (outcome("errored", error=LOST, run=run()), False),
        (outcome("errored", error=NotFoundError.of_run("r")), False),
        (outcome("errored", run=run()), False),
        (outcome("timed_out", run_id=None), False),
        (outcome("not_started", error=LOST), False),
        (outcome("passed", error=LOST), False),
    ],
)
def test_which_runs_go_on(
    one: RunOutcome, goes_on: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show_continuing_runs([one, one], JOB)
    err = capsys.readouterr().err
    told = f"1 run continues on the service. To resume:\n  amigo-async wait {one.run_id}\n"
    assert err == (told if goes_on else "")


def test_cancelled_and_foreign_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = outcome("timed_out", run=run(is_completed=False))
    found = replace(outcome("timed_out", 2, run=run(is_completed=False)), attached=True)
    cancelling = Job([some_id(1)], {"on_exit": "cancel"})
    show_continuing_runs([ours, found], cancelling)
    show_continuing_runs([found], cancelling)
    both, one = f"{ours.run_id} {found.run_id}", found.run_id
    left = "1 run may be someone else's, and was not cancelled. To wait for their end:"
    assert capsys.readouterr().err.splitlines() == [
        f"The service was asked to cancel 1 run. {left}",
        f"  amigo-async wait {both}",
        left,
        f"  amigo-async wait {one}",
    ]


@pytest.mark.parametrize(
    ("one", "count"),
    [
        (outcome(run=run()), 0),
        (outcome(run=run(failed=1)), 1),
        (outcome(run=run(hidden=True)), 1),
        (outcome("timed_out", run=run(is_completed=False)), 0),
        (outcome("cancelled", run=run(failed=1)), 0),
        (outcome("errored"), 0),
    ],
)
def test_gate_gives_its_reasons(one: RunOutcome, count: int) -> None:
    assert len(gate_reasons(one, Gate(min_pass_rate=0.5))) == count
    assert gate_reasons(one, None) == []


ODD = "[bold]::error::x[/red]\n##vso[a]\x1b[2J https://h/k?X-Amz-Signature=hunter2"


def odd_outcome() -> RunOutcome:
    """One of which the service says what a terminal, a CI system, a shell and rich would obey."""
    named = run(failed=1, errors=(ODD, None))
    spec = named.unit_test_run_specs[0]
    metric = msgspec.structs.replace(spec.metrics_to_evaluate[0], success_criterion_name=ODD)
    spec = msgspec.structs.replace(spec, metrics_to_evaluate=(metric,))
    named = msgspec.structs.replace(named, unit_test_run_specs=[spec])
    return outcome("failed", unit_test_set_id=ODD, run_id=ODD, name=ODD, run=named)


@pytest.mark.parametrize("terminal", [False, True])
def test_service_text_is_inert(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "400")
    text = shown(odd_outcome())
    assert "[bold]: :error" in re.sub("\x1b\\[[0-9;]*m", "", text)
    late = msgspec.structs.replace(odd_outcome(), verdict="timed_out")
    show_continuing_runs([late], JOB)
    show_continuing_runs([late], Job([some_id(1)], {"journal": "j"}))
    said = text + capsys.readouterr().err
    assert "##" not in said
    assert "\x1b[2J" not in said
    assert "hunter2" not in said
    assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]


def test_pasted_ids_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    show_continuing_runs([outcome("timed_out", run_id="x; rm -rf ~")], JOB)
    assert capsys.readouterr().err.endswith("  amigo-async wait 'x; rm -rf ~'\n")


def test_unresolved_start_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    unresolved = [StartUnresolved(some_id(1), "no answer came")]
    ending = FinishedJob(BatchResult([outcome("not_started")]), 1.0, True, unresolved)
    report_result(ending, Reports(), Job([some_id(1)], {}))
    assert capsys.readouterr().err == (
        f"A run of set {some_id(1)} may have been started: no answer came. "
        f"Check with: amigo-async list --set {some_id(1)}\n"
    )
