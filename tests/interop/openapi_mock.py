"""Ask a mock server that Prism makes from the OpenAPI description, and fail if it refuses.

Every call, every filter and every way to authorize is tried once. Run it with
``python -m tests.interop.openapi_mock [PRISM]``; PRISM is the command of ``@stoplight/prism-cli``.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp

from amigo_async import (
    AmigoClient,
    ApiKeyAuth,
    ArtifactsLink,
    BasicAuth,
    BearerAuth,
    CreatedRun,
    NotFoundError,
    RunPage,
    UserInfo,
)

DESCRIPTION = Path(__file__).with_name("openapi.json")
STARTUP_SECONDS = 30.0
ID = "6618791275130b73714e8d7f"
OTHER_ID = "6618791275130b73714e8d80"
ORGANIZATION = "my-org"

FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"id": ID},
    {"id": [ID, OTHER_ID, ID]},
    {"simulation_unit_test_set_id": ID},
    {"simulation_unit_test_set_id": [ID, OTHER_ID]},
    {"creator": "my-org,user"},
    {"creator": [UserInfo("my-org", "user"), "my-org,another user"]},
    {"is_completed": True},
    {"is_completed": False},
    {"failed_metrics": True},
    {"errored": False},
    {"created_after": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
    {"created_before": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=-7)))},
    {"sort_by": "+created_at"},
    {"sort_by": ["-created_at"]},
    {"limit": 0},
    {"limit": 50},
    {"continuation_token": 0},
    {"continuation_token": 12345},
    {
        "id": [ID, OTHER_ID],
        "simulation_unit_test_set_id": [ID, OTHER_ID],
        "creator": ["my-org,user", "my-org,other"],
        "is_completed": True,
        "failed_metrics": False,
        "errored": False,
        "created_after": datetime(2026, 1, 1, tzinfo=UTC),
        "created_before": datetime(2026, 2, 1, tzinfo=UTC),
        "sort_by": ["+created_at"],
        "limit": 10,
        "continuation_token": 20,
    },
)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
EACH = {"id": [ID, OTHER_ID], "tag": ["suite:nightly", "team:*", "old:"], "creator": "my-org,user"}
PAGE = {"sort_by": "-updated_at", "limit": 20, "continuation_token": 20, "is_deleted": True}
# The other lists: their resource, and every filter they have, once alone and once together.
OTHER_FILTERS: dict[str, dict[str, Any]] = {
    "unit_test_sets": {**EACH, **PAGE, "unit_test_id": ID},
    "unit_tests": {
        **EACH,
        **PAGE,
        **{key: [ID, OTHER_ID] for key in ("service_id", "persona_id", "scenario_id", "metric_id")},
    },
    "metrics": {**EACH, **PAGE, "applied_to_service": ID, "type": ["numerical", "boolean"]},
    "evaluations": {
        "simulation_unit_test_set_run_id": [ID, OTHER_ID],
        "metric_id_and_version": [f"{ID}-3", f"{OTHER_ID}-"],
        "metric_id": ID,
        "conversation_id": ID,
        "source_type": ["simulation", "post-session"],
        "timestamp_after": NOON,
        "timestamp_before": NOON,
        "sort_by": "+created_at",
        "limit": 500,
        "continuation_token": 0,
    },
}
# What the mock must refuse; if it does not, it does not look.
INVALID = ("limit=51", "limit=x", "id=NOT-AN-ID", "is_completed=maybe", "created_after=yesterday")

INVALID_ELSEWHERE = (
    "metric/?limit=51",
    "metric/?type=colour",
    "metric/metric_evaluation_result?source_type=dream",
    "simulation/unit_test_set/?limit=21",
    "simulation/unit_test_set/search/",
    "simulation/unit_test/?scenario_id=none",
)

KEY_SCHEMES = {
    "API-Key-Authorization-Key": "x-api-key",
    "API-Key-Authorization-ID": "x-api-key-id",
    "API-Key-Authorization-UserID": "x-user-id",
}


def mockable(description: dict[str, Any]) -> dict[str, Any]:
    """A copy of `description` that a client can satisfy.

    - ``Sec-WebSocket-Protocol`` is declared on every call and of no use to an HTTP client.
    - The authorizations are declared as if all were needed at once; one is enough.
    - The schemes of the sign in are named, but not described.
    - Tuples get an example: the mock would make empty ones, against the description.
    """
    copy: dict[str, Any] = json.loads(json.dumps(description), object_hook=_with_example)
    for path in copy["paths"].values():
        for call in path.values():
            call["parameters"] = [
                p for p in call["parameters"] if p["name"] != "Sec-WebSocket-Protocol"
            ]
    copy["security"] = [{name: []} for wanted in copy["security"] for name in wanted]
    for scheme, header in KEY_SCHEMES.items():
        described = {"type": "apiKey", "in": "header", "name": header}
        copy["components"]["securitySchemes"][scheme] = described
    return copy


def _with_example(schema: dict[str, Any]) -> dict[str, Any]:
    items = schema.get("prefixItems", ())
    example = [{"string": "an-id", "integer": 1, "boolean": True}[i["type"]] for i in items]
    return {**schema, "example": example} if example else schema


@asynccontextmanager
async def mock_server(prism: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve the description; gives the base URL, and what the server says, line by line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "openapi.json")
        await asyncio.to_thread(
            document.write_text, json.dumps(mockable(json.loads(DESCRIPTION.read_bytes())))
        )
        server = await asyncio.create_subprocess_exec(
            *(prism, "mock", "-h", "127.0.0.1", "-p", str(port), str(document)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said: list[str] = []
        listening = asyncio.Event()
        reading = asyncio.create_task(_read(server, said, listening))
        try:
            await asyncio.wait_for(listening.wait(), STARTUP_SECONDS)
            if server.returncode is not None or not any("is listening" in line for line in said):
                raise RuntimeError("Prism did not start:\n" + "\n".join(said))
            yield f"http://127.0.0.1:{port}", said
        finally:
            if server.returncode is None:
                server.terminate()
            await server.wait()
            await reading


async def _read(
    server: asyncio.subprocess.Process, said: list[str], listening: asyncio.Event
) -> None:
    assert server.stdout is not None
    async for line in server.stdout:
        said.append(re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace")).rstrip())
        if "is listening" in said[-1]:
            listening.set()
    listening.set()


async def check_lists(client: AmigoClient) -> int:
    for filters in FILTERS:
        assert isinstance(await client.runs.list(**filters), RunPage)
    async for run in client.runs.iterate(sort_by="+created_at", limit=50):
        assert run.created_at.tzinfo is not None
        break
    return len(FILTERS) + 1


async def check_other_lists(client: AmigoClient) -> int:
    asked = 0
    for resource, filters in OTHER_FILTERS.items():
        for some in ({}, filters):
            await getattr(client, resource).list(**some)
            asked += 1
        # Ten evaluations and twenty metrics a minute are all there are.
        if resource in ("unit_test_sets", "unit_tests"):
            for name, value in filters.items():
                await getattr(client, resource).list(**{name: value})
                asked += 1
    found = await client.unit_test_sets.search("refund", tag="a:b", creator="o,u", unit_test_id=ID)
    assert found
    assert found[0].id
    return asked + 1


async def check_others(client: AmigoClient) -> int:
    assert isinstance(await client.runs.create(ID), CreatedRun)
    assert isinstance(await client.runs.artifacts(ID), ArtifactsLink)
    await client.runs.cancel(ID)
    try:
        await client.runs.get(ID)
    except NotFoundError:
        return 4  # the mock's example has another id
    raise AssertionError("the mock's example has no such id")


async def check_referee(base_url: str) -> int:
    """See that the mock refuses what is invalid, and what is not authorized."""
    path = f"/v1/{ORGANIZATION}/simulation/unit_test_set_run/"
    async with aiohttp.ClientSession(base_url) as http:
        runs = [f"{path}?{query}" for query in INVALID]
        others = [f"/v1/{ORGANIZATION}/{rest}" for rest in INVALID_ELSEWHERE]
        for url in (*runs, *others):
            async with http.get(url, headers={"Authorization": "Bearer t"}) as answer:
                assert answer.status == 422, f"{url} was answered {answer.status}"
        async with http.get(path) as answer:
            assert answer.status == 401, f"no authorization was answered {answer.status}"
    return len(INVALID) + len(INVALID_ELSEWHERE) + 1


async def main(prism: str) -> str:
    """Ask everything; what was asked, in a line."""
    authorizations: tuple[ApiKeyAuth | BearerAuth | BasicAuth, ...] = (
        ApiKeyAuth("key", "key-id", "user"),
        BearerAuth("token", user_id="user", organization_id="issuer"),
        BasicAuth("token", "user", organization_id="issuer"),
    )
    checks: tuple[Callable[[AmigoClient], Awaitable[int]], ...] = (
        check_lists,
        check_other_lists,
        check_others,
    )
    asked = 0
    async with mock_server(prism) as (base_url, said):
        for number, auth in enumerate(authorizations):
            async with AmigoClient(
                auth=auth,
                organization_id=ORGANIZATION,
                base_url=base_url,
                mongo_cluster_name="a-cluster",
                headers={"X-Of-The-User": "1"},
                max_attempts=1,
            ) as client:
                # Lists are checked once: fifty a minute are all there are.
                for check in checks[2:] if number else checks:
                    asked += await check(client)
        violations = [line for line in said if "violation" in line.lower()]
        assert not violations, "\n".join(violations)
        refused = await check_referee(base_url)
    return f"{asked} valid requests, none refused; {refused} invalid ones, all refused"


if __name__ == "__main__":
    result = asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "prism"))
    sys.stdout.write(f"{result}\n")
