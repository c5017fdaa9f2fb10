"""The part of the report about the folder of videos that was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vidformers.report.figures import BLUE, FAINT, ORANGE, Panel
from vidformers.report.html import Section, environment, rendered
from vidformers.report.summary import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_MAX_BARS = 40


def folder_section(summary: Mapping[str, Any]) -> Section:
    """What folder_summary.json says: classes and how even they are, durations, what cannot be read."""
    seconds = summary["seconds"]
    total = summary["num_train"] + summary["num_held_out"]
    lines = [
        f"{total} videos in {len(summary['classes'])} classes of {summary['root']}, "
        f"{seconds['total'] / 60:.1f} minutes; {summary['num_train']} to train on, "
        f"{summary['num_held_out']} held out."
    ]
    if "median" in seconds:
        least, most = f"{seconds['least']:.1f}", f"{seconds['most']:.1f}"
        spread = f"From {least} to {most} seconds long, median {seconds['median']:.1f}."
        lines.append(spread if least != most else f"All {least} seconds long.")
    html = (
        environment()
        .get_template("folder.html")
        .render(
            lines=[*lines, *summary["notes"]],
            figures=rendered([class_panel(summary["classes"])]),
            classes=summary["classes"],
            unreadable=summary["unreadable"],
        )
    )
    return Section("videos", "Videos", Markup(html))


def class_panel(classes: Sequence[Mapping[str, Any]]) -> Panel:
    """Bars of the videos of each class, the largest first."""
    rows = sorted(classes, key=lambda row: -row["train"] - row["held_out"])
    caption = "Largest first; orange: held out of training, to validate and test on."
    if len(rows) > _MAX_BARS:
        half = _MAX_BARS // 2
        caption += f" The {half} largest and the {half} smallest of {len(rows)}."
        rows = [*rows[:half], *rows[-half:]]
    return Panel("Videos of each class", caption, 5, 0.9 + 0.22 * len(rows), partial(_draw, rows=rows))


def _draw(figure: FigureBase, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes: Axes = figure.subplots()
    axes.grid(axis="x", color=FAINT)
    places = range(len(rows))
    train = [row["train"] for row in rows]
    held_out = [row["held_out"] for row in rows]
    axes.barh(places, train, color=BLUE, label="trained on")
    axes.barh(places, held_out, left=train, color=ORANGE, label="held out")
    axes.set_yticks(places, [one_line(row["name"], 32) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("videos")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
