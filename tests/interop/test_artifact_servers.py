"""The same cases against servers nobody here wrote, in real time."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from amigo_async.artifacts import Artifacts, Policy, transfer
from amigo_async.errors import ArtifactChangedError, ArtifactError
from amigo_async.events import Event
from amigo_async.models import ArtifactsLink
from amigo_async.transport.store import Store
from tests.support.store_cases import (
    CASES,
    DATA,
    EMPTY,
    KEY,
    NAME,
    SIGNED,
    SIZE,
    Case,
    Served,
    spoil,
)
from tests.support.store_servers import STORES, Nginx

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A loop whose time is real, as it is for the servers."""
    return "asyncio", {"debug": True}


@pytest.fixture(scope="module", params=STORES)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    with STORES[request.param].serving(folder) as running:
        yield running


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with Nginx.serving(folder) as running:
        yield running


@asynccontextmanager
async def http(**options: Any) -> AsyncIterator[Store]:
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        yield Store(lambda: session, allow_http=True, **options)


def _ignore(event: Event) -> None:
    """Nobody listens."""


def same(path: Path, data: bytes) -> bool:
    """Compare without pytest, which would look at millions of bytes line by line."""
    return path.read_bytes() == data


class Links:
    """Gives links to one object; the first ones may have expired although they do not say so."""

    def __init__(
        self, served: Served, key: str = KEY, *, query: str = "", expired: int = 0
    ) -> None:
        self._served = served
        self._key = key
        self._query = query
        self._expired = expired
        self.given = 0

    async def __call__(self, run_id: str) -> ArtifactsLink:
        self.given += 1
        good = self.given > self._expired
        url = self._served.url(self._key, expires_in=3600 if good else -10)
        return ArtifactsLink(url + self._query, datetime.now(UTC) + timedelta(hours=1))


@asynccontextmanager
async def room(
    links: Links, *, emit: Callable[[Event], None] = _ignore, **options: float
) -> AsyncIterator[Artifacts]:
    async with http(**options) as store:
        yield Artifacts(
            open=store.open,
            link=links,
            server_now=lambda: datetime.now(UTC),
            emit=emit,
            policy=Policy(base_pause=0.01),
        )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Each case with each store that knows what it needs.
KNOWN = [
    pytest.param(name, case, id=f"{name}-{case.name}")
    for name, store in STORES.items()
    for case in CASES
    if case.needs <= store.features
]
THAT_CHECK_SIGNATURES = [name for name, store in STORES.items() if SIGNED in store.features]


@pytest.mark.parametrize(("served", "case"), KNOWN, indirect=["served"])
async def test_what_stores_have_in_common(served: Served, case: Case) -> None:
    async with http() as store:
        async with store.open(served.url(), {}) as response:
            etag = response.headers["etag"]
        url = spoil(case, served.url(case.key, expires_in=case.expires_in))
        headers = {name: value.format(etag=etag) for name, value in case.headers.items()}
        async with store.open(url, headers) as response:
            body = b""
            while more := await response.read():
                body += more
            assert response.status == case.status, body
            if case.span is not None:
                right = (DATA if case.key == KEY else b"")[slice(*case.span)]
                assert (len(body), body == right) == (len(right), True)
                assert response.headers["content-length"] == str(len(body))
                assert response.headers["last-modified"]
                assert (response.headers["etag"] == etag) == (case.key == KEY)
            if case.status in {206, 416} and case.content_range:
                assert response.headers["content-range"] == case.content_range
            if case.code is not None:
                assert f"<Code>{case.code}</Code>" in body.decode()


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("key", [KEY, EMPTY])
async def test_a_download(
    served: Served, tmp_path: Path, key: str, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE", 50_000)
    links = Links(served, key)
    async with room(links) as artifacts:
        path = await artifacts.download("r1", tmp_path, connections=connections)
    assert same(path, DATA if key == KEY else b"")
    assert path.name == (NAME if key == KEY else "empty.zip")
    assert names(tmp_path) == [path.name]
    assert links.given == 1


async def test_a_stream(served: Served) -> None:
    async with room(Links(served)) as artifacts, artifacts.stream("r1") as stream:
        assert stream.size == SIZE
        assert stream.etag is not None
        same_bytes = b"".join([chunk async for chunk in stream]) == DATA
        assert same_bytes


async def test_a_cancelled_download_goes_on(served: Served, tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with room(Links(served), emit=lambda _: scope.cancel()) as artifacts:
            await artifacts.download("r1", tmp_path)
    assert scope.cancelled_caught
    assert not (tmp_path / NAME).exists()
    async with room(Links(served)) as artifacts:
        path = await artifacts.download("r1", tmp_path)
    assert same(path, DATA)
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("served", THAT_CHECK_SIGNATURES, indirect=True)
async def test_expired_link_is_replaced(served: Served, tmp_path: Path) -> None:
    links = Links(served, expired=1)
    async with room(links) as artifacts:
        path = await artifacts.download("r1", tmp_path)
    assert same(path, DATA)
    assert links.given == 2


@pytest.mark.parametrize("served", THAT_CHECK_SIGNATURES, indirect=True)
async def test_only_expired_links(served: Served, tmp_path: Path) -> None:
    async with room(Links(served, expired=99)) as artifacts:
        with pytest.raises(ArtifactError, match="403 AccessDenied, and the same to a fresh link"):
            await artifacts.download("r1", tmp_path)
    assert names(tmp_path) == []


# --- nginx on bad days


async def test_cut_body_is_completed(nginx: Nginx, tmp_path: Path) -> None:
    """The file shrinks while it is served, so that nginx closes in the middle; then it is back."""
    data = random.Random(3).randbytes(3_000_000)
    file = nginx.put("cut.zip", data)
    times = file.stat()
    links = Links(nginx, "cut.zip", query="&after=200000&rate=2000000")

    async def shrink() -> None:
        while not (tmp_path / "cut.zip.part.jsonl").exists():
            await anyio.sleep(0.005)
        os.truncate(file, 250_000)
        while not nginx.asked():
            await anyio.sleep(0.005)
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        links._query = ""

    async with room(links) as artifacts, anyio.create_task_group() as group:
        group.start_soon(shrink)
        path = await artifacts.download("r1", tmp_path)
    assert same(path, data)
    (_, sent, _), *rest = nginx.asked()
    assert 0 < sent < len(data)
    assert [status for status, _, _ in rest].count(206) == 1


async def test_stalled_body_is_asked_again(nginx: Nginx, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(1_000_000)
    nginx.put("stall.zip", data)
    links = Links(nginx, "stall.zip", query="&after=300000&rate=1")
    async with room(links, read_timeout=0.3) as artifacts:
        path = await artifacts.download("r1", tmp_path)
    assert same(path, data)
    assert len(nginx.asked()) >= 3


async def test_a_slow_body_is_waited_for(nginx: Nginx, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(500_000)
    nginx.put("slow.zip", data)
    links = Links(nginx, "slow.zip", query="&rate=1000000")
    async with room(links, read_timeout=5) as artifacts:
        path = await artifacts.download("r1", tmp_path)
    assert same(path, data)
    assert nginx.asked() == [(200, len(data), "-")]


async def test_replaced_object_is_noticed(nginx: Nginx, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(2_000_000)
    file = nginx.put("new.zip", data)
    links = Links(nginx, "new.zip", query="&after=100000&rate=1")

    async def replace() -> None:
        while not (tmp_path / "new.zip.part.jsonl").exists():
            await anyio.sleep(0.005)
        fresh = nginx.put("fresh", data[::-1])
        os.utime(fresh, (1, 1))
        fresh.rename(file)

    async with (
        room(links, read_timeout=0.3) as artifacts,
        anyio.create_task_group() as group,
    ):
        group.start_soon(replace)
        with pytest.raises(ArtifactChangedError):
            await artifacts.download("r1", tmp_path)
    assert names(tmp_path) == ["nginx"]
