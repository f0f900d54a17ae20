"""Downloads of a large file and of many small ones: bytes a second, files a second, processor.

nginx serves them, in a process of its own, with and without a long line before it. Each contestant
has a process of its own and they take turns.
"""

from __future__ import annotations

import argparse
import filecmp
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks import command, store
from benchmarks.fetchers import (
    ARIA2,
    BARE,
    BOTO,
    CURL,
    FETCHERS,
    OURS,
    PROGRAMS,
    SYNCED,
    Job,
    Spent,
)
from benchmarks.figures import Aim, Result, Table, spread
from benchmarks.store import Stage, everything

CONTESTANTS: Final = (OURS, CURL, SYNCED, ARIA2, BARE, BOTO)
# Where files are saved: a folder on a disk, or one in memory.
PLACES: Final = {"disk": tempfile.gettempdir(), "memory": "/dev/shm"}  # noqa: S108  # is meant
AT_ONCE: Final = 8


class Case(Struct, frozen=True):
    """What is fetched.

    Attributes:
        keys: Which files.
        size: How large each is.
        place: To where; a key of `PLACES`.
        delay: Seconds there and back.
        connections: Connections for one file.
    """

    keys: tuple[str, ...]
    size: int
    place: str
    delay: float
    connections: int

    @property
    def large(self) -> bool:
        """Whether it is the one large file."""
        return self.keys == (store.LARGE,)


class Taken(Struct, frozen=True, kw_only=True):
    """What one contestant took in one round.

    Attributes:
        who: The contestant.
        case: What it fetched.
        spent: From when Python had loaded what it needs; a program as a whole.
        whole: The process as a whole, with its start.
    """

    who: str
    case: Case
    spent: Spent
    whole: Spent

    @property
    def rate(self) -> float:
        """Megabytes a second, or files."""
        return self._amount / self.spent.seconds

    @property
    def rate_with_start(self) -> float:
        """The same with the start of the process."""
        return self._amount / self.whole.seconds

    @property
    def _amount(self) -> float:
        return self.case.size / 1e6 if self.case.large else len(self.case.keys)


def cases(options: argparse.Namespace) -> list[Case]:
    """The cases; over a long line it makes no difference where the files go."""
    size = int(options.size * store.MEBI)
    small = tuple(map(store.small, range(options.files)))
    found = []
    for delay in options.delays:
        for place in options.places[-1:] if delay else options.places:
            found += [
                Case((store.LARGE,), size, place, delay / 1000, n) for n in options.connections
            ]
            found.append(Case(small, store.SMALL_SIZE, place, delay / 1000, 1))
    return found


def measure(who: str, case: Case, stage: Stage, *, check: bool) -> Taken:
    """Let one contestant fetch what the case says, into an empty folder."""
    store.warm(PLACES[case.place], case.size * len(case.keys))
    # The disk is not to be busy with what the one before left.
    os.sync()
    with tempfile.TemporaryDirectory(dir=PLACES[case.place]) as folder:
        job = Job(
            store=stage.stores[case.delay],
            bucket=store.BUCKET,
            keys=list(case.keys),
            size=case.size,
            folder=folder,
            connections=case.connections,
            at_once=1 if case.large else AT_ONCE,
            api=stage.apis[case.delay] if case.large else None,
        )
        spent, whole = _spent(who, job)
        for key in case.keys if check else ():
            _check(who, stage.files / key, Path(folder, key))
    return Taken(who=who, case=case, spent=spent, whole=whole)


def _spent(who: str, job: Job) -> tuple[Spent, Spent]:
    """What a contestant took in a process of its own, without its start and with it."""
    if who in PROGRAMS:
        arguments = PROGRAMS[who](job)
    else:
        arguments = [sys.executable, "-m", "benchmarks.fetchers", who]
    began = time.perf_counter()
    with subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdin is not None  # noqa: S101  # as asked for
        assert process.stdout is not None  # noqa: S101
        if who in FETCHERS:
            process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{who} ended with {process.returncode}")
    whole = Spent(seconds, usage.ru_utime + usage.ru_stime)
    return (msgspec.json.decode(said, type=Spent) if who in FETCHERS else whole), whole


def _check(who: str, served: Path, saved: Path) -> None:
    """Compare what was saved; it may be in parts, whose names end with their numbers."""
    parts = [saved] if saved.exists() else sorted(saved.parent.glob(f"{saved.name}.*"))
    if len(parts) > 1:
        with saved.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, store.MEBI)
    if not filecmp.cmp(served, saved, shallow=False):
        raise RuntimeError(f"{who} has saved something else than {served.name}")


def rounds(options: argparse.Namespace, stage: Stage) -> list[Taken]:
    """Measure all, in turns: each round begins with another contestant."""
    taken = []
    order = list(options.contestants)
    for number, case in itertools.product(range(options.rounds), cases(options)):
        first = number % len(order)
        turns = [w for w in order[first:] + order[:first] if w != SYNCED or case.place == "disk"]
        taken += [measure(who, case, stage, check=number == 0) for who in turns]
    return taken


def _of(taken: Sequence[Taken], who: str, case: Case) -> list[Taken]:
    return [one for one in taken if (one.who, one.case) == (who, case)]


def over(taken: Sequence[Taken], who: str, other: str, case: Case) -> list[float]:
    """The throughput of one over another's, by round."""
    pairs = zip(_of(taken, who, case), _of(taken, other, case), strict=True)
    return [a.rate / b.rate for a, b in pairs]


def tables(taken: Sequence[Taken], options: argparse.Namespace) -> list[Table]:
    """The figures of each contestant and case."""
    found = []
    for large in (True, False):
        unit = "MB/s" if large else "files/s"
        head = ["to", "delay (ms)", "connections", "", unit, "over curl's"]
        head += ["with its start", "processor (s)"]
        shown = [case for case in dict.fromkeys(t.case for t in taken) if case.large == large]
        names = dict.fromkeys(t.who for t in taken)
        rows = [_row(taken, case, who) for case in shown for who in names if _of(taken, who, case)]
        title = f"{options.size:g} MiB" if large else f"{options.files:,} files of 20 kB"
        found.append(Table(head, rows, title))
    return found


def _row(taken: Sequence[Taken], case: Case, who: str) -> list[str]:
    some = _of(taken, who, case)
    ratios = over(taken, who, CURL, case) if _of(taken, CURL, case) else []
    return [
        case.place,
        f"{case.delay * 1000:g}",
        str(case.connections if case.large else AT_ONCE),
        who,
        spread([one.rate for one in some], ",.0f"),
        spread(ratios, ".2f") if ratios else "n/a",
        spread([one.rate_with_start for one in some], ",.0f"),
        spread([one.spent.cpu for one in some], ".2f"),
    ]


def aims(taken: Sequence[Taken]) -> list[Aim]:
    """Not slower than curl on a short line, and slower than nobody on a long one."""
    found = []
    names = dict.fromkeys(one.who for one in taken if one.who != SYNCED)
    for case in dict.fromkeys(one.case for one in taken):
        if OURS not in names or CURL not in names:
            continue
        if not case.delay:
            ratios = over(taken, OURS, CURL, case)
            what = f"at least 0.95 of curl's throughput: {told(case)}"
            met, figure = statistics.median(ratios) >= 0.95, spread(ratios, ".2f")
            if _of(taken, SYNCED, case):
                figure += f"; of curl's and sync's {spread(over(taken, OURS, SYNCED, case), '.2f')}"
            found.append(Aim(what, figure, met))
            continue
        rates = {w: statistics.median(one.rate for one in _of(taken, w, case)) for w in names}
        best = max((w for w in rates if w != OURS), key=rates.__getitem__)
        ratios = over(taken, OURS, best, case)
        figure = f"{spread(ratios, '.2f')} of {best}'s"
        # What differs by less than this is not told apart from one run to the next.
        met = statistics.median(ratios) >= 0.99
        found.append(Aim(f"slower than nobody: {told(case)}", figure, met))
    return found


def told(case: Case) -> str:
    """A case in words."""
    what = "the large file" if case.large else "the small ones"
    how = f", {case.connections} connection{'s'[: case.connections - 1]}" if case.large else ""
    far = f", {case.delay * 1000:g} ms away" if case.delay else ""
    return f"{what} to {case.place}{how}{far}"


def result(options: argparse.Namespace) -> Result:
    """Measure, and tell."""
    with everything(options) as stage:
        taken = rounds(options, stage)
    return Result(
        name="download",
        measures=(
            "`client.artifacts.download` against what else fetches files: one large file, by one "
            "connection and by several, and many small ones."
        ),
        conditions=conditions(options, stage.ceiling),
        tables=tables(taken, options),
        aims=aims(taken),
        notes=NOTES,
        packages=["aiobotocore"],
    )


def conditions(options: argparse.Namespace, ceiling: float | None) -> str:
    """What the figures were measured under."""
    far = ""
    if ceiling is not None:
        far = (
            " The delay is made by a program that passes bytes on later, in a process of its own, "
            f"with at most {options.window:g} MiB under way in a connection, as Linux allows "
            f"unasked; without delay and window it lets {ceiling:,.0f} MB/s through."
        )
    return (
        f"nginx on loopback, one process; {options.rounds} rounds in turns, each contestant in a "
        "process of its own. Those in Python are measured from when they have loaded what they "
        "need, as they are used in programs that run already; the figures with their start are "
        "beside. Ours signs in and asks for the link to the large file, the others know it. The "
        f"small ones are fetched {AT_ONCE} at once, and their links are known. "
        "Before each as much memory is taken and given back as the file needs: a host that takes "
        "back what is free makes the first after a pause pay for it. "
        "`disk` is a folder on a disk, synced before each; ours alone syncs what it has written. "
        "`memory` is a tmpfs. Who fetches ranges asks for the size first; curl fetches them into "
        "files of their own, which nobody joins. "
        f"Every contestant's bytes are compared in the first round.{far}"
    )


# What was looked at and left.
NOTES: Final = [
    (
        "On a machine that is busy the first table flatters us: in nine rounds on each of two "
        "other occasions, with both cores shared with other work (load 3 to 6), the large file "
        "came at 0.74 to 0.92 of curl's rate at the median, by one connection and by four, to "
        "disk and to memory without delay. We take more of the processor, for threads and for the "
        "sync."
    ),
    (
        "Every piece is written by a thread, and what was received is recorded, so that nothing "
        "blocks the event loop (at most 5 ms were seen, with 512 MiB under way) and a killed "
        "process goes on where it was. Writing in the loop, as bare aiohttp does here, needs no "
        "thread, and stands still with the disk."
    ),
    (
        "A small file takes two turns in a thread, half of its price: the first looks up its place "
        "and locks it, the second writes, syncs and names it. Without threads it would be twice as "
        "quick in memory, and stand still with the disk. Nobody may ask for more than 100 links a "
        "minute, so it is left so."
    ),
    (
        "A connection that is done takes over half of what the slowest has left. That one's "
        "connection is closed, and what was under way in it, at most a window, is lost."
    ),
    (
        "Far away and with several connections it is the processor that is short, which the line "
        "and the store share with the contestant: curl takes less of it than any other."
    ),
]


def flags() -> argparse.ArgumentParser:
    """The flags."""
    parser = command.parser(__doc__)
    parser.add_argument("--size", type=float, default=1024, help="MiB of the large file")
    parser.add_argument("--files", type=int, default=1_000, help="how many small ones")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 20], help="milliseconds")
    parser.add_argument("--window", type=int, default=6, help="MiB under way in a connection")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    return parser


QUICK: Final = {"rounds": 1, "size": 64, "files": 100}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    command.run(flags(), result, argv, quick=QUICK)


if __name__ == "__main__":
    main()
