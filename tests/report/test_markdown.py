from __future__ import annotations

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from amigo_async import BatchResult, Gate
from amigo_async.errors import ConfigurationError
from amigo_async.report import html, markdown
from tests.support.report_samples import batch, outcome, run

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


def test_summary_of_a_batch() -> None:
    text = markdown(batch(), title="Nightly")
    assert text.startswith("# ❌ Nightly: Failed\n\n60 sets\\: 54 passed, 2 failed, ")
    assert "- **Turns**: expected less than 12 (1 unit test)\n" in text
    assert ": failed in repeat 3 (4 of 5 repeats passed, 1 failed)\n" in text
    assert ": in repeats 3-4 of 5\n" in text
    assert "**ArtifactTruncatedError**" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 60 + 2
    page = Reader(RENDER.render(text))
    assert {"h1", "h2", "h3", "table", "td", "ul", "li", "strong"} <= page.tags
    assert text.index("What went wrong") < text.index("## Sets")


def test_what_passed_is_short() -> None:
    one = outcome(run(("ut", {METRIC: "++"}, [None, None]), set_id="s"))
    assert markdown(BatchResult([one])) == (
        "# ✅ Unit test sets of org: Passed\n"
        "\n"
        "The set passed. 1 of 1 unit test passed; 2 of 2 repeats passed.\n"
        "\n"
        "## Sets\n"
        "\n"
        "| | Set | Verdict | Unit tests | Repeats passed | Took | Run |\n"
        "| :-: | :-- | :-- | --: | --: | --: | :-- |\n"
        "| ✅ | `s` | passed | 1 | 2 of 2 |  | `run` |\n"
    )


def test_what_the_gate_allows_is_counted() -> None:
    one = outcome(run(("ut", {METRIC: "+-"}, [None, None])), "passed")
    assert "1 that did not pass are allowed by the gate" in markdown(
        BatchResult([one]), gate=Gate(min_pass_rate=0.5)
    )


@pytest.mark.parametrize(
    ("result", "heading", "sentence"),
    [
        (BatchResult(()), "Nothing was run", "There are no sets."),
        (
            BatchResult([outcome(verdict="passed", error=OSError("x")), outcome(verdict="passed")]),
            "Passed, incomplete",
            "All sets passed, but 1 of 2 could not be collected completely.",
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


def test_all_wrong_stays_short() -> None:
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


def test_markup_in_values_is_text() -> None:
    evil = run((EVIL, {EVIL: "-"}, [None]), (EVIL, {"m": ""}, [EVIL]), set_id=EVIL, run_id=EVIL)
    plain = run(("u", {"n": "-"}, [None]), ("u", {"m": ""}, ["e"]), set_id="s", run_id="r")
    other = outcome(verdict="errored", error=OSError(EVIL))
    page = read(BatchResult([outcome(evil), other]))
    same = read(BatchResult([outcome(plain), outcome(verdict="errored", error=OSError("x"))]))
    assert page.tags == same.tags
    assert "<script>alert(1)</script> | `x` **b** [a](http://e.test)" in page.text


def text_of(size: int) -> str:
    """A text that is as long as a summary shows, in characters of four bytes that are escaped."""
    return "\U0001f600@a" * (size // 3)


@pytest.mark.parametrize(
    ("sets", "tests", "text", "max_bytes"),
    [
        (10, 100, "e" * 1200, 2**20),
        (1, 1000, text_of(999), 2**20),
        (12_000, 0, "", 2**20),
        (60, 100, "| <b> @me #1 " * 60, 100_000),
        (1500, 1, "e" * 100, 100_000),
        (60, 3, "e", 5_000),  # without room for most of the headings
    ],
)
def test_summary_is_bounded(sets: int, tests: int, text: str, max_bytes: int) -> None:
    found = [(f"ut{n}", {"m": "+"}, [f"{n} {text}"]) for n in range(tests)]
    of = run(*found, set_id="s") if tests else None
    shown = markdown(
        BatchResult([outcome(of, None if tests else "passed", run_id=str(n)) for n in range(sets)]),
        max_bytes=max_bytes,
    )
    assert len(shown.encode()) <= max_bytes
    details, _, table = shown.partition("## Sets")
    rows = table.count("\n| ") - 2
    assert rows > 0
    assert rows + left_out(table, "set") == sets
    headings = details.count("\n### ")
    if tests:
        assert headings + left_out(details, "set") == sets
        findings = details.count("\n  - ")
        assert findings > 0
        assert findings == details.count("\n- ")  # none is without its heading
        assert findings + left_out(details, "finding") == tests * headings
    # It is used, too: what is left out would not have had room.
    if rows < sets:
        assert len(shown.encode()) > 0.9 * max_bytes


def left_out(text: str, noun: str) -> int:
    counts = re.findall(
        rf"^([\d,]+) more {noun}s? (?:is|are) not shown here\.$", text, re.MULTILINE
    )
    return sum(int(count.replace(",", "")) for count in counts)


def test_sets_share_the_space() -> None:
    large = outcome(
        run(*[(f"ut{n}", {}, [f"{n} {'e' * 900}"]) for n in range(1000)], set_id="large")
    )
    small = outcome(run(("ut", {"m": "-"}, [None]), set_id="small"))
    passed = outcome(verdict="passed")
    text = markdown(BatchResult([large, small, large, *[passed] * 5000]))
    first, second, third = (s.count("\n  - ") for s in text.split("\n### ")[1:])
    assert second == 1
    assert 300 < first <= third < first + 5
    assert text.index("large") < text.index("small")
    assert text.partition("## Sets")[2].count("\n| ") == 5003 + 2


def test_failed_sets_come_first() -> None:
    passed = [outcome(verdict="passed", unit_test_set_id=f"passed{n}") for n in range(500)]
    failed = outcome(verdict="timed_out", unit_test_set_id="late")
    text = markdown(BatchResult([*passed, failed]), max_bytes=10_000)
    table = text.partition("## Sets")[2]
    assert "| `late` |" in table
    assert table.index("passed0") < table.index("late")


def test_a_text_is_redacted_before_it_is_cut() -> None:
    token = "x" * 980 + " Bearer abcdefghijklmnopqrstuvwxyz"
    text = markdown(BatchResult([outcome(verdict="errored", error=OSError(token))]))
    assert "abcdef" not in text


@pytest.mark.parametrize("report", [markdown, html])
def test_missing_extra(
    report: Callable[[BatchResult], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"install amigo-async\[report\] "):
        report(batch(1))
