"""Where the command writes: text and bytes in order, and nowhere once nobody reads."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path

import pytest

from amigo_async.cli.streams import drop_stdout, settle_streams, write, writing_to_stdout


def test_bytes_follow_text_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert write("größer")
    sys.stdout.write("größer\n")
    assert write("größer".encode())
    assert written.getvalue() == 2 * b"gr\xf6\xdfer\n" + "größer\n".encode()


def test_partial_writes_are_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with python -u: a signal, or a disk that is nearly full, cuts a write short."""
    written = bytearray()

    class Slow(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: memoryview) -> int:  # type: ignore[override]  # as FileIO has it
            written.extend(data[:3])
            return min(3, len(data))

    class Text(io.StringIO):
        buffer = Slow()  # type: ignore[assignment]  # as python -u has it

    monkeypatch.setattr(sys, "stdout", Text())
    assert write(b"0123456789")
    assert written == b"0123456789\n"


def test_text_only_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert write("größer".encode())
    assert out.getvalue() == "größer\n"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_failed_stdout_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with pytest.raises(OSError, match="stdout") as caught, writing_to_stdout():
            sys.stdout.write("lost")
            raise OSError(number, "no more")
        assert caught.value.errno == number
        assert write("lost as well")
    assert path.read_text() == ""


def test_reader_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Gone())
    assert not write("x")


def test_nothing_left_to_flush(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as out, (tmp_path / "err").open("w") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        print("x")  # noqa: T201
        print("y", file=sys.stderr)  # noqa: T201
        settle_streams()
        settle_streams()
    assert (tmp_path / "err").read_text() == "y\n"


def test_what_is_dropped_goes_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        drop_stdout()
        sys.stdout.write("lost")
    assert path.read_text() == ""
