"""The standard streams, any of which may be closed, full, or without some characters."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def prepare_streams() -> None:
    """Make the standard streams usable, whatever state they were inherited in.

    Python has None for a stream whose descriptor was closed. Left free, that descriptor would be
    given to the next file or socket to be opened, which then receives what is meant for the
    stream; so the null device takes it, in the order in which descriptors are given out.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            # Not to be closed, as the one that it replaces would not be.
            stream = open(descriptor, mode, closefd=False, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an id is worth more than a tick mark
        with suppress(OSError, ValueError):
            # Whoever shares the file may have made it non-blocking: then a long report is cut.
            os.set_blocking(stream.fileno(), True)


def stdout_is_closed() -> bool:
    """Whether the command was started without a stdout."""
    return sys.__stdout__ is None


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """Write to stdout inside this context.

    After a failure stdout is the null device: what is left in its buffer would fail again when
    the interpreter flushes it at the end, and change the exit status.

    Raises:
        BrokenPipeError: If the reader of stdout has left.
        OSError: If stdout cannot be written for another reason; names it as the file.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        raise OSError(error.errno, error.strerror or str(error), "stdout") from error


def write(line: str | bytes) -> bool:
    """Write a line to stdout; False if its reader has left, which is no error.

    Args:
        line: Text in the encoding of stdout, or bytes for a format that has its own.

    Raises:
        OSError: If stdout cannot be written for another reason.
    """
    try:
        with writing_to_stdout():
            if isinstance(line, str):
                print(line)
            else:
                _write_bytes(line + b"\n")
    except BrokenPipeError:
        return False
    return True


def _write_bytes(data: bytes) -> None:
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a stream of text alone, in the place of stdout
        sys.stdout.write(data.decode(errors="replace"))
        return
    sys.stdout.flush()
    left = memoryview(data)
    while left:  # python -u has an unbuffered file here, which may write a part
        left = left[binary.write(left) :]


def drop_stdout() -> None:
    """Send what is written to stdout, and what is left in its buffer, to the null device."""
    _drop(sys.stdout)


def note(text: str) -> bool:
    """Write a line to stderr; False if it cannot be written."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return False
    return True


def settle_streams() -> None:
    """Leave nothing in the buffers that the interpreter would fail to write at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream)


def _drop(stream: IO[str]) -> None:
    with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
