"""The gates that keep requests within the budgets of an organization."""

from amigo_async.ratelimit.backend import Instant, Records, Step, UnavailableError
from amigo_async.ratelimit.limiter import BudgetState, DeniedError, Gate, Permit
from amigo_async.ratelimit.registry import Gates, forget
from amigo_async.ratelimit.window import WINDOW, Budget, Told

__all__ = [
    "WINDOW",
    "Budget",
    "BudgetState",
    "DeniedError",
    "Gate",
    "Gates",
    "Instant",
    "Permit",
    "Records",
    "Step",
    "Told",
    "UnavailableError",
    "forget",
]
