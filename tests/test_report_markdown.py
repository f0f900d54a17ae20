from __future__ import annotations

import sys
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from amigo_async.batch.outcomes import BatchResult
from amigo_async.errors import ConfigurationError
from amigo_async.gate import Gate
from amigo_async.report import html, markdown
from amigo_async.report.templates import escape_markdown
from amigo_async.report.words import clean
from tests.report_samples import batch, outcome, run

METRIC = "67aa00000000000000000002"
RENDER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(result: BatchResult, gate: Gate | None = None) -> Reader:
    return Reader(RENDER.render(markdown(result, gate=gate)))


def test_the_summary_has_the_verdict_the_failures_and_every_set() -> None:
    text = markdown(batch(), title="Nightly")
    assert text.startswith("# ❌ Nightly: Failed\n\n60 sets\\: 54 passed, 2 failed, ")
    assert "expected less than 12; 4 of 5 repeats passed, 1 failed (failed in repeat 3)" in text
    assert "error in repeat 3-4" in text
    assert "**ArtifactTruncatedError**" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 60 + 2
    page = Reader(RENDER.render(text))
    assert {"h1", "h2", "h3", "table", "td", "ul", "li", "strong"} <= page.tags
    assert text.index("What went wrong") < text.index("## Sets")


def test_what_passed_is_short() -> None:
    one = outcome(run(("ut", {METRIC: "++"}, [None, None]), set_id="s"))
    assert markdown(BatchResult([one])) == (
        "# ✅ Unit test sets: Passed\n"
        "\n"
        "The set passed. 2 of 2 repeats of 1 unit test passed.\n"
        "\n"
        "## Sets\n"
        "\n"
        "| | Set | Verdict | Unit tests | Repeats passed | Took | Run |\n"
        "| :-: | :-- | :-- | --: | --: | --: | :-- |\n"
        "| ✅ | s | passed | 1 | 2 of 2 |  | run |\n"
    )


def test_what_the_gate_allows_is_counted() -> None:
    one = outcome(run(("ut", {METRIC: "+-"}, [None, None])), "passed")
    assert "1 that did not were within what the gate allows" in markdown(
        BatchResult([one]), gate=Gate(min_pass_rate=0.5)
    )


@pytest.mark.parametrize(
    ("result", "heading", "sentence"),
    [
        (BatchResult(()), "Nothing was run", "No set was asked for."),
        (
            BatchResult([outcome(verdict="passed", error=OSError("x")), outcome(verdict="passed")]),
            "Passed, incomplete",
            "All sets passed, but 1 of 2 could not be collected whole.",
        ),
        (BatchResult([outcome(verdict="cancelled")]), "Cancelled", "1 set: 1 cancelled."),
        (
            BatchResult([outcome(verdict="timed_out"), outcome(verdict="errored")]),
            "Errored",
            "2 sets: 1 errored, 1 timed out.",
        ),
    ],
)
def test_the_heading_names_the_worst(result: BatchResult, heading: str, sentence: str) -> None:
    page = read(result)
    assert f"Unit test sets: {heading}" in page.text
    assert sentence in page.text


def test_a_batch_that_went_all_wrong_stays_short_enough() -> None:
    many = [
        outcome(verdict="errored", error=OSError("x" * 100_000), unit_test_set_id=f"set{n}")
        for n in range(120)
    ]
    text = markdown(BatchResult(many))
    assert "70 more sets are not shown here" in text
    assert len(text.encode()) < 2**20


EVIL = (
    "<script>alert(1)</script> | `x` **b** [a](http://e.test) ![i](x) ~~s~~ # h\n\n- item &lt; @me"
)


def test_markup_in_values_is_shown_as_it_is() -> None:
    evil = run((EVIL, {EVIL: "-"}, [None]), (EVIL, {"m": ""}, [EVIL]), set_id=EVIL, run_id=EVIL)
    plain = run(("u", {"n": "-"}, [None]), ("u", {"m": ""}, ["e"]), set_id="s", run_id="r")
    other = outcome(verdict="errored", error=OSError(EVIL))
    page = read(BatchResult([outcome(evil), other]))
    same = read(BatchResult([outcome(plain), outcome(verdict="errored", error=OSError("x"))]))
    assert page.tags == same.tags
    assert "<script>alert(1)</script> | `x` **b** [a](http://e.test)" in page.text


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_is_rendered_as_it_is(text: str) -> None:
    shown = escape_markdown(text)
    page = Reader(RENDER.render(f"| a |\n| - |\n| x {shown} y |\n"))
    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    cell = page.text.split("x ", 1)[1].rsplit(" y", 1)[0].strip()
    assert cell.split() == clean(text).split()


@pytest.mark.parametrize("report", [markdown, html])
def test_without_the_extra_it_says_what_to_install(
    report: Callable[[BatchResult], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'amigo-async\[report\]'"):
        report(batch(1))
