"""Byte ranges: what is asked for, what was answered, what is there already. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

# First byte, and the first byte behind; half open, like Python's slices.
Span: TypeAlias = tuple[int, int]

_CONTENT_RANGE = r"(?a)bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(?:(\d{1,19})|\*)"


class ContentRange(Struct, frozen=True):
    """What a ``Content-Range`` header says.

    Attributes:
        span: The bytes that are in the body; None where the range cannot be had (416).
        total: The size of the whole object; None where it is not said.
    """

    span: Span | None
    total: int | None


def read_content_range(text: str | None) -> ContentRange | None:
    """A ``Content-Range`` in bytes; None where it is missing or contradicts itself."""
    match = re.fullmatch(_CONTENT_RANGE, (text or "").strip())
    if match is None:
        return None
    total = int(match[3]) if match[3] is not None else None
    if match[1] is None:
        return ContentRange(None, total)
    start, stop = int(match[1]), int(match[2]) + 1
    if start >= stop or (total is not None and stop > total):
        return None
    return ContentRange((start, stop), total)


def range_header(start: int, stop: int | None) -> str:
    """A ``Range`` from `start` up to, not including, `stop`; None for all that follows."""
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


def add_span(spans: Iterable[Span], new: Span) -> list[Span]:
    """`spans`, in order and apart from each other, with `new` among them; neighbours merge."""
    return join_spans((*spans, new))


def join_spans(spans: Iterable[Span]) -> list[Span]:
    """`spans`, in whatever order, in order and apart from each other; neighbours merge."""
    apart: list[Span] = []
    for start, stop in sorted(spans):
        if apart and start <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], stop))
        elif start < stop:
            apart.append((start, stop))
    return apart


def missing_spans(spans: Iterable[Span], size: int) -> list[Span]:
    """What of the bytes 0 up to `size` is in none of `spans` (in order, apart)."""
    gaps: list[Span] = []
    position = 0
    for start, stop in spans:
        if start > position:
            gaps.append((position, start))
        position = stop
    if position < size:
        gaps.append((position, size))
    return gaps
