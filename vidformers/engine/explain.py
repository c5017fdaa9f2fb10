"""Why a model answers as it does for a video: the clip that it sees, and a map of what counts in it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from vidformers.analysis.explain import explain_clips
from vidformers.config.values import nearest
from vidformers.data.readers import open_video
from vidformers.data.readers.base import frame_seconds
from vidformers.data.views import gather_views
from vidformers.engine.predict import Predictor, video_path
from vidformers.layers.checks import check_choice

_SPREAD_RATE = 4.0  # frames a second, to show clips whose frames are spread over a whole video


@dataclass(frozen=True)
class VideoExplanation:
    """What one view of a video shows, and what of it counts.

    frames: uint8 (T, h, w, 3), the crop that the model sees. heat_map: float32 (T, h, w), not negative.
    class_name: the class explained (of rollout: the answer), with its `probability`; `answer` is what the
    model says of this view. frames_per_second: at which the clip runs as the video does. seconds: (T,), when
    each frame comes in the video, after its first one.
    """

    path: str
    method: str
    class_name: str
    probability: float
    answer: str
    frames: np.ndarray
    heat_map: np.ndarray
    frames_per_second: float
    seconds: np.ndarray

    def save(self, folder: str | os.PathLike[str], stem: str | None = None) -> list[Path]:
        """Write `stem`.png (a strip), .gif and .mp4 of the map over the frames; returns their paths."""
        from vidformers.report.overlays import save_overlays

        return save_overlays(
            Path(folder),
            stem or f"{Path(self.path).stem}_{self.method}",
            self.frames,
            self.heat_map,
            frames_per_second=self.frames_per_second,
            seconds=self.seconds.tolist(),
            title=f"{self.class_name} {100 * self.probability:.1f} %, {self.method}, {Path(self.path).name}",
        )


def explain(
    model: nn.Module | str | os.PathLike[str] | Predictor,
    video: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    method: str = "relevance",
    class_name: str | None = None,
    view: int | None = None,
    device: str = "auto",
) -> VideoExplanation:
    """Which frames and places of one view of a video the answer comes from.

    `explain(model, "video.mp4").save("folder")`. model, weights, labels, device: as of `Predictor`; one that
    is made already may be given instead. method: "rollout", "relevance" or "gradcam" (`explain_clips` says
    what they are). class_name: a class or the number of one; None: the answer. view: the number of a temporal
    view of the protocol, of which the centre crop is shown; None: the middle one.

    Raises VideoReadError for a video that cannot be read; ValueError, with the nearest name, for a class that
    there is not, for a view that there is not, and for a class with rollout, which has none.
    """
    check_choice("method", method, ("rollout", "relevance", "gradcam"))
    path = video_path(video)
    predictor = model
    if not isinstance(predictor, Predictor):
        predictor = Predictor(predictor, weights=weights, labels=labels, device=device)
    if class_name is not None and method == "rollout":
        raise ValueError(
            f"class {class_name!r} with method 'rollout', which is the same for every class; use 'relevance' "
            "or 'gradcam'"
        )
    label = None if class_name is None else class_number(class_name, predictor.class_names)
    protocol = predictor.protocol
    if view is not None and not 0 <= view < protocol.num_temporal_views:
        raise ValueError(f"view {view} is none of the {protocol.num_temporal_views} views, 0 and following")

    chosen: list[np.ndarray] = []

    def note(indices: np.ndarray, _: int) -> np.ndarray:
        chosen.append(indices)
        return indices

    views = predictor.views(path, note)
    with open_video(path, predictor.backend) as reader:
        moments = frame_seconds(reader)
    number, num_crops = len(views.view_index), len(views.crops)
    row = (number // 2 if view is None else view) * num_crops + num_crops // 2
    clip = gather_views(views, [row], mean=protocol.mean, std=protocol.std, device=predictor.device)
    probabilities = predictor.score(clip)[0]
    answer = int(probabilities.argmax())
    label = answer if label is None else label
    explanation = explain_clips(predictor.model, clip, method=method, class_index=[label])
    top, left, height, width = views.crops[row % num_crops].tolist()
    frames = views.frames[views.view_index[row // num_crops], top : top + height, left : left + width]
    rate = protocol.target_fps / protocol.sampling_rate
    return VideoExplanation(
        path=path,
        method=method,
        class_name=predictor.class_names[label],
        probability=float(probabilities[label]),
        answer=predictor.class_names[answer],
        frames=frames.round().clamp(0, 255).byte().cpu().numpy(),
        heat_map=explanation.maps[0].numpy(),
        frames_per_second=_SPREAD_RATE if protocol.temporal_sampling == "segment" else rate,
        seconds=moments[chosen[0][row // num_crops]],
    )


def class_number(name: str, class_names: Sequence[str]) -> int:
    """The label of a class by its name, or by its number. Raises ValueError with the nearest name."""
    if name in class_names:
        return class_names.index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    guess = nearest(name, class_names)
    raise ValueError(
        f"no class is named {name!r}{f' (did you mean {guess!r}?)' if guess else ''}; there are "
        f"{len(class_names)}, such as {', '.join(map(repr, class_names[:5]))}; or give a number from 0 to "
        f"{len(class_names) - 1}"
    )
