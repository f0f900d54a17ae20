"""The JUnit XML report, for Jenkins, GitLab and other CI systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from os import fspath
from typing import Final
from xml.etree import ElementTree as ET

from amigo_async.batch.outcomes import BatchResult
from amigo_async.escaping import document_text, encode_xml
from amigo_async.report.model import Case, SetReport, UnitTestReport, set_reports
from amigo_async.report.wording import plural
from amigo_async.verdicts.gate import Gate

# All cases of a unit test list its errors, so each lists only the first ones.
_MOST_ERRORS: Final = 10


def junit(result: BatchResult, *, gate: Gate | None = None, name: str = "amigo-async") -> str:
    """Render `result` as JUnit XML: a suite for each set, a case for each unit test and metric.

    A set whose unit tests are not visible, or that has a problem as a whole, gets a case ``run``
    for the run as a whole. Repeats that failed although the set passed (by a gate) are listed in
    the output of their case. Cases with the same class and name (of a set that was run twice,
    say) are numbered from the second on. The time of a suite is that of its run; the time of a
    case is 0, as the service does not report the duration of unit tests.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        name: Name of the report.
    """
    root = ET.Element("testsuites", name=name)
    total: Counter[str] = Counter(tests=0, failures=0, errors=0)
    seconds = 0.0
    for each in set_reports(result, gate):
        suite, counts = _suite(each)
        root.append(suite)
        total.update({key: counts[key] for key in total})
        seconds += float(suite.get("time", "0"))
    for key, count in total.items():
        root.set(key, str(count))
    root.set("time", f"{seconds:.3f}")
    _number_duplicates(root.iter("testcase"))
    return encode_xml(root)


def _suite(each: SetReport) -> tuple[ET.Element, Counter[str]]:
    outcome = each.outcome
    suite = ET.Element("testsuite", name=outcome.unit_test_set_id, id=str(each.number - 1))
    suite.append(_properties(each))
    cases: list[ET.Element] = []
    for test in each.tests:
        names = Counter(case.name for case in test.cases)
        cases += [_case(each, test, case, alone=names[case.name] == 1) for case in test.cases]
    if each.problem is not None or not cases:
        cases.insert(0, _run_case(each))
    suite.extend(cases)
    verdicts = Counter(child.tag for case in cases for child in case)
    counts = Counter(
        tests=len(cases),
        failures=verdicts["failure"],
        errors=verdicts["error"],
        skipped=verdicts["skipped"],
    )
    for key, count in counts.items():
        suite.set(key, str(count))
    seconds = 0.0
    if outcome.started_at is not None:
        suite.set("timestamp", outcome.started_at.isoformat(timespec="seconds"))
        if outcome.finished_at is not None:
            seconds = (outcome.finished_at - outcome.started_at).total_seconds()
    suite.set("time", f"{max(seconds, 0):.3f}")
    return suite, counts


def _number_duplicates(cases: Iterable[ET.Element]) -> None:
    """Number all but the first of the cases that have the same class and name."""
    taken: set[tuple[str, str]] = set()
    duplicates: Counter[tuple[str, str]] = Counter()
    for case in cases:
        first = key = case.get("classname", ""), case.get("name", "")
        while key in taken:
            duplicates[first] += 1
            key = first[0], f"{first[1]} [{duplicates[first] + 1}]"
        taken.add(key)
        case.set("name", key[1])


def _new_case(class_name: str, name: str) -> ET.Element:
    # As they will be written, so that they are compared as a consumer will read them.
    return ET.Element(
        "testcase", classname=document_text(class_name), name=document_text(name), time="0"
    )


def _properties(each: SetReport) -> ET.Element:
    outcome = each.outcome
    properties = ET.Element("properties")
    values = {
        "verdict": outcome.verdict,
        "run_id": outcome.run_id,
        "attached": "true" if outcome.attached else None,
        "artifacts": None if outcome.artifacts is None else fspath(outcome.artifacts),
        "gate": "; ".join(each.reasons) or None,
    }
    for name, value in values.items():
        if value is not None:
            ET.SubElement(properties, "property", name=name, value=value)
    return properties


def _run_case(each: SetReport) -> ET.Element:
    """Build the case of the run as a whole."""
    outcome = each.outcome
    element = _new_case(outcome.unit_test_set_id, "run")
    if each.problem is None:
        return element
    tag = "error"
    if outcome.error is None:
        tag = {"failed": "failure", "cancelled": "skipped", "not_started": "skipped"}.get(
            outcome.verdict, "error"
        )
    verdict = "" if outcome.verdict == "passed" else f"\nverdict: {outcome.verdict}"
    run = f"\nrun: {outcome.run_id}" if outcome.run_id else ""
    _add_result(element, tag, each.problem_type, each.problem, f"{each.problem}{verdict}{run}")
    return element


def _case(each: SetReport, test: UnitTestReport, case: Case, *, alone: bool) -> ET.Element:
    """Build the case of a unit test and metric; `alone` if no other metric has its name."""
    element = _new_case(
        f"{each.outcome.unit_test_set_id}.{test.id}",
        case.label if alone else f"{case.label} ({case.metric_id})",
    )
    expected = f"expected {case.expected}; " if case.expected else ""
    detail = _detail(test, case)
    if case.status == "failed":
        _add_result(element, "failure", "metric", f"{expected}{case.seen}", detail)
    elif case.status == "errored":
        message = test.errors[0].text if test.errors else case.seen
        _add_result(element, "error", "repeat", message, detail)
    elif case.status == "unfinished":
        _add_result(element, "skipped", each.outcome.verdict, case.seen, detail)
    elif case.counts.failed or case.counts.missing:
        ET.SubElement(element, "system-out").text = detail
    return element


def _detail(test: UnitTestReport, case: Case) -> str:
    lines = [f"unit test: {test.id} ({plural(test.repeats, 'repeat')})"]
    if case.metric_id is not None:
        lines.append(f"metric: {case.label} ({case.metric_id})")
    if case.expected is not None:
        lines.append(f"expected: {case.expected}")
    lines.append(f"seen: {case.seen}")
    if case.failed:
        lines.append(f"failed in repeat: {case.failed}")
        lines.append(f"failed evaluations: {', '.join(case.evaluations)}")
    lines += [f"error in repeat {e.repeats}: {e.text}" for e in test.errors[:_MOST_ERRORS]]
    if len(test.errors) > _MOST_ERRORS:
        lines.append(f"and {plural(len(test.errors) - _MOST_ERRORS, 'other error')}")
    return "\n".join(lines)


def _add_result(element: ET.Element, tag: str, kind: str, message: str, detail: str) -> None:
    child = ET.SubElement(element, tag, type=kind, message=message)
    child.text = detail
