from __future__ import annotations

import gc
import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from amigo_async import AmigoClient
from amigo_async.testing import Sandbox, VirtualTimeLoop

# The files that take longest begin first: the workers end together then.
SLOW = (
    "project/test_readme.py",
    "faults/test_faults.py",
    "interop/test_dask.py",
    "interop/test_sharing.py",
    "interop/test_artifacts_killed.py",
    "cli/test_streams.py",
    "sandbox/test_order.py",
    "cli/test_process.py",
    "cli/test_commands.py",
    "report/test_junit.py",
    "sandbox/test_batch.py",
    "unit/test_polling.py",
    "sandbox/test_load.py",
    "security/test_secrets.py",
    "sandbox/test_budget_kept.py",
    "interop/test_proxy.py",
    "interop/test_benchmarks.py",
    "unit/fuzz/test_hostile_input.py",
    "unit/test_official_models.py",
    "sandbox/test_baselines.py",
    "sandbox/test_gates.py",
    "cli/test_resuming.py",
    "cli/test_gates.py",
    "report/test_names_and_reasons.py",
    "sandbox/test_batch_names.py",
    "security/test_command.py",
    "security/test_tls.py",
    "unit/artifacts/test_parallel.py",
)

# How slow a busy machine is says nothing. Where all faults are played, more examples are drawn, and
# others each time; elsewhere the same ones, so that a test fails because of a change alone.
EVERYTHING = os.environ.get("AMIGO_FAULTS") == "all"
settings.register_profile(
    "tests",
    deadline=None,
    max_examples=300 if EVERYTHING else 50,
    derandomize=not EVERYTHING,
)
settings.load_profile("tests")


# What is collected stays until the end, so that to look for garbage in it takes time for nothing.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage from here on, in what the tests make alone."""
    gc.enable()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first."""
    order = {name: place for place, name in enumerate(SLOW)}

    def place(item: pytest.Item) -> int:
        return order.get(f"{item.path.parent.name}/{item.path.name}", len(SLOW))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _same_jitter_each_time(request: pytest.FixtureRequest) -> None:
    """What is left to chance within a test comes out as it did the last time."""
    random.seed(request.node.nodeid)


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The command keeps tokens in a folder of the test, not in that of the user."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A loop that skips waits; asyncio's debug mode is on where ``PYTHONASYNCIODEBUG`` is set."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox in the loop of the test."""
    async with Sandbox() as serving:
        yield serving


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AmigoClient]:
    """A client of that sandbox."""
    async with sandbox.client() as connected:
        yield connected
