"""Names from data in report.html, opened in a real browser: text, and never markup that runs."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import Browser
from tests.report.summaries import make_comparison, make_summary
from tests.report.test_run_report import train_line, val_line, write_log, write_test
from vidformers.report.html import Section, ablation_section, write_report
from vidformers.report.run_report import ABLATION_CLIPS, TEST_EXAMPLES, write_run_report
from vidformers.report.strips import save_clips
from vidformers.report.testing import save_examples

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


def hostile_run(folder: Path) -> None:
    """The files of a run in which every name that comes from data is hostile."""
    clip = np.random.default_rng(0).integers(0, 255, (4, 12, 16, 3), dtype=np.uint8)
    rows = [
        {"name": name, "train": 3, "held_out": 1, "unreadable": 1, "seconds": 9.0} for name in HOSTILE[:3]
    ]
    found = {
        "root": f"/data/{HOSTILE[0]}", "num_train": 9, "num_held_out": 3, "seconds": {"total": 27.0},
        "classes": rows, "notes": [f"Never tested: {HOSTILE[1]}."],
        "unreadable": [{"path": f"{name}.mp4", "reason": HOSTILE[2], "detail": name} for name in HOSTILE],
    }  # fmt: skip
    (folder / "folder_summary.json").write_text(json.dumps(found))
    lines = (train_line(1, 2, 1.5), val_line(1, 50.0, num_failed=HOSTILE[3]))
    write_log(folder, *lines, json.dumps({"event": HOSTILE[0]}))
    write_test(folder, list(HOSTILE), [0, 1, 2, 3, 4, 4], [1, 0, 3, 2, 4, 0])
    results = json.loads((folder / "test_results.json").read_text())
    (folder / "test_results.json").write_text(
        json.dumps({**results, "videos": HOSTILE[1], "checkpoint": f"`{HOSTILE[2]}`.pyth"})
    )
    save_examples(folder / TEST_EXAMPLES, [f"{name}.mp4" for name in HOSTILE], *[np.stack([clip] * 5)] * 2)
    summary = make_summary(
        class_names=list(HOSTILE[:2]), groups=list(HOSTILE[2:4]), names=("shuffle", "reverse")
    )
    summary["model"] = HOSTILE[4]
    summary["comparison"] = make_comparison(names=("shuffle",))
    for row in (summary["perturbations"][0], summary["comparison"]["perturbations"][0]):
        row["name"] = HOSTILE[1]
    (folder / "temporal_ablation.json").write_text(json.dumps(summary))
    save_clips(folder / ABLATION_CLIPS, {"clean": clip, HOSTILE[1]: clip[::-1]})


# A word that stands in each part of the report, and how many of the names stand there as text at least.
PARTS = {
    "Classes found": 3, "Videos that cannot be read": 10, "Explained examples": 5, "Classes tested": 5,
    "Most-confused pairs": 4, "Confusion matrix": 10, "What the model was shown": 1, "Groups of classes": 2,
    "Compared with the other model": 1,
}  # fmt: skip


def test_hostile_names_do_not_run_in_any_section(tmp_path: Path) -> None:
    hostile_run(tmp_path)
    path = write_run_report(tmp_path, title=HOSTILE[0])
    assert path is not None
    document = opened(path)
    assert "<title>taken</title>" not in document
    for element in ('<img src="x"', "<svg onload", "<iframe", "49</script>"):
        assert element not in document
    sections = document.split('<section id="')[1:]
    assert [part.partition('"')[0] for part in sections] == [
        "videos", "training", "test", "temporal-dependence",
    ]  # fmt: skip
    for title, count in PARTS.items():
        part = document.partition(f"<h3>{title}")[2].partition("<h3>")[0]
        assert part.count("document.title='taken'") >= count, title


def test_the_table_of_perturbations_fits_1200_pixels(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    path = tmp_path / "report.html"
    write_report(path, "t", [ablation_section(make_summary(), {})])
    with Browser() as browser:
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False
        )
        browser.open(path)
        box = "document.querySelector('[aria-label=Perturbations]')"
        assert browser.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), browser.evaluate(
            f"{box}.scrollWidth"
        )


def test_html_that_is_not_markup_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, "t", [Section("last", HOSTILE[1], "".join(HOSTILE))])  # type: ignore[arg-type]
    assert "<title>t</title>" in opened(path)
