"""The figures: a PNG with something on it, SVGs for the page, names taken literally."""

import dataclasses
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.summaries import make_summary, without_numbers
from vidformers.report.figures import (
    CSS_VARIABLES,
    Panel,
    ablation_panels,
    panel_svg,
    per_class_rows,
    write_ablation_figure,
    write_panels,
)
from vidformers.report.text import ablation_text, verdict

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
        "Change by class under shuffle",
    ]
    bare = without_numbers(make_summary(groups=(), names=("shuffle",)))
    assert [panel.title for panel in ablation_panels(bare)] == ["Accuracy under each perturbation"]
    assert "<svg" in panel_svg(ablation_panels(bare)[0])


def texts_of(panel: Panel) -> str:
    return " ".join(re.findall(r">([^<>]+)</(?:text|tspan)>", panel_svg(panel)))


def test_colours_and_hollow_markers_are_explained_in_the_plots() -> None:
    panels = {panel.title: panel for panel in ablation_panels(make_summary())}
    accuracy = texts_of(panels["Accuracy under each perturbation"])
    assert all(key in accuracy for key in ("change, p &lt; 0.05", "p ≥ 0.05", "control"))
    assert "hollow: @tubelet" in texts_of(panels["Dose and response"])
    without = {panel.title: panel for panel in ablation_panels(make_summary(names=("shuffle",)))}
    assert "hollow" not in texts_of(without["Dose and response"])
    assert "control" not in texts_of(without["Accuracy under each perturbation"])


def test_the_colour_follows_the_adjusted_p_value_as_the_words_do() -> None:
    summary = make_summary(names=("shuffle",), groups=("a",))
    row = summary["perturbations"][0]
    for p, colour, other in ((0.078, "--blue", "--orange"), (0.049, "--orange", "--blue")):
        for cell in (row, row["groups"][0]):  # the intervals exclude 0 in both cases
            cell.update(p_value_holm=p, delta=-40.0, delta_interval=[-60.0, -20.0])
        panels = {panel.title: panel_svg(panel) for panel in ablation_panels(summary)}
        bars = panels["By group of classes"]
        assert colour in bars and other not in bars
        both = panels["Accuracy under each perturbation"]  # with a key for each colour
        assert both.count(colour) > both.count(other)
        panel = ablation_panels({**summary, "num_videos": 12})[0]
        assert "12 videos are too few for blue" not in panel.caption
        row["smallest_detectable_difference"] = 60.0
        panel = ablation_panels({**summary, "num_videos": 12})[0]
        assert ("12 videos are too few for blue" in panel.caption) is (p > 0.05)
        row["smallest_detectable_difference"] = 3.1
        told = "falls" if p < 0.05 else "no change shown"
        assert verdict(row, summary["chance"]) == told
        assert f"all: {told}: shuffle" in ablation_text(summary)


def test_captions_are_in_the_picture(tmp_path: Path) -> None:
    """Grey text between title and plot, and room for it."""
    summary = make_summary(names=("shuffle",))
    panels = [dataclasses.replace(ablation_panels(summary)[0], caption=text) for text in ("", "word " * 60)]
    sizes = []
    for number, panel in enumerate(panels):
        write_panels([panel], tmp_path / f"{number}.png")
        sizes.append(np.asarray(Image.open(tmp_path / f"{number}.png").convert("RGB")).astype(int))
    bare, captioned = sizes
    more = captioned.shape[0] - bare.shape[0]
    assert 60 < more < 150
    head = captioned[40 : 40 + more]
    assert (np.abs(head - (0x6F, 0x76, 0x80)).max(axis=2) < 8).sum() > 500
    assert np.abs(captioned[-200:] - bare[-200:]).mean() < 3  # the plot is as large as before


def test_no_change_has_an_axis_of_some_points() -> None:
    summary = make_summary(names=("shuffle",), groups=())
    for row in (*summary["perturbations"][0]["per_class"], *summary["occlusion_curve"]):
        row.update(delta=0.0, delta_interval=[0.0, 0.0])
    panels = {panel.title: texts_of(panel) for panel in ablation_panels(summary)}
    for title in ("Change by class under shuffle", "Occlusion by position"):
        ticks = re.findall(r"−\d+\.?\d*", panels[title])
        assert ticks and all(float(tick[1:]) >= 1 for tick in ticks), (title, ticks)


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
            if p.title in ("Change by class under shuffle", "By group of classes")
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
    panel = next(panel for panel in ablation_panels(summary) if "Change by class" in panel.title)
    assert "the 30 of 400 classes that lose most" in panel.caption
    assert panel_svg(panel).count(">class ") == 30
