"""Test code that uses `amigo_async` without the service.

`Sandbox` serves the API and an artifact store over real sockets. `VirtualTimeLoop` is an event loop
that skips waits, so that tests of minutes of polling take milliseconds.

The pytest fixture ``amigo_sandbox_async`` provides a sandbox in the loop of an async test, with
anyio's plugin and with pytest-asyncio in its strict and its auto mode. ``amigo_sandbox`` provides
one that runs in a thread, in real time, for plain tests and for other programs. The marker
``amigo_sandbox`` takes arguments of `Sandbox` for both::

    @pytest.mark.anyio  # pytest-asyncio: pytest.mark.asyncio, or nothing in its auto mode
    @pytest.mark.amigo_sandbox(limits={"create": 5})
    async def test_start(amigo_sandbox_async):
        async with amigo_sandbox_async.client() as client:
            result = await client.run_many(amigo_sandbox_async.add_sets(10))
        assert result.passed, result.summary()

`VirtualTimeLoop` says how to use it with either.
"""

from amigo_async.testing.accounts import Permission
from amigo_async.testing.faults import Fault
from amigo_async.testing.sandbox import Sandbox
from amigo_async.testing.server import RecordedRequest
from amigo_async.testing.simulation import ArtifactPlan, RunInfo, SetPlan
from amigo_async.testing.virtual_time import VirtualTimeLoop

__all__ = [
    "ArtifactPlan",
    "Fault",
    "Permission",
    "RecordedRequest",
    "RunInfo",
    "Sandbox",
    "SetPlan",
    "VirtualTimeLoop",
]
