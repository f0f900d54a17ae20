"""Every high-level call, done once in a world where something goes wrong, and what came of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import aiohttp

from amigo_async import AmigoClient, AmigoError
from amigo_async.errors import APIError, DecodeError, TransportError
from amigo_async.testing import ArtifactPlan, Sandbox, SetPlan
from tests.faults.kinds import JSON_LIMIT, Kind
from tests.faults.table import AS_GIVEN, NO_END, SAME, Cell
from tests.faults.wire import STORE, Connector, Happening, Wire, cut, session

ATTEMPTS: Final = 2
# Longer than any fault is borne, and shorter than `LONG`.
HOURS: Final = 7200.0
# How many requests meet a fault that lasts.
REQUESTS: Final = {
    "raised": 1,
    "retried": ATTEMPTS,
    "new token": 4,
    "waited out": 20,
    "asked again": 2,
}
# The calls that this holds for; the others may go on for longer, or make several requests.
PLAIN: Final = frozenset({"create", "list", "iterate", "history", "get", "cancel", "artifacts"})

ARTIFACT: Final = ArtifactPlan(size=1000, name="a.zip")
DONE: Final = SetPlan(seconds=0.0, artifacts_after=0.0, artifact=ARTIFACT)
SOME: Final = SetPlan(seconds=200.0, cancel_after=0.0)
LONG: Final = SetPlan(seconds=1e6, cancel_after=0.0)
FAILS: Final = SetPlan(seconds=0.0, outcome="failed", artifacts_after=None)


@dataclass
class Scene:
    """What one call is done with.

    Attributes:
        done: Two runs that are over and have artifacts.
        folder: The folder for files.
        in_the_way: How a run goes that is in the way of a start.
        sets: How many runs of a set there were before the call.
    """

    sandbox: Sandbox
    client: AmigoClient
    done: tuple[str, str]
    folder: Path
    in_the_way: SetPlan
    sets: dict[str, int] = field(default_factory=dict)

    def add(self, plan: SetPlan) -> str:
        """A set without runs."""
        set_id = self.sandbox.add_set(plan)
        self.sets[set_id] = 0
        return set_id

    async def running(self, plan: SetPlan) -> tuple[str, str]:
        """A set, and a run of it that somebody started a while ago."""
        set_id = self.add(plan)
        run_id = self.sandbox.start_run(set_id)
        self.sets[set_id] = 1
        await asyncio.sleep(10.0)
        return set_id, run_id

    def started(self, set_id: str) -> list[str]:
        """The runs of a set that the call has started."""
        found = [r.id for r in self.sandbox.runs if r.unit_test_set_id == set_id]
        return found[self.sets[set_id] :]


def matched(found: object, wanted: object) -> str:
    return SAME if found == wanted else f"{found} instead of {wanted}"


async def create(scene: Scene) -> str:
    set_id = scene.add(LONG)
    created = await scene.client.runs.create(set_id)
    return matched([created.simulation_unit_test_set_run_id], scene.started(set_id))


async def attach(scene: Scene) -> str:
    set_id, there = await scene.running(LONG)
    created = await scene.client.runs.create(set_id, on_conflict="attach")
    return matched((created.simulation_unit_test_set_run_id, created.attached), (there, True))


async def wait(scene: Scene) -> str:
    return await _in_the_way(scene, "wait")


async def restart(scene: Scene) -> str:
    return await _in_the_way(scene, "restart")


async def _in_the_way(scene: Scene, on_conflict: Literal["wait", "restart"]) -> str:
    set_id, _ = await scene.running(scene.in_the_way)
    created = await scene.client.runs.create(set_id, on_conflict=on_conflict)
    return matched([created.simulation_unit_test_set_run_id], scene.started(set_id))


async def listed(scene: Scene) -> str:
    page = await scene.client.runs.list(id=scene.done)
    return matched({run.id for run in page.simulation_unit_test_set_runs}, set(scene.done))


async def iterate(scene: Scene) -> str:
    runs = [run.id async for run in scene.client.runs.iterate(id=scene.done, limit=1)]
    return matched(sorted(runs), sorted(scene.done))


async def history(scene: Scene) -> str:
    set_id, run_id = await scene.running(DONE)
    return matched([run.id for run in await scene.client.history(set_id, limit=5)], [run_id])


async def get(scene: Scene) -> str:
    return matched((await scene.client.runs.get(scene.done[0])).id, scene.done[0])


async def wait_for_completion(scene: Scene) -> str:
    run = await scene.client.wait_for_completion(scene.done[0])
    return matched((run.id, run.is_completed), (scene.done[0], True))


async def as_completed(scene: Scene) -> str:
    runs = [run.id async for run in scene.client.as_completed(scene.done)]
    return matched(sorted(runs), sorted(scene.done))


async def cancel(scene: Scene) -> str:
    _, run_id = await scene.running(LONG)
    await scene.client.runs.cancel(run_id)
    return matched([r.cancelled for r in scene.sandbox.runs if r.id == run_id], [True])


async def cancel_and_wait(scene: Scene) -> str:
    _, run_id = await scene.running(SOME)
    came = await scene.client.cancel_and_wait(run_id)
    truth = [r.cancelled for r in scene.sandbox.runs if r.id == run_id]
    return matched((came.state == "cancelled", came.run is not None), (truth[0], True))


async def artifacts(scene: Scene) -> str:
    link = await scene.client.runs.artifacts(scene.done[0])
    return matched(f"://{STORE}/" in link.presigned_url, True)


async def stream(scene: Scene) -> str:
    async with scene.client.artifacts.stream(scene.done[0]) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    return SAME if data == scene.sandbox.artifact_bytes(scene.done[0]) else AS_GIVEN


async def download(scene: Scene) -> str:
    path = await scene.client.artifacts.download(scene.done[0], f"{scene.folder}/")
    assert [p.name for p in scene.folder.iterdir()] == [path.name], "something is beside the file"
    data = path.read_bytes()
    return SAME if data == scene.sandbox.artifact_bytes(scene.done[0]) else AS_GIVEN


async def run_many(scene: Scene) -> str:
    set_id = scene.add(DONE)
    result = await scene.client.run_many(
        [set_id], artifacts_dir=scene.folder, journal=scene.folder / "journal.jsonl"
    )
    (outcome,) = result.outcomes
    assert [outcome.run_id] == (list[str | None](scene.started(set_id)) or [None]), (
        "a run is not in the outcome"
    )
    if outcome.error is not None:
        plain(outcome.error)
        return f"{outcome.verdict}, {type(outcome.error).__name__}"
    assert outcome.artifacts is not None
    assert outcome.run_id is not None
    truth = scene.sandbox.artifact_bytes(outcome.run_id)
    given = outcome.artifacts.read_bytes() == truth
    return matched(outcome.verdict, "passed") if given else AS_GIVEN


async def cancel_rest(scene: Scene) -> str:
    """A set fails, so the other one is cancelled."""
    rest, failing = scene.add(LONG), scene.add(FAILS)
    result = await scene.client.run_many([rest, failing], on_failure="cancel_rest")
    outcome = result.outcomes[0]
    if outcome.error is not None:
        plain(outcome.error)
        return f"{outcome.verdict}, {type(outcome.error).__name__}"
    truth = [r.cancelled for r in scene.sandbox.runs if r.id == outcome.run_id]
    return matched((outcome.verdict, truth), ("cancelled", [True]))


CALLS: Final[dict[str, Callable[[Scene], Awaitable[str]]]] = {
    "create": create,
    "create(attach)": attach,
    "create(wait)": wait,
    "create(restart)": restart,
    "list": listed,
    "iterate": iterate,
    "history": history,
    "get": get,
    "wait_for_completion": wait_for_completion,
    "as_completed": as_completed,
    "cancel": cancel,
    "cancel_and_wait": cancel_and_wait,
    "artifacts": artifacts,
    "stream": stream,
    "download": download,
    "run_many": run_many,
    "run_many(cancel_rest)": cancel_rest,
}


def plain(error: BaseException) -> None:
    """The message is one line that names what a user needs."""
    text = str(error)
    assert isinstance(error, AmigoError), f"not one of ours: {error!r}"
    assert text, "no message"
    assert text.isprintable(), f"not one plain line: {text!r}"
    assert "{" not in text, f"a part of the answer: {text}"
    assert len(text) < 1000, f"too long: {text[:200]!r}"
    if isinstance(error, APIError):
        assert str(error.status) in text, text
    if isinstance(error, APIError | TransportError | DecodeError):
        assert error.method in text, text
        assert error.path in text, text
    secrets = ("X-Amz", "Bearer", "Signature", 'id_token"', 'presigned_url"')
    link: BaseException | None = error
    while link is not None:  # what led to it is shown with it
        shown = f"{link} {link!r}"
        assert not any(secret in shown for secret in secrets), f"a secret: {shown}"
        link = link.__cause__ or link.__context__


@dataclass
class Stage:
    """Where the cells of one kind are played, one after the other."""

    sandbox: Sandbox
    wire: Wire
    http: aiohttp.ClientSession
    connector: Connector
    done: tuple[str, str]
    folder: Path

    @classmethod
    @asynccontextmanager
    async def open(cls, kind: Kind, folder: Path) -> AsyncIterator[Stage]:
        # With limits, so that answers have their headers; without reaching them.
        limits = dict.fromkeys(("sign_in", "create", "list", "cancel", "artifacts"), 100_000)
        async with (
            Sandbox(limits=limits, clock_skew=kind.skew) as sandbox,  # type: ignore[arg-type]
            Wire(sandbox, kept_alive=kind.kept_alive, tls=kind.tls).listen() as wire,
            session(wire) as (http, connector),
        ):
            runs = [sandbox.start_run(sandbox.add_set(DONE)) for _ in range(2)]
            yield cls(sandbox, wire, http, connector, (runs[0], runs[1]), folder)

    async def play(self, cell: Cell) -> str:
        """What came of a cell; what else has to hold is asserted."""
        happening = cell.kind.happening
        first: list[Happening | None] = [cut, happening] if cell.kind.resumed else [happening]
        if (cell.call, cell.route, cell.lasting) == ("run_many", "list", False):
            first = [None, None, happening]  # what is there before the create is listed first
        base_url = self.wire.play(cell.route, *first, forever=happening if cell.lasting else None)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        client = self.sandbox.client(
            base_url=base_url,
            http=self.http,
            max_attempts=ATTEMPTS,
            max_response_bytes=JSON_LIMIT,
            poll_interval=100.0,
        )
        # Where it cannot be dealt with, it must not be over meanwhile by itself.
        stuck = cell.lasting and cell.outcome != SAME and cell.kind.api != "409"
        endless = stuck and cell.route in ("create", "list")
        scene = Scene(self.sandbox, client, self.done, self.folder, LONG if endless else SOME)
        error: AmigoError | None = None
        async with client:
            try:
                async with asyncio.timeout(600.0 if cell.outcome == NO_END else HOURS):
                    outcome = await CALLS[cell.call](scene)
            except AmigoError as raised:
                error, outcome = raised, type(raised).__name__
                plain(raised)
            except TimeoutError:
                outcome = NO_END
        self._look(cell, scene, error)
        return outcome

    def _look(self, cell: Cell, scene: Scene, error: AmigoError | None) -> None:
        wire = self.wire
        assert wire.played or cell.kind.kept_alive or cell.kind.skew, "it did not happen"
        assert wire.sent <= wire.asked, "a request was sent again behind the client's back"
        exact = cell.words in ("raised", "asked again") and cell.call != "run_many"
        if cell.lasting and (exact or cell.call in PLAIN):
            assert wire.played == REQUESTS.get(cell.words, wire.played), f"{wire.played} requests"
        for set_id in scene.sets:
            started = scene.started(set_id)
            assert len(started) <= 1, "started twice"
            known = error is None or not started
            assert known, f"a run was started and is lost: {error!r}"
        files = [path.name for path in self.folder.iterdir() if path.is_file()]
        if error is not None:
            assert not [n for n in files if not n.endswith((".part", ".part.jsonl"))], files
        assert not self.connector.held(), "a connection is held"
