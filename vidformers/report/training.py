"""What log.jsonl tells of a training run: its epochs, its steps, and the figures of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplejson

from vidformers.report.figures import BLUE, FAINT, GREEN, MUTED, ORANGE, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingLog:
    """steps: the "train" lines, each with `at` (epochs done, a fraction) and `interval_loss`, the mean loss
    since the line before; epochs: the "val" lines. Of what was done twice, after an interruption, the last.
    """

    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


def read_log(path: Path) -> TrainingLog:
    """The training lines of log.jsonl; a line that was cut off by a crash is passed over."""
    steps: dict[tuple[int, int], dict[str, Any]] = {}
    epochs: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = simplejson.loads(line)
        except ValueError:
            continue
        if row["event"] == "train":
            steps[row["epoch"], row["step"]] = row
        elif row["event"] == "val":
            epochs[row["epoch"]] = row
    longest = max((step for _, step in steps), default=1)
    before: Row = {"epoch": 0}
    for place in sorted(steps):
        row = steps[place]
        row["at"] = row["epoch"] - 1 + row["step"] / longest
        row["interval_loss"] = _loss_since(before, row)
        before = row
    return TrainingLog([steps[place] for place in sorted(steps)], [epochs[epoch] for epoch in sorted(epochs)])


def _loss_since(before: Row, row: Row) -> float | None:
    """The mean loss of the steps between two lines of an epoch, whose losses are means from its beginning."""
    if row["loss"] is None or before["epoch"] != row["epoch"] or before["loss"] is None:
        return row["loss"]
    first, last = before["step"], row["step"]
    return (row["loss"] * last - before["loss"] * first) / (last - first)


def training_panels(log: TrainingLog) -> list[Panel]:
    """The plots that this log has the numbers for, in reading order."""
    texts = (
        (
            "Loss",
            "Training: mean of the steps since the line before, of augmented (mixed, dropped) clips, and so "
            "often above the validation's: the centre view, nothing dropped.",
            3.4,
            "loss",
            _LOSS,
        ),
        ("Validation top-1", "Percent of the validation videos, one view each.", 3.4, "top-1 (%)", _TOP1),
        (
            "Learning rate",
            "Of the last layer, where the rates of the layers differ.",
            2.8,
            "learning rate",
            _RATE,
        ),
        (
            "Waiting for data",
            "Share of the time in which the model waited for videos, from the beginning of each epoch. High "
            "values: more DATA_LOADER.NUM_WORKERS, or smaller videos (docs/reading_videos.md).",
            2.8,
            "share of the time (%)",
            _WAIT,
        ),
    )
    return [
        Panel(title, caption, 5, height, partial(_draw_curves, log=log, label=label, curves=curves))
        for title, caption, height, label, curves in texts
        if any(y is not None for curve in curves for _, y in curve.rows(log))
    ]


@dataclass(frozen=True)
class _Curve:
    """One line of a plot: from the steps, or from the validations (marked by dots)."""

    name: str
    rows: Callable[[TrainingLog], Sequence[tuple[float, float | None]]]
    color: str
    marker: str = ""


def _of_steps(key: str, factor: float = 1.0) -> Callable[[TrainingLog], list[tuple[float, float | None]]]:
    return lambda log: [(row["at"], None if row.get(key) is None else factor * row[key]) for row in log.steps]


def _of_epochs(key: str) -> Callable[[TrainingLog], list[tuple[float, float | None]]]:
    return lambda log: [(row["epoch"], row.get(key)) for row in log.epochs]


_LOSS = (
    _Curve("training", _of_steps("interval_loss"), MUTED),
    _Curve("validation", _of_epochs("loss"), BLUE, "o"),
    _Curve("validation, averaged weights", _of_epochs("ema_loss"), ORANGE, "s"),
)
_TOP1 = (
    _Curve("weights", _of_epochs("top1"), BLUE, "o"),
    _Curve("averaged weights", _of_epochs("ema_top1"), ORANGE, "s"),
)
_RATE = (_Curve("learning rate", _of_steps("lr"), GREEN),)
_WAIT = (_Curve("waiting", _of_steps("waiting_for_data", 100.0), MUTED),)


def _draw_curves(figure: FigureBase, log: TrainingLog, label: str, curves: Sequence[_Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes: Axes = figure.subplots()
    axes.grid(color=FAINT)
    drawn = 0
    for curve in curves:
        points = [(x, y) for x, y in curve.rows(log) if y is not None]
        if points:
            x, y = zip(*points, strict=True)
            marker = curve.marker if len(points) <= 60 else ""
            # A single point would be no line to see.
            axes.plot(x, y, color=curve.color, marker=marker or ("o" if len(points) == 1 else ""),
                      markersize=3.5, linewidth=1.4, label=curve.name, clip_on=False)  # fmt: skip
            drawn += 1
    if drawn > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=drawn, columnspacing=1.4)
    if label.endswith("(%)"):
        axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epochs")
    axes.set_ylabel(label)
