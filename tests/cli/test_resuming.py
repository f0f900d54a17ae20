"""What is taken from earlier: from a journal, or from the sets that passed in a saved result."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from amigo_async.report import from_json
from amigo_async.testing import Sandbox
from tests.support.command import (  # noqa: F401  # fixtures
    AT_ONCE,
    ERRING,
    FAILING,
    LASTING,
    Said,
    elsewhere,
    served,
    some_id,
)

STAMP = r"\d{8}T\d{6}Z"


def aged(journal: Path, days: float) -> None:
    """Let everything in a journal have happened that much earlier."""

    def earlier(found: re.Match[str]) -> str:
        at = datetime.fromisoformat(found[2]) - timedelta(days=days)
        return f"{found[1]}{at.isoformat()}"

    text = journal.read_text()
    journal.write_text(re.sub(r'("at":")([^"]+)', earlier, text))


def test_resuming_that_ran_nothing_is_said_first(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sandbox.add_sets(2, AT_ONCE)
    first = Said(capsys, "run", *ids, "--journal", "j.jsonl")
    assert "taken from" not in first.out
    aged(Path("j.jsonl"), 2.5)
    said = Said(capsys, "run", *ids, "--journal", "j.jsonl", "-q")
    assert said.status == 0
    assert (
        said.out.splitlines()[0] == "2 sets taken from j.jsonl, ended 2 days ago; nothing started"
    )
    assert len(sandbox.runs) == 2


def test_times_are_those_of_the_runs(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    set_id = sandbox.add_set(AT_ONCE)
    Said(capsys, "run", set_id, "--journal", "j")
    lines = [json.loads(line) for line in Path("j").read_text().splitlines()]
    for line in lines:
        if line["what"] == "finished":
            end = datetime.fromisoformat(line["at"]) + timedelta(minutes=41)
            line["at"] = end.isoformat()
    Path("j").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    said = Said(capsys, "run", set_id, "--journal", "j")
    assert re.search(r"^1 passed in 41 min( 1 s)?$", said.out, re.MULTILINE)


def test_a_run_that_ended_unwatched_has_no_time(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(LASTING)
    assert Said(capsys, "run", set_id, "--journal", "j", "--timeout", "0.3").status == 4
    sandbox.cancel_run(sandbox.runs[0].id)
    aged(Path("j"), 2.5)
    for _ in range(2):
        said = Said(capsys, "run", set_id, "--journal", "j", "--junit", "j.xml")
        [row] = [line for line in said.out.splitlines() if sandbox.runs[0].id in line]
        assert "days" not in row
        assert re.search(r" - ", row), row
        assert re.search(r'<testsuite [^>]*time="0.000"', Path("j.xml").read_text())
    assert said.out.startswith("1 set taken from j; nothing started\n")
    assert re.search(r"^1 \w+$", said.out, re.MULTILINE)


def test_resuming_a_part_says_which(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    done, new = sandbox.add_sets(2, AT_ONCE)
    Said(capsys, "run", done, "--journal", "j")
    said = Said(capsys, "run", done, new, "--journal", "j")
    assert re.match(r"1 of 2 sets taken from j, ended \d+ s ago\n", said.out)
    assert len(sandbox.runs) == 2


def test_a_run_that_was_waited_for_is_not_taken_from_the_journal(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    set_id = sandbox.add_set(LASTING)
    assert Said(capsys, "run", set_id, "--journal", "j", "--timeout", "0.3").status == 4
    sandbox.cancel_run(sandbox.runs[0].id)
    said = Said(capsys, "run", set_id, "--journal", "j")
    assert said.status == 3
    assert "taken from" not in said.out


def test_a_journal_that_is_too_old_is_renamed(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sandbox.add_sets(2, AT_ONCE)
    arguments = ["run", *ids, "--journal", "j.jsonl", "--max-age", "12h"]
    assert Said(capsys, *arguments).status == 0
    young = Said(capsys, *arguments)
    assert "renamed" not in young.err
    assert len(sandbox.runs) == 2
    aged(Path("j.jsonl"), 3.5)
    old = Path("j.jsonl").read_bytes()
    assert Said(capsys, *arguments, "--dry-run").status == 0
    assert Path("j.jsonl").read_bytes() == old
    said = Said(capsys, *arguments)
    assert said.status == 0
    assert len(sandbox.runs) == 4
    assert "taken from" not in said.out
    [kept] = Path().glob("j.jsonl.*")
    assert re.fullmatch(rf"j\.jsonl\.{STAMP}", kept.name)
    assert kept.read_bytes() == old
    assert f"j.jsonl ended 3 days ago, which is longer than --max-age: it was renamed {kept}" in (
        said.err
    )


@pytest.mark.parametrize("content", ["", "not a journal\n", '{"at": "2020-01-01T00:00:00Z"}\n'])
def test_what_is_no_old_journal_is_left_alone(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("j").write_text(content)
    Said(capsys, "run", sandbox.add_set(AT_ONCE), "--journal", "j", "--max-age", "1s")
    assert [path.name for path in Path().glob("j*")] == ["j"]
    assert Path("j").read_text().startswith(content)


# --- a saved result ---


def test_what_failed_runs_again_and_the_rest_is_kept(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    fine, failing, erring, late = (
        sandbox.add_set(plan, name=name)
        for plan, name in ((AT_ONCE, "A"), (FAILING, "B"), (ERRING, "C"), (LASTING, "D"))
    )
    arguments = ["--timeout", "1", "--json", "r.json"]
    assert Said(capsys, "run", fine, failing, erring, late, failing, *arguments).status == 1
    before = from_json(Path("r.json").read_text())
    sandbox.cancel_run(sandbox.runs[-1].id)
    for set_id, name in ((failing, "B"), (late, "D")):
        sandbox.add_set(AT_ONCE, id=set_id, name=name)
    for run in sandbox.runs:
        sandbox.cancel_run(run.id)
    sandbox.forget_requests()
    said = Said(capsys, "run", "--failed-from", "r.json", "--json", "r.json", "--artifacts", "got")
    assert said.status == 3
    assert sandbox.count("create") == 3
    assert said.out.splitlines()[0] == "3 of 5 sets run again, the rest taken from r.json"
    after = from_json(Path("r.json").read_text())
    ids = [outcome.unit_test_set_id for outcome in after.outcomes]
    assert ids == [fine, failing, erring, late, failing]
    verdicts = [outcome.verdict for outcome in after.outcomes]
    assert verdicts == ["passed", "passed", "errored", "passed", "passed"]
    assert after.outcomes[0] == before.outcomes[0]
    assert after.outcomes[1] == after.outcomes[4]
    assert after.names.unit_test_sets[fine] == "A"
    assert {outcome.name for outcome in after.outcomes} == {"A", "B", "C", "D"}
    sandbox.add_set(AT_ONCE, id=erring)
    said = Said(capsys, "run", "--failed-from", "r.json", "--json", "r.json")
    assert said.status == 0
    assert said.out.splitlines()[0] == "1 of 5 sets run again, the rest taken from r.json"
    assert from_json(Path("r.json").read_text()).passed


def test_nothing_to_run_again(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert Said(capsys, "run", sandbox.add_set(AT_ONCE), "--json", "r.json").status == 0
    sandbox.forget_requests()
    said = Said(capsys, "run", "--failed-from", "r.json", "--html", "r.html", "--title", "Again")
    assert (said.status, sandbox.requests) == (0, [])
    assert said.err == "All sets have passed in r.json; nothing to run.\n"
    assert "1 passed\n" in said.out
    assert re.search("<title>[^<]*Again", Path("r.html").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--failed-from", "r.json", some_id(1)],
        ["--failed-from", "r.json", "--tag", "a:b"],
        ["--failed-from", "none.json"],
        ["--failed-from", "bad.json"],
        [some_id(1), "--max-age", "1h"],
    ],
)
def test_earlier_results_used_wrongly(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert Said(capsys, "run", sandbox.add_set(FAILING), "--json", "r.json").status == 1
    Path("bad.json").write_text("{}")
    sandbox.forget_requests()
    said = Said(capsys, "run", *arguments)
    assert (said.status, said.out, sandbox.requests) == (2, "", [])


def test_the_title_is_that_of_the_reports(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--markdown", "r.md", "--html", "r.html"]
    said = Said(capsys, "run", sandbox.add_set(AT_ONCE), *files, "--title", "Nightly <1>")
    assert said.status == 0
    assert "Nightly" in Path("r.md").read_text().splitlines()[0]
    assert re.search("<title>[^<]*Nightly &lt;1&gt;", Path("r.html").read_text())
