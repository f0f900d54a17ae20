"""Proxies between client, API and store: HAProxy, which nobody here wrote, and those of users."""

from __future__ import annotations

import asyncio
import base64
import inspect
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import backoff
import pytest

from amigo_async import AmigoClient, BatchResult, ConfigurationError
from amigo_async.errors import TransportError
from amigo_async.events import Event, RequestRetried
from amigo_async.starting import starts
from amigo_async.testing import ArtifactPlan, Fault, Sandbox, SetPlan
from amigo_async.transport import environment_session
from tests.support import tls_servers as tls
from tests.support.processes import free_port
from tests.support.proxies import HAProxy, Settings, Tunnels

# Real processes take several times as long on a busy machine.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ENDPOINTS: Final[tuple[Any, ...]] = ("create", "list", "artifacts")
# A run of a second at most: HAProxy's time is real.
PLAN = SetPlan(
    seconds=(0.1, 1.0), artifacts_after=0.1, artifact=ArtifactPlan(size=300_000, checksum="sha256")
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A loop on which waits are real, as they are for HAProxy."""
    return "asyncio", {"debug": False}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the longest: as short as the runs and the outages, and never shorter by chance."""
    monkeypatch.setattr(backoff, "full_jitter", lambda ceiling: ceiling / 10)
    # Here a list shows a run as soon as it was created.
    monkeypatch.setattr(starts, "SEARCH_TIMEOUT", 3.0)


@asynccontextmanager
async def sandbox_behind(
    folder: Path, settings: Settings | None = None
) -> AsyncIterator[tuple[Sandbox, HAProxy]]:
    # Told in headers: without any, the client would keep to the documented budgets.
    plenty: Any = dict.fromkeys(["sign_in", "create", "list", "cancel", "artifacts"], 10_000)
    async with (
        Sandbox(limits=plenty, seed=0) as sandbox,
        HAProxy.before(sandbox, folder, settings) as proxy,
    ):
        yield sandbox, proxy


class Batch:
    """A batch of sets with artifacts, through a proxy."""

    def __init__(
        self, sandbox: Sandbox, proxy: HAProxy, folder: Path, count: int, plan: SetPlan = PLAN
    ) -> None:
        self.sandbox = sandbox
        self.sets = sandbox.add_sets(count, plan)
        self.retried: list[str] = []
        self._folder = folder
        self._proxy = proxy

    def _listen(self, event: Event) -> None:
        if isinstance(event, RequestRetried):
            self.retried.append(event.reason)

    async def run(self) -> BatchResult:
        client = self.sandbox.client(base_url=self._proxy.url(), on_event=self._listen)
        async with client:
            return await client.run_many(
                self.sets, artifacts_dir=self._folder / "out", poll_interval=0.1, timeout=150
            )

    def check(self, result: BatchResult) -> None:
        """Every set passed, was started once, and has its artifact as it is in the store."""
        assert [(o.verdict, o.error) for o in result.outcomes] == [("passed", None)] * len(
            self.sets
        )
        started = [run.unit_test_set_id for run in self.sandbox.runs]
        assert sorted(started) == sorted(self.sets)
        for outcome in result.outcomes:
            assert outcome.run_id is not None
            assert outcome.artifacts is not None
            assert outcome.artifacts.read_bytes() == self.sandbox.artifact_bytes(outcome.run_id)


# --- HAProxy before the service ---


async def test_queueing_proxy(tmp_path: Path) -> None:
    """Its 503 says that no connection to the service was free in time: nothing was done."""
    crowded = Settings(maxconn=2, queue="50ms")
    async with sandbox_behind(tmp_path, crowded) as (sandbox, proxy):
        # Both connections, for long enough that others queue in vain, however busy the machine is.
        sandbox.fault("create", Fault.delay(1.0), times=2)
        sandbox.fault("store", Fault.delay(2.0), times=2)
        batch = Batch(sandbox, proxy, tmp_path, 30, replace(PLAN, seconds=0.5))
        batch.check(await batch.run())
        for name in ("api", "store"):
            assert (await proxy.statuses(name))["5xx"] > 0
        assert not [r for r in sandbox.requests if (r.status or 0) >= 500]


async def test_impatient_proxy(tmp_path: Path) -> None:
    """Its 504 comes while the service is at work: what was started must be found."""
    hasty = Settings(server="400ms", client="500ms", keep_alive="10ms")
    async with sandbox_behind(tmp_path, hasty) as (sandbox, proxy):
        late, early = Fault.delay(0.6, after_work=True), Fault.delay(0.6)
        for endpoint in ENDPOINTS:
            sandbox.faults_at_random(endpoint, late, early, rate=0.15)
        sandbox.faults_at_random("store", early, Fault.stall(100_000), rate=0.4)
        sandbox.fault("create", late, times=3)
        sandbox.fault("store", early, times=2)
        batch = Batch(sandbox, proxy, tmp_path, 20)
        batch.check(await batch.run())
        assert (await proxy.statuses("api"))["5xx"] >= 3
        assert (await proxy.statuses("store"))["5xx"] > 0


async def test_proxy_that_refuses_some(tmp_path: Path) -> None:
    """In HTML, with the statuses that it has for its own troubles.

    By number, never two in a row: by chance, now and then, all attempts of one request would fail,
    and without the lists before the creates a run that is over cannot be told from an earlier one.
    """
    rules = [
        f"http-request deny deny_status {status} if {{ var(txn.number),mod(40) -m int {number} }}"
        for number, status in zip((3, 11, 19, 27, 35), (408, 500, 502, 503, 504), strict=True)
    ]
    # Behind the work too: the answer is lost, and its run has been started.
    rules.append("http-response deny deny_status 502 if { var(txn.number),mod(8) -m int 0 }")
    async with sandbox_behind(tmp_path, Settings(rules=tuple(rules))) as (sandbox, proxy):
        batch = Batch(sandbox, proxy, tmp_path, 30)
        batch.check(await batch.run())
        assert (await proxy.statuses("api"))["5xx"] > 0


async def test_proxy_restarts(tmp_path: Path) -> None:
    async with sandbox_behind(tmp_path) as (sandbox, proxy):
        batch = Batch(sandbox, proxy, tmp_path, 30)
        sandbox.faults_at_random("store", Fault.drip(0.01, 30_000), rate=0.5)

        async def restarts() -> None:
            """Each end of a process finds a request that still has no answer."""
            for endpoint in ("create", "artifacts"):
                await sees_one_more(endpoint)
                await proxy.reload()
                await sees_one_more(endpoint)
                await proxy.kill()
                await asyncio.sleep(0.1)
                await proxy.start()

        async def sees_one_more(endpoint: Any) -> None:
            seen = sandbox.count(endpoint)
            sandbox.fault(endpoint, Fault.delay(60.0))
            while sandbox.count(endpoint) == seen:
                await asyncio.sleep(0.01)

        restarting = asyncio.create_task(restarts())
        result = await batch.run()
        await restarting
        batch.check(result)
        assert proxy.started == 5
        assert any("got no response" in reason for reason in batch.retried)


# --- the proxies of users ---


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


async def collected(client: AmigoClient, sandbox: Sandbox, folder: Path) -> BatchResult:
    sets = sandbox.add_sets(2, SetPlan(seconds=0.1, artifacts_after=0.0))
    return await client.run_many(sets, artifacts_dir=folder, poll_interval=0.1)


async def test_environment_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sandbox_behind(tmp_path) as (sandbox, proxy):
        sandbox.store_url = proxy.upstream_store
        monkeypatch.setenv("HTTP_PROXY", proxy.url("forward"))
        async with (
            aiohttp.ClientSession(trust_env=True) as http,
            sandbox.client(http=http) as client,
        ):
            assert (await collected(client, sandbox, tmp_path / "out")).passed
        seen = await proxy.statuses("forward")
        assert seen["2xx"] == len(sandbox.requests) - sandbox.count("artifacts", status=400)
        assert sandbox.count("store") > 0
        assert not [r for r in sandbox.requests if r.route == "store" and _credentials(r.headers)]


def _credentials(headers: Any) -> list[str]:
    return [name for name in dict(headers) if "authorization" in name.lower()]


@asynccontextmanager
async def behind_tls() -> AsyncIterator[Sandbox]:
    """A sandbox of which nothing is to be had but by TLS."""
    context = tls.serving(tls.good)
    async with (
        Sandbox() as sandbox,
        tls.Front(sandbox.base_url, context).open() as api,
        tls.Front(sandbox.store_url, context).open() as store,
    ):
        sandbox.base_url, sandbox.store_url = api.url, store.url
        yield sandbox


def session(**settings: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls.trusting()), **settings)


OWN_PROXY = pytest.mark.skipif(
    "proxy" not in inspect.signature(aiohttp.ClientSession).parameters,
    reason="this aiohttp has no proxy for a whole session",
)


@pytest.mark.parametrize("how", ["environment", pytest.param("session", marks=OWN_PROXY)])
async def test_tls_through_the_proxy(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_tls() as sandbox, Tunnels().open() as proxy:
        url = proxy.url.replace("//", "//user:hunter2@")
        if how == "environment":
            monkeypatch.setenv("HTTPS_PROXY", url)
        given = session(trust_env=True) if how == "environment" else session(proxy=url)
        async with given as http, sandbox.client(http=http) as client:
            assert (await collected(client, sandbox, tmp_path / "out")).passed
        targets = {asked.split(" ", 2)[1] for asked in proxy.asked}
        servers = (sandbox.base_url, sandbox.store_url)
        assert targets == {server.removeprefix("https://") for server in servers}
        named = [line.lower() for asked in proxy.asked for line in asked.splitlines()]
        assert len(proxy.asked) == sum(line.startswith("proxy-authorization:") for line in named)
        assert not any(line.startswith(("authorization", "x-api-key")) for line in named)


async def test_no_proxy_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with behind_tls() as sandbox, Tunnels().open() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with session(trust_env=True) as http, sandbox.client(http=http) as client:
            assert (await collected(client, sandbox, tmp_path / "out")).passed
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("refusal", "attempts", "lasting"),
    [("407 Proxy Authentication Required", 1, True), ("503 Service Unavailable", 4, False)],
)
async def test_refusing_proxy_is_named(
    refusal: str, attempts: int, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that is refused once is not tried again: some lock the user out for that."""
    async with behind_tls() as sandbox, Tunnels(refusal=refusal).open() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:hunter2@"))
        async with session(trust_env=True) as http, sandbox.client(http=http) as client:
            with pytest.raises(TransportError, match=f"proxy refuses to connect: {refusal}") as got:
                await client.runs.list()
        assert (got.value.lasting, got.value.sent) == (lasting, False)
        assert len(proxy.asked) == attempts
        shown = "".join(traceback.format_exception(got.value)) + repr(got.value.__cause__)
        assert "hunter2" not in shown
        assert base64.b64encode(b"user:hunter2").decode() not in shown


async def test_absent_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox() as sandbox:
        nowhere = f"127.0.0.1:{free_port()}"
        monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@{nowhere}")
        async with session(trust_env=True) as http, sandbox.client(http=http) as client:
            with pytest.raises(TransportError, match=f"cannot connect to the proxy {nowhere}") as e:
                await client.runs.list()
        assert not e.value.sent
        assert "hunter2" not in "".join(traceback.format_exception(e.value)) + repr(
            e.value.__cause__
        )


@pytest.mark.parametrize("value", ["127.0.0.1:3128", "proxy.example:3128", "http://:3128"])
async def test_invalid_environment_proxy(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    async with session(trust_env=True) as http, Sandbox() as sandbox:
        with pytest.raises(ConfigurationError, match="HTTPS_PROXY cannot be read: it must be like"):
            sandbox.client(http=http)
    async with session() as http, Sandbox() as sandbox:
        sandbox.client(http=http)


# --- .netrc, which a session with trust_env reads ---


@pytest.mark.parametrize("entry", ["machine 127.0.0.1", "default"])
async def test_netrc_for_the_api_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"{entry} login user password hunter2\n")
    async with session(trust_env=True) as http, Sandbox() as sandbox:
        with pytest.raises(ConfigurationError, match=r"\.netrc has an authorization") as caught:
            sandbox.client(http=http)
        assert "hunter2" not in str(caught.value)


async def test_netrc_for_the_store_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password hunter2\n")
    async with Sandbox() as sandbox:
        elsewhere = sandbox.base_url.replace("127.0.0.1", "localhost")
        async with (
            session(trust_env=True) as http,
            sandbox.client(http=http, base_url=elsewhere) as client,
        ):
            assert (await collected(client, sandbox, tmp_path / "out")).passed
        stored = [request for request in sandbox.requests if request.route == "store"]
        assert stored
        assert not [request for request in stored if _credentials(request.headers)]


@pytest.mark.parametrize("text", [None, "machine", "machine other.example login u password p\n"])
async def test_harmless_netrc(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "netrc").write_text(text)
    async with (
        Sandbox() as sandbox,
        session(trust_env=True) as http,
        sandbox.client(http=http) as client,
    ):
        assert (await client.runs.list()).simulation_unit_test_set_runs == []


# --- the environment ---


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy"])
@pytest.mark.parametrize("url", ["socks5://user:hunter2@h:1", "https://user:hunter2@h:1"])
async def test_other_kind_of_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert environment_session() is None
    monkeypatch.setenv(variable, url)
    with pytest.raises(ConfigurationError, match=f"^{variable.upper()} has a proxy") as caught:
        environment_session()
    assert "hunter2" not in str(caught.value)


async def test_session_with_trust_env(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "HTTP://proxy.example:3128")
    session = environment_session()
    assert session is not None
    async with session:
        assert session.trust_env
