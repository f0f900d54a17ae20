"""The sandbox: the Amigo API and an artifact store in one process, on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_bytes, token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from amigo_async.limits import forget
from amigo_async.redact import Secret
from amigo_async.testing.accounts import Accounts, User, permissions_of
from amigo_async.testing.epoch import Epoch
from amigo_async.testing.faults import Fault, Faults
from amigo_async.testing.front import Backend, Front, Shared
from amigo_async.testing.limits import Endpoint, HeaderStyle, Limits, WindowMode, limits_by
from amigo_async.testing.plans import SetPlan
from amigo_async.testing.record import Recorder, Request, Route
from amigo_async.testing.service import Rules, Service
from amigo_async.testing.signing import Signer
from amigo_async.testing.store import Objects, Store
from amigo_async.testing.world import RunInfo, World

if TYPE_CHECKING:
    from amigo_async.client import AmigoClient

# Seconds for connections to end by themselves when the sandbox stops. Not 0, which means never.
_LAST_CALL: Final = 0.05


class Sandbox:
    """Serves the API and an artifact store for as long as its context is open.

    ``async with Sandbox() as sandbox, sandbox.client() as client:`` serves in the running loop;
    ``with Sandbox().in_thread() as sandbox:`` in a thread with a loop of its own. It keeps the
    rules of the service: authorization, permissions, one unfinished run a user and set, rate
    limits, links that are signed and expire. Its clock goes by the loop's, so on
    `VirtualTimeLoop` its minutes are skipped too.

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
        token_lifetime: Seconds for which a token is good.
        link_lifetime: Whole seconds for which a link to artifacts is good.
        clock_skew: Seconds by which the service's clock is ahead of this machine's.
        keep_requests: How many requests are remembered.
        seed: What ids are made from; None for others each time.

    Attributes:
        organization_id: As above.
        user_id: As above.
        api_key: The secret of the user's API key.
        api_key_id: The id of the user's API key.
        base_url: Where the API is.
        store_url: Where the artifact store is.
        rules: What can be changed while it serves: lifetimes and headers.
    """

    def __init__(
        self,
        *,
        organization_id: str = "sandbox",
        user_id: str = "user-1",
        permissions: Sequence[str] | None = None,
        plan: SetPlan | None = None,
        limits: Mapping[Endpoint, int | None] | None = None,
        window: float = 60.0,
        window_mode: WindowMode = "fixed",
        rate_limit_headers: HeaderStyle | None = "decimal",
        retry_after: HeaderStyle | None = "whole",
        token_lifetime: float = 3600.0,
        link_lifetime: int = 900,
        clock_skew: float = 0.0,
        keep_requests: int = 100_000,
        seed: int | None = None,
    ) -> None:
        self.organization_id = organization_id
        self.user_id = user_id
        self.api_key = Secret(token_hex(20))
        self.api_key_id = token_hex(8)
        self.base_url = ""
        self.store_url = ""
        self.rules = Rules(token_lifetime, link_lifetime, rate_limit_headers, retry_after)
        self._plan = plan or SetPlan()
        self._epoch = Epoch(clock_skew)
        self._limits = Limits(limits_by(limits), window, window_mode)
        self._accounts = Accounts(token_bytes(32))
        self._world = World(seed)
        self._faults = Faults()
        self._recorder = Recorder(keep_requests)
        self._objects = Objects(self._epoch)
        signer = Signer("AKIA" + token_hex(8).upper(), token_hex(20))
        self._store = Store(self._objects, signer, self._epoch, self._world.new_id)
        self._shared: Shared | None = None
        self._runners: list[web.ServerRunner] = []
        self.add_user(user_id, permissions=permissions)
        self._accounts.add_key(organization_id, self.api_key_id, self.api_key)

    async def __aenter__(self) -> Self:
        """Begin to serve, on free ports of the loopback interface."""
        self._epoch.start(asyncio.get_running_loop())
        self._shared = Shared(self._epoch, self._faults, self._recorder)
        service = Service(
            accounts=self._accounts,
            world=self._world,
            limits=self._limits,
            store=self._store,
            epoch=self._epoch,
            rules=self.rules,
        )
        self.base_url = await self._serve(service, self._shared)
        self.store_url = self._store.base = await self._serve(self._store, self._shared)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving; connections that are open are closed."""
        if self._shared is not None:
            self._shared.closing.set()
        while self._runners:
            await self._runners.pop().cleanup()
        forget(self.base_url)

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a thread with an event loop of its own, for as long as the context is open."""
        loop_of: list[asyncio.AbstractEventLoop] = []
        started, stop = threading.Event(), asyncio.Event()
        failed: list[BaseException] = []

        async def serve() -> None:
            loop_of.append(asyncio.get_running_loop())
            async with self:
                started.set()
                await stop.wait()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:  # noqa: BLE001  # raised where it was started
                failed.append(error)
            finally:
                started.set()

        thread = threading.Thread(target=run, name="amigo-sandbox")
        thread.start()
        started.wait()
        try:
            if failed:
                raise failed[0]
            yield self
        finally:
            if not failed:
                loop_of[0].call_soon_threadsafe(stop.set)
            thread.join()

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
        return self._world.add_set(organization_id or self.organization_id, plan or self._plan, id)

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
        self._accounts.add_user(user)
        return user

    def add_organization(self, organization_id: str) -> None:
        """Let there be another organization, without users."""
        self._accounts.add_organization(organization_id)

    def issue_token(self, user_id: str | None = None, *, organization_id: str | None = None) -> str:
        """A token for a user, as a sign in would give it; None for the sandbox's own user."""
        user = self._accounts.user(organization_id or self.organization_id, user_id or self.user_id)
        token, _ = self._accounts.issue(user, self._epoch.now(), self.rules.token_lifetime)
        return token

    def expire_tokens(self) -> None:
        """Let all tokens expire at once."""
        self._accounts.revoke_all()

    @property
    def runs(self) -> list[RunInfo]:
        """The truth about all runs, in the order in which they were started."""
        now = self._epoch.now()
        return [self._world.info(run, now) for run in tuple(self._world.runs.values())]

    def artifact_bytes(self, run_id: str) -> bytes:
        """The artifact of a run, whether or not it is there yet; `KeyError` without such a run."""
        content = self._objects.of(self._world.runs[run_id]).content
        return bytes(content.read(0, content.size))

    def change_artifact(self, run_id: str, data: bytes | None = None) -> None:
        """Put another object in the place of a run's artifact.

        Args:
            run_id: The run; `KeyError` if there is none.
            data: What it is from now on; None for something of the same size.
        """
        self._objects.change(self._world.runs[run_id], data)

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
        organization = organization_id or self.organization_id
        now = self._epoch.now()
        standings = [self._limits.admit(organization, endpoint, now) for _ in range(count)]
        return sum(standing is None or standing.admitted for standing in standings)

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

    async def _serve(self, backend: Backend, shared: Shared) -> str:
        runner = web.ServerRunner(
            web.Server(Front(backend, shared), access_log=None),
            shutdown_timeout=_LAST_CALL,
        )
        self._runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"
