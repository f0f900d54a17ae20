"""Keep requests within the rate limits of an organization."""

from amigo_async.ratelimit.limiter import BudgetState, DeniedError, Limiter, Permit
from amigo_async.ratelimit.registry import Limiters, forget
from amigo_async.ratelimit.window import WINDOW, Budget, RateLimitInfo

__all__ = [
    "WINDOW",
    "Budget",
    "BudgetState",
    "DeniedError",
    "Limiter",
    "Limiters",
    "Permit",
    "RateLimitInfo",
    "forget",
]
