"""The examples in docstrings of public names run as they are."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import amigo_async
from amigo_async import AmigoClient, errors, events, models, otel, report, testing
from amigo_async.testing import Sandbox, SetPlan
from tests.support.blocks import Block

MODULES: Final = (amigo_async, errors, events, models, otel, report, testing)
LISTS: Final = ("UnitTestSets", "UnitTests", "Metrics", "Evaluations")
# The calls that users begin with: each shows how.
SHOWN: Final = (
    *("AmigoClient", "AmigoClient.run_many", "AmigoClient.open_batch", "AmigoClient.as_completed"),
    *("AmigoClient.wait_for_completion", "AmigoClient.cancel_and_wait", "AmigoClient.budgets"),
    *("Runs.create", "Runs.list", "Runs.iterate", "Runs.get", "Runs.cancel", "Runs.artifacts"),
    *("Artifacts.stream", "Artifacts.download", "Gate", "Telemetry", "compare"),
    *("AmigoClient.select_sets", "AmigoClient.describe", "AmigoClient.explain"),
    *(f"{cls}.{name}" for cls in LISTS for name in ("list", "iterate")),
    "UnitTestSets.search",
)
EXAMPLE: Final = re.compile(r"^Example::\n\n((?:    .*\n|\n)+)", re.MULTILINE)


def documented() -> Iterator[tuple[str, Any]]:
    """The public modules, and what is public of them, by name."""
    for module in MODULES:
        yield module.__name__, module
        for name, value in vars(module).items():
            if name.startswith("_") or not str(getattr(value, "__module__", "")).startswith(
                "amigo"
            ):
                continue
            yield name, value
            if inspect.isclass(value):
                methods = (n for n in vars(value) if not n.startswith("_"))
                yield from ((f"{name}.{n}", getattr(value, n)) for n in methods)


def examples() -> dict[str, str]:
    found = {}
    for name, value in documented():
        for match in EXAMPLE.finditer(f"{inspect.getdoc(value) or ''}\n"):
            found[name] = textwrap.dedent(match[1])
    return found


EXAMPLES: Final = examples()


def test_main_calls_have_examples() -> None:
    assert sorted(set(SHOWN) - set(EXAMPLES)) == []


@pytest.mark.anyio
@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_runs(
    name: str,
    client: AmigoClient,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in sandbox.environment().items():
        monkeypatch.setenv(variable, value)
    quick, failing, slow = (
        sandbox.add_set(SetPlan(seconds=1.0, artifacts_after=0.0)),
        sandbox.add_set(SetPlan(seconds=1.0, outcome="failed")),
        sandbox.add_set(SetPlan(seconds=36_000.0)),
    )
    sandbox.add_set(SetPlan(seconds=1.0), name="Returns", tags={"suite": "nightly"})
    done = await client.run_many([quick, failing])
    run_ids = [outcome.run_id for outcome in done.outcomes]
    await client.runs.create(slow)
    names = {
        **{public: getattr(amigo_async, public) for public in amigo_async.__all__},
        "client": client,
        "set_id": quick,
        "set_ids": sandbox.add_sets(2),
        "run_id": run_ids[0],
        "run_ids": run_ids,
        "run": done.outcomes[0].run,
        "runs": [outcome.run for outcome in done.outcomes],
        "metric_id": (await client.metrics.list(type="numerical")).metrics[0].id,
        "result": done,
    }
    running = Block("python", EXAMPLES[name], 0, f"{name}.py").run_with(names)
    if running is not None:
        await running
    if "print(" in EXAMPLES[name]:
        assert capsys.readouterr().out.strip()
