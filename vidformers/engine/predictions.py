"""The predictions table: scores of every view of every video, and every number that is computed from it.

Legend: N videos, V views (temporal views x spatial crops, view row = temporal * num_crops + crop), K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np

from vidformers.data.records import Record
from vidformers.files import written_whole


@dataclass
class Predictions:
    """Class probabilities of every view; rows of unreadable videos are NaN and `failed` says so."""

    video_ids: list[str]
    labels: np.ndarray  # (N,) int64; (N, K) bool if a video has a set of labels
    view_scores: np.ndarray  # (N, V, K) float32 probabilities
    failed: np.ndarray  # (N,) bool
    num_temporal_views: int
    num_spatial_crops: int
    ensemble_method: Literal["sum", "max"] = "sum"

    def ensemble(self, temporal_views: Sequence[int] | None = None) -> np.ndarray:
        """(N, K): mean or maximum over the given temporal views (all when None) and all their crops.

        The mean orders the classes as PySlowFast's sum does, and stays a probability.
        """
        num_videos, _, num_classes = self.view_scores.shape
        views = self.view_scores.reshape(
            num_videos, self.num_temporal_views, self.num_spatial_crops, num_classes
        )
        if temporal_views is not None:
            views = views[:, list(temporal_views)]
        return views.max(axis=(1, 2)) if self.ensemble_method == "max" else views.mean(axis=(1, 2))

    def save(self, path: Path) -> None:
        """Write an npz without pickle: the fields of this table, and `scores`, the ensemble."""
        with written_whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                video_ids=np.array(self.video_ids, dtype=np.str_),
                labels=self.labels,
                view_scores=self.view_scores,
                scores=self.ensemble(),
                failed=self.failed,
                num_temporal_views=self.num_temporal_views,
                num_spatial_crops=self.num_spatial_crops,
            )


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(N,) whether the label is among the k highest of (N, K) scores; a NaN row never hits; k > K means K.

    Of a set of labels one is enough. A tie counts against the label, so that constant scores do not look like
    knowledge.
    """
    num_classes = scores.shape[1]
    is_label = labels if labels.ndim == 2 else labels[:, None] == np.arange(num_classes)
    own = np.where(is_label, scores, -np.inf).max(axis=1)
    rank = 1 + ((scores >= own[:, None]) & ~is_label).sum(axis=1)  # 1 = best
    return np.isfinite(own) & (rank <= min(k, num_classes))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,): for each class the mean, over its videos, of the precision among all that score as high; NaN for
    a class without videos.

    scores (N, K), labels (N, K) bool. scikit-learn's average_precision_score (no interpolation, equal scores
    are one threshold), which PySlowFast averages over the classes. A video with NaN scores ranks last.
    """
    result = np.full(scores.shape[1], np.nan)
    for label in np.flatnonzero(labels.any(axis=0)):
        column = np.where(np.isnan(scores[:, label]), -np.inf, scores[:, label])
        order = np.argsort(-column, kind="stable")
        column, positive = column[order], labels[order, label]
        # The last place of each run of equal scores.
        ends = np.append(np.flatnonzero(column[1:] != column[:-1]), len(column) - 1)
        found = positive.cumsum()[ends]
        result[label] = (np.diff(found, prepend=0) * found / (ends + 1)).sum() / positive.sum()
    return result


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision in percent over the classes that occur; NaN if none does."""
    occurring = labels.any(axis=0)
    return float(average_precisions(scores, labels)[occurring].mean() * 100) if occurring.any() else np.nan


def mean_loss(predictions: Predictions) -> float:
    """Cross-entropy of the ensemble over the readable videos (binary, a class, for sets of labels)."""
    scores = predictions.ensemble()[~predictions.failed].clip(1e-12, 1)
    labels = predictions.labels[~predictions.failed]
    if not len(labels):
        return float("nan")
    if labels.ndim == 2:
        return float(-np.where(labels, np.log(scores), np.log((1 - scores).clip(1e-12))).mean())
    return float(-np.log(scores[np.arange(len(labels)), labels]).mean())


def label_array(records: Sequence[Record], num_classes: int) -> np.ndarray:
    """The labels of a list as `Predictions` has them."""
    if not records or records[0].labels is None:
        return np.array([record.label for record in records], dtype=np.int64)
    return np.array([[k in (r.labels or ()) for k in range(num_classes)] for r in records], dtype=bool)


def accuracy(hits: np.ndarray, among: np.ndarray | None = None) -> float:
    """Percent of true entries, over those in `among` when given; NaN over nothing."""
    chosen = hits if among is None else hits[among]
    return float(chosen.mean() * 100) if len(chosen) else float("nan")


def confidence_interval_95(hits: np.ndarray) -> tuple[float, float]:
    """Wilson score interval of a share, in percent."""
    n, z = len(hits), 1.959964
    if n == 0:
        return float("nan"), float("nan")
    p = float(hits.mean())
    centre, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, (centre - spread) * scale), min(100.0, (centre + spread) * scale)


def evenly_spaced_views(count: int, total: int) -> list[int]:
    """`count` of `total` temporal views, spread over the video: 1 of 5 -> [2], 3 of 5 -> [0, 2, 4]."""
    if count == 1:
        return [total // 2]
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def summarize(predictions: Predictions, class_names: Sequence[str] | None) -> dict[str, object]:
    """The numbers of `test_results.json`; top-1 and top-5 in percent over *all* videos of the list.

    An unreadable video counts as wrong there, and is left out in `top1_readable` and `top5_readable`. Where
    videos have sets of labels, top-k asks for one of them, and `map` is the mean average precision (percent;
    unreadable videos rank last).
    """
    labels, readable = predictions.labels, ~predictions.failed
    multi_label = labels.ndim == 2
    scores = predictions.ensemble()
    top1, top5 = topk_hits(scores, labels, 1), topk_hits(scores, labels, 5)
    by_views: list[dict[str, object]] = []
    for count in range(1, predictions.num_temporal_views + 1):
        chosen = evenly_spaced_views(count, predictions.num_temporal_views)
        some = predictions.ensemble(chosen)
        by_views.append(
            {
                "num_temporal_views": count,
                "num_spatial_crops": predictions.num_spatial_crops,
                "temporal_views": chosen,
                "top1": accuracy(topk_hits(some, labels, 1)),
                "top5": accuracy(topk_hits(some, labels, 5)),
            }
        )
        if multi_label:
            by_views[-1]["map"] = mean_average_precision(some, labels)
    members = (
        {int(k): labels[:, k] for k in np.flatnonzero(labels.any(axis=0))}
        if multi_label
        else {int(k): labels == k for k in np.unique(labels)}
    )
    per_class: list[dict[str, object]] = [
        {
            "label": label,
            "name": class_names[label] if class_names and label < len(class_names) else str(label),
            "num_videos": int(among.sum()),
            "top1": accuracy(top1, among),
        }
        for label, among in members.items()
    ]
    precision: dict[str, object] = {}
    if multi_label:
        of_class = average_precisions(scores, labels)
        for row in per_class:
            row["average_precision"] = float(of_class[int(row["label"])] * 100)  # type: ignore[call-overload]
        precision["map"] = mean_average_precision(scores, labels)
        precision["map_readable"] = mean_average_precision(scores[readable], labels[readable])
    return {
        **precision,
        "top1": accuracy(top1),
        "top5": accuracy(top5),
        "top1_confidence_95": list(confidence_interval_95(top1)),
        "top1_readable": accuracy(top1, readable),
        "top5_readable": accuracy(top5, readable),
        "mean_class_top1": float(np.mean([accuracy(top1, among) for among in members.values()]))
        if per_class
        else float("nan"),
        "num_videos": len(labels),
        "num_classes": scores.shape[1],
        "num_failed": int(predictions.failed.sum()),
        "num_views": predictions.num_temporal_views * predictions.num_spatial_crops,
        "num_temporal_views": predictions.num_temporal_views,
        "num_spatial_crops": predictions.num_spatial_crops,
        "ensemble_method": predictions.ensemble_method,
        "accuracy_by_num_views": by_views,
        "per_class": per_class,
    }
