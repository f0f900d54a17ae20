"""Batches over and over, with faults, for minutes: what the client holds must not grow.

The sandbox is in another process, so that what is measured is the client's alone. Something
happens to one request in five, of every kind there is. One client is kept for the whole time, and
every fourth round has a fresh one; every fifth round is left before it is over, and what it has
started is taken up by the next. Ends with status 1 where a bound is exceeded, a run is lost, or an
artifact is not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from amigo_async import AmigoClient, RunOutcome
from amigo_async.protocol.endpoints import EndpointName
from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan, VirtualTimeLoop
from benchmarks import machine, samples
from benchmarks.samples import Sample

# Windows of two seconds, with room for a round in each: the limiters are at work all the time.
_ROUTES: Final[tuple[EndpointName, ...]] = ("sign_in", "create", "list", "cancel", "artifacts")
_LIMITS: Final = dict.fromkeys(_ROUTES, 150)
_SIZE: Final = 200_000
_PLAN: Final = SetPlan(
    seconds=(0.1, 1.0), artifacts_after=0.1, unit_tests=2, artifact=ArtifactPlan(size=_SIZE)
)
_FRESH_EVERY: Final = 4
_LEFT_EVERY: Final = 5


class Kept(msgspec.Struct):
    """What came of the rounds.

    Attributes:
        samples: What the process held between them.
        rounds: How many there were.
        seconds: How long they took.
        verdicts: How many outcomes there were of each verdict, in rounds that were not left.
        errors: The errors of outcomes, by name.
        problems: What must not be, in words.
    """

    samples: list[Sample] = []
    rounds: int = 0
    seconds: float = 0.0
    verdicts: Counter[str] = msgspec.field(default_factory=Counter)
    errors: Counter[str] = msgspec.field(default_factory=Counter)
    problems: list[str] = []


class Service(msgspec.Struct, frozen=True):
    """A sandbox, wherever it serves.

    Attributes:
        settings: The arguments of a client for it.
        set_ids: Its sets.
    """

    settings: dict[str, str]
    set_ids: list[str]


def prepared(sets: int, seed: int, share: float) -> tuple[Sandbox, list[str]]:
    """A sandbox with sets, in which something happens to a share of all requests."""
    sandbox = Sandbox(limits=_LIMITS, window=2.0, seed=seed, keep_requests=100)
    set_ids = sandbox.add_sets(sets, _PLAN)
    both = [
        *(Fault.drop(), Fault.drop(reset=True), Fault.drop(after_work=True)),
        *(Fault.delay(0.2), Fault.delay(0.2, after_work=True), Fault.truncate()),
        *(Fault.truncate(reset=True), Fault.status(500), Fault.status(503), Fault.drip(0.01, 64)),
        *(Fault.status(502, b"<html>bad gateway</html>"), Fault.status(429)),
    ]
    ours = [*both, Fault.garbage(), Fault.stall(), Fault.status(502, after_work=True)]
    theirs = [*both[:-3], Fault.drip(0.01, 50_000), *both[-2:]]
    theirs += [Fault.expired_link(), Fault.ignore_range(), Fault.wrong_offset()]
    for number, route in enumerate(_ROUTES):
        # A token expires in front of a few lists: two in a row would be refused for good.
        faults = [*ours, Fault.expired_token()] if route == "list" else ours
        sandbox.faults_at_random(route, *faults, rate=share, seed=seed + number)
    sandbox.faults_at_random("store", *theirs, rate=share, seed=seed + 9)
    return sandbox, set_ids


@asynccontextmanager
async def beside(options: argparse.Namespace) -> AsyncIterator[Service]:
    """The sandbox in a process of its own."""
    arguments = ["--serve", f"--sets={options.sets}", f"--seed={options.seed}"]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak", f"--faults={options.faults}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        line = await program.stdout.readline() if program.stdout else b""
        yield msgspec.json.decode(line, type=Service)
    finally:
        if program.stdin:
            program.stdin.close()  # on which it ends
        await program.wait()


@asynccontextmanager
async def within(options: argparse.Namespace) -> AsyncIterator[Service]:
    """The sandbox in the same loop, as it must be where waits are skipped."""
    sandbox, set_ids = prepared(options.sets, options.seed, options.faults)
    async with sandbox:
        yield _service(sandbox, set_ids)


async def serve(options: argparse.Namespace) -> None:
    """Be the sandbox of another process, until that closes the standard input."""
    sandbox, set_ids = prepared(options.sets, options.seed, options.faults)
    async with sandbox:
        print(msgspec.json.encode(_service(sandbox, set_ids)).decode(), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _service(sandbox: Sandbox, set_ids: list[str]) -> Service:
    settings = {
        name.removeprefix("AMIGO_").lower(): str(value)
        for name, value in sandbox.environment().items()
    }
    return Service(settings, set_ids)


async def soak(options: argparse.Namespace) -> Kept:
    """Do rounds for as long, or as many, as asked for."""
    kept = Kept()
    clock = asyncio.get_running_loop().time
    serving = within(options) if options.skip else beside(options)
    async with serving as service, _client(service) as client:
        began = due = clock()
        until = began + options.seconds
        while clock() < until and kept.rounds != options.rounds:
            kept.rounds += 1
            await _round(kept, service, client)
            if clock() >= due:
                due = clock() + options.every
                await asyncio.sleep(0.1)  # what is closed is closed in the next steps of the loop
                kept.samples.append(samples.take(kept.rounds))
        kept.seconds = clock() - began
    return kept


def _client(service: Service) -> AmigoClient:
    return AmigoClient(request_timeout=1.0, **service.settings)  # type: ignore[arg-type]


async def _round(kept: Kept, service: Service, client: AmigoClient) -> None:
    """One batch, on the client that is kept or on a fresh one."""
    with tempfile.TemporaryDirectory() as folder:
        if kept.rounds % _FRESH_EVERY:
            await _batch(kept, service, client, Path(folder))
        else:
            async with _client(service) as fresh:
                await _batch(kept, service, fresh, Path(folder))


async def _batch(kept: Kept, service: Service, client: AmigoClient, folder: Path) -> None:
    """One batch; some are left before they are over."""
    left = kept.rounds % _LEFT_EVERY == 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.8 if left else None):
            result = await client.run_many(
                service.set_ids,
                artifacts_dir=folder,
                journal=folder / "batch.jsonl",
                on_conflict="attach",
                on_event=lambda _: None,
            )
            for outcome in result.outcomes:
                _note(kept, outcome)


def _note(kept: Kept, outcome: RunOutcome) -> None:
    """Count an outcome, and see that nothing is lost without a word."""
    kept.verdicts[outcome.verdict] += 1
    if outcome.error is not None:
        kept.errors[f"{type(outcome.error).__name__}: {outcome.error}"] += 1
    elif outcome.artifacts is None or outcome.artifacts.stat().st_size != _SIZE:
        kept.problems.append(f"round {kept.rounds}: the artifact of {outcome.run_id} is not whole")
    if outcome.verdict != "passed":
        kept.problems.append(f"round {kept.rounds}: {outcome.verdict}: {outcome.error}")


def tell(kept: Kept, options: argparse.Namespace) -> list[str]:
    """Write what was measured; what must not be, in words."""
    bounds = samples.bounds(options.sets, served_here=options.skip)
    problems = [*kept.problems, *samples.exceeded(kept.samples, bounds)]
    how = "waits were skipped" if options.skip else "in real time"
    print("; ".join(f"{name}: {value}" for name, value in machine.facts().items()))
    print(
        f"\n{kept.rounds} rounds of {options.sets} sets in {kept.seconds:,.0f} s, {how}; faults "
        f"hit {options.faults:.0%} of the requests; {len(kept.samples)} samples, of which the "
        f"first {samples.WARM_UP:.0%} are left out.\n"
    )
    print(samples.table(kept.samples, bounds))
    told = {"verdicts": dict(kept.verdicts), "errors": dict(kept.errors)}
    print(f"\n{json.dumps(told)}\n")
    print("\n".join(f"NOT KEPT: {problem}" for problem in problems) or "All bounds are kept.")
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write to standard output; 1 where a bound was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long")
    parser.add_argument("--rounds", type=int, help="stop after so many; as many as there is time")
    parser.add_argument("--sets", type=int, default=60, help="sets of a round")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between samples")
    parser.add_argument("--faults", type=float, default=0.2, help="share of requests hit")
    parser.add_argument("--seed", type=int, default=1, help="what faults are drawn from")
    parser.add_argument("--skip", action="store_true", help="skip waits, all in one process")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        asyncio.run(serve(options))
        return 0
    factory = VirtualTimeLoop if options.skip else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return 1 if tell(runner.run(soak(options)), options) else 0


if __name__ == "__main__":
    sys.exit(main())
