"""Start runs so that none is started twice and no id is lost."""

from amigo_async.starting.attempt import Intention, Recorder
from amigo_async.starting.fence import Fence
from amigo_async.starting.starts import OnConflict, Starts, returned_runs

__all__ = [
    "Fence",
    "Intention",
    "OnConflict",
    "Recorder",
    "Starts",
    "returned_runs",
]
