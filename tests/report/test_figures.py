"""The figures: a PNG with something on it, SVGs for the page, names taken literally."""

import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.summaries import make_summary, without_numbers
from vidformers.report.figures import (
    CSS_VARIABLES,
    ablation_panels,
    panel_svg,
    per_class_rows,
    write_ablation_figure,
)

HOSTILE = ("$\\frac{$", "<script>alert(1)</script>", "-->&amp;", "two\nlines", "跳舞", "x" * 200)


def test_png_is_written_whole_and_every_panel_has_ink(tmp_path: Path) -> None:
    path = tmp_path / "temporal_ablation.png"
    write_ablation_figure(make_summary(), path)
    assert list(tmp_path.iterdir()) == [path]
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert image.shape[0] > 1000 and image.shape[1] > 1000
    for rows in np.array_split(image, 8):
        for part in np.array_split(rows, 2, axis=1):
            assert (part.min(axis=2) < 200).mean() > 0.002
    # Both of the main colours are there: something fell (orange), something is a control (grey).
    assert (np.abs(image - (0xD5, 0x5E, 0x01)).max(axis=2) < 8).sum() > 100


def test_panels_follow_what_the_summary_has() -> None:
    titles = [panel.title for panel in ablation_panels(make_summary())]
    assert titles == [
        "Accuracy under each perturbation",
        "Range: over which time order matters",
        "By group of classes",
        "Dose and response",
        "Occlusion by position",
        "Change by class",
    ]
    bare = without_numbers(make_summary(groups=(), names=("shuffle",)))
    assert [panel.title for panel in ablation_panels(bare)] == ["Accuracy under each perturbation"]
    assert "<svg" in panel_svg(ablation_panels(bare)[0])


def test_no_perturbation_no_figure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without perturbations"):
        write_ablation_figure(without_numbers(make_summary(names=())), tmp_path / "x.png")


def test_svg_takes_names_literally_and_colours_from_the_page() -> None:
    summary = make_summary(class_names=HOSTILE, groups=("<b>",), names=("shuffle",))
    texts: list[str] = []
    tags: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)

        def handle_data(self, data: str) -> None:
            texts.append(data.strip())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svgs = [
            panel_svg(p)
            for p in ablation_panels(summary)
            if p.title in ("Change by class", "By group of classes")
        ]
    for svg in svgs:
        Reader().feed(svg)
        assert "://" not in svg
        assert not any(color in svg for color in CSS_VARIABLES)
        assert "var(--ink)" in svg
    assert tags <= {"svg", "defs", "style", "g", "path", "text", "tspan", "use", "clippath", "rect"}
    assert {"$\\frac{$", "<script>alert(1)</script>", "-->&amp;", "two lines", "跳舞", "<b>"} <= {
        text.split("\n")[0] for text in texts
    }


def test_same_summary_same_svg() -> None:
    first, second = (panel_svg(ablation_panels(make_summary(names=("shuffle",)))[0]) for _ in range(2))
    assert first == second


def test_of_many_classes_those_that_lose_most() -> None:
    summary = make_summary(class_names=[f"class {i}" for i in range(400)], groups=(), names=("shuffle",))
    deltas = [row["delta"] for row in per_class_rows(summary)]
    assert deltas == sorted(deltas) and len(deltas) == 400
    panel = next(panel for panel in ablation_panels(summary) if panel.title == "Change by class")
    assert "the 30 of 400 classes that lose most" in panel.caption
    assert panel_svg(panel).count(">class ") == 30
