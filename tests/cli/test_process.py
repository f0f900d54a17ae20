"""The command as a process: signals, terminals, pipes and exit statuses."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from amigo_async.testing import Fault, Sandbox, SetPlan

COMMAND = [sys.executable, "-m", "amigo_async.cli"]
ROOT = Path(__file__).parents[2]
LASTING = SetPlan(seconds=600.0, cancel_after=0.0)
AT_ONCE = SetPlan(seconds=0.0, artifacts_after=0.0)

# Long before a start that is on the wire would be given up on Ctrl-C.
SOON = 5.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits={"list": 5_000}).in_thread() as served:
        yield served


def environment(sandbox: Sandbox | None, **more: str) -> dict[str, str]:
    hidden = ("AMIGO_", "GITHUB_", "COVERAGE_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        kept.pop(name, None)
    kept |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    kept["PYTHONPATH"] = str(ROOT)
    return kept | ({} if sandbox is None else sandbox.environment()) | more


class Process:
    """The command, with its stderr read line by line."""

    def __init__(self, sandbox: Sandbox | None, tmp_path: Path, *arguments: str) -> None:
        # Under nohup it would be ignored here, and so by the command.
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(sandbox),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGHUP, before)
        assert self.process.stderr is not None
        self.stderr = self.process.stderr

    def await_line(self, part: str) -> str:
        for line in self.stderr:
            if part in line:
                return line
        raise AssertionError(f"{part!r} was never said")

    def end(self, timeout: float = 20.0) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_one_signal_stops_tidily(sandbox: Sandbox, tmp_path: Path, number: signal.Signals) -> None:
    first, second = sandbox.add_sets(2, LASTING)
    with Process(sandbox, tmp_path, "run", first, second, "--json", "r.json") as command:
        command.await_line("started as run")
        command.await_line("started as run")
        command.process.send_signal(number)
        status, out, err = command.end()
    assert status == 130
    assert "Stopping; press" in err
    assert "2 running in" in out
    ids = " ".join(
        run.id for run in sorted(sandbox.runs, key=lambda r: r.unit_test_set_id != first)
    )
    assert err.endswith(f"2 runs continue on the service. To resume:\n  amigo-async wait {ids}\n")
    assert not any(run.cancelled for run in sandbox.runs)
    assert (tmp_path / "r.json").exists()


def insist(process: subprocess.Popen[Any]) -> None:
    """Press Ctrl-C until it has an effect; what follows at once is the same press."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)


def await_create(sandbox: Sandbox) -> None:
    """Wait until a create is on the wire: before that, there is nothing to stop tidily."""
    asked = threading.Event()
    while not sandbox.count("create"):
        asked.wait(0.02)


def test_two_signals_are_out_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("create", Fault.delay(60.0))
    with Process(sandbox, tmp_path, "run", sandbox.add_set(LASTING)) as command:
        await_create(sandbox)
        command.process.send_signal(signal.SIGINT)
        command.await_line("Stopping; press")
        insist(command.process)
        status, out, _ = command.end(SOON)
    assert (status, out) == (130, "")


def test_two_signals_still_list_the_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    ids = sandbox.add_sets(2, LASTING)
    # The request for cancelling keeps the command from ending after the first signal.
    sandbox.fault("cancel", Fault.delay(60.0), times=5)
    with Process(sandbox, tmp_path, "run", *ids, "--on-exit", "cancel") as command:
        command.await_line("started as run")
        command.await_line("started as run")
        command.process.send_signal(signal.SIGINT)
        command.await_line("Stopping; press")
        insist(command.process)
        status, _, err = command.end(SOON)
    assert status == 130
    assert "2 runs continue on the service. To resume:\n  amigo-async wait " in err
    assert set(err.split("amigo-async wait ")[1].split()) == {run.id for run in sandbox.runs}


INTERRUPTED_IMPORT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
class Finder:
    def find_spec(self, name, *_):
        if name == "amigo_async.client":
            print("importing", flush=True)
            signal.pause()
sys.meta_path.insert(0, Finder())
from amigo_async.cli import main
sys.exit(main())
"""


def test_a_signal_during_the_import_is_silent(tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_IMPORT],
        cwd=tmp_path,
        env=environment(None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "importing\n"
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=20) == ("", "")
    assert command.returncode == -signal.SIGINT  # which a shell reports as 130


@pytest.mark.parametrize("module", ["amigo_async", "amigo_async.cli"])
def test_the_package_runs_the_command(tmp_path: Path, module: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, "list"],
        cwd=tmp_path,
        env=environment(None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: set AMIGO_ORGANIZATION_ID, ")


def test_the_entry_point_runs_the_command(tmp_path: Path) -> None:
    code = "import sys; from amigo_async.cli import main; sys.exit(main())"
    command = subprocess.run(
        [sys.executable, "-c", code, "show", "short"],
        cwd=tmp_path,
        env=environment(None),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert command.returncode == 2
    assert "'short' is not the id of a run; amigo-async list --ids shows" in command.stderr


def free_port() -> int:
    """A free port below those that systems hand out, one of which a test beside may get."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def test_sandbox_serves_where_it_is_told(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["sandbox", "--port", str(port), "--host", "localhost", "--sets", "2"]
    with Process(None, tmp_path, *arguments, "--seconds", "0.001") as served:
        served.await_line(f"Serving at http://127.0.0.1:{port};")
        other = subprocess.run(
            [*COMMAND, "sandbox", "--port", str(port)],
            env=environment(None),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert other.returncode == 3
        assert "address already in use" in other.stderr
        assert other.stderr.count("\n") == 1


def test_sandbox_serves_until_stopped(tmp_path: Path) -> None:
    with Process(None, tmp_path, "sandbox", "--sets", "3", "--seconds", "0.001") as served:
        served.await_line("Serving at http://127.0.0.1:")
        assert served.process.stdout is not None
        exported = [served.process.stdout.readline() for _ in range(6)]
        found = [re.fullmatch(r"export (AMIGO_\w+)='?([^']+)'?\n", one) for one in exported]
        variables = {match[1]: match[2] for match in found if match is not None}
        assert len(variables) == 6
        sets = variables["AMIGO_SANDBOX_SETS"].split()
        command = subprocess.run(
            [*COMMAND, "run", "-q", variables["AMIGO_SANDBOX_SETS"]],  # as in zsh
            env=environment(None, **variables),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (len(sets), command.returncode, command.stderr) == (3, 1, "")
        assert "2 passed, 1 failed" in command.stdout
        named = subprocess.run(
            [*COMMAND, "run", "--dry-run", "Refund policy", "--tag", "suite:nightly"],
            env=environment(None, **variables),
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert re.findall(r"[0-9a-f]{24}", named.stdout) == [sets[0], sets[2]]
        served.process.send_signal(signal.SIGINT)
        assert served.end() == (0, "", "")


def test_a_reader_that_leaves_is_no_error(sandbox: Sandbox, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = subprocess.run(
        [*COMMAND, "list", "--json", "--set", sandbox.add_set(AT_ONCE)],
        cwd=tmp_path,
        env=environment(sandbox, PYTHONUNBUFFERED="1"),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        check=False,
    )
    os.close(writing)
    assert (command.returncode, command.stderr) == (0, "")


def test_a_stderr_that_is_gone_harms_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = subprocess.run(
        [*COMMAND, "run", sandbox.add_set(AT_ONCE), "--artifacts", "got"],
        cwd=tmp_path,
        env=environment(sandbox),
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        timeout=20,
        check=False,
    )
    os.close(writing)
    assert command.returncode == 0
    assert command.stdout.endswith("1 artifact in got\n")


class Terminal:
    """The command with stderr on a terminal of 80 columns and 24 lines."""

    def __init__(self, sandbox: Sandbox, *arguments: str, **variables: str) -> None:
        self.text = ""
        self._main, self._sub = pty.openpty()
        os.set_blocking(self._main, True)
        size: dict[str, str] = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(sandbox, **(size | variables)),
            stdout=subprocess.DEVNULL,
            stderr=self._sub,
        )
        os.close(self._sub)

    def read_until(self, part: str) -> None:
        while part not in self.text:
            self.text += self._read()

    def end(self, timeout: float = 20.0) -> int:
        try:
            while True:
                self.text += self._read()
        except OSError:  # its other end is closed
            return self.process.wait(timeout)

    def _read(self) -> str:
        return os.read(self._main, 65536).decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


HIDE, SHOW, UP = "\x1b[?25l", "\x1b[?25h", "\x1b[1A"
COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])[;m]")


def test_on_a_terminal_the_display_is_live(sandbox: Sandbox) -> None:
    ids = [sandbox.add_set(AT_ONCE), sandbox.add_set(LASTING)]
    with Terminal(sandbox, "run", *ids) as terminal:
        terminal.read_until("✓ 1")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert HIDE in terminal.text
    assert UP in terminal.text
    assert COLOR.search(terminal.text)
    assert "started as run" not in terminal.text
    assert terminal.text.rindex(SHOW) > terminal.text.rindex(HIDE)
    assert terminal.text.rindex("To resume:") > terminal.text.rindex(UP)


def test_two_signals_restore_the_terminal(sandbox: Sandbox) -> None:
    sandbox.fault("create", Fault.delay(60.0), times=5)
    with Terminal(sandbox, "run", sandbox.add_set(LASTING)) as terminal:
        await_create(sandbox)
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("Stopping; press")
        insist(terminal.process)
        assert terminal.end(SOON) == 130
    assert terminal.text.rindex(SHOW) > terminal.text.rindex(HIDE)


def test_terminal_without_a_cursor(sandbox: Sandbox) -> None:
    with Terminal(sandbox, "run", sandbox.add_set(AT_ONCE), TERM="dumb") as terminal:
        assert terminal.end() == 0
    assert not COLOR.search(terminal.text)
    assert UP not in terminal.text
    assert "started as run" in terminal.text
