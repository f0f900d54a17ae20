"""What a process holds at an instant, and whether that grows."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
from msgspec import Struct

from benchmarks import figures


class Sample(Struct, frozen=True, kw_only=True):
    """What the process holds between two rounds, once garbage has been collected.

    Attributes:
        rounds: Rounds so far.
        resident: Memory that is resident, in KiB; 0 where the system does not tell.
        tasks: Tasks of the event loop that are not done.
        descriptors: Open file descriptors; 0 where the system does not tell.
        connections: Connections that clients hold, idle ones included.
        threads: Threads.
        objects: Objects that the garbage collector knows.
    """

    rounds: int
    resident: int
    tasks: int
    descriptors: int
    connections: int
    threads: int
    objects: int


class Bound(Struct, frozen=True, kw_only=True):
    """How much of something there may be.

    What grows does so at its floor: the least of the second half of the samples is held against
    the least of the first, so that what comes and goes between them says nothing.

    Attributes:
        most: At any time; None for any number.
        rise: By how much the floor may rise in all.
        growth: By how much it may rise beyond that for each round.
    """

    most: int | None = None
    rise: float = 0.0
    growth: float = 0.0

    def __str__(self) -> str:
        parts = [] if self.most is None else [f"at most {self.most:,}"]
        parts += [f"floor +{self.rise:,.0f}"]
        parts += [f"and +{self.growth:,.0f} a round"] if self.growth else []
        return ", ".join(parts)


# What aiohttp keeps open at most for a client, between two rounds for a quarter of a minute.
_POOL: Final = 100
# The threads of `asyncio.to_thread`, the main one, one that waits for another process, and the
# package's own: sixteen for files and four for names at most.
_THREADS: Final = min(32, (os.cpu_count() or 1) + 4) + 2 + 20
# Descriptors that are open whatever happens: of the loop, the standard streams, another process.
_ALWAYS: Final = 30

# The share of the samples at the beginning in which caches fill; they count for nothing.
WARM_UP: Final = 0.25

# Samples of which two halves are left after the warm-up.
ENOUGH: Final = 4

Bounds: TypeAlias = Mapping[str, Bound]


def bounds(sets: int, *, served_here: bool) -> Bounds:
    """The bounds for rounds of so many sets.

    Args:
        sets: Sets of a round.
        served_here: Whether the sandbox is in the process too: it remembers all of its runs, and
            has an end of each connection.
    """
    kept = {
        "tasks": Bound(most=1),
        "descriptors": Bound(most=_ALWAYS + _POOL * (2 if served_here else 1), rise=20.0),
        "connections": Bound(most=_POOL, rise=10.0),
        "threads": Bound(most=_THREADS, rise=2.0),
        "objects": Bound(rise=500.0, growth=sets * 8.0 if served_here else 0.0),
    }
    return kept if served_here else {"resident": Bound(rise=2048.0, growth=4.0), **kept}


_HEAD = (
    *("held between rounds", "first", "median", "last", "least", "most"),
    *("slope a round", "floor risen by", "bound"),
)


def take(rounds: int) -> Sample:
    """Sample this process; to be called in its loop."""
    gc.collect()
    connectors = [o for o in gc.get_objects() if isinstance(o, aiohttp.BaseConnector)]
    return Sample(
        rounds=rounds,
        resident=_resident(),
        tasks=sum(not _serves(task) for task in asyncio.all_tasks()),
        descriptors=_descriptors(),
        connections=sum(map(_connections, connectors)),
        threads=threading.active_count(),
        objects=len(gc.get_objects()),
    )


def warm(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples that count: those after the warm-up."""
    return samples[int(len(samples) * WARM_UP) :]


def slope(samples: Iterable[Sample], name: str) -> float:
    """By how much something grows a round; 0 where that cannot be told."""
    points = [(float(sample.rounds), float(getattr(sample, name))) for sample in samples]
    if len({rounds for rounds, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def halves(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The first and the second half of the samples that count."""
    counted = warm(samples)
    middle = len(counted) // 2
    return counted[:middle], counted[middle:]


def risen(samples: Sequence[Sample], name: str) -> float:
    """By how much the floor of something has risen."""
    first, second = ([getattr(one, name) for one in half] for half in halves(samples))
    return float(min(second) - min(first))


def exceeded(samples: Sequence[Sample], limits: Bounds) -> list[str]:
    """Which bounds are not kept, in words; empty where all are."""
    if len(samples) < ENOUGH:
        return [f"{len(samples)} samples tell nothing: let it go on for longer"]
    first, second = halves(samples)
    rounds = second[-1].rounds - first[0].rounds
    problems = []
    for name, bound in limits.items():
        most, rise = max(getattr(one, name) for one in warm(samples)), risen(samples, name)
        if bound.most is not None and most > bound.most:
            problems.append(f"{name}: {most:,}, but {bound}")
        if rise > bound.rise + bound.growth * rounds:
            problems.append(f"{name}: the floor has risen by {rise:+,.0f}, but {bound}")
    return problems


def table(samples: Sequence[Sample], limits: Bounds) -> str:
    """The samples that count, in Markdown; empty where they are too few."""
    counted = warm(samples)
    if len(samples) < ENOUGH:
        return ""
    rows = []
    for name, bound in limits.items():
        values = [getattr(sample, name) for sample in counted]
        shown = (values[0], statistics.median(values), values[-1], min(values), max(values))
        unit = " (KiB)" if name == "resident" else ""
        rows.append(
            [
                f"{name}{unit}",
                *(f"{value:,.0f}" for value in shown),
                f"{slope(counted, name):+,.2f}",
                f"{risen(samples, name):+,.0f}",
                str(bound),
            ]
        )
    return figures.table(_HEAD, rows)


def _connections(connector: aiohttp.BaseConnector) -> int:
    """The connections of a pool, idle and in use; there is no public count."""
    idle: Callable[[], Iterable[Sequence[object]]] = connector._conns.values  # noqa: SLF001
    return sum(map(len, idle())) + len(connector._acquired)  # noqa: SLF001


def _serves(task: asyncio.Task[Any]) -> bool:
    """Whether a task is that of a server, which has one for each connection."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("RequestHandler.")


def _resident() -> int:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE") // 1024


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names are enough
    except OSError:
        return 0
