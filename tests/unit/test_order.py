"""Which sets start first, and what is known of their lengths: tables of cases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from amigo_async import ArgumentError, BatchResult
from amigo_async.batch.journal import Finished, JournalHeader
from amigo_async.batch.order import (
    KnownLengths,
    LengthEstimate,
    SeenLengths,
    estimate_lengths,
    known_from,
    longest_first,
)
from amigo_async.models import Run
from amigo_async.report import to_json
from tests.support.report_samples import outcome, run

AT = datetime(2026, 5, 4, tzinfo=UTC)
A, B, C = "a" * 24, "b" * 24, "c" * 24


def sure(seconds: float) -> LengthEstimate:
    return LengthEstimate(seconds, "lengths")


def by_size(seconds: float) -> LengthEstimate:
    return LengthEstimate(seconds, "size")


def unknown(seconds: float) -> LengthEstimate:
    return LengthEstimate(seconds, "none")


@pytest.mark.parametrize(
    ("lengths", "sizes", "estimates"),
    [
        ({}, [], {}),
        ({}, [{}], {}),
        ({"other": 5.0}, [{"other": 5.0}], {}),
        ({"a": 9.0, "b": 4.0, "c": 2.0}, [], {"a": sure(9.0), "b": sure(4.0), "c": sure(2.0)}),
        # Nothing known of one: as long as a typical set.
        ({"a": 9.0, "b": 3.0}, [], {"a": sure(9.0), "b": sure(3.0), "c": unknown(6.0)}),
        # Sizes alone: any unit will do.
        ({}, [{"a": 7.0, "b": 3.0}], {"a": by_size(7.0), "b": by_size(3.0), "c": unknown(5.0)}),
        # A set of which both are known tells how long a unit of size takes.
        (
            {"a": 60.0},
            [{"a": 20.0, "b": 50.0}],
            {"a": sure(60.0), "b": by_size(150.0), "c": unknown(105.0)},
        ),
        # Without one, the typical size takes the typical length.
        ({"a": 60.0}, [{"b": 5.0}], {"a": sure(60.0), "b": by_size(60.0), "c": unknown(60.0)}),
        # A size of nothing, as without the permission to see specs, tells nothing.
        ({"a": 60.0}, [{"b": 0.0}], {"a": sure(60.0), "b": unknown(60.0), "c": unknown(60.0)}),
        # Two sources in units of their own: the first counts, and gives the unit.
        (
            {},
            [{"a": 10.0, "b": 20.0}, {"b": 1.0, "c": 4.0}],
            {"a": by_size(10.0), "b": by_size(20.0), "c": by_size(80.0)},
        ),
    ],
)
def test_estimates(
    lengths: dict[str, float],
    sizes: list[dict[str, float]],
    estimates: dict[str, LengthEstimate],
) -> None:
    assert estimate_lengths("abca", lengths, *sizes) == estimates


@pytest.mark.parametrize(
    ("lengths", "order"),
    [
        ({}, "abc"),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, "cba"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, "abc"),
        ({"a": 1.0, "c": 3.0}, "cba"),  # what is not known goes into the middle
        ({"b": 5.0}, "abc"),  # and as given where it is all the same
    ],
)
def test_longest_first(lengths: dict[str, float], order: str) -> None:
    assert longest_first("abc", estimate_lengths("abc", lengths)) == list(order)


# --- what is known ---


def test_seen_lengths_are_of_their_owner() -> None:
    seen = SeenLengths()
    seen.add("here", "a", 5.0)
    seen.add("here", "a", 7.0)
    seen.add("there", "b", 9.0)
    seen.add("here", "c", 0.0)
    assert seen.of("here", ["a", "b", "c"]) == {"a": 7.0}


def test_seen_lengths_are_bounded() -> None:
    seen = SeenLengths()
    for number in range(10_001):
        seen.add("here", str(number), 1.0)
        seen.add("here", "again", 1.0)
    assert seen.of("here", ["0", "1", "2", "again"]) == {"2": 1.0, "again": 1.0}


def some(created_at: datetime = AT, **interactions: int) -> Run:
    of = replace(run(("ut", {"m": "++"}, [])), created_at=created_at)
    spec = replace(of.unit_test_run_specs[0], run_count=2, max_interactions=interactions["each"])
    return replace(of, unit_test_run_specs=[spec, spec])


def result(began_at: datetime | None = AT) -> BatchResult:
    def ended(set_id: str, verdict: Any, seconds: float, of: Run) -> Any:
        return replace(
            outcome(of, verdict=verdict),
            unit_test_set_id=set_id,
            finished_at=of.created_at + timedelta(seconds=seconds),
        )

    earlier = some(AT - timedelta(hours=9), each=5)
    return BatchResult(
        [
            ended(A, "failed", 40.0, some(each=10)),
            ended(B, "cancelled", 3.0, some(each=20)),
            ended(C, "passed", 40_000.0, earlier),
            outcome(None, verdict="not_started"),
        ],
        began_at=began_at,
    )


KNOWN = KnownLengths({A: 40.0}, {A: 40.0, B: 80.0, C: 20.0})


def test_lengths_of_a_result() -> None:
    """Not of a run that was cut short, nor of one that may have ended before anybody looked."""
    assert known_from(result()) == KNOWN
    assert known_from(result(began_at=None)).lengths == {A: 40.0, C: 40_000.0}


def test_runs_that_began_with_the_batch_were_watched() -> None:
    """When the batch began is known to the second: the first runs may seem to be older."""
    assert known_from(result(began_at=AT + timedelta(seconds=1))) == KNOWN
    assert known_from(result(began_at=AT + timedelta(seconds=3))).lengths == {}


def test_lengths_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(to_json(result()))
    assert known_from(tmp_path / "r.json") == KNOWN
    assert known_from(str(tmp_path / "r.json")) == KNOWN


def test_lengths_of_a_journal(tmp_path: Path) -> None:
    header = JournalHeader("https://api.example", "acme", "user-1")
    lines: list[Any] = [header]
    steps: list[tuple[str, Any, int]] = [(A, "passed", 40), (A, "failed", 60), (B, "cancelled", 5)]
    for set_id, verdict, seconds in steps:
        at = AT + timedelta(seconds=seconds)
        lines.append(Finished(set_id, verdict, some(each=10), at))
    lines.append(Finished(A, "passed", some(each=10), AT + timedelta(days=1), watched=False))
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    path = tmp_path / "j.jsonl"
    path.write_bytes(content + b'{"what":"finish')  # it was killed while it wrote
    assert known_from(path) == KnownLengths({A: 50.0}, {A: 40.0, B: 40.0})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "neither the JSON of a result nor a journal"),
        (b"[]", "neither"),
        (b'{"outcomes": [{"unit_test_set_id": 1}]}', "neither"),
        (b'{"what":"journal","base_url":"u"}\nnonsense\n', "neither"),
        (b"\xff\xfe", "neither"),
    ],
)
def test_files_that_tell_no_lengths(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArgumentError, match=words) as raised:
        known_from(path)
    assert str(path) in str(raised.value)
