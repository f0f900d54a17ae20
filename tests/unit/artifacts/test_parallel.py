"""Several connections for one file, and several downloads that want the same one."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async.artifacts import partfile
from amigo_async.artifacts import partfile as part
from amigo_async.errors import (
    ArtifactError,
)
from tests.unit.artifacts.artifact_files import (  # noqa: F401 # fixtures
    DATA,
    MULTIPART,
    NAME,
    names,
    no_file_left_open,
    open_files,
    small,
    store,
)
from tests.unit.artifacts.fake_store import FakeStore, Room, Step

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("small")
async def test_connections_share_the_ranges(tmp_path: Path) -> None:
    room = Room(store(headers=MULTIPART))
    path = await room.artifacts.download("r1", tmp_path, connections=3)
    assert path.read_bytes() == DATA
    # After the first, what is left is shared among the three.
    starts = [0, 500, 1667, 2834]
    expected = [f"bytes={a}-{b - 1}" for a, b in itertools.pairwise(starts)]
    assert room.store.ranges == [*expected, "bytes=2834-"]
    assert room.store.most_open == 3
    assert room.links == 1
    assert {asked.if_match for asked in room.store.asked[1:]} == {'"0123-3"'}


@pytest.mark.usefixtures("small")
async def test_slow_connection_gives_half_away(tmp_path: Path) -> None:
    gate = asyncio.Event()
    room = Room(store(Step(), Step(gate=gate, hold=64), headers=MULTIPART))
    # The slow one goes on when all but its half of the 1750 - 64 bytes is there.
    room.store.listener = lambda total: gate.set() if total >= len(DATA) - 843 else None
    path = await room.artifacts.download("r1", tmp_path, connections=2)
    assert path.read_bytes() == DATA
    assert room.store.ranges == ["bytes=0-499", "bytes=500-2249", "bytes=2250-", "bytes=1407-2249"]
    assert sum(stop - start for start, stop in room.store.given) < len(DATA) + room.store.chunk


@pytest.mark.usefixtures("small")
async def test_checksum_over_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    step = partfile.Digest.step

    def counted(self: partfile.Digest, fd: int) -> bool:
        nonlocal steps
        steps += 1
        return step(self, fd)

    monkeypatch.setattr(partfile, "_HASHED_AT_ONCE", 100)
    monkeypatch.setattr(partfile, "_BLOCK", 50)
    monkeypatch.setattr(partfile.Digest, "step", counted)
    room = Room(store())
    path = await room.artifacts.download("r1", tmp_path, connections=3)
    assert path.read_bytes() == DATA
    assert steps > 5


@pytest.mark.usefixtures("small")
async def test_few_pieces_few_connections(tmp_path: Path) -> None:
    room = Room(FakeStore(DATA[:700], chunk=64))
    await room.artifacts.download("r1", tmp_path, connections=8)
    assert len(room.store.asked) == 2


@pytest.mark.usefixtures("small")
async def test_no_ranges_one_connection(tmp_path: Path) -> None:
    room = Room(store(Step(whole=True)))
    path = await room.artifacts.download("r1", tmp_path, connections=3)
    assert path.read_bytes() == DATA
    assert room.store.ranges == ["bytes=0-499"]


@pytest.mark.usefixtures("small")
async def test_wrong_ranges(tmp_path: Path) -> None:
    """A store that always answers from the first byte costs more, and the file is whole."""
    room = Room(FakeStore(DATA, forever=Step(offset=0), headers=MULTIPART, chunk=64))
    path = await room.artifacts.download("r1", tmp_path, connections=3)
    assert path.read_bytes() == DATA
    assert room.store.ranges.count(None) == 3


@pytest.mark.usefixtures("small")
async def test_no_total_one_connection(tmp_path: Path) -> None:
    room = Room(store(Step(headers={"content-range": "bytes 0-499/*"})))
    path = await room.artifacts.download("r1", tmp_path, connections=3)
    assert path.read_bytes() == DATA
    assert room.store.ranges == ["bytes=0-499", "bytes=500-"]


@pytest.mark.usefixtures("small")
async def test_unrecognizable_object_is_not_split(tmp_path: Path) -> None:
    room = Room(store(headers={"etag": None, "last-modified": None}))
    path = await room.artifacts.download("r1", tmp_path, connections=3)
    assert path.read_bytes() == DATA
    assert room.store.ranges == ["bytes=0-499", None]


@pytest.mark.usefixtures("small")
async def test_one_failure_ends_the_others(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = [Step(), Step(gate=gate), Step(gate=gate), Step(status=410)]
    room = Room(store(*script))
    with pytest.raises(ArtifactError, match="410"):
        await room.artifacts.download("r1", tmp_path, connections=4)
    assert room.store.open_now == 0
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.jsonl"]


@pytest.mark.usefixtures("small")
async def test_breaks_and_expired_links(tmp_path: Path) -> None:
    steps = [Step(cut=90), Step(status=403), Step(), Step(end=3), Step(status=503), Step(cut=0)]
    room = Room(store(*steps, *steps, *steps))
    path = await room.artifacts.download("r1", tmp_path, connections=4)
    assert path.read_bytes() == DATA
    handed = [n for start, stop in room.store.given for n in range(start, stop)]
    assert sorted(handed) == list(range(len(DATA)))


@asynccontextmanager
async def under_way(room: Room, folder: Path, **options: Any) -> AsyncIterator[None]:
    """Another download, which has begun and gets no further meanwhile."""
    gate = asyncio.Event()
    room.store.script = [Step(gate=gate), Step(gate=gate)]
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: room.artifacts.download("r1", folder, **options))
        while not room.store.open_now:
            await anyio.sleep(0.01)
        yield
        gate.set()


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("headers", [{}, MULTIPART])
async def test_second_download_waits(
    tmp_path: Path, connections: int, headers: dict[str, str]
) -> None:
    other = Room(store(headers=headers))
    paths: list[Path] = []

    async def second() -> None:
        paths.append(await other.artifacts.download("r1", tmp_path))

    first = Room(store(headers=headers))
    async with (
        anyio.create_task_group() as group,
        under_way(first, tmp_path, connections=connections),
    ):
        group.start_soon(second)
        await anyio.sleep(100)
        assert other.store.asked == []
    assert paths == [tmp_path / NAME]
    assert names(tmp_path) == [NAME]
    assert paths[0].read_bytes() == DATA
    # Where there is no checksum to compare the file with, all of it is.
    assert other.store.total == (0 if not headers else len(DATA))


async def test_second_download_takes_over(tmp_path: Path) -> None:
    other = Room(store())
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with under_way(Room(store()), tmp_path):
                group.start_soon(lambda: other.artifacts.download("r1", tmp_path))
                await anyio.sleep(10)
                scope.cancel()
                await anyio.sleep(1)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert other.store.total == len(DATA)


async def test_stuck_download_is_not_awaited(tmp_path: Path) -> None:
    other = Room(store())
    async with under_way(Room(store()), tmp_path):
        began = anyio.current_time()
        with pytest.raises(ArtifactError, match="is being downloaded elsewhere") as caught:
            await other.artifacts.download("r1", tmp_path)
        assert 300 <= anyio.current_time() - began <= 303
        assert not caught.value.lasting
        assert other.store.asked == []
    assert (tmp_path / NAME).read_bytes() == DATA


async def test_advancing_download_is_awaited(tmp_path: Path) -> None:
    other = Room(store())
    async with anyio.create_task_group() as group, under_way(Room(store()), tmp_path):
        group.start_soon(lambda: other.artifacts.download("r1", tmp_path))
        for second in range(6):
            await anyio.sleep(200)
            os.utime(tmp_path / f"{NAME}.part", (second, second))
    assert (tmp_path / NAME).read_bytes() == DATA


def test_lock_is_on_the_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process finishes between the second one's opening and locking the file."""
    flock, calls = fcntl.flock, 0
    path = tmp_path / "x.part"

    def finished_meanwhile(fd: int, flags: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            path.unlink()
        if calls == 2:
            path.rename(tmp_path / "y")
            path.touch()
        flock(fd, flags)

    monkeypatch.setattr(fcntl, "flock", finished_meanwhile)
    file = part.PartialFile(tmp_path / "x", "r1")
    file.open()
    assert os.path.samestat(os.fstat(file.fd), path.stat())
    assert calls == 3
    file.close()
    file.close()
    assert names(tmp_path) == ["y"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
async def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(fd: int, flags: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    async with anyio.create_task_group() as group, under_way(Room(store()), tmp_path):
        group.start_soon(lambda: Room(store()).artifacts.download("r1", tmp_path))
        await anyio.sleep(1)
    assert (tmp_path / NAME).read_bytes() == DATA


def test_unstable_inode_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some make up the numbers of files anew each time they are asked."""
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)
    file = part.PartialFile(tmp_path / "x", "r1")
    file.open()
    assert file.is_open
    file.close()


def test_target_before_the_lock(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"mine")
    file = part.PartialFile(target, "r1")
    with pytest.raises(FileExistsError):
        file.open()
    file.close()
    assert names(tmp_path) == ["x"]
    (tmp_path / "x.part").write_bytes(b"half")
    file = part.PartialFile(target, "r1")
    with pytest.raises(FileExistsError):
        file.open()
    file.close()
    assert (tmp_path / "x.part").read_bytes() == b"half"


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.usefixtures("small")
async def test_cancelled_at_any_moment(tmp_path: Path, connections: int) -> None:
    """A plain cancel after every n-th step of the loop, then a download that goes through."""
    for steps in range(1, 60, 2):
        room = Room(store(chunk=16))
        folder = tmp_path / str(steps)
        folder.mkdir()
        task = asyncio.ensure_future(room.artifacts.download("r1", folder, connections=connections))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [name for name in open_files() if name.startswith(str(tmp_path))]
        assert room.store.open_now == 0
        # Towards the end it may be cancelled while the file is given its name.
        if (folder / NAME).exists():
            assert names(folder) == [NAME]
            assert (folder / NAME).read_bytes() == DATA
        path = await room.artifacts.download("r1", folder, connections=connections)
        assert path.read_bytes() == DATA


async def test_slow_line_is_flushed(tmp_path: Path) -> None:
    gate = asyncio.Event()
    room = Room(store(Step(gate=gate, hold=128), headers=MULTIPART))
    record = tmp_path / f"{NAME}.part.jsonl"

    def listen(event: object) -> None:
        if room.progress == [(64, len(DATA))]:
            asyncio.get_running_loop().skipped += 2  # type: ignore[attr-defined] # virtual time

    room.listener = listen
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: room.artifacts.download("r1", tmp_path))
        while not record.exists() or record.read_text().count("\n") < 2:
            await anyio.sleep(0.01)
        assert record.read_text().splitlines()[1:] == ["[0,64]"]
        gate.set()
    assert (tmp_path / NAME).read_bytes() == DATA


async def test_files_are_written_in_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: dict[str, set[threading.Thread]] = {}
    for name in ("pwritev", "link", "fsync", "posix_fallocate", "open", "ftruncate"):
        call = getattr(os, name)

        def spy(*args: Any, _name: str = name, _call: Any = call, **kwargs: Any) -> Any:
            used.setdefault(_name, set()).add(threading.current_thread())
            return _call(*args, **kwargs)

        monkeypatch.setattr(os, name, spy)
    await Room(store()).artifacts.download("r1", tmp_path)
    assert set(used) == {"pwritev", "link", "fsync", "posix_fallocate", "open", "ftruncate"}
    assert all(threading.main_thread() not in threads for threads in used.values())
