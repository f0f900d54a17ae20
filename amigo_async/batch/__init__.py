"""Start, wait for and collect many sets."""

from amigo_async.batch.batch import Batch, Rooms
from amigo_async.batch.listener import OnEvent
from amigo_async.batch.options import OnExit, OnFailure, Options, check_options, check_sets
from amigo_async.batch.outcomes import BatchResult, RunOutcome, Verdict

__all__ = [
    "Batch",
    "BatchResult",
    "OnEvent",
    "OnExit",
    "OnFailure",
    "Options",
    "Rooms",
    "RunOutcome",
    "Verdict",
    "check_options",
    "check_sets",
]
