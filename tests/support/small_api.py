"""A small service whose records a test shapes as it likes; the sandbox tells no such lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from amigo_async import AmigoClient

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TEST = "7" * 24

SPEC = {
    "unit_test_id": TEST,
    "run_count": 1,
    "service_hierarchical_state_machine_version_info": ["a" * 24, 1],
    "agent_version_info": ["a" * 24, 1],
    "scenario_version_info": None,
    "persona_version_info": None,
    "llm_model_preferences": {},
    "max_interactions": 5,
    "metrics_to_evaluate": [
        {
            "metric_id": "b" * 24,
            "success_criterion_name": "polite",
            "success_criterion": {"type": "boolean", "expected_value": True},
        }
    ],
}
RESULT = {
    "unit_test_id": TEST,
    "metric_evaluation_results": [
        {"metric_id": "b" * 24, "metric_version": 1, "results": [["c" * 24, True]]}
    ],
    "run_errors": [None],
}


class SmallApi:
    """Runs that take some seconds each.

    Attributes:
        seconds: How long a run takes.
        shape: Changes a record; gets the seconds since its run's start too.
        lists: Changes the body of a list.
        new_id: Gives the id of the next run.
        started: When each run was started, by its id.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.shape: Callable[[dict[str, Any], float], object] = lambda record, age: None
        self.lists: Callable[[dict[str, Any]], object] = lambda page: None
        self.new_id: Callable[[], str] = lambda: f"{len(self.started) + 1:024x}"
        self.started: dict[str, tuple[str, float]] = {}
        self.url = ""

    def client(self, **settings: Any) -> AmigoClient:
        return AmigoClient(
            api_key="key",
            api_key_id="id",
            user_id="user",
            organization_id="org",
            base_url=self.url,
            **settings,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SmallApi]:
        app = web.Application()
        runs = "/v1/org/simulation/unit_test_set_run/"
        app.router.add_post("/v1/org/user/signin_with_api_key", self._sign_in)
        app.router.add_post(runs, self._create)
        app.router.add_get(runs, self._list)
        app.router.add_get(runs + "{id}/artifacts/", self._link)
        app.router.add_get("/store/{id}", self._artifact)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _sign_in(self, _: web.Request) -> web.Response:
        return web.json_response({"id_token": "t", "expires_at": "2100-01-01T00:00:00Z"})

    async def _create(self, request: web.Request) -> web.Response:
        run_id, set_id = self.new_id(), (await request.json())["simulation_unit_test_set_id"]
        self.started[run_id] = set_id, asyncio.get_running_loop().time()
        return web.json_response({"simulation_unit_test_set_run_id": run_id}, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        asked, sets = (
            request.query.getall("id", []),
            request.query.getall("simulation_unit_test_set_id", []),
        )
        if any(len(run_id.strip("0123456789abcdef")) for run_id in asked):
            return web.json_response({"detail": "id does not match"}, status=422)
        runs = [
            self._record(run_id)
            for run_id, (set_id, _) in self.started.items()
            if (not asked or run_id in asked) and (not sets or set_id in sets)
        ]
        if "created_after" in request.query:
            runs = [r for r in runs if r["created_at"] >= request.query["created_after"]]
        if "is_completed" in request.query:
            wanted = request.query["is_completed"] == "true"
            runs = [r for r in runs if bool(r["is_completed"]) == wanted]
        page = {
            "simulation_unit_test_set_runs": runs,
            "has_more": False,
            "continuation_token": None,
            "filter_values": None,
        }
        return web.json_response(self.lists(page) or page)

    def _record(self, run_id: str) -> dict[str, Any]:
        set_id, started = self.started[run_id]
        age = asyncio.get_running_loop().time() - started
        over = age >= self.seconds
        record = {
            "org_id": "org",
            "id": run_id,
            "is_completed": over,
            "simulation_unit_test_set_id": set_id,
            "failed_metrics": False,
            "errored": False,
            "artifacts_generated": over,
            "unit_test_run_specs": [SPEC],
            "unit_test_run_results": [RESULT if over else None],
            "created_at": (EPOCH + timedelta(seconds=started)).isoformat(),
            "creator": {"org_id": "org", "user_id": "user"},
        }
        self.shape(record, age)
        return record

    async def _link(self, request: web.Request) -> web.Response:
        url = f"{self.url}/store/{request.match_info['id']}?signature=x"
        return web.json_response({"presigned_url": url, "url_expires_at": "2100-01-01T00:00:00Z"})

    async def _artifact(self, _: web.Request) -> web.Response:
        return web.Response(body=b"artifact")
