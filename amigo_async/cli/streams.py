"""The standard streams, which may be closed, full, or unable to encode some characters."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def prepare_streams() -> None:
    """Make the standard streams usable, whatever state they were inherited in.

    Python sets a stream to None if its descriptor is closed. The next file or socket to be opened
    would get that descriptor, and with it what is written to the stream. So the null device is
    opened in its place, in the order in which descriptors are assigned.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            # Never closed, like the stream it replaces.
            stream = open(descriptor, mode, closefd=False, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a tick mark must not cost the line
        with suppress(OSError, ValueError):
            # Another process may have made it non-blocking, which would truncate long reports.
            os.set_blocking(stream.fileno(), True)


def stdout_is_closed() -> bool:
    """Return whether the command was started without a stdout."""
    return sys.__stdout__ is None


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """Write to stdout inside this context.

    After a failure, stdout is redirected to the null device: otherwise the rest of its buffer
    would fail again when the interpreter flushes it at exit, and change the exit code.

    Raises:
        BrokenPipeError: If the reader of stdout has closed it.
        OSError: If stdout cannot be written for another reason; its ``filename`` is ``stdout``.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        raise OSError(error.errno, error.strerror or str(error), "stdout") from error


def write(line: str | bytes | Iterable[bytes]) -> bool:
    """Write a line to stdout; return False if its reader has closed it, which is no error.

    Args:
        line: Text, or bytes for a format that has an encoding of its own. A longer output may come
            in pieces, with all of its line feeds.

    Raises:
        OSError: If stdout cannot be written for another reason.
    """
    try:
        with writing_to_stdout():
            if isinstance(line, str):
                print(line)
            else:
                for piece in [line + b"\n"] if isinstance(line, bytes) else line:
                    _write_bytes(piece)
    except BrokenPipeError:
        return False
    return True


def _write_bytes(data: bytes) -> None:
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # stdout has been replaced by a text stream
        sys.stdout.write(data.decode(errors="replace"))
        return
    sys.stdout.flush()
    left = memoryview(data)
    while left:  # unbuffered with python -u, when a write may be partial
        left = left[binary.write(left) :]


def drop_stdout() -> None:
    """Redirect stdout to the null device, with what is left in its buffer."""
    _drop(sys.stdout)


def note(text: str) -> bool:
    """Write a line to stderr; return False if that fails."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return False
    return True


def settle_streams() -> None:
    """Flush the streams, and drop what the interpreter would fail to write at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream)


def _drop(stream: IO[str]) -> None:
    with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
