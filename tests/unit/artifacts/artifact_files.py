"""What the tests of downloads share: an object, a store of it, and a look at the files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from amigo_async.artifacts import transfer
from tests.unit.artifacts.fake_store import FakeStore, Room, Step

DATA = random.Random(5).randbytes(4000)
NAME = "out put.zip"
MULTIPART = {"etag": '"0123-3"'}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_files() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(fd.readlink()))
        except FileNotFoundError:
            continue
    return found


@pytest.fixture(autouse=True)
def no_file_left_open(tmp_path: Path) -> Iterator[None]:
    """Whatever becomes of a download, its files are closed."""
    yield
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers and pieces as small as the objects of these tests."""
    monkeypatch.setattr(transfer, "PIECE", 500)
    monkeypatch.setattr(transfer, "_LARGEST_BUFFER", 100)


def store(*script: Step, **options: Any) -> FakeStore:
    return FakeStore(DATA, script, **{"chunk": 64, **options})


async def stopped_at(room: Room, target: Path, received: int, **options: Any) -> None:
    """Begin a download and cancel it when so many bytes have come."""
    with anyio.CancelScope() as scope:
        room.store.listener = lambda total: scope.cancel() if total >= received else None
        await room.artifacts.download("r1", target, **options)
    room.store.listener = None
