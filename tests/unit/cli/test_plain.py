from __future__ import annotations

import io
import sys

import pytest

from amigo_async import Gate
from amigo_async.cli.plain import PlainView
from amigo_async.cli.progress import Display, View
from amigo_async.errors import ArtifactError
from amigo_async.events import (
    ArtifactProgress,
    ArtifactSaved,
    Event,
    RequestRetried,
    RunCompared,
    RunFinished,
    RunLeft,
    RunProgressed,
    RunStarted,
    SecondRunFound,
    SignedIn,
    StartUnresolved,
)
from amigo_async.ratelimit import BudgetState
from tests.unit.cli.cli_samples import (
    ALLOWED,
    SHORT,
    batch_progress,
    budget,
    gated,
    outcome,
    run,
    some_id,
)

A, B = some_id(0), some_id(1)
RUN_A = some_id(0xA0)


class Log:
    """A plain view of two sets, and what it writes."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.progress, self.clock = batch_progress(2)
        self.budgets: dict[str, BudgetState] = {}
        self.view = PlainView(self.progress, lambda: self.budgets)

    def on_event(self, event: Event) -> list[str]:
        self.progress.on_event(event)
        self.view.on_event(event)
        return self.lines()

    def lines(self) -> list[str]:
        out, err = self.capsys.readouterr()
        assert not out
        return err.splitlines()


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(capsys)


def test_a_set_that_got_worse_is_one_of_many(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many sets it may be chance, as the summary will say; of one it is the verdict."""
    event = RunCompared(A, RUN_A, "regressed", (), ())
    assert log.on_event(event) == [f"[ 0:00] {A}  regressed against its baseline, taken by itself"]
    assert log.on_event(RunCompared(A, RUN_A, "no_change_seen", (), ())) == []
    one = batch_progress(1)[0]
    PlainView(one, dict).on_event(event)
    assert capsys.readouterr().err == f"[ 0:00] {A}  regressed against its baseline\n"


def test_what_the_gate_allows_is_no_reason(log: Log) -> None:
    log.progress.gate = Gate(min_pass_rate=0.9)
    Display(log.progress, log.view).finish(A, gated())
    [line] = log.lines()
    assert f"failed: {SHORT} / Polite throughout" in line
    assert ALLOWED not in line


def test_a_set_from_start_to_artifacts(log: Log) -> None:
    assert log.on_event(RunStarted(A, RUN_A)) == [f"[ 0:00] {A}  started as run {RUN_A}"]
    log.clock.time += 65
    assert log.on_event(RunProgressed(A, RUN_A, 1, 8, False, False)) == []
    assert log.on_event(RunFinished(A, RUN_A, "passed")) == [f"[ 1:05] {A}  passed after 1 min 5 s"]
    assert log.on_event(ArtifactProgress(RUN_A, 1, 2)) == []
    assert log.on_event(ArtifactSaved(RUN_A, "r/x.zip", 2048, existed=True)) == [
        f"[ 1:05] {A}  is there already: r/x.zip (2.0 KiB)"
    ]
    assert log.on_event(ArtifactSaved(RUN_A, "r/x.zip", 2048)) == [
        f"[ 1:05] {A}  saved r/x.zip (2.0 KiB)"
    ]
    log.view.close()


def test_a_run_that_a_journal_has(log: Log) -> None:
    assert log.on_event(RunProgressed(A, RUN_A, 1, 8, False, False)) == []
    assert log.progress.stages() == {"running": 1, "queued": 1}
    assert f"amigo-async wait {RUN_A}" in log.progress.continuing()
    log.clock.time += 5
    assert log.on_event(RunFinished(A, RUN_A, "passed")) == [f"[ 0:05] {A}  passed"]


def test_trouble_is_told_once(log: Log) -> None:
    log.on_event(RunStarted(A, RUN_A, attached=True))
    failing = RunProgressed(A, RUN_A, 3, 8, True, False)
    assert log.on_event(failing) == [
        f"[ 0:00] {A}  a metric failed after 3 of 8 unit test runs; the run continues"
    ]
    assert log.on_event(failing) == []


def test_error_without_progress(log: Log) -> None:
    log.on_event(RunStarted(A, RUN_A))
    erring = RunProgressed(A, RUN_A, None, None, False, True)
    assert log.on_event(erring) == [f"[ 0:00] {A}  an error occurred; the run continues"]


def test_attaching_is_not_starting(log: Log) -> None:
    [line] = log.on_event(RunStarted(A, RUN_A, attached=True))
    assert line.endswith(f"attached to run {RUN_A}")


def test_sign_ins_retries_and_unresolved(log: Log) -> None:
    assert log.on_event(SignedIn(3600.0)) == ["[ 0:00] signed in; the token expires in 1 h"]
    assert log.on_event(RequestRetried("create", 2, 4.0, "reset\nby peer")) == [
        "[ 0:00] create: attempt 2 failed, the next in 4 s: reset by peer"
    ]
    assert log.on_event(StartUnresolved(A, "no answer")) == [
        f"[ 0:00] {A}  may have been started: no answer"
    ]


def test_what_is_said_of_runs_that_were_found(log: Log) -> None:
    log.on_event(RunStarted(A, RUN_A))
    assert log.on_event(SecondRunFound(A, RUN_A, "r2")) == [
        f"[ 0:00] {A}  run r2 was found in addition to {RUN_A}"
    ]
    assert log.on_event(RunLeft(A, RUN_A)) == [
        f"[ 0:00] {A}  run {RUN_A} may be someone else's, and is not cancelled"
    ]


def test_events_about_other_sets_are_not_told(log: Log) -> None:
    assert log.on_event(RunStarted(some_id(9), some_id(8))) == []


def test_failure_with_its_reason(log: Log) -> None:
    log.view.finish(A, outcome("failed", run=run(failed=1)))
    log.view.finish(B, outcome("passed", error=ArtifactError("no space", run_id="r")))
    assert log.lines() == [
        f"[ 0:00] {A}  failed: test-1 / is polite: expected yes; 1 of 2 repeats passed, 1 failed",
        f"[ 0:00] {B}  passed: artifact of run r: no space",
    ]
    log.view.finish(A, outcome("passed"))
    assert log.lines() == []


def test_limit_wait_is_told_once(log: Log) -> None:
    log.budgets["create"] = budget(waiting=9, opens_in=12.0)
    log.view.refresh()
    [line] = log.lines()
    assert "create: 9 requests waiting for the rate limit of 20, until " in line
    log.clock.time += 2
    log.budgets["create"] = budget(waiting=8, opens_in=10.0)
    log.view.refresh()
    assert log.lines() == []
    log.clock.time += 10
    log.budgets["create"] = budget(waiting=3, opens_in=12.0)
    log.view.refresh()
    assert len(log.lines()) == 1


def test_short_waits_are_not_told(log: Log) -> None:
    log.budgets = {
        "create": budget(waiting=9, opens_in=0.4),
        "list": budget("list", remaining=3),
    }
    log.view.refresh()
    assert log.lines() == []


def test_line_after_silence(log: Log) -> None:
    log.clock.time += 29
    log.view.refresh()
    assert log.lines() == []
    log.clock.time += 1
    log.view.refresh()
    assert log.lines() == ["[ 0:30] 0 of 2 done, 2 waiting"]
    log.progress.finish(A, outcome("failed"))
    log.clock.time += 30
    log.view.refresh()
    assert log.lines() == ["[ 1:00] 1 of 2 done, 1 waiting: 1 failed"]


def test_what_has_to_be_seen_is_written(log: Log) -> None:
    log.view.notify("Stopping")
    assert log.lines() == ["[ 0:00] Stopping"]


def test_stderr_gone_ends_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    sets, _ = batch_progress(1)
    show = Display(sets, PlainView(sets, dict))
    monkeypatch.setattr(sys, "stderr", Gone())
    show.on_event(RunStarted(A, RUN_A))
    show.finish(A, outcome())
    show.notify("Stopping")
    show.refresh()
    show.close()
    assert sets.stages() == {"done": 1}


def test_quiet_shows_notices_only(capsys: pytest.CaptureFixture[str]) -> None:
    show = Display(batch_progress(1)[0], View())
    show.on_event(RunStarted(A, RUN_A))
    show.refresh()
    show.notify("Stopping")
    assert capsys.readouterr() == ("", "Stopping\n")


def test_endings_without_a_verdict(log: Log) -> None:
    show = Display(log.progress, log.view)
    nothing = outcome("errored", run_id=None)
    show.finish(A, nothing, "asked")
    show.finish(B, nothing, "saved")  # an event has told it, with the path
    assert log.lines() == [f"[ 0:00] {A}  asked"]
    show.finish(A, nothing)
    assert log.lines() == [
        f"[ 0:00] {A}  errored: the run had an error, but the visible results do not show which"
    ]


def test_service_cannot_forge_a_line(log: Log) -> None:
    odd = "r\n##vso[a]\x1b[2J"
    assert log.on_event(RunStarted(A, odd)) == [f"[ 0:00] {A}  started as run r # #vso[a]\ufffd[2J"]
    assert log.on_event(ArtifactSaved(odd, odd, 1)) == [
        f"[ 0:00] {A}  saved r # #vso[a]\ufffd[2J (1 B)"
    ]
