"""The part of the report about a test: accuracies, who is taken for whom, calibration, explained examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from vidformers.analysis.statistics import calibration_error
from vidformers.files import written_whole
from vidformers.report.html import Section, environment, rendered
from vidformers.report.strips import strip_markup
from vidformers.report.testing_figures import more_than_five_classes, panels_of_test

MAX_MATRIX = 40  # classes; a larger matrix is a picture, not a table
_MAX_PAIRS = 30


@dataclass(frozen=True)
class TestScores:
    """Of the readable videos of a test: labels (N,), and the ensemble's scores (N, K)."""

    __test__ = False  # pytest takes classes named Test* for tests

    labels: np.ndarray
    scores: np.ndarray

    def confusions(self) -> np.ndarray:
        """(K, K) numbers of videos by class (row) and answer (column)."""
        counts = np.zeros((self.scores.shape[1],) * 2, dtype=np.int64)
        np.add.at(counts, (self.labels, self.scores.argmax(axis=1)), 1)
        return counts

    def confidence(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) the probability of the answer, and whether it is right."""
        return self.scores.max(axis=1).clip(0, 1), self.scores.argmax(axis=1) == self.labels


def read_scores(path: Path) -> TestScores | None:
    """What a predictions.npz holds; None where videos have sets of labels, or none could be read."""
    with np.load(path) as saved:
        labels, scores, readable = saved["labels"], saved["scores"], ~saved["failed"]
    if labels.ndim == 2 or not readable.any():
        return None
    return TestScores(labels[readable], scores[readable])


def save_examples(path: Path, titles: Sequence[str], frames: np.ndarray, overlays: np.ndarray) -> None:
    """Keep explained clips for the report: both uint8 (n, T, h, w, 3), a title each."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, titles=np.array(titles, dtype=np.str_), frames=frames, overlays=overlays)


def test_section(
    results: Mapping[str, Any], scores: TestScores | None, examples: Path | None = None
) -> Section:
    """What test_results.json says, by number of views and by class, and who is taken for whom.

    scores: of predictions.npz; examples: a file of `save_examples`.
    """
    names = {row["label"]: row["name"] for row in results["per_class"]}
    confusions = None if scores is None else scores.confusions()
    order = None if confusions is None else confusion_order(confusions)
    classes = [
        {**row, "taken_for": taken_for(confusions, row["label"], names)} for row in results["per_class"]
    ]
    html = (
        environment()
        .get_template("test.html")
        .render(
            lines=_lines(results, scores),
            figures=rendered(panels_of_test(results, scores, confusions, order, max_matrix=MAX_MATRIX)),
            views=results["accuracy_by_num_views"],
            top5=more_than_five_classes(results),
            classes=classes,
            precision="map" in results,
            confused=confusions is not None,
            matrix=None if confusions is None or order is None else matrix(confusions, order, names),
            pairs=[] if confusions is None else confused_pairs(confusions, names),
            examples=[] if examples is None else _examples(examples),
        )
    )
    return Section("test", "Test", Markup(html))


# Called what it makes, as the other sections are; it is no test.
test_section.__test__ = False  # type: ignore[attr-defined]


def _lines(results: Mapping[str, Any], scores: TestScores | None) -> list[str]:
    low, high = results["top1_confidence_95"]
    top5 = f", top-5 {_number(results['top5'])} %" if more_than_five_classes(results) else ""
    lines = [
        f"Top-1 {_number(results['top1'])} % (95 % interval {_number(low, 1)} to {_number(high, 1)}){top5}, "
        f"over {results['num_videos']} videos of {results['videos']}.",
        f"{results['num_temporal_views']} temporal views x {results['num_spatial_crops']} spatial crops of "
        f"{results['num_frames']} frames, weights of {results['checkpoint'] or 'random initialisation'}.",
    ]
    if "map" in results:
        lines.insert(0, f"Mean average precision {_number(results['map'])} %.")
    if results["num_failed"]:
        lines.append(
            f"{results['num_failed']} videos could not be read and count as wrong; over the others top-1 is "
            f"{_number(results['top1_readable'])} %."
        )
    if scores is not None:
        confidence, right = scores.confidence()
        surplus = 100 * float(confidence.mean() - right.mean())
        how = "too sure" if surplus > 0 else "not sure enough"
        lines.append(
            f"Expected calibration error {100 * calibration_error(confidence, right):.1f} %: the mean "
            f"confidence is {100 * confidence.mean():.1f} %, {abs(surplus):.1f} points {how}."
        )
    return lines


def taken_for(confusions: np.ndarray | None, label: int, names: Mapping[int, str]) -> dict[str, Any]:
    """The class that videos of `label` are wrongly taken for most often, and how many are."""
    if confusions is None:
        return {"name": "", "count": 0}
    row = confusions[label].copy()
    row[label] = 0
    answer = int(row.argmax())
    count = int(row[answer])
    return {"name": names.get(answer, str(answer)) if count else "", "count": count}


def confused_pairs(confusions: np.ndarray, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most often, the worst first.

    name is the class of which more are taken for the other; `back` of the other are taken for it.
    """
    both = np.triu(confusions + confusions.T, k=1)
    firsts, seconds = np.nonzero(both)
    ranked = sorted(zip(firsts.tolist(), seconds.tolist(), strict=True), key=lambda pair: (-both[pair], pair))
    rows = []
    for pair in ranked[:_MAX_PAIRS]:
        one, other = pair if confusions[pair] >= confusions[pair[::-1]] else pair[::-1]
        rows.append(
            {
                "name": names.get(one, str(one)),
                "other": names.get(other, str(other)),
                "count": int(confusions[one, other]),
                "share": 100 * int(confusions[one, other]) / int(confusions[one].sum()),
                "back": int(confusions[other, one]),
                "total": int(both[pair]),
            }
        )
    return rows


def confusion_order(confusions: np.ndarray) -> list[int]:
    """The classes that occur, as label or as answer, so ordered that those often confused are neighbours.

    Average linkage of the shares of each other's videos, with optimal leaf order (Bar-Joseph et al. 2001);
    where nothing is confused the classes' own order.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    occurring = np.flatnonzero(confusions.any(axis=0) | confusions.any(axis=1))
    if len(occurring) < 3 or confusions.sum() == confusions.trace():
        return occurring.tolist()
    shares = confusions[np.ix_(occurring, occurring)].astype(float)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    distance = 2 - shares - shares.T
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    return occurring[leaves_list(tree)].tolist()


def matrix(confusions: np.ndarray, order: Sequence[int], names: Mapping[int, str]) -> dict[str, Any] | None:
    """Rows and columns of the classes in `order`; None if they are none or too many for a table."""
    if not 0 < len(order) <= MAX_MATRIX:
        return None
    rows = []
    for label in order:
        total = max(1, int(confusions[label].sum()))
        cells = [
            {
                "count": int(confusions[label, answer]),
                "share": round(100 * int(confusions[label, answer]) / total),
                "right": label == answer,
            }
            for answer in order
        ]
        rows.append({"name": names.get(label, str(label)), "cells": cells})
    return {"columns": [names.get(label, str(label)) for label in order], "rows": rows}


def _examples(path: Path) -> list[dict[str, Any]]:
    with np.load(path) as saved:
        titles, frames, overlays = saved["titles"].tolist(), saved["frames"], saved["overlays"]
    return [
        {"title": title, "strip": strip_markup([clip, lit], f"{title}: frames, and the map over them")}
        for title, clip, lit in zip(titles, frames, overlays, strict=True)
    ]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
