"""Signals and the live display in this process, which their coverage is measured in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from amigo_async.cli import jobs, main, progress
from amigo_async.cli import signals as interrupts
from amigo_async.testing import Fault, Sandbox, SetPlan

LASTING = SetPlan(seconds=600.0, cancel_after=0.0)


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    for name in ("GITHUB_ACTIONS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with Sandbox(limits={"list": 5_000}).in_thread() as served:
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        yield served


@contextmanager
def signalled(*conditions: Callable[[], object]) -> Iterator[None]:
    """Send SIGINT to this process each time that the next condition has come true."""
    over = threading.Event()

    def watch() -> None:
        for condition in conditions:
            while not condition():
                if over.wait(0.01):
                    return
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_interrupted_run(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    with signalled(lambda: sandbox.count("list", status=200) > 2):
        assert main(["run", sandbox.add_set(LASTING)]) == 130
    [run] = sandbox.runs
    assert capsys.readouterr().err.endswith(f"To resume:\n  amigo-async wait {run.id}\n")


def test_interrupted_quiet_run(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    with signalled(lambda: sandbox.count("list", status=200) > 2):
        assert main(["run", "-q", sandbox.add_set(LASTING)]) == 130
    assert capsys.readouterr().err.startswith("Stopping; press Ctrl-C again")


def test_interrupted_wait(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    with signalled(lambda: sandbox.count("list", status=200) > 2):
        main(["run", "-q", sandbox.add_set(LASTING)])
    looks = sandbox.count("list", status=200)
    [run] = sandbox.runs
    with signalled(lambda: sandbox.count("list", status=200) > looks):
        assert main(["wait", run.id]) == 130
    assert main(["cancel", "-q", "--wait", "--timeout", "5", run.id]) == 0
    assert capsys.readouterr().out.endswith(f"{run.id} cancelled\n")


def test_interrupted_cancel(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.fault("cancel", Fault.delay(60.0))
    with signalled(lambda: sandbox.count("list", status=200) > 2):
        main(["run", "-q", sandbox.add_set(LASTING)])
    [run] = sandbox.runs
    with signalled(lambda: sandbox.count("cancel")):
        assert main(["cancel", run.id]) == 130
    assert capsys.readouterr().out.endswith(f"{run.id} running\n")


class OutAtOnce(SystemExit):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("later", "status"), [(0.49, None), (0.5, 130)])
def test_second_signal_exits_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    later: float,
    status: int | None,
) -> None:
    def leave(code: int) -> None:
        raise OutAtOnce(code)

    monkeypatch.setattr(os, "_exit", leave)
    time, said, closed = [100.0], list[str](), list[bool]()
    handling = interrupts.Interrupts(lambda: time[0])

    async def work() -> int:
        with handling.caught(said.append, lambda: closed.append(True), lambda: "farewell\n"):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
            finally:
                time[0] += later
                os.kill(os.getpid(), signal.SIGINT)
        return 7

    if status is None:
        assert handling.run(work()) == 7
    else:
        with pytest.raises(OutAtOnce, match=str(status)):
            handling.run(work())
    assert len(said) == 1
    assert closed == ([] if status is None else [True])
    assert capfd.readouterr().err == ("" if status is None else "farewell\n")
    assert handling.interrupted


def test_signal_after_the_work() -> None:
    handling = interrupts.Interrupts()

    async def work() -> int:
        with handling.caught(lambda _: None, lambda: None):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 7

    assert handling.run(work()) == 7
    assert not handling.interrupted


def test_signal_before_the_work() -> None:
    handling = interrupts.Interrupts()

    async def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
        return 7

    with pytest.raises(KeyboardInterrupt):
        handling.run(work())


def test_signal_before_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    run_loop = asyncio.run

    def run(work: Coroutine[Any, Any, int]) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return run_loop(work)

    async def work() -> int:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 7

    monkeypatch.setattr(asyncio, "run", run)
    with pytest.raises(KeyboardInterrupt):
        interrupts.Interrupts().run(work())


def test_the_handlers_of_before_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    async def work() -> int:
        return 7

    interrupts.Interrupts().run(work())
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def work() -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 7

    try:
        assert interrupts.Interrupts().run(work()) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def test_interrupted_list(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.fault("list", Fault.delay(60.0))
    with signalled(lambda: sandbox.count("list")):
        assert main(["list"]) == 130
    assert capsys.readouterr() == ("", "Interrupted.\n")


def test_interrupted_demo(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    stderr_write = progress.Display.on_event

    def heard(self: Any, event: Any) -> None:
        stderr_write(self, event)
        said.append(type(event).__name__)

    monkeypatch.setattr(progress.Display, "on_event", heard)
    with signalled(lambda: "RunStarted" in said):
        assert main(["demo", "--artifacts", str(tmp_path / "results")]) == 130
    out, err = capsys.readouterr()
    assert "running" in out
    assert err.endswith("The sandbox has stopped, and its runs with it.\n")


@pytest.mark.parametrize(
    ("terminal", "term", "live"),
    [(True, "xterm", True), (True, "dumb", False), (True, None, False), (False, "xterm", False)],
)
def test_what_a_terminal_is(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str | None, live: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", _Stream(terminal))
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert jobs.is_terminal() is live


class _Stream:
    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal
