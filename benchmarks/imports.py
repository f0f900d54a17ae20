"""What importing costs: the processor's time in fresh processes, and how many modules are loaded.

Each import has a process of its own, they take turns, and all bytecode was compiled before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from benchmarks import command, figures
from benchmarks.figures import Aim, Result, Table

WANTED: Final = 1.25

OURS: Final = "amigo_async"
DEPENDENCIES: Final = "its four dependencies"
IMPORTS: Final = {
    OURS: "from amigo_async import AmigoClient",
    DEPENDENCIES: "import aiohttp, anyio, backoff, msgspec",
    "amigo_sdk": "from amigo_sdk import AsyncAmigoClient",
    "openai": "from openai import AsyncOpenAI",
}

_CODE: Final = """
import json, sys, time
before, began = len(sys.modules), time.process_time()
{statement}
print(json.dumps([time.process_time() - began, len(sys.modules) - before]))
"""
NOTES: Final = [
    (
        "What is left is the nearly eighty modules of the package. To load those of batches and of "
        "artifacts only when they are used is not worth its price: imports hidden in methods, and "
        "the same milliseconds at the first batch."
    ),
]
_HEAD: Final = ["import", "time (ms)", "time over that of the dependencies", "modules loaded"]


class Taken(Struct, frozen=True, kw_only=True):
    """What one import took.

    Attributes:
        who: What was imported.
        seconds: Seconds of the processor.
        modules: How many modules were loaded.
    """

    who: str
    seconds: float
    modules: int


def measure(who: str, environment: Mapping[str, str]) -> Taken:
    """Import something in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE.format(statement=IMPORTS[who])],
        stdout=subprocess.PIPE,
        check=True,
        env=environment,
    )
    seconds, modules = json.loads(done.stdout)
    return Taken(who=who, seconds=seconds, modules=modules)


def rounds(count: int, contestants: Sequence[str]) -> list[Taken]:
    """Measure all, in turns."""
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ, PYTHONPYCACHEPREFIX=cache)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for who in contestants:
            measure(who, environment)  # compiles
        return [measure(who, environment) for _ in range(count) for who in contestants]


def _of(taken: Sequence[Taken], who: str) -> list[Taken]:
    return [one for one in taken if one.who == who]


def over(taken: Sequence[Taken], who: str) -> list[float]:
    """The time of an import over that of the dependencies, by round."""
    pairs = zip(_of(taken, who), _of(taken, DEPENDENCIES), strict=True)
    return [a.seconds / b.seconds for a, b in pairs]


def table(taken: Sequence[Taken]) -> Table:
    """The figures of each import."""
    rows = [
        [
            f"`{IMPORTS[who]}`",
            figures.spread([one.seconds * 1e3 for one in _of(taken, who)], ",.0f"),
            figures.spread(over(taken, who), ".2f"),
            figures.spread([one.modules for one in _of(taken, who)], ",.0f"),
        ]
        for who in dict.fromkeys(one.who for one in taken)
    ]
    return Table(_HEAD, rows)


def result(options: argparse.Namespace) -> Result:
    """Measure, and tell."""
    taken = rounds(options.rounds, options.contestants)
    ratio = over(taken, OURS)
    what = f"at most {WANTED:.2f} times the import of its four dependencies"
    return Result(
        name="imports",
        measures=(
            "What importing the package costs beside its dependencies, which a program of asyncio "
            "often has loaded anyway, against the vendor's SDK and openai."
        ),
        conditions=(
            f"Fresh processes, {options.rounds} rounds in turns, bytecode compiled before. Modules "
            "are those that a bare interpreter has not loaded."
        ),
        tables=[table(taken)],
        aims=[Aim(what, figures.spread(ratio, ".2f"), statistics.median(ratio) <= WANTED)],
        notes=NOTES,
        packages=["backoff", "amigo_sdk", "openai"],
    )


def flags() -> argparse.ArgumentParser:
    """The flags."""
    parser = command.parser(__doc__, rounds=31)
    parser.add_argument("--contestants", nargs="+", choices=IMPORTS, default=list(IMPORTS))
    return parser


QUICK: Final = {"rounds": 1, "contestants": [OURS, DEPENDENCIES]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    command.run(flags(), result, argv, quick=QUICK)


if __name__ == "__main__":
    main()
