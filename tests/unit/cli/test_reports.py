from __future__ import annotations

import io
import json
import os
import re
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from msgspec.structs import replace

from amigo_async import BatchResult, Gate
from amigo_async.batch.outcomes import UNEXPLAINED
from amigo_async.cli.command import Outputs
from amigo_async.cli.exit_codes import ExitCode
from amigo_async.cli.reports import Reports, annotate, summarize
from amigo_async.errors import ArtifactError, ConfigurationError
from amigo_async.names import Explanations, Names
from amigo_async.report import from_json, to_json
from tests.support.report_samples import large_batch
from tests.unit.cli.cli_samples import ALLOWED, SHORT, gated, outcome, run, some_id

FAILED = outcome("failed", run=run(failed=1))
RESULT = BatchResult([outcome(), FAILED])


def reports_to(files: Sequence[Path]) -> Reports:
    json_, junit, markdown, html = map(str, files)
    return Reports(json_, junit, markdown, html)


def written(reports: Reports) -> None:
    outputs = Outputs()
    reports.write(RESULT, None, outputs)
    assert outputs.print_failures(ExitCode.PASSED) is ExitCode.PASSED


def test_reports_go_to_their_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("r.json", "r.xml", "r.md", "r.html")]
    reports = reports_to(files)
    reports.check()
    assert not any(file.exists() for file in files)
    written(reports)
    json_, junit, markdown, html = (file.read_text() for file in files)
    assert [o.verdict for o in from_json(json_).outcomes] == ["passed", "failed"]
    assert "<testsuites" in junit
    assert "is polite" in markdown
    assert html.lower().startswith("<!doctype html>")
    assert html.endswith("\n")


def test_a_report_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    reports = Reports(json="-")
    assert reports.on_stdout
    reports.check()
    written(reports)
    out = capsys.readouterr().out
    assert json.loads(out)["passed"] is False
    assert out == f"{to_json(RESULT)}\n"


def test_a_large_result_is_in_memory_once(tmp_path: Path) -> None:
    result = replace(large_batch(40, 20, 10, ["metric"]), explanations=Explanations())
    reports, outputs = Reports(json=str(tmp_path / "r.json")), Outputs()
    tracemalloc.start()
    try:
        reports.write(result, None, outputs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = (tmp_path / "r.json").read_text()
    assert text == f"{to_json(result)}\n"
    assert peak < 1.5 * len(text)


def test_no_report_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reports = Reports()
    assert not reports.on_stdout
    reports.check()
    written(reports)
    assert capsys.readouterr() == ("", "")


def test_two_reports_cannot_share_stdout() -> None:
    with pytest.raises(click.UsageError, match="Only one report"):
        Reports(json="-", html="-").check()


def test_missing_folder_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "r.json", tmp_path):
        with pytest.raises(click.ClickException, match="cannot be written: "):
            Reports(json=str(path)).check()


def test_a_check_changes_no_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "a" / "b" / "new.xml"
    link, pipe = tmp_path / "link.md", tmp_path / "pipe.html"
    old.write_text("old")
    link.symlink_to(tmp_path / "not yet")
    os.mkfifo(pipe)  # opening it would wait for a reader
    reports = Reports(json=str(old), junit=str(new), markdown=str(link), html=str(pipe))
    reports.check()
    assert old.read_text() == "old"
    assert list(new.parent.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", *NAMES]


NAMES = ["link.md", "old.json", "pipe.html"]


def test_reports_may_not_share_a_file(tmp_path: Path) -> None:
    one, again = str(tmp_path / "r"), str(tmp_path / "." / "r")
    with pytest.raises(click.UsageError, match="named twice"):
        Reports(json=one, junit=again).check()
    with pytest.raises(click.UsageError, match="named twice"):
        Reports(json=one).check(journal=again)
    Reports(json=os.devnull, junit=os.devnull).check(journal=one)


def test_report_to_a_closed_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(click.UsageError, match="stdout is closed"):
        Reports(json="-").check()
    Reports(json=os.devnull).check()


def test_a_report_that_fails_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone" / "r.json"
    junit, page = tmp_path / "r.xml", tmp_path / "r.html"
    outputs = Outputs()
    Reports(json=str(gone), junit=str(junit), html=str(page)).write(RESULT, None, outputs)
    assert junit.stat().st_size
    assert page.stat().st_size
    assert outputs.print_failures(ExitCode.PASSED) is ExitCode.ERRORED
    assert capsys.readouterr().err == (
        f"Error: {gone} was not written: No such file or directory\n"
    )


@pytest.mark.parametrize("status", [ExitCode.PASSED, ExitCode.FAILED])
def test_exit_status_of_lost_output(monkeypatch: pytest.MonkeyPatch, status: ExitCode) -> None:
    outputs = Outputs()
    with outputs.to("the summary", extra=True):
        Full().write("x")
    monkeypatch.setattr(sys, "stderr", Full())
    expected = ExitCode.ERRORED if status is ExitCode.PASSED else status
    assert outputs.print_failures(status) is expected


class Full(io.StringIO):
    """A stream on a disk without space."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_missing_package_is_told_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_jinja2(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"amigo-async\[report\]"):
        Reports(html=str(tmp_path / "r.html")).check()
    Reports(json=str(tmp_path / "r.json"), junit=str(tmp_path / "r.xml")).check()


def without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def test_annotation_for_each_failed_set(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsaved = outcome("passed", 2, error=ArtifactError("50% had,\nno space", run_id="r"))
    annotate(BatchResult([outcome(), FAILED, unsaved, outcome("timed_out", 3)]))
    out, err = capsys.readouterr()
    assert not out
    first, second, third = err.splitlines()
    assert first == (
        f"::error title=Unit test set {some_id(1)} failed::"
        "test-1 / is polite: expected yes; 1 of 2 repeats passed, 1 failed"
    )
    assert second == (
        f"::error title=Unit test set {some_id(2)} passed::artifact of run r: 50%25 had, no space"
    )
    assert third == (
        f"::warning title=Unit test set {some_id(3)} timed out::{UNEXPLAINED['timed_out']}"
    )


def test_several_reasons_are_one_annotation(
    summary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(BatchResult([outcome("failed", run=run(failed=2, errors=("x", None)))]))
    [line] = capsys.readouterr().err.splitlines()
    assert "1 errored%0Atest-1: x, in repeat 1 of 2" in line


def test_annotation_with_names(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = outcome("failed", run=run(failed=1), name="Refunds: 50%, fast")
    annotate(BatchResult([named], names=Names(unit_tests={"test-1": "Angry caller"})))
    assert capsys.readouterr().err == (
        "::error title=Unit test set Refunds%3A 50%25%2C fast failed::"
        "Refunds: 50%25, fast / Angry caller / is polite: expected yes; "
        f"1 of 2 repeats passed, 1 failed%0Aset {some_id(1)}, run {some_id(0xA1)}\n"
    )


def test_annotation_names_what_the_gate_does_not_allow(
    summary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(BatchResult([gated()]), gate=Gate(min_pass_rate=0.9))
    line = capsys.readouterr().err
    assert SHORT in line
    assert ALLOWED not in line


def test_eleventh_annotation_is_counted(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotate(BatchResult([FAILED] * 13))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "::warning::3 more sets did not pass"


def test_metrics_are_warnings_where_regressions_count(
    summary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what decided comes first: of many, the last ones are not shown."""
    unsaved = outcome("failed", 2, error=ArtifactError("no space", run_id="r"))
    undecided = outcome("undecided", 3)
    result = BatchResult([*[FAILED] * 9, undecided, unsaved, outcome("errored", 4)])
    annotate(result, "regression")
    levels = [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()]
    assert levels == [*["::error"] * 2, *["::warning"] * 8, "::warning::2"]
    annotate(result)
    levels = [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()]
    assert levels == [*["::error"] * 10, "::warning::2"]


def test_summary_is_appended(summary: Path) -> None:
    summarize(RESULT, None, Reports())
    text = summary.read_text()
    assert text.startswith("before\n")
    assert "is polite" in text


def test_failed_summary_is_told(
    summary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_jinja2(monkeypatch)
    summarize(RESULT, None, Reports())
    assert summary.read_text() == "before\n"
    assert capsys.readouterr().err.startswith("::notice::No job summary: ")


def test_elsewhere_github_is_not_told(
    summary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    annotate(RESULT)
    summarize(RESULT, None, Reports())
    assert capsys.readouterr() == ("", "")
    assert summary.read_text() == "before\n"


def test_service_cannot_forge_annotations(
    summary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "x,a=b::error::\n::stop-commands::y ##[group] 100%0A https://h/?hunter2"
    unsaved = outcome("passed", unit_test_set_id=odd, error=OSError(odd))
    annotate(BatchResult([unsaved]))
    [line] = capsys.readouterr().err.splitlines()
    title, message = re.fullmatch(r"::error title=([^:,]*)::(.*)", line).groups()  # type: ignore[union-attr]
    assert "100%250A" in title
    assert message.startswith("x,a=b::error:: : :stop-commands::y # #[group] 100%250A ")
    assert "hunter2" not in line


def test_summary_is_bounded(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = BatchResult([outcome("failed", n, run=run(failed=1)) for n in range(9000)])
    summary.write_text("x" * 500_000)
    summarize(many, None, Reports())
    assert 900_000 < summary.stat().st_size <= 1024 * 1024
    assert "more sets are not shown here" in summary.read_text()
    summary.write_text("x" * (1024 * 1024 - 100))
    summarize(many, None, Reports())
    assert summary.stat().st_size == 1024 * 1024 - 100
    assert capsys.readouterr().err == "::notice::No job summary: the summary of this step is full\n"
    summary.unlink()
    summarize(RESULT, None, Reports())
    assert "is polite" in summary.read_text()
