"""Sandboxes that repeat secrets wherever they can, and take note of all that were used."""

from __future__ import annotations

import asyncio
import base64
import gc
import html
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from amigo_async import AmigoClient
from amigo_async.events import Event
from amigo_async.testing import (
    ArtifactPlan,
    Fault,
    RecordedRequest,
    Sandbox,
    SetPlan,
)
from tests.support.evidence import Evidence

# Every character that JSON, URLs, HTML or a regular expression treats in a way of its own.
KEY: Final = "k3y \"&<'>/\\+%=?#.*[$" + "5e3c9a71d0b84f62"

QUICK: Final = SetPlan(seconds=(5.0, 90.0), artifacts_after=1.0, artifact=ArtifactPlan(size=50_000))
ROUTES: Final[tuple[Any, ...]] = (*("sign_in", "create", "list", "cancel", "artifacts", "store"),)


class Scene:
    """A sandbox, all secrets that were used with it, and what was seen of them."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.evidence = Evidence()
        self.secrets: set[str] = {KEY}
        self.events: list[Event] = []

    def client(self, **settings: Any) -> AmigoClient:
        settings = {"request_timeout": 5.0, "max_attempts": 2, "on_event": self.hear, **settings}
        if "auth" not in settings:
            settings |= {"api_key": KEY, "api_key_id": "odd"}
        return self.sandbox.client(**settings)

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.evidence.add("tasks", *map(repr, asyncio.all_tasks()))

    def token(self) -> str:
        return self.sandbox.issue_token()

    def runs(self, count: int) -> list[str]:
        """Runs that are over."""
        plan = SetPlan(seconds=0.0, artifacts_after=0.0, artifact=ArtifactPlan(size=50_000))
        return [self.sandbox.start_run(s) for s in self.sandbox.add_sets(count, plan)]

    async def attempt(self, where: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Keep what a call raises, or what it gives."""
        try:
            self.evidence.values(where, await call())
        except BaseException as error:  # noqa: BLE001  # cancellations are looked at too
            self.evidence.errors(where, error)

    def check(self) -> None:
        self.secrets |= used(self.sandbox)
        self.evidence.living("living")
        self.evidence.values("events", *self.events)
        self.evidence.add("events", *(_json(event) for event in self.events))
        self.evidence.files("files", self.folder)
        found = self.evidence.leaks(self.secrets)
        assert not found, "\n".join(found)


def _json(event: Event) -> str:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(event).decode()


def credentials(request: RecordedRequest) -> Iterator[str]:
    """The authorization of a request, as it was sent and as it is read."""
    sent = request.headers.get("authorization", "")
    if sent:
        yield str(sent)
    if sent.startswith("Basic "):
        name, _, token = base64.b64decode(sent[6:]).decode().partition(":")
        yield f"{name} {token}"


def used(sandbox: Sandbox) -> set[str]:
    """The tokens and the queries of links that a sandbox was asked with."""
    secrets = set()
    for request in sandbox.requests:
        secrets |= {value.partition(" ")[2] for value in credentials(request)}
        if request.route == "store":
            secrets |= {request.raw_query, *request.values("X-Amz-Signature")}
            secrets |= {quote(value, safe="") for value in request.values("X-Amz-Credential")}
    return {secret for secret in secrets if secret}


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """A sandbox whose secrets are all taken note of."""
    gc.collect()
    gc.freeze()  # what is there already is of another test, and not looked at from here on
    async with Sandbox(limits=NO_LIMITS, link_lifetime=20) as sandbox:
        sandbox.add_api_key("odd", KEY)
        opened = Scene(sandbox, folder)
        yield opened


NO_LIMITS: Final[Any] = dict.fromkeys(["sign_in", "create", "list", "cancel", "artifacts"])


def echoes(secret: str) -> dict[str, Fault]:
    """What can go wrong, where the other end repeats a secret wherever it can."""
    said = [secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()]
    told = json.dumps({"detail": f"refused: {secret}", "seen": said, "id": "a"}).encode()
    problems = json.dumps({"detail": [{"loc": ["header", secret], "msg": secret}]}).encode()
    page = f"<title>{html.escape(secret)}</title>{html.escape(secret)} {said[1]}".encode()
    headers = {"X-Echo": secret, "X-Request-Id": secret, "Set-Cookie": f"a={quote(secret)}"}
    return {
        "dropped": Fault.drop(),
        "dropped after the work": Fault.drop(after_work=True),
        "reset": Fault.drop(reset=True),
        "late": Fault.delay(20.0),
        "stalled": Fault.stall(),
        "cut": Fault.truncate(),
        "cut by a reset": Fault.truncate(reset=True),
        "garbage": Fault.garbage(page),
        "JSON of another shape": Fault.garbage(told, "application/json"),
        "cut JSON": Fault.garbage(told[:-5], "application/json"),
        "redirect": Fault.status(302, b"", {"Location": f"https://h.example/?{said[1]}"}),
        "other header": Fault.status(500, page, {"Content-Encoding": "gzip", **headers}),
        "problems": Fault.status(422, problems, headers),
        **{
            f"status {status}": Fault.status(status, told, headers)
            for status in (400, 401, 403, 404, 409, 418, 500, 503)
        },
    }


def calls(scene: Scene, client: AmigoClient) -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call for each route."""
    sandbox, runs = scene.sandbox, scene.runs(1)

    async def stream() -> None:
        async with client.artifacts.stream(runs[0]) as stream:
            async for _ in stream:
                pass

    async def sign_in() -> Any:
        sandbox.expire_tokens()
        return await client.runs.list()

    return {
        "sign_in": sign_in,
        "create": lambda: client.runs.create(sandbox.add_set(QUICK)),
        "list": lambda: client.runs.get(runs[0]),
        "cancel": lambda: client.runs.cancel(sandbox.start_run(sandbox.add_set(QUICK))),
        "artifacts": lambda: client.runs.artifacts(runs[0]),
        "store": stream,
    }


async def timed_out(call: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(3.0):
        await call()
