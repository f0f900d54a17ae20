"""Asks a sandbox in plain HTTP, so that our own client has no part in what is shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl
from amigo_sdk.generated import model as official

from amigo_async.testing import Permission, Sandbox

RUNS = "simulation/unit_test_set_run/"
NOWHERE = "0123456789abcdef01234567"

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> Any:
        return self.json()["detail"]


@dataclass
class Caller:
    """Calls one sandbox as its first user."""

    sandbox: Sandbox
    http: aiohttp.ClientSession
    token: str

    def now(self) -> float:
        """The time by the sandbox's clock."""
        return self.sandbox.now()

    async def call(
        self,
        method: str,
        path: str = RUNS,
        *,
        query: Pairs | str = (),
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        organization: str | None = None,
        **more: Any,
    ) -> Answer:
        """Ask the API; an empty `token` sends none."""
        sent = dict(headers or {})
        if token != "":
            sent.setdefault("Authorization", f"Bearer {token or self.token}")
        organization = organization or self.sandbox.organization_id
        url = yarl.URL(f"{self.sandbox.base_url}/v1/{organization}/{path}", encoded=True)
        if isinstance(query, str):
            url = yarl.URL(f"{url}?{query}", encoded=True)
        elif query:
            url = url.with_query(list(query))
        return await self.fetch(method, url, headers=sent, **more)

    async def fetch(self, method: str, url: yarl.URL | str, **more: Any) -> Answer:
        """Ask anything."""
        if isinstance(url, str):
            url = yarl.URL(url, encoded=True)
        async with self.http.request(method, url, allow_redirects=False, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def sign_in(self, **headers: str) -> Answer:
        """Sign in with the sandbox's key; keywords replace its headers."""
        sent = {
            "x-api-key": self.sandbox.api_key,
            "x-api-key-id": self.sandbox.api_key_id,
            "x-user-id": self.sandbox.user_id,
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        path = "user/signin_with_api_key"
        return await self.call("POST", path, token="", headers=sent)

    async def create(self, set_id: str, **more: Any) -> Answer:
        body = {"simulation_unit_test_set_id": set_id}
        return await self.call("POST", json=body, **more)

    async def start(self, set_id: str, **more: Any) -> str:
        """Create a run that must succeed; its id."""
        answer = await self.create(set_id, **more)
        assert answer.status == 201, answer.body
        created = official.SimulationCreateSimulationUnitTestSetRunResponse.model_validate_json(
            answer.body, strict=True
        )
        return created.simulation_unit_test_set_run_id

    async def page(self, query: Pairs | str = (), **more: Any) -> dict[str, Any]:
        """List runs; the vendor's model is asked whether the answer is right."""
        answer = await self.call("GET", query=query, **more)
        assert answer.status == 200, answer.body
        official.SimulationGetSimulationUnitTestSetRunsResponse.model_validate_json(answer.body)
        found: dict[str, Any] = answer.json()
        return found

    async def ids(self, query: Pairs | str = (), **more: Any) -> list[str]:
        page = await self.page(query, **more)
        return [run["id"] for run in page["simulation_unit_test_set_runs"]]

    async def get(self, run_id: str, **more: Any) -> dict[str, Any]:
        page = await self.page([("id", run_id)], **more)
        (run,) = page["simulation_unit_test_set_runs"]
        found: dict[str, Any] = run
        return found

    async def cancel(self, run_id: str, **more: Any) -> Answer:
        return await self.call("DELETE", f"{RUNS}{run_id}/", **more)

    async def artifacts(self, run_id: str, **more: Any) -> Answer:
        return await self.call("GET", f"{RUNS}{run_id}/artifacts/", **more)

    async def link(self, run_id: str) -> str:
        """A link that must be had."""
        answer = await self.artifacts(run_id)
        assert answer.status == 200, answer.body
        found = official.SimulationGetSimulationUnitTestSetRunArtifactsResponse
        return str(found.model_validate_json(answer.body).presigned_url)

    async def as_user(self, permissions: Sequence[Permission]) -> str:
        """The token of a new user who may do just this."""
        self.sandbox.add_user("limited", permissions=permissions)
        return self.sandbox.issue_token("limited")


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Caller]:
    """A sandbox without limits, unless some are given, and who calls it."""
    settings.setdefault("seed", 0)
    if "limits" not in settings:
        settings["limits"] = dict.fromkeys(["sign_in", "create", "list", "cancel", "artifacts"])
    async with Sandbox(**settings) as sandbox:
        timeout = aiohttp.ClientTimeout(total=None)
        # What the store sends is looked at as it is sent.
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
            yield Caller(sandbox, http, sandbox.issue_token())


async def sleep(seconds: float) -> None:
    """Let time pass on the virtual clock: what is waited for is skipped."""
    await asyncio.sleep(seconds)
