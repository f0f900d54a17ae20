"""The pytest plugin of `amigo_async`: the fixtures ``amigo_sandbox`` and ``amigo_sandbox_async``.

Every run of pytest loads the plugins of its environment. So this module imports nothing of the
package, nor anything else that pytest has not imported, until a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from amigo_async.testing import Sandbox

_MARKER = (
    "amigo_sandbox(**settings): arguments of `Sandbox` for the fixtures amigo_sandbox and "
    "amigo_sandbox_async"
)

# The scopes that pytest-asyncio has event loops for.
_LOOP_SCOPES = ("function", "class", "module", "package", "session")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures of pytest-asyncio where that is in use."""
    config.addinivalue_line("markers", _MARKER)
    if config.pluginmanager.has_plugin("asyncio"):
        pytest_asyncio = import_module("pytest_asyncio")  # loaded already
        plugin = ModuleType("amigo_async_with_pytest_asyncio")
        for scope in _LOOP_SCOPES:
            # Only a fixture that is decorated so is served by the strict mode too.
            decorate = pytest_asyncio.fixture(loop_scope=scope, name=_asyncio_fixture(scope))
            setattr(plugin, scope, decorate(_asyncio_sandbox()))
        config.pluginmanager.register(plugin, plugin.__name__)


@pytest.fixture
def amigo_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A `Sandbox` that serves from a thread of its own, for plain and for async tests.

    To keep tests fast, by default runs take 0.2 seconds, artifacts are available 0.05 seconds
    later, a cancel takes effect after 0.05 seconds, and rate limit windows last one second. The
    marker ``@pytest.mark.amigo_sandbox(...)`` overrides any argument of `Sandbox`::

        @pytest.mark.amigo_sandbox(limits={"create": 2})
        async def test_start(amigo_sandbox):
            async with amigo_sandbox.client() as client:
                await client.runs.create(amigo_sandbox.add_set())

    A loop that skips waits cannot use it, as the thread would not skip them: use
    `amigo_sandbox_async` there.
    """
    from amigo_async.testing import Sandbox  # noqa: PLC0415  # only if the fixture is used

    with Sandbox(**(_quick() | _marked(request))).in_thread() as sandbox:
        yield sandbox


@pytest.fixture
def amigo_sandbox_async(request: pytest.FixtureRequest) -> Sandbox:
    """A `Sandbox` that serves in the event loop of an async test, with pytest-asyncio or anyio.

    On `VirtualTimeLoop` its settings are by default those of `Sandbox`: minutes take no time. On
    other loops they are the quick ones of `amigo_sandbox`. The marker
    ``@pytest.mark.amigo_sandbox(...)`` overrides any argument of `Sandbox`.
    """
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and request.config.pluginmanager.has_plugin("asyncio"):
        default = request.config.getini("asyncio_default_test_loop_scope")
        name = _asyncio_fixture(marker.kwargs.get("loop_scope") or default)
    elif "anyio_backend" in request.fixturenames:
        name = "_amigo_sandbox_anyio"
    else:
        pytest.fail(
            "amigo_sandbox_async is for async tests that pytest-asyncio or anyio runs; plain tests "
            "use amigo_sandbox",
            pytrace=False,
        )
    sandbox: Sandbox = request.getfixturevalue(name)
    return sandbox


@pytest.fixture(name="_amigo_sandbox_anyio")
async def _anyio_sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with _in_loop(request) as sandbox:
        yield sandbox


def _asyncio_sandbox() -> Callable[[pytest.FixtureRequest], Iterator[Sandbox]]:
    """Return a new fixture function for the loop of pytest-asyncio, the current one meanwhile."""

    # Not a coroutine function: of a test with its marker, anyio's plugin would take over the
    # fixture, although the auto mode of pytest-asyncio takes over the test.
    def serve(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
        import asyncio  # noqa: PLC0415  # pytest-asyncio has imported it

        loop = asyncio.get_event_loop()
        serving = _in_loop(request)
        yield loop.run_until_complete(serving.__aenter__())
        loop.run_until_complete(serving.__aexit__(None, None, None))

    return serve


@asynccontextmanager
async def _in_loop(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Serve in the running event loop."""
    import asyncio  # noqa: PLC0415  # only if a fixture is used

    from amigo_async.testing import Sandbox, VirtualTimeLoop  # noqa: PLC0415  # likewise

    skips = isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    async with Sandbox(**(({} if skips else _quick()) | _marked(request))) as sandbox:
        yield sandbox


def _asyncio_fixture(loop_scope: str) -> str:
    return f"_amigo_sandbox_asyncio_{loop_scope}"


def _quick() -> dict[str, Any]:
    """Settings with which a test in real time is fast."""
    from amigo_async.testing import SetPlan  # noqa: PLC0415  # only if a fixture is used

    plan = SetPlan(seconds=0.2, artifacts_after=0.05, cancel_after=0.05)
    return {"plan": plan, "window": 1.0}


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of the markers, the closest of which counts."""
    settings: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("amigo_sandbox"))):
        settings |= marker.kwargs
    return settings
