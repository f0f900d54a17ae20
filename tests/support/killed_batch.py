"""A program for the test of kills: runs batches in children, and kills them at random moments.

Reads JSON from stdin: sets of each round, a folder, a seed and how many kills. Each round is run
with one journal until a child ends by itself. When there were enough kills no other round begins;
then it writes how many rounds there were, and how many children were killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import selectors
import signal
import sys
import time
from pathlib import Path

from amigo_async import AmigoClient

# To find out that a create was lost takes half a minute, and of the loop that time alone is long.
SPEED = 10.0


class HurriedSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / SPEED)


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds are tenths of real ones."""

    def __init__(self) -> None:
        super().__init__(HurriedSelector())

    def time(self) -> float:
        return super().time() * SPEED


async def batch(set_ids: list[str], folder: Path) -> None:
    async with AmigoClient(poll_interval=0.1 * SPEED) as client:
        result = await client.run_many(
            set_ids, artifacts_dir=folder / "artifacts", journal=folder / "batch.jsonl"
        )
    outcomes = [
        [o.unit_test_set_id, o.run_id, o.verdict, str(o.artifacts), str(o.error or "")]
        for o in result.outcomes
    ]
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


def child(set_ids: list[str], folder: Path) -> int:
    """Run a batch in a child; the child's id."""
    pid = os.fork()
    if pid == 0:
        with asyncio.Runner(loop_factory=HurriedLoop) as runner:
            runner.run(batch(set_ids, folder))
        os._exit(0)
    return pid


def killed(pid: int, after: float) -> bool:
    """Kill a child after a while; False if it has ended by itself before."""
    until = time.monotonic() + after
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def main() -> None:
    told = json.load(sys.stdin)
    chance = random.Random(told["seed"])
    kills = played = 0
    for number, set_ids in enumerate(told["rounds"]):
        if kills == told["kills"]:
            break
        played += 1
        folder = Path(told["folder"]) / str(number)
        folder.mkdir()
        while killed(
            child(set_ids, folder),
            chance.uniform(0.02, 0.35) if kills < told["kills"] else 60.0,
        ):
            kills += 1
    print(json.dumps({"kills": kills, "rounds": played}))  # noqa: T201  # what it is for


if __name__ == "__main__":
    main()
