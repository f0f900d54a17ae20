"""Test code that uses `amigo_async` without the service.

`Sandbox` serves the API and an artifact store over real sockets; the pytest fixture
``amigo_sandbox`` provides one that runs in a thread. `VirtualTimeLoop` is an event loop that skips
waits, so that tests of minutes of polling take milliseconds.
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
