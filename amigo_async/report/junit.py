"""The JUnit XML report, for Jenkins, GitLab and other CI systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from os import fspath
from typing import Final
from xml.etree import ElementTree as ET

from amigo_async.batch.outcomes import BatchResult
from amigo_async.escaping import XmlText, document_text, encode_xml
from amigo_async.report.compared import ComparedSet, compared_batch
from amigo_async.report.model import Case, FailOn, SetReport, UnitTestReport, set_reports
from amigo_async.report.wording import plural, repeats_named
from amigo_async.verdicts.gate import Gate

# All cases of a unit test list its errors, so each lists only the first ones.
_MOST_ERRORS: Final = 10

# What a set comes to that has no error. A set that is undecided has neither failed nor passed: its
# cases are skipped with the reason, and only the verdict says that the set did not pass.
_TAGS: Final = {
    "failed": "failure",
    "undecided": "skipped",
    "cancelled": "skipped",
    "not_started": "skipped",
}

# Reasons of which a case lists the text, and of which all cases together do beyond one each: GitLab
# does not read a file of 30 MB or more. A reason takes some 700 bytes.
_MOST_REASONS: Final = 10
_MOST_REASONS_IN_ALL: Final = 20_000


def junit(
    result: BatchResult,
    *,
    gate: Gate | None = None,
    name: str = "amigo-async",
    link: str | None = None,
    fail_on: FailOn = "failure",
) -> str:
    """Render `result` as JUnit XML: a suite for each set, a case for each unit test and metric.

    Sets, unit tests and metrics are called by their names where these are known; their ids are in
    the properties and the texts. A set whose unit tests are not visible, or that has a problem as
    a whole, gets a case ``run`` for the run as a whole; one that was to be compared with a
    baseline, a case ``against the baseline``, which fails if the set regressed. Repeats that failed
    although the set passed (by a gate) are listed in the output of their case. What is undecided
    (by a gate with a confidence), unit tests that are known to fail and did, and what failed a
    metric where a regression alone fails, are skipped, with the reason: they have neither passed
    nor failed. Cases with the same class and name (of a set that was run twice, or of two sets of
    one name) are numbered from the second on, as GitLab ignores all but the first of one name. What
    the properties say is in the texts too, which is what GitLab shows. Where thousands of cases
    failed, each lists fewer reasons. The time of a suite is that of its run; the time of a case is
    0, as the service does not report the duration of unit tests.

    Args:
        result: The result of the batch.
        gate: The gate that gave the verdicts; None for the runs' own flags.
        name: Name of the report.
        link: URL of a set or unit test elsewhere, with ``{run_id}``, ``{set_id}`` or
            ``{unit_test_id}``; None for no links.
        fail_on: What a failure is: ``"failure"``, a metric that failed, or ``"regression"``, a set
            that regressed; errors are errors in both cases.

    Raises:
        ArgumentError: If `link` is not an http or https URL with such a placeholder.
    """
    root = ET.Element("testsuites", name=name)
    total: Counter[str] = Counter(tests=0, failures=0, errors=0)
    compared = compared_batch(result)
    found = {} if compared is None else {one.number: one for one in compared.sets}
    reports = set_reports(result, gate, link)
    failed = sum(bool(case.reasons) for each in reports for t in each.tests for case in t.cases)
    most = max(1, min(_MOST_REASONS, _MOST_REASONS_IN_ALL // max(1, failed)))

    def suites() -> Iterator[ET.Element]:
        seconds = 0.0
        numbers = _Numbers()
        for each in reports:
            suite, counts = _suite(each, found.get(each.number), most, fail_on)
            numbers.give(suite.iter("testcase"))
            total.update({key: counts[key] for key in total})
            seconds += float(suite.get("time", "0"))
            yield suite
        for key, count in total.items():
            root.set(key, str(count))
        root.set("time", f"{seconds:.3f}")

    return encode_xml(root, suites())


def _suite(
    each: SetReport, compared: ComparedSet | None, most_reasons: int, fail_on: FailOn
) -> tuple[ET.Element, Counter[str]]:
    outcome = each.outcome
    suite = ET.Element("testsuite", name=each.label, id=str(each.number - 1))
    suite.append(_properties(each))
    cases: list[ET.Element] = []
    cases += [_case(each, test, case, most_reasons) for test in each.tests for case in test.cases]
    if each.problem is not None or not cases:
        cases.insert(0, _run_case(each))
    if fail_on == "regression":
        for failure in [child for case in cases for child in case if child.tag == "failure"]:
            failure.tag = "skipped"
            failure.set("message", f"only a regression fails: {failure.get('message')}")
    if compared is not None or each.outcome.uncompared is not None:
        cases.insert(0, _compared_case(each, compared))
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


class _Numbers:
    """Numbers all but the first of the cases that have the same class and name."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._duplicates: Counter[tuple[str, str]] = Counter()

    def give(self, cases: Iterable[ET.Element]) -> None:
        """Give numbers to the cases of the next suite."""
        for case in cases:
            first = key = case.get("classname", ""), case.get("name", "")
            while key in self._taken:
                self._duplicates[first] += 1
                key = first[0], f"{first[1]} [{self._duplicates[first] + 1}]"
            self._taken.add(key)
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
        "set_id": outcome.unit_test_set_id,
        "run_id": outcome.run_id,
        "link": None if each.link is None else XmlText(each.link),
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
    element = _new_case(each.label, "run")
    if each.problem is None:
        return element
    tag = "error"
    if outcome.error is None:
        tag = _TAGS.get(outcome.verdict, "error")
    verdict = "" if outcome.verdict == "passed" else f"\nverdict: {outcome.verdict}"
    ids = "\n".join(_ids(each))
    _add_result(element, tag, each.problem_type, each.problem, f"{each.problem}{verdict}\n{ids}")
    return element


def _compared_case(each: SetReport, compared: ComparedSet | None) -> ET.Element:
    """Build the case of the comparison with the baseline: it fails if the set regressed."""
    element = _new_case(each.label, "against the baseline")
    if compared is None:
        reason = each.outcome.uncompared or ""
        _add_result(element, "skipped", "no_baseline", reason, "\n".join([reason, *_ids(each)]))
        return element
    text = "\n".join([*compared.words.lines, *_ids(each)])
    status = compared.status
    if status == "regressed":
        _add_result(element, "failure", "regression", compared.words.head, text)
    elif status in ("too_few", "not_comparable"):
        _add_result(element, "skipped", status, compared.words.head, text)
    else:
        ET.SubElement(element, "system-out").text = text
    return element


def _case(each: SetReport, test: UnitTestReport, case: Case, most_reasons: int) -> ET.Element:
    """Build the case of a unit test and metric."""
    element = _new_case(each.label, f"{test.label} / {case.label}")
    detail = _detail(each, test, case, most_reasons)
    if case.status == "failed":
        _add_result(element, "failure", "metric", case.words, detail)
    elif case.status == "errored":
        message = test.errors[0].text if test.errors else case.seen
        _add_result(element, "error", "repeat", message, detail)
    elif case.status in ("undecided", "known_failing"):
        _add_result(element, "skipped", case.status, case.seen, detail)
    elif case.status == "unfinished":
        _add_result(element, "skipped", each.outcome.verdict, case.seen, detail)
    elif case.counts.failed or case.counts.missing:
        # GitLab makes links of attachments there, and what they name is up to the service.
        ET.SubElement(element, "system-out").text = _without_attachments(detail)
    return element


def _without_attachments(text: str) -> str:
    """Keep GitLab from reading ``[[ATTACHMENT|path]]`` in a text."""
    changed = text.replace("[[ATTACHMENT|", "[[ATTACHMENT |")
    return XmlText(changed) if isinstance(text, XmlText) else changed


def _detail(each: SetReport, test: UnitTestReport, case: Case, most_reasons: int) -> str:
    path = f"{each.label} / {test.label} / {case.label}"
    lines = [f"{path}: {case.words}"]
    if case.expected is not None:
        lines.append(f"expected: {case.expected}")
    lines.append(f"seen: {case.seen}")
    for reason in case.reasons[:most_reasons]:
        lines.append(reason.words)
        if reason.references:
            lines.append(f"messages: {', '.join(reason.references)}")
    if len(case.reasons) > most_reasons:
        lines.append(f"and {plural(len(case.reasons) - most_reasons, 'other reason')}")
    if case.failed:
        lines.append(f"failed evaluations: {', '.join(case.evaluations)}")
    lines += [f"error in {repeats_named(e.repeats)}: {e.text}" for e in test.errors[:_MOST_ERRORS]]
    if len(test.errors) > _MOST_ERRORS:
        lines.append(f"and {plural(len(test.errors) - _MOST_ERRORS, 'other error')}")
    lines += _ids(each)
    lines.append(f"unit test id: {test.id}")
    if case.metric_id is not None:
        lines.append(f"metric id: {case.metric_id}")
    text = "\n".join(lines)
    # Not redacted: the query of a link is the user's own.
    return text if test.link is None else XmlText(f"{document_text(text)}\nlink: {test.link}")


def _ids(each: SetReport) -> list[str]:
    run_id = each.outcome.run_id
    return [f"set id: {each.id}", *([f"run id: {run_id}"] if run_id else [])]


def _add_result(element: ET.Element, tag: str, kind: str, message: str, detail: str) -> None:
    child = ET.SubElement(element, tag, type=kind, message=message)
    child.text = detail
