"""The sandbox: the Amigo API and an artifact store in one process, on loopback."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from anyio.from_thread import start_blocking_portal

from amigo_async.protocol.endpoints import EndpointName
from amigo_async.ratelimit import forget
from amigo_async.redact import Secret
from amigo_async.testing.accounts import Accounts, User
from amigo_async.testing.api import Api, Rules
from amigo_async.testing.artifact_store import ArtifactStore
from amigo_async.testing.faults import Fault, Faults
from amigo_async.testing.quota import HeaderStyle, Quotas, WindowMode
from amigo_async.testing.server import Request, Route, Server, ServiceClock
from amigo_async.testing.simulation import RunInfo, SetPlan, Simulation

if TYPE_CHECKING:
    from amigo_async.client import AmigoClient


class Sandbox:
    """Serves the API and an artifact store for as long as its context is open.

    ``async with Sandbox() as sandbox, sandbox.client() as client:`` serves in the running loop;
    ``with Sandbox().in_thread() as sandbox:`` in a thread with a loop of its own. It keeps the
    rules of the service: authorization, permissions, one unfinished run a user and set, rate
    limits, links that are signed and expire. Its clock goes by the loop's, so on
    `VirtualTimeLoop` its minutes are skipped too. Its methods may be called from any thread.

    Args:
        organization_id: The organization of the user that `client` acts as.
        user_id: That user.
        permissions: What that user may do, by the API's names; None for everything.
        plan: What runs of sets do that are added without a plan; None for `SetPlan()`.
        limits: Requests a window by endpoint (``"sign_in"``, ``"create"``, ``"list"``,
            ``"cancel"``, ``"artifacts"``), or None for no limit; those left out are as
            documented: 5, 20, 50, 10 and 100.
        window: Seconds in a window.
        window_mode: ``"fixed"`` (a window begins with its first request) or ``"sliding"``.
        rate_limit_headers: How ``X-RateLimit-Reset`` is written, ``"decimal"`` or ``"whole"``
            (rounded up); None for no such headers.
        retry_after: The same for the ``Retry-After`` of a 429.
        token_lifetime: Seconds for which a token is valid.
        link_lifetime: Whole seconds for which a link to artifacts is valid.
        clock_skew: Seconds by which the service's clock is ahead of this machine's.
        created_at_skew: Seconds by which the ``created_at`` of runs is ahead of the service's
            clock, which ``Date`` shows.
        keep_requests: How many requests are remembered.
        seed: What ids are made from; None for others each time.

    Attributes:
        organization_id: As above.
        user_id: As above.
        api_key: The secret of the user's API key.
        api_key_id: The id of the user's API key.
        base_url: Where the API is.
        rules: What can be changed while it serves: lifetimes and headers.
    """

    def __init__(
        self,
        *,
        organization_id: str = "sandbox",
        user_id: str = "user-1",
        permissions: Sequence[str] | None = None,
        plan: SetPlan | None = None,
        limits: Mapping[EndpointName, int | None] | None = None,
        window: float = 60.0,
        window_mode: WindowMode = "fixed",
        rate_limit_headers: HeaderStyle | None = "decimal",
        retry_after: HeaderStyle | None = "whole",
        token_lifetime: float = 3600.0,
        link_lifetime: int = 900,
        clock_skew: float = 0.0,
        created_at_skew: float = 0.0,
        keep_requests: int = 100_000,
        seed: int | None = None,
    ) -> None:
        self.organization_id = organization_id
        self.user_id = user_id
        self.api_key = Secret(token_hex(20))
        self.api_key_id = token_hex(8)
        self.base_url = ""
        self.rules = Rules(token_lifetime, link_lifetime, rate_limit_headers, retry_after)
        self._plan = plan or SetPlan()
        self._clock = ServiceClock(clock_skew)
        self._quotas = Quotas(limits or {}, window, window_mode)
        self._accounts = Accounts()
        self._simulation = Simulation(seed, created_at_skew)
        self._faults = Faults()
        self._requests: deque[Request] = deque(maxlen=keep_requests)
        self._store = ArtifactStore(self._simulation.runs, self._clock, self._simulation.new_id)
        self._serving = AsyncExitStack()
        self.add_user(user_id, permissions=permissions)
        self.add_api_key(self.api_key_id, self.api_key)

    # --- serving ---

    async def __aenter__(self) -> Self:
        """Begin to serve, on free ports of the loopback interface."""
        self._clock.follow(asyncio.get_running_loop())
        api = Api(
            self._accounts, self._simulation, self._quotas, self._store, self._clock, self.rules
        )
        servers = [
            Server(backend, self._clock, self._faults, self._requests)
            for backend in (api, self._store)
        ]
        async with AsyncExitStack() as stack:
            self.base_url, self.store_url = [
                await stack.enter_async_context(server.serve()) for server in servers
            ]
            self._serving = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving; connections that are open are closed."""
        await self._serving.aclose()
        forget(self.base_url)

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a thread with an event loop of its own, for as long as the context is open."""
        with (
            start_blocking_portal("asyncio") as portal,
            portal.wrap_async_context_manager(self),
        ):
            yield self

    @property
    def store_url(self) -> str:
        """Where the artifact store is; links lead there, or to what is set here, as to a proxy."""
        return self._store.url

    @store_url.setter
    def store_url(self, url: str) -> None:
        self._store.url = url

    @property
    def clock_skew(self) -> float:
        """Seconds by which the service's clock is ahead of this machine's; may be set."""
        return self._clock.skew

    @clock_skew.setter
    def clock_skew(self, seconds: float) -> None:
        self._clock.skew = seconds

    def now(self) -> float:
        """The time on the service's clock, in seconds since the epoch."""
        return self._clock.now()

    def client(self, **overrides: Any) -> AmigoClient:
        """A client that is set up for this sandbox.

        Args:
            **overrides: Arguments of `AmigoClient` to use instead.
        """
        from amigo_async.client import AmigoClient  # noqa: PLC0415  # only where it is used

        settings: dict[str, Any] = {
            "organization_id": self.organization_id,
            "base_url": self.base_url,
        }
        if "auth" not in overrides:
            settings |= {
                "api_key": self.api_key,
                "api_key_id": self.api_key_id,
                "user_id": self.user_id,
            }
        return AmigoClient(**{**settings, **overrides})

    def environment(self) -> dict[str, str]:
        """The ``AMIGO_*`` variables with which any client finds this sandbox."""
        return {
            "AMIGO_BASE_URL": self.base_url,
            "AMIGO_ORGANIZATION_ID": self.organization_id,
            "AMIGO_API_KEY": self.api_key,
            "AMIGO_API_KEY_ID": self.api_key_id,
            "AMIGO_USER_ID": self.user_id,
        }

    # --- accounts ---

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
        organization = organization_id or self.organization_id
        return self._accounts.add_user(organization, user_id, permissions, guest_of)

    def add_api_key(self, id: str, key: str, *, organization_id: str | None = None) -> None:
        """Add an API key, or replace one.

        Args:
            id: Its id.
            key: Its secret.
            organization_id: Whose it is; None for the sandbox's organization.
        """
        self._accounts.add_key(organization_id or self.organization_id, id, key)

    def add_organization(self, organization_id: str) -> None:
        """Add another organization, without users."""
        self._accounts.add_organization(organization_id)

    def issue_token(self, user_id: str | None = None, *, organization_id: str | None = None) -> str:
        """A token for a user, as a sign in would give it; None for the sandbox's own user."""
        user = self._accounts.user(organization_id or self.organization_id, user_id or self.user_id)
        return self._accounts.issue(user, self.now(), self.rules.token_lifetime)[0]

    def expire_tokens(self) -> None:
        """Let all tokens expire at once."""
        self._accounts.revoke_all()

    # --- sets and runs ---

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
        return self._simulation.add_set(owner, plan or self._plan, id)

    def add_sets(self, count: int, plan: SetPlan | None = None) -> list[str]:
        """Add `count` sets that do as `plan` says (None: the sandbox's); their ids."""
        return [self.add_set(plan) for _ in range(count)]

    def start_run(self, set_id: str, *, user_id: str | None = None) -> str:
        """Start a run as somebody else would, whatever runs and limits there are; its id.

        Args:
            set_id: The set; `KeyError` if there is none.
            user_id: Who starts it, of the set's organization; None for the sandbox's user.
        """
        unit_test_set = self._simulation.sets[set_id]
        creator = unit_test_set.organization_id, user_id or self.user_id
        return self._simulation.start(unit_test_set, creator, self.now()).id

    def cancel_run(self, run_id: str) -> None:
        """Cancel a run as somebody else would; nothing if it is over, `KeyError` without one."""
        run, now = self._simulation.runs[run_id], self.now()
        if not run.is_completed(now):
            run.cancel(now)

    @property
    def runs(self) -> list[RunInfo]:
        """The truth about all runs, in the order in which they were started."""
        now = self.now()
        return [run.info(now) for run in tuple(self._simulation.runs.values())]

    # --- artifacts ---

    def artifact_bytes(self, run_id: str) -> bytes:
        """The artifact of a run, whether or not it is there yet; `KeyError` without such a run."""
        return self._store.artifact(self._simulation.runs[run_id]).content[:]

    def change_artifact(self, run_id: str, data: bytes | None = None) -> None:
        """Put another object in the place of a run's artifact.

        Args:
            run_id: The run; `KeyError` if there is none.
            data: What it is from now on; None for noise of the size it had first.
        """
        self._store.change(self._simulation.runs[run_id], data)

    def presign(self, run_id: str, *, method: str = "GET", lifetime: int | None = None) -> str:
        """A link to the artifact of a run, whether or not it is there yet.

        Args:
            run_id: The run; `KeyError` if there is none.
            method: The HTTP method it is valid for.
            lifetime: Whole seconds for which it is valid, 0 or less for a link that has expired;
                None for the sandbox's `link_lifetime`.
        """
        seconds = self.rules.link_lifetime if lifetime is None else lifetime
        return self._store.presign(self._simulation.runs[run_id], method, seconds)[0]

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
            route: ``"sign_in"``, ``"create"``, ``"list"``, ``"cancel"``, ``"artifacts"`` or
                ``"store"``.
            *faults: What may go wrong.
            rate: How probable it is, from 0 to 1.
            seed: The same seed draws the same.
        """
        self._faults.at_random(route, faults, rate, seed)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    def spend(
        self, endpoint: EndpointName, count: int = 1, *, organization_id: str | None = None
    ) -> int:
        """Spend quota as another process of the organization would.

        Args:
            endpoint: The endpoint.
            count: How many requests are sent.
            organization_id: The organization; None for the sandbox's.

        Returns:
            How many of the `count` requests were admitted.
        """
        organization, now = organization_id or self.organization_id, self.now()
        standings = [self._quotas.admit(organization, endpoint, now) for _ in range(count)]
        return sum(standing is None or standing.admitted for standing in standings)

    # --- what was asked ---

    @property
    def requests(self) -> list[Request]:
        """The requests that came, the latest last."""
        return list(self._requests)

    def count(self, route: Route, *, status: int | None = None) -> int:
        """How many requests of `route` came; only those answered with `status`, if given."""
        return sum(
            request.route == route and status in {None, request.status} for request in self.requests
        )

    def forget_requests(self) -> None:
        """Forget the requests that came so far."""
        self._requests.clear()
