from __future__ import annotations

import io
import sys

import pytest

from amigo_async.cli.plain import PlainView
from amigo_async.cli.views import Show
from amigo_async.errors import ArtifactError
from amigo_async.events import (
    ArtifactProgress,
    ArtifactSaved,
    Event,
    RequestRetried,
    RunFinished,
    RunLeft,
    RunProgressed,
    RunStarted,
    SecondRunFound,
    SignedIn,
    StartUnresolved,
)
from amigo_async.ratelimit import BudgetState
from tests.unit.cli.cli_samples import board, budget, outcome, run, some_id

A, B = some_id(0), some_id(1)
RUN_A = some_id(0xA0)


class Log:
    """A plain view of two sets, and what it writes."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.board, self.clock = board(2)
        self.budgets: dict[str, BudgetState] = {}
        self.view = PlainView(self.board, lambda: self.budgets)

    def hear(self, event: Event) -> list[str]:
        self.board.hear(event)
        self.view.hear(event)
        return self.lines()

    def lines(self) -> list[str]:
        out, err = self.capsys.readouterr()
        assert not out
        return err.splitlines()


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(capsys)


def test_a_set_from_start_to_artifacts(log: Log) -> None:
    assert log.hear(RunStarted(A, RUN_A)) == [f"[ 0:00] {A}  started as run {RUN_A}"]
    log.clock.time += 65
    assert log.hear(RunProgressed(A, RUN_A, 1, 8, False, False)) == []
    assert log.hear(RunFinished(A, RUN_A, "passed")) == [f"[ 1:05] {A}  passed after 1 min 05 s"]
    assert log.hear(ArtifactProgress(RUN_A, 1, 2)) == []
    assert log.hear(ArtifactSaved(RUN_A, "r/x.zip", 2048)) == [
        f"[ 1:05] {A}  saved r/x.zip (2.0 KiB)"
    ]
    log.view.close()


def test_trouble_is_told_once(log: Log) -> None:
    log.hear(RunStarted(A, RUN_A, attached=True))
    failing = RunProgressed(A, RUN_A, 3, 8, True, False)
    assert log.hear(failing) == [
        f"[ 0:00] {A}  a metric failed after 3 of 8 unit test runs; it goes on"
    ]
    assert log.hear(failing) == []


def test_error_without_progress(log: Log) -> None:
    log.hear(RunStarted(A, RUN_A))
    erring = RunProgressed(A, RUN_A, None, None, False, True)
    assert log.hear(erring) == [f"[ 0:00] {A}  an error was met; it goes on"]


def test_attaching_is_not_starting(log: Log) -> None:
    [line] = log.hear(RunStarted(A, RUN_A, attached=True))
    assert line.endswith(f"attached to run {RUN_A}")


def test_sign_ins_retries_and_unresolved(log: Log) -> None:
    assert log.hear(SignedIn(3600.0)) == ["[ 0:00] signed in; the token is good for 1 h 00 min"]
    assert log.hear(RequestRetried("create", 2, 4.0, "reset\nby peer")) == [
        "[ 0:00] start: attempt 2 failed, the next in 4 s: reset by peer"
    ]
    assert log.hear(StartUnresolved(A, "no answer")) == [
        f"[ 0:00] {A}  may have been started: no answer"
    ]


def test_what_is_said_of_runs_that_were_found(log: Log) -> None:
    log.hear(RunStarted(A, RUN_A))
    assert log.hear(SecondRunFound(A, RUN_A, "r2")) == [
        f"[ 0:00] {A}  run r2 turned up besides {RUN_A}"
    ]
    assert log.hear(RunLeft(A, RUN_A)) == [
        f"[ 0:00] {A}  run {RUN_A} may be another's, and is not cancelled"
    ]


def test_events_about_other_sets_are_not_told(log: Log) -> None:
    assert log.hear(RunStarted(some_id(9), some_id(8))) == []


def test_failure_with_its_reason(log: Log) -> None:
    log.view.settle(A, outcome("failed", run=run(failed=1)))
    log.view.settle(B, outcome("passed", error=ArtifactError("no space", run_id="r")))
    assert log.lines() == [
        f"[ 0:00] {A}  failed: is polite failed in 1 of 2 repeats of unit test test-1",
        f"[ 0:00] {B}  passed: artifact of run r: no space",
    ]
    log.view.settle(A, outcome("passed"))
    assert log.lines() == []


def test_limit_wait_is_told_once(log: Log) -> None:
    log.budgets["create"] = budget(waiting=9, opens_in=12.0)
    log.view.tick()
    [line] = log.lines()
    assert "start: 9 requests held back by the limit of 20; room in 12 s, at " in line
    log.clock.time += 2
    log.budgets["create"] = budget(waiting=8, opens_in=10.0)
    log.view.tick()
    assert log.lines() == []
    log.clock.time += 10
    log.budgets["create"] = budget(waiting=3, opens_in=12.0)
    log.view.tick()
    assert len(log.lines()) == 1


def test_short_waits_are_not_told(log: Log) -> None:
    log.budgets = {
        "create": budget(waiting=9, opens_in=0.4),
        "list": budget("list", remaining=3),
    }
    log.view.tick()
    assert log.lines() == []


def test_line_after_silence(log: Log) -> None:
    log.clock.time += 29
    log.view.tick()
    assert log.lines() == []
    log.clock.time += 1
    log.view.tick()
    assert log.lines() == ["[ 0:30] 0 of 2 done, 2 waiting"]
    log.board.settle(A, outcome("failed"))
    log.clock.time += 30
    log.view.tick()
    assert log.lines() == ["[ 1:00] 1 of 2 done, 1 waiting: 1 failed"]


def test_what_has_to_be_seen_is_written(log: Log) -> None:
    log.view.say("Stopping")
    assert log.lines() == ["[ 0:00] Stopping"]


def test_stderr_gone_ends_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    sets, _ = board(1)
    show = Show(sets, PlainView(sets, dict))
    monkeypatch.setattr(sys, "stderr", Gone())
    show.hear(RunStarted(A, RUN_A))
    show.settle(A, outcome())
    show.say("Stopping")
    show.tick()
    show.close()
    assert sets.stages() == {"done": 1}


def test_quiet_shows_notices_only(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show(board(1)[0], None)
    show.hear(RunStarted(A, RUN_A))
    show.tick()
    show.say("Stopping")
    assert capsys.readouterr() == ("", "Stopping\n")


def test_endings_without_a_verdict(log: Log) -> None:
    show = Show(log.board, log.view)
    nothing = outcome("errored", run_id=None)
    show.settle(A, nothing, "asked")
    show.settle(B, nothing, "saved")  # an event has told it, with the path
    assert log.lines() == [f"[ 0:00] {A}  asked"]
    show.settle(A, nothing)
    assert log.lines() == [
        f"[ 0:00] {A}  errored: the run met an error; the user may not see which"
    ]


def test_service_cannot_forge_a_line(log: Log) -> None:
    odd = "r\n##vso[a]\x1b[2J"
    assert log.hear(RunStarted(A, odd)) == [f"[ 0:00] {A}  started as run r # #vso[a]\ufffd[2J"]
    assert log.hear(ArtifactSaved(odd, odd, 1)) == [
        f"[ 0:00] {A}  saved r # #vso[a]\ufffd[2J (1 B)"
    ]
