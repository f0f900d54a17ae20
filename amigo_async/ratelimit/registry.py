"""Which gates there are: of each event loop its own, of budgets that the process has in common.

Both are there for as long as a client of the organization is. When the last one has gone, what is
known of the budgets is kept for as long as it matters, a minute as a rule, so that the next client
does not begin by overrunning them.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from threading import RLock
from time import monotonic
from typing import TypeAlias
from weakref import WeakKeyDictionary, finalize, ref

import msgspec

from amigo_async.ratelimit.fair_share import FairShareBudget
from amigo_async.ratelimit.limiter import BudgetState, Gate
from amigo_async.ratelimit.window import Budget, Snapshot

# Whose budgets they are: the base URL and the organization.
_Key: TypeAlias = tuple[str, str]
_Name: TypeAlias = tuple[str, str, str]  # and which endpoint


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
        # Of a client that is not closed, the collector sees to it.
        self._leave = finalize(self, _leave, self._key)
        self._leave.atexit = False
        with _LOCK:
            _CLIENTS[self._key] += 1

    def of(self, endpoint: str, limit: int) -> Gate:
        """The gate of an endpoint of the running loop; `limit` is the documented one."""
        gates = self._here()
        gate = gates.get(endpoint)
        if gate is None:
            alive = self._leave.alive  # a call may find its client closed
            budget = _budget_of((*self._key, endpoint), limit) if alive else FairShareBudget(limit)
            gate = gates[endpoint] = Gate(endpoint, budget)
        return gate

    async def aclose(self) -> None:
        """Leave; the gates are there for as long as other clients of the organization are."""
        self._leave()

    def states(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used in the running loop, by endpoint."""
        return {endpoint: gate.state() for endpoint, gate in dict(self._here()).items()}

    def _here(self) -> dict[str, Gate]:
        """The gates of the running loop. It is kept: to find it for each call would take long."""
        loop = asyncio.get_running_loop()
        if self._leave.alive and (self._loop is None or self._loop() is not loop):
            with _LOCK:
                self._gates = _gates_of(loop)[self._key]
            self._loop = ref(loop)
        return self._gates


def forget(base_url: str | None = None) -> None:
    """Forget the budgets of the service at `base_url`, or all: it is another service from now."""
    with _LOCK:
        for known in (_BUDGETS, _KEPT):
            for name in list(known):
                if base_url in (None, name[0]):
                    known.pop(name, None)
        for loops in _GATES.values():
            for key, gates in loops.items():
                if base_url in (None, key[0]):
                    gates.clear()  # not dropped: whoever has looked it up keeps this very mapping


def _budget_of(name: _Name, limit: int) -> Budget:
    """The budget that the process has in common; as it was left, where that still matters."""
    with _LOCK:
        if name not in _BUDGETS:
            _, kept = _KEPT.pop(name, (0.0, None))
            _BUDGETS[name] = (
                FairShareBudget(limit)
                if kept is None
                else FairShareBudget.restored(limit, msgspec.json.decode(kept, type=Snapshot))
            )
        return _BUDGETS[name]


def _leave(key: _Key) -> None:
    """One client of an organization has gone. With the last one go its gates and budgets."""
    with _LOCK:
        _CLIENTS[key] -= 1
        if _CLIENTS[key] > 0:
            return
        del _CLIENTS[key]
        for loops in list(_GATES.values()):
            loops.pop(key, None)
        # Lists: where the collector runs, other clients may go and change the dictionaries.
        names = [name for name in list(_BUDGETS) if name[:2] == key]
        left = {name: _BUDGETS.pop(name) for name in names}
    now = _now()
    kept = {name: _snapshot(budget, now) for name, budget in left.items()}
    with _LOCK:
        _KEPT.update({name: k for name, k in kept.items() if name not in _BUDGETS})
        for name, (until, _) in list(_KEPT.items()):
            if until <= now:
                _KEPT.pop(name, None)


def _snapshot(budget: Budget, now: float) -> tuple[float, bytes]:
    """What a budget knows that nobody uses any more, and until when that matters."""
    with budget.lock:  # never together with the lock of all: either may be held by who waits here
        budget.lose_all(now)
        return budget.matters_until(), msgspec.json.encode(budget.snapshot())


def _now() -> float:
    """The time on the clock of the running loop; as a rule all loops have the same."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return monotonic()


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
_BUDGETS: dict[_Name, Budget] = {}
_CLIENTS: Counter[_Key] = Counter()
# Of organizations without a client: until when what is known matters, and a snapshot.
_KEPT: dict[_Name, tuple[float, bytes]] = {}
_GATES: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[_Key, dict[str, Gate]]] = (
    WeakKeyDictionary()
)
# All are of all threads. Not a plain lock: the collector may run anywhere, and end loops.
_LOCK = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
