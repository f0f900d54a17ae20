"""Wait for runs, with one poller for all waiters of a client."""

from amigo_async.polling.cancelling import Cancellation, cancel_and_wait
from amigo_async.polling.poller import PATIENCE, Poller
from amigo_async.polling.waiters import OnProgress, Waiter
from amigo_async.polling.waiting import (
    as_completed,
    end_of_run,
    wait_for_completion,
)

__all__ = [
    "PATIENCE",
    "Cancellation",
    "OnProgress",
    "Poller",
    "Waiter",
    "as_completed",
    "cancel_and_wait",
    "end_of_run",
    "wait_for_completion",
]
