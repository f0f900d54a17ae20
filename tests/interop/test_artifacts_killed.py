"""Processes killed in the middle of a download, and a watcher that no one sees half a file."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.store_servers import Nginx

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A loop whose time is real, as it is for the servers."""
    return "asyncio", {"debug": True}


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with Nginx.serving(folder) as running:
        yield running


def same(path: Path, data: bytes) -> bool:
    """Compare without pytest, which would look at millions of bytes line by line."""
    return path.read_bytes() == data


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


ROOT = Path(__file__).parents[2]

CHILD = """
import asyncio, datetime, sys
import aiohttp
from amigo_async.artifacts import Artifacts, transfer
from amigo_async.models import ArtifactsLink
from amigo_async.transport.store import Store

transfer._LARGEST_BUFFER = 64 * 1024
url, target, connections = sys.argv[1:]
def now():
    return datetime.datetime.now(datetime.UTC)

def tell(event):
    print("something came", flush=True)

async def link(run_id):
    return ArtifactsLink(url, now() + datetime.timedelta(hours=1))

async def main():
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        store = Store(lambda: session, allow_http=True)
        artifacts = Artifacts(open=store.open, link=link, server_now=now, emit=tell)
        print("ready", flush=True)
        await artifacts.download("r1", target, connections=int(connections))

asyncio.run(main())
"""


class Watcher(threading.Thread):
    """Looks at a file all the time: if it is there, it must be whole."""

    def __init__(self, path: Path, digest: str) -> None:
        super().__init__()
        self._path = path
        self._digest = digest
        self._over = threading.Event()
        self.looks = 0
        self.seen: list[bool] = []

    def run(self) -> None:
        while not self._over.wait(0.001):
            self.looks += 1
            if self._path.exists() and len(self.seen) < 3:
                content = hashlib.sha256(self._path.read_bytes()).hexdigest()
                self.seen.append(content == self._digest)

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.parametrize("connections", [1, 3])
async def test_killed_and_resumed(nginx: Nginx, tmp_path: Path, connections: int) -> None:
    """Twenty times in all: no byte is fetched twice beyond what was in memory."""
    kills, size = 10, 6_000_000
    data = random.Random(4).randbytes(size)
    nginx.put("kill.zip", data)
    dice = random.Random(connections)
    target = tmp_path / "kill.zip"
    watcher = Watcher(target, hashlib.sha256(data).hexdigest())
    watcher.start()
    url = f"{nginx.url('kill.zip')}&rate={1_000_000 // connections}"
    command = [sys.executable, "-c", CHILD, url, str(target), str(connections)]
    killed = 0
    try:
        for attempt in range(kills + 1):
            child = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
            if attempt < kills:
                if attempt % 2:  # at a moment when it has begun, however busy the machine is
                    assert await child.stdout.readline() == b"something came\n"
                await anyio.sleep(dice.uniform(0, 0.12))
                child.send_signal(signal.SIGKILL)
            _, error = await child.communicate()
            killed += child.returncode == -signal.SIGKILL
            assert child.returncode in {0, -signal.SIGKILL}, error.decode()
    finally:
        watcher.stop()
    assert killed == kills
    assert same(target, data)
    assert names(tmp_path) == ["kill.zip", "nginx"]
    assert watcher.seen
    assert all(watcher.seen)
    sent = sum(count for _, count, _ in nginx.asked())
    # Two buffers of a connection, and what the system and aiohttp held of it.
    assert sent <= size + kills * connections * (2 * 64 * 1024 + 512 * 1024)
    assert any(asked.startswith("bytes=") for _, _, asked in nginx.asked())
