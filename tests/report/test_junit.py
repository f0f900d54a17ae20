from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from amigo_async import BatchResult, Gate, RunOutcome
from amigo_async.errors import ConflictError
from amigo_async.models import BooleanMetricSuccessCriterion, MetricToEvaluate
from amigo_async.report import RecordedError, html, junit, markdown
from tests.support.report_samples import (
    BEGAN,
    batch,
    hidden_run,
    large_batch,
    outcome,
    result,
    run,
    spec,
)

# As published by the xunit plugin of Jenkins; its license is in the file.
SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit-10.xsd")))

METRIC = "67aa00000000000000000002"
SHAKY = run(("ut", {METRIC: "++-+-"}, [None] * 5), set_id="s1", run_id="r1")
ERRED = run(("ut", {METRIC: "+"}, [None, "no answer", "no answer"]), set_id="s1", run_id="r1")


def parsed(*outcomes: RunOutcome, gate: Gate | None = None) -> ET.Element:
    text = junit(BatchResult(outcomes), gate=gate)
    SCHEMA.validate(text)
    return ET.fromstring(text)


def the(root: ET.Element, path: str) -> ET.Element:
    (found,) = root.findall(path)
    return found


def test_large_batch_is_valid() -> None:
    text = junit(batch(), name="nightly")
    SCHEMA.validate(text)
    root = ET.fromstring(text)
    assert root.get("name") == "nightly"
    for suite in root:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
    for key, path in (("tests", ""), ("failures", "/failure"), ("errors", "/error")):
        found = len(root.findall(f"testsuite/testcase{path}"))
        assert root.get(key) == str(found)
        assert found == sum(int(suite.get(key, "")) for suite in root)
    assert len(root) == 60
    assert (root.get("failures"), root.get("errors")) == ("12", "7")


def test_failure_says_what_was_seen() -> None:
    suite = the(parsed(outcome(SHAKY)), "testsuite")
    assert suite.get("name") == "s1"
    case = the(suite, "testcase")
    assert (case.get("classname"), case.get("name")) == ("s1", "ut / Empathy")
    failure = the(case, "failure")
    assert failure.get("message") == "expected at least 0.8; 3 of 5 repeats passed, 2 failed"
    assert failure.text == (
        "s1 / ut / Empathy: expected at least 0.8; 3 of 5 repeats passed, 2 failed\n"
        "expected: at least 0.8\n"
        "seen: 3 of 5 repeats passed, 2 failed\n"
        "failed in repeats 3, 5\n"
        "failed evaluations: e-02-2, e-02-4\n"
        "set id: s1\n"
        "run id: r1\n"
        "unit test id: ut\n"
        f"metric id: {METRIC}"
    )


def test_attachments_are_not_named_by_the_service() -> None:
    """GitLab makes a link of what stands in the output of a case."""
    error = "see [[ATTACHMENT|/etc/passwd]]"
    allowed = run(("ut", {"m": "+++-"}, [None, None, None, error]))
    root = parsed(outcome(allowed, verdict="passed"), gate=Gate(min_pass_rate=0.5, errored="fail"))
    said = the(root, "testsuite/testcase/system-out").text or ""
    assert "see [[ATTACHMENT |/etc/passwd]]" in said
    assert "[[ATTACHMENT|" not in ET.tostring(root, encoding="unicode")


def test_large_report_fits_into_gitlab() -> None:
    """Sixty sets of which every case failed, each with a long reason for every repeat."""
    everything = large_batch(60, 12, 5, [f"metric-{number}" for number in range(14)])
    text = junit(everything)
    assert text.count("<testcase") == 60 * 12 * 14
    assert len(text.encode()) < 30_000_000
    [few] = ET.fromstring(junit(large_batch(1, 1, 5, ["metric"]))).iter("failure")
    assert (few.text or "").count("interrupted the caller twice") > 5


def test_errored_repeats_are_errors() -> None:
    error = the(parsed(outcome(ERRED)), "testsuite/testcase/error")
    assert error.get("message") == "no answer"
    assert "seen: 1 of 3 repeats passed, 2 errored" in (error.text or "")
    assert "error in repeats 2-3: no answer" in (error.text or "")


def test_allowed_failures_pass() -> None:
    gate = Gate(min_pass_rate=0.6)
    root = parsed(outcome(SHAKY, "passed"), gate=gate)
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    assert "2 failed" in (the(root, "testsuite/testcase/system-out").text or "")
    told = the(root, "testsuite/properties/property[@name='gate']").get("value")
    assert told == "every unit test reached 60%; the lowest pass rate was 60%"


@pytest.mark.parametrize("per", ["unit_test", "metric"])
def test_only_missed_rates_fail(per: Any) -> None:
    mixed = run(
        ("good", {METRIC: "++++-"}, [None] * 5), ("bad", {METRIC: "+----"}, [None] * 5), set_id="s1"
    )
    root = parsed(outcome(mixed), gate=Gate(min_pass_rate=0.8, per=per))
    failing = the(root, "testsuite/testcase[failure]")
    assert failing.get("name") == "bad / Empathy"


@pytest.mark.parametrize(
    ("of", "tag", "kind", "message"),
    [
        (outcome(hidden_run()), None, None, None),
        (
            outcome(hidden_run(failed_metrics=True)),
            "failure",
            "failed",
            "a metric failed, but the visible",
        ),
        (
            outcome(hidden_run(errored=True)),
            "error",
            "errored",
            "the run had an error, but the visible",
        ),
        (
            outcome(verdict="errored", error=OSError("disk full")),
            "error",
            "OSError",
            "disk full",
        ),
        (outcome(verdict="errored", error=OSError()), "error", "OSError", "no further detail"),
        (outcome(verdict="timed_out", run_id="r"), "error", "timed_out", "the batch ended"),
        (outcome(verdict="not_started"), "skipped", "not_started", "no run was started"),
        (
            outcome(verdict="not_started", error=RecordedError("ConflictError", "in the way")),
            "error",
            "ConflictError",
            "in the way",
        ),
        (outcome(hidden_run(), "cancelled"), "skipped", "cancelled", "the run was cancelled"),
        (
            outcome(hidden_run(), error=ConflictError(method="GET", path="/a", status=409)),
            "error",
            "ConflictError",
            "GET /a answered 409",
        ),
    ],
)
def test_set_without_unit_tests(
    of: RunOutcome, tag: str | None, kind: str | None, message: str | None
) -> None:
    case = the(parsed(of), "testsuite/testcase")
    assert case.get("name") == "run"
    assert [child.tag for child in case] == ([tag] if tag else [])
    if tag is not None:
        assert case[0].get("type") == kind
        assert (case[0].get("message") or "").startswith(message or "?")


def test_missing_artifacts_are_an_error() -> None:
    fine = run(("ut", {METRIC: "++"}, [None, None]))
    root = parsed(outcome(fine, error=OSError("disk full")))
    assert the(root, "testsuite/testcase[@name='run']/error").get("message") == "disk full"
    assert "verdict" not in (the(root, "testsuite/testcase/error").text or "")


def test_unfinished_run() -> None:
    going = run(
        is_completed=False,
        unit_test_run_specs=[
            spec("done", 2, ["m"]),
            spec("waits", 2, ["m"]),
            spec("bad", 2, ["m"]),
        ],
        unit_test_run_results=[
            result("done", {"m": "++"}, [None, None]),
            None,
            result("bad", {"m": "-"}, [None]),
        ],
    )
    root = parsed(outcome(going, "timed_out"))
    assert {c.get("name"): [e.tag for e in c] for c in root[0].findall("testcase")} == {
        "done / m": [],
        "waits / m": ["skipped"],
        "bad / m": ["failure"],
    }
    message = the(root, "testsuite/testcase/skipped").get("message")
    assert message == "0 of 2 repeats passed, 2 without a result"


def test_completed_without_results() -> None:
    empty = run(unit_test_run_specs=[spec("ut", 2, ["m"])], unit_test_run_results=[None])
    assert the(parsed(outcome(empty, "errored")), "testsuite/testcase/error") is not None
    cancelled = parsed(outcome(empty, "cancelled"))
    assert {e.tag for e in cancelled.findall("testsuite/testcase/*")} == {"skipped"}


def test_verdict_no_case_shows() -> None:
    nothing = run(("ut", {"m": ""}, []))
    root = parsed(outcome(nothing, "errored"), gate=Gate())
    error = the(root, "testsuite/testcase[@name='run']/error")
    assert error.get("message") == "unit test ut: no repeat counts"


def test_unit_test_without_metrics() -> None:
    case = the(parsed(outcome(run(("ut", {}, [None, None])))), "testsuite/testcase")
    assert (case.get("name"), len(case)) == ("ut / repeats", 0)


def test_metrics_of_one_name() -> None:
    of_one_name = tuple(
        MetricToEvaluate(metric_id, "Tone", BooleanMetricSuccessCriterion(True))
        for metric_id in ("a", "b")
    )
    twins = run(("ut", {"a": "+", "b": "+"}, [None]))
    test = msgspec.structs.replace(twins.unit_test_run_specs[0], metrics_to_evaluate=of_one_name)
    root = parsed(outcome(msgspec.structs.replace(twins, unit_test_run_specs=[test])))
    names = [case.get("name") for case in root.findall("testsuite/testcase")]
    assert names == ["ut / Tone", "ut / Tone [2]"]


def test_times_and_links_are_there() -> None:
    timed = outcome(
        SHAKY,
        started_at=BEGAN,
        finished_at=BEGAN + timedelta(seconds=61.5),
        artifacts=Path("out") / "a.zip",
        attached=True,
    )
    suite = the(parsed(timed), "testsuite")
    assert (suite.get("timestamp"), suite.get("time")) == ("2025-03-04T09:30:00+00:00", "61.500")
    properties = {p.get("name"): p.get("value") for p in suite.findall("properties/property")}
    assert properties == {
        "verdict": "failed",
        "set_id": "s1",
        "run_id": "r1",
        "attached": "true",
        "artifacts": str(Path("out") / "a.zip"),
    }


@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_any_text_is_carried_as_text(set_id: str, test_id: str, error: str) -> None:
    strange = run((test_id, {"m<&>": "+"}, [None, error]), set_id=set_id)
    root = parsed(outcome(strange), outcome(verdict="errored", error=OSError(error)))
    assert [child.tag for child in root] == ["testsuite", "testsuite"]
    assert len(the(root[0], "testcase")) == 1


def names(root: ET.Element) -> list[tuple[str | None, str | None]]:
    return [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]


def test_equal_names_are_numbered() -> None:
    """A unit test is in a set twice, in two versions, and the set is named twice."""
    twice = run(("ut", {METRIC: "+"}, [None]), ("ut", {METRIC: "-"}, [None]), set_id="s")
    lost = outcome(verdict="errored", error=OSError("x"), unit_test_set_id="s")
    found = names(parsed(outcome(twice), outcome(twice), lost, lost))
    assert found == [
        ("s", "ut / Empathy"),
        ("s", "ut / Empathy [2]"),
        ("s", "ut / Empathy [3]"),
        ("s", "ut / Empathy [4]"),
        ("s", "run"),
        ("s", "run [2]"),
    ]


def test_taken_numbers_are_left_out() -> None:
    def named(name: str) -> MetricToEvaluate:
        return MetricToEvaluate(METRIC, name, BooleanMetricSuccessCriterion(True))

    of = run(*[("ut", {METRIC: "+"}, [None])] * 4)
    specs = [
        msgspec.structs.replace(spec, metrics_to_evaluate=(named(name),))
        for spec, name in zip(of.unit_test_run_specs, ["x [2]", "x", "x", "x [2]"], strict=True)
    ]
    root = parsed(outcome(msgspec.structs.replace(of, unit_test_run_specs=specs)))
    assert [name for _, name in names(root)] == [
        "ut / x [2]",
        "ut / x",
        "ut / x [3]",
        "ut / x [2] [2]",
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["s", "s.a"]), st.sampled_from(["a", "a\x00", "a\x01", "a [2]"])),
        max_size=8,
    )
)
def test_cases_can_be_told_apart(sets: list[tuple[str, str]]) -> None:
    """Names that are another's with a number too, and those that XML cannot carry."""
    runs = [run((test, {"m1": "-", "m2": "-"}, [None]), set_id=set_id) for set_id, test in sets]
    found = names(parsed(*map(outcome, runs)))
    assert len(set(found)) == len(found) == 2 * len(sets)


def test_suites_and_cases_have_a_time() -> None:
    fields: dict[str, Any] = {"started_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=61.5)}
    root = parsed(outcome(SHAKY, **fields), outcome(SHAKY, **fields), outcome(verdict="cancelled"))
    assert root.get("time") == "123.000"
    assert [suite.get("time") for suite in root] == ["61.500", "61.500", "0.000"]
    assert {case.get("time") for case in root.iter("testcase")} == {"0"}


def test_duplicate_test_fails_once() -> None:
    twice = run(("ut", {METRIC: "+++"}, [None] * 3), ("ut", {METRIC: "---"}, [None] * 3))
    for per in ("unit_test", "metric"):
        root = parsed(outcome(twice), gate=Gate(min_pass_rate=0.5, per=per))
        assert [[e.tag for e in case] for case in root.iter("testcase")] == [[], ["failure"]], per


def test_rate_of_the_whole_run() -> None:
    mixed = run(("a", {METRIC: "+++"}, [None] * 3), ("b", {METRIC: "---"}, [None] * 3))
    for rate, failures in ((0.9, 1), (0.5, 0)):
        verdict = "failed" if failures else "passed"
        gate = Gate(min_pass_rate=rate, per="run")
        root = parsed(outcome(mixed, verdict), gate=gate)
        assert root.get("failures") == str(failures)
    # Passed by its rate, but another batch called it failed: nothing is shown as wrong.
    root = parsed(outcome(mixed, "failed"), gate=Gate(min_pass_rate=0.5, per="run"))
    assert [c.get("name") for c in root.iter("testcase") if len(c)] == ["run", "b / Empathy"]


def test_no_metrics_in_a_metric_gate() -> None:
    mixed = run(
        ("a", {}, [None]), ("b", {METRIC: "---", "m": "+++"}, [None] * 3), ("c", {"m": "-"}, [None])
    )
    root = parsed(outcome(mixed), gate=Gate(min_pass_rate=0.5, per="metric", errored="fail"))
    failing = [c.get("name") for c in root.iter("testcase") if c.find("failure") is not None]
    assert failing == ["b / Empathy", "c / m"]


def test_errors_are_not_repeated() -> None:
    errors = [f"error number {n}" for n in range(12)]
    root = parsed(outcome(run(("ut", {METRIC: "+", "m": "+"}, [*errors, None]))))
    for error in root.iter("error"):
        assert "error in repeat 10: error number 9\nand 2 other errors\nset id" in (
            error.text or ""
        )


@pytest.mark.parametrize("report", [junit, markdown, html])
def test_time_grows_linearly(report: Any) -> None:
    def steps(tests: int) -> int:
        many = run(*[(f"ut{n}", {f"m{n}": "-", "m": "+"}, [f"e{n}"]) for n in range(tests)])
        return calls(lambda: report(BatchResult([outcome(many)]), gate=Gate(per="metric")))

    steps(1)  # what is loaded with the first report
    assert steps(200) < 3 * steps(100)


def calls(function: Callable[[], object]) -> int:
    """How many calls, and steps of generators, `function` takes."""
    count = 0

    def profile(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count
