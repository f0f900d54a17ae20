"""Start, wait for and collect many sets."""

from amigo_async.batch.batch import Batch
from amigo_async.batch.journal import JournalHeader
from amigo_async.batch.options import (
    BatchOptions,
    BatchSettings,
    OnEvent,
    OnExit,
    OnFailure,
    Order,
    check_baselines,
    check_sets,
)
from amigo_async.batch.outcomes import BatchResult, RunOutcome
from amigo_async.batch.pipeline import ARTIFACTS_PATIENCE

__all__ = [
    "ARTIFACTS_PATIENCE",
    "Batch",
    "BatchOptions",
    "BatchResult",
    "BatchSettings",
    "JournalHeader",
    "OnEvent",
    "OnExit",
    "OnFailure",
    "Order",
    "RunOutcome",
    "check_baselines",
    "check_sets",
]
