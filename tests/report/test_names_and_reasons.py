"""Names and reasons, in every report: what people read of a failure."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from markdown_it import MarkdownIt

from amigo_async import BatchResult, Explanations, Gate, Names
from amigo_async.errors import ArgumentError
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
    CategoricalMetricSuccessCriterion,
    ManualEvaluationSource,
    MetricToEvaluate,
    NumericalMetricSuccessCriterion,
    PostSessionEvaluationSource,
    SimulationEvaluationSource,
    SuccessCriterion,
    UnknownEvaluationSource,
    UnknownSuccessCriterion,
    UserInfo,
)
from amigo_async.report import from_json, html, junit, markdown, to_json
from tests.support.report_samples import (
    batch,
    evaluated,
    explained,
    large_batch,
    outcome,
    run,
)

SET, TEST, OTHER = (
    "6618791275130b73714e8001",
    "66cc00000000000000000001",
    "66cc00000000000000000002",
)
POLITE, TONE = "67aa0000000000000000000a", "67aa0000000000000000000b"
RUN = "77dd00000000000000000001"
NAMES = Names(
    {SET: "Refund policy"},
    {TEST: "Angry caller wants money back", OTHER: "Charged twice"},
    {POLITE: "Politeness", TONE: "Tone"},
)
RUDE = "The agent interrupted the caller twice."


class Text(HTMLParser):
    """The text of a page, its elements, and the targets of its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.links = "", set[str](), list[str]()
        self.tag = ""
        self.feed(page)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.tag = tag
        self.links += [value or "" for name, value in attrs if name == "href" and tag == "a"]

    def handle_data(self, data: str) -> None:
        if self.tag != "style":
            self.text += data


def page(result: BatchResult, **options: Any) -> Text:
    return Text(html(result, **options))


def summary(result: BatchResult, **options: Any) -> Text:
    return Text(MarkdownIt("commonmark").enable("table").render(markdown(result, **options)))


def cases(result: BatchResult, **options: Any) -> list[ET.Element]:
    return list(ET.fromstring(junit(result, **options)).iter("testcase"))


def criteria(of: Any, **by_metric: SuccessCriterion) -> Any:
    """The run with other criteria, which are called like their metrics."""
    specs = [
        msgspec.structs.replace(
            spec,
            metrics_to_evaluate=tuple(
                MetricToEvaluate(m.metric_id, "", by_metric[NAMES.metric(m.metric_id)])
                for m in spec.metrics_to_evaluate
            ),
        )
        for spec in of.unit_test_run_specs
    ]
    return msgspec.structs.replace(of, unit_test_run_specs=specs)


AT_LEAST_4 = NumericalMetricSuccessCriterion(">=", 4)


def rude(*evaluations: Any, signs: str = "++-", names: Names = NAMES) -> BatchResult:
    of = run((TEST, {POLITE: signs}, [None] * len(signs)), set_id=SET, run_id=RUN)
    one = outcome(criteria(of, Politeness=AT_LEAST_4))
    return BatchResult((one,), names=names, explanations=explained(*evaluations))


def test_failure_reads_as_a_sentence() -> None:
    result = rude(evaluated("e-0a-2", 2, RUDE, repeat=2, references=["m1", "m2"]))
    (case,) = cases(result)
    assert case.get("classname") == "Refund policy"
    assert case.get("name") == "Angry caller wants money back / Politeness"
    saying = f'expected at least 4, saw 2 in repeat 3: "{RUDE}"'
    assert case[0].get("message") == saying
    text = case[0].text or ""
    path = "Refund policy / Angry caller wants money back / Politeness"
    assert text.startswith(f"{path}: {saying}\n")
    for line in ("messages: m1, m2", f"unit test id: {TEST}", f"set id: {SET}", f"run id: {RUN}"):
        assert line in text.splitlines()
    shown = page(result).text
    assert f"Politeness expected at least 4 Angry caller wants money back {TEST}" in shown
    assert f"saw 2 in repeat 3: {RUDE}" in shown
    shown = summary(result).text
    assert "Politeness: expected at least 4 (1 unit test) Angry caller wants money back" in shown
    assert f'{TEST}: saw 2 in repeat 3: "{RUDE}" (2 of 3 repeats passed, 1 failed)' in shown


def test_names_come_before_ids() -> None:
    result = rude()
    for shown in (page(result).text, summary(result).text):
        assert shown.index("Refund policy") < shown.index(SET)
        assert shown.index("Angry caller") < shown.index(TEST)
    without = rude(names=Names())
    for shown in (page(without).text, summary(without).text):
        assert shown.index(SET) < shown.index(TEST)
    assert [(c.get("classname"), c.get("name")) for c in cases(without)] == [
        (SET, f"{TEST} / {POLITE}")
    ]


def test_outcome_names_its_set() -> None:
    (one,) = rude(names=Names()).outcomes
    named = BatchResult((msgspec.structs.replace(one, name="Refunds"),))
    assert cases(named)[0].get("classname") == "Refunds"
    assert "Refunds" in page(named).text


def test_repeats_of_one_reason_are_together() -> None:
    result = rude(
        evaluated("e-0a-0", 2, RUDE, repeat=4),
        evaluated("e-0a-1", 2, RUDE, repeat=0),
        evaluated("e-0a-2", 3, "Curt.", repeat=1),
        signs="----+",
    )
    # Repeats are those that the service says; the last, of which nothing was read, is the fourth.
    words = [
        f'saw 2 in repeats 1, 5: "{RUDE}"',
        'saw 3 in repeat 2: "Curt."',
        "failed in repeat 4",
    ]
    (case,) = cases(result)
    lines = (case[0].text or "").splitlines()
    assert [line for line in lines if line in words] == words
    assert case[0].get("message") == (
        f"expected at least 4, {words[0]}; 1 of 5 repeats passed, 4 failed"
    )
    shown = page(result).text
    assert f"saw 2 in repeats 1, 5: {RUDE} saw 3 in repeat 2: Curt. and 1 other reason" in shown
    assert "; ".join(words) in summary(result).text


def test_unknown_reason_falls_back_to_counts() -> None:
    (case,) = cases(rude())
    assert case[0].get("message") == "expected at least 4; 2 of 3 repeats passed, 1 failed"
    assert "failed in repeat 3" in page(rude()).text


@pytest.mark.parametrize(
    ("criterion", "seen", "words"),
    [
        (BooleanMetricSuccessCriterion(True), False, "expected yes, saw no"),
        (BooleanMetricSuccessCriterion(False), True, "expected no, saw yes"),
        (NumericalMetricSuccessCriterion("==", 1), 2, "expected equal to 1, saw 2"),
        (NumericalMetricSuccessCriterion("!=", 1), 1.0, "expected not equal to 1, saw 1"),
        (NumericalMetricSuccessCriterion("<=", 4), 9, "expected at most 4, saw 9"),
        (NumericalMetricSuccessCriterion("<", 2), 3, "expected less than 2, saw 3"),
        (NumericalMetricSuccessCriterion(">=", 0.9), 0.8999999, "at least 0.9, saw 0.8999999"),
        (NumericalMetricSuccessCriterion(">", 1234567), 1e300, "more than 1234567, saw 1e+300"),
        (NumericalMetricSuccessCriterion("~", 1), float("nan"), "expected ~ 1, saw nan"),
        (CategoricalMetricSuccessCriterion(["warm"]), "cold", "expected warm, saw cold"),
        (CategoricalMetricSuccessCriterion(["a", "b"]), "", "expected one of a, b, saw nothing"),
        (UnknownSuccessCriterion({"n": 1}), None, '{"n":1}, saw not applicable'),
    ],
)
def test_expected_and_seen_in_words(criterion: SuccessCriterion, seen: Any, words: str) -> None:
    of = criteria(run((TEST, {POLITE: "-"}, [None])), Politeness=criterion)
    result = BatchResult(
        [outcome(of)], names=NAMES, explanations=explained(evaluated("e-0a-0", seen))
    )
    (case,) = cases(result)
    assert (case[0].get("message") or "").endswith(f"{words} in repeat 1")


def test_evaluation_of_another_source_keeps_its_repeat() -> None:
    read = msgspec.structs.replace(
        evaluated("e-0a-2", 2), source=PostSessionEvaluationSource("conversation", ["m"])
    )
    (case,) = cases(rude(read))
    assert case[0].get("message") == "expected at least 4, saw 2 in repeat 3"


def test_failures_alike_are_grouped() -> None:
    tests: list[Any] = [(f"66cc{n:020x}", {POLITE: "-", TONE: "+"}, [None]) for n in range(30)]
    tests += [(f"66dd{n:020x}", {TONE: ""}, ["no answer"]) for n in range(8)]
    of = criteria(run(*tests), Politeness=AT_LEAST_4, Tone=BooleanMetricSuccessCriterion(True))
    result = BatchResult([outcome(of)], names=NAMES)
    shown = page(result).text
    assert "in 8 unit tests" in shown
    assert "failed in 30 unit tests" in shown
    assert "and 25 other unit tests" in shown
    assert "30 of 38 unit tests failed, 8 errored; 0 of 38 repeats passed" in shown
    assert shown.index("no answer") < shown.index("Politeness")  # errors come first
    assert "Tone" not in shown.partition("Sets and unit tests")[0]  # it did not fail
    text = markdown(result)
    assert text.count("no answer") == 1
    assert "and 20 other unit tests" in text
    assert text.index("no answer") < text.index("Politeness")


def test_repeats_are_counted_in_what_was_asked_for() -> None:
    errors: list[str | None] = [None] * 9 + ["no answer"] * 3
    result = BatchResult([outcome(run((TEST, {POLITE: "+" * 9}, errors)))])
    for shown in (page(result).text, summary(result).text):
        assert "1 of 1 unit test errored; 9 of 12 repeats passed, 3 errored." in shown


def test_no_element_for_what_passed() -> None:
    def tags(repeats: int) -> int:
        tests = [(f"ut{n}", {POLITE: "+" * repeats}, [None] * repeats) for n in range(20)]
        return html(BatchResult([outcome(run(*tests))])).count("<")

    assert tags(2) == tags(50)


@pytest.mark.parametrize(
    ("sets", "tests", "repeats", "most"), [(1, 500, 10, 1_500_000), (60, 20, 3, 1_000_000)]
)
def test_page_of_failures_alone_is_small(sets: int, tests: int, repeats: int, most: int) -> None:
    result = large_batch(sets, tests, repeats, ["m1", "m2", "m3"])
    text = html(result)
    assert len(text.encode()) < most
    assert text.count("saw <b>") <= 2 * 240
    shown = Text(text).text
    assert f"{sets * tests:,} of {sets * tests:,} unit tests failed" in shown
    assert all(name in shown for name in result.names.unit_tests.values())


def test_sets_beyond_the_first_are_counted() -> None:
    many = [outcome(verdict="errored", error=OSError(f"e{n}")) for n in range(130)]
    shown = page(BatchResult(many)).text
    assert "30 other sets did not pass" in shown
    assert "e99" in shown
    assert "e100" not in shown


def test_title_names_the_organization() -> None:
    assert page(batch(1)).text.startswith("Passed: Unit test sets of org ")
    assert page(batch(1), title="Nightly").text.startswith("Passed: Nightly ")
    first, second = batch(2).outcomes
    assert first.run is not None
    other = msgspec.structs.replace(first, run=msgspec.structs.replace(first.run, org_id="other"))
    assert page(BatchResult([second, other])).text.startswith("Passed: Unit test sets Unit")
    assert markdown(batch(1)).startswith("# \N{WHITE HEAVY CHECK MARK} Unit test sets of org: ")


def test_what_could_not_be_read_is_said_once() -> None:
    result = rude(names=Names(notes=("the names of sets could not be read: 403",)))
    result = msgspec.structs.replace(
        result, explanations=explained(notes=("1 of 2 reasons <late>",))
    )
    for shown in (page(result).text, summary(result).text):
        assert shown.count("the names of sets could not be read: 403") == 1
        assert shown.count("1 of 2 reasons <late>") == 1


def test_gate_names_unit_tests() -> None:
    of = run((TEST, {POLITE: "+-"}, [None, None]), set_id=SET)
    result = BatchResult([outcome(of)], names=NAMES)
    shown = page(result, gate=Gate(min_pass_rate=0.9)).text
    assert "Gate: unit test Angry caller wants money back: 1 of 2 repeats passed" in shown


def test_equal_names_have_an_index() -> None:
    one = outcome(run((TEST, {POLITE: "-"}, [None]), (OTHER, {POLITE: "-"}, [None]), set_id=SET))
    twin = msgspec.structs.replace(one, unit_test_set_id=RUN)
    same = Names({SET: "Same", RUN: "Same"}, {TEST: "Test", OTHER: "Test"}, {POLITE: "M"})
    same_metric = [
        msgspec.structs.replace(
            spec, metrics_to_evaluate=[MetricToEvaluate(POLITE, "", AT_LEAST_4)]
        )
        for spec in (one.run.unit_test_run_specs if one.run else [])
    ]
    assert one.run is not None
    of = msgspec.structs.replace(one.run, unit_test_run_specs=same_metric)
    outcomes = [msgspec.structs.replace(o, run=of) for o in (one, twin)]
    found = [(c.get("classname"), c.get("name")) for c in cases(BatchResult(outcomes, names=same))]
    assert found == [("Same", f"Test / M{index}") for index in ("", " [2]", " [3]", " [4]")]


LINK = "https://console.example/{set_id}/runs/{run_id}?tab=a&x=(1)"


def test_names_become_links() -> None:
    url = f"https://console.example/{SET}/runs/{RUN}?tab=a&x=%281%29"
    assert page(rude(), link=LINK).links.count(url) == 2
    assert set(summary(rude(), link=LINK).links) == {url}
    root = ET.fromstring(junit(rude(), link=LINK))
    assert [p.get("value") for p in root.iter("property") if p.get("name") == "link"] == [url]

    of_test = f"http://c.example/{TEST}?run={RUN}"
    template = "http://c.example/{unit_test_id}?run={run_id}"
    for shown in (page(rude(), link=template), summary(rude(), link=template)):
        assert {link for link in shown.links if not link.startswith("#")} == {of_test}
    (case,) = cases(rude(), link=template)
    assert f"link: {of_test}" in (case[0].text or "").splitlines()


def test_values_of_links_are_quoted() -> None:
    evil = 'a/../b?c#d"><script>|`)\ud800 é'
    of = run((evil, {POLITE: "-"}, [None]), set_id=evil, run_id=evil)
    result = BatchResult([outcome(of)])
    quoted = "a%2F..%2Fb%3Fc%23d%22%3E%3Cscript%3E%7C%60%29%3F%20%C3%A9"
    for template in ("https://h/{run_id}", "https://h/{unit_test_id}"):
        for shown in (page(result, link=template), summary(result, link=template)):
            assert {i for i in shown.links if not i.startswith("#")} == {f"https://h/{quoted}"}
            assert "script" not in shown.tags
        assert f"https://h/{quoted}" in "".join(
            ET.fromstring(junit(result, link=template)).itertext()
        ) + junit(result, link=template)


def test_no_link_without_a_run() -> None:
    result = BatchResult([outcome(verdict="not_started", unit_test_set_id=SET)])
    assert page(result, link="https://h/{run_id}").links == ["#set-1"]
    assert "https://h/" not in junit(result, link="https://h/{run_id}")
    assert f"https://h/{SET}" in page(result, link="https://h/{set_id}").links


@pytest.mark.parametrize("report", [html, markdown, junit])
@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert({run_id})",
        "//h/{run_id}",
        "ftp://h/{run_id}",
        "https://{run_id}/x",
        "https:///{run_id}",
        "https://user:password@h/{run_id}",
        "https://h/runs",
        "https://h/{run}",
        "https://h/{run_id}/{0}",
        "https://h/{run_id.__class__}",
        "https://h:x/{run_id}",
        "https://h/{run_id}\n",
        "",
        7,
    ],
)
def test_link_must_be_a_url(report: Callable[..., str], link: Any) -> None:
    with pytest.raises(ArgumentError, match="link must"):
        report(BatchResult(()), link=link)


KEY = "Bearer abcdefghijklmnopqrstuvwxyz0123"
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> ![i](http://e.test/x) @team |\n"
    f"::error::owned\n##vso[task.complete]\n\x1b[31mred\x1b[0m \u202e {KEY} \ud83d"
)


def hostile() -> BatchResult:
    names = Names({SET: HOSTILE}, {TEST: HOSTILE}, {POLITE: HOSTILE}, (HOSTILE,))
    result = rude(evaluated("e-0a-2", HOSTILE, HOSTILE, references=[HOSTILE]), names=names)
    return msgspec.structs.replace(result, outcomes=tuple(result.outcomes))


REPORTS: dict[str, Callable[[BatchResult], str]] = {
    "html": html,
    "markdown": markdown,
    "junit": junit,
    "json": to_json,
}


@pytest.mark.parametrize("name", REPORTS)
def test_hostile_text_is_harmless(name: str) -> None:
    text = REPORTS[name](hostile())
    text.encode()
    assert "abcdefghijkl" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert not re.search(r"(?m)^\s*::|##\[|##vso", text)
    if name in ("html", "markdown"):
        shown = page(hostile()) if name == "html" else summary(hostile())
        assert not {"script", "img"} & shown.tags
        assert "\u202e" not in shown.text  # nor as a reference: a verdict would be read backwards
        assert "<script>alert(1)</script>" in shown.text
        assert not [link for link in shown.links if not link.startswith("#")]
    if name == "markdown":
        assert "@team" not in text
    if name == "junit":
        message = cases(hostile())[0][0].get("message") or ""
        assert "<script>alert(1)</script>" in message


def test_justification_is_bounded() -> None:
    result = rude(evaluated("e-0a-2", 2, f"{'word ' * 116} {KEY} {'x' * 100_000}"))
    reports: list[Callable[[BatchResult], str]] = [html, markdown, junit]
    for report in reports:
        text = report(result)
        assert len(text) < 20_000
        assert "abcdefgh" not in text
        assert "word word" in text
    long_name = Names({SET: "s" * 9000}, {TEST: "t" * 9000}, {POLITE: "m" * 9000})
    for report in reports:
        assert "s" * 201 not in report(rude(names=long_name))
        assert "t" * 201 not in report(rude(names=long_name))


def test_what_hides_much_hides_all_of_it() -> None:
    """Redaction makes a text much shorter, so that what is shown came from far behind."""
    secrets = " ".join([f"Bearer {'a' * 300}"] * 40)
    result = rude(evaluated("e-0a-2", 2, secrets))
    for report in (html(result), markdown(result), junit(result)):
        assert "aaa" not in report


def test_lines_of_an_error_stay_lines() -> None:
    text = html(BatchResult([outcome(verdict="errored", error=OSError("one\n  two"))]))
    assert "<pre>one\n  two</pre>" in text


def test_names_and_reasons_make_the_round_trip() -> None:
    sources = [
        SimulationEvaluationSource(RUN, TEST, 2, ["m"]),
        PostSessionEvaluationSource("c", []),
        ManualEvaluationSource("c", None, UserInfo("org", "user"), ["m"]),
        UnknownEvaluationSource({"type": "new", "deep": [1]}),
    ]
    values = [True, 3, 0.5, "cold", None]
    read = {
        f"e{n}": msgspec.structs.replace(
            evaluated(f"e{n}", values[n % 5], RUDE), source=sources[n % 4], metric_version=n
        )
        for n in range(20)
    }
    (one,) = rude().outcomes
    result = BatchResult(
        (msgspec.structs.replace(one, name="Refund policy"),),
        names=msgspec.structs.replace(NAMES, notes=("a note",)),
        explanations=Explanations(read, ("another",)),
    )
    assert from_json(to_json(result)) == result


def test_file_without_names_is_read() -> None:
    document = msgspec.json.decode(to_json(rude(evaluated("e-0a-2", 2, RUDE))))
    del document["names"], document["explanations"], document["outcomes"][0]["name"]
    old = from_json(msgspec.json.encode(document))
    assert (old.names, old.explanations) == (Names(), Explanations())
    assert old.outcomes == rude().outcomes


@pytest.mark.parametrize(("count", "more"), [(3, ""), (14, "; and 2 more")])
def test_page_names_the_criteria_of_what_passed(count: int, more: str) -> None:
    metrics = [f"67aa{number:020x}" for number in range(count)]
    one = outcome(run((TEST, dict.fromkeys(metrics, "++"), [None, None])))
    judged = re.search(r"Judged by: (.*?)\.</p>", html(BatchResult([one])))
    assert judged is not None
    assert judged[1].endswith(more)
    assert judged[1].count("; ") == min(count, 12) - 1 + bool(more)
