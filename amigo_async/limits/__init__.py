"""The gates that keep requests within the budgets of an organization."""

from amigo_async.limits.budget import WINDOW, Budget, Told
from amigo_async.limits.gate import BudgetState, DeniedError, Gate, Permit
from amigo_async.limits.gates import Gates, forget
from amigo_async.limits.records import Instant, Records, Step, UnavailableError

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
