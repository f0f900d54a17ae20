"""Files in folders that others may write to: opened without surprises, and locked.

The partial files of downloads and the journals of batches are opened here. Everything blocks
for as long as the file system does, and no longer: never on a FIFO, never on a lock.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any, Final

from amigo_async.errors import ArgumentError

# What a file system answers to an operation that it does not know, such as a hard link, a
# preallocation, a lock or an fsync on some network and FUSE file systems.
UNSUPPORTED: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
)
# Also where a file system that could lock has nobody to keep its locks, as NFS without lockd.
_NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
# What Windows answers where somebody else has the lock (msvcrt), and what the others do.
_BUSY = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})

# Some of them are unknown on Windows.
_FLAGS: Final = sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
# Where Windows locks a byte: locks are mandatory there, so not where one is read or written.
_LOCKED_BYTE: Final = 2**31 - 2

_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 4095


class LockedError(Exception):
    """Somebody else, in this process or another, has the file open."""


def check_path(argument: str, value: Any) -> str:
    """`value` as text, if a file or folder can have that name.

    Args:
        argument: The name of the argument it was given as.
        value: A ``str`` or an ``os.PathLike`` of one.

    Raises:
        ArgumentError: If no file can be called so, whatever the file system.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise ArgumentError(f"{argument} must be a path, as text or a Path, not {value!r:.80}")
    if not path:
        raise ArgumentError(f"{argument} is empty: give the name of a file or folder")
    if "\0" in path:
        raise ArgumentError(f"{argument} has a NUL character in it, which no path can have")
    try:
        names = os.fsencode(path)
    except UnicodeEncodeError:
        raise ArgumentError(
            f"{argument} has characters that the file system cannot encode: {path!a:.80}"
        ) from None
    longest = max(map(len, names.split(os.fsencode(os.sep))))
    if longest > _LONGEST_NAME or len(names) > _LONGEST_PATH:
        raise ArgumentError(
            f"{argument} is too long: a name has at most {_LONGEST_NAME} bytes, a path "
            f"{_LONGEST_PATH}; this one has {longest} and {len(names)}"
        )
    return path


def open_regular(
    path: str | os.PathLike[str], flags: int, mode: int = 0o666, *, follow: bool = False
) -> int:
    """Open a regular file, as ``os.open`` does, and nothing else: no FIFO, no device, no link.

    Args:
        path: Its name.
        flags: As for ``os.open``.
        mode: As for ``os.open``.
        follow: Whether `path` may be a link to a file, as where it is only read.

    Raises:
        OSError: If it cannot be opened, or is something else than a regular file.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS | (0 if follow else _NO_FOLLOW), mode)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow and Path(path).is_symlink():
            raise _refused(path, "is a symbolic link, which is not followed") from None
        if error.errno == errno.ENXIO:
            raise _refused(path, "is not a regular file") from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _refused(path, "is not a regular file")


def _refused(path: str | os.PathLike[str], reason: str) -> OSError:
    return OSError(errno.EINVAL, f"It {reason}", os.fspath(path))


# The descriptors with a lock, and the files (device, inode) they are of. Two of one process are
# kept apart by this, also where the file system or the platform has no locks.
_held: dict[int, tuple[int, int]] = {}
# A process must not fork between the opening and the noting of a file.
_mutex = threading.Lock()


def open_locked(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a regular file and lock it until it is closed with `close_locked`, or the process ends.

    Where the file system or the platform has no locks, other processes are not kept out.

    Raises:
        LockedError: If somebody else has locked it.
        OSError: As `open_regular`.
    """
    with _mutex:
        descriptor = open_regular(path, flags, mode)
        try:
            status = os.fstat(descriptor)
            file = (status.st_dev, status.st_ino)
            if file not in _held.values() and _lock(descriptor):
                _held[descriptor] = file
                return descriptor
        finally:
            if descriptor not in _held:
                os.close(descriptor)
    raise LockedError


def close_locked(descriptor: int) -> None:
    """Close a file of `open_locked`, which lets others lock it."""
    with _mutex:
        _held.pop(descriptor, None)
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file for this process; False if another one has."""
    try:
        _lock_as_the_platform_does(descriptor)
    except ImportError:
        return True  # a platform with neither, as WebAssembly
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _lock_as_the_platform_does(descriptor: int) -> None:
    """Lock a file, or raise at once.

    Imported where it is used: most of the package works where there is no such module.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        import msvcrt  # noqa: PLC0415

        windows: Any = msvcrt  # typeshed has its functions for Windows alone
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go_in_child() -> None:
    """After a fork, in the child: have no part in the locks of the parent.

    A lock belongs to the open file, which a fork shares: without this a worker of a pool that
    outlives its parent would keep what the parent had locked. The numbers stay taken, as code
    that was copied with the process may still use them.
    """
    if _held:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in _held:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
        _held.clear()
    _mutex.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch # not on Windows
    os.register_at_fork(
        before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_let_go_in_child
    )
