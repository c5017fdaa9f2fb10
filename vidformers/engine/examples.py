"""Explained examples of a test, for its report: the surest wrong answers, and the surest right ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vidformers.analysis.explain import explain_clips
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.views import gather_views
from vidformers.engine.predictions import Predictions

_OF_EACH_KIND = 3


def chosen_videos(predictions: Predictions) -> list[int]:
    """At most three videos with a wrong answer and three with a right one, the surest first."""
    scores = predictions.ensemble()
    sure = np.where(predictions.failed, -1.0, scores.max(axis=1))
    right = scores.argmax(axis=1) == predictions.labels
    order = [int(video) for video in np.argsort(-sure, kind="stable") if sure[video] >= 0]
    kinds = ([v for v in order if not right[v]], [v for v in order if right[v]])
    return [video for kind in kinds for video in kind[:_OF_EACH_KIND]]


def explain_examples(
    model: nn.Module,
    dataset: TestVideos,
    predictions: Predictions,
    path: Path,
    *,
    method: str,
    class_names: Sequence[str] | None,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> int:
    """Write explained middle views of the chosen videos to `path`, for the report; returns how many.

    Raises ValueError for a model that `method` cannot explain, and for sets of labels.
    """
    from vidformers.report.overlays import overlay
    from vidformers.report.testing import save_examples

    if predictions.labels.ndim == 2:
        raise ValueError("the videos have several labels each; explain one of them with tools/explain.py")
    titles, shown, lit = [], [], []
    scores = predictions.ensemble()
    for video in chosen_videos(predictions):
        views = dataset[video]
        num_crops = len(views.crops)
        row = len(views.view_index) // 2 * num_crops + num_crops // 2
        answer = int(scores[video].argmax())
        clip = gather_views(views, [row], mean=mean, std=std, device=device)
        heat_map = explain_clips(model, clip, method=method, class_index=[answer]).maps[0].numpy()
        top, left, height, width = views.crops[row % num_crops].tolist()
        frames = views.frames[views.view_index[row // num_crops], top : top + height, left : left + width]
        shown.append(frames.round().clamp(0, 255).byte().numpy())
        lit.append(overlay(shown[-1], heat_map))
        titles.append(_title(predictions, video, answer, float(scores[video, answer]), class_names))
    if shown:
        save_examples(path, titles, np.stack(shown), np.stack(lit))
    return len(shown)


def _title(
    predictions: Predictions, video: int, answer: int, sure: float, class_names: Sequence[str] | None
) -> str:
    label = int(predictions.labels[video])
    own, said = (class_names[k] if class_names else f"class {k}" for k in (label, answer))
    taken = "" if answer == label else f", taken for {said}"
    return f"{predictions.video_ids[video]}: {own}{taken} ({100 * sure:.0f} %)"
