"""What all reports say of a comparison with baselines: regressions first."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from amigo_async import BatchResult, Names, compare
from amigo_async.report import from_json, html, junit, markdown, to_json
from tests.support.report_samples import NO_BASELINE, compared_batch, outcome, rated_run, run

SENTENCE = (
    "Regressed in 1 set; worse, within chance in 1 set; improved in 1 set; no regression seen in "
    "1 set; too few repeats to tell in 1 set; not compared in 1 set."
)
ORDER = ("Refund policy", "Vouchers", "Angry callers", "Billing", "Returns")


def section(page: str, begin: str, end: str) -> str:
    return page[page.index(begin) : page.index(end)]


def test_markdown_has_regressions_first() -> None:
    text = markdown(compared_batch())
    part = section(text, "## ❌ Against the baseline", "## What went wrong")
    assert text.index("# ❌") < text.index(part)
    plain = part.replace("\\", "")
    assert SENTENCE in plain
    heads = [line for line in plain.splitlines() if line.startswith("- ")]
    assert [head.split(" ", 2)[2].partition(":")[0] for head in heads[:5]] == list(ORDER)
    assert heads[5] == f"- Not compared: 6618791275130b73714e8fff: {NO_BASELINE}."
    assert (
        "- ❌ Refund policy: regressed. 23 of 30 repeats passed, before 30 of 30 (p = 0.0054).\n"
        "  - Angry caller wants money back `66cc00000000000000000000`: 10/10 → **4/10** "
        "(Polite throughout)\n"
        "  - agent 4 -\\> 5, model (agent) x-large -\\> x-small\n"
    ).replace("\\", "") in plain
    assert "- ⚠️ Vouchers: worse, within chance. 6 of 10 repeats passed" in plain
    assert "Among 4 sets this may be chance (corrected p = 0.13)." in plain
    rendered = MarkdownIt("commonmark").render(part)
    assert rendered.count("<li>") > 10


def test_large_batch_shows_what_changed() -> None:
    for text in (markdown(compared_batch(more=60)), html(compared_batch(more=60))):
        assert "60 other sets" not in text  # Billing is one more
        assert "61 other sets without a change beyond chance" in text
        assert "too few repeats to tell: Returns" in text.replace("\\", "")
        assert "before 4 of 9" not in text


@pytest.mark.parametrize(("more", "points", "sets"), [(0, 36, 4), (56, 49, 60)])
def test_what_could_have_been_seen_among_many_sets(more: int, points: int, sets: int) -> None:
    """A set alone shows a drop of 28 points, but among others that would count as chance."""
    batch = compared_batch(more=more)
    [billing] = sets_of(batch, "Billing").outcomes
    assert billing.comparison is not None
    assert billing.comparison.smallest_drop == pytest.approx(0.28, abs=0.01)
    said = f"A drop of {points} points in every unit test would have been seen four times in five"
    assert f"{said}, with the correction for {sets} sets." in junit(batch)
    assert "four times in five." in junit(replace(batch, outcomes=[billing]))


def test_markdown_stays_within_its_bytes() -> None:
    result = compared_batch(more=60)
    for most in (2_000, 5_000, 20_000):
        text = markdown(result, max_bytes=most)
        assert len(text.encode()) <= most
        assert "Worse, within chance in 2 sets" in text.replace("\\", "")


def test_page_has_regressions_first() -> None:
    page = html(compared_batch())
    part = section(page, '<section id="baseline"', '<section id="failures"')
    assert 'data-verdict="regressed"' in part
    assert SENTENCE in part
    places = [part.index(f">{name}</a>") for name in ORDER]
    assert places == sorted(places)
    assert "agent 4 -&gt; 5, model (agent) x-large -&gt; x-small" in part
    assert NO_BASELINE in part
    assert ">4/10<" in part


def without_name(result: BatchResult, *names: str) -> BatchResult:
    return replace(result, outcomes=[o for o in result.outcomes if o.name not in names])


def sets_of(result: BatchResult, name: str | None) -> BatchResult:
    return replace(result, outcomes=[o for o in result.outcomes if o.name == name])


BATCH = compared_batch()
BROKEN = outcome(run(set_id="a" * 24, errored=True))


@pytest.mark.parametrize(
    ("result", "verdict", "heading", "otherwise"),
    [
        (BATCH, "failed", "Regressed", "Failed"),
        (without_name(BATCH, "Refund policy"), "passed", "Improved", "Failed"),
        (sets_of(BATCH, "Billing"), "passed", "No regression seen", "Passed"),
        (sets_of(BATCH, "Vouchers"), "failed", "Regressed", "Failed"),
        (sets_of(BATCH, "Returns"), "empty", "Too few repeats to tell", "Passed"),
        (sets_of(BATCH, None), "empty", "No baseline", "Failed"),
        (BatchResult([outcome(run())]), "empty", "No baseline", "Passed"),
        # What went wrong besides metrics is no regression, and decides if there is none.
        (BatchResult([*sets_of(BATCH, "Billing").outcomes, BROKEN]), "errored", *["Errored"] * 2),
        (
            BatchResult([*sets_of(BATCH, "Vouchers").outcomes, BROKEN]),
            "failed",
            "Regressed",
            "Failed",
        ),
        (BatchResult([]), "empty", *["Nothing was run"] * 2),
    ],
)
def test_headline_says_what_decided(
    result: BatchResult, verdict: str, heading: str, otherwise: str
) -> None:
    """Whether something regressed, where that is asked, and not which sets failed a metric."""
    page = html(result, fail_on="regression")
    assert f'data-verdict="{verdict}"' in page
    assert f"</span>{heading}</h1>" in page
    assert markdown(result, fail_on="regression").splitlines()[0].endswith(f": {heading}")
    assert f"</span>{otherwise}</h1>" in html(result)
    assert markdown(result).splitlines()[0].endswith(f": {otherwise}")


def test_junit_fails_where_a_set_regressed() -> None:
    root = ET.fromstring(junit(compared_batch()))  # our own
    found = {
        suite.get("name"): case
        for suite in root.iter("testsuite")
        for case in suite.iter("testcase")
        if case.get("name") == "against the baseline"
    }
    kinds = {
        name: [(child.tag, child.get("type")) for child in case] for name, case in found.items()
    }
    assert kinds == {
        "Refund policy": [("failure", "regression")],
        "Vouchers": [("system-out", None)],
        "Angry callers": [("system-out", None)],
        "Billing": [("system-out", None)],
        "Returns": [("skipped", "too_few")],
        "6618791275130b73714e8fff": [("skipped", "no_baseline")],
    }
    failure = found["Refund policy"][0]
    assert "regressed. 23 of 30" in failure.get("message", "")
    assert "10/10 -> 4/10   Polite throughout\n  agent 4 -> 5" in (failure.text or "")
    counted = sum(len(list(suite.iter("testcase"))) for suite in root.iter("testsuite"))
    assert int(root.get("tests", "0")) == counted


@pytest.mark.parametrize("render", [markdown, html, junit])
def test_nothing_is_said_of_what_was_not_asked_for(render: object) -> None:
    result = compared_batch()
    plain = BatchResult(
        [replace(o, comparison=None, uncompared=None) for o in result.outcomes], names=result.names
    )
    assert callable(render)
    assert "gainst the baseline" in render(result)
    assert "gainst the baseline" not in render(plain)


def test_json_is_the_same_again() -> None:
    result = compared_batch()
    again = from_json(to_json(result))
    assert again == replace(result, outcomes=tuple(result.outcomes))
    document = json.loads(to_json(result))
    assert list(document)[-1] == "comparison"
    assert document["comparison"]["verdict"] == "regressed"


def test_text_of_the_service_is_data() -> None:
    evil = '<img src=x onerror="1">\n![x](http://x)'
    before, now = rated_run("set", "before", [10]), rated_run("set", "now", [1], model=evil)
    one = outcome(now, comparison=compare(before, now), name=evil)
    other = outcome(run(set_id="other"), uncompared=f"no baseline: {evil}")
    result = BatchResult(
        (one, other), names=Names({"set": evil}, {now.unit_test_run_specs[0].unit_test_id: evil})
    )
    page = html(result)
    assert "<img" not in page
    rendered = MarkdownIt("commonmark", {"html": True}).render(markdown(result))
    assert "<img" not in rendered
    ET.fromstring(junit(result))  # our own


def test_unit_tests_of_one_reason_are_left_out_together() -> None:
    before = rated_run("set", "before", [10] * 7)
    now = rated_run("set", "now", [10] * 7)
    specs = [replace(spec, max_interactions=9) for spec in now.unit_test_run_specs]
    now = replace(now, unit_test_run_specs=specs)
    text = markdown(BatchResult([outcome(now, comparison=compare(before, now))]))
    assert text.replace("\\", "").count("Left out:") == 1
    assert "2 more: the max" in text.replace("\\", "")
