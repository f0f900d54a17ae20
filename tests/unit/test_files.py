"""Files that others may have their hands in: opened without surprises, and locked."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from amigo_async.errors import ArgumentError
from amigo_async.files import (
    LockedError,
    check_path,
    close_locked,
    open_locked,
    open_regular,
)
from tests.support.processes import in_a_process

FLAGS = os.O_RDWR | os.O_CREAT


@pytest.mark.parametrize(
    "path", ["x", ".", "/", "a/b/", "x" * 255, "é", "\udc80", Path("a"), PurePosixPath("/b")]
)
def test_a_path_that_can_be_one(path: Any) -> None:
    assert check_path("where", path) == str(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is empty"),
        ("a\0b", "NUL"),
        (b"bytes", "not b'bytes'"),
        (SimpleNamespace(), "must be a path"),
        (None, "must be a path"),
        (7, "not 7"),
        ("\ud800", r"cannot encode: '\\ud800'"),
        ("a/" + "x" * 256, "too long.* 256 and 258"),
        ("é" * 128, "too long"),
        ("a/" * 2048, "too long"),
    ],
)
def test_bad_path_names_its_argument(path: Any, reason: str) -> None:
    with pytest.raises(ArgumentError, match=f"^where .*{reason}"):
        check_path("where", path)


@contextmanager
def planted(kind: str, path: Path) -> Iterator[None]:
    """Something else than a file, where a file is expected."""
    victim = path.with_name("victim")
    victim.write_text("precious")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling link":
            path.symlink_to(path.with_name("nowhere"))
        case "link to itself":
            path.symlink_to(path)
        case "FIFO":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
    yield
    assert victim.read_text() == "precious"
    assert not path.with_name("nowhere").exists()


@pytest.mark.parametrize("flags", [FLAGS, os.O_RDONLY, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("kind", ["link", "dangling link", "link to itself", "FIFO", "device"])
def test_nothing_is_opened_but_a_file(tmp_path: Path, kind: str, flags: int) -> None:
    path = tmp_path / "x"
    with planted(kind, path):
        for opens in (open_regular, open_locked):
            with pytest.raises(OSError, match=r"It is (a symbolic link|not a regular file)") as e:
                opens(path, flags)
            assert e.value.filename == str(path)
    assert not [fd for fd in range(3, 64) if _leads_to(fd, tmp_path)]


def test_link_is_followed_if_meant(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "y")
    (tmp_path / "y").write_text("text")
    fd = open_regular(tmp_path / "x", os.O_RDONLY, follow=True)
    assert os.read(fd, 9) == b"text"
    os.close(fd)
    (tmp_path / "y").unlink()
    os.mkfifo(tmp_path / "y")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "x", os.O_RDONLY, follow=True)


def _leads_to(fd: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(folder)
    except OSError:
        return False


def test_a_lock_holds_until_it_is_closed(tmp_path: Path) -> None:
    fd = open_locked(tmp_path / "x", FLAGS)
    with pytest.raises(LockedError):
        open_locked(tmp_path / "x", FLAGS)
    other = open_locked(tmp_path / "y", FLAGS)
    close_locked(fd)
    close_locked(open_locked(tmp_path / "x", FLAGS))
    close_locked(other)


OTHER = """
import os
from amigo_async.files import LockedError, open_locked
try:
    open_locked({path!r}, os.O_RDWR)
    print("free")
except LockedError:
    print("locked")
"""


def seen_by_another(path: Path) -> str:
    return in_a_process(OTHER.format(path=str(path))).strip()


def test_lock_keeps_processes_out(tmp_path: Path) -> None:
    fd = open_locked(tmp_path / "x", FLAGS)
    assert seen_by_another(tmp_path / "x") == "locked"
    close_locked(fd)
    assert seen_by_another(tmp_path / "x") == "free"


def test_forked_child_holds_no_lock(tmp_path: Path) -> None:
    """It lives on where the one that locked the file is gone, and may never have heard of it."""
    fd = open_locked(tmp_path / "x", FLAGS)
    os.write(fd, b"ours")
    reading, writing = os.pipe()
    waiting, waking = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(fd, b"of the child")  # a copy of the program may do so: it does no harm
            close_locked(open_locked(tmp_path / "child", FLAGS))
            os.write(writing, b"fine")
            os.read(waiting, 1)
            close_locked(open_locked(tmp_path / "x", FLAGS))  # it is as free as any other
            close_locked(fd)
            os.write(writing, b"well")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 4) == b"fine"
        assert seen_by_another(tmp_path / "x") == "locked"
        close_locked(fd)
        assert seen_by_another(tmp_path / "x") == "free"
        os.write(waking, b"!")
        assert os.read(reading, 4) == b"well"
        assert (tmp_path / "x").read_bytes() == b"ours"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for end in (reading, waiting, waking):
            os.close(end)


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL]
)
def test_lock_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def unsupported(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    fd = open_locked(tmp_path / "x", FLAGS)
    with pytest.raises(LockedError):
        open_locked(tmp_path / "x", FLAGS)
    close_locked(fd)
    close_locked(open_locked(tmp_path / "x", FLAGS))


def test_lock_that_fails_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        open_locked(tmp_path / "x", FLAGS)
    assert not [fd for fd in range(3, 64) if _leads_to(fd, tmp_path)]


WITHOUT_FCNTL = """
import asyncio, importlib, pkgutil, sys, tempfile
sys.modules["fcntl"] = None  # as on Windows: its import fails
import amigo_async
for module in pkgutil.walk_packages(amigo_async.__path__, "amigo_async."):
    if not module.name.endswith(("__main__", "dask")):  # distributed cannot do without
        importlib.import_module(module.name)
from amigo_async.testing import Sandbox, SetPlan

async def main(folder):
    async with Sandbox(plan=SetPlan(seconds=0.0, artifacts_after=0.0)) as sandbox:
        async with sandbox.client() as client:
            again = dict(artifacts_dir=folder, journal=f"{folder}/batch.jsonl")
            set_ids = sandbox.add_sets(2)
            assert (await client.run_many(set_ids, **again)).passed
            assert (await client.run_many(set_ids, **again)).passed
            assert len((await client.runs.list()).simulation_unit_test_set_runs) == 2

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
"""


def test_all_but_locks_without_fcntl() -> None:
    in_a_process(WITHOUT_FCNTL)


class FakeMsvcrt:
    """Locks as Windows has them: of bytes, and to be had once."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.locked: list[tuple[int, int, int]] = []
        self.busy = False

    def locking(self, fd: int, mode: int, count: int) -> None:
        if self.busy:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self.locked.append((os.lseek(fd, 0, os.SEEK_CUR), mode, count))


def test_lock_by_msvcrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = FakeMsvcrt()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    fd = open_locked(tmp_path / "x", FLAGS)
    assert windows.locked == [(2**31 - 2, FakeMsvcrt.LK_NBLCK, 1)]
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    close_locked(fd)
    windows.busy = True
    with pytest.raises(LockedError):
        open_locked(tmp_path / "x", FLAGS)
