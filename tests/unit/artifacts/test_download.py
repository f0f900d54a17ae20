"""Where a download goes, and what the disk may say."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amigo_async.artifacts import partfile as part
from amigo_async.errors import (
    ArgumentError,
    ArtifactError,
    ArtifactsNotReadyError,
)
from amigo_async.events import ArtifactSaved, RequestRetried
from tests.unit.artifacts.artifact_files import (  # noqa: F401 # fixtures
    DATA,
    MULTIPART,
    NAME,
    names,
    no_file_left_open,
    small,
    stopped_at,
    store,
)
from tests.unit.artifacts.fake_store import SECRET, FakeStore, Room, Step

pytestmark = pytest.mark.anyio


async def test_into_a_folder(tmp_path: Path) -> None:
    room = Room(store())
    path = await room.artifacts.download("r1", tmp_path)
    assert path == tmp_path / NAME
    assert path.read_bytes() == DATA
    assert names(tmp_path) == [NAME]
    assert room.events[-1] == ArtifactSaved("r1", str(path), len(DATA))
    assert room.progress[-1] == (len(DATA), len(DATA))


async def test_into_a_folder_that_is_made(tmp_path: Path) -> None:
    path = await Room(store()).artifacts.download("r1", f"{tmp_path}/new/results/")
    assert path == tmp_path / "new" / "results" / NAME
    assert path.read_bytes() == DATA


async def test_to_a_file_name(tmp_path: Path) -> None:
    path = await Room(store()).artifacts.download("r1", tmp_path / "mine.bin")
    assert path == tmp_path / "mine.bin"
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("connections", [1, 4])
async def test_an_empty_artifact(tmp_path: Path, connections: int) -> None:
    room = Room(FakeStore(b""))
    path = await room.artifacts.download("r1", tmp_path, connections=connections)
    assert path.read_bytes() == b""
    assert names(tmp_path) == [NAME]
    assert not any(isinstance(event, RequestRetried) for event in room.events)  # nothing is wrong


@pytest.mark.parametrize(
    "destination", ["", "a\0b", b"bytes", 7, None, "\ud800", "x" * 256, "x/" * 2048]
)
async def test_invalid_destination(destination: Any) -> None:
    room = Room(store())
    with pytest.raises(ArgumentError, match="destination"):
        await room.artifacts.download("r1", destination)
    assert room.links == 0


@pytest.mark.parametrize("connections", [0, -1, 17])
async def test_invalid_connections(tmp_path: Path, connections: int) -> None:
    with pytest.raises(ArgumentError, match="connections"):
        await Room(store()).artifacts.download("r1", tmp_path, connections=connections)


async def test_no_artifacts_yet(tmp_path: Path) -> None:
    room = Room(store())
    room.errors = [ArtifactsNotReadyError(method="GET", path="/", status=400)]
    with pytest.raises(ArtifactsNotReadyError):
        await room.artifacts.download("r1", f"{tmp_path}/new/")
    assert names(tmp_path) == []


async def test_store_that_gives_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="404"):
        await Room(store(forever=Step(status=404))).artifacts.download("r1", tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("missing/file.zip", "No such file or directory"),
        ("file/x.zip", "Not a directory"),
        ("file/", "File exists"),
        ("x" * 255, "File name too long"),
    ],
)
async def test_unwritable_target(tmp_path: Path, destination: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ArtifactError, match=message) as caught:
        await Room(store()).artifacts.download("r1", f"{tmp_path}/{destination}")
    assert caught.value.run_id == "r1"
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert names(tmp_path) == ["file"]
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Root may write where the mode forbids it, so the flag "immutable" stands in for it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "there").write_bytes(b"mine")
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    chattr = shutil.which("chattr")
    if not chattr or subprocess.run([chattr, "+i", folder], check=False, stderr=-3).returncode:
        pytest.skip("root, and the file system of the temporary folder knows no immutable folders")
    yield folder
    subprocess.run([chattr, "-i", folder], check=True)


async def test_a_read_only_folder(read_only: Path) -> None:
    with pytest.raises(ArtifactError, match=r"folder/out put.zip.part: (Op|Perm)"):
        await Room(store()).artifacts.download("r1", read_only)
    assert names(read_only) == ["there"]


async def test_full_disk_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        await Room(store()).artifacts.download("r1", tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.usefixtures("small")
async def test_preallocated_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(part, "_ALLOCATED_AT_ONCE", 1500)
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, *span: taken.append(span))
    path = await Room(store()).artifacts.download("r1", tmp_path, connections=connections)
    assert path.read_bytes() == DATA
    assert taken == [(0, 1500), (1500, 1500), (3000, 1000)]


@pytest.mark.usefixtures("small")
async def test_full_disk_ends_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    room = Room(store(Step(gate=asyncio.Event())))  # never a byte
    with pytest.raises(ArtifactError, match="No space left on device"):
        await room.artifacts.download("r1", tmp_path)
    assert room.store.open_now == 0
    assert names(tmp_path) == []


async def test_no_room_for_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        await Room(store()).artifacts.download("r1", tmp_path)
    assert names(tmp_path) == []
    monkeypatch.undo()
    await stopped_at(Room(store()), tmp_path, 700)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        await Room(store()).artifacts.download("r1", tmp_path)
    monkeypatch.undo()
    room = Room(store())
    assert (await room.artifacts.download("r1", tmp_path)).read_bytes() == DATA
    assert room.store.ranges != [None]  # what was received before is there still
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
async def test_no_preallocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(fd: int, offset: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    path = await Room(store()).artifacts.download("r1", tmp_path)
    assert path.read_bytes() == DATA


@pytest.mark.usefixtures("small")
async def test_full_disk_keeps_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev = os.pwritev

    def full(fd: int, chunks: list[bytes], offset: int) -> int:
        if offset >= 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwritev(fd, chunks, offset)

    monkeypatch.setattr(os, "pwritev", full)
    room = Room(store())
    with pytest.raises(ArtifactError, match="No space left on device"):
        await room.artifacts.download("r1", tmp_path)
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.jsonl"]
    monkeypatch.setattr(os, "pwritev", pwritev)
    path = await room.artifacts.download("r1", tmp_path)
    assert path.read_bytes() == DATA
    assert room.store.ranges == [None, "bytes=1024-"]


def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    """The limit of a process on the size of its files stands in for a small disk."""
    code = (
        "import resource, signal, sys, asyncio, pathlib;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from tests.unit.artifacts.artifact_files import store;"
        "from tests.unit.artifacts.fake_store import Room;"
        "asyncio.run(Room(store()).artifacts.download('r1', pathlib.Path(sys.argv[1])))"
    )
    ran = subprocess.run(
        # Without bytecode, which would be cut short too, and break whatever is run next.
        [sys.executable, "-B", "-c", code, tmp_path],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "ArtifactError: artifact of run r1" in ran.stderr
    assert "File too large" in ran.stderr
    assert names(tmp_path) == []


async def test_partial_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:11], offset))
    monkeypatch.setattr(os, "pwritev", lambda fd, data, offset: pwrite(fd, data[0][:7], offset))
    path = await Room(store()).artifacts.download("r1", tmp_path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("there", [b"mine", DATA[::-1]])
async def test_existing_file_is_an_error(tmp_path: Path, there: bytes) -> None:
    target = tmp_path / NAME
    target.write_bytes(there)
    room = Room(store())
    with pytest.raises(ArtifactError, match="exists already, with other content"):
        await room.artifacts.download("r1", tmp_path)
    assert target.read_bytes() == there
    assert names(tmp_path) == [NAME]


async def test_existing_folder_or_link(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="exists already"):
        await Room(store()).artifacts.download("r1", tmp_path)
    assert names(tmp_path) == [NAME]
    other = tmp_path / "other"
    (other / NAME).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="exists already"):
        await Room(store()).artifacts.download("r1", other)


async def test_same_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / NAME
    target.write_bytes(DATA)
    before = target.stat()
    room = Room(store())
    assert await room.artifacts.download("r1", tmp_path) == target
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    assert room.events == [ArtifactSaved("r1", str(target), len(DATA), existed=True)]
    assert room.store.ranges == ["bytes=0-0"]
    assert room.store.given == []


@pytest.mark.parametrize("there", [DATA, DATA[::-1], DATA[:-1], DATA + b"!", b""])
async def test_existing_file_compared_by_bytes(tmp_path: Path, there: bytes) -> None:
    target = tmp_path / NAME
    target.write_bytes(there)
    room = Room(store(headers=MULTIPART))
    if there == DATA:
        assert await room.artifacts.download("r1", tmp_path) == target
        assert room.events == [ArtifactSaved("r1", str(target), len(DATA), existed=True)]
    else:
        with pytest.raises(ArtifactError, match="exists already, with other content"):
            await room.artifacts.download("r1", tmp_path)
        # Another size is enough to know.
        assert room.store.total == (len(DATA) if len(there) == len(DATA) else 0)
    assert target.read_bytes() == there
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("there", [DATA, DATA[::-1], DATA[:-1], b""])
async def test_compared_without_a_size(tmp_path: Path, there: bytes) -> None:
    (tmp_path / NAME).write_bytes(there)
    room = Room(store(forever=Step(whole=True, length="chunked"), headers=MULTIPART))
    if there == DATA:
        assert await room.artifacts.download("r1", tmp_path) == tmp_path / NAME
    else:
        with pytest.raises(ArtifactError, match="exists already, with other content"):
            await room.artifacts.download("r1", tmp_path)
    assert (tmp_path / NAME).read_bytes() == there


async def test_checksum_of_the_whole_is_enough(tmp_path: Path) -> None:
    digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    (tmp_path / NAME).write_bytes(DATA)
    room = Room(store(headers={**MULTIPART, "x-amz-checksum-sha256": digest}))
    await room.artifacts.download("r1", tmp_path)
    assert room.store.ranges == ["bytes=0-0", None]
    assert room.store.total == 0


@pytest.mark.parametrize("target", ["link", "FIFO", "link to a FIFO"])
async def test_no_trap_in_the_files_place(tmp_path: Path, target: str) -> None:
    path, room = tmp_path / NAME, Room(store())
    other = tmp_path / "other"
    match target:
        case "FIFO":
            os.mkfifo(path)
        case "link to a FIFO":
            os.mkfifo(other)
            path.symlink_to(other)
        case _:
            other.write_bytes(b"mine")
            path.symlink_to(other)
    with pytest.raises(ArtifactError, match="exists already, with other content"):
        await room.artifacts.download("r1", tmp_path)
    if target == "link":
        assert other.read_bytes() == b"mine"
        other.write_bytes(DATA)
        assert await room.artifacts.download("r1", tmp_path) == path


@pytest.mark.parametrize("suffix", [".part", ".part.jsonl", ".part.jsonl~"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
async def test_no_trap_beside_the_file(tmp_path: Path, suffix: str, kind: str) -> None:
    """In a folder that others may write to, while a download is interrupted."""
    room = Room(store())
    folder = tmp_path / "shared"
    folder.mkdir()
    await stopped_at(room, folder, 700)
    victim, path = tmp_path / "victim", folder / f"{NAME}{suffix}"
    victim.write_text("precious")
    path.unlink(missing_ok=True)
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "FIFO":
            os.mkfifo(path)
        case _:
            path.mkdir()
    if suffix == ".part" or kind == "folder":
        with pytest.raises(ArtifactError) as caught:
            await room.artifacts.download("r1", folder)
        assert str(path) in str(caught.value)
    else:
        saved = await room.artifacts.download("r1", folder)
        assert saved.read_bytes() == DATA
        assert not saved.is_symlink()
    assert victim.read_text() == "precious"
    assert names(tmp_path) == ["shared", "victim"]


async def test_file_that_appears_meanwhile(tmp_path: Path) -> None:
    room = Room(store())

    def listen(event: object) -> None:
        (tmp_path / NAME).write_bytes(b"mine")

    room.listener = listen
    with pytest.raises(ArtifactError, match=r"out put.zip exists already, with other content"):
        await room.artifacts.download("r1", tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"mine"


async def test_same_file_appears_meanwhile(tmp_path: Path) -> None:
    """As where another host downloads to a file system that has no locks."""
    room = Room(store(headers=MULTIPART))

    def listen(event: object) -> None:
        (tmp_path / NAME).write_bytes(DATA)

    room.listener = listen
    assert (await room.artifacts.download("r1", tmp_path)).read_bytes() == DATA
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EIO])
async def test_no_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def unsupported(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", unsupported)
    room = Room(store())
    if number == errno.EIO:
        with pytest.raises(ArtifactError, match="Input/output error"):
            await room.artifacts.download("r1", tmp_path)
        assert not (tmp_path / NAME).exists()
    else:
        assert (await room.artifacts.download("r1", tmp_path)).read_bytes() == DATA


async def test_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(source: object, target: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    room = Room(store())
    path = await room.artifacts.download("r1", tmp_path)
    assert path.read_bytes() == DATA
    assert names(tmp_path) == [NAME]
    path.unlink()

    def listen(event: object) -> None:
        path.write_bytes(b"mine")

    room.listener = listen
    with pytest.raises(ArtifactError, match="exists already, with other content"):
        await room.artifacts.download("r1", tmp_path)
    assert path.read_bytes() == b"mine"


async def test_disk_fails_at_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: object, target: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", broken)
    room = Room(store())
    with pytest.raises(ArtifactError, match="Input/output error"):
        await room.artifacts.download("r1", tmp_path)
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.jsonl"]
    monkeypatch.undo()
    assert (await room.artifacts.download("r1", tmp_path)).read_bytes() == DATA
    assert len(room.store.asked) == 1  # all of it was there


async def test_killed_after_publishing(
    tmp_path: Path,
) -> None:
    room = Room(store())
    target = await room.artifacts.download("r1", tmp_path)
    os.link(target, f"{target}.part")
    target.with_name(f"{NAME}.part.jsonl").write_text("{}\n")
    assert await room.artifacts.download("r1", tmp_path) == target
    assert names(tmp_path) == [NAME]
    # The finished file was moved away, so the other name is the same file as that one.
    os.link(target, f"{target}.part")
    moved = target.rename(tmp_path / "moved")
    room.store.content = DATA[::-1]
    await room.artifacts.download("r1", tmp_path)
    assert moved.read_bytes() == DATA
    assert target.read_bytes() == DATA[::-1]
    assert names(tmp_path) == ["moved", NAME]
