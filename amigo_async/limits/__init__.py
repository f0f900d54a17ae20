"""The gates that keep requests within the budgets of an organization."""

from amigo_async.limits.budget import WINDOW, Budget, Told
from amigo_async.limits.gate import BudgetState, Gate, Gates, Permit, forget

__all__ = ["WINDOW", "Budget", "BudgetState", "Gate", "Gates", "Permit", "Told", "forget"]
