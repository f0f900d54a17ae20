"""Test what is built on `amigo_async` against the service, without the service.

`Sandbox` is the API and an artifact store over real sockets; the pytest fixture ``amigo_sandbox``
has one running in a thread. `VirtualTimeLoop` is an event loop on which minutes of waiting take
no time.
"""

from amigo_async.testing.accounts import Permission
from amigo_async.testing.faults import Fault
from amigo_async.testing.sandbox import Sandbox
from amigo_async.testing.server import Request
from amigo_async.testing.simulation import ArtifactPlan, RunInfo, SetPlan
from amigo_async.testing.virtual_time import VirtualTimeLoop

__all__ = [
    "ArtifactPlan",
    "Fault",
    "Permission",
    "Request",
    "RunInfo",
    "Sandbox",
    "SetPlan",
    "VirtualTimeLoop",
]
