"""The sandbox: the Amigo API and an artifact store in one process, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from secrets import token_bytes, token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from amigo_async.limits import forget
from amigo_async.redact import Secret
from amigo_async.testing.accounts import Accounts
from amigo_async.testing.controls import Controls
from amigo_async.testing.epoch import Epoch
from amigo_async.testing.faults import Faults
from amigo_async.testing.front import Backend, Front, Shared
from amigo_async.testing.limits import Endpoint, HeaderStyle, Limits, WindowMode, limits_by
from amigo_async.testing.objects import Objects
from amigo_async.testing.plans import SetPlan
from amigo_async.testing.record import Recorder
from amigo_async.testing.service import Rules, Service
from amigo_async.testing.signing import Signer
from amigo_async.testing.store import Store
from amigo_async.testing.threads import held_open
from amigo_async.testing.world import World

if TYPE_CHECKING:
    from amigo_async.client import AmigoClient

# Seconds for connections to end by themselves when the sandbox stops. Not 0, which means never.
_LAST_CALL: Final = 0.05


class Sandbox(Controls):
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
        self._loop = None
        self._runners: list[web.ServerRunner] = []
        self.add_user(user_id, permissions=permissions)
        self.add_api_key(self.api_key_id, self.api_key)

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
        try:
            self.base_url = await self._serve(service, self._shared)
            self.store_url = self._store.base = await self._serve(self._store, self._shared)
        except BaseException:
            await self._stop()
            raise
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving; connections that are open are closed."""
        self._loop = None
        await self._stop()
        forget(self.base_url)

    async def _stop(self) -> None:
        if self._shared is not None:
            self._shared.closing.set()
        while self._runners:
            await self._runners.pop().cleanup()

    def in_thread(self) -> AbstractContextManager[Self]:
        """Serve from a thread with an event loop of its own, for as long as the context is open.

        What the sandbox's methods do they do in that thread, whichever they are called from.
        """
        return held_open(self)

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

    async def _serve(self, backend: Backend, shared: Shared) -> str:
        runner = web.ServerRunner(
            # Nobody answers a client that has gone; work that must be done then is shielded.
            web.Server(Front(backend, shared), access_log=None, handler_cancellation=True),
            shutdown_timeout=_LAST_CALL,
        )
        self._runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"
