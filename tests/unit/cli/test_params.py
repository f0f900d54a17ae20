from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from amigo_async.cli.command import parse_duration, parse_instant, read_run_ids, read_selectors
from tests.unit.cli.cli_samples import some_id


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("2 min", 120), ("2h", 7200)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1w", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="90, 30m or 2h"):
        parse_duration(text)


def test_instants() -> None:
    assert parse_instant("2026-05-04T12:30:00Z") == datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
    assert parse_instant("2026-05-04T12:30+02:00") == datetime(2026, 5, 4, 10, 30, tzinfo=UTC)
    assert parse_instant("2026-05-04").tzinfo is not None
    before, given, after = datetime.now(UTC), parse_instant("2h"), datetime.now(UTC)
    assert before <= given + timedelta(hours=2) <= after


@pytest.mark.parametrize("text", ["", "2", "yesterday", "2026-13-01", "99999999999d"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        parse_instant(text)


def test_sources_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{some_id(2)}\n"))
    file = io.StringIO(f"# mine\n{some_id(3)}  {some_id(4)} # two\n\n")
    ids = read_run_ids([some_id(1), "-"], file)
    assert ids == [some_id(n) for n in (1, 2, 3, 4)]


MARK = "\ufeff"


@pytest.mark.parametrize(
    "content",
    [
        f"{MARK}{some_id(1)}\r\n# größer\r\n\r\n{some_id(2)} # two\r\n".encode(),
        f"{MARK}{some_id(1)}\r\n{some_id(2)}\r\n".encode("utf-16-le"),
        f"{MARK}{some_id(1)}\r\n{some_id(2)}\r\n".encode("utf-16-be"),
        f"{MARK}{some_id(1)}\n{MARK}{some_id(2)}".encode(),  # two files joined
        f"# one\r{some_id(1)}\r{some_id(2)}".encode(),
    ],
)
@pytest.mark.parametrize("where", ["file", "stdin"])
def test_ids_as_editors_write_them(
    monkeypatch: pytest.MonkeyPatch, content: bytes, where: str
) -> None:
    wanted = [some_id(1), some_id(2)]
    if where == "file":
        assert read_run_ids([], io.BytesIO(content)) == wanted
        return
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
    assert read_run_ids(["-"], None) == wanted


def test_selectors_on_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = some_id(1), some_id(2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Deliveries\n"))
    lines = f"# ours\n{one} {two}# two\n  Refund policy \t# a name\n\nC# help\nTop #1\n#Refunds\n"
    file = io.BytesIO(lines.encode())
    selectors = read_selectors(["Small talk", "-"], file)
    assert selectors == ["Small talk", "Deliveries", one, two, "Refund policy", "C# help", "Top"]


def test_no_ids_are_refused() -> None:
    with pytest.raises(click.UsageError, match="at least one RUN_ID"):
        read_run_ids([], None)


@pytest.mark.parametrize(
    ("arguments", "has_file", "told"),
    [
        (["-"], False, "stdin has no id of a run: there is nothing to do."),
        ([], True, "none.txt has no id of a run: there is nothing to do."),
        (["-"], True, "stdin and none.txt have no id of a run: there is nothing to do."),
    ],
)
def test_where_no_ids_are_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    told: str,
    *,
    has_file: bool,
) -> None:
    """Whoever named them expects ids in them."""
    monkeypatch.chdir(tmp_path)
    Path("none.txt").write_text("# none\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with Path("none.txt").open("rb") as file, pytest.raises(click.UsageError) as caught:
        read_run_ids(arguments, file if has_file else None)
    assert caught.value.message == told


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_bytes(b"\xff\xfd")
    with path.open("rb") as file, pytest.raises(click.UsageError, match="not text"):
        read_run_ids([], file)
    with path.open("rb") as file, pytest.raises(click.UsageError, match="not text"):
        read_selectors([], file)


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(click.UsageError, match="'XYZ' is not the id of a run; amigo-"):
        read_run_ids([some_id(1), "XYZ"], None)


def test_run_id_of_any_form() -> None:
    assert read_run_ids(["6618791275130b73714e8d9h"], None) == ["6618791275130b73714e8d9h"]
