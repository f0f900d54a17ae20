from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amigo_async import BatchResult, Gate
from amigo_async.models import (
    BooleanMetricSuccessCriterion,
)
from amigo_async.report import html
from tests.support.report_samples import BEGAN, batch, hidden_run, outcome, run

METRIC = "67aa00000000000000000002"
VOID = {"meta", "link", "br", "rect", "line"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The elements of a page, each with its attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def count(self, tag: str, name: str = "") -> int:
        """How many elements there are of this tag, and of this class."""
        return sum(t == tag and name in (a.get("class") or "").split(" ") for t, a in self.elements)

    def links(self) -> list[str]:
        return [a["href"] or "" for tag, a in self.elements if tag == "a"]


def one(*tests: Any, **fields: Any) -> BatchResult:
    return BatchResult([outcome(run(*tests), **fields)])


SHAKY = ("ut", {METRIC: "++-+-"}, [None] * 5)


def test_page_of_a_batch() -> None:
    result = batch()
    page = Page(html(result, title="Nightly"))
    verdict = next(a for t, a in page.elements if t == "header")
    assert verdict["data-verdict"] == "failed"
    assert "60 sets: 54 passed, 2 failed, 1 errored" in page.text
    assert page.count("a", "row") == 60
    assert page.count("details", "set") == 60
    assert page.count("article", "wrong") == 7
    for seen in (
        "Turns expected less than 12 66cc00000700000000000000 4 of 5",
        "4 of 5 repeats passed, 1 failed failed in repeat 3",
        "answer within 60 s (<timeout>)",
    ):
        assert seen in " ".join(page.text.split())


def test_every_unit_test_is_listed_once() -> None:
    result = batch()
    page = Page(html(result))
    listed = page.count("li", "test") + page.count("tr", "test")
    assert listed == sum(len(o.run.unit_test_run_specs) for o in result.outcomes if o.run)


def test_the_page_needs_nothing_else() -> None:
    text = html(batch())
    page = Page(text)
    assert not {"script", "iframe", "img", "object", "form"} & {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert [a["href"] for tag, a in page.elements if tag == "link"] == ["data:,"]
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_matrix_of_what_failed() -> None:
    result = one(
        ("ut1", {"67aa00000000000000000001": "++", METRIC: "+-"}, [None, None]),
        ("ut2", {METRIC: "+-"}, [None, "no answer", None]),
        ("ut3", {METRIC: "+", "67aa00000000000000000001": "+"}, [None]),
    )
    page = Page(html(result))
    assert page.count("table", "matrix") == 1
    assert page.count("tr", "test") == 2
    titles = [a.get("title") for tag, a in page.elements if tag == "td"]
    assert titles == [None, "1 of 3 repeats passed, 1 failed, 1 errored"]
    text = " ".join(page.text.split())
    # The metric that nothing failed has no column, and what passed no row.
    assert "Empathyat least 0.8 ut1 Empathy1/2 ut2 Empathy1/3 1 unit test passed ut3" in text
    assert text.count("Polite throughout") == 1  # where it says what the set is judged by


def test_differing_criteria_in_a_column() -> None:
    both = run(("a", {METRIC: "-"}, [None]), ("b", {METRIC: "-"}, [None]))
    metric = both.unit_test_run_specs[1].metrics_to_evaluate[0]
    other = msgspec.structs.replace(metric, success_criterion=BooleanMetricSuccessCriterion(True))
    specs = [
        both.unit_test_run_specs[0],
        msgspec.structs.replace(both.unit_test_run_specs[1], metrics_to_evaluate=(other,)),
    ]
    mixed = msgspec.structs.replace(both, unit_test_run_specs=specs)
    text = html(BatchResult([outcome(mixed)]))
    assert "<small>at least 0.8</small>" not in text
    shown = " ".join(Page(text).text.split())
    assert "Empathy expected at least 0.8 a 0 of 1" in shown
    assert "Empathy expected yes b 0 of 1" in shown


def test_gate_tells_its_reasons() -> None:
    result = one(SHAKY, verdict="passed")
    text = " ".join(Page(html(result, gate=Gate(min_pass_rate=0.6))).text.split())
    assert "Gate: every unit test reached 60%; the lowest pass rate was 60%." in text
    assert "2 repeats did not pass in sets that passed; the gate allows them." in text
    assert "What went wrong" not in text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"verdict": "not_started"}, "No run was started: another set failed"),
        ({"verdict": "errored", "error": OSError("disk <full>")}, "disk <full>"),
        ({"verdict": "passed", "error": OSError("lost")}, "passed, incomplete"),
        ({"verdict": "timed_out", "run_id": "r", "attached": True}, "(started before)"),
        (
            {"verdict": "passed", "run": hidden_run()},
            "lacks the permission to see the unit tests",
        ),
    ],
)
def test_set_without_unit_tests(fields: dict[str, Any], told: str) -> None:
    assert told in " ".join(Page(html(BatchResult([outcome(**fields)]))).text.split())


def test_an_empty_batch_is_a_page_too() -> None:
    page = Page(html(BatchResult(())))
    assert "Nothing was run" in page.text
    assert page.count("section") == 0


@pytest.mark.parametrize(
    ("artifacts", "folder", "link"),
    [
        (Path("out/r 1/a#b.zip"), None, "./out/r%201/a%23b.zip"),
        (Path("javascript:alert(1)"), None, "./javascript%3Aalert%281%29"),
        (Path("//host/x"), None, "file:////host/x"),
        (Path("/data/run/a.zip"), None, "file:///data/run/a.zip"),
        (Path("/data/run/a.zip"), "/data", "./run/a.zip"),
        (Path("/data/run/a.zip"), "/data/pages", "./../run/a.zip"),
        (Path("results/a.zip"), ".", "./results/a.zip"),
    ],
)
def test_artifacts_are_linked(artifacts: Path, folder: str | None, link: str) -> None:
    text = html(one(SHAKY, artifacts=artifacts), folder=folder)
    assert link in Page(text).links()


def test_markup_in_values_is_text() -> None:
    strange = run((EVIL, {EVIL: "-"}, [None]), ("ut", {EVIL: ""}, [EVIL]), set_id=EVIL, run_id=EVIL)
    result = BatchResult(
        [
            outcome(strange, artifacts=Path(EVIL), started_at=BEGAN),
            outcome(verdict="errored", error=OSError(EVIL)),
        ]
    )
    page = Page(html(result, title=EVIL, gate=Gate(errored="ignore")))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not any("onerror" in a for _, a in page.elements)
    assert page.text.count(EVIL) >= 8


@settings(max_examples=12)  # a page takes a while
@given(st.text(min_size=1))
def test_any_text_leaves_the_page_whole(text: str) -> None:
    result = BatchResult(
        [outcome(run((text, {text: "-"}, [None]), set_id=text), error=OSError(text))]
    )
    page = Page(html(result, title=text))
    assert page.count("li", "test") == 1
    html(result).encode()


def test_matrix_only_where_metrics_are_shared() -> None:
    page = Page(html(one(*[(f"ut{n}", {f"m{n}": "-"}, [None]) for n in range(50)])))
    assert (page.count("table", "matrix"), page.count("li", "test")) == (0, 50)
    alike = [(f"ut{n}", {f"m{n % 2}": "-"}, [None]) for n in range(50)]
    page = Page(html(one(*alike)))
    assert (page.count("table", "matrix"), page.count("td", "none")) == (1, 50)
    assert (page.count("tr", "test"), page.count("li", "test")) == (50, 0)


def test_large_matrix_is_a_list() -> None:
    def page(tests: int) -> Page:
        metrics = {f"m{n}": "-" for n in range(50)}
        return Page(html(one(*[(f"ut{n}", metrics, [None]) for n in range(tests)])))

    assert (page(80).count("tr", "test"), page(80).count("li", "test")) == (80, 0)
    assert (page(81).count("tr", "test"), page(81).count("li", "test")) == (0, 81)


def test_capitalized_secret_is_hidden() -> None:
    hidden = run(("https://h/k?hunter2", {METRIC: ""}, []))
    text = html(BatchResult([outcome(hidden, "errored")]), gate=Gate())
    assert "hunter2" not in text
    assert "Unit test https://h/k?***" in text
