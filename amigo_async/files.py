"""Open and lock regular files in folders that others may write to.

Partial downloads, journals and cached tokens are opened here. Functions block only as long as the
file system does: never on a FIFO, never on a lock.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any, Final

from amigo_async.errors import ArgumentError

# Errors for operations that a file system does not support, such as hard links, preallocation,
# locks or fsync on some network and FUSE file systems.
UNSUPPORTED: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
)
# The same for locks, including file systems that lack their lock service, as NFS without lockd.
_NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
# Errors for a file that is already locked, on Windows (msvcrt) and elsewhere.
_BUSY = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})

# Some of these do not exist on Windows.
_FLAGS: Final = sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
# The byte that is locked on Windows, where locks are mandatory: one that is never read or written.
_LOCKED_BYTE: Final = 2**31 - 2

_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 4095


class LockedError(Exception):
    """The file is locked, by this process or another."""


def check_path(argument: str, value: Any) -> str:
    """Return `value` as text if it is a valid path.

    Args:
        argument: Name of the argument, for error messages.
        value: A ``str``, or an ``os.PathLike`` of one.

    Raises:
        ArgumentError: If no file system can have such a path.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise ArgumentError(f"{argument} must be a path, as str or Path, not {value!r:.80}")
    if not path:
        raise ArgumentError(f"{argument} is empty: give the path of a file or folder")
    if "\0" in path:
        raise ArgumentError(f"{argument} has a NUL character, which no path can have")
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
    """Open a regular file with ``os.open``; refuse FIFOs, devices and symbolic links.

    Args:
        path: Path of the file.
        flags: Flags for ``os.open``.
        mode: Permissions of a new file, for ``os.open``.
        follow: Whether `path` may be a symbolic link to a file, as when it is only read.

    Returns:
        The file descriptor.

    Raises:
        OSError: If the file cannot be opened, or is not a regular file.
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


# The locked descriptors with their files (device, inode). This keeps two openers in one process
# apart, even if the file system or the platform has no locks.
_held: dict[int, tuple[int, int]] = {}
# Held while a file is opened and added to `_held`, so that no fork happens in between.
_mutex = threading.Lock()


def open_locked(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a regular file and lock it until `close_locked` is called or the process ends.

    If the file system or the platform has no locks, the file is only locked within this process.

    Args:
        path: Path of the file.
        flags: Flags for ``os.open``.
        mode: Permissions of a new file, for ``os.open``.

    Returns:
        The file descriptor.

    Raises:
        LockedError: If the file is already locked.
        OSError: If the file cannot be opened, or is not a regular file.
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
    """Close and unlock a file that `open_locked` has opened."""
    with _mutex:
        _held.pop(descriptor, None)
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file for this process; return False if another process has locked it."""
    try:
        _lock_as_the_platform_does(descriptor)
    except ImportError:
        return True  # neither module exists, as on WebAssembly
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _lock_as_the_platform_does(descriptor: int) -> None:
    """Lock a file, or raise at once.

    The modules are imported here because the rest of the package works without them.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        import msvcrt  # noqa: PLC0415

        windows: Any = msvcrt  # typeshed defines its functions for Windows only
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go_in_child() -> None:
    """After a fork, in the child: give up the locks of the parent.

    A lock belongs to the open file, which a fork shares. Without this, a worker process that
    outlives its parent would keep the parent's files locked. The descriptor numbers stay in use,
    because code that was copied with the process may still refer to them.
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
