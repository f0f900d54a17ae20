from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from amigo_async.cli import demo as demo_module
from amigo_async.cli import main


@pytest.fixture(autouse=True)
def in_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_module, "_LIMITS", {"list": 5_000})
    monkeypatch.setattr(demo_module, "_POLL_INTERVAL", 0.1)
    monkeypatch.setattr(demo_module, "_SECONDS", 0.4)


def test_demo_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "_LIMITS", {"create": 4, "list": 5_000})
    monkeypatch.setattr(demo_module, "_WINDOW", 2.0)
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert "create: 2 requests waiting for the rate limit of 4" in err
    assert "3 passed, 2 failed, 1 errored" in out
    assert "6 artifacts in results\nReport: results/report.html\n" in out
    assert "`amigo-async run` would have exited with 1" in out
    assert len(list(Path("results").glob("*/*.zip"))) == 6
    story = re.search(r"Refund policy / \w.+ / \w.+: expected .+, saw .+ in repeats? .+: \"", out)
    assert story is not None
    page = Path("results/report.html").read_text()
    assert "Refund policy" in page
    assert "Charged twice for one order" in page
    assert page.lower().startswith("<!doctype html>")


def test_demo_without_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "_STORIES", demo_module._STORIES[:3])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["demo", "--quiet", "--artifacts", "a/b"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "No report: " in out
    assert "amigo-async[report]" in out
    assert len(list(Path("a/b").glob("*/*.zip"))) == 3


def test_demo_that_goes_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "_STORIES", demo_module._STORIES[:2])
    monkeypatch.setattr("amigo_async.artifacts.partfile.os.fsync", _full)
    assert main(["demo", "-q"]) == 3
    assert "No space left" in capsys.readouterr().out


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_demo_without_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert main(["demo", "--artifacts", "file/results"]) == 3
    assert capsys.readouterr().err == "Error: file/results: Not a directory\n"
