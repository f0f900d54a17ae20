"""A download that goes on where an earlier one stopped, and proves what it has."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from pathlib import Path

import pytest

from amigo_async.artifacts import record as record_module
from amigo_async.artifacts.partfile import Digest
from amigo_async.errors import (
    ArtifactChangedError,
    ArtifactError,
    ArtifactTruncatedError,
)
from amigo_async.protocol.ranges import Checksum
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


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("connections", [1, 3])
async def test_cancelled_download_is_resumed(tmp_path: Path, connections: int) -> None:
    room = Room(store())
    cut = Step(cut=700)
    room.store.script = [cut]
    await stopped_at(room, tmp_path, 700, connections=connections)
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.jsonl"]
    assert SECRET not in (tmp_path / f"{NAME}.part.jsonl").read_text()
    path = await room.artifacts.download("r1", tmp_path, connections=connections)
    assert path.read_bytes() == DATA
    handed = sorted(n for start, stop in room.store.given for n in range(start, stop))
    twice = len(handed) - len(set(handed))
    assert twice <= 64 * connections  # what a connection had given and nobody had taken yet
    assert names(tmp_path) == [NAME]


async def test_another_client_resumes(tmp_path: Path) -> None:
    failing = Room(store(Step(cut=1000), forever=Step(refuse=True)))
    with pytest.raises(ArtifactTruncatedError):
        await failing.artifacts.download("r1", tmp_path)
    room = Room(store())
    path = await room.artifacts.download("r1", tmp_path)
    assert path.read_bytes() == DATA
    assert room.store.ranges == ["bytes=1000-"]
    assert [asked.if_match for asked in room.store.asked] == [room.store.etag]
    assert room.progress[0][0] >= 1000


async def test_unknown_size_is_resumed(tmp_path: Path) -> None:
    failing = Room(store(Step(cut=1000, length="chunked"), forever=Step(refuse=True)))
    with pytest.raises(ArtifactTruncatedError):
        await failing.artifacts.download("r1", tmp_path)
    room = Room(store())
    assert (await room.artifacts.download("r1", tmp_path)).read_bytes() == DATA
    assert room.store.ranges == ["bytes=1000-"]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("length", ["chunked", "close"])
async def test_an_unknown_size(tmp_path: Path, length: str, connections: int) -> None:
    first = Step(length=length, whole=True)
    room = Room(store(first))
    path = await room.artifacts.download("r1", tmp_path, connections=connections)
    assert path.read_bytes() == DATA
    assert room.progress[-1][0] == len(DATA)


@pytest.mark.parametrize("connections", [1, 3])
async def test_changed_object_starts_over(tmp_path: Path, connections: int) -> None:
    failing = Room(store(Step(cut=1000), forever=Step(refuse=True)))
    with pytest.raises(ArtifactTruncatedError):
        await failing.artifacts.download("r1", tmp_path)
    room = Room(FakeStore(DATA[::-1], chunk=64))
    path = await room.artifacts.download("r1", tmp_path, connections=connections)
    assert path.read_bytes() == DATA[::-1]
    assert room.progress[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.usefixtures("small")
async def test_change_meanwhile_is_an_error(tmp_path: Path, connections: int) -> None:
    room = Room(store(Step(cut=200)))
    changed = False

    def listen(event: object) -> None:
        nonlocal changed
        changed = True
        room.store.content = DATA[::-1]

    room.listener = listen
    with pytest.raises(ArtifactChangedError):
        await room.artifacts.download("r1", tmp_path, connections=connections)
    assert changed
    assert names(tmp_path) == []
    room.listener = None
    path = await room.artifacts.download("r1", tmp_path, connections=connections)
    assert path.read_bytes() == DATA[::-1]


@pytest.mark.parametrize(
    "damage",
    [
        "another run",
        "no record",
        "not json",
        "another boot",
        "no head",
        "file too short",
        "nothing",
    ],
)
async def test_doubtful_leftovers_are_dropped(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Room(store(Step(cut=1000), forever=Step(refuse=True)))
    with pytest.raises(ArtifactTruncatedError):
        await failing.artifacts.download("r1", tmp_path / "x")
    record, file = tmp_path / "x.part.jsonl", tmp_path / "x.part"
    text = record.read_text()
    match damage:
        case "no record":
            record.unlink()
        case "not json":
            record.write_text("<html>")
        case "another boot":
            monkeypatch.setattr(record_module, "_BOOT_ID", tmp_path / "none")
        case "no head":
            record.write_text(text.split("\n", 1)[1])
        case "file too short":
            os.truncate(file, 500)
        case _:
            pass
    room = Room(store())
    await room.artifacts.download("r2" if damage == "another run" else "r1", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert room.store.ranges == ["bytes=1000-" if damage == "nothing" else None]


@pytest.mark.parametrize(
    "tail", ["[1000,12", "[1000,1200][", "[1500,1400]\n", "[3900,4001]\n", "x"]
)
async def test_torn_record_is_used_in_part(tmp_path: Path, tail: str) -> None:
    failing = Room(store(Step(cut=1000), forever=Step(refuse=True)))
    with pytest.raises(ArtifactTruncatedError):
        await failing.artifacts.download("r1", tmp_path / "x")
    with (tmp_path / "x.part.jsonl").open("a") as file:
        file.write(tail)
    room = Room(store())
    await room.artifacts.download("r1", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert room.store.ranges == ["bytes=1000-"]


async def test_ten_expired_links(tmp_path: Path) -> None:
    room = Room(store(forever=Step(cut=364)))
    room.store.expiring = True
    path = await room.artifacts.download("r1", tmp_path)
    assert path.read_bytes() == DATA
    assert room.links == 11


def base64_of(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


CHECKSUMS = {
    "x-amz-checksum-sha256": base64_of(hashlib.sha256(DATA).digest()),
    "x-amz-checksum-sha1": base64_of(hashlib.sha1(DATA, usedforsecurity=False).digest()),
    "x-amz-checksum-crc32": base64_of(zlib.crc32(DATA).to_bytes(4, "big")),
    "etag": f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"',
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("name", CHECKSUMS)
async def test_checksum_is_verified(tmp_path: Path, name: str, connections: int) -> None:
    right = {**MULTIPART, name: CHECKSUMS[name]}
    path = await Room(store(headers=right)).artifacts.download(
        "r1", tmp_path / "right", connections=connections
    )
    assert path.read_bytes() == DATA
    if connections > 1 and name != "etag":
        return  # a range does not carry the checksum of the whole
    wrong = FakeStore(DATA[:-1] + b"!", chunk=64, headers=right)
    with pytest.raises(ArtifactError, match="is not the one the store gives"):
        await Room(wrong).artifacts.download("r1", tmp_path / "wrong", connections=connections)
    assert names(tmp_path) == ["right"]


@pytest.mark.usefixtures("small")
async def test_checksum_after_a_resume(tmp_path: Path) -> None:
    headers = {**MULTIPART, "x-amz-checksum-sha256": CHECKSUMS["x-amz-checksum-sha256"]}
    failing = Room(store(Step(cut=1000), forever=Step(refuse=True), headers=headers))
    with pytest.raises(ArtifactTruncatedError):
        await failing.artifacts.download("r1", tmp_path / "x")
    with (tmp_path / "x.part").open("r+b") as file:
        file.write(b"!")
    with pytest.raises(ArtifactError, match="sha256"):
        await Room(store(headers=MULTIPART)).artifacts.download("r1", tmp_path / "x")
    assert names(tmp_path) == []


def test_digest_of_unordered_parts(tmp_path: Path) -> None:
    digest = Digest("crc32")
    digest.feed(0, [DATA[:50], DATA[50:100]])
    digest.feed(2000, [DATA[2000:]])
    assert digest.position == 100
    (tmp_path / "x").write_bytes(DATA)
    with (tmp_path / "x").open("rb") as file:
        assert not digest.step(file.fileno())
    assert digest.checksum == Checksum("crc32", f"{zlib.crc32(DATA):08x}")
