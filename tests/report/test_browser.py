"""report.html as a person uses it, in a headless Chromium where there is one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejson

from tests.report.browser import CHROMIUM, Browser
from tests.report.summaries import make_summary
from tests.report.test_run_report import train_line, val_line, write_log, write_test
from vidformers.report.run_report import TEST_EXAMPLES, write_run_report
from vidformers.report.testing import save_examples

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sections: 50 classes, a picture of their confusions, explained examples."""
    folder = tmp_path_factory.mktemp("report")
    write_log(folder, train_line(1, 2, 1.5), train_line(1, 4, 1.0), val_line(1, 62.5))
    names = [f"class {i}" for i in range(50)]
    write_test(folder, names, [*range(50), 7, 7], [*range(1, 50), 0, 7, 9])
    frames = np.random.default_rng(0).integers(0, 255, (2, 8, 32, 32, 3), dtype=np.uint8)
    save_examples(folder / TEST_EXAMPLES, ["one", "two"], frames, frames)
    (folder / "temporal_ablation.json").write_text(simplejson.dumps(make_summary()))
    path = write_run_report(folder, title="A run")
    assert path is not None
    return path


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Browser]:
    with Browser() as browser:
        browser.open(report)
        yield browser


def test_it_opens_without_a_message_and_without_a_request(browser: Browser) -> None:
    assert browser.evaluate("document.title") == "A run"
    assert browser.evaluate("document.querySelectorAll('section').length") == 3
    assert browser.evaluate("[...document.styleSheets].every(sheet => sheet.cssRules.length > 0)")
    pictures = (
        "[...document.querySelectorAll('.picture')].map(x => [x.clientWidth > 300, x.clientHeight > 30])"
    )
    assert browser.evaluate(pictures) == [[True, True]] * 2
    assert browser.troubles() == []


def test_a_request_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>console.log(1); fetch('http://127.0.0.1:9/x'); undefined.x</script>")
    with Browser() as browser:
        browser.open(page)
        kinds = {key for trouble in browser.troubles() for key in trouble}
        assert {"exceptionDetails", "request", "args"} <= kinds


def test_a_table_is_sorted_and_filtered_from_the_keyboard(browser: Browser) -> None:
    table = "document.querySelector('[aria-label=\"Classes tested\"] table')"
    first = f"{table}.tBodies[0].rows[0].cells[0].textContent"
    header = f"{table}.tHead.rows[0].cells[1]"  # of 50 classes one has three videos
    assert browser.evaluate(first) == "class 0"
    browser.evaluate(f"{table}.tHead.rows[0].cells[0].querySelector('button').focus()")
    browser.press("Tab")
    assert browser.evaluate(f"document.activeElement === {header}.querySelector('button')")
    browser.press("Enter")
    assert browser.evaluate(f"{header}.getAttribute('aria-sort')") == "ascending"
    browser.press(" ")
    assert browser.evaluate(f"{header}.getAttribute('aria-sort')") == "descending"
    assert browser.evaluate(first) == "class 7"

    box = f"{table}.parentElement.previousElementSibling"
    browser.evaluate(f"{box}.focus()")
    browser.call("Input.insertText", text="CLASS 4")
    shown = f"[...{table}.tBodies[0].rows].filter(row => !row.hidden).length"
    assert browser.evaluate(shown) == 11
    assert browser.troubles() == []


def test_light_and_dark(browser: Browser) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        for what, value in (("page", "backgroundColor"), ("ink", "color")):
            rgb = browser.evaluate(f"getComputedStyle(document.body).{value}.match(/\\d+/g).map(Number)")
            brightness[scheme, what] = sum(rgb) / 3
        # The figures follow: their text has the page's ink.
        rgb = browser.evaluate(
            "getComputedStyle(document.querySelector('svg text')).fill.match(/\\d+/g).map(Number)"
        )
        assert sum(rgb) / 3 == pytest.approx(brightness[scheme, "ink"])
    assert brightness["light", "page"] - brightness["light", "ink"] > 180
    assert brightness["dark", "ink"] - brightness["dark", "page"] > 180


def test_nothing_is_wider_than_a_telephone(browser: Browser) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
