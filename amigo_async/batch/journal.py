"""The journal of a batch: a file of JSON lines from which an interrupted batch resumes.

One line is written before a run is started and one after each later step, so that the same call
with the same journal continues wherever the process stopped. Names and reasons that were read are
lines too. The journal holds no secrets: text of the service is redacted.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from amigo_async.artifacts import SavedFile
from amigo_async.cancellation import finish
from amigo_async.errors import JournalError
from amigo_async.escaping import encode_json
from amigo_async.files import LockedError, close_locked, open_locked
from amigo_async.models import EvaluationResult, Run
from amigo_async.names import Names, combined
from amigo_async.protocol.ranges import Checksum
from amigo_async.starting import Fence
from amigo_async.threads import in_thread
from amigo_async.verdicts.gate import Verdict

# Version of the format. Journals of older versions are read, and continued as they are.
_VERSION: Final = 2
# How every journal begins.
BEGINNING: Final = b'{"what":"journal",'

# How many bytes are read at once.
_PIECE: Final = 2**20


class JournalHeader(Struct, frozen=True, tag="journal", tag_field="what"):
    """The first line: the service, organization and user that the runs belong to."""

    base_url: str
    organization_id: str
    user_id: str | None = None  # unknown, or written by version 1
    version: int = _VERSION

    @property
    def owner(self) -> str:
        """The service and organization, for what is known of their sets."""
        return f"{self.base_url}/{self.organization_id}"


class StartIntended(Struct, frozen=True, tag="intent", tag_field="what"):
    """The create request is about to be sent; `fence` lists the runs that existed before."""

    unit_test_set_id: str
    at: datetime
    fence: Fence | None = None


class StartRefused(Struct, frozen=True, tag="refused", tag_field="what"):
    """The create request was refused: it started no run."""

    unit_test_set_id: str
    at: datetime


class Started(Struct, frozen=True, tag="started", tag_field="what"):
    """The id of the run is known; written again if the batch cancels it before its end is seen.

    No list shows that a run was cancelled; where its results are hidden, nothing else does.
    """

    unit_test_set_id: str
    run_id: str
    at: datetime
    attached: bool = False
    cancelled: bool = False


class Finished(Struct, frozen=True, tag="finished", tag_field="what"):
    """The run is completed; it may have ended long before `at` if it was not watched to its end."""

    unit_test_set_id: str
    verdict: Verdict
    run: Run
    at: datetime
    watched: bool = True


class Saved(Struct, frozen=True, tag="saved", tag_field="what"):
    """The artifacts were saved; size and checksum show later whether the file is unchanged."""

    unit_test_set_id: str
    path: str
    at: datetime
    size: int | None = None
    checksum: Checksum | None = None

    @property
    def file(self) -> SavedFile | None:
        """The file that was saved; None if an older version did not record size and checksum."""
        if self.size is None or self.checksum is None:
            return None
        return SavedFile(self.path, self.size, self.checksum)


class Described(Struct, frozen=True, tag="names", tag_field="what"):
    """Names were read; each name is in one line only."""

    names: Names


class Explained(Struct, frozen=True, tag="reasons", tag_field="what"):
    """Evaluations of the run were read."""

    unit_test_set_id: str
    run_id: str
    evaluations: list[EvaluationResult]


_Step = StartIntended | StartRefused | Started | Finished | Saved | Explained
JournalEntry = JournalHeader | Described | _Step


class JournaledSteps(Struct):
    """The latest steps of one set, as the journal has them; None for a step not taken yet.

    The evaluations that were read of its run are `explained`, by id; `earlier` are the ids of other
    runs that the batch has had of the set.
    """

    intent: StartIntended | None = None
    started: Started | None = None
    finished: Finished | None = None
    saved: Saved | None = None
    explained: dict[str, EvaluationResult] = {}
    earlier: set[str] = set()


@cache
def _decoder() -> msgspec.json.Decoder[JournalEntry]:
    """Build the decoder with the first journal that is read; few programs read one."""
    return msgspec.json.Decoder(JournalEntry)


class Journal:
    """A journal file, locked so that no other process can open it as a journal.

    Args:
        path: The file.
        header: The service, organization and user of the batch.

    Attributes:
        progress: What the journal held when it was opened, by set id.
        names: The names that it held.
    """

    def __init__(self, path: Path, header: JournalHeader) -> None:
        self.progress: dict[str, JournaledSteps] = {}
        self.names = Names()
        self._path = path
        self._header = header
        self._descriptor: int | None = None
        self._has_name = False
        self._lock = asyncio.Lock()

    def open(self) -> None:
        """Open, lock and read the file. Blocks."""
        try:
            with self._errors("opened"):
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
                self._descriptor = open_locked(self._path, flags, 0o644)
        except LockedError as error:
            raise JournalError(
                "is in use by another batch; give each batch its own journal",
                path=self._path,
                in_use=True,
            ) from error
        with self._errors("read"):
            lines = _whole_lines(self._descriptor, self._path)
            self.progress, self.names = parse(lines, self._header, self._path)
            state = os.fstat(self._descriptor)
            self._has_name = state.st_nlink > 0  # some file systems never count names
            if not state.st_size:
                self._append(self._header)

    def close(self) -> None:
        """Close and unlock the file. Blocks."""
        if self._descriptor is not None:
            close_locked(self._descriptor)
            self._descriptor = None

    async def write(self, line: JournalEntry) -> None:
        """Append a line; the operating system has it when this returns.

        Raises:
            JournalError: If the line cannot be written. Earlier lines stay readable.
        """
        await finish(self._write(line))

    async def _write(self, line: JournalEntry) -> None:
        async with self._lock:
            with self._errors("written"):
                await in_thread(self._append, line)

    def _append(self, line: JournalEntry) -> None:
        """Encode and append a line. Blocks: a run may be large, and many may end together."""
        try:
            data = encode_json(line).encode() + b"\n"
        except RecursionError as error:  # a run may contain arbitrary JSON
            raise JournalError("cannot be written: nested too deeply", path=self._path) from error
        self._check_name()
        _append(self._descriptor, data)

    def _check_name(self) -> None:
        """Check that the file can still be found; what is written otherwise is lost unnoticed."""
        if self._descriptor is None or not self._has_name:
            return
        if not os.fstat(self._descriptor).st_nlink:
            raise JournalError("was deleted or replaced while in use", path=self._path)

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot be {done}: {error.strerror}"
            raise JournalError(reason, path=self._path) from error


@asynccontextmanager
async def open_journal(
    path: str | os.PathLike[str], header: JournalHeader
) -> AsyncIterator[Journal]:
    """Open a journal, creating the file if it is missing.

    Args:
        path: The file.
        header: The service, organization and user of the batch.

    Raises:
        JournalError: If the file cannot be opened, is open in another batch, belongs to another
            user, organization or service, or has an unreadable line other than the last.
    """
    journal = Journal(Path(path), header)
    try:
        await in_thread(journal.open)
        yield journal
    finally:
        await finish(in_thread(journal.close))


def _whole_lines(descriptor: int, path: Path) -> Iterator[bytes]:
    """Yield all complete lines, and truncate a last line that was only partly written.

    Line by line: a journal may be so large that handling all of it at once takes much memory, and
    holds up every other thread.

    Raises:
        JournalError: If the file is not a journal; it is left unchanged.
    """
    # Not through a duplicate descriptor: a child forked meanwhile would inherit the lock with it.
    with os.fdopen(descriptor, "rb", _PIECE, closefd=False) as file:
        file.seek(0)
        if not BEGINNING.startswith(file.read(len(BEGINNING))):
            raise _not_one(1, path)
        file.seek(0)
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                os.ftruncate(descriptor, whole)
                return
            whole += len(line)
            yield line


def parse(
    lines: Iterable[bytes], header: JournalHeader, path: Path
) -> tuple[dict[str, JournaledSteps], Names]:
    """Read the lines of a journal into the progress of each set, by set id, and the names.

    Args:
        lines: Complete lines.
        header: The service, organization and user of the batch.
        path: The file, for error messages.

    Raises:
        JournalError: If a line cannot be read, or the journal does not belong to `header`.
    """
    progress: dict[str, JournaledSteps] = {}
    names = Names()
    decode = _decoder().decode
    for number, text in enumerate(lines, 1):
        try:
            line = decode(text)
        except (ValueError, RecursionError) as error:
            raise _not_one(number, path) from error
        if isinstance(line, JournalHeader):
            _check_owner(line, header, path)
        elif isinstance(line, Described):
            names = combined(names, line.names)
        else:
            _note(progress.setdefault(line.unit_test_set_id, JournaledSteps()), line)
    return progress, names


def _check_owner(line: JournalHeader, header: JournalHeader, path: Path) -> None:
    """Reject the journal of another user: a set in progress there would be run twice."""
    if line.version > _VERSION:
        raise JournalError("was written by a newer release; continue with that release", path=path)
    same = (line.base_url, line.organization_id) == (header.base_url, header.organization_id)
    # An unknown user may be the same.
    if same and (None in (line.user_id, header.user_id) or line.user_id == header.user_id):
        return
    user = "" if line.user_id is None else f"user {line.user_id} of "
    raise JournalError(
        f"belongs to {user}organization {line.organization_id} at {line.base_url}; continue with "
        "those credentials, or give another file",
        path=path,
    )


def _not_one(number: int, path: Path) -> JournalError:
    return JournalError(f"line {number} is not a line of a journal; give another file", path=path)


def _note(progress: JournaledSteps, line: _Step) -> None:
    """Update the progress of a set with a line; the start of another run voids earlier steps."""
    if isinstance(line, StartIntended):
        # Of several without a result the first counts: its run may only appear late.
        progress.intent = progress.intent or line
    elif isinstance(line, StartRefused):
        progress.intent = None
    elif isinstance(line, Started):
        progress.intent = None
        if progress.started is None or progress.started.run_id != line.run_id:
            if progress.started is not None:
                progress.earlier.add(progress.started.run_id)
            progress.finished = progress.saved = None
            progress.explained = {}
        progress.started = line
    elif isinstance(line, Finished):
        progress.finished = line
    elif isinstance(line, Explained):
        progress.explained |= {one.id: one for one in line.evaluations}
    else:
        progress.saved = line


def _append(descriptor: int | None, data: bytes) -> None:
    """Append all of `data`, or leave the file as it was."""
    if descriptor is None:
        raise OSError(errno.EBADF, "the journal is closed")
    size = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise
