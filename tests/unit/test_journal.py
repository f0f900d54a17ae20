"""The journal survives being cut off anywhere, and refuses what it cannot be sure of."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amigo_async.batch.journal import (
    Described,
    Explained,
    Finished,
    Journal,
    JournaledSteps,
    JournalEntry,
    JournalHeader,
    Saved,
    Started,
    StartIntended,
    StartRefused,
    open_journal,
)
from amigo_async.errors import JournalError
from amigo_async.escaping import encode_json
from amigo_async.models import EvaluationResult, SimulationEvaluationSource
from amigo_async.names import Names
from amigo_async.starting import Fence
from tests.support import report_samples as samples
from tests.unit.fake_runs import run_id, some_run

pytestmark = pytest.mark.anyio

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OURS = JournalHeader("https://api.example", "acme", "user-1")
SET = run_id(7)
INTENT = StartIntended(SET, AT, Fence((run_id(3),), AT))
REFUSED = StartRefused(SET, AT)
STARTED = Started(SET, run_id(1), AT, attached=True)
FINISHED = Finished(SET, "failed", some_run(run_id(1), is_completed=True, failed_metrics=True), AT)
SAVED = Saved(SET, "/somewhere/a.zip", AT)


def opened(path: Path, **whose: Any) -> AbstractAsyncContextManager[Journal]:
    ours = {"base_url": "https://api.example", "organization_id": "acme", "user_id": "user-1"}
    return open_journal(path, JournalHeader(**{**ours, **whose}))


async def records(path: Path) -> dict[str, JournaledSteps]:
    async with opened(path) as journal:
        return dict(journal.progress)


async def write(path: Path, *lines: JournalEntry) -> None:
    async with opened(path) as journal:
        for line in lines:
            await journal.write(line)


async def test_next_batch_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT)
    assert await records(path) == {SET: JournaledSteps(intent=INTENT)}
    await write(path, STARTED, FINISHED, SAVED)
    found = await records(path)
    assert found == {SET: JournaledSteps(started=STARTED, finished=FINISHED, saved=SAVED)}


async def test_json_lines_after_a_header(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT)
    first, second = path.read_text().splitlines()
    assert first == (
        '{"what":"journal","base_url":"https://api.example","organization_id":"acme",'
        '"user_id":"user-1","version":2}'
    )
    assert second == (
        f'{{"what":"intent","unit_test_set_id":"{SET}","at":"2026-01-02T03:04:05Z",'
        f'"fence":{{"ids":["{run_id(3)}"],"after":"2026-01-02T03:04:05Z"}}}}'
    )


async def test_torn_at_any_byte(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    await write(whole, INTENT, STARTED, FINISHED, SAVED)
    content = whole.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == 0x0A]
    for cut in [*range(0, ends[2], 7), *ends, *(end - 1 for end in ends)]:
        path = tmp_path / "cut.jsonl"
        path.write_bytes(content[:cut])
        kept = sum(end <= cut for end in ends)
        record = (await records(path)).get(SET, JournaledSteps())
        assert (record.intent is not None) == (kept == 2)
        assert (record.started is not None) == (kept >= 3)
        assert (record.finished is not None) == (kept >= 4)
        await write(path, SAVED)  # what is added later is read
        assert (await records(path))[SET].saved == SAVED


async def test_first_intent_counts(tmp_path: Path) -> None:
    later = StartIntended(SET, datetime(2026, 1, 3, tzinfo=UTC))
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT, later)
    assert (await records(path))[SET].intent == INTENT


async def test_a_new_run_voids_the_old(tmp_path: Path) -> None:
    again = Started(SET, run_id(2), AT)
    path = tmp_path / "batch.jsonl"
    await write(path, STARTED, FINISHED, SAVED, again)
    assert await records(path) == {SET: JournaledSteps(started=again, earlier={STARTED.run_id})}


def evaluation(id: str) -> EvaluationResult:
    source = SimulationEvaluationSource(run_id(1), "t", 2, ["m"])
    return EvaluationResult(id, "acme", "m", 1, True, "It did.", source, AT, AT)


async def test_reasons_are_those_of_the_last_run(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    first, second = evaluation("1"), evaluation("2")
    lines = (Explained(SET, run_id(1), [first]), Explained(SET, run_id(1), [second]))
    await write(path, STARTED, *lines)
    assert (await records(path))[SET].explained == {"1": first, "2": second}
    await write(path, Started(SET, run_id(2), AT))
    assert (await records(path))[SET].explained == {}
    await write(path, Explained(SET, run_id(2), [second]))
    assert (await records(path))[SET].explained == {"2": second}


async def test_names_are_gathered_from_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, Described(Names({"s": "Set"})), STARTED)
    await write(path, Described(Names({"r": "Another"}, {"t": "Test"}, {"m": "Metric"})))
    async with opened(path) as journal:
        assert journal.names == Names({"s": "Set", "r": "Another"}, {"t": "Test"}, {"m": "Metric"})
        assert list(journal.progress) == [SET]


async def test_second_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    async with opened(path):
        with pytest.raises(JournalError, match="in use"):
            await records(path)
    assert await records(path) == {}


async def test_an_intent_that_was_refused_is_void(tmp_path: Path) -> None:
    later = StartIntended(SET, datetime(2026, 1, 3, tzinfo=UTC))
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT, REFUSED)
    assert await records(path) == {SET: JournaledSteps()}
    await write(path, later)
    assert await records(path) == {SET: JournaledSteps(intent=later)}


@pytest.mark.parametrize(
    "other",
    [
        {"organization_id": "other"},
        {"base_url": "https://api-eu.example"},
        {"user_id": "user-2"},
    ],
)
async def test_a_journal_of_another_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT)
    before = path.read_bytes()
    whose = r"user user-1 of organization acme at https://api\.example; .* or give another file"
    with pytest.raises(JournalError, match=whose) as caught:
        async with opened(path, **other):
            pass
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


async def test_unknown_user_may_resume(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT)
    async with opened(path, user_id=None) as journal:
        assert SET in journal.progress


async def test_journal_of_an_older_release(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(
        '{"what":"journal","base_url":"https://api.example","organization_id":"acme","version":1}\n'
        f'{{"what":"intent","unit_test_set_id":"{SET}","at":"2026-01-02T03:04:05Z"}}\n'
    )
    assert await records(path) == {SET: JournaledSteps(intent=StartIntended(SET, AT))}
    await write(path, STARTED)
    assert await records(path) == {SET: JournaledSteps(started=STARTED)}
    with pytest.raises(JournalError, match="organization acme"):
        async with opened(path, organization_id="other"):
            pass


async def test_journal_of_a_newer_release(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(
        '{"what":"journal","base_url":"https://api.example","organization_id":"acme","version":3}\n'
    )
    with pytest.raises(JournalError, match="newer release"):
        await records(path)


@pytest.mark.parametrize(
    "line", [b"{}", b"nonsense", b'{"what":"intent"}', b"\xff\xfe", b"[" * 5000, b""]
)
async def test_bad_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, INTENT)
    before = path.read_bytes() + line + b"\n"
    path.write_bytes(before)
    with pytest.raises(JournalError, match="line 3"):
        await records(path)
    assert path.read_bytes() == before


async def test_what_cannot_be_read_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    await write(path, STARTED)
    whole = path.read_bytes() + b"{}\n" + b'{"what":"fini'
    path.write_bytes(whole)
    with pytest.raises(JournalError, match="line 3"):
        await records(path)
    assert path.read_bytes() == whole


async def test_lines_are_encoded_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def encoding(line: JournalEntry) -> str:
        threads.append(threading.current_thread())
        return encode_json(line)

    monkeypatch.setattr("amigo_async.batch.journal.encode_json", encoding)
    await write(tmp_path / "batch.jsonl", STARTED, FINISHED)
    assert len(threads) == 3  # with the header
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("name", ["missing/batch.jsonl", "."])
async def test_impossible_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        await records(tmp_path / name)


@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "device"])
async def test_nothing_but_a_file_is_a_journal(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "batch.jsonl", tmp_path / "victim"
    victim.touch()
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "FIFO":
            os.mkfifo(path)
        case _:
            path = Path("/dev/null")
    with pytest.raises(JournalError, match=r"cannot be opened: It is (a symbolic link|not a reg)"):
        await records(path)
    assert victim.read_bytes() == b""
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
async def test_journal_without_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    path = tmp_path / "batch.jsonl"
    async with opened(path) as journal:
        await journal.write(INTENT)
        with pytest.raises(JournalError, match="in use"):
            await records(path)
    assert await records(path) == {SET: JournaledSteps(intent=INTENT)}


async def test_full_disk_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "batch.jsonl"
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) - 20])  # a part of it still fits

    async with opened(path) as journal:
        await journal.write(INTENT)
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space left"):
            await journal.write(STARTED)
        assert path.read_bytes() == before
        monkeypatch.setattr(os, "write", real)
        await journal.write(SAVED)
    assert (await records(path))[SET] == JournaledSteps(intent=INTENT, saved=SAVED)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_file_that_nobody_finds_takes_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "journal"
    async with opened(path) as journal:
        await journal.write(STARTED)
        if how == "deleted":
            path.unlink()
        else:
            (tmp_path / "other").write_bytes(b"other")
            (tmp_path / "other").replace(path)
        with pytest.raises(JournalError, match="was deleted or replaced"):
            await journal.write(STARTED)


async def test_file_that_is_moved_is_continued(tmp_path: Path) -> None:
    path, moved = tmp_path / "journal", tmp_path / "moved"
    async with opened(path) as journal:
        path.rename(moved)
        await journal.write(STARTED)
    assert list(await records(moved)) == [STARTED.unit_test_set_id]


async def test_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some never count names."""
    true_fstat = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        values = list(true_fstat(descriptor))
        values[3] = 0
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", fstat)
    path = tmp_path / "journal"
    await write(path, STARTED)
    assert list(await records(path)) == [STARTED.unit_test_set_id]


async def test_cancelled_write_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    async with opened(path) as journal:
        writing = asyncio.create_task(journal.write(STARTED))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        await journal.write(SAVED)
    assert (await records(path))[SET].saved == SAVED


async def test_closed_journal_takes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "batch.jsonl") as journal:
        kept: Journal = journal
    with pytest.raises(JournalError, match="closed"):
        await kept.write(INTENT)


async def test_run_text_is_redacted(
    tmp_path: Path,
) -> None:
    """The ids stay: by them the run is found again, whatever they look like."""
    odd = "https://r.example/?id"
    told = samples.run(
        ("ut\ud800", {"m": "+"}, ["GET https://h/k?X-Amz-Signature=hunter2 \ud83d\n"]),
        set_id=odd,
        run_id=odd,
    )
    path = tmp_path / "batch.jsonl"
    await write(path, Started(odd, odd, AT), Finished(odd, "errored", told, AT))
    assert "hunter2" not in path.read_text()
    found = (await records(path))[odd]
    assert found.started is not None
    assert found.finished is not None
    assert found.started.run_id == found.finished.run.id == odd
    (result,) = found.finished.run.unit_test_run_results
    assert result is not None
    assert result.run_errors == ("GET https://h/k?*** \ufffd\n",)
