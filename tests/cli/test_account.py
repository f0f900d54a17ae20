"""Who the command is: its settings, its sign-ins, and the tokens that it keeps."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from amigo_async.testing import Fault, Sandbox
from tests.cli.test_process import COMMAND, Process, environment
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    LASTING,
    Said,
    elsewhere,
    served,
    start,
)

BARE = [
    "Simulation:CreateSimulationUnitTestSetRun",
    "Simulation:GetSimulationUnitTestSetRun",
]


def kept() -> list[Path]:
    """The files with tokens."""
    return sorted(Path(os.environ["XDG_CACHE_HOME"]).glob("amigo-async/tokens/*.json"))


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> None:
    said = Said(capsys, "list", "--json", *options)
    assert (said.status, said.err) == (0, "")


# --- the token that is kept ---


def test_seven_commands_sign_in_once(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(7):
        listed(capsys)
    assert sandbox.count("sign_in") == 1
    [path] = kept()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sandbox.api_key not in path.read_text()
    assert not [other for other in path.parent.iterdir() if other.name.startswith(".")]


def test_commands_at_the_same_time_sign_in_once(sandbox: Sandbox, tmp_path: Path) -> None:
    commands = [
        subprocess.Popen(
            [*COMMAND, "list", "--json"],
            cwd=tmp_path,
            env=environment(sandbox),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    ended = [(command.communicate(timeout=60)[1], command.returncode) for command in commands]
    assert ended == [("", 0)] * 6
    assert sandbox.count("sign_in") == 1


def test_a_token_that_is_refused_is_renewed_once(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    listed(capsys)
    sandbox.expire_tokens()
    listed(capsys)
    listed(capsys)
    assert sandbox.count("sign_in") == 2


def test_a_token_that_expires_soon_is_renewed(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    listed(capsys)
    [path] = kept()
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"renew_at": content["renew_at"] - 3600}))
    listed(capsys)
    assert sandbox.count("sign_in") == 2
    assert sandbox.count("list", status=401) == 0


@pytest.mark.parametrize("variable", ["AMIGO_USER_ID", "AMIGO_ORGANIZATION_ID"])
def test_each_user_of_each_organization_has_a_token(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    listed(capsys)
    sandbox.add_user("user-2")
    sandbox.add_user(sandbox.user_id, organization_id="org-2")
    sandbox.add_api_key(sandbox.api_key_id, sandbox.api_key, organization_id="org-2")
    monkeypatch.setenv(variable, {"AMIGO_USER_ID": "user-2"}.get(variable, "org-2"))
    listed(capsys)
    listed(capsys)
    assert sandbox.count("sign_in") == len(kept()) == 2


@pytest.mark.parametrize("variable", ["", "1"])
def test_no_token_is_kept_if_unwanted(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv("AMIGO_NO_TOKEN_CACHE", variable)
    options = [] if variable else ["--no-token-cache"]
    for _ in range(2):
        listed(capsys, *options)
    assert sandbox.count("sign_in") == 2
    assert kept() == []


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff{")


def of_another(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "another"}))


def unsendable(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"token": "a\r\nb: c"}))


def readable(path: Path) -> None:
    path.chmod(0o644)


def linked(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 1, 1)


@pytest.mark.parametrize(
    "spoil", [garbage, of_another, unsendable, readable, linked, folder, foreign]
)
def test_a_file_that_cannot_be_trusted_costs_a_sign_in(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None]
) -> None:
    listed(capsys)
    spoil(kept()[0])
    listed(capsys)
    assert sandbox.count("sign_in") == 2
    assert sandbox.count("list", status=401) == 0
    if spoil is not folder:  # which is not ours to delete
        listed(capsys)
        assert sandbox.count("sign_in") == 2
        assert kept()[0].stat().st_mode & 0o777 == 0o600


def test_a_cache_that_cannot_be_written_is_no_error(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    listed(capsys)
    assert sandbox.count("sign_in") == 1


def test_a_full_disk_is_no_error(sandbox: Sandbox, tmp_path: Path) -> None:
    variables = environment(sandbox, PYTHONDONTWRITEBYTECODE="1")
    ended = subprocess.run(
        ["bash", "-c", 'ulimit -f 0; "$@"', "-", *COMMAND, "list", "--json"],
        cwd=tmp_path,
        env={name: v for name, v in variables.items() if not name.startswith("COVERAGE_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert kept() == []
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).glob("amigo-async/tokens/.*"))


def test_logout_deletes_the_tokens(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    listed(capsys)
    other = kept()[0].with_name("notes.json")
    other.touch()
    said = Said(capsys, "auth", "logout")
    assert (said.status, said.out, said.err) == (0, "1 token deleted\n", "")
    assert kept() == [other]
    assert Said(capsys, "auth", "logout").out == "No token is kept.\n"
    listed(capsys)
    assert sandbox.count("sign_in") == 2


def test_what_is_held_says_until_when(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.spend("sign_in", 5)
    with Process(sandbox, tmp_path, "list") as command:
        line = command.await_line("waiting for the rate limit")
    assert line.startswith("sign in: waiting for the rate limit of the organization, until ")
    assert "(in " in line


# --- settings from a file ---


def test_env_file_has_what_is_not_in_the_environment(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sandbox.environment() | {"AMIGO_USER_ID": "nobody"}
    lines = [f"export {name}='{value}'" for name, value in settings.items()]
    Path(".env").write_text("\n".join(["# ours", *lines]))
    for name in settings:
        if name != "AMIGO_USER_ID":
            monkeypatch.delenv(name)
    assert Said(capsys, "list").status == 2  # a .env is not read unasked
    listed(capsys, "--env-file", ".env")
    monkeypatch.delenv("AMIGO_USER_ID")
    said = Said(capsys, "list", "--env-file", ".env")
    assert (said.status, "User not found" in said.err) == (3, True)


def test_env_file_lacks_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    Path("some.env").write_text("AMIGO_API_KEY=hush-hush\nAMIGO_USER_ID=\nAMIGO_API_KEY_ID\n")
    said = Said(capsys, "list", "--env-file", "some.env")
    assert said.status == 2
    assert said.err.startswith(
        "Error: set AMIGO_ORGANIZATION_ID, AMIGO_API_KEY_ID, AMIGO_USER_ID, which some.env does "
        "not have; `amigo-async sandbox`"
    )
    assert "hush-hush" not in said.err
    assert Said(capsys, "list", "--env-file", "none.env").status == 2


def test_lines_of_an_env_file_that_cannot_be_read_are_named(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{name}={value}" for name, value in sandbox.environment().items()]
    Path("some.env").write_text(
        "\n".join(['{"hush": "hush"}', lines[0], "", '{"a": 1}', *lines[1:]])
    )
    for name in sandbox.environment():
        monkeypatch.delenv(name)
    said = Said(capsys, "list", "--env-file", "some.env")
    assert said.status == 0
    assert said.err == (
        "Note: some.env: lines 1, 4 cannot be read; a line is like NAME=VALUE.\nNo runs found.\n"
    )


# --- auth check ---


def test_check_says_who_and_what(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    start(sandbox, sandbox.add_set(AT_ONCE))
    said = Said(capsys, "auth", "check")
    assert (said.status, said.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in said.out.splitlines()]
    assert said.out.startswith(f"Signed in at {sandbox.base_url}\n")
    for pair in (
        ["organization", sandbox.organization_id],
        ["user", sandbox.user_id],
        ["runs", "allowed"],
        ["metrics", "allowed"],
        ["evaluations", "allowed"],
        ["artifacts", "allowed"],
    ):
        assert pair in lines, pair
    assert re.search(r"^  token            valid for (1 h|59 min)", said.out, re.MULTILINE)
    assert f"  api key          {sandbox.api_key_id}\n" in said.out
    assert sandbox.api_key not in said.out
    assert "list             4999 of 5000, all again in " in said.out
    assert sandbox.count("create") == 1  # that of the test
    assert sandbox.count("cancel") == 0


def test_check_signs_in_whatever_is_kept(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(capsys)
    assert Said(capsys, "auth", "check").status == 0
    assert sandbox.count("sign_in") == 2
    listed(capsys)
    assert sandbox.count("sign_in") == 2
    monkeypatch.setenv("AMIGO_API_KEY", "hush-hush")
    said = Said(capsys, "auth", "check")
    assert (said.status, said.out) == (3, "")
    assert "check AMIGO_API_KEY, AMIGO_API_KEY_ID and AMIGO_USER_ID [" in said.err
    assert "hush-hush" not in said.err


def test_check_names_the_missing_permissions(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    start(sandbox, sandbox.add_set(AT_ONCE))
    sandbox.add_user(sandbox.user_id, permissions=BARE)
    said = Said(capsys, "auth", "check")
    assert said.status == 0
    assert "runs             allowed\n" in said.out
    for permission in (
        "Simulation:GetSimulationUnitTestSet, which is needed to select sets by name",
        "Simulation:GetSimulationUnitTest, which is needed to see which unit tests",
        "Metric:GetMetric, which is needed to see names of metrics",
        "Metric:GetMetricEvaluationResult, which is needed to see why",
        "Organization:GetServiceHierarchicalStateMachine",
    ):
        assert permission in said.out, permission
    sandbox.add_user(sandbox.user_id, permissions=[])
    said = Said(capsys, "auth", "check")
    assert said.status == 0
    [line] = [line for line in said.out.splitlines() if line.startswith("  runs ")]
    assert "Simulation:GetSimulationUnitTestSetRun" in line


def test_check_without_any_run_or_with_trouble(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.fault("metrics", Fault.status(501))
    said = Said(capsys, "auth", "check")
    assert said.status == 0
    assert "metrics          could not be read: GET " in said.out
    assert "artifacts        unknown: no run is visible\n" in said.out


def test_check_sends_the_key_to_no_other_host(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host of the sandbox is none of Amigo's, so it has no other regions."""
    monkeypatch.setenv("AMIGO_ORGANIZATION_ID", "elsewhere")
    said = Said(capsys, "auth", "check")
    assert (said.status, said.out) == (3, "")
    assert said.err.count("\n") == 1
    assert "Organization elsewhere not found" in said.err
