"""Fuzz all that is read, guided by coverage: ``python -m tests.unit.fuzz --seconds 600``.

Needs ``pip install atheris``. What it finds becomes a test in `test_hostile_input`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["amigo_async"]):
    from tests.unit.fuzz import targets


def main() -> None:
    """Read the command line, and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.unit.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long (default: 600)")
    parser.add_argument("--corpus", type=Path, help="a folder in which to keep what is new")
    parser.add_argument("--target", choices=sorted(targets.TARGETS), help="this one alone")
    asked = parser.parse_args()
    names = [asked.target] if asked.target else sorted(targets.TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        words, seeds = Path(folder, "words"), Path(folder, "seeds")
        words.write_text("".join(map(_word, targets.PIECES)))
        seeds.mkdir()
        for number, name in enumerate(names):
            for count, seed in enumerate(targets.SEEDS.get(name, [b"\xff"])):
                (seeds / f"{name}-{count}").write_bytes(bytes([number]) + seed)
        kept = asked.corpus or Path(folder, "corpus")
        kept.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={asked.seconds}", "-timeout=10", "-max_len=2048"]
        options += [
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-dict={words}",
            f"-artifact_prefix={folder}/",
        ]
        atheris.Setup([sys.argv[0], *options, str(kept), str(seeds)], _chosen(names))
        atheris.Fuzz()


def _word(piece: bytes) -> str:
    """A line of libFuzzer's dictionary; the longest words are of no use there."""
    return "".join(f"\\x{byte:02x}" for byte in piece[:60]).join(('"', '"\n')) if piece else ""


def _chosen(names: list[str]) -> Callable[[bytes], None]:
    """Hands its input to one of the targets: the first byte says to which."""

    def fuzz(data: bytes) -> None:
        if data:
            targets.TARGETS[names[data[0] % len(names)]](data[1:])

    return fuzz


if __name__ == "__main__":
    main()
