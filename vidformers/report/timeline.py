"""A timeline as files: CSV with every number, JSON with what it amounts to, and a picture."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejson

from vidformers.engine.timeline import UNREADABLE
from vidformers.files import write_text_atomically
from vidformers.report.figures import (
    BLUE,
    FAINT,
    GREEN,
    INDIGO,
    MUTED,
    OLIVE,
    ORANGE,
    PINK,
    Panel,
    write_panels,
)
from vidformers.report.summary import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from vidformers.engine.timeline import Timeline

_COLORS = (BLUE, ORANGE, GREEN, PINK, OLIVE, INDIGO)
_TOP = 5  # answers of a window in the JSON
_STEPS = (15, 30, 60, 120, 300, 600, 1200, 1800, 3600)  # seconds between the marks of a long time axis
_VISIBLE = 0.05  # a curve that stays below this is no news


def timeline_csv(timeline: Timeline) -> str:
    """A row a window: start and end (seconds), the likeliest class, and the probability of every class; these
    are empty where the video is not readable."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["start_seconds", "end_seconds", "top1", *timeline.class_names])
    answers = timeline.probabilities.argmax(axis=1)
    for start, end, answer, row in zip(
        timeline.start_seconds, timeline.end_seconds, answers, timeline.probabilities, strict=True
    ):
        readable = not np.isnan(row[0])
        name = timeline.class_names[answer] if readable else ""
        numbers = [f"{value:.5f}" if readable else "" for value in row]
        writer.writerow([f"{start:.3f}", f"{end:.3f}", name, *numbers])
    return buffer.getvalue()


def timeline_json(timeline: Timeline) -> str:
    """The settings, the stretches over which the answer stays the same, and the best answers a window."""
    order = np.argsort(-timeline.probabilities, axis=1, kind="stable")[:, :_TOP]
    content = {
        "path": timeline.path,
        "duration_seconds": round(timeline.duration_seconds, 3),
        "window_seconds": round(timeline.window_seconds, 4),
        "hop_seconds": round(timeline.hop_seconds, 4),
        "damage": timeline.damage or None,
        "damaged_seconds": [[round(start, 3), round(end, 3)] for start, end in timeline.damaged_seconds],
        "peak_frames_held": timeline.peak_frames_held,
        "protocol": asdict(timeline.protocol),
        "segments": [
            {"start": round(start, 3), "end": round(end, 3), "class": name, "mean_probability": mean}
            for start, end, name, mean in timeline.segments()
        ],
        "windows": [
            {
                "start": round(float(start), 3),
                "end": round(float(end), 3),
                "top": [
                    {"class": timeline.class_names[label], "probability": float(row[label])}
                    for label in labels
                    if not np.isnan(row[label])
                ],
            }
            for start, end, row, labels in zip(
                timeline.start_seconds, timeline.end_seconds, timeline.probabilities, order, strict=True
            )
        ],
    }
    return simplejson.dumps(content, indent=2, ignore_nan=True) + "\n"


def timeline_panel(timeline: Timeline) -> Panel:
    """Probability of the classes that are the answer longest, and below it which one is the answer."""
    step = f"{timeline.window_seconds:.2f} s windows, every {timeline.hop_seconds:.2f} s"
    title = f"{one_line(os.path.basename(timeline.path), 60)}: {step}"
    return Panel(title, "", 9.0, 3.6, partial(_draw, timeline=timeline))


def write_timeline(timeline: Timeline, folder: Path, stem: str) -> list[Path]:
    """Write <stem>.csv, <stem>.json and, where matplotlib is there, <stem>.png; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.csv", folder / f"{stem}.json"]
    write_text_atomically(paths[0], timeline_csv(timeline))
    write_text_atomically(paths[1], timeline_json(timeline))
    try:
        write_panels([timeline_panel(timeline)], folder / f"{stem}.png")
    except ImportError:
        return paths
    return [*paths, folder / f"{stem}.png"]


def _shown_classes(timeline: Timeline) -> list[int]:
    """Labels to draw, those that are the answer most often before those that only come near."""
    readable = timeline.probabilities[~np.isnan(timeline.probabilities[:, 0])]
    if not len(readable):
        return []
    answers = np.bincount(readable.argmax(axis=1), minlength=len(timeline.class_names))
    peaks = readable.max(axis=0)
    order = np.lexsort((-peaks, -answers))[: len(_COLORS)]
    return [int(label) for label in order if peaks[label] >= _VISIBLE]


def _draw(figure: FigureBase, timeline: Timeline) -> None:
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    curves, strip = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [12, 1]})
    axes: Axes = curves
    axes.grid(color=FAINT)
    shown = _shown_classes(timeline)
    centres = (timeline.start_seconds + timeline.end_seconds) / 2
    marker = "o" if len(centres) <= 40 else ""
    for color, label in zip(_COLORS, shown, strict=False):
        axes.plot(centres, 100 * timeline.probabilities[:, label], color=color, linewidth=1.4, marker=marker,
                  markersize=3, label=one_line(timeline.class_names[label], 40))  # fmt: skip
    axes.set_ylim(0, 100)
    axes.set_ylabel("probability (%)")
    colors = dict(zip((timeline.class_names[label] for label in shown), _COLORS, strict=False))
    for start, end in timeline.damaged_seconds:
        axes.axvspan(start, end, facecolor="none", edgecolor=MUTED, hatch="///", linewidth=0)
    segments = [segment for segment in timeline.segments() if segment[2] != UNREADABLE]
    for start, end, name, _ in segments:
        strip.axvspan(start, end, color=colors.get(name, MUTED), linewidth=0)
    strip.set_yticks([])
    strip.set_ylabel("answer", rotation=0, ha="right", va="center")
    strip.set_xlim(0, timeline.duration_seconds)
    if timeline.duration_seconds >= 120:
        step = next((s for s in _STEPS if timeline.duration_seconds / s <= 9), 3600 * 6)
        strip.xaxis.set_major_locator(MultipleLocator(step))
        strip.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x // 60)}:{int(x % 60):02d}"))
        strip.set_xlabel("minutes:seconds")
    else:
        strip.set_xlabel("seconds")
    handles, names = axes.get_legend_handles_labels()
    hidden = len({name for _, _, name, _ in segments} - colors.keys())
    if timeline.damaged_seconds:
        handles.append(Patch(facecolor="none", edgecolor=MUTED, hatch="///"))
        names.append("video damaged")
    if hidden:
        handles.append(Patch(color=MUTED))
        names.append(f"{hidden} other classes")
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), columnspacing=1.4)
