"""How often verdicts are wrong: false alarms for an unchanged agent, and real drops that are seen.

Comparisons are simulated by drawing whether each repeat passes, and judged by our functions and
by the rules of others on the same draws. Verdicts of gates are counted exactly.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import statistics
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from amigo_async import Run, compare
from amigo_async.testing import Sandbox, SetPlan, VirtualTimeLoop
from amigo_async.verdicts import statistics as ours
from benchmarks import command, figures, rules
from benchmarks.figures import Aim, Curve, Plot, Result, Table
from benchmarks.rules import ALPHA, OURS, RULES, Sample

T = TypeVar("T")

PROCESSES: Final = 2
# Numbers of unit tests, and how many more comparisons than of the largest can be afforded.
SIZES: Final = {1: 20, 20: 4, 200: 1}
REPEATS: Final = (3, 5, 10, 20)
RATES: Final = (0.5, 0.7, 0.9, 0.95, 0.99)
EFFECT: Final = 0.2
SETS: Final = 60
METRICS: Final = 3
# How far the metrics of one conversation stand and fall together.
TOGETHER: Final = 0.8
WITHOUT_HOLM: Final = f"{OURS}, sets uncorrected"

# A drop: in how many unit tests of 20, from what rate, to what rate.
DROPS: Final = {
    "0.9 to 0.7 in one of 20": (1, 0.9, 0.7),
    "0.9 to 0.5 in one of 20": (1, 0.9, 0.5),
    "0.95 to 0.85 in all 20": (20, 0.95, 0.85),
}
SHOWN: Final = (5, 10, 20)
SOUGHT: Final = (3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 120)
POWER: Final = 0.8

THRESHOLDS: Final = (0.8, 0.9, 0.95, 0.99)
GATE_TESTS: Final = (1, 20)
GATE_REPEATS: Final = range(3, 61)

# Written down before anything was run with them; in 200 comparisons of the same agent at most this
# many regressions, which is exceeded less often than once in a hundred times.
SEEDS: Final = range(1, 11)
PAIRS: Final = 20
MOST_OF_200: Final = 18

# Of a real drop, in a scenario, what a rule may be behind another that keeps its alpha.
ALLOWED: Final = 0.05
QUICKEST: Final = 0.3
_MOST_DRAWN: Final = 4_000_000


class Cell(Struct, frozen=True, kw_only=True):
    """Comparisons to simulate.

    Attributes:
        tests: Number of unit tests.
        repeats: Repeats of each unit test in the candidate, and in each run of the baseline.
        rate: Their pass rate; of each metric, where there are several.
        comparisons: How many to simulate; how many batches, where `sets` is more than 1.
        seed: What they are drawn from.
        worse_tests: Number of unit tests that have got worse.
        worse: The pass rate of those in the candidate.
        effect: Standard deviation of a shift of all rates from run to run, in logits.
        metrics: Metrics of each repeat.
        sets: Sets that are judged together.
        baseline_runs: Runs of the baseline.
    """

    tests: int
    repeats: int
    rate: float
    comparisons: int
    seed: int
    worse_tests: int = 0
    worse: float = 0.0
    effect: float = 0.0
    metrics: int = 1
    sets: int = 1
    baseline_runs: int = 1


class Found(Struct, frozen=True, kw_only=True):
    """How often each rule says "regressed", and how often the normal form decided of the set."""

    cell: Cell
    shares: dict[str, float]
    normal: float


def draw(cell: Cell, count: int, dice: np.random.Generator) -> Sample:
    """Simulate comparisons."""
    before = np.full(cell.tests, cell.rate)
    after = before.copy()
    after[: cell.worse_tests] = cell.worse
    runs = [_run(before, cell, count, dice) for _ in range(cell.baseline_runs)]
    return Sample(np.concatenate(runs, axis=-1), _run(after, cell, count, dice))


def _run(rates: rules.Shares, cell: Cell, count: int, dice: np.random.Generator) -> rules.Flags:
    """Draw a run of each comparison: what passed, by metric, comparison, unit test and repeat."""
    chances = np.broadcast_to(rates, (count, cell.tests))
    if cell.effect:
        shift = dice.normal(0.0, cell.effect, size=(count, 1))
        chances = 1 / (1 + (1 - chances) / chances * np.exp(-shift))
    shape = (cell.metrics, count, cell.tests, cell.repeats)
    luck = dice.random(shape, dtype=np.float32)
    if cell.metrics > 1:
        same = dice.random(shape, dtype=np.float32) < TOGETHER
        luck = np.where(same, luck[:1], luck)
    return np.asarray(luck < chances[None, :, :, None])


def measure(cell: Cell) -> Found:
    """Simulate and judge."""
    dice = np.random.default_rng(cell.seed)
    chosen = dict(RULES)
    if cell.metrics > 1:
        chosen[rules.POOLED] = rules.pooled
    left, flagged, normal = cell.comparisons * cell.sets, dict[str, list[rules.Flags]](), 0.0
    p_values = []
    most = max(1, _MOST_DRAWN // (2 * cell.metrics * cell.tests * cell.repeats))
    while left:
        count = min(left, most)
        sample = draw(cell, count, dice)
        for name, rule in chosen.items():
            flagged.setdefault(name, []).append(rule(sample))
        p_values.append(sample.p_values)
        normal += sample.normal * count
        left -= count
    every = {name: np.concatenate(parts) for name, parts in flagged.items()}
    if cell.sets > 1:
        every = {name: _any(flags, cell.sets) for name, flags in every.items()}
        every[WITHOUT_HOLM] = every[OURS]
        batches = np.concatenate(p_values).reshape(-1, cell.sets)
        every[OURS] = np.array([min(ours.holm(list(batch))) <= ALPHA for batch in batches])
    return Found(
        cell=cell,
        shares={name: float(flags.mean()) for name, flags in every.items()},
        normal=normal / (cell.comparisons * cell.sets),
    )


def _any(flags: rules.Flags, sets: int) -> rules.Flags:
    return np.asarray(flags.reshape(-1, sets).any(axis=1))


# --- what is simulated ---


def unchanged(comparisons: int) -> Iterator[Cell]:
    """Two runs of the same agent, of every size."""
    for (tests, more), repeats, rate in itertools.product(SIZES.items(), REPEATS, RATES):
        yield Cell(tests=tests, repeats=repeats, rate=rate, comparisons=comparisons * more, seed=0)


def unchanged_further(comparisons: int) -> dict[str, list[Cell]]:
    """The same with more to it: several metrics, a baseline of several runs, many sets at once."""
    many = {"tests": 20, "comparisons": 2 * comparisons, "seed": 0}
    grid = list(itertools.product((3, 5, 10), (0.7, 0.9, 0.99)))
    return {
        f"20, {METRICS} correlated metrics": [
            Cell(repeats=n, rate=rate, metrics=METRICS, **many) for n, rate in grid
        ],
        "20, baseline of 5 runs": [
            Cell(repeats=n, rate=rate, baseline_runs=5, **many) for n, rate in grid
        ],
        f"{SETS} sets of 20": [
            Cell(
                tests=20,
                repeats=n,
                rate=rate,
                sets=SETS,
                comparisons=max(1, comparisons // 2),
                seed=0,
            )
            for n, rate in ((5, 0.9), (10, 0.95))
        ],
    }


def shifted(comparisons: int) -> list[Cell]:
    """Two runs of the same agent, whose rates all shift a little from run to run."""
    return [
        Cell(
            tests=tests,
            repeats=repeats,
            rate=0.9,
            effect=EFFECT,
            comparisons=comparisons * more,
            seed=0,
        )
        for (tests, more), repeats in itertools.product(SIZES.items(), (5, 10, 20))
    ]


def dropped(comparisons: int, *, baseline_runs: int = 1) -> list[Cell]:
    """A real drop, with more and more repeats."""
    return [
        Cell(
            tests=20,
            repeats=repeats,
            rate=rate,
            worse_tests=tests,
            worse=worse,
            baseline_runs=baseline_runs,
            comparisons=comparisons,
            seed=0,
        )
        for (tests, rate, worse), repeats in itertools.product(
            DROPS.values(), SOUGHT if baseline_runs == 1 else SHOWN
        )
    ]


def error(share: float, comparisons: int) -> float:
    """The standard error of a simulated share."""
    return math.sqrt(share * (1 - share) / comparisons)


def keeps(found: Found, rule: str) -> bool:
    """Whether a share is at most alpha, within three standard errors."""
    return found.shares[rule] <= ALPHA + 3 * error(ALPHA, found.cell.comparisons)


# --- tables ---


def _share(share: float) -> str:
    return f"{share:.3f}"


def worst(groups: dict[str, list[Found]]) -> Table:
    """The largest share of false alarms of each rule, over repeats and rates."""
    rows = []
    for name in (*RULES, WITHOUT_HOLM, rules.POOLED):
        cells = [[f.shares[name] for f in found if name in f.shares] for found in groups.values()]
        rows.append([name, *(_share(max(some)) if some else "n/a" for some in cells)])
    return Table(
        ["rule", *(_tests(name) for name in groups)],
        rows,
        "An unchanged agent called worse: the largest share over 3 to 20 repeats and rates from "
        "0.5 to 0.99",
    )


def _tests(name: str) -> str:
    return {"1": "1 unit test"}.get(name, name if " " in name else f"{name} unit tests")


def in_detail(found: Sequence[Found]) -> Table:
    """Our false alarms in every cell; a star where the normal form decided mostly."""
    rows = []
    for tests, repeats in itertools.product(SIZES, REPEATS):
        row = [
            f
            for rate in RATES
            for f in found
            if (f.cell.tests, f.cell.repeats, f.cell.rate) == (tests, repeats, rate)
        ]
        stars = [f"{_share(f.shares[OURS])}{'*' * (f.normal > 0.5)}" for f in row]
        rows.append([str(tests), str(repeats), *stars])
    return Table(
        ["unit tests", "repeats", *(f"rate {rate}" for rate in RATES)],
        rows,
        f"An unchanged agent called worse by {OURS}, in each cell (*: by the normal form)",
    )


def with_effect(found: Sequence[Found]) -> Table:
    """False alarms where all rates shift from run to run."""
    rows = [[name, *(_share(f.shares[name]) for f in found)] for name in RULES]
    head = [f"{f.cell.tests} x {f.cell.repeats}" for f in found]
    return Table(
        ["rule; unit tests x repeats", *head],
        rows,
        f"An unchanged agent called worse where all its rates (0.9) shift from run to run by "
        f"{EFFECT} logit",
    )


def gates() -> tuple[Table, float]:
    """How often gates fail at a true rate equal to the threshold; our worst."""
    rows, most = [], 0.0
    for tests, threshold in itertools.product(GATE_TESTS, THRESHOLDS):
        every = [rules.gate_fails(threshold, n, tests) for n in GATE_REPEATS]
        shares = {name: max(one[name] for one in every) for name in every[0]}
        most = max(most, shares[OURS])
        rows.append([str(tests), str(threshold), *map(_share, shares.values())])
    head = ["unit tests", "threshold", f"{OURS}, confidence 0.95", *list(every[0])[1:]]
    title = (
        "A gate failed at a true rate equal to its threshold: the largest share over "
        f"{GATE_REPEATS[0]} to {GATE_REPEATS[-1]} repeats"
    )
    return Table(head, rows, title), most


def power(found: Sequence[Found], pooled: Sequence[Found]) -> Table:
    """How often a real drop is seen."""
    rows = []
    for drop, one in itertools.product(DROPS, (*found, *pooled)):
        if _is(one, drop) and one.cell.repeats in SHOWN:
            shares = [
                "n/a" if one.cell.baseline_runs > 1 and name == rules.AGENT_EVALS else _share(share)
                for name, share in one.shares.items()
            ]
            rows.append([drop, str(one.cell.repeats), str(one.cell.baseline_runs), *shares])
    return Table(["drop", "repeats", "runs of the baseline", *RULES], rows, "A real drop seen")


def _is(found: Found, drop: str) -> bool:
    cell = found.cell
    return (cell.worse_tests, cell.rate, cell.worse) == DROPS[drop]


def needed(found: Sequence[Found], honest: Sequence[str]) -> Table:
    """The repeats from which on a drop is seen in 80% of cases."""
    rows = []
    for drop in DROPS:
        cells = [f for f in found if _is(f, drop)]
        rows.append([drop, *(_fewest(cells, name) for name in honest)])
    return Table(
        ["drop", *honest],
        rows,
        "Repeats of each unit test with which a drop is seen in 80% of cases, for the rules that "
        "keep their alpha in one set",
    )


def _fewest(cells: Iterable[Found], name: str) -> str:
    """Between the sizes that were tried, in proportion."""
    before: Found | None = None
    for one in cells:
        share = one.shares[name]
        if share >= POWER:
            if before is None:
                return f"{one.cell.repeats}"
            rise = (POWER - before.shares[name]) / (share - before.shares[name])
            between = before.cell.repeats + rise * (one.cell.repeats - before.cell.repeats)
            return f"{math.ceil(between)}"
        before = one
    return f"more than {SOUGHT[-1]}"


def plots(groups: dict[str, list[Found]], found: Sequence[Found]) -> Iterator[Plot]:
    """False alarms over the number of unit tests, and power over repeats."""
    sizes = {int(name): some for name, some in groups.items() if name.isdecimal()}
    yield Plot(
        name="unchanged",
        title="An unchanged agent called worse, at worst",
        x="unit tests",
        y="share of comparisons",
        curves=[
            Curve(
                name,
                xs=[float(size) for size in sizes],
                ys=[max(f.shares[name] for f in some) for some in sizes.values()],
            )
            for name in RULES
            if name != rules.FIXED_RATE
        ],
        logarithmic=False,
    )
    for number, drop in enumerate(DROPS):
        cells = [f for f in found if _is(f, drop)]
        yield Plot(
            name=f"power-{number + 1}",
            title=f"{drop}: seen by rules that keep their alpha in one set",
            x="repeats of each unit test",
            y="share of comparisons",
            curves=[
                Curve(
                    name,
                    xs=[float(f.cell.repeats) for f in cells],
                    ys=[f.shares[name] for f in cells],
                )
                for name in (OURS, rules.WHOLE, rules.HOLM, rules.AGENT_EVALS)
            ],
            logarithmic=False,
        )


# --- the package as a whole ---


async def on_the_sandbox(seeds: Sequence[int], pairs: int) -> tuple[list[str], bool]:
    """The verdicts on an unchanged agent, and whether a changed one is found and named."""
    plan = SetPlan(seconds=5.0, unit_tests=20, repeats=5, pass_rate=0.9)
    verdicts: list[str] = []
    for seed in seeds:
        async with Sandbox(seed=seed) as sandbox:
            runs = await _runs(sandbox, sandbox.add_set(plan), 2 * pairs)
        verdicts += [compare(*runs[at : at + 2]).verdict for at in range(0, len(runs), 2)]
    async with Sandbox(seed=seeds[0]) as sandbox:
        plan = replace(plan, repeats=20)
        set_id = sandbox.add_set(plan)
        [before] = await _runs(sandbox, set_id, 1)
        rates = [0.9] * 19 + [0.4]
        sandbox.add_set(replace(plan, pass_rate=rates, agent_version=13), id=set_id)
        [after] = await _runs(sandbox, set_id, 1)
    found = compare(before, after)
    named = [one.unit_test_id for one in found.regressed]
    changed = [(one.what, one.before, one.after) for one in found.changes]
    wanted = [after.unit_test_run_specs[-1].unit_test_id]
    return verdicts, named == wanted and changed == [("agent", "12", "13")]


async def _runs(sandbox: Sandbox, set_id: str, count: int) -> list[Run]:
    ids = [sandbox.start_run(set_id) for _ in range(count)]
    await asyncio.sleep(6.0)
    async with sandbox.client() as client:
        found = {run.id: run async for run in client.runs.iterate(id=ids)}
    return [found[run_id] for run_id in ids]


async def _two_large_runs(tests: int) -> list[Run]:
    plan = SetPlan(seconds=5.0, unit_tests=tests, repeats=20, pass_rate=0.95)
    async with Sandbox(seed=1) as sandbox:
        return await _runs(sandbox, sandbox.add_set(plan), 2)


def skipping(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run on a loop that skips waits."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


class Simulated(Struct, frozen=True, kw_only=True):
    """All that was simulated.

    Attributes:
        unchanged: Comparisons of an unchanged agent, by what is special to them.
        shifted: The same where all rates shift from run to run.
        dropped: Comparisons of an agent that has got worse.
        pooled: The same with several runs in the baseline.
    """

    unchanged: dict[str, list[Found]]
    shifted: list[Found]
    dropped: list[Found]
    pooled: list[Found]


def simulated(comparisons: int, seed: int) -> Simulated:
    """Simulate all cells, each from a seed of its own."""
    same = {
        str(size): [cell for cell in unchanged(comparisons) if cell.tests == size] for size in SIZES
    }
    same |= unchanged_further(comparisons)
    shifts, drops = shifted(comparisons), dropped(comparisons)
    pooled = dropped(comparisons, baseline_runs=5)
    cells = [*itertools.chain(*same.values()), *shifts, *drops, *pooled]
    seeded = [msgspec.structs.replace(c, seed=seed * 1_000 + n) for n, c in enumerate(cells)]
    # The longest first, so that no process is left alone with it.
    order = sorted(range(len(seeded)), key=lambda n: -_work(seeded[n]))
    with ProcessPoolExecutor(PROCESSES) as pool:
        done = dict(zip(order, pool.map(measure, [seeded[n] for n in order]), strict=True))
    found = iter(done[n] for n in range(len(seeded)))

    def of(some: Sequence[Cell]) -> list[Found]:
        return list(itertools.islice(found, len(some)))

    return Simulated(
        unchanged={name: of(some) for name, some in same.items()},
        shifted=of(shifts),
        dropped=of(drops),
        pooled=of(pooled),
    )


def _work(cell: Cell) -> float:
    return math.sqrt(cell.tests) * cell.tests * cell.repeats * cell.comparisons * cell.sets


def result(options: argparse.Namespace) -> Result:
    """Measure, and tell."""
    return told(simulated(options.comparisons, options.seed), options)


def told(all_of_it: Simulated, options: argparse.Namespace) -> Result:
    """Tell what was simulated, with what is measured besides."""
    groups, effect = all_of_it.unchanged, all_of_it.shifted
    drops, pooled = all_of_it.dropped, all_of_it.pooled
    every = [f for some in groups.values() for f in some]
    strict = [n for n in RULES if all(keeps(f, n) for f in every)]
    single = [n for n in RULES if all(keeps(f, n) for f in every if f.cell.sets == 1)]
    high = max(every, key=lambda f: f.shares[OURS])
    gate_table, most_failed = gates()
    quickest = seconds_of_a_comparison(options.large)
    verdicts, named = skipping(lambda: on_the_sandbox(SEEDS[: options.seeds], options.pairs))
    regressed = verdicts.count("regressed")
    few = min(f.cell.comparisons for f in every if f.cell.sets == 1)
    return Result(
        name="verdicts",
        measures=(
            "How often an unchanged agent is called worse, and how often a real drop is seen: by "
            "`compare`, by tests that ask one of its two questions alone, and by the rules of "
            "others. All judge the same simulated repeats."
        ),
        conditions=(
            f"Two runs with the same numbers of repeats; a cell is {count_of(groups['1'])} "
            f"comparisons of 1 unit test, {count_of(groups['20'])} of 20 and "
            f"{count_of(groups['200'])} of 200, and of a drop {drops[0].cell.comparisons:,}. The "
            f"standard error of a share of 0.05 is {error(ALPHA, few):.4f} for the fewest, of a "
            f"power of 0.5 {error(0.5, drops[0].cell.comparisons):.3f}. n8n: its hard regression "
            "(Fisher below 0.05, 30 points lower, from at least 70%) in any unit test; "
            "ai-agent-evals: Degraded (McNemar, mid-p, repeats paired by index, at least ten in "
            f"all) in any metric. Correlated metrics: {METRICS} to a repeat, which stand and fall "
            f"together in {TOGETHER:.0%} of cases. Gates are counted, not drawn."
        ),
        tables=[
            worst(groups),
            in_detail([f for some in list(groups.values())[: len(SIZES)] for f in some]),
            with_effect(effect),
            gate_table,
            power(drops, pooled),
            needed(drops, single),
        ],
        aims=[
            Aim(
                "an unchanged agent called worse at most 5 times in 100, in every cell and within "
                "three standard errors",
                f"at most {_share(high.shares[OURS])} ({high.cell.tests} unit tests, "
                f"{high.cell.repeats} repeats, rate {high.cell.rate})",
                all(keeps(f, OURS) for f in every),
            ),
            Aim(
                "a gate failed at most 5 times in 100 at a true rate equal to its threshold",
                f"at most {_share(most_failed)}",
                most_failed <= ALPHA,
            ),
            *(
                Aim(
                    f"a drop seen at most five points less often than by any rule that keeps its "
                    f"alpha in {where}",
                    _lag(drops, names),
                    all(lag <= ALLOWED for _, lag in _behind(drops, names)),
                )
                for where, names in (
                    ("every cell", strict),
                    ("every cell but those of many sets", single),
                )
            ),
            Aim(
                f"on the sandbox, at most {MOST_OF_200} of 200 comparisons of an unchanged agent "
                "called worse",
                f"{regressed} of {len(verdicts)}",
                regressed <= MOST_OF_200 if len(verdicts) == 200 else None,
            ),
            Aim(
                "on the sandbox, a worse version of an agent found, its unit test and its version "
                "named",
                "found and named" if named else "not found",
                named,
            ),
            Aim(
                f"{options.large} unit tests of 20 repeats and 3 metrics compared in at most "
                f"{QUICKEST * 1e3:.0f} ms of the processor",
                f"{figures.spread([s * 1e3 for s in quickest], ',.0f')} ms",
                statistics.median(quickest) <= QUICKEST,
            ),
        ],
        notes=_notes(drops, single, effect),
        plots=list(plots(groups, drops)),
        packages=["numpy"],
    )


def _behind(drops: Sequence[Found], names: Iterable[str]) -> Iterator[tuple[str, float]]:
    """By how much a drop is seen more often by other rules, each where it leads by the most."""
    for drop, name in itertools.product(DROPS, names):
        if name != OURS:
            cells = [f for f in drops if _is(f, drop)]
            most = max(cells, key=lambda f: f.shares[name] - f.shares[OURS])
            lag = most.shares[name] - most.shares[OURS]
            yield f"{name}, {drop}, {most.cell.repeats} repeats", lag


def _lag(drops: Sequence[Found], names: Iterable[str]) -> str:
    every = list(_behind(drops, names))
    if not every:
        return "there is no other"
    who, lag = max(every, key=lambda item: item[1])
    return f"at most {100 * lag:.1f} points ({who})"


def _notes(drops: Sequence[Found], single: Sequence[str], effect: Sequence[Found]) -> list[str]:
    lags = [
        f"{100 * lag:.0f} points behind {who}"
        for who, lag in _behind(drops, single)
        if lag > ALLOWED
    ]
    high = max(effect, key=lambda f: f.shares[OURS])
    return [
        (
            "Asking two questions, about the whole set and about each unit test, costs a factor of "
            f"2. A test that asks one of them alone sees more of what it asks about: {OURS} is "
            f"{'; '.join(lags) or 'nowhere more than five points behind'}. Each of those tests is "
            "nearly blind to the drop that is the other's."
        ),
        (
            "Rules of others know nothing of many sets: what keeps its alpha for one set is "
            f"wrong somewhere among {SETS} in most batches."
        ),
        (
            "Independence of repeats is an assumption. Where all rates shift from run to run "
            f"together, {OURS} calls an unchanged agent worse in up to "
            f"{high.shares[OURS]:.0%} of comparisons ({high.cell.tests} unit tests, "
            f"{high.cell.repeats} repeats): the runs do differ, but not because of the agent. A "
            "comparison says so where three or more runs of the baseline differ among themselves "
            "beyond chance."
        ),
    ]


def count_of(found: Sequence[Found]) -> str:
    """How many comparisons a cell has."""
    return f"{found[0].cell.comparisons:,}"


def seconds_of_a_comparison(tests: int) -> list[float]:
    """The processor's time for comparing two large runs, several times over."""
    before, after = skipping(lambda: _two_large_runs(tests))
    taken = []
    for _ in range(5):
        began = time.process_time()
        compare(before, after)
        taken.append(time.process_time() - began)
    return taken


def flags() -> argparse.ArgumentParser:
    """The flags; there are no rounds, as one simulation has them all."""
    parser = command.parser(__doc__, rounds=1)
    parser.add_argument(
        "--comparisons", type=int, default=1_000, help="of a cell of 200 unit tests; others more"
    )
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="sandboxes")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="comparisons on each of them")
    parser.add_argument("--large", type=int, default=500, help="unit tests of a timed comparison")
    return parser


QUICK: Final = {"comparisons": 50}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write to standard output."""
    command.run(flags(), result, argv, quick=QUICK)


if __name__ == "__main__":
    main()
