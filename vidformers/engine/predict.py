"""The answer of a model for a video: every view of its testing protocol, decoded once, scored, averaged."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from vidformers.checkpoints.metadata import Protocol, class_probabilities
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.readers import VideoReadError
from vidformers.data.records import Record
from vidformers.data.views import VideoViews, gather_views
from vidformers.engine.build import resolve_device
from vidformers.engine.ready_model import ready_model
from vidformers.engine.test import autocast


@dataclass(frozen=True)
class Prediction:
    """What a model answers for one video.

    probabilities: float32 (K,), of the classes, over all views. view_probabilities: float32 (V, K), of each
    view; view v is temporal view v // num_spatial_crops and crop v % num_spatial_crops. class_names: in the
    order of the labels. damage: what is wrong with a video that could be read all the same; "" for nothing.
    """

    path: str
    probabilities: np.ndarray
    view_probabilities: np.ndarray
    class_names: list[str]
    protocol: Protocol
    damage: str = ""

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` likeliest classes with their probabilities, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[label], float(self.probabilities[label])) for label in order]


class Predictor:
    """A model, with the protocol and the class names that it needs to answer for videos.

    `predictor("video.mp4")` is the `Prediction` of one video. Attributes: model, name, protocol, class_names,
    device, multi_label (a video has a set of classes: each has a probability of its own, and they do not sum
    to 1), and notes: sentences for people on what was chosen for them.
    """

    def __init__(
        self,
        model: nn.Module | str | os.PathLike[str] | None = None,
        *,
        weights: str | os.PathLike[str] | None = None,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        num_temporal_views: int | None = None,
        num_spatial_crops: int | None = None,
        batch_size: int = 8,
        device: str = "auto",
        precision: str = "fp32",
        backend: str = "pyav",
    ) -> None:
        """
        Args:
            model: a model; or the name of one, its YAML file, or a weights file that says of which model it
                is (a checkpoint of a run, or what tools/convert_checkpoint.py has written).
            weights: any file that `load_weights` takes; needed with a name and a YAML file.
            labels: class names in the order of the logits, or a file of them (`read_label_file`); None: those
                in the weights.
            num_temporal_views, num_spatial_crops: None: those of the protocol, which is that of the weights,
                else of the YAML file of the model's name, else the usual one (`notes` says so).
            batch_size: clips that go through the model at once. precision: "fp32", "bf16" or "fp16".
            device: "auto" is where a given model is, else CUDA where there is one.
            backend: a reader of `open_video`.

        Raises ValueError and FileNotFoundError, for weights that do not fit and labels of another number.
        """
        ready = ready_model(model, weights=weights, labels=labels)
        self.name, self.notes = ready.name, ready.notes
        self.class_names = ready.class_names or [f"class {label}" for label in range(ready.num_classes)]
        self.device = resolve_device(device)
        if isinstance(model, nn.Module) and device == "auto":
            self.device = next(model.parameters()).device
        self.model = ready.model.to(self.device)
        self.protocol = replace(
            ready.protocol,
            num_temporal_views=num_temporal_views or ready.protocol.num_temporal_views,
            num_spatial_crops=num_spatial_crops or ready.protocol.num_spatial_crops,
        )
        self.batch_size = batch_size
        self.precision = precision
        self.backend = backend
        self.multi_label = ready.multi_label

    def __call__(self, video: str | os.PathLike[str]) -> Prediction:
        """The prediction for one video. Raises VideoReadError, whose `reason` and `detail` say why, and
        ValueError for what is no path."""
        path, protocol = video_path(video), self.protocol
        views = self.views(path)
        rows = range(views.num_views)
        parts = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        scores = np.concatenate(
            [
                self.score(
                    gather_views(views, part, mean=protocol.mean, std=protocol.std, device=self.device)
                )
                for part in parts
            ]
        )
        ensemble = scores.max(axis=0) if protocol.ensemble_method == "max" else scores.mean(axis=0)
        return Prediction(path, ensemble, scores, self.class_names, protocol, views.damage)

    def views(
        self, path: str, frame_rows: Callable[[np.ndarray, int], np.ndarray] = lambda views, _: views
    ) -> VideoViews:
        """All views of one video by the protocol, or other clips of it: `frame_rows` is that of
        `TestVideos.load`. Raises VideoReadError."""
        protocol = self.protocol
        dataset = TestVideos(
            [Record(path, 0, path)],
            num_frames=protocol.num_frames,
            sampling_rate=protocol.sampling_rate,
            target_fps=protocol.target_fps,
            temporal_sampling=protocol.temporal_sampling,
            use_offset=protocol.use_offset,
            num_views=protocol.num_temporal_views,
            num_crops=protocol.num_spatial_crops,
            short_side=protocol.short_side,
            crop_size=protocol.crop_size,
            resize_mode=protocol.resize_mode,
            backend=self.backend,
        )
        views = dataset.load(0, frame_rows)
        if views.failure:
            raise VideoReadError(path, *views.failure, self.backend)
        return views

    @torch.inference_mode()
    def score(self, clips: Tensor) -> np.ndarray:
        """Class probabilities, float32 (B, K), of normalised clips (B, 3, T, H, W)."""
        was_training = self.model.training
        self.model.eval()
        with autocast(self.device, self.precision):
            logits = self.model(clips)
        self.model.train(was_training)
        if not logits.isfinite().all():
            raise ValueError(
                f"{self.name} gives values that are not finite; its weights are damaged, or the precision "
                f"{self.precision} is too low (try fp32)"
            )
        return class_probabilities(logits, multi_label=self.multi_label).cpu().numpy()


def predict(
    model: nn.Module | str | os.PathLike[str],
    video: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    device: str = "auto",
) -> Prediction:
    """What `model` says of one video, over all views of its testing protocol.

    `predict(model, "video.mp4").top(5)`; the arguments are those of `Predictor`, which is what to make once
    for many videos. The model is as it was afterwards.
    """
    path = video_path(video)  # before a model is loaded
    return Predictor(model, weights=weights, labels=labels, device=device)(path)


def video_path(video: str | os.PathLike[str]) -> str:
    """The path of one video as text. ValueError, that says what takes them, for several and for clips."""
    if isinstance(video, str | os.PathLike):
        return os.fspath(video)
    advice = "for several make a vidformers.Predictor once and call it with each path"
    if isinstance(video, Tensor | np.ndarray):
        advice = "clips of pixels, normalised, go to vidformers.Predictor(...).score(clips), (B, 3, T, H, W)"
    raise ValueError(f"got a {type(video).__name__}; wanted the path of one video; {advice}")
