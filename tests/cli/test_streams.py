"""The command with streams that are closed, full, or of another encoding, and in odd places."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from amigo_async.testing import Sandbox, SetPlan
from tests.cli.test_process import COMMAND, LASTING, Process, environment

AT_ONCE = SetPlan(seconds=0.0, artifacts_after=0.0)
FULL = Path("/dev/full")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits={"list": 5_000}).in_thread() as served:
        yield served


def in_a_shell(
    sandbox: Sandbox | None, tmp_path: Path, line: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of a shell, in which ``amigo-async`` is the command."""
    return subprocess.run(
        ["bash", "-c", re.sub(r"(?<![\w/-])amigo-async(?= )", lambda _: shlex.join(COMMAND), line)],
        cwd=tmp_path,
        env=environment(sandbox, **variables),
        capture_output=True,
        timeout=40,
        check=False,
    )


def test_closed_stdin_is_named(tmp_path: Path) -> None:
    ended = in_a_shell(None, tmp_path, "amigo-async report - <&-")
    assert ended.returncode == 2
    assert b"Error: <stdin> is not a result" in ended.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_harm_nothing(sandbox: Sandbox, tmp_path: Path, closed: str) -> None:
    """Nor does a file that is opened later take their place and get what is said."""
    options = "--json r.json --journal j --artifacts got"
    line = f"amigo-async run {sandbox.add_set(AT_ONCE)} {options} {closed}"
    ended = in_a_shell(sandbox, tmp_path, line)
    assert ended.returncode == 0
    assert json.loads((tmp_path / "r.json").read_bytes())["passed"] is True
    for line in (tmp_path / "j").read_text().splitlines():
        json.loads(line)
    assert ("1 passed" in ended.stdout.decode()) is (">&-" not in closed.split())
    assert b"Traceback" not in ended.stderr


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("redirection", "status", "told"),
    [
        (">/dev/full", 0, b"Error: the summary on stdout was not written: No space left"),
        (">/dev/full 2>&1", 3, b""),
    ],
)
def test_a_full_disk_costs_no_report(
    sandbox: Sandbox, tmp_path: Path, redirection: str, status: int, told: bytes
) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    ended = in_a_shell(
        sandbox, tmp_path, f"amigo-async run {set_id} --junit a/r.xml --html r.html {redirection}"
    )
    assert ended.returncode == status
    assert told in ended.stderr
    ET.parse(tmp_path / "a" / "r.xml")
    assert (tmp_path / "r.html").stat().st_size


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("run {set} -q --json - >/dev/full", "the report on stdout (--json)"),
        ("run {set} -q --markdown /dev/full", "/dev/full"),
        ("wait {run} -q --json - >/dev/full", "the report on stdout (--json)"),
        ("report r.json >/dev/full", "the summary on stdout"),
        ("report r.json --json - >/dev/full", "the report on stdout (--json)"),
        ("history {set} >/dev/full", "the history on stdout"),
        ("compare --set {set} >/dev/full", "the comparison on stdout"),
        ("download {run} -q >/dev/full", "the list of paths"),
    ],
)
def test_what_was_asked_for_and_is_lost_is_an_error(
    sandbox: Sandbox, tmp_path: Path, arguments: str, what: str
) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    first = f"amigo-async run {set_id} -q --json r.json"
    assert in_a_shell(sandbox, tmp_path, f"{first} && {first}").returncode == 0
    line = arguments.format(set=set_id, run=sandbox.runs[0].id)
    ended = in_a_shell(sandbox, tmp_path, f"amigo-async {line}")
    assert f"Error: {what} was not written: No space left".encode() in ended.stderr
    assert ended.returncode == 3


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["list"])
def test_full_disk_fails_a_list(sandbox: Sandbox, tmp_path: Path, arguments: str) -> None:
    start(sandbox)
    ended = in_a_shell(sandbox, tmp_path, f"amigo-async {arguments} >/dev/full")
    assert (ended.returncode, ended.stderr) == (3, b"Error: stdout: No space left on device\n")


def start(sandbox: Sandbox) -> str:
    async def create() -> str:
        async with sandbox.client() as client:
            created = await client.runs.create(sandbox.add_set(AT_ONCE))
        return created.simulation_unit_test_set_run_id

    return asyncio.run(create())


@pytest.mark.parametrize("arguments", ["--help", "download -q {}"])
def test_departed_reader_is_no_error(sandbox: Sandbox, tmp_path: Path, arguments: str) -> None:
    line = f"set -o pipefail; amigo-async {arguments.format(start(sandbox))} | true"
    ended = in_a_shell(sandbox, tmp_path, line)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii"])
def test_formats_keep_their_encoding(sandbox: Sandbox, tmp_path: Path, encoding: str) -> None:
    folder = "Größe ✓"
    run_id = start(sandbox)
    line = f"amigo-async wait {run_id} --artifacts '{folder}' --junit - -q"
    ended = in_a_shell(sandbox, tmp_path, line, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0
    values = [each.get("value", "") for each in ET.fromstring(ended.stdout).iter("property")]
    assert any(value.startswith(f"{folder}/{run_id}/") for value in values)
    line = f"amigo-async download {run_id} --artifacts '{folder}' -q"
    ended = in_a_shell(sandbox, tmp_path, line, PYTHONIOENCODING=encoding)
    path = tmp_path / os.fsdecode(ended.stdout.removesuffix(b"\n"))
    assert path.read_bytes() == sandbox.artifact_bytes(run_id)


# --- files ---


def test_unwritable_file_is_told_early(sandbox: Sandbox, tmp_path: Path) -> None:
    """Of the file itself: a folder that can be written says nothing of it, and the other way."""
    plain = _without_root()
    old, mounted = tmp_path / "old.xml", tmp_path / "shut" / "r.xml"
    old.write_text("old")
    old.chmod(0o444)
    mounted.parent.mkdir()
    mounted.write_text("")
    mounted.parent.chmod(0o555)
    set_id = sandbox.add_set(AT_ONCE)
    try:
        refused = in_a_shell(sandbox, tmp_path, f"{plain} amigo-async run {set_id} --junit {old}")
        assert refused.returncode == 2
        assert refused.stderr.endswith(b"old.xml cannot be written: Permission denied\n")
        assert sandbox.requests == []
        assert old.read_text() == "old"
        took = in_a_shell(sandbox, tmp_path, f"{plain} amigo-async run {set_id} --junit {mounted}")
        assert took.returncode == 0
        ET.parse(mounted)
    finally:
        mounted.parent.chmod(0o755)


def _without_root() -> str:
    """What to put before a command so that permissions hold for it."""
    if os.geteuid():
        return ""
    if not shutil.which("setpriv"):
        pytest.skip("root cannot put its powers away here")
    lost = "-dac_override,-dac_read_search"
    return f"setpriv --inh-caps={lost} --bounding-set={lost}"


# --- the interpreter and the environment ---


@pytest.mark.parametrize("flags", ["-I -X dev -W error -bb"])
def test_flags_of_the_interpreter(sandbox: Sandbox, tmp_path: Path, flags: str) -> None:
    python = f"{shlex.quote(sys.executable)} {flags} -m amigo_async.cli"
    line = f"{python} run {sandbox.add_set(AT_ONCE)} --artifacts got --html r.html"
    ended = in_a_shell(sandbox, tmp_path, line, LC_ALL="C")
    assert ended.returncode == 0
    assert b"Warning" not in ended.stderr
    shown = in_a_shell(None, tmp_path, f"{python} run --help")
    assert b"0  all sets passed" in shown.stdout


def test_a_folder_that_was_deleted(sandbox: Sandbox, tmp_path: Path) -> None:
    line = f"mkdir d; cd d; rmdir ../d; amigo-async run {sandbox.add_set(AT_ONCE)} --junit"
    assert in_a_shell(sandbox, tmp_path, f"{line} {tmp_path}/r.xml").returncode == 0
    ended = in_a_shell(sandbox, tmp_path, f"{line} r.xml")
    assert ended.returncode == 2
    assert b"r.xml cannot be written: " in ended.stderr


def test_environment_proxies(tmp_path: Path) -> None:
    """Those that are named, and not for the hosts that are excepted."""
    asked: list[str] = []

    async def refuse(request: web.BaseRequest) -> web.Response:
        asked.append(request.headers["Host"])
        return web.Response(status=403)

    async def ask() -> list[int]:
        server = web.ServerRunner(web.Server(refuse))
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        proxy = f"http://127.0.0.1:{server.addresses[0][1]}"
        statuses = []
        for excepted in ("", "*"):
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                "list",
                env=environment(None, **VARIABLES, HTTP_PROXY=proxy, NO_PROXY=excepted),
                stderr=subprocess.PIPE,
            )
            await process.communicate()
            statuses.append(process.returncode or 0)
        await server.cleanup()
        return statuses

    assert asyncio.run(ask()) == [3, 3]
    assert asked == ["api.amigo.test"]


VARIABLES = {
    "AMIGO_BASE_URL": "http://api.amigo.test",
    "AMIGO_ORGANIZATION_ID": "org",
    "AMIGO_API_KEY": "key\n",
    "AMIGO_API_KEY_ID": "id",
    "AMIGO_USER_ID": "user",
}


def test_one_press_arriving_twice(sandbox: Sandbox, tmp_path: Path) -> None:
    ids = sandbox.add_sets(2, LASTING)
    with Process(
        sandbox, tmp_path, "run", *ids, "--on-exit", "cancel", "--junit", "r.xml"
    ) as command:
        command.await_line("started as run")
        command.await_line("started as run")
        command.process.send_signal(signal.SIGINT)
        command.process.send_signal(signal.SIGINT)
        status, out, _ = command.end()
    assert status == 130
    assert "2 cancelled in" in out
    assert all(run.cancelled for run in sandbox.runs)
    ET.parse(tmp_path / "r.xml")
