"""Which gates there are: of each event loop its own, of budgets that the process has in common."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from threading import RLock
from typing import TypeAlias
from weakref import WeakKeyDictionary, ref

from amigo_async.limits.budget import Budget
from amigo_async.limits.courtesy import CourteousBudget
from amigo_async.limits.gate import BudgetState, Gate

# Whose budgets they are: the base URL and the organization.
_Key: TypeAlias = tuple[str, str]


class Gates:
    """The gates of one organization, shared by all clients of the event loop.

    Args:
        base_url: Where the API is.
        organization_id: The organization.
    """

    def __init__(self, base_url: str, organization_id: str) -> None:
        self._key = (base_url, organization_id)
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._gates: dict[str, Gate] = {}

    def of(self, endpoint: str, limit: int) -> Gate:
        """The gate of an endpoint of the running loop; `limit` is the documented one."""
        gates = self._here()
        gate = gates.get(endpoint)
        if gate is None:
            with _LOCK:
                budget = _BUDGETS.setdefault((*self._key, endpoint), CourteousBudget(limit))
            gate = gates[endpoint] = Gate(endpoint, budget)
        return gate

    async def aclose(self) -> None:
        """Nothing: they are of all clients of the loop."""

    def states(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used in the running loop, by endpoint."""
        return {endpoint: gate.state() for endpoint, gate in dict(self._here()).items()}

    def _here(self) -> dict[str, Gate]:
        """The gates of the running loop. It is kept: to find it for each call would take long."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            with _LOCK:
                self._gates = _gates_of(loop)[self._key]
            self._loop = ref(loop)
        return self._gates


def forget(base_url: str | None = None) -> None:
    """Forget the budgets of the service at `base_url`, or all: it is another service from now."""
    with _LOCK:
        for name in [name for name in _BUDGETS if base_url in (None, name[0])]:
            del _BUDGETS[name]
        for loops in _GATES.values():
            for key, gates in loops.items():
                if base_url in (None, key[0]):
                    gates.clear()  # not dropped: whoever has looked it up keeps this very mapping


def _gates_of(loop: asyncio.AbstractEventLoop) -> defaultdict[_Key, dict[str, Gate]]:
    """The gates of `loop`. Those of closed loops, which their timers hold, are let go."""
    gates = _GATES.get(loop)
    if gates is None:
        for other in [other for other in _GATES if other.is_closed()]:
            del _GATES[other]
        gates = _GATES[loop] = defaultdict(dict)
    return gates


def _begin_anew() -> None:
    """In a forked child, whose parent's calls are never answered here and may hold a lock."""
    global _LOCK  # noqa: PLW0603  # a new one, for the old one may be held for ever
    _LOCK = RLock()
    forget()


# What is spent is spent for the whole process: the budgets outlive a client and an event loop, so
# that the next ``asyncio.run`` does not begin by overrunning them.
_BUDGETS: dict[tuple[str, str, str], Budget] = {}
_GATES: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[_Key, dict[str, Gate]]] = (
    WeakKeyDictionary()
)
# Both are of all threads. Not a plain lock: the collector may run anywhere, and end loops.
_LOCK = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
