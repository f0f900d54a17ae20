"""The journal of a batch: what was meant, started, finished and saved, a JSON line each.

A line is written before a run is started and after each step, so that the same call with the same
journal carries on wherever a process was stopped. It holds ids and states, and no secret:
what the service said of a run is redacted.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from amigo_async.artifacts import SavedFile
from amigo_async.batch.outcomes import Verdict
from amigo_async.cancellation import finish
from amigo_async.errors import JournalError
from amigo_async.escaping import encode_json
from amigo_async.files import LockedError, close_locked, open_locked
from amigo_async.models import Run
from amigo_async.protocol.ranges import Checksum
from amigo_async.starting import Fence
from amigo_async.threads import in_thread

# Of the format: journals of older versions are read, and carried on as they are.
_VERSION: Final = 2
_BEGINNING: Final = b'{"what":"journal",'


class Opened(Struct, frozen=True, tag="journal", tag_field="what"):
    """The first line: whose runs these are."""

    base_url: str
    organization_id: str
    user_id: str | None = None  # not known, or not noted by version 1
    version: int = _VERSION


class Intent(Struct, frozen=True, tag="intent", tag_field="what"):
    """A run of the set is about to be started; the fence is what was there before."""

    unit_test_set_id: str
    at: datetime
    fence: Fence | None = None


class Refused(Struct, frozen=True, tag="refused", tag_field="what"):
    """What was intended was refused: no run was started."""

    unit_test_set_id: str
    at: datetime


class Started(Struct, frozen=True, tag="started", tag_field="what"):
    """The id of the run is known."""

    unit_test_set_id: str
    run_id: str
    at: datetime
    attached: bool = False


class Finished(Struct, frozen=True, tag="finished", tag_field="what"):
    """The run is over."""

    unit_test_set_id: str
    verdict: Verdict
    run: Run
    at: datetime


class Saved(Struct, frozen=True, tag="saved", tag_field="what"):
    """The artifacts of the run are on disk; size and checksum tell whether they still are."""

    unit_test_set_id: str
    path: str
    at: datetime
    size: int | None = None
    checksum: Checksum | None = None

    @property
    def file(self) -> SavedFile | None:
        """The file; None where an older version did not note what it was."""
        if self.size is None or self.checksum is None:
            return None
        return SavedFile(self.path, self.size, self.checksum)


Line = Opened | Intent | Refused | Started | Finished | Saved


class Record(Struct):
    """What a journal says of one set."""

    intent: Intent | None = None
    started: Started | None = None
    finished: Finished | None = None
    saved: Saved | None = None


@cache
def _decoder() -> msgspec.json.Decoder[Line]:
    """Made when the first journal is read: few programs do."""
    return msgspec.json.Decoder(Line)


def _encode(line: Line) -> bytes:
    return encode_json(line).encode()


class Journal:
    """A journal, which no other process can open meanwhile.

    Args:
        path: Its file.
        opened: Whose runs it is for.

    Attributes:
        records: What it said when it was opened, by set.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        self.records: dict[str, Record] = {}
        self._path = path
        self._opened = opened
        self._descriptor: int | None = None
        self._lock = asyncio.Lock()

    def open(self) -> None:
        """Open the file, lock and read it; blocks."""
        try:
            with self._errors("opened"):
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
                self._descriptor = open_locked(self._path, flags, 0o644)
        except LockedError as error:
            raise JournalError(
                "is in use by another batch; give each batch a journal of its own",
                path=self._path,
                in_use=True,
            ) from error
        with self._errors("read"):
            content = _whole_lines(self._descriptor, self._path)
            if not content:
                _append(self._descriptor, _encode(self._opened) + b"\n")
        self.records = parse(content, self._opened, self._path)

    def close(self) -> None:
        """Close the file, which lets others open it; blocks."""
        if self._descriptor is not None:
            close_locked(self._descriptor)
            self._descriptor = None

    async def write(self, line: Line) -> None:
        """Append a line; it is handed to the system before this returns.

        Raises:
            JournalError: If it cannot be written. What was there before stays readable.
        """
        try:
            data = _encode(line) + b"\n"
        except RecursionError as error:  # a run can have JSON of any kind in it
            raise JournalError("cannot be written: nested too deeply", path=self._path) from error
        await finish(self._write(data))

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            with self._errors("written"):
                await in_thread(_append, self._descriptor, data)

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot be {done}: {error.strerror}"
            raise JournalError(reason, path=self._path) from error


@asynccontextmanager
async def open_journal(
    path: str | os.PathLike[str], *, base_url: str, organization_id: str, user_id: str | None = None
) -> AsyncIterator[Journal]:
    """Open a journal, or begin one.

    Args:
        path: Its file, made where there is none.
        base_url: The service the runs belong to.
        organization_id: The organization the runs belong to.
        user_id: The user who starts them; None if not known.

    Raises:
        JournalError: If it cannot be opened, another process has it open, it is of another
            user, organization or service, or a line other than the last cannot be read.
    """
    journal = Journal(Path(path), Opened(base_url, organization_id, user_id))
    try:
        await in_thread(journal.open)
        yield journal
    finally:
        await finish(in_thread(journal.close))


def _whole_lines(descriptor: int, path: Path) -> bytes:
    """Read all lines, and cut off a last one that was not written to its end.

    Raises:
        JournalError: If it is another file, which is left as it is.
    """
    # Not by a duplicate: a process that forks meanwhile would hand on the lock with it.
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        content = file.read(len(_BEGINNING))
        if not _BEGINNING.startswith(content):
            raise _not_one(1, path)
        content += file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.ftruncate(descriptor, len(whole))
    return whole


def parse(content: bytes, opened: Opened, path: Path) -> dict[str, Record]:
    """What whole lines say, by set.

    Raises:
        JournalError: If a line cannot be read, or the journal is not of `opened`.
    """
    records: dict[str, Record] = {}
    decode = _decoder().decode
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = decode(text)
        except (ValueError, RecursionError) as error:
            raise _not_one(number, path) from error
        if isinstance(line, Opened):
            _check_whose(line, opened, path)
        else:
            _note(records.setdefault(line.unit_test_set_id, Record()), line)
    return records


def _check_whose(line: Opened, opened: Opened, path: Path) -> None:
    """Refuse the journal of another user: a set that is under way there would be run twice."""
    if line.version > _VERSION:
        raise JournalError("is of a newer release; carry on with that one", path=path)
    same = (line.base_url, line.organization_id) == (opened.base_url, opened.organization_id)
    # An unknown user may be the same.
    if same and (None in (line.user_id, opened.user_id) or line.user_id == opened.user_id):
        return
    user = "" if line.user_id is None else f"user {line.user_id} of "
    raise JournalError(
        f"is of {user}organization {line.organization_id} at {line.base_url}; carry on as that "
        "one, or give another file",
        path=path,
    )


def _not_one(number: int, path: Path) -> JournalError:
    return JournalError(f"line {number} is not one of a journal; give another file", path=path)


def _note(record: Record, line: Intent | Refused | Started | Finished | Saved) -> None:
    """Take a line into a record; a later start makes what was before it void."""
    if isinstance(line, Intent):
        # Of several that led to nothing the first counts: its run may have been late.
        record.intent = record.intent or line
    elif isinstance(line, Refused):
        record.intent = None
    elif isinstance(line, Started):
        record.intent = None
        if record.started is None or record.started.run_id != line.run_id:
            record.finished = record.saved = None
        record.started = line
    elif isinstance(line, Finished):
        record.finished = line
    else:
        record.saved = line


def _append(descriptor: int | None, data: bytes) -> None:
    """Write all of `data`, or leave the file as it was."""
    if descriptor is None:
        raise OSError(errno.EBADF, "it is closed")
    size = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise
