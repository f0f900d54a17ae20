"""``run --baseline``, ``compare`` and ``history``, against a sandbox over real sockets."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from amigo_async.report import from_json
from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.support.command import (  # noqa: F401  # fixtures
    ERRING,
    Said,
    elsewhere,
    on_terminal,
    served,
    some_id,
)

AT_ONCE = SetPlan(seconds=0.0, artifacts_after=0.0, repeats=40)
WORSE = SetPlan(seconds=0.0, artifacts_after=0.0, repeats=40, outcome="failed", trouble_at=0.0)
REGRESSION = ("--fail-on", "regression")


def a_set(sandbox: Sandbox, name: str, *, past: int = 1) -> str:
    """A set that passes, with runs of the past."""
    set_id = sandbox.add_set(AT_ONCE, name=name)
    for _ in range(past):
        sandbox.start_run(set_id)
    return set_id


def change(sandbox: Sandbox, set_id: str, name: str, plan: SetPlan) -> None:
    sandbox.add_set(plan, id=set_id, name=name)


# --- run ---


def test_regression_is_shown_first(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [a_set(sandbox, name) for name in ("Billing", "Refund policy")]
    change(sandbox, ids[1], "Refund policy", WORSE)
    said = Said(capsys, "run", *ids, "--baseline", "last")
    assert said.status == 1
    lines = said.out.splitlines()
    at = lines.index("Against the baseline: regressed in 1 set; no regression seen in 1 set.")
    assert re.fullmatch(
        r"Refund policy: regressed\. \d+ of 120 repeats passed, before 120 of 120 \(p < 0.0001\)\.",
        lines[at + 1],
    )
    assert any(line.startswith("Billing: no regression seen") for line in lines[at:])
    assert "Refund policy" in said.err
    assert "regressed against its baseline" in said.err


@pytest.mark.parametrize(
    ("plan", "past", "options", "status", "note"),
    [
        (WORSE, 1, ("--baseline", "last", *REGRESSION), 1, "failed a metric"),
        (WORSE, 3, ("--baseline", "3", *REGRESSION), 1, "failed a metric"),
        (AT_ONCE, 1, ("--baseline", "last", *REGRESSION), 0, None),
        (AT_ONCE, 0, ("--baseline", "last", *REGRESSION), 0, "There is no baseline"),
        (WORSE, 0, ("--baseline", "last", *REGRESSION), 0, "There is no baseline"),
        (WORSE, 0, ("--baseline", "last"), 1, None),
        (ERRING, 1, ("--baseline", "last", *REGRESSION), 3, None),
    ],
)
def test_exit_status(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    plan: SetPlan,
    past: int,
    options: tuple[str, ...],
    status: int,
    note: str | None,
) -> None:
    set_id = a_set(sandbox, "Refund policy", past=past)
    change(sandbox, set_id, "Refund policy", plan)
    said = Said(capsys, "run", set_id, "-q", *options)
    assert said.status == status
    notes = [line for line in said.err.splitlines() if line.startswith("Note: ")]
    if note is None:
        assert not any("baseline" in line or "failed a metric" in line for line in notes)
    else:
        assert any(note in line for line in notes)


def test_too_few_repeats_are_no_regression(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    few = SetPlan(seconds=0.0, repeats=1, unit_tests=1, artifacts_after=None)
    set_id = sandbox.add_set(few, name="Refund policy")
    sandbox.start_run(set_id)
    failing = SetPlan(seconds=0.0, repeats=1, unit_tests=1, outcome="failed", artifacts_after=None)
    change(sandbox, set_id, "Refund policy", failing)
    said = Said(capsys, "run", set_id, "-q", "--baseline", "last", *REGRESSION)
    assert said.status == 0
    assert "too few repeats to tell" in said.out
    assert "Note: There are too few repeats to tell whether anything regressed." in said.err
    assert "Note: 1 set failed a metric, which --fail-on regression ignores." in said.err


def test_baseline_of_a_saved_result(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """The release, saved once, is what each candidate is compared with."""
    ids = [a_set(sandbox, name, past=0) for name in ("Billing", "Refund policy")]
    assert Said(capsys, "run", *ids, "-q", "--json", "release.json").status == 0
    release = from_json(Path("release.json").read_text())
    for set_id in ids:
        sandbox.start_run(set_id)
    said = Said(capsys, "run", ids[0], "-q", "--baseline", "release.json", "--json", "new.json")
    assert said.status == 0
    [outcome] = from_json(Path("new.json").read_text()).outcomes
    assert outcome.comparison is not None
    assert outcome.comparison.baseline_run_ids == (release.outcomes[0].run_id,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--baseline", "0"), "at least 1"),
        (("--baseline", "first"), "neither last, nor a number, nor a file"),
        (("--baseline", "broken.json"), "is not a result"),
        (REGRESSION, "--fail-on regression needs --baseline"),
    ],
)
def test_used_wrongly(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    Path("broken.json").write_text("{}")
    said = Said(capsys, "run", some_id(1), *options)
    assert said.status == 2
    assert message in said.err
    assert sandbox.requests == []


def test_reports_have_the_comparison(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund policy")
    change(sandbox, set_id, "Refund policy", WORSE)
    names = ("report.json", "report.xml", "report.md", "report.html")
    kinds = ("--json", "--junit", "--markdown", "--html")
    options = [text for pair in zip(kinds, names, strict=True) for text in pair]
    assert Said(capsys, "run", set_id, "-q", "--baseline", "last", *options).status == 1
    document = json.loads(Path("report.json").read_text())
    assert document["comparison"]["verdict"] == "regressed"
    assert "Refund policy\\: regressed." in Path("report.md").read_text()
    assert '<section id="baseline"' in Path("report.html").read_text()
    root = ET.fromstring(Path("report.xml").read_text())  # our own
    [case] = [c for c in root.iter("testcase") if c.get("name") == "against the baseline"]
    assert [child.get("type") for child in case] == ["regression"]
    again = Said(capsys, "report", "report.json", *REGRESSION, "--junit", "again.xml")
    assert again.status == 1
    root = ET.fromstring(Path("again.xml").read_text())
    assert [one.get("type") for one in root.iter("failure")] == ["regression"]
    assert "Refund policy: regressed." in again.out


def test_annotations_begin_with_regressions(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ids = [a_set(sandbox, f"Set {n}") for n in range(12)]
    for number, set_id in enumerate(ids):
        change(sandbox, set_id, f"Set {number}", WORSE)
    said = Said(capsys, "run", *ids, "-q", "--baseline", "last")
    titles = [line for line in said.err.splitlines() if line.startswith("::error")]
    assert len(titles) == 10  # of which GitHub shows no more
    assert "regressed::" in titles[0]
    assert "regressed" not in titles[-1] or len(ids) < 10
    said = Said(capsys, "compare", "--set", "Set 0")
    assert "::error title=Unit test set Set 0 regressed::" in said.err


def test_only_regressions_are_errors_where_they_alone_count(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    set_id = a_set(sandbox, "Refund policy", past=0)
    change(sandbox, set_id, "Refund policy", WORSE)
    sandbox.start_run(set_id)
    said = Said(capsys, "run", set_id, "-q", "--baseline", "last", *REGRESSION, "--json", "it.json")
    assert said.status == 0
    assert "::error" not in said.err
    assert "::warning title=Unit test set Refund policy failed::" in said.err
    assert "No regression seen" in Path("summary.md").read_text().splitlines()[0]
    for options, heading in ((REGRESSION, "No regression seen"), ((), "Failed")):
        kinds = ("--markdown", "it.md", "--html", "it.html", "--junit", "it.xml")
        Said(capsys, "report", "it.json", *options, *kinds)
        root = ET.fromstring(Path("it.xml").read_text())  # our own
        assert (root.get("failures") == "0") == bool(options)
        left = [
            one.get("message", "") for one in root.iter("skipped") if one.get("type") == "metric"
        ]
        assert any(one.startswith("only a regression fails: ") for one in left) == bool(options)
        assert Path("it.md").read_text().splitlines()[0].endswith(f": {heading}")
        assert f"</span>{heading}</h1>" in Path("it.html").read_text()
    Said(capsys, "compare", "it.json", "it.json", "--markdown", "it.md")
    assert Path("it.md").read_text().splitlines()[0].endswith(": No baseline")


def test_list_that_fails_is_said_once(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [a_set(sandbox, name) for name in ("Billing", "Refund policy")]
    Said(capsys, "run", *ids, "-q", "--journal", "journal")
    sandbox.fault("list", Fault.status(403), times=3)
    said = Said(capsys, "run", *ids, "--journal", "journal", "--baseline", "last")
    assert said.status == 0
    [line] = [line for line in said.out.splitlines() if line.startswith("Not compared: ")]
    assert line.startswith("Not compared: Billing, Refund policy: the baseline could not be read:")
    assert said.err.count("the baseline could not be read") == 1


def test_version_of_the_agent_stands_beside_what_got_worse(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = a_set(sandbox, "Refund policy")
    worse = replace(AT_ONCE, pass_rate=(0.1, 1.0, 1.0), agent_version=13)
    change(sandbox, set_id, "Refund policy", worse)
    said = Said(capsys, "run", set_id, "-q", "--baseline", "last", *REGRESSION)
    assert said.status == 1
    lines = said.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("Refund policy: regressed"))
    assert re.match(r"  Angry caller wants money back   40/40 -> \d/40   ", lines[at + 1])
    assert lines[at + 2] == "  agent 12 -> 13"


# --- compare ---


def test_two_saved_results(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [a_set(sandbox, name, past=0) for name in ("Billing", "Refund policy")]
    alone = a_set(sandbox, "Old", past=0)
    assert Said(capsys, "run", *ids, alone, "-q", "--json", "old.json").status == 0
    change(sandbox, ids[1], "Refund policy", WORSE)
    new = a_set(sandbox, "New", past=0)
    assert Said(capsys, "run", *ids, new, "-q", "--json", "new.json").status == 1
    sandbox.forget_requests()
    said = Said(capsys, "compare", "old.json", "new.json")
    assert said.status == 0
    assert said.out.splitlines()[0] == (
        "Against the baseline: regressed in 1 set; no regression seen in 1 set; "
        "not compared in 1 set."
    )
    assert "Note: set Old is in the first alone." in said.err
    assert "Not compared: New: no baseline" in said.out
    assert Said(capsys, "compare", "old.json", "new.json", *REGRESSION).status == 1
    assert Said(capsys, "compare", "old.json", "old.json", *REGRESSION).status == 0
    assert sandbox.requests == []


def test_known_failures_of_a_saved_result_are_not_compared(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = a_set(sandbox, "Refund policy", past=0)
    Said(capsys, "run", set_id, "-q", "--json", "before.json")
    change(sandbox, set_id, "Refund policy", WORSE)
    assert Said(capsys, "run", set_id, "-q", "--json", "after.json").status == 1
    assert Said(capsys, "compare", "before.json", "after.json", *REGRESSION).status == 1
    ended = from_json(Path("after.json").read_text()).outcomes[0].run
    assert ended is not None
    tests = [spec.unit_test_id for spec in ended.unit_test_run_specs]
    Path("known").write_text("\n".join(tests))
    options = ("--known-failing", "known", "--json", "known.json")
    assert Said(capsys, "run", set_id, "-q", *options).status == 0
    said = Said(capsys, "compare", "before.json", "known.json", *REGRESSION)
    assert said.status == 0
    assert "it is known to fail" in said.out


def test_runs_by_id(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund policy")
    change(sandbox, set_id, "Refund policy", WORSE)
    sandbox.start_run(set_id)
    before, after = (run.id for run in sandbox.runs)
    said = Said(capsys, "compare", before, after, "--json", "-")
    assert said.status == 0
    [outcome] = from_json(said.out).outcomes
    assert outcome.comparison is not None
    assert outcome.comparison.verdict == "regressed"
    assert outcome.comparison.candidate_run_ids == (after,)
    assert "Refund policy: regressed" in said.err
    assert "Refund policy: improved" in Said(capsys, "compare", after, before).out
    ids = Said(capsys, "compare", before, after, "--no-names")
    assert f"{set_id}: regressed" in ids.out
    other = sandbox.start_run(a_set(sandbox, "Other", past=0))
    refused = Said(capsys, "compare", before, other)
    assert refused.status == 2
    assert "no set in common" in refused.err


def test_newest_against_those_before(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund policy", past=7)
    change(sandbox, set_id, "Refund policy", WORSE)
    sandbox.start_run(set_id)
    said = Said(capsys, "compare", "--set", "refund policy", "--last", "5", *REGRESSION)
    assert said.status == 1
    assert "before 600 of 600" in said.out
    one = Said(capsys, "compare", "--set", set_id)
    assert "before 120 of 120" in one.out
    new = a_set(sandbox, "New")
    only = Said(capsys, "compare", "--set", new, "--last", "5", *REGRESSION)
    assert only.status == 0
    assert "no baseline" in only.out
    assert "Note: There is no baseline to compare with." in only.err
    none = Said(capsys, "compare", "--set", a_set(sandbox, "Never run", past=0))
    assert none.status == 2
    assert "has no completed run" in none.err


def test_run_that_has_not_ended_is_not_compared(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = a_set(sandbox, "Refund policy")
    change(sandbox, set_id, "Refund policy", SetPlan(seconds=900.0))
    running = sandbox.start_run(set_id)
    [before, _] = (run.id for run in sandbox.runs)
    said = Said(capsys, "compare", before, running)
    assert f"Not compared: Refund policy: run {running} has not ended." in said.out
    assert "both are the same run" in Said(capsys, "compare", before, before).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give two runs or files, or --set SET"),
        (("a" * 24,), "Give two runs or files"),
        (("a" * 24, "b" * 24, "--set", "x"), "Give two runs or files"),
        (("a" * 24, "b" * 24, "--last", "2"), "--last needs --set"),
        (("nowhere", "b" * 24), "nowhere is neither the id of a run nor a file that exists"),
        ((".", "b" * 24), "Is a directory"),
        (("broken.json", "b" * 24), "broken.json is not a result"),
    ],
)
def test_compare_used_wrongly(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    Path("broken.json").write_text("[]")
    said = Said(capsys, "compare", *arguments)
    assert said.status == 2
    assert message in said.err
    assert sandbox.requests == []


# --- history ---


def test_history_is_a_table(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund policy", past=3)
    change(sandbox, set_id, "Refund policy", WORSE)
    sandbox.start_run(set_id)
    said = Said(capsys, "history", "refund policy")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0] == f"Refund policy  {set_id}"
    [whole] = [line for line in lines if line.startswith("all unit tests")]
    bars = whole.split()[3]
    assert len(bars) == 4
    assert bars[:3] == "███"
    assert bars[3] != "█"
    assert re.search(r"\d+ of 480 passed, \d+% \(\d+% to \d+%\)", whole)
    assert "Angry caller wants money back"[:20] in said.out
    assert "4 runs from " in said.out
    two = Said(capsys, "history", set_id, "--last", "2", "--no-names")
    assert "2 runs from " in two.out
    assert "Angry" not in two.out


def test_history_of_many_runs_is_not_cut(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = a_set(sandbox, "Refund policy", past=20)
    said = Said(capsys, "history", set_id)
    [whole] = [line for line in said.out.splitlines() if line.startswith("all unit tests")]
    assert len(whole.split()[3]) == 20
    assert whole.rstrip().endswith("2,400 of 2,400 passed, 100% (100% to 100%)")


@pytest.mark.parametrize("columns", [40, 80])
def test_history_on_a_terminal_that_the_table_does_not_fit(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    set_id = a_set(sandbox, "Refund policy", past=20)
    on_terminal(monkeypatch, columns)
    said = Said(capsys, "history", set_id)
    assert said.status == 0
    lines = said.out.splitlines()
    after = lines[lines.index("all unit tests") + 1 :][:3]
    assert after[0] == "  " + "█" * 20
    assert [line.split()[0] for line in after[1:]] == ["newest", "all"]
    assert "───" not in said.out


def test_history_as_json_and_page(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund <policy>", past=2)
    said = Said(capsys, "history", set_id, "--json", "-", "--html", "history.html")
    assert said.status == 0
    document = json.loads(said.out)
    assert [run["rate"] for run in document["runs"]] == [1.0, 1.0]
    assert [run["run_id"] for run in document["runs"]] == [run.id for run in sandbox.runs]
    [first, *_] = document["unit_tests"]
    assert (first["passed"], first["interval"][1], len(first["runs"])) == (80, 1.0, 2)
    page = Path("history.html").read_text()
    assert "Refund &lt;policy&gt;" in page
    assert page.count("<rect") == 2 * (1 + len(document["unit_tests"]))
    assert "<script" not in page


def test_history_says_what_changed(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund policy", past=2)
    change(sandbox, set_id, "Refund policy", replace(AT_ONCE, agent_version=13))
    newer = sandbox.start_run(set_id)
    plan = SetPlan(seconds=900.0, cancel_after=0.0, agent_version=13)
    change(sandbox, set_id, "Refund policy", plan)
    cut = sandbox.start_run(set_id)
    sandbox.cancel_run(cut)
    lines = Said(capsys, "history", set_id, "--html", "history.html").out.splitlines()
    changes = lines[next(n for n, line in enumerate(lines) if line.startswith("4 runs from")) + 1 :]
    assert [line.rpartition(" ")[2] for line in changes[::2]][:1] == [cut]
    assert f"run {newer}" in changes[-2]
    assert changes[-1] == "  agent 12 -> 13"
    assert "  some repeats never ran" in changes
    page = Path("history.html").read_text()
    assert "agent 12 -&gt; 13" in page
    [section] = re.findall(r"What changed</h2>.*?</section>", page, re.DOTALL)
    shown = re.findall(r'<code class="id">(\w+)</code>|<p class="reason">(.*?)</p>', section)
    assert ["".join(one) for one in shown] == [
        *(cut, "some repeats never ran"),
        *(newer, "agent 12 -&gt; 13"),
    ]


def test_history_of_a_new_set(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = a_set(sandbox, "Refund policy", past=0)
    said = Said(capsys, "history", "Refund policy", "--html", "history.html")
    assert said.status == 0
    assert "The set has no completed run.\n" in said.out
    for one in (set_id, "f" * 24):  # nothing was asked of what it is
        said = Said(capsys, "history", one)
        assert said.status == 0
        assert "no completed run, or there is no such set; or is this the id of a run?" in said.out
    assert "no completed run" in Path("history.html").read_text()
    assert Said(capsys, "history", "nothing").status == 2
    assert Said(capsys, "history", set_id, "--json", "-", "--html", "-").status == 2


def test_markdown_can_be_cut_to_a_comment(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [sandbox.add_set(replace(AT_ONCE, pass_rate=0.5)) for _ in range(3)]
    options = ("--markdown", "comment.md", "--markdown-bytes", "1500")
    assert Said(capsys, "run", *ids, "-q", *options).status == 1
    assert len(Path("comment.md").read_bytes()) <= 1500
