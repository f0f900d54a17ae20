from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigo_async.protocol.ranges import (
    ContentRange,
    add_span,
    missing_spans,
    range_header,
    read_content_range,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-4/10", ContentRange((0, 5), 10)),
        ("  bytes  9-9/10 ", ContentRange((9, 10), 10)),
        ("bytes 5-9/*", ContentRange((5, 10), None)),
        ("bytes */10", ContentRange(None, 10)),
        ("bytes */*", ContentRange(None, None)),
        (None, None),
        ("", None),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes -5/10", None),
        ("items 0-4/10", None),
        ("bytes 0-4/10, 6-7/10", None),
        ("bytes 0-4/" + "9" * 30, None),
        ("bytes \u0660-4/10", None),
    ],
)
def test_a_content_range_is_read_or_refused(
    text: str | None, expected: ContentRange | None
) -> None:
    assert read_content_range(text) == expected


def test_a_range_is_asked_for_with_inclusive_ends() -> None:
    assert range_header(0, 10) == "bytes=0-9"
    assert range_header(7, None) == "bytes=7-"


spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair))),
    max_size=12,
)


@given(spans)
def test_spans_are_the_union_of_what_was_added(added: list[tuple[int, int]]) -> None:
    merged: list[tuple[int, int]] = []
    for span in added:
        merged = add_span(merged, span)
    members = {n for start, stop in added for n in range(start, stop)}
    assert {n for start, stop in merged for n in range(start, stop)} == members
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
    gaps = missing_spans(merged, 80)
    assert {n for start, stop in gaps for n in range(start, stop)} == set(range(80)) - members
    assert all(stop > start for start, stop in gaps)


def test_an_empty_span_adds_nothing() -> None:
    assert add_span([(0, 3)], (8, 8)) == [(0, 3)]
