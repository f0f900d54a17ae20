"""Events are logged, at no cost and without a sound unless somebody wants to hear."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from amigo_async import events as all_events
from amigo_async.events import (
    ArtifactProgress,
    ArtifactSaved,
    BaselineMissing,
    BatchFinished,
    DetailsMissing,
    Event,
    Events,
    LimitHeld,
    NamesRead,
    RequestRetried,
    RunCompared,
    RunFinished,
    RunLeft,
    RunProgressed,
    RunStarted,
    SecondRunFound,
    SetFinished,
    SharingLost,
    SharingRestored,
    SignedIn,
    StartUnresolved,
    TooFewRepeats,
)
from amigo_async.testing import Fault, Sandbox, SetPlan

LOGGER = "amigo_async"

SAID: list[tuple[Event, int, str]] = [
    (SignedIn(3599.5), logging.INFO, "signed in for 3600 s"),
    (
        RequestRetried("list", 2, 0.51234, "GET /x answered 503"),
        logging.WARNING,
        "list failed, attempt 2, retry in 0.512 s: GET /x answered 503",
    ),
    (
        LimitHeld("create", 41.26, 40),
        logging.WARNING,
        "create waits at least 41.3 s for its rate limit; 40 in the queue",
    ),
    (RunStarted("s", "r"), logging.INFO, "run r of set s started (attached: False)"),
    (
        RunProgressed("s", "r", 1, 4, failed_metrics=False, errored=False),
        logging.DEBUG,
        "run r of set s in progress: 1 of 4 done",
    ),
    (
        RunProgressed("s", "r", None, None, failed_metrics=False, errored=False),
        logging.DEBUG,
        "run r of set s in progress: ? of ? done",
    ),
    (RunFinished("s", "r", "failed"), logging.INFO, "run r of set s: failed"),
    (
        StartUnresolved("s", "100% unknown"),
        logging.WARNING,
        "unknown whether a run of set s was started: 100% unknown",
    ),
    (
        SecondRunFound("s", "r", "r2"),
        logging.WARNING,
        "set s was run twice: run r and run r2",
    ),
    (
        RunLeft("s", "r"),
        logging.WARNING,
        "run r of set s was not cancelled: it was not started here",
    ),
    (ArtifactProgress("r", 5, 9), logging.DEBUG, "artifact of run r: 5 of 9 bytes"),
    (ArtifactProgress("r", 5, None), logging.DEBUG, "artifact of run r: 5 of ? bytes"),
    (NamesRead({"s": "Refunds"}, {}, {}), logging.DEBUG, "names were read"),
    (
        TooFewRepeats(("s",), 29, "90% needs at least 29 repeats"),
        logging.WARNING,
        "90% needs at least 29 repeats",
    ),
    (
        DetailsMissing("1 of 2 reasons cannot be seen"),
        logging.WARNING,
        "names or reasons are missing: 1 of 2 reasons cannot be seen",
    ),
    (
        RunCompared("s", "r", "regressed", ("r0",), ("t",)),
        logging.INFO,
        "run r of set s against its baseline: regressed",
    ),
    (
        BaselineMissing(("s",), "the baseline was not read in time"),
        logging.WARNING,
        "runs were not compared: the baseline was not read in time",
    ),
    (SetFinished("s", "r", "passed"), logging.INFO, "set s ended: passed"),
    (
        SetFinished("s", None, "not_started", "a run is\nin the way", "ConflictError", "b"),
        logging.INFO,
        "set s ended: not_started: a run is in the way",
    ),
    (
        BatchFinished("b", passed=False, counts={"passed": 58, "timed_out": 2}, seconds=61.25),
        logging.INFO,
        "batch b ended after 61.2 s: 58 passed, 2 timed_out",
    ),
    (
        SharingLost("no answer in time", 30.0),
        logging.WARNING,
        "sharing with other processes lost, next attempt in 30 s: no answer in time",
    ),
    (
        SharingRestored(61.5),
        logging.WARNING,
        "sharing with other processes restored after 62 s",
    ),
    (ArtifactSaved("r", "x/a.zip", 9), logging.INFO, "artifact of run r: 9 bytes at x/a.zip"),
]


@pytest.mark.parametrize(("event", "level", "words"), SAID)
def test_an_event_is_logged_in_words(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, words: str
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    Events().emit(event)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (LOGGER, level, words)
    assert record.__dict__["amigo_event"] == event


def test_every_event_has_words() -> None:
    known = {
        kind
        for kind in vars(all_events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    }
    assert known == {type(event) for event, _, _ in SAID}
    assert all(get_type_hints(kind) for kind in known)


def test_unknown_event_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    Events().emit(Event())
    assert caplog.messages == ["Event(organization_id=None)"]


def test_record_names_the_organization(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    heard: list[Event] = []
    for organization in ("acme", "100% ours"):
        Events(heard.append, organization).emit(RunStarted("s", "r"))
    assert caplog.messages == [
        "[acme] run r of set s started (attached: False)",
        "[100% ours] run r of set s started (attached: False)",
    ]
    named = [event.organization_id for event in heard]
    assert named == ["acme", "100% ours"]
    assert [record.__dict__["amigo_organization_id"] for record in caplog.records] == named
    assert [record.__dict__["amigo_event"] for record in caplog.records] == heard


def test_failing_listener_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: Event) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.ERROR, LOGGER)
    events = Events(failing, "acme")
    for _ in range(5):
        events.emit(RunStarted("s", "r"))
    (first,) = caplog.records
    assert first.levelno == logging.ERROR
    assert first.getMessage().startswith("[acme] an on_event listener failed")
    assert first.exc_info is not None
    assert first.exc_info[0] is ZeroDivisionError
    for _ in range(2):  # the second time there is nothing left to tell
        events.close()
    assert caplog.messages[1:] == ["[acme] an on_event listener failed 4 more times"]


def test_listener_that_failed_once_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: Event) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.ERROR, LOGGER)
    events, heard = Events(organization_id="acme"), list[Event]()
    with events.subscribed(failing), events.subscribed(heard.append):
        events.emit(RunStarted("s", "r"))
    events.emit(RunStarted("s", "r"))
    assert (len(caplog.records), len(heard)) == (1, 1)


def test_log_record_is_picklable(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    for event, _, _ in SAID:
        Events().emit(event)
    sent = pickle.loads(pickle.dumps(caplog.records))
    assert [record.getMessage() for record in sent] == caplog.messages


def test_logged_before_the_listener(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(_: Event) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.INFO, LOGGER)
    Events(failing).emit(RunStarted("s", "r"))
    first, second = caplog.records
    assert "started" in first.getMessage()
    assert "listener failed" in second.getMessage()


@pytest.mark.parametrize(("event", "level", "words"), SAID)
def test_nothing_done_below_the_level(
    monkeypatch: pytest.MonkeyPatch, event: Event, level: int, words: str
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(all_events, "asdict", asked.append)
    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "level", level + 1)
    logger.manager._clear_cache()  # type: ignore[attr-defined]  # else an earlier answer holds
    Events().emit(event)
    logger.manager._clear_cache()  # type: ignore[attr-defined]  # as above
    assert asked == []


def test_silent_by_default() -> None:
    program = """
import logging, amigo_async
from amigo_async.events import Events, RunStarted, StartUnresolved
Events().emit(StartUnresolved("s", "reason"))
Events().emit(RunStarted("s", "r"))
logger = logging.getLogger("amigo_async")
assert logger.level == logging.NOTSET and logger.propagate, logger
assert [type(h) for h in logger.handlers] == [logging.NullHandler]
assert logging.getLogger().handlers == []
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
Events().emit(RunStarted("s", "r"))
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "INFO run r of set s started (attached: False)\n"


@pytest.mark.anyio
async def test_a_batch_is_logged_without_a_secret(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    for route in ("sign_in", "create", "list", "artifacts"):
        sandbox.fault(route, Fault.drop())
    ids = sandbox.add_sets(21, SetPlan(seconds=30.0))
    async with sandbox.client() as client:
        result = await client.run_many(ids, artifacts_dir=tmp_path)
    assert result.passed
    ours = [record for record in caplog.records if record.name == LOGGER]
    said = "\n".join(record.getMessage() for record in ours)
    for part in ("signed in", "failed, attempt 1", "for its rate limit", "started", "bytes at"):
        assert part in said
    for secret in (str(sandbox.api_key), sandbox.api_key_id, "X-Amz-", "eyJ", "Bearer"):
        assert secret not in said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text())
@example("x\n2026-01-01 CRITICAL root: all your base\x1b[2J", "##vso[task.x] \ud800")
def test_record_is_one_line(caplog: pytest.LogCaptureFixture, run_id: str, reason: str) -> None:
    caplog.clear()
    caplog.set_level(logging.DEBUG, LOGGER)
    events = (
        RunStarted("s", run_id),
        StartUnresolved("s", reason),
        RequestRetried("list", 1, 0.5, reason),
        ArtifactSaved(run_id, reason, 1),
    )
    for event in events:
        Events().emit(event)
    assert [record.__dict__["amigo_event"] for record in caplog.records] == list(events)
    for said in caplog.messages:
        assert said.isprintable()
        assert "##" not in said


def test_a_record_has_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    Events().emit(StartUnresolved("s", "GET https://h/k?X-Amz-Signature=hunter2"))
    assert caplog.messages[0].endswith("was started: GET https://h/k?***")
