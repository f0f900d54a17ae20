"""The page in headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amigo_async import BatchResult
from amigo_async.report import html
from tests.support.needs import needs, needs_modules
from tests.support.report_samples import BEGAN, GATE, batch, compared_batch, outcome, run

needs_modules("selenium")

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

METRIC = "67aa00000000000000000002"

HORRORS = BatchResult(
    [
        outcome(
            run(
                ("u" * 300, {"m" * 300: "+-", METRIC: "--"}, [None, None]),
                ("ut", {METRIC: ""}, ["e" * 500, "no answer\n  at all"]),
                set_id="s" * 200,
                run_id="r" * 200,
            ),
            artifacts=Path("a" * 200),
            started_at=BEGAN,
        ),
        outcome(verdict="errored", error=OSError("x" * 3000), unit_test_set_id="w" * 30),
    ]
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    needs("chromium", "chromium")
    needs("chromedriver", "chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def show(browser: Any, path: Path, *, width: int, scheme: str) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize(
    "result", [batch(), HORRORS, compared_batch()], ids=["batch", "horrors", "compared"]
)
def test_shown_without_complaint(
    browser: Any, tmp_path: Path, result: BatchResult, width: int, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(result, gate=GATE, folder=tmp_path), encoding="utf-8")
    show(browser, path, width=width, scheme=scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    heading = browser.find_element("css selector", "#verdict h1")
    assert heading.is_displayed()
    assert heading.rect["y"] < 200
    reasons = browser.find_elements("css selector", "#failures .reason")
    assert reasons
    assert reasons[0].is_displayed()
    if result is not HORRORS:  # on the first screen
        worst = browser.find_elements("css selector", "#baseline .now") or reasons
        assert worst[0].rect["y"] < 800
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # On a phone nothing is wider than the screen, not even within a box that scrolls.
    if width == 360:
        widest = "return Math.max(...[...document.querySelectorAll('body *')]"
        widest += ".map(e => e.getBoundingClientRect().right))"
        assert browser.execute_script(widest) <= width


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRAST = """
const ground = e => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor;
  if (c !== 'rgba(0, 0, 0, 0)') return c; } };
return [...document.querySelectorAll('h1, h2, p, li, small, code, a, .tag, .mark, td, .end, pre')]
  .map(e => [getComputedStyle(e).color, ground(e), e.className || e.tagName]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_can_be_read(browser: Any, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(batch()), encoding="utf-8")
    show(browser, path, width=1200, scheme=scheme)
    colors = browser.execute_script(CONTRAST)
    grounds = {ground for _, ground, _ in colors}
    assert len(grounds) > 3
    assert (
        luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        < 0.1
    ) == (scheme == "dark")
    for ink, ground, what in colors:
        low, high = sorted([luminance(ink), luminance(ground)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, what


def test_timeline_links_to_the_set(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(batch()), encoding="utf-8")
    show(browser, path, width=1200, scheme="light")
    row = browser.find_element("css selector", "a.row[href='#set-24']")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", row)
    row.click()
    assert browser.execute_script("return document.querySelector(':target').id") == "set-24"
    # The set is closed at first, and opened by the link to it, below its heading.
    assert browser.find_element("css selector", "#set-24").is_displayed()
    at = "return document.querySelector(':target').getBoundingClientRect().top"
    WebDriverWait(browser, 10).until(lambda _: 0 < browser.execute_script(at) < 400)
