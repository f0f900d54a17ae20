"""All limiters of the process: one per event loop and endpoint, with budgets shared by all loops.

Limiters and budgets exist for as long as a client of their organization does. When the last one is
gone, what its budgets know is kept until it no longer matters, usually a minute, so that the next
client does not begin by overrunning the limits.
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
from amigo_async.ratelimit.limiter import BudgetState, Limiter
from amigo_async.ratelimit.window import Budget, BudgetSnapshot

_Owner: TypeAlias = tuple[str, str]  # base URL and organization
_Name: TypeAlias = tuple[str, str, str]  # and endpoint


class Limiters:
    """The limiters of one organization, shared by all clients of the event loop.

    Args:
        base_url: Base URL of the API.
        organization_id: The organization.
    """

    def __init__(self, base_url: str, organization_id: str) -> None:
        self._owner = (base_url, organization_id)
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._limiters: dict[str, Limiter] = {}
        # Also runs when a client that was not closed is garbage collected.
        self._release = finalize(self, _release, self._owner)
        self._release.atexit = False
        with _LOCK:
            _CLIENTS[self._owner] += 1

    def of(self, endpoint: str, limit: int) -> Limiter:
        """The limiter of an endpoint in the running loop; `limit` is the documented one."""
        limiters = self._of_loop()
        limiter = limiters.get(endpoint)
        if limiter is None:
            alive = self._release.alive  # the client may be closed while a call is under way
            budget = (
                _budget_of((*self._owner, endpoint), limit) if alive else FairShareBudget(limit)
            )
            limiter = limiters[endpoint] = Limiter(endpoint, budget)
        return limiter

    async def aclose(self) -> None:
        """Release the limiters; they stay while other clients of the organization use them."""
        self._release()

    def states(self) -> dict[str, BudgetState]:
        """A snapshot of the budgets that were used in the running loop, by endpoint."""
        return {name: limiter.state() for name, limiter in dict(self._of_loop()).items()}

    def _of_loop(self) -> dict[str, Limiter]:
        loop = asyncio.get_running_loop()
        if self._release.alive and (self._loop is None or self._loop() is not loop):
            with _LOCK:
                self._limiters = _limiters_of(loop)[self._owner]
            self._loop = ref(loop)
        return self._limiters


def forget(base_url: str | None = None) -> None:
    """Forget the budgets of the service at `base_url` (None: of all), which has been replaced."""
    with _LOCK:
        for known in (_BUDGETS, _KEPT):
            for name in list(known):
                if base_url in (None, name[0]):
                    known.pop(name, None)
        for loops in _LIMITERS.values():
            for owner, limiters in loops.items():
                if base_url in (None, owner[0]):
                    limiters.clear()  # in place, because `Limiters` objects hold this dictionary


def _budget_of(name: _Name, limit: int) -> Budget:
    """The budget shared by the process, restored where its last state still matters."""
    with _LOCK:
        if name not in _BUDGETS:
            _, kept = _KEPT.pop(name, (0.0, None))
            _BUDGETS[name] = (
                FairShareBudget(limit)
                if kept is None
                else FairShareBudget.restored(limit, msgspec.json.decode(kept, type=BudgetSnapshot))
            )
        return _BUDGETS[name]


def _release(owner: _Owner) -> None:
    """Count one client less; drop the limiters and budgets of the organization with the last."""
    with _LOCK:
        _CLIENTS[owner] -= 1
        if _CLIENTS[owner] > 0:
            return
        del _CLIENTS[owner]
        for loops in list(_LIMITERS.values()):
            loops.pop(owner, None)
        # Copies: the garbage collector may release other clients in between.
        names = [name for name in list(_BUDGETS) if name[:2] == owner]
        released = {name: _BUDGETS.pop(name) for name in names}
    now = _now()
    kept = {name: _snapshot(budget, now) for name, budget in released.items()}
    with _LOCK:
        _KEPT.update({name: k for name, k in kept.items() if name not in _BUDGETS})
        for name, (until, _) in list(_KEPT.items()):
            if until <= now:
                _KEPT.pop(name, None)


def _snapshot(budget: Budget, now: float) -> tuple[float, bytes]:
    """When the state of an unused budget stops to matter, and the state."""
    with budget.lock:  # never together with _LOCK, whose holder may be waiting for this lock
        budget.lose_all(now)
        return budget.matters_until(), msgspec.json.encode(budget.snapshot())


def _now() -> float:
    """The time on the clock of the running loop; loops normally share one clock."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return monotonic()


def _limiters_of(loop: asyncio.AbstractEventLoop) -> defaultdict[_Owner, dict[str, Limiter]]:
    """The limiters of `loop`; those of closed loops, kept alive by their timers, are dropped."""
    limiters = _LIMITERS.get(loop)
    if limiters is None:
        for other in [other for other in _LIMITERS if other.is_closed()]:
            del _LIMITERS[other]
        limiters = _LIMITERS[loop] = defaultdict(dict)
    return limiters


def _start_over() -> None:
    """Reset in a forked child, which gets no answers to its parent's requests."""
    global _LOCK  # noqa: PLW0603  # the inherited lock may be held for ever
    _LOCK = RLock()
    forget()


# Quota is spent for the whole process: budgets outlive a client and an event loop, so that the next
# ``asyncio.run`` does not begin by overrunning the limits.
_BUDGETS: dict[_Name, Budget] = {}
_CLIENTS: Counter[_Owner] = Counter()
# Of organizations without a client: until when the last state matters, and that state.
_KEPT: dict[_Name, tuple[float, bytes]] = {}
_LIMITERS: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[_Owner, dict[str, Limiter]]] = (
    WeakKeyDictionary()
)
# Guards all of the above. Reentrant, because the garbage collector may call `_release` anywhere.
_LOCK = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
