"""Names from data in report.html, opened in a real browser: text, and never markup that runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.summaries import make_summary
from vidformers.report.html import Section, ablation_section, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Each would put the word into the page's title, had it a way to run.
HOSTILE = (
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    '"><svg onload="document.title=\'taken\'">',
    "'><iframe srcdoc=\"<script>parent.document.title='taken'</script>\">",
    "{{ 7 * 7 }}</script><script>document.title='taken'</script>",
)


def opened(page: Path) -> str:
    """The document as the browser has it after its scripts have run."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; test_html.py parses the same pages")
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=2000",
    )
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *flags, profile, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_browser_would_tell(tmp_path: Path) -> None:
    page = tmp_path / "bare.html"
    for hostile in HOSTILE[:3]:
        page.write_text(
            f'<html><head><title>own</title></head><body><p class="{hostile}">{hostile}</p></body>'
        )
        assert "<title>taken</title>" in opened(page)


def test_hostile_class_names_do_not_run(tmp_path: Path) -> None:
    summary = make_summary(
        class_names=list(HOSTILE[:2]), groups=list(HOSTILE[2:4]), names=("shuffle", "reverse")
    )
    summary["model"] = HOSTILE[4]
    path = tmp_path / "report.html"
    write_report(path, HOSTILE[0], [ablation_section(summary, {}), Section("last", HOSTILE[1], "the end")])  # type: ignore[arg-type]
    document = opened(path)
    assert "<title>taken</title>" not in document and "taken" in document
    for element in ('<img src="x"', "<svg onload", "<iframe"):
        assert element not in document
    assert "the end" in document
