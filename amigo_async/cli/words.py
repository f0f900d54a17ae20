"""Numbers, times and texts in the words of the command."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

# In the order of interest.
ENDPOINTS: Final = {
    "create": "start",
    "list": "look",
    "artifacts": "fetch",
    "cancel": "cancel",
    "sign_in": "sign in",
}

VERDICTS: Final = {
    "passed": "passed",
    "saved": "saved",
    "asked": "asked",
    "over": "over",
    "failed": "failed",
    "errored": "errored",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "not_started": "not started",
}

_KIB: Final = 1024


def verdict(name: str) -> str:
    """A verdict in words."""
    return VERDICTS.get(name, name)


def verdicts_said(counts: Mapping[Any, int], words: Mapping[str, str] = VERDICTS) -> str:
    """How many there are of each verdict, e.g. ``2 passed, 1 failed``."""
    return ", ".join(f"{counts[name]} {said}" for name, said in words.items() if counts.get(name))


def count(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds(duration: float) -> str:
    """A duration in words: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def stopwatch(duration: float) -> str:
    """A duration as on a stopwatch: ``0:12``, ``1:02:03``."""
    minutes, rest = divmod(int(duration), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def clock(from_now: float) -> str:
    """The time of day here in so many seconds, also where summer time begins or ends until then."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + from_now))


def size(number: int) -> str:
    """A size: ``312 B``, ``1.4 KiB``, ``20 MiB``."""
    if number < _KIB:
        return f"{number} B"
    value, units = number / _KIB, ["KiB", "MiB", "GiB"]
    while value >= _KIB and len(units) > 1:
        value /= _KIB
        del units[0]
    return f"{value:.1f} {units[0]}" if value < 10 else f"{value:.0f} {units[0]}"


def shortened(items: Sequence[str], most: int) -> list[str]:
    """The first items, and how many more there are."""
    rest = len(items) - most
    return [*items[:most], f"and {rest} more"] if rest > 0 else list(items)
