"""A batch as JUnit XML, as Jenkins, GitLab and their like read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from os import fspath
from typing import Final
from xml.etree import ElementTree as ET

from amigo_async.batch.outcomes import BatchResult
from amigo_async.escaping import document_text, encode_xml
from amigo_async.report.model import Case, SetView, UnitTest, view
from amigo_async.report.words import plural
from amigo_async.verdicts.gate import Gate

# The cases of a unit test share its errors, so that all of them in each would be too much.
_MOST_ERRORS: Final = 10


def junit(result: BatchResult, *, gate: Gate | None = None, name: str = "amigo-async") -> str:
    """`result` as JUnit XML: a suite for each set, a case for each unit test and metric.

    A set of which no unit test is shown has one case, ``run``, for the run as a whole; so has
    one with which something else went wrong. Repeats that failed in a set that passed (by a
    gate) are told in the output of the case. Cases of the same class and name, as of a set that
    was named twice, are numbered from the second on. The time of a suite is that of its run; the
    service does not tell how long a unit test took, so the time of each case is 0.

    Args:
        result: The batch.
        gate: What its verdicts were given by; None for the runs' own flags.
        name: What to call the whole.
    """
    root = ET.Element("testsuites", name=name)
    total: Counter[str] = Counter(tests=0, failures=0, errors=0)
    seconds = 0.0
    for each in view(result, gate):
        suite, counts = _suite(each)
        root.append(suite)
        total.update({key: counts[key] for key in total})
        seconds += float(suite.get("time", "0"))
    for key, count in total.items():
        root.set(key, str(count))
    root.set("time", f"{seconds:.3f}")
    _number_namesakes(root.iter("testcase"))
    return encode_xml(root)


def _suite(each: SetView) -> tuple[ET.Element, Counter[str]]:
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


def _number_namesakes(cases: Iterable[ET.Element]) -> None:
    """Number all but the first of the cases that a consumer could not tell apart."""
    taken: set[tuple[str, str]] = set()
    namesakes: Counter[tuple[str, str]] = Counter()
    for case in cases:
        first = key = case.get("classname", ""), case.get("name", "")
        while key in taken:
            namesakes[first] += 1
            key = first[0], f"{first[1]} [{namesakes[first] + 1}]"
        taken.add(key)
        case.set("name", key[1])


def _new_case(class_name: str, name: str) -> ET.Element:
    # As they will be written, so that they are told apart as they are read.
    return ET.Element(
        "testcase", classname=document_text(class_name), name=document_text(name), time="0"
    )


def _properties(each: SetView) -> ET.Element:
    outcome = each.outcome
    properties = ET.Element("properties")
    told = {
        "verdict": outcome.verdict,
        "run_id": outcome.run_id,
        "attached": "true" if outcome.attached else None,
        "artifacts": None if outcome.artifacts is None else fspath(outcome.artifacts),
        "gate": "; ".join(each.reasons) or None,
    }
    for name, value in told.items():
        if value is not None:
            ET.SubElement(properties, "property", name=name, value=value)
    return properties


def _run_case(each: SetView) -> ET.Element:
    """The case of the run as a whole."""
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
    _tell(element, tag, each.problem_type, each.problem, f"{each.problem}{verdict}{run}")
    return element


def _case(each: SetView, test: UnitTest, case: Case, *, alone: bool) -> ET.Element:
    """The case of a unit test in one metric; `alone` says that no other has its name."""
    element = _new_case(
        f"{each.outcome.unit_test_set_id}.{test.id}",
        case.label if alone else f"{case.label} ({case.metric_id})",
    )
    expected = f"expected {case.expected}; " if case.expected else ""
    detail = _detail(test, case)
    if case.status == "failed":
        _tell(element, "failure", "metric", f"{expected}{case.seen}", detail)
    elif case.status == "errored":
        message = test.errors[0].text if test.errors else case.seen
        _tell(element, "error", "repeat", message, detail)
    elif case.status == "unfinished":
        _tell(element, "skipped", each.outcome.verdict, case.seen, detail)
    elif case.counts.failed or case.counts.missing:
        ET.SubElement(element, "system-out").text = detail
    return element


def _detail(test: UnitTest, case: Case) -> str:
    lines = [f"unit test: {test.id} ({plural(test.repeats, 'repeat')})"]
    if case.metric_id is not None:
        lines.append(f"metric: {case.label} ({case.metric_id})")
    if case.expected is not None:
        lines.append(f"expected: {case.expected}")
    lines.append(f"seen: {case.seen}")
    if case.failed:
        lines.append(f"failed in repeat: {case.failed}")
        lines.append(f"failed evaluations: {', '.join(case.evaluations)}")
    lines += [f"error in repeat {met.repeats}: {met.text}" for met in test.errors[:_MOST_ERRORS]]
    if len(test.errors) > _MOST_ERRORS:
        lines.append(f"and {plural(len(test.errors) - _MOST_ERRORS, 'other error')}")
    return "\n".join(lines)


def _tell(element: ET.Element, tag: str, kind: str, message: str, detail: str) -> None:
    child = ET.SubElement(element, tag, type=kind, message=message)
    child.text = detail
