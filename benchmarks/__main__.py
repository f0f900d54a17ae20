"""Run the benchmarks, each in a process of its own, and write RESULTS.md with its plots."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import page
from benchmarks.page import Measured

HERE = Path(__file__).parent

# In the order of the page: what is most asked for first.
NAMES = (
    "batch",
    "verdicts",
    "full",
    "fault",
    "wait",
    "large",
    "call",
    "decode",
    "download",
    "imports",
    "fleet",
    "replicas",
)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; the page has these alone, and those of --from-json",
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=[], help="the same")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--rounds", help="as for each benchmark")
    parser.add_argument("--seed", help="as for each benchmark")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results here too")
    parser.add_argument(
        "--from-json",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="results to show again; later files, and benchmarks that are named, replace them",
    )
    parser.add_argument("--output", type=Path, default=HERE, help="where RESULTS.md and plots go")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status, 1 if a benchmark failed."""
    parser = arguments()
    options = parser.parse_args(argv)
    wrong = set(options.names) - set(NAMES)
    if wrong:
        parser.error(f"no such benchmark: {', '.join(sorted(wrong))}")
    named = [*options.names, *options.only]
    asked = [name for name in NAMES if name in named or not (named or options.from_json)]
    results = {one.name: one for file in options.from_json for one in read(file)}
    for name in asked:
        results[name] = run(name, flags(options), quick=options.quick)
        if options.json is not None:  # after each: what was measured is not lost
            options.json.write_bytes(msgspec.json.encode(in_order(results.values())))
    write(in_order(results.values()), options.output)
    return 1 if any(results[name].failure for name in asked) else 0


def flags(options: argparse.Namespace) -> list[str]:
    """What is passed on to each benchmark."""
    given = {"--rounds": options.rounds, "--seed": options.seed}
    passed = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    return [*["--quick"] * options.quick, *passed]


def read(file: Path) -> list[Measured]:
    """The results in a file: of ``--json`` here, or of one benchmark."""
    found = msgspec.json.decode(file.read_bytes(), type=list[Measured] | Measured)
    return found if isinstance(found, list) else [found]


def in_order(results: Iterable[Measured]) -> list[Measured]:
    """As on the page."""
    return sorted(results, key=lambda one: NAMES.index(one.name))


def run(name: str, passed: Sequence[str], *, quick: bool) -> Measured:
    """Run one benchmark in a process of its own; what it says of failures goes to our stderr."""
    print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *passed]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=HERE.parent)
    seconds = time.perf_counter() - began
    try:
        measured = msgspec.json.decode(done.stdout, type=Measured)
    except msgspec.DecodeError:
        measured = None
    if done.returncode or measured is None:
        measured = _failed(name, f"exit status {done.returncode}", seconds, quick=quick)
    print(f"{measured.failure or 'done'} in {seconds:.0f} s", file=sys.stderr)
    return measured


def _failed(name: str, failure: str, seconds: float, *, quick: bool) -> Measured:
    today = datetime.now(UTC).date().isoformat()
    return Measured(
        name=name, result=None, date=today, seconds=seconds, quick=quick, failure=failure
    )


def write(results: Sequence[Measured], output: Path) -> None:
    """Write the page, and its plots in place of those that were there."""
    from benchmarks import plots  # noqa: PLC0415  # matplotlib is needed here alone

    folder = output / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for one in results:
        for plot in one.result.plots if one.result is not None else []:
            plots.draw(plot, folder / page.plot_file(one.name, plot))
    (output / "RESULTS.md").write_text(page.whole(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
