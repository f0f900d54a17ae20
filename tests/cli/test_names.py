"""Sets selected by name and tag, and the names and reasons that the command shows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from amigo_async.models import EvaluationPage
from amigo_async.report import from_json
from amigo_async.testing import Fault, Sandbox, SetPlan
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    LASTING,
    Said,
    elsewhere,
    on_terminal,
    served,
    some_id,
    start,
)

# Without the permissions to read sets, unit tests, metrics and evaluations.
BARE = [
    "Simulation:CreateSimulationUnitTestSetRun",
    "Simulation:GetSimulationUnitTestSetRun",
]

ONE_FAILURE = SetPlan(seconds=0.0, outcome="failed", unit_tests=1, repeats=1, metrics=1)
WHY = (
    "Refund policy / Angry caller wants money back / Problem solved: expected yes, saw no in "
    'repeat 1: "The caller asked three times and hung up without an answer."'
)
DETAILS: Final[tuple[Any, ...]] = (
    "unit_test_sets",
    "unit_tests",
    "metrics",
    "evaluations",
)

# --- selecting ---


def test_run_by_name(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    policy = sandbox.add_set(AT_ONCE, name="Refund policy")
    sandbox.add_set(AT_ONCE, name="Refund policy, long")
    said = Said(capsys, "run", "refund POLICY")
    assert said.status == 0
    assert [run.unit_test_set_id for run in sandbox.runs] == [policy]
    assert f"Refund policy ({policy})  started as run" in said.err
    [line] = [line for line in said.out.splitlines() if policy in line]
    assert line.startswith("passed   Refund policy  ")


def test_names_and_ids_from_a_file(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(AT_ONCE, name=name) for name in ("C# help", "Billing", "Deliveries")]
    Path("sets").write_text(f"Deliveries  # late ones\n{ids[1]} # by id\nC# help\n")
    assert Said(capsys, "run", "--from", "sets").status == 0
    assert {run.unit_test_set_id for run in sandbox.runs} == set(ids)


def test_tags_must_all_fit(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    both = sandbox.add_set(AT_ONCE, tags={"suite": "nightly", "area": "billing"})
    sandbox.add_set(AT_ONCE, tags={"suite": "nightly"})
    sandbox.add_set(AT_ONCE, tags={"area": "billing"})
    assert Said(capsys, "run", "--tag", "suite:nightly", "--tag", "area:billing").status == 0
    assert [run.unit_test_set_id for run in sandbox.runs] == [both]


def test_named_sets_and_tagged_ones_are_run(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    named = sandbox.add_set(AT_ONCE, name="Billing")
    tagged = sandbox.add_set(AT_ONCE, tags={"suite": "nightly"})
    sandbox.add_set(AT_ONCE)
    assert Said(capsys, "run", "Billing", "--tag", "suite:nightly").status == 0
    assert {run.unit_test_set_id for run in sandbox.runs} == {named, tagged}


def test_runs_are_listed_by_the_name_of_their_set(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = {name: sandbox.add_set(AT_ONCE, name=name) for name in ("Billing", "Refunds", "Other")}
    runs = {name: sandbox.start_run(set_id) for name, set_id in sets.items()}
    said = Said(capsys, "list", "--ids", "--set", "billing", "--set", sets["Refunds"])
    assert (said.status, set(said.out.split())) == (0, {runs["Billing"], runs["Refunds"]})
    none = Said(capsys, "list", "--set", "Bills")
    assert (none.status, none.out) == (2, "")
    assert f"'Billing' ({sets['Billing']})" in none.err


def test_a_name_that_fits_none(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    policy = sandbox.add_set(AT_ONCE, name="Refund policy")
    said = Said(capsys, "run", "Refunds policy")
    assert (said.status, said.out) == (2, "")
    assert f"'Refund policy' ({policy})" in said.err
    assert sandbox.runs == []


def test_a_name_that_fits_several(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [sandbox.add_set(AT_ONCE, name="Billing") for _ in range(2)]
    said = Said(capsys, "run", "billing")
    assert (said.status, said.out) == (2, "")
    assert all(set_id in said.err for set_id in ids)
    assert sandbox.runs == []


def test_dry_run_starts_nothing(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    plan = SetPlan(unit_tests=2, repeats=3)
    ids = [sandbox.add_set(plan, name=f"Set {n}", tags={"suite": "all"}) for n in range(21)]
    said = Said(capsys, "run", "--dry-run", "--tag", "suite:all", "--json", "r.json")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split() for line in lines if ids[3] in line] == [["Set", "3", "2", "6", ids[3]]]
    assert lines[-3:] == [
        "21 sets, 42 unit tests, 126 repeats in all",
        "Starting them takes up to 2 minutes: the limit is 20 a minute.",
        "Nothing was started.",
    ]
    assert sandbox.runs == []
    assert not Path("r.json").exists()


def test_dry_run_by_id_counts_a_set_once(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(SetPlan(unit_tests=1, repeats=4), name="Billing")
    said = Said(capsys, "run", "--dry-run", set_id, set_id, "--journal", "j")
    assert said.status == 0
    assert "1 set, 1 unit test, 4 repeats in all\n" in said.out
    assert "takes up to 1 minute:" in said.out
    assert "A run with j does not start again what that has finished." in said.out
    assert Said(capsys, "run", "--dry-run", some_id(1)).status == 2


def test_by_id_needs_no_permission_to_read_sets(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_user(sandbox.user_id, permissions=BARE)
    set_id = sandbox.add_set(AT_ONCE, name="Billing")
    said = Said(capsys, "run", set_id)
    assert said.status == 0
    assert set_id in said.out
    assert "Billing" not in said.out + said.err


# --- names ---


def test_list_shows_names(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    set_id = sandbox.add_set(AT_ONCE, name="Refund policy")
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "list")
    [line] = [line for line in said.out.splitlines() if run_id in line]
    assert line.startswith("passed  Refund policy  ")
    assert set_id in line
    assert sandbox.count("unit_tests") == sandbox.count("metrics") == 0
    asked = sandbox.count("unit_test_sets")
    said = Said(capsys, "list", "--no-names")
    assert "Refund policy" not in said.out
    assert set_id in said.out
    assert sandbox.count("unit_test_sets") == asked


def test_list_names_the_missing_permission(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_user(sandbox.user_id, permissions=BARE)
    set_id = sandbox.add_set(AT_ONCE)
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "list")
    assert said.status == 0
    assert run_id in said.out
    assert set_id in said.out
    assert said.err.startswith("Note: ")
    assert said.err.count("Simulation:GetSimulationUnitTestSet ") == said.err.count("\n") == 1


def test_wait_shows_names_and_reasons(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    policy = sandbox.add_set(ONE_FAILURE, name="Refund policy")
    lasting = sandbox.add_set(LASTING, name="Deliveries")
    runs = start(sandbox, policy, lasting)
    said = Said(capsys, "wait", *runs, "--timeout", "1", "--json", "r.json")
    assert said.status == 1
    assert WHY in said.out
    assert f"Deliveries ({runs[1]})  timed out" in said.err
    result = from_json(Path("r.json").read_text())
    assert [outcome.name for outcome in result.outcomes] == ["Refund policy", "Deliveries"]
    assert result.names.unit_test_sets[policy] == "Refund policy"
    assert len(result.explanations.evaluations) == 1
    bare = Said(capsys, "wait", runs[0], "--no-names", "--no-reasons")
    assert "Refund policy" not in bare.out + bare.err


def test_wait_says_why_of_a_run_that_was_cut_short(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its repeats had shown when somebody cancelled it, as `run` and `report` do."""
    plan = SetPlan(
        outcome="failed", seconds=0.6, trouble_at=0.0, cancelled_at=0.4, cancel_after=0.0
    )
    runs = start(sandbox, sandbox.add_set(plan, name="Refund policy"))
    said = Said(capsys, "wait", *runs, "--json", "r.json")
    assert said.status == 3
    result = from_json(Path("r.json").read_text())
    assert [outcome.verdict for outcome in result.outcomes] == ["cancelled"]
    assert result.explanations.evaluations


# --- reasons ---


def asked(sandbox: Sandbox) -> list[int]:
    return [sandbox.count(endpoint) for endpoint in DETAILS]


def test_run_says_by_name_what_failed_and_why(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(ONE_FAILURE, name="Refund policy")
    said = Said(capsys, "run", set_id)
    assert said.status == 1
    assert f"Refund policy failed  {set_id}\n  {WHY}\n" in said.out
    assert "Note:" not in said.err
    assert max(asked(sandbox)) == 1


def test_names_and_reasons_can_be_left_out(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(ONE_FAILURE, name="Refund policy")
    said = Said(capsys, "run", set_id, "--no-names", "--no-reasons")
    assert said.status == 1
    assert f"{set_id} failed\n" in said.out
    assert asked(sandbox) == [0, 0, 0, 0]
    said = Said(capsys, "run", set_id, "--no-names")
    assert "hung up without an answer" in said.out
    assert asked(sandbox) == [0, 0, 0, 1]
    said = Said(capsys, "run", "Refund policy", "--no-names", "--no-reasons")
    assert f"{set_id} failed\n" in said.out


def test_what_cannot_be_read_is_said_once(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["Simulation:GetSimulationUnitTestSet", "Simulation:GetSimulationUnitTest"]
    sandbox.add_user(sandbox.user_id, permissions=[*BARE, *shown])
    ids = [sandbox.add_set(ONE_FAILURE) for _ in range(3)]
    said = Said(capsys, "run", "-q", *ids)
    assert said.status == 1
    assert "3 failed" in said.out
    metrics, evaluations = said.err.splitlines()
    assert metrics.startswith("Note: no name was found for 1 of the metrics: ")
    assert "Metric:GetMetric " in metrics
    assert evaluations.startswith("Note: 3 of 3 reasons cannot be seen: ")
    assert "Metric:GetMetricEvaluationResult " in evaluations


@pytest.mark.parametrize("fault", [Fault.status(500), Fault.status(403)])
def test_a_failing_service_costs_names_only(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    for endpoint in DETAILS:
        sandbox.faults_at_random(endpoint, fault, rate=1.0)
    set_id = sandbox.add_set(ONE_FAILURE)
    [run_id] = start(sandbox, set_id)
    said = Said(capsys, "list")
    assert said.status == 0
    assert run_id in said.out
    notes = [line for line in said.err.splitlines() if "attempt" not in line]
    assert [note.startswith("Note: the names of sets could not be read") for note in notes] == [
        True
    ]


def test_links_go_into_the_reports(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(ONE_FAILURE)
    link = "https://console.example/{set_id}?run={run_id}"
    files = ["--html=r.html", "--markdown=r.md", "--junit=r.xml"]
    assert Said(capsys, "run", set_id, "--link", link, *files).status == 1
    [run] = sandbox.runs
    for name in ("r.html", "r.md", "r.xml"):
        assert f"https://console.example/{set_id}?run={run.id}" in Path(name).read_text()


@pytest.mark.parametrize("link", ["https://console.example/", "javascript:{run_id}", "{run_id}"])
def test_a_link_that_is_no_template(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    said = Said(capsys, "run", some_id(1), "--link", link)
    assert (said.status, said.out) == (2, "")
    assert "link must " in said.err
    assert sandbox.requests == []


# --- text of the service is data ---


def explain_with(sandbox: Sandbox, run_id: str, justification: str) -> None:
    """Let the next page of evaluations say that about each conversation of a run."""

    async def evaluations() -> EvaluationPage:
        async with sandbox.client() as client:
            return await client.evaluations.list(simulation_unit_test_set_run_id=[run_id])

    page = msgspec.to_builtins(asyncio.run(evaluations()))
    for evaluation in page["metric_evaluation_results"]:
        evaluation["justification"] = justification
    sandbox.fault("evaluations", Fault.garbage(json.dumps(page).encode(), "application/json"))


def test_names_and_justifications_are_inert(
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    odd = (
        "[bold]x[/bold] <script>alert(1)</script>\n::error::forged\n##vso[a]b \x1b[2J\x9b1m "
        f"\ud83d {sandbox.api_key} https://h/k?X-Amz-Signature=hunter2 ![i](http://x) "
        + "long "
        * 999
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    [run_id] = start(sandbox, sandbox.add_set(ONE_FAILURE, name=odd))
    explain_with(sandbox, run_id, odd)
    files = ["--html=r.html", "--markdown=r.md", "--junit=r.xml", "--json=r.json"]
    said = Said(capsys, "wait", run_id, *files)
    assert said.status == 1
    assert "[bold]x[/bold]" in said.out  # the name, and the justification
    assert 'saw no in repeat 1: "[bold]x[/bold]' in said.out
    assert len(said.out) < 3_000
    for line in (*said.out.splitlines(), *said.err.splitlines()):
        assert line.isprintable()
        assert "##" not in line
        assert not line.lstrip().startswith("::") or line.startswith("::error title=Unit test set")
    written = [path.read_text() for path in map(Path, ("r.html", "r.md", "r.xml", "r.json"))]
    for text in (said.out, said.err, (tmp_path / "summary.md").read_text(), *written):
        assert sandbox.api_key not in text
        assert "hunter2" not in text
        assert "\x1b" not in text
        text.encode()
    assert "<script>alert" not in written[0] + written[1] + written[2]
