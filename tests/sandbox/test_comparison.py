"""Comparisons of runs whose repeats pass by chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import anyio
import pytest

from amigo_async import Run, compare
from amigo_async.testing import Sandbox, SetPlan

pytestmark = pytest.mark.anyio

AGENT: Final = SetPlan(seconds=5.0, unit_tests=20, repeats=5, pass_rate=0.9)
# Written down before anything was run with them.
SEEDS: Final = range(1, 11)


async def runs_of(sandbox: Sandbox, set_id: str, count: int) -> list[Run]:
    """The next runs of a set, read when all have ended."""
    ids = [sandbox.start_run(set_id) for _ in range(count)]
    await anyio.sleep(AGENT.bounds[1] + 1)
    async with sandbox.client() as client:
        found = {run.id: run async for run in client.runs.iterate(id=ids)}
    return [found[run_id] for run_id in ids]


async def test_an_unchanged_agent_is_seldom_called_worse() -> None:
    """In 200 comparisons 10 are expected at the most; 18 are seen less often than once in 100."""
    verdicts = []
    for seed in SEEDS:
        async with Sandbox(seed=seed) as sandbox:
            runs = await runs_of(sandbox, sandbox.add_set(AGENT), 40)
        pairs = zip(runs[::2], runs[1::2], strict=True)
        comparisons = [compare(before, after) for before, after in pairs]
        # Runs differ by chance, in both directions: there is something to be mistaken about.
        changes = {c.candidate.passed > c.baseline.passed for c in comparisons}
        assert changes == {True, False}
        verdicts += [one.verdict for one in comparisons]
    assert len(verdicts) == 200
    assert verdicts.count("regressed") <= 18
    assert verdicts.count("improved") <= 18
    assert set(verdicts) <= {"regressed", "improved", "no_change_seen"}


async def test_what_changed_is_found_and_named() -> None:
    """A new version of the agent fails one unit test of twenty half the time."""
    async with Sandbox(seed=1) as sandbox:
        set_id = sandbox.add_set(replace(AGENT, repeats=20))
        before = await runs_of(sandbox, set_id, 1)
        rates = [0.9] * 20
        rates[7] = 0.4
        newer = replace(AGENT, repeats=20, pass_rate=rates, agent_version=13)
        sandbox.add_set(newer, id=set_id)
        after = await runs_of(sandbox, set_id, 1)
    found = compare(before, after)
    assert found.verdict == "regressed"
    [worse] = found.regressed
    assert worse.unit_test_id == after[0].unit_test_run_specs[7].unit_test_id
    [changed] = found.changes
    assert (changed.what, changed.before, changed.after) == ("agent", "12", "13")
    assert changed.unit_test_id is None
