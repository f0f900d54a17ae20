"""The command of one benchmark: its common flags, its result, and what that was measured on."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from benchmarks import machine, page
from benchmarks.figures import Result


def parser(description: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """The flags that every benchmark has; it adds its sizes.

    Args:
        description: The docstring of the benchmark.
        rounds: The default of ``--rounds``.
    """
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=rounds, help="rounds, the contestants in turn")
    made.add_argument("--seed", type=int, default=1, help="what chance is drawn from")
    made.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    made.add_argument("--json", action="store_true", help="write JSON instead of Markdown")
    return made


def run(
    flags: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Result],
    argv: Sequence[str] | None = None,
    *,
    quick: Mapping[str, Any],
) -> None:
    """Measure, and write to standard output: with ``--json`` a `page.Measured`.

    Args:
        flags: The flags, from `parser`.
        measure: Measures what the flags say; writes nothing to standard output.
        argv: The arguments; None for those of the process.
        quick: What ``--quick`` makes of the flags' defaults, by their names.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if "--quick" in given:
        flags.set_defaults(**quick)
    options = flags.parse_args(given)
    began = time.perf_counter()
    result = measure(options)
    measured = page.Measured(
        name=result.name,
        result=result,
        machine=machine.facts(),
        packages=machine.versions(result.packages),
        date=datetime.now(UTC).date().isoformat(),
        seconds=time.perf_counter() - began,
        quick=options.quick,
    )
    print(msgspec.json.encode(measured).decode() if options.json else page.alone(measured))
