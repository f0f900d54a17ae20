"""Start a run so that it is never started twice and its id is never lost."""

from amigo_async.starting.attempt import Intention, Recorder
from amigo_async.starting.fence import Fence
from amigo_async.starting.starts import OnConflict, Starts, check_choice, given_by

__all__ = ["Fence", "Intention", "OnConflict", "Recorder", "Starts", "check_choice", "given_by"]
