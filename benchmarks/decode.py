"""Pages of runs, large and small: the time to decode one, and the memory that takes at its peak.

Each contestant has a process of its own, and they take turns; the memory is that of its first page.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from benchmarks import bodies, command, figures
from benchmarks.figures import Aim, Result, Table

# --- contestants ---

Decode: TypeAlias = Callable[[bytes], Any]


def ours() -> Decode:
    """The package's decoder."""
    from amigo_async.decoding import decode_run_page  # noqa: PLC0415  # a process has one alone

    return decode_run_page


def official() -> Decode:
    """The vendor's model, which is of pydantic."""
    from amigo_sdk.generated.model import (  # noqa: PLC0415  # a process has one alone
        SimulationGetSimulationUnitTestSetRunsResponse,
    )

    return SimulationGetSimulationUnitTestSetRunsResponse.model_validate_json


def plain() -> Decode:
    """The standard library: dicts and lists, of which nothing is checked."""
    return json.loads


class _User(Struct, frozen=True, gc=False):
    org_id: str
    user_id: str


class _Run(Struct, frozen=True, gc=False):
    org_id: str
    id: str
    is_completed: bool
    simulation_unit_test_set_id: str
    failed_metrics: bool
    errored: bool
    artifacts_generated: bool
    unit_test_run_specs: msgspec.Raw
    unit_test_run_results: msgspec.Raw
    created_at: datetime
    creator: _User


class _Page(Struct, frozen=True, gc=False):
    simulation_unit_test_set_runs: list[_Run]
    has_more: bool
    continuation_token: int | None
    filter_values: msgspec.Raw


def lazy() -> Decode:
    """The least that msgspec can do: what makes a page large is skipped, and checked by nobody."""
    return msgspec.json.Decoder(_Page).decode


OURS: Final = "amigo_async"
OFFICIAL: Final = "amigo_sdk (pydantic)"

DECODERS: Final[dict[str, Callable[[], Decode]]] = {
    OURS: ours,
    "msgspec, gc=False and details as Raw": lazy,
    "json, dicts": plain,
    OFFICIAL: official,
}


# --- the benchmark ---

WANTED: Final = 15.0
_STATUS: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")
NOTES: Final = [
    (
        "To leave the details as `Raw` until they are looked at would save most of what is left, "
        "and is not worth its price: a malformed answer would be found out in the user's code "
        "instead of by the call, and each run would keep its whole page in memory."
    ),
    (
        "Up to Python 3.11 the garbage collector goes through what is being made several times "
        "while it is made, which is much of what the vendor's models and the dicts take. The "
        "package's structs are out of its sight, for what is decoded has no cycles: before they "
        "were, and while an `Evaluation` was a named tuple, a page of 50 runs took twice as long."
    ),
    (
        "To switch the collector off for the rest, the lists, would save a third, and is not "
        "worth its price: it is switched for the whole process, and from Python 3.12 on it does "
        "not run there anyway."
    ),
]
_HEAD: Final = [
    "page",
    "contestant",
    "time a page (ms)",
    "time of amigo_sdk over its own",
    "memory at the peak (MB)",
]


class Page(Struct, frozen=True):
    """A page to decode.

    Attributes:
        name: What it is called.
        body: It.
    """

    name: str
    body: bytes


class Taken(Struct, frozen=True, kw_only=True):
    """What one contestant took for one page in one round.

    Attributes:
        who: The contestant.
        page: The page.
        seconds: Seconds of the processor a page.
    """

    who: str
    page: str
    seconds: float


def spend(who: str, body: bytes, times: int) -> float:
    """Seconds of the processor to decode a page, which is dropped before the next one."""
    decode = DECODERS[who]()
    decode(body)
    began = time.process_time()
    for _ in range(times):
        decode(body)
    return (time.process_time() - began) / times


def grow(who: str, body: bytes) -> float | None:
    """By how many bytes a process grows at most while it decodes one page; None off Linux."""
    decode = DECODERS[who]()
    decode(bodies.page(1, seed=0, plan=None))
    if not _RESET.exists():
        return None
    _RESET.write_text("5", encoding="ascii")  # the peak is what is held now
    before = _peak()
    decode(body)
    return _peak() - before


def _peak() -> float:
    match = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="utf-8"))
    return 0.0 if match is None else float(match[1]) * 1024


def pages(options: argparse.Namespace) -> list[Page]:
    """A page of runs with all their details, one run of it, and a page without details."""
    made = {
        f"{options.runs} runs": bodies.page(options.runs, seed=options.seed),
        "1 run": bodies.page(1, seed=options.seed),
        f"{options.runs} runs without details": bodies.page(
            options.runs, seed=options.seed, plan=None
        ),
    }
    return [Page(f"{name}, {_size(body)}", body) for name, body in made.items()]


def _size(body: bytes) -> str:
    return f"{len(body) / 1e6:.2f} MB" if len(body) >= 1e6 else f"{len(body) / 1e3:.0f} kB"


def rounds(
    options: argparse.Namespace, shown: Sequence[Page]
) -> tuple[list[Taken], dict[str, float | None]]:
    """Time all, in turns, after they have shown how many bytes each takes for the first page."""
    spawn = get_context("spawn")
    taken = []
    with ExitStack() as stack:
        pools = {
            who: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
            for who in options.contestants
        }
        memory = {who: pools[who].submit(grow, who, shown[0].body).result() for who in pools}
        for _, page, who in itertools.product(range(options.rounds), shown, pools):
            times = max(1, round(options.megabytes * 1e6 / len(page.body)))
            seconds = pools[who].submit(spend, who, page.body, times).result()
            taken.append(Taken(who=who, page=page.name, seconds=seconds))
    return taken, memory


def _of(taken: Sequence[Taken], who: str, page: str) -> list[float]:
    return [one.seconds for one in taken if (one.who, one.page) == (who, page)]


def over(taken: Sequence[Taken], who: str, page: str) -> list[float]:
    """The time of the vendor's models over that of another, by round."""
    official = _of(taken, OFFICIAL, page)
    return [a / b for a, b in zip(official, _of(taken, who, page), strict=True)]


def table(taken: Sequence[Taken], shown: Sequence[Page], grown: dict[str, float | None]) -> Table:
    """The figures of each page and contestant; memory of the first page alone."""
    rows = []
    for page, who in itertools.product(shown, grown):
        held = grown[who] if page is shown[0] else None
        rows.append(
            [
                page.name,
                who,
                figures.spread([seconds * 1e3 for seconds in _of(taken, who, page.name)], ",.3f"),
                figures.spread(over(taken, who, page.name), ",.1f"),
                "" if held is None else f"{held / 1e6:,.1f}",
            ]
        )
    return Table(_HEAD, rows)


def result(options: argparse.Namespace) -> Result:
    """Measure, and tell."""
    shown = pages(options)
    taken, grown = rounds(options, shown)
    large = over(taken, OURS, shown[0].name)
    aims = [
        Aim(
            f"at least {WANTED:g} times as quick as the vendor's models on a page of fifty runs",
            figures.spread(large),
            statistics.median(large) >= WANTED if options.runs == 50 else None,
        )
    ]
    return Result(
        name="decode",
        measures=(
            "What it takes to make structs of a page of runs, against the vendor's models, the "
            "standard library, which makes dicts and checks nothing, and the least that msgspec "
            "can do."
        ),
        conditions=(
            f"Runs of {bodies.FULL.unit_tests} unit tests with {bodies.FULL.repeats} repeats and "
            f"{bodies.FULL.metrics} metrics each; {options.rounds} rounds in turns, a process for "
            "each contestant. Memory: by how much a fresh process grows at its peak while it "
            "decodes the first page once."
        ),
        tables=[table(taken, shown, grown)],
        aims=aims,
        notes=NOTES,
        packages=["amigo_sdk", "pydantic"],
    )


def flags() -> argparse.ArgumentParser:
    """The flags."""
    parser = command.parser(__doc__, rounds=9)
    parser.add_argument("--runs", type=int, default=50, help="runs on the large page")
    parser.add_argument("--contestants", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--megabytes", type=float, default=9.0, help="to decode of each in a round")
    return parser


QUICK: Final = {"rounds": 1, "megabytes": 0.1, "runs": 5, "contestants": [OURS, OFFICIAL]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    command.run(flags(), result, argv, quick=QUICK)


if __name__ == "__main__":
    main()
