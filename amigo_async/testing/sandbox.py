"""The sandbox: the Amigo API and an artifact store in one process, on the loopback interface."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from anyio.from_thread import start_blocking_portal
from yarl import URL

from amigo_async.checks import (
    check_count,
    check_names,
    check_number,
    check_text,
    check_type,
)
from amigo_async.errors import ArgumentError
from amigo_async.protocol.endpoints import ENDPOINTS, EndpointName
from amigo_async.ratelimit import forget
from amigo_async.redact import Secret
from amigo_async.testing.accounts import Accounts, User
from amigo_async.testing.api import Api, Rules
from amigo_async.testing.artifact_store import ArtifactStore
from amigo_async.testing.faults import Fault, Faults
from amigo_async.testing.quota import HeaderStyle, Quotas, WindowMode
from amigo_async.testing.server import RecordedRequest, Route, Server, ServiceClock
from amigo_async.testing.simulation import RunInfo, SetPlan, Simulation
from amigo_async.testing.virtual_time import SERVERS, check_peer

if TYPE_CHECKING:
    from amigo_async.client import AmigoClient

# The artifact store has the port after that of the API.
_LAST_PORT: Final = 65_535


class Sandbox:
    """Serves the API and an artifact store on the loopback interface.

    It follows the rules of the service: authentication, permissions, one unfinished run per user
    and set, rate limits, links that are signed and expire.

    ``async with Sandbox() as sandbox:`` serves in the running event loop, and with its clock: on
    `VirtualTimeLoop`, waits of the sandbox are skipped too. ``with Sandbox().in_thread() as
    sandbox:`` serves from a thread with an event loop of its own. All methods can be called from
    any thread.

    Example::

        from amigo_async.testing import Sandbox, SetPlan

        async with Sandbox(limits={"create": 5}) as sandbox, sandbox.client() as client:
            set_id = sandbox.add_set(SetPlan(seconds=1, outcome="failed"))
            result = await client.run_many([set_id])
            assert result.counts == {"failed": 1}
            assert sandbox.count("create") == 1

    Args:
        organization_id: The organization of the user that `client` authenticates as.
        user_id: That user.
        permissions: Permissions of that user, by the API's names; None for all of them.
        plan: Plan of sets that are added without one; None for ``SetPlan()``.
        limits: Requests per window by endpoint, or None for no limit. Endpoints that are not given
            have the documented limits: 5 for ``"sign_in"``, 20 for ``"create"`` and ``"metrics"``,
            50 for ``"list"``, ``"unit_test_sets"`` and ``"search_unit_test_sets"``, 10 for
            ``"cancel"`` and ``"evaluations"``, 100 for ``"artifacts"``, 200 for ``"unit_tests"``.
            None for these limits.
        window: Length of a rate limit window in seconds.
        window_mode: ``"fixed"`` (a window begins with its first request) or ``"sliding"``.
        rate_limit_headers: Format of ``X-RateLimit-Reset``: ``"decimal"`` or ``"whole"`` seconds
            (rounded up). None to send no ``X-RateLimit-*`` headers.
        retry_after: Format of ``Retry-After`` in a 429: ``"decimal"`` or ``"whole"`` seconds
            (rounded up). None to send no such header.
        token_lifetime: Seconds for which a token is valid.
        link_lifetime: Whole seconds for which a link to artifacts is valid.
        clock_skew: Seconds by which the service's clock is ahead of this machine's.
        created_at_skew: Seconds by which the ``created_at`` of runs is ahead of the service's
            clock (the ``Date`` header).
        host: Name or address to listen on; an address other than that of the loopback interface
            lets others in.
        port: Port of the API, and the next one is that of the artifact store; 0 for two free ones.
        keep_requests: Number of requests to keep in `requests`.
        seed: Seed of the ids, and of what is left to chance in a `SetPlan`; None for one from
            Python's global generator, which `random.seed` makes repeatable.

    Attributes:
        organization_id: The organization.
        user_id: The user that `client` authenticates as.
        api_key: Secret of the user's API key.
        api_key_id: Id of the user's API key.
        base_url: Base URL of the API; empty before the sandbox serves.
        rules: Lifetimes and header formats, which can be changed while the sandbox serves.

    Raises:
        ArgumentError: If a setting is invalid; the message says what it can be. It is a
            `ValueError`.
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
        host: str = "127.0.0.1",
        port: int = 0,
        keep_requests: int = 100_000,
        seed: int | None = None,
    ) -> None:
        texts = {"organization_id": organization_id, "user_id": user_id, "host": host}
        for name, text in texts.items():
            check_text(name, text)
        check_count("port", port)
        if port >= _LAST_PORT:
            raise ArgumentError(f"port must be less than {_LAST_PORT}, not {port}")
        for name, seconds in {
            "clock_skew": clock_skew,
            "created_at_skew": created_at_skew,
        }.items():
            check_number(name, seconds, above=-math.inf)
        check_count("keep_requests", keep_requests)
        if plan is not None:
            check_type("plan", plan, SetPlan)
        if seed is not None:
            check_type("seed", seed, int)
        self.organization_id = organization_id
        self.user_id = user_id
        self.api_key = Secret(token_hex(20))
        self.api_key_id = token_hex(8)
        self.base_url = ""
        self.rules = Rules(token_lifetime, link_lifetime, rate_limit_headers, retry_after)
        self._host = host
        self._ports = (port, port + 1) if port else (0, 0)
        self._plan = plan or SetPlan()
        self._clock = ServiceClock(clock_skew)
        self._quotas = Quotas({} if limits is None else limits, window, window_mode)
        self._accounts = Accounts()
        self._simulation = Simulation(seed, created_at_skew)
        self._faults = Faults()
        self._requests: deque[RecordedRequest] = deque(maxlen=keep_requests)
        self._store = ArtifactStore(self._simulation.runs, self._clock, self._simulation.new_id)
        self._serving = AsyncExitStack()
        self.add_user(user_id, permissions=permissions)
        self.add_api_key(self.api_key_id, self.api_key)

    # --- serving ---

    async def __aenter__(self) -> Self:
        """Start to serve.

        Raises:
            OSError: If a port is taken, or the host is none of this machine.
        """
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
                await stack.enter_async_context(server.serve(self._host, port))
                for server, port in zip(servers, self._ports, strict=True)
            ]
            for url in (self.base_url, self.store_url):
                port = URL(url).port or 0
                SERVERS[port] = asyncio.get_running_loop()
                stack.callback(SERVERS.pop, port)
            self._serving = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving, and close open connections."""
        await self._serving.aclose()
        forget(self.base_url)

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a thread with an event loop of its own while the context is open."""
        with (
            start_blocking_portal("asyncio") as portal,
            portal.wrap_async_context_manager(self),
        ):
            yield self

    @property
    def store_url(self) -> str:
        """Base URL of new links; may be set, e.g. to that of a proxy in front of the store."""
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
        check_number("clock_skew", seconds, above=-math.inf)
        self._clock.skew = seconds

    def now(self) -> float:
        """Return the time by the service's clock, in seconds since the epoch."""
        return self._clock.now()

    def client(self, **overrides: Any) -> AmigoClient:
        """Return a client that is configured for this sandbox.

        Args:
            **overrides: Arguments of `AmigoClient` that replace or complement the configured
                ones, e.g. ``auth`` to authenticate as another user.

        Raises:
            ConfigurationError: If `VirtualTimeLoop` is running, but the sandbox serves from another
                event loop.
        """
        check_peer(URL(self.base_url).port)
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
        """Return the ``AMIGO_*`` environment variables that configure a client for this sandbox."""
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
        """Add or replace a user; adds the organization if it does not exist.

        Args:
            user_id: The user.
            organization_id: The organization that issues the user's tokens; None for that of the
                sandbox.
            permissions: Permissions of the user, by the API's names; None for all of them.
            guest_of: Other organizations in which the user may act (with ``X-ORG-ID``).

        Raises:
            ArgumentError: If `permissions` name something unknown.
        """
        organization = organization_id or self.organization_id
        return self._accounts.add_user(organization, user_id, permissions, guest_of)

    def add_api_key(self, id: str, key: str, *, organization_id: str | None = None) -> None:
        """Add or replace an API key.

        Args:
            id: Its id.
            key: Its secret.
            organization_id: Its organization; None for that of the sandbox.
        """
        self._accounts.add_key(organization_id or self.organization_id, id, key)

    def add_organization(self, organization_id: str) -> None:
        """Add an organization without users."""
        self._accounts.add_organization(organization_id)

    def issue_token(self, user_id: str | None = None, *, organization_id: str | None = None) -> str:
        """Issue a token, as a sign-in does.

        Args:
            user_id: The user; None for that of the sandbox.
            organization_id: The user's organization; None for that of the sandbox.

        Raises:
            KeyError: If there is no such user.
        """
        user = self._accounts.user(organization_id or self.organization_id, user_id or self.user_id)
        return self._accounts.issue(user, self.now(), self.rules.token_lifetime)[0]

    def expire_tokens(self) -> None:
        """Revoke all tokens."""
        self._accounts.revoke_all()

    # --- sets and runs ---

    def add_set(
        self,
        plan: SetPlan | None = None,
        *,
        id: str | None = None,
        organization_id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> str:
        """Add a unit test set, or replace the plan of one for its next runs.

        Args:
            plan: What its runs do; None for the `plan` of the sandbox.
            id: Its id; None for a new one.
            organization_id: Its organization; None for that of the sandbox.
            name: Its name; None for one from a list.
            description: Its description; None for one from a list.
            tags: Its tags; the value None stands for a tag without value. None for no tags.

        Returns:
            Its id.

        Raises:
            ArgumentError: If an argument is invalid; the message names it.
        """
        if plan is not None:
            check_type("plan", plan, SetPlan)
        for text, value in {"id": id, "organization_id": organization_id}.items():
            if value is not None:
                check_text(text, value)
        for text, value in {"name": name, "description": description}.items():
            if value is not None:
                check_type(text, value, str)
        if tags is not None:
            check_type("tags", tags, Mapping)
        return self._simulation.add_set(
            organization_id or self.organization_id,
            plan or self._plan,
            id,
            name=name,
            description=description,
            tags=tags,
        )

    def delete(self, id: str) -> None:
        """Mark a set, a unit test or a metric as deleted: lists show it only if asked to.

        Runs of a deleted set can still be started and listed.

        Args:
            id: Its id.
        """
        self._simulation.deleted.add(id)

    def add_sets(self, count: int, plan: SetPlan | None = None) -> list[str]:
        """Add several unit test sets.

        Args:
            count: Number of sets.
            plan: What their runs do; None for the `plan` of the sandbox.

        Returns:
            Their ids.

        Raises:
            ArgumentError: If `count` is negative, or `plan` is no plan.
        """
        check_count("count", count)
        return [self.add_set(plan) for _ in range(count)]

    def start_run(self, set_id: str, *, user_id: str | None = None) -> str:
        """Start a run without a request, ignoring rate limits and unfinished runs.

        Args:
            set_id: The set.
            user_id: The creator, a user of the set's organization; None for the sandbox's user.

        Returns:
            The id of the run.

        Raises:
            KeyError: If there is no such set.
        """
        unit_test_set = self._simulation.sets[set_id]
        creator = unit_test_set.organization_id, user_id or self.user_id
        return self._simulation.start(unit_test_set, creator, self.now()).id

    def cancel_run(self, run_id: str) -> None:
        """Cancel a run without a request; does nothing if it has ended.

        Raises:
            KeyError: If there is no such run.
        """
        run, now = self._simulation.runs[run_id], self.now()
        if not run.is_completed(now):
            run.cancel(now)

    @property
    def runs(self) -> list[RunInfo]:
        """The actual state of all runs, in the order of their start."""
        now = self.now()
        return [run.info(now) for run in tuple(self._simulation.runs.values())]

    # --- artifacts ---

    def artifact_bytes(self, run_id: str) -> bytes:
        """Return the artifact of a run, even if it is not available yet.

        Raises:
            KeyError: If there is no such run.
        """
        return self._store.artifact(self._simulation.runs[run_id]).content[:]

    def change_artifact(self, run_id: str, data: bytes | None = None) -> None:
        """Replace the artifact of a run.

        Args:
            run_id: The run.
            data: The new content; None for random content of the original size.

        Raises:
            KeyError: If there is no such run.
        """
        self._store.change(self._simulation.runs[run_id], data)

    def presign(self, run_id: str, *, method: str = "GET", lifetime: int | None = None) -> str:
        """Return a link to the artifact of a run, even if it is not available yet.

        Args:
            run_id: The run.
            method: The HTTP method that the link is valid for.
            lifetime: Whole seconds for which the link is valid, 0 or less for an expired link;
                None for the `link_lifetime` of the sandbox.

        Raises:
            KeyError: If there is no such run.
        """
        seconds = self.rules.link_lifetime if lifetime is None else lifetime
        return self._store.presign(self._simulation.runs[run_id], method, seconds)[0]

    # --- faults and other clients ---

    def fault(self, route: Route, fault: Fault, *, times: int = 1) -> None:
        """Inject a fault into the next requests, after faults that were queued before.

        Example::

            from amigo_async.testing import Fault, Sandbox

            async with Sandbox() as sandbox, sandbox.client() as client:
                sandbox.fault("list", Fault.status(503))
                await client.runs.list()
                assert sandbox.count("list", status=503) == 1

        Args:
            route: An endpoint, such as ``"create"`` (`limits` of the sandbox lists them), or
                ``"store"``.
            fault: The fault.
            times: Number of requests.

        Raises:
            ArgumentError: If the route is unknown, or the fault is impossible for it.
        """
        self._faults.queue(route, fault, times)

    def faults_at_random(self, route: Route, *faults: Fault, rate: float, seed: int = 0) -> None:
        """Inject faults into requests at random, from now on.

        Args:
            route: An endpoint, such as ``"create"`` (`limits` of the sandbox lists them), or
                ``"store"``.
            *faults: The faults to choose from.
            rate: Probability of a fault per request, from 0 to 1.
            seed: Seed of the choices; the same seed makes the same choices.

        Raises:
            ArgumentError: If `rate` is out of range, there are no faults, the route is unknown,
                or a fault is impossible for it.
        """
        self._faults.at_random(route, faults, rate, seed)

    def clear_faults(self) -> None:
        """Remove all faults, queued and random."""
        self._faults.clear()

    def spend(
        self, endpoint: EndpointName, count: int = 1, *, organization_id: str | None = None
    ) -> int:
        """Consume quota, as requests of another process would.

        Args:
            endpoint: The endpoint.
            count: Number of requests.
            organization_id: The organization; None for that of the sandbox.

        Returns:
            How many of the requests were within the limit.

        Raises:
            ArgumentError: If there is no such endpoint.
        """
        check_names("endpoint", [endpoint], [each.name for each in ENDPOINTS])
        check_count("count", count)
        organization, now = organization_id or self.organization_id, self.now()
        states = [self._quotas.admit(organization, endpoint, now) for _ in range(count)]
        return sum(state is None or state.admitted for state in states)

    # --- recorded requests ---

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests received so far, oldest first."""
        return list(self._requests)

    def count(self, route: Route, *, status: int | None = None) -> int:
        """Count the requests received so far.

        Args:
            route: The endpoint, ``"store"``, or ``"unknown"``.
            status: Count only requests that got this status; None for all.

        Raises:
            ArgumentError: If there is no such route.
        """
        check_names("route", [route], [*(each.name for each in ENDPOINTS), "store", "unknown"])
        return sum(
            request.route == route and status in {None, request.status} for request in self.requests
        )

    def forget_requests(self) -> None:
        """Forget the requests received so far."""
        self._requests.clear()
