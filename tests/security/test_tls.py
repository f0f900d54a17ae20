"""TLS with an authority of our own: what is right works, what is wrong is refused and named."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from amigo_async import AmigoClient
from amigo_async.errors import APIError, ArtifactError, TransportError
from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.support import tls_servers as tls
from tests.support.tls_servers import Front

pytestmark = pytest.mark.anyio

ROOT: Final = Path(__file__).parents[2]
QUICK: Final = SetPlan(seconds=5.0, artifacts_after=0.5)


@dataclass
class World:
    """A sandbox, what stands before its two servers, and a client that knows our authority."""

    sandbox: Sandbox
    api: Front
    store: Front
    client: AmigoClient

    def secrets(self) -> list[bytes]:
        return [self.sandbox.api_key.encode(), b"Authorization: Bearer", b"X-Amz-Signature="]

    def told(self, front: Front) -> bool:
        """Whether any secret came to `front`."""
        return any(secret in front.received for secret in self.secrets())


@asynccontextmanager
async def world(
    api: Callable[[], Any] | None = tls.good,
    store: Callable[[], Any] | None = tls.good,
    **settings: Any,
) -> AsyncIterator[World]:
    """TLS (None: none) before both servers; links are to what stands before the store."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        fronts = [
            await stack.enter_async_context(
                Front(url, None if make is None else tls.serving(make)).open()
            )
            for url, make in ((sandbox.base_url, api), (sandbox.store_url, store))
        ]
        sandbox.store_url = fronts[1].url
        connector = aiohttp.TCPConnector(ssl=tls.trusting())
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        settings = {"base_url": fronts[0].url, "http": http} | settings
        client = await stack.enter_async_context(sandbox.client(**settings))
        yield World(sandbox, fronts[0], fronts[1], client)


def now() -> float:
    return asyncio.get_running_loop().time()


# --- what is right ---


async def test_batch_over_tls(
    tmp_path: Path,
) -> None:
    async with world() as here:
        sets = here.sandbox.add_sets(3, QUICK)
        result = await here.client.run_many(sets, artifacts_dir=tmp_path)
        assert result.passed
        assert all(o.artifacts and o.artifacts.is_file() for o in result.outcomes)
        # What the refusals below are to keep to themselves does get here.
        assert all(secret in here.api.received + here.store.received for secret in here.secrets())
        assert b"uthorization" not in here.store.received


async def command(environment: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "amigo_async.cli", *arguments),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


def test_command_and_ssl_cert_file(
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "ca.pem"
    tls.authority().cert_pem.write_to_path(bundle)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SSL_CERT", "AMIGO_"))}

    async def main() -> None:
        async with world() as here:
            (set_id,) = here.sandbox.add_sets(1, SetPlan(seconds=0.0, artifacts_after=0.0))
            found = kept | here.sandbox.environment() | {"AMIGO_BASE_URL": here.api.url}
            run = ("run", set_id, "--artifacts", str(tmp_path / "out"))
            with_file, without = await asyncio.gather(
                command({**found, "SSL_CERT_FILE": str(bundle)}, *run), command(found, *run)
            )
            assert with_file[0] == 0, with_file[1]
            assert len(list(tmp_path.glob("out/*/*.zip"))) == 1
            assert without[0] == 3, without[1]
            said = " ".join(without[1].split())
            assert "is refused: unable to get local issuer certificate" in said
            assert "name its file in SSL_CERT_FILE" in said
            assert len(here.sandbox.runs) == 1

    asyncio.run(main())


# --- what is refused ---

CERTIFICATES: Final[list[Any]] = [
    pytest.param(
        tls.of_another_host, "IP address mismatch, certificate is not valid for", id="wrong host"
    ),
    pytest.param(tls.expired, "certificate has expired", id="expired"),
    pytest.param(
        tls.of_unknown_authority,
        "unable to get local issuer certificate; if its authority is your own, name its file in "
        "SSL_CERT_FILE",
        id="unknown authority",
    ),
    pytest.param(tls.self_signed, "self-signed certificate; if its authority", id="self-signed"),
]


@pytest.mark.parametrize(("certificate", "reason"), CERTIFICATES)
async def test_bad_api_certificate_is_named(certificate: Callable[[], Any], reason: str) -> None:
    async with world(certificate) as here:
        with pytest.raises(TransportError) as caught:
            await here.client.runs.list()
        where = here.api.url.removeprefix("https://")
        said = str(caught.value)
        assert f"got no response: the certificate of {where} is refused: " in said
        assert reason in said
        assert (caught.value.lasting, caught.value.sent) == (True, False)
        assert (here.api.tried, here.api.received) == (1, b"")


@pytest.mark.parametrize(("certificate", "reason"), CERTIFICATES)
async def test_bad_store_certificate_is_named(
    certificate: Callable[[], Any], reason: str, tmp_path: Path
) -> None:
    async with world(store=certificate) as here:
        sets = here.sandbox.add_sets(1, QUICK)
        (outcome,) = (await here.client.run_many(sets, artifacts_dir=tmp_path)).outcomes
        assert outcome.verdict == "passed"
        assert outcome.artifacts is None
        assert isinstance(outcome.error, ArtifactError)
        assert reason in str(outcome.error)
        assert "X-Amz" not in str(outcome.error)
        assert (here.store.tried, here.store.received) == (1, b"")


async def test_pinned_certificate_mismatch() -> None:
    connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(b"0" * 32))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        world(http=http) as here,
    ):
        with pytest.raises(TransportError, match="is not the one that was pinned") as caught:
            await here.client.runs.list()
        assert (caught.value.lasting, caught.value.sent) == (True, False)
        assert (here.api.tried, here.api.received) == (1, b"")


async def test_http_to_a_tls_port() -> None:
    async with world() as here:
        http = here.api.url.replace("https:", "http:")
        async with here.sandbox.client(base_url=http) as client:
            with pytest.raises(TransportError, match="closed before the answer"):
                await client.runs.list()
        assert here.api.received == b""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_api_redirect_to_http(status: int) -> None:
    async with world() as here, Front(here.sandbox.base_url, None).open() as plain:
        fault = Fault.status(status, headers={"Location": f"{plain.url}/v1/"})
        here.sandbox.fault("sign_in", fault)
        with pytest.raises(APIError, match=rf"answered {status}: a redirect to http://") as caught:
            await here.client.runs.list()
        assert "check base_url" in str(caught.value)
        assert (plain.tried, plain.received) == (0, b"")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_store_redirect_to_http(status: int, tmp_path: Path) -> None:
    async with world() as here, Front(here.sandbox.store_url, None).open() as plain:
        run_id = here.sandbox.start_run(here.sandbox.add_set(SetPlan(seconds=0.0)))
        await here.client.wait_for_completion(run_id, require_artifacts=True)
        link = here.sandbox.presign(run_id).replace(here.store.url, plain.url)
        here.sandbox.fault("store", Fault.status(status, headers={"Location": link}))
        with pytest.raises(ArtifactError, match="the store redirects from https to http"):
            await here.client.artifacts.download(run_id, tmp_path)
        assert (plain.tried, plain.received) == (0, b"")


@pytest.mark.parametrize(
    ("store", "scheme", "reason", "tried"),
    [
        pytest.param(None, "http", "the store's URL is plain http", 0, id="plain http"),
        pytest.param(None, "https", "does not speak TLS", 1, id="https of a plain port"),
        pytest.param(tls.good, "http", "the store's URL is plain http", 0, id="http of TLS"),
    ],
)
async def test_insecure_link_is_refused(
    store: Callable[[], Any] | None, scheme: str, reason: str, tried: int, tmp_path: Path
) -> None:
    async with world(store=store) as here:
        here.sandbox.store_url = f"{scheme}:{here.store.url.partition(':')[2]}"
        sets = here.sandbox.add_sets(1, QUICK)
        (outcome,) = (await here.client.run_many(sets, artifacts_dir=tmp_path)).outcomes
        assert outcome.verdict == "passed"
        assert isinstance(outcome.error, ArtifactError)
        assert reason in str(outcome.error)
        assert here.store.tried == tried
        assert not here.told(here.store)
