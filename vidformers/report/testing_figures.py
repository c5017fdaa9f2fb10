"""Figures of a test: accuracy by class and by number of views, calibration, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vidformers.report.figures import BLUE, FAINT, INK, MUTED, ORANGE, Panel
from vidformers.report.summary import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from vidformers.report.testing import TestScores

NUM_BINS = 15  # of the calibration, as of `calibration_error`
_MAX_DOTS = 2000  # of a picture of confusions


def more_than_five_classes(results: Mapping[str, Any]) -> bool:
    """Whether top-5 says anything (older results do not say how many there are: those that occur)."""
    return results.get("num_classes", len(results["per_class"])) > 5


def panels_of_test(
    results: Mapping[str, Any],
    scores: TestScores | None,
    confusions: np.ndarray | None,
    order: Sequence[int] | None,
    *,
    max_matrix: int,
) -> list[Panel]:
    """The plots that this test has the numbers for, in reading order. order: of the classes that occur; up to
    `max_matrix` of them are a table in the page, and no picture."""
    panels = []
    key = "average_precision" if "map" in results else "top1"
    classes = sorted(
        (row for row in results["per_class"] if row.get(key) is not None),
        key=lambda row: (-row[key], row["label"]),
    )
    if classes:
        name = {"average_precision": "average precision (%)", "top1": "top-1 (%)"}[key]
        few = len(classes) <= max_matrix
        mean = float(np.mean([row[key] for row in classes]))
        caption = f"Best first; the line is their mean, {mean:.1f} %." + (
            "" if few else f" The worst of the {len(classes)}: "
            f"{', '.join(one_line(row['name'], 24) for row in classes[:-6:-1])}."
        )  # fmt: skip
        height = 0.9 + 0.19 * len(classes) if few else 3.0
        panels.append(
            Panel("Accuracy by class", caption, 5, height,
                  partial(_draw_classes, rows=classes, key=key, name=name, named=few))
        )  # fmt: skip
    if scores is not None:
        panels.append(
            Panel(
                "Calibration",
                "Videos in bins by the probability of their answer: how many of them are right (the larger "
                "the dot, the more videos). On the dotted line the model is as sure as it is right; below, "
                "it is too sure.",
                5,
                3.6,
                partial(_draw_calibration, scores=scores),
            )
        )
    if len(results["accuracy_by_num_views"]) > 1:
        panels.append(
            Panel(
                "Accuracy by number of views",
                "The same predictions, over evenly spread ones of the temporal views.",
                5,
                2.8,
                partial(
                    _draw_views,
                    rows=results["accuracy_by_num_views"],
                    top5=more_than_five_classes(results),
                ),
            )
        )
    if confusions is not None and order is not None and len(order) > max_matrix:
        panels.append(
            Panel(
                "Who is taken for whom",
                "A row a class, a column an answer; what is often confused lies side by side. The larger a "
                "dot, the larger the share of the row's videos that is taken for the column's class. Right "
                "answers would lie on the line. The pairs are named below.",
                7,
                6.6,
                partial(_draw_confusions, confusions=confusions, order=order),
            )
        )
    return panels


def _draw_classes(
    figure: FigureBase, rows: Sequence[Mapping[str, Any]], key: str, name: str, named: bool
) -> None:
    axes: Axes = figure.subplots()
    values = [row[key] for row in rows]
    places = np.arange(len(rows))
    if named:
        axes.barh(places, values, height=0.7, color=BLUE)
        axes.axvline(float(np.mean(values)), color=INK, linewidth=1)
        axes.set_yticks(places, [one_line(row["name"], 28) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel(name)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        return
    axes.fill_between(places, values, step="mid", color=BLUE, linewidth=0)
    axes.axhline(float(np.mean(values)), color=INK, linewidth=1)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(0, 100)
    axes.set_xlabel("classes, sorted")
    axes.set_ylabel(name)
    axes.grid(axis="y")


def calibration_bins(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean confidence, share that is right, videos) of each bin that has videos."""
    bins = np.clip(np.ceil(np.round(confidence * NUM_BINS, 6)).astype(int) - 1, 0, NUM_BINS - 1)
    members = [bins == index for index in range(NUM_BINS)]
    return [
        (float(confidence[among].mean()), float(right[among].mean()), int(among.sum()))
        for among in members
        if among.any()
    ]


def _draw_calibration(figure: FigureBase, scores: TestScores) -> None:
    axes: Axes = figure.subplots()
    bins = calibration_bins(*scores.confidence())
    sure, right, counts = (np.array(column) for column in zip(*bins, strict=True))
    axes.plot([0, 100], [0, 100], color=MUTED, linestyle=":", linewidth=1.2)
    axes.vlines(100 * sure, 100 * sure, 100 * right, color=ORANGE, linewidth=1.2)
    axes.scatter(100 * sure, 100 * right, s=12 + 110 * counts / counts.max(), color=BLUE, zorder=3)
    axes.set_xlim(0, 102)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("probability of the answer (%)")
    axes.set_ylabel("right (%)")
    axes.grid(color=FAINT)


def _draw_views(figure: FigureBase, rows: Sequence[Mapping[str, Any]], *, top5: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes: Axes = figure.subplots()
    views = [row["num_temporal_views"] for row in rows]
    curves = (("top1", "top-1", BLUE, "o"), ("top5", "top-5", ORANGE, "s"))
    for key, label, color, marker in curves if top5 else curves[:1]:
        values = [row[key] for row in rows]
        axes.plot(views, values, color=color, marker=marker, markersize=4, label=label, clip_on=False)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))  # nothing is above 100 %
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"temporal views (x {rows[0]['num_spatial_crops']} spatial)")
    axes.set_ylabel("accuracy (%)" if top5 else "top-1 (%)")
    axes.grid()
    if top5:
        figure.legend(loc="outside lower center", ncols=2)


def _draw_confusions(figure: FigureBase, confusions: np.ndarray, order: Sequence[int]) -> None:
    axes: Axes = figure.subplots()
    shares = confusions[np.ix_(order, order)].astype(float)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    largest = np.argsort(-shares, axis=None)[: min(_MAX_DOTS, np.count_nonzero(shares))]
    rows, columns = np.unravel_index(largest, shares.shape)
    found = shares[rows, columns]
    last = len(order) - 0.5
    axes.plot([-0.5, last], [-0.5, last], color=BLUE, linewidth=1)
    # Areas as large as shares, and a dot for the least of them: a cell of 400 x 400 would not be seen.
    axes.scatter(columns, rows, s=1.5 + 80 * found, color=ORANGE, linewidths=0)
    axes.set_xlim(-0.5, last)
    axes.set_ylim(last, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    axes.set_xticks([])
    axes.set_yticks([])
