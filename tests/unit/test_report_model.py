"""What reports show of sets that are undecided, of known failures, and of hidden results."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from amigo_async import BatchResult, Gate, Names, RunOutcome
from amigo_async.report import html, junit, markdown
from amigo_async.report.model import notes_of, set_reports
from amigo_async.report.set_history import set_history
from amigo_async.verdicts.tally import Counts
from tests.report.test_html import Page
from tests.support.report_samples import outcome, run

METRIC = "67aa00000000000000000002"
SURE = Gate(min_pass_rate=0.9, confidence=0.95)
A, B, C = (f"{n:024x}" for n in (0xA, 0xB, 0xC))


def repeats(test_id: str, passed: int, failed: int) -> Any:
    return test_id, {METRIC: "+" * passed + "-" * failed}, [None] * (passed + failed)


def undecided(*tests: Any, **fields: Any) -> RunOutcome:
    return outcome(run(*tests, set_id="s1", run_id="r1"), "undecided", **fields)


def cases(result: BatchResult, gate: Gate | None) -> dict[str, ET.Element]:
    root = ET.fromstring(junit(result, gate=gate))
    return {case.get("name", ""): case for case in root.iter("testcase")}


def tags(case: ET.Element) -> list[tuple[str, str | None]]:
    return [(child.tag, child.get("type")) for child in case]


MIXED = (repeats(A, 29, 0), repeats(B, 5, 0), repeats(C, 4, 1))


def test_undecided_cases_are_skipped_with_the_reason() -> None:
    result = BatchResult([undecided(*MIXED)])
    found = cases(result, SURE)
    assert {name: tags(case) for name, case in found.items()} == {
        "run": [("skipped", "undecided")],
        f"{A} / Empathy": [],
        f"{B} / Empathy": [("skipped", "undecided")],
        f"{C} / Empathy": [("skipped", "undecided")],
    }
    assert "24 more repeats at this rate would show at least 90%" in (
        found["run"][0].get("message") or ""
    )
    [suite] = ET.fromstring(junit(result, gate=SURE))
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == [
        *("4", "0", "0", "3")
    ]


def test_failures_of_a_set_that_failed_stay_failures() -> None:
    result = BatchResult([outcome(run(*MIXED, repeats("d", 0, 9), set_id="s1"), "failed")])
    found = cases(result, SURE)
    assert tags(found["d / Empathy"]) == [("failure", "metric")]
    assert tags(found[f"{C} / Empathy"]) == [("skipped", "undecided")]
    assert "run" not in found
    report = junit(result, gate=SURE)
    assert "0 of 9 repeats passed, 9 failed" in report
    assert 'failures="1"' in report


def test_the_whole_run_is_undecided() -> None:
    """Of a rate of all unit tests together, those that passed are not undecided."""
    gate = Gate(min_pass_rate=0.9, confidence=0.95, per="run")
    [each] = set_reports(BatchResult([undecided(repeats(A, 5, 0), repeats(C, 4, 1))]), gate)
    assert [test.status for test in each.tests] == ["passed", "undecided"]
    assert each.problem is not None
    assert each.problem.startswith("the run: 9 of 10 repeats passed (90%, with 95% confidence")
    assert each.groups == ()


def test_without_the_gate_the_outcome_says_why() -> None:
    [each] = set_reports(BatchResult([undecided(*MIXED, reason="too few to tell")]), None)
    assert (each.problem, each.problem_type) == ("too few to tell", "undecided")
    assert [test.status for test in each.tests] == ["passed", "passed", "undecided"]
    [bare] = set_reports(BatchResult([undecided(*MIXED)]), None)
    assert bare.problem == "there are too few repeats to tell whether the pass rate is reached"


def test_limits_stand_beside_rates() -> None:
    [each] = set_reports(BatchResult([undecided(*MIXED)]), SURE)
    assert [test.seen for test in each.tests] == [
        "29 of 29 repeats passed (rate at least 90.1%)",
        "5 of 5 repeats passed (rate at least 54.9%)",
        "4 of 5 repeats passed, 1 failed (rate 34.2% to 98.9%)",
    ]
    assert [test.cases[0].seen for test in each.tests][1] == "5 of 5 repeats passed"
    by_metric = Gate(min_pass_rate=0.9, confidence=0.95, per="metric")
    [each] = set_reports(BatchResult([undecided(*MIXED)]), by_metric)
    assert each.tests[1].seen == "5 of 5 repeats passed"
    assert each.tests[1].cases[0].seen == "5 of 5 repeats passed (rate at least 54.9%)"
    [plain] = set_reports(BatchResult([undecided(*MIXED)]), Gate(min_pass_rate=0.9))
    assert "rate" not in plain.tests[1].seen


def test_undecided_in_markdown() -> None:
    result = BatchResult([undecided(*MIXED), outcome(run(repeats(A, 29, 0)), "passed")])
    text = markdown(result, gate=SURE)
    assert text.startswith("# ❔ Unit test sets of org: Undecided\n")
    assert "1 passed, 1 undecided. 2 of 4 unit tests undecided; 67 of 68 repeats" in text
    assert "**undecided**: unit test 00" in text
    assert "24 more repeats at this rate" in text


def test_undecided_on_the_page() -> None:
    page = Page(html(BatchResult([undecided(*MIXED)]), gate=SURE))
    assert ("header", "undecided") in [
        (tag, attributes.get("data-verdict")) for tag, attributes in page.elements
    ]
    assert page.count("article", "is-undecided") == 1
    text = " ".join(page.text.split())
    assert f"Undecided {B} 5 of 5 repeats passed (rate at least 54.9%) {C} 4 of 5" in text
    assert f"1 unit test passed {A} 29 of 29 repeats passed (rate at least 90.1%)" in text


def test_a_failed_set_is_worse_than_an_undecided_one() -> None:
    failed = outcome(run(repeats(A, 0, 9)), "failed")
    text = markdown(BatchResult([undecided(*MIXED), failed]), gate=SURE)
    assert text.startswith("# ❌")
    assert "1 failed, 1 undecided. 1 of 4 unit tests failed, 2 undecided" in text


# --- known to fail ---

KNOWN: dict[str, Any] = {"known_failing": (C,)}


@pytest.mark.parametrize("gate", [None, Gate(), Gate(per="run"), Gate(per="metric"), SURE])
def test_known_failures_are_shown_and_no_finding(gate: Gate | None) -> None:
    one = run(repeats(A, 29, 0), repeats(C, 4, 1), set_id="s1")
    result = BatchResult([outcome(one, "passed", **KNOWN)])
    [each] = set_reports(result, gate)
    assert [test.status for test in each.tests] == ["passed", "known_failing"]
    assert (each.groups, each.problem, each.tolerated) == ((), None, 0)
    found = cases(result, gate)
    assert tags(found[f"{C} / Empathy"]) == [("skipped", "known_failing")]
    assert tags(found[f"{A} / Empathy"]) == []
    shown = markdown(result, gate=gate)
    assert "1 of 2 unit tests known to fail" in shown
    limits = " \\(rate 34.2% to 98.9%\\)" if gate is SURE else ""
    assert f"## Known to fail\n\n- s1, `{C}`: 4 of 5 repeats passed, 1 failed{limits}\n" in shown
    text = " ".join(Page(html(result, gate=gate)).text.split())
    assert f"Known to fail {C} 4 of 5 repeats passed, 1 failed" in text
    assert "What went wrong" not in text


def test_other_failures_are_still_findings() -> None:
    one = run(repeats(A, 3, 2), repeats(C, 4, 1), set_id="s1")
    [each] = set_reports(BatchResult([outcome(one, "failed", **KNOWN)]), None)
    assert [test.status for test in each.tests] == ["failed", "known_failing"]
    [group] = each.groups
    assert [finding.test.id for finding in group.findings] == [A]
    assert each.amounts.tests_in_words == "1 of 2 unit tests failed, 1 known to fail"


def test_one_that_passes_again_is_said() -> None:
    one = run(repeats(A, 3, 0), repeats(C, 5, 0), set_id="s1")
    again = outcome(one, "passed", known_failing=(C,), passing_again=(C,))
    result = BatchResult([again], names=Names(unit_tests={C: "Angry caller"}))
    told = (
        f"unit test Angry caller ({C}) is known to fail, and passed every repeat: it may be "
        "removed from the known failures"
    )
    assert told in " ".join(Page(html(result)).text.split())
    assert "is known to fail, and passed every repeat" in markdown(result)
    [each] = set_reports(result, None)
    assert [test.status for test in each.tests] == ["passed", "passed"]
    other = outcome(run(repeats(C, 4, 1), set_id="s2"), "passed", **KNOWN)
    assert "passed every repeat" not in markdown(BatchResult([again, other]))


def test_unit_tests_of_one_name_pass_again_together() -> None:
    """What is known to fail may be the name, which stays as long as one of them fails."""
    names = Names(unit_tests={A: "Angry caller", C: " angry Caller"})
    both = outcome(
        run(repeats(A, 5, 0), repeats(C, 5, 0), set_id="s1"),
        "passed",
        known_failing=(A, C),
        passing_again=(A, C),
    )
    [told] = notes_of(BatchResult([both, both], names=names))
    assert told == (
        "the 2 unit tests called Angry caller are known to fail, and passed every repeat: they may "
        "be removed from the known failures"
    )
    one = replace(both, passing_again=(A,))
    assert notes_of(BatchResult([one], names=names)) == ()
    assert len(notes_of(BatchResult([one]))) == 1  # they may be called otherwise


def test_many_known_failures_fit() -> None:
    tests = [repeats(f"{n:024x}", 1, 1) for n in range(200)]
    known = tuple(test[0] for test in tests)
    result = BatchResult([outcome(run(*tests), "passed", known_failing=known)])
    text = markdown(result)
    assert text.count("1 of 2 repeats passed") == 50
    assert "150 more unit tests are not shown here." in text
    short = markdown(result, max_bytes=2000)
    assert len(short.encode()) <= 2000
    assert "more unit tests are not shown here." in short
    assert "| ✅ |" in short


def test_summary_names_metrics_and_repeats_no_error() -> None:
    """A run names its metrics itself, and ten repeats with one error are one reason."""
    tests = repeats(A, 1, 1), (B, {METRIC: ""}, ["boom"] * 10), repeats(C, 0, 2)
    result = BatchResult([outcome(run(*tests, set_id="s1", run_id="r1"))])
    assert result.summary().splitlines()[1] == (
        f"set s1, run r1: errored: {A}: Empathy failed in 1 of 2 repeats; "
        f"{C}: Empathy failed in 2 of 2 repeats; {B}: boom (in 10 repeats)"
    )


BARE: tuple[str, dict[str, str], list[str | None]] = ("a", {}, [None] * 3)


@pytest.mark.parametrize("failed", [True, False])
def test_hidden_results_of_a_run_that_failed_have_not_passed(*, failed: bool) -> None:
    """Without the permission to see unit tests, a run says how many repeats it had, and no more."""
    one = run(BARE, failed_metrics=failed)
    [each] = set_reports(BatchResult([outcome(one)]), None)
    assert [test.counts for test in each.tests] == ([] if failed else [Counts(3, 0, 0)])
    past = set_history("set", [one], Names()).whole.last
    assert past is not None
    assert past.rate == (None if failed else 1.0)


def test_errors_of_hidden_results_are_shown() -> None:
    one = run(("a", {}, [None, "boom", None]), BARE, failed_metrics=True)
    [each] = set_reports(BatchResult([outcome(one)]), None)
    assert [(test.id, test.counts) for test in each.tests] == [("a", Counts(0, 0, 3))]
    assert [group.title for group in each.groups] == ["boom"]
