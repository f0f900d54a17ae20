"""The search for secrets finds those that are put there on purpose, in every form."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from amigo_async.events import RequestRetried
from amigo_async.redact import Secret
from amigo_async.testing import (
    Fault,
    VirtualTimeLoop,
)
from tests.support.evidence import Evidence, forms
from tests.support.secret_scenes import KEY, Scene, calls, echoes, scene, timed_out

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Debug mode is switched on where what it logs is looked at."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def in_what_is_shown(patch: pytest.MonkeyPatch, _: Scene) -> None:
    patch.setattr(Secret, "__repr__", str.__repr__)


def in_what_is_cut_off(patch: pytest.MonkeyPatch, _: Scene) -> None:
    patch.delattr(Secret, "__getitem__")


def in_what_is_repeated(patch: pytest.MonkeyPatch, _: Scene) -> None:
    patch.setattr("amigo_async.protocol.responses.redact", lambda text, _=(): text)


def in_tracebacks(patch: pytest.MonkeyPatch, _: Scene) -> None:
    patch.setattr("amigo_async.transport.exceptions.bare", lambda error, *_: error)


def in_the_log(_: pytest.MonkeyPatch, told: Scene) -> None:
    logging.getLogger("amigo_async").debug("signed in with %s", told.token())


def in_what_is_attached_to_the_log(_: pytest.MonkeyPatch, told: Scene) -> None:
    logging.getLogger("aiohttp.client").debug("sent", extra={"sent": [f"Bearer {told.token()}"]})


def in_an_event(_: pytest.MonkeyPatch, told: Scene) -> None:
    told.hear(RequestRetried("list", 1, 0.5, quote(KEY)))


def in_a_file(_: pytest.MonkeyPatch, told: Scene) -> None:
    (told.folder / "x.part.jsonl").write_text(json.dumps({"url": told.sandbox.presign(_run(told))}))


def in_the_name_of_a_file(_: pytest.MonkeyPatch, told: Scene) -> None:
    url = told.sandbox.presign(_run(told))
    (told.folder / url.partition("X-Amz-Signature=")[2]).touch()


def in_the_name_of_a_task(_: pytest.MonkeyPatch, told: Scene) -> None:
    current = asyncio.current_task()
    assert current is not None
    current.set_name(told.token())


def _run(told: Scene) -> str:
    return told.runs(1)[0]


@pytest.mark.parametrize(
    "plant",
    [
        *(in_what_is_shown, in_what_is_cut_off, in_what_is_repeated, in_tracebacks, in_the_log),
        *(in_what_is_attached_to_the_log, in_an_event, in_a_file, in_the_name_of_a_file),
        in_the_name_of_a_task,
    ],
)
async def test_a_secret_that_is_put_there_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    plant: Callable[[pytest.MonkeyPatch, Scene], None],
) -> None:
    """Otherwise that nothing was found would mean nothing."""
    async with scene(tmp_path, monkeypatch) as told, told.client() as client:
        get = calls(told, client)["list"]
        echo = echoes(KEY)
        plant(monkeypatch, told)
        for fault in (echo["status 500"], echo["problems"]):
            told.sandbox.fault("list", fault, times=30)
            await told.attempt("echoed", get)
            told.sandbox.clear_faults()
        for route in ("list", "store"):
            told.sandbox.fault(route, Fault.delay(1e4))
            await told.attempt("left", lambda: timed_out(calls(told, client)[route]))  # noqa: B023
        told.evidence.records("log", caplog.records)
        with pytest.raises(AssertionError):
            told.check()


SECRETS: Final = [
    KEY,
    "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJzYW5kYm94In0.c2VhbA-_x",
    "0123456789abcdef0123",
]


@pytest.mark.parametrize(
    ("secret", "written"),
    [(secret, text) for secret in SECRETS for text in forms(secret).values()],
)
def test_a_secret_is_found_in_every_form(secret: str, written: str) -> None:
    evidence = Evidence()
    evidence.add("somewhere", f"before {written} after", "something else")
    assert evidence.leaks([secret])
    assert not evidence.leaks(["another one that is not there"])
