"""Figures of the temporal ablation: one PNG for a paper or a slide, or one SVG a panel for report.html.

Every `_draw_*` fills a matplotlib figure (or a part of one) from the summary and sets no title and no
caption, so that the PNG and the page can each set their own. The SVGs take their colours from the page (CSS
variables), so that they are legible on a light and on a dark one; colours are Okabe and Ito's, and markers
differ in shape too.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidformers.analysis.statistics import LEVEL
from vidformers.files import written_whole
from vidformers.report.summary import (
    CONTROL_KINDS,
    ORDER_KINDS,
    Summary,
    group_names,
    interval,
    is_told,
    kind,
    one_line,
    percent,
    reference_perturbation,
    shown_perturbations,
    signed,
    too_few,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# No two alike, and none that matplotlib writes by itself: each is replaced in the SVG by its CSS variable.
INK, MUTED, FAINT = "#22262c", "#6f7680", "#d3d7dc"
BLUE, ORANGE, GREEN, PINK, OLIVE, INDIGO = "#0072b3", "#d55e01", "#009e74", "#b2518f", "#8c7200", "#5a60c8"
CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    FAINT: "--faint",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PINK: "--pink",
    OLIVE: "--olive",
    INDIGO: "--indigo",
}
_STYLES = {
    "shuffle": (ORANGE, "o"),
    "block_shuffle": (BLUE, "s"),
    "local_shuffle": (GREEN, "^"),
    "reverse": (PINK, "D"),
    "swap_halves": (OLIVE, "v"),
    "rotate": (INDIGO, "P"),
    "interleave": (MUTED, "X"),
}
_MAX_CLASSES = 30
_MAX_GROUPS = 6
_TITLE_HEIGHT, _LINE_HEIGHT = 0.3, 0.14  # inches, in a PNG
_LEAST_RANGE = 10.0  # points of an axis of changes: where nothing changes, rounding is not to fill it


@dataclass(frozen=True)
class Panel:
    """One plot: size in inches (a wide one spans both columns), what a reader should know, how to draw it."""

    title: str
    caption: str
    width: float
    height: float
    draw: Callable[[FigureBase], None]


@contextmanager
def _matplotlib_style() -> Iterator[None]:
    """Our settings, and names taken literally ("$" is no mathematics; a glyph the font lacks is no news)."""
    import matplotlib

    settings: Any = {  # "Any": newer matplotlib types every key, older none
        "font.size": 9,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "svg.fonttype": "none",  # text stays text: searchable, in the page's font
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _error_bar(
    axes: Axes, x: float, y: float, ends: tuple[float, float] | None, *, vertical: bool, **style: Any
) -> None:
    """A point with its interval. The point need not lie within it, so that it is a line and not +- errors."""
    color = style["color"]
    if ends:
        draw = axes.vlines if vertical else axes.hlines
        draw(x if vertical else y, *ends, color=color, linewidth=1.6, zorder=2)
    axes.plot([x], [y], linestyle="none", markersize=style.get("size", 6), marker=style["marker"], zorder=3,
              color=color, markerfacecolor=style.get("face", color), markeredgecolor=color)  # fmt: skip


def _reference_lines(axes: Axes, levels: Mapping[str, float | None], *, vertical: bool) -> None:
    """Clean accuracy, chance and static floor; each with its value in the legend."""
    styles = {"clean": (INK, "-"), "chance": (MUTED, ":"), "static floor": (MUTED, "--")}
    for name, level in levels.items():
        if level is not None:
            draw = axes.axvline if vertical else axes.axhline
            color, line = styles[name]
            draw(
                level, color=color, linestyle=line, linewidth=1.2, zorder=1, label=f"{name} {percent(level)}"
            )


def _levels(summary: Summary) -> dict[str, float | None]:
    floor = summary["static_floor"]
    return {
        "clean": summary["clean"]["top1"],
        "chance": summary["chance"],
        "static floor": floor["top1"] if floor else None,
    }


def _legend(figure: FigureBase, axes: Axes, *, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.4)


def _point_color(name: str, cell: Mapping[str, Any]) -> str:
    """Orange for a change that is told from none, blue else, grey for a control. cell: of all, or a group."""
    if kind(name) in CONTROL_KINDS:
        return MUTED
    return ORANGE if is_told(cell) else BLUE


def _color_keys(axes: Axes, names: Sequence[str]) -> None:
    """What the colours of `_point_color` mean, for the legend."""
    kinds = {kind(name) in CONTROL_KINDS for name in names}
    keys = [(ORANGE, "change, p < 0.05"), (BLUE, "p ≥ 0.05")] if False in kinds else []
    for color, label in (*keys, *([(MUTED, "control")] if True in kinds else [])):
        axes.plot([], [], color=color, marker="o", linestyle="none", markersize=6, label=label)


def _widen(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis of changes, `_LEAST_RANGE` apart at least."""
    missing = max(0.0, _LEAST_RANGE - (high - low)) / 2
    return low - missing, high + missing


def _draw_accuracy(figure: FigureBase, summary: Summary) -> None:
    rows = shown_perturbations(summary)
    axes = figure.subplots()
    ends = interval(summary["clean"]["top1_interval"])
    if ends:
        axes.axvspan(*ends, color=FAINT, alpha=0.6, linewidth=0, zorder=0)
    _reference_lines(axes, _levels(summary), vertical=True)
    for y, row in enumerate(rows):
        if row["top1"] is not None:
            color = _point_color(row["name"], row)
            _error_bar(
                axes, row["top1"], y, interval(row["top1_interval"]), vertical=False, color=color, marker="o"
            )
    axes.set_yticks(range(len(rows)), [one_line(row["name"], 26) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("top-1 accuracy (%)")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    changes = axes.secondary_yaxis("right")
    changes.set_yticks(range(len(rows)), [signed(row["delta"]).replace("-", "−") for row in rows])
    changes.tick_params(axis="y", length=0)
    changes.spines["right"].set_visible(False)
    axes.annotate("change", (1, 1), (2, 1), xycoords="axes fraction", textcoords="offset points", fontsize=8,
                  color=MUTED)  # fmt: skip
    _color_keys(axes, [row["name"] for row in rows])
    _legend(figure, axes, columns=3)


def _draw_groups(figure: FigureBase, summary: Summary) -> None:
    rows, groups = shown_perturbations(summary), group_names(summary)[:_MAX_GROUPS]
    all_axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for column, (axes, group) in enumerate(zip(all_axes, groups, strict=True)):
        cells = [next((g for g in row["groups"] or () if g["group"] == group), None) for row in rows]
        first = next(cell for cell in cells if cell)
        _reference_lines(axes, {"clean": first["clean_top1"], "chance": first["chance"]}, vertical=True)
        for y, (row, cell) in enumerate(zip(rows, cells, strict=True)):
            if cell and cell["top1"] is not None:
                color = _point_color(row["name"], cell)
                ends = interval(cell["top1_interval"])
                _error_bar(axes, cell["top1"], y, ends, vertical=False, color=color, marker="o", size=5)
        axes.set_title(f"{one_line(group, 18)}\n{first['num_videos']} videos", fontsize=9, color=INK, pad=4)
        axes.set_yticks(range(len(rows)), [one_line(row["name"], 26) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-5, 105)
        axes.set_xticks([0, 50, 100])
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0, labelleft=column == 0)
    figure.supxlabel("top-1 accuracy (%)", fontsize=9)


def _draw_range(figure: FigureBase, summary: Summary) -> None:
    axes = figure.subplots()
    labels = {"block_shuffle": "block shuffled, by block size", "local_shuffle": "shuffled within, by window"}
    sizes: set[int] = set()
    for name, curve in _range_curves(summary).items():
        color, marker = _STYLES[name]
        half = curve["half_effect_frames"]
        label = labels[name] + (f" (half effect at {half:.2g})" if half is not None else "")
        points = [p for p in curve["points"] if p["score"] is not None]
        axes.plot(
            [p["size"] for p in points],
            [p["score"] for p in points],
            color=color,
            marker=marker,
            markersize=6,
            linewidth=1.4,
            label=label,
        )
        for point in points:
            _error_bar(axes, point["size"], point["score"], interval(point["score_interval"]),
                       vertical=True, color=color, marker=marker)  # fmt: skip
        if half is not None:
            axes.axvline(half, color=color, linestyle=":", linewidth=1)
        sizes |= {p["size"] for p in curve["points"]}
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=":")
    seconds = summary["seconds_per_frame"]
    axes.set_xscale("log", base=2)
    axes.set_xticks(
        sorted(sizes), [f"{n}\n{n * seconds:.2g} s" if seconds else str(n) for n in sorted(sizes)]
    )
    axes.minorticks_off()
    axes.set_xlabel("size (frames)")
    axes.set_ylabel("order score (0: blind, 1: all lost)")
    axes.grid(axis="y")
    _legend(figure, axes, columns=1)


def _range_curves(summary: Summary) -> dict[str, Mapping[str, Any]]:
    """The curves that have at least one point with a score."""
    curves = summary["range_curves"] or {}
    return {
        name: curve
        for name, curve in curves.items()
        if curve and any(p["score"] is not None for p in curve["points"])
    }


def _dose_rows(summary: Summary) -> list[Mapping[str, Any]]:
    return [
        row
        for row in summary["perturbations"]
        if kind(row["name"]) in ORDER_KINDS and row["displacement"] is not None and row["top1"] is not None
    ]


def _draw_dose(figure: FigureBase, summary: Summary) -> None:
    axes = figure.subplots()
    _reference_lines(axes, _levels(summary), vertical=False)
    named: set[str] = set()
    rows = _dose_rows(summary)
    for row in rows:
        name = kind(row["name"])
        color, marker = _STYLES[name]
        face = "none" if row["name"].endswith("@tubelet") else color
        ends = interval(row["top1_interval"])
        _error_bar(axes, row["displacement"], row["top1"], ends, vertical=True, color=color, marker=marker,
                   face=face)  # fmt: skip
        if name not in named:
            axes.plot([], [], color=color, marker=marker, linestyle="none", markersize=6, label=name)
            named.add(name)
        if "[" in row["name"]:
            argument = one_line(row["name"].partition("[")[2].partition("]")[0], 6)
            crowded = any(
                0 <= other["displacement"] - row["displacement"] < 0.07
                and abs(other["top1"] - row["top1"]) < 9
                and other is not row
                for other in rows
            )
            axes.annotate(argument, (row["displacement"], row["top1"]), (-6 if crowded else 6, 3),
                          textcoords="offset points", ha="right" if crowded else "left", fontsize=8,
                          color=color)  # fmt: skip
    if any(row["name"].endswith("@tubelet") for row in rows):
        axes.plot([], [], color=INK, marker="o", linestyle="none", markersize=6, markerfacecolor="none",
                  label="hollow: @tubelet")  # fmt: skip
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-3, 104)
    axes.set_xlabel("realised displacement (Kendall tau distance)")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.grid()
    _legend(figure, axes, columns=3)


def per_class_rows(summary: Summary) -> list[Mapping[str, Any]]:
    """Classes under the reference perturbation, the largest drop first."""
    reference = reference_perturbation(summary)
    rows = [row for row in (reference or {}).get("per_class") or () if row["delta"] is not None]
    return sorted(rows, key=lambda row: (row["delta"], row["label"]))


def _draw_classes(figure: FigureBase, summary: Summary) -> None:
    axes = figure.subplots()
    rows = per_class_rows(summary)[:_MAX_CLASSES]
    axes.axvline(0, color=INK, linewidth=1)
    for y, row in enumerate(rows):
        significant = row["p_value_bh"] is not None and row["p_value_bh"] < LEVEL
        face = ORANGE if significant else "none"
        _error_bar(axes, row["delta"], y, interval(row["delta_interval"]), vertical=False, color=ORANGE,
                   marker="o", size=5, face=face)  # fmt: skip
    for label, face in (("change, adjusted p < 0.05", ORANGE), ("p ≥ 0.05", "none")):
        axes.plot([], [], color=ORANGE, marker="o", linestyle="none", markersize=5, markerfacecolor=face,
                  label=label)  # fmt: skip
    axes.set_yticks(range(len(rows)), [one_line(row["name"], 28) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(*_widen(*axes.get_xlim()))
    axes.set_xlabel("change of top-1 (points)")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes, columns=2)


def _draw_occlusion(figure: FigureBase, summary: Summary) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    points = [point for point in summary["occlusion_curve"] if point["delta"] is not None]
    axes.axhline(0, color=INK, linewidth=1)
    axes.plot([p["position"] for p in points], [p["delta"] for p in points], color=BLUE, linewidth=1)
    for point in points:
        _error_bar(axes, point["position"], point["delta"], interval(point["delta_interval"]), vertical=True,
                   color=BLUE, marker="o", size=5)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("occluded position (frame of the clip)")
    axes.set_ylim(*_widen(*axes.get_ylim()))
    axes.set_ylabel("change of top-1 (points)")
    axes.grid(axis="y")
    if seconds := summary["seconds_per_frame"]:
        above = axes.secondary_xaxis("top", functions=(lambda x: x * seconds, lambda x: x / seconds))
        above.set_xlabel("seconds", fontsize=8.5)
        above.tick_params(labelsize=8)


def ablation_panels(summary: Summary) -> list[Panel]:
    """The plots that this summary has the numbers for, in reading order."""
    rows = shown_perturbations(summary)
    panels = []
    if rows:
        caption = (
            "Bars: 95 % intervals over videos. Orange: the change from clean has p < 0.05, after Holm over "
            "the perturbations; blue: it has not; grey: control. Band: interval of the clean accuracy."
        )
        if any(too_few(row, summary["chance"]) for row in rows if not is_told(row)):
            caption += f" {summary['num_videos']} videos are too few for blue to mean that nothing changes."
        panels.append(Panel("Accuracy under each perturbation", caption, 5, 1.2 + 0.23 * len(rows),
                            partial(_draw_accuracy, summary=summary)))  # fmt: skip
    if _range_curves(summary):
        caption = (
            "Share of the clean accuracy above chance that is lost. Block shuffling destroys what is longer "
            "than a block, shuffling within windows what is shorter. Dotted verticals: half of the full "
            "effect."
        )
        panels.append(Panel("Range: over which time order matters", caption, 5, 3.9,
                            partial(_draw_range, summary=summary)))  # fmt: skip
    if group_names(summary):
        caption = (
            "Colours as under 'Accuracy under each perturbation', by p of the group. Solid line: clean "
            "accuracy of the group; dotted: its chance."
        )
        if len(group_names(summary)) > _MAX_GROUPS:
            caption += f" The first {_MAX_GROUPS} groups; the table has all."
        panels.append(Panel("By group of classes", caption, 10, 1.1 + 0.23 * len(rows),
                            partial(_draw_groups, summary=summary)))  # fmt: skip
    if _dose_rows(summary):
        caption = (
            "Displacement: share of frame pairs shown the wrong way round, 0 as filmed, 1 backwards. "
            "Numbers: block size, window or shift; hollow (@tubelet): whole tubelets moved."
        )
        panels.append(Panel("Dose and response", caption, 5, 3.9, partial(_draw_dose, summary=summary)))
    if summary["occlusion_curve"]:
        caption = "One position at a time shows its neighbour: where in the clip the evidence lies."
        panels.append(
            Panel("Occlusion by position", caption, 5, 3.4, partial(_draw_occlusion, summary=summary))
        )
    classes = per_class_rows(summary)
    reference = reference_perturbation(summary)
    if classes and reference:
        shown = min(len(classes), _MAX_CLASSES)
        which = (
            f"the {shown} of {len(classes)} classes that lose most" if shown < len(classes) else "all classes"
        )
        caption = f"Changes of {which}; p adjusted after Benjamini and Hochberg over the classes."
        panels.append(Panel(f"Change by class under {reference['name']}", caption, 5, 1.2 + 0.19 * shown,
                            partial(_draw_classes, summary=summary)))  # fmt: skip
    return panels


def _with_variables(style: str) -> str:
    for color, variable in CSS_VARIABLES.items():
        style = style.replace(color, f"var({variable})")
    return style


def panel_svg(panel: Panel) -> str:
    """The panel as an <svg> element to stand in a page that defines `CSS_VARIABLES`; no address in it."""
    import matplotlib
    from matplotlib.figure import Figure

    # The salt: the same panel gives the same bytes, and two panels on a page share no id.
    with _matplotlib_style(), matplotlib.rc_context({"svg.hashsalt": panel.title}):
        figure = Figure(figsize=(panel.width, panel.height), layout="constrained")
        panel.draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Inline in HTML neither metadata nor namespaces mean anything, and a page's ids must be unique.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    root, body = svg.split(">", 1)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", root) + ">" + body
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' style="[^"]*"', lambda style: _with_variables(style[0]), svg)
    label = panel.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def write_ablation_figure(summary: Summary, path: Path) -> None:
    """Write one PNG with every panel of the summary, as `write_panels` does.

    Raises ValueError when the summary has no perturbation.
    """
    panels = ablation_panels(summary)
    if not panels:
        raise ValueError(
            "got a summary without perturbations; wanted at least one to draw; try ABLATION.PERTURBATIONS"
        )
    write_panels(panels, path)


def write_panels(panels: Sequence[Panel], path: Path) -> None:
    """Write one PNG with all panels under their titles and captions, on white, 150 dots an inch: narrow ones
    in two columns, wide ones below."""
    from matplotlib.figure import Figure

    wide = [panel for panel in panels if panel.width > 5]
    columns: list[list[Panel]] = [[], []]
    for panel in panels:
        if panel not in wide:
            min(columns, key=lambda column: sum(_full_height(p) for p in column)).append(panel)
    columns = [column for column in columns if column]
    rows = [sum(_full_height(panel) for panel in column) for column in columns]
    rows = [*([max(rows)] if rows else []), *(_full_height(panel) for panel in wide)]
    with _matplotlib_style():
        width = 5.2 * len(columns) if columns else max(panel.width for panel in wide)
        figure = Figure(figsize=(width, sum(rows)), layout="constrained", facecolor="white")
        parts = list(figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0])
        if columns:
            cells = parts.pop(0).subfigures(1, len(columns), squeeze=False)[0]
            for column, part in zip(columns, cells, strict=True):
                _draw_below_each_other(column, part, height=rows[0])
        for panel, part in zip(wide, parts, strict=True):
            _draw_below_each_other([panel], part, height=_full_height(panel))
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def _caption_lines(panel: Panel) -> list[str]:
    return textwrap.wrap(panel.caption, width=int(16.5 * panel.width))


def _head_height(panel: Panel) -> float:
    """Inches of the title and the caption."""
    return _TITLE_HEIGHT + _LINE_HEIGHT * len(_caption_lines(panel))


def _full_height(panel: Panel) -> float:
    return _head_height(panel) + panel.height


def _draw_below_each_other(panels: Sequence[Panel], figure: FigureBase, *, height: float) -> None:
    """height: of all in inches; the plots, and not the captions, share what is over."""
    heads = [_head_height(panel) for panel in panels]
    share = (height - sum(heads)) / sum(panel.height for panel in panels)
    ratios = [
        inches for panel, head in zip(panels, heads, strict=True) for inches in (head, share * panel.height)
    ]
    cells = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    for panel, inches, head, cell in zip(panels, heads, cells[::2], cells[1::2], strict=True):
        head.text(0.5, 1 - 0.06 / inches, panel.title, ha="center", va="top", fontsize=10.5,
                  fontweight="bold")  # fmt: skip
        caption = "\n".join(_caption_lines(panel))
        head.text(0.5, 1 - _TITLE_HEIGHT / inches, caption, ha="center", va="top", fontsize=8, color=MUTED)
        panel.draw(cell)
