"""What a test can set and ask of a sandbox, whether or not it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from amigo_async.testing.accounts import Accounts, User, permissions_of
from amigo_async.testing.epoch import Epoch
from amigo_async.testing.faults import Fault, Faults
from amigo_async.testing.limits import Endpoint, Limits
from amigo_async.testing.objects import Objects
from amigo_async.testing.plans import SetPlan
from amigo_async.testing.record import Recorder, Request, Route
from amigo_async.testing.service import Rules
from amigo_async.testing.store import Store
from amigo_async.testing.threads import done_in
from amigo_async.testing.world import RunInfo, World

T = TypeVar("T")


class Controls:
    """The part of `Sandbox` that knows nothing of servers."""

    organization_id: str
    user_id: str
    rules: Rules
    _plan: SetPlan
    _epoch: Epoch
    _limits: Limits
    _accounts: Accounts
    _world: World
    _faults: Faults
    _recorder: Recorder
    _objects: Objects
    _store: Store
    _loop: asyncio.AbstractEventLoop | None

    def _do(self, work: Callable[[], T]) -> T:
        """Do `work` where the sandbox serves, so that nothing changes under its hands."""
        return done_in(self._loop, work)

    # --- what there is ---

    def add_set(
        self,
        plan: SetPlan | None = None,
        *,
        id: str | None = None,
        organization_id: str | None = None,
    ) -> str:
        """Add a unit test set, or replace what the next runs of one do.

        Args:
            plan: What its runs do; None for the sandbox's `plan`.
            id: Its id; None for a new one.
            organization_id: Whose it is; None for the sandbox's organization.

        Returns:
            Its id.
        """
        owner = organization_id or self.organization_id
        return self._do(lambda: self._world.add_set(owner, plan or self._plan, id))

    def add_sets(self, count: int, plan: SetPlan | None = None) -> list[str]:
        """Add `count` sets that do as `plan` says (None: the sandbox's); their ids."""
        return [self.add_set(plan) for _ in range(count)]

    def add_user(
        self,
        user_id: str,
        *,
        organization_id: str | None = None,
        permissions: Sequence[str] | None = None,
        guest_of: Sequence[str] = (),
    ) -> User:
        """Add a user, or replace one, and the organization where it is new.

        Args:
            user_id: The user.
            organization_id: The organization that issues the user's tokens; None for the
                sandbox's.
            permissions: What the user may do, by the API's names; None for everything.
            guest_of: Other organizations in which the user may act (``X-ORG-ID``).
        """
        user = User(
            organization_id or self.organization_id,
            user_id,
            permissions_of(permissions),
            frozenset(guest_of),
        )
        self._do(lambda: self._accounts.add_user(user))
        return user

    def add_api_key(self, id: str, key: str, *, organization_id: str | None = None) -> None:
        """Add an API key, or replace one.

        Args:
            id: Its id.
            key: Its secret.
            organization_id: Whose it is; None for the sandbox's organization.
        """
        self._accounts.add_key(organization_id or self.organization_id, id, key)

    def add_organization(self, organization_id: str) -> None:
        """Let there be another organization, without users."""
        self._accounts.add_organization(organization_id)

    def issue_token(self, user_id: str | None = None, *, organization_id: str | None = None) -> str:
        """A token for a user, as a sign in would give it; None for the sandbox's own user."""
        user = self._accounts.user(organization_id or self.organization_id, user_id or self.user_id)
        now, lifetime = self.now(), self.rules.token_lifetime
        return self._do(lambda: self._accounts.issue(user, now, lifetime)[0])

    def expire_tokens(self) -> None:
        """Let all tokens expire at once."""
        self._do(self._accounts.revoke_all)

    def start_run(self, set_id: str, *, user_id: str | None = None) -> str:
        """Start a run as somebody else would, whatever runs and budgets there are; its id.

        Args:
            set_id: The set; `KeyError` if there is none.
            user_id: Who starts it, of the set's organization; None for the sandbox's user.
        """
        unit_test_set = self._world.sets[set_id]
        creator = unit_test_set.organization_id, user_id or self.user_id
        return self._do(lambda: self._world.start(unit_test_set, creator, self.now()).id)

    def cancel_run(self, run_id: str) -> None:
        """Cancel a run as somebody else would; nothing if it is over, `KeyError` without one."""
        run, now = self._world.runs[run_id], self.now()
        if not run.state(now).is_completed:
            run.cancel(now)

    @property
    def runs(self) -> list[RunInfo]:
        """The truth about all runs, in the order in which they were started."""
        now = self.now()
        return [self._world.info(run, now) for run in tuple(self._world.runs.values())]

    def now(self) -> float:
        """The time on the service's clock, in seconds since the epoch."""
        return self._epoch.now()

    def artifact_bytes(self, run_id: str) -> bytes:
        """The artifact of a run, whether or not it is there yet; `KeyError` without such a run."""
        content = self._objects.of(self._world.runs[run_id]).content
        return bytes(content.read(0, content.size))

    def change_artifact(self, run_id: str, data: bytes | None = None) -> None:
        """Put another object in the place of a run's artifact.

        Args:
            run_id: The run; `KeyError` if there is none.
            data: What it is from now on; None for noise of the size it had first.
        """
        run = self._world.runs[run_id]
        self._do(lambda: self._objects.change(run, data))

    def presign(self, run_id: str, *, method: str = "GET", lifetime: int | None = None) -> str:
        """A link to the artifact of a run, whether or not it is there yet.

        Args:
            run_id: The run; `KeyError` if there is none.
            method: The HTTP method it is good for.
            lifetime: Whole seconds for which it is good; None for the sandbox's `link_lifetime`.
        """
        run, seconds = self._world.runs[run_id], lifetime or self.rules.link_lifetime
        return self._do(lambda: self._store.presign(run, method, seconds)[0])

    # --- what goes wrong ---

    def fault(self, route: Route, fault: Fault, *, times: int = 1) -> None:
        """Let `fault` happen to the next `times` requests of `route`, after those queued before.

        Args:
            route: ``"sign_in"``, ``"create"``, ``"list"``, ``"cancel"``, ``"artifacts"`` or
                ``"store"``.
            fault: What goes wrong.
            times: To how many requests.
        """
        self._faults.queue(route, fault, times)

    def faults_at_random(self, route: Route, *faults: Fault, rate: float, seed: int = 0) -> None:
        """Let one of `faults` happen to a request of `route` with probability `rate`.

        Args:
            route: As for `fault`.
            *faults: What may go wrong.
            rate: How probable it is, from 0 to 1.
            seed: The same seed draws the same.
        """
        self._faults.at_random(route, faults, rate, seed)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    def spend(
        self, endpoint: Endpoint, count: int = 1, *, organization_id: str | None = None
    ) -> int:
        """Spend budget as another process of the organization would.

        Returns:
            How many of the `count` requests were admitted.
        """
        organization, now = organization_id or self.organization_id, self.now()

        def spend() -> int:
            standings = [self._limits.admit(organization, endpoint, now) for _ in range(count)]
            return sum(standing is None or standing.admitted for standing in standings)

        return self._do(spend)

    # --- what was asked ---

    @property
    def requests(self) -> list[Request]:
        """The requests that came, the latest last."""
        return list(self._recorder)

    def count(self, route: Route, *, status: int | None = None) -> int:
        """How many requests of `route` came; only those answered with `status`, if given."""
        return sum(
            request.route == route and status in (None, request.status)
            for request in self._recorder
        )

    def forget_requests(self) -> None:
        """Forget the requests that came so far."""
        self._recorder.clear()
