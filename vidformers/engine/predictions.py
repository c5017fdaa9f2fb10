"""The predictions table: scores of every view of every video, and every number that is computed from it.

Legend: N videos, V views (temporal views x spatial crops, view row = temporal * num_crops + crop), K classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np


@dataclass
class Predictions:
    """Class probabilities of every view; rows of unreadable videos are NaN and `failed` says so."""

    video_ids: list[str]
    labels: np.ndarray  # (N,) int64
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
        temporary = path.with_name(path.name + ".part")
        with open(temporary, "wb") as file:
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
        os.replace(temporary, path)


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(N,) whether the label is among the k highest of (N, K) scores; a NaN row never hits; k > K means K.

    A tie counts against the label, so that constant scores do not look like knowledge.
    """
    num_classes = scores.shape[1]
    own = scores[np.arange(len(labels)), labels][:, None]
    rank = (scores >= own).sum(axis=1)  # 1 = best; comparisons with NaN are False, which gives 0
    return (rank >= 1) & (rank <= min(k, num_classes))


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

    An unreadable video counts as wrong there, and is left out in `top1_readable` and `top5_readable`.
    """
    labels, readable = predictions.labels, ~predictions.failed
    scores = predictions.ensemble()
    top1, top5 = topk_hits(scores, labels, 1), topk_hits(scores, labels, 5)
    by_views = []
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
    per_class = [
        {
            "label": int(label),
            "name": class_names[label] if class_names and label < len(class_names) else str(label),
            "num_videos": int((labels == label).sum()),
            "top1": accuracy(top1, labels == label),
        }
        for label in np.unique(labels)
    ]
    return {
        "top1": accuracy(top1),
        "top5": accuracy(top5),
        "top1_confidence_95": list(confidence_interval_95(top1)),
        "top1_readable": accuracy(top1, readable),
        "top5_readable": accuracy(top5, readable),
        "mean_class_top1": float(np.mean([row["top1"] for row in per_class])) if per_class else float("nan"),
        "num_videos": len(labels),
        "num_failed": int(predictions.failed.sum()),
        "num_views": predictions.num_temporal_views * predictions.num_spatial_crops,
        "num_temporal_views": predictions.num_temporal_views,
        "num_spatial_crops": predictions.num_spatial_crops,
        "ensemble_method": predictions.ensemble_method,
        "accuracy_by_num_views": by_views,
        "per_class": per_class,
    }
