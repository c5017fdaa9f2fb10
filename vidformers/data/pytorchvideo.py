"""Bridges to pytorchvideo's data classes, in both directions. pytorchvideo is imported only when one is used.

- Our clips in their dataset: :class:`ViewClipSampler`, a ``ClipSampler``.
- Their samplers in our datasets: :class:`SamplerRule`, accepted wherever a temporal sampling rule is.
- Our reader in their dataset: :class:`ReaderPathHandler`.

    dataset = LabeledVideoDataset(paths, ViewClipSampler(num_frames=16, sampling_rate=4, num_views=5))
    dataset.video_path_handler = ReaderPathHandler()                       # our reader, their dataset
    test = TestVideos(records, temporal_sampling=SamplerRule(their_sampler), num_frames=16, ...)
    clip = ReaderVideo.from_path("video.mp4").get_clip(2.0, 4.5)["video"]  # as their EncodedVideo does it

The samples of their datasets are clips (C, T, H, W) on the scale 0..255: `transforms.normalize_clips` makes
of a batch of them what our models take.

pytorchvideo thinks in seconds and we in frames. Seconds become frames by its own rule: a clip holds the
frames with ``ceil(start / time_base) <= timestamp < ceil(end / time_base)``, computed with fractions. (With
floats a clip of 64/30 s has 63 or 64 frames, depending on where it starts.)
"""

from __future__ import annotations

import inspect
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from vidformers.data.readers import VideoReader, open_video

__all__ = ["ClipInfo", "ReaderPathHandler", "ReaderVideo", "SamplerRule", "ViewClipSampler", "sampler_clips"]


class ClipInfo(NamedTuple):
    """pytorchvideo's description of a clip, which its datasets unpack by position. Times are in seconds."""

    clip_start_sec: float | Fraction
    clip_end_sec: float | Fraction
    clip_index: int
    aug_index: int
    is_last_clip: bool


# ---- their samplers in our datasets


def sampler_clips(
    sampler: Callable[..., Any], duration: float | Fraction, *, annotation: dict[str, Any] | None = None
) -> list[ClipInfo]:
    """Every clip that a pytorchvideo sampler draws from a video of ``duration`` seconds.

    Works with pytorchvideo 0.1.5 and its development version, whose samplers name and start their first
    argument differently (``last_clip_time`` from 0.0, ``last_clip_end_time`` from None), and with samplers
    that return lists.

    Raises:
        ValueError: the sampler does not come to an end.
    """
    first = next(iter(inspect.signature(sampler).parameters), "")
    last: Any = None if first == "last_clip_end_time" else 0.0
    clips: list[ClipInfo] = []
    reset = getattr(sampler, "reset", None)
    if reset is not None:
        reset()
    while len(clips) < 100_000:
        start, end, clip_index, aug_index, is_last = sampler(last, duration, annotation or {})
        last = end
        if isinstance(start, list):
            clips.extend(
                ClipInfo(*row) for row in zip(start, end, clip_index, aug_index, is_last, strict=True)
            )
            is_last = is_last[-1]
        else:
            clips.append(ClipInfo(start, end, clip_index, aug_index, is_last))
        if is_last:
            if reset is not None:
                reset()
            return clips
    raise ValueError(
        f"{type(sampler).__name__} gave {len(clips)} clips of a {float(duration)} s video without a last one"
    )


class SamplerRule:
    """A pytorchvideo sampler as a temporal sampling rule of our datasets.

    Each clip of the sampler becomes ``num_frames`` frames spread over it as pytorchvideo's
    ``UniformTemporalSubsample`` does. Clips that repeat another for the sake of augmentation (``aug_index``
    above 0) are left out: spatial crops are the dataset's business here. Training takes the sampler's first
    clip.

    pytorchvideo's random samplers use Python's global generator; here it is seeded from the dataset's for the
    call and put back, so that a clip depends on (seed, epoch, video) only.
    """

    def __init__(self, sampler: Callable[..., Any]) -> None:
        self.sampler = sampler

    def __repr__(self) -> str:
        return f"SamplerRule({type(self.sampler).__name__})"

    def test_views(self, num_video_frames: int, fps: float, *, num_frames: int) -> np.ndarray:
        """-> (V, T) int64, V as many as the sampler draws. A random sampler draws the same clips for every
        video of the same length."""
        return self._views(num_video_frames, fps, num_frames=num_frames, seed=0)

    def train_clip(
        self, num_video_frames: int, fps: float, *, num_frames: int, generator: np.random.Generator
    ) -> np.ndarray:
        """-> (T,) int64"""
        seed = int(generator.integers(2**62))
        return self._views(num_video_frames, fps, num_frames=num_frames, seed=seed)[0]

    def _views(self, num_video_frames: int, fps: float, *, num_frames: int, seed: int) -> np.ndarray:
        rate = _exact_rate(fps)
        with _seeded(seed):
            clips = sampler_clips(self.sampler, num_video_frames / rate)
        views = []
        for clip in clips:
            if clip.aug_index:
                continue
            first = max(math.ceil(Fraction(clip.clip_start_sec) * rate), 0)
            end = min(math.ceil(Fraction(clip.clip_end_sec) * rate), num_video_frames)
            if first >= end:
                span = f"{float(clip.clip_start_sec):.3f} to {float(clip.clip_end_sec):.3f} s"
                raise ValueError(
                    f"{type(self.sampler).__name__} chose {span}, where a video of {num_video_frames} frames "
                    f"at {fps} fps has none; use a longer clip"
                )
            views.append(_subsample(first, end, num_frames))
        return np.stack(views)


# ---- our clips in their dataset


@cache
def _protocol() -> tuple[type, type]:
    """pytorchvideo's (ClipSampler, ClipInfo); stand-ins of the same shape where it cannot be imported."""
    from vidformers.compat import prepare_pytorchvideo

    try:
        prepare_pytorchvideo()
        from pytorchvideo.data.clip_sampling import ClipInfo as TheirClipInfo
        from pytorchvideo.data.clip_sampling import ClipSampler
    except Exception:  # its imports fail in many ways; the protocol needs nothing of it
        return object, ClipInfo
    return ClipSampler, TheirClipInfo


class _ViewClipSampler:
    """Draws the clips of the ``slowfast`` or ``segment`` rule, in seconds, for pytorchvideo's datasets.

    A pytorchvideo sampler is told a video's duration but not its frame rate, so a clip is a span of seconds:
    their dataset returns all frames in it, and ``UniformTemporalSubsample(num_frames)`` (or a
    ReaderPathHandler with ``num_frames``) picks the frames that the rule means. A subclass of
    ``pytorchvideo.data.ClipSampler`` where pytorchvideo can be imported.

    Args:
        rule: ``slowfast`` (spans of num_frames * sampling_rate / target_fps seconds) or ``segment`` (the
        whole video). num_views: test clips per video; None draws one random clip (training; ``slowfast``
        only). use_offset: as for :func:`vidformers.data.clip_sampling.slowfast_views`. Starts are not cut to
        whole frames. augs_per_clip: how often each clip is given, with ``aug_index`` counting up: for spatial
        crops. seed: with torch's initial seed, which DataLoader workers vary by worker and epoch, decides
        random clips.
    """

    def __init__(
        self,
        *,
        num_frames: int,
        sampling_rate: int,
        target_fps: float | Fraction = 30,
        rule: str = "slowfast",
        num_views: int | None = None,
        use_offset: bool = True,
        augs_per_clip: int = 1,
        seed: int = 0,
    ) -> None:
        if rule not in ("slowfast", "segment"):
            raise ValueError(
                f"rule '{rule}' counts source frames, but a pytorchvideo sampler is only told seconds; "
                "use 'slowfast' or 'segment'"
            )
        if rule == "segment" and num_views not in (None, 1):
            raise ValueError(f"the segment rule gives the whole video as one clip, not num_views={num_views}")
        counts = {"num_frames": num_frames, "sampling_rate": sampling_rate, "augs_per_clip": augs_per_clip}
        for name, value in {**counts, "num_views": 1 if num_views is None else num_views}.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        # What pytorchvideo's own ClipSampler.__init__ sets; set here so that it works without pytorchvideo
        # too.
        self._clip_duration = Fraction(num_frames * sampling_rate) / _exact_rate(target_fps)
        self._current_clip_index = 0
        self._current_aug_index = 0
        self._rule = rule
        self._num_views = num_views
        self._use_offset = use_offset
        self._augs_per_clip = augs_per_clip
        self._seed = seed
        self._generator: np.random.Generator | None = None
        self._random_start = Fraction(0)

    def __call__(
        self,
        last_clip_time: float | Fraction | None,
        video_duration: float | Fraction,
        annotation: dict[str, Any],
    ) -> Any:
        """-> ClipInfo. ``last_clip_time`` and ``annotation`` are not used."""
        if self._rule == "segment":
            start, length, num_views = Fraction(0), _exact_seconds(video_duration), 1
        else:
            length, num_views = self._clip_duration, self._num_views or 1
            start = self._start(max(_exact_seconds(video_duration) - length, Fraction(0)))
        view, aug = self._current_clip_index, self._current_aug_index
        self._current_aug_index += 1
        if self._current_aug_index == self._augs_per_clip:
            self._current_clip_index, self._current_aug_index = view + 1, 0
        is_last = self._current_clip_index >= num_views
        if is_last:
            self.reset()
        return _protocol()[1](start, start + length, view, aug, is_last)

    def reset(self) -> None:
        """Forgets the current video."""
        self._current_clip_index = 0
        self._current_aug_index = 0

    def _start(self, last_start: Fraction) -> Fraction:
        view = self._current_clip_index
        if self._num_views is None:
            if self._current_aug_index == 0:
                if self._generator is None:
                    # Made on first use, which is in the worker, so that workers differ.
                    self._generator = np.random.default_rng([self._seed, torch.initial_seed()])
                self._random_start = Fraction(self._generator.uniform()) * last_start
            return self._random_start
        if not self._use_offset:
            return last_start * view / self._num_views
        if self._num_views == 1:
            return last_start / 2
        return last_start * view / (self._num_views - 1)


if TYPE_CHECKING:
    ViewClipSampler = _ViewClipSampler


def __getattr__(name: str) -> Any:
    # The base class is pytorchvideo's, which is not to be imported with this module; as a module attribute
    # the class can be pickled to DataLoader workers all the same.
    if name == "ViewClipSampler":
        base = _protocol()[0]
        bases = (_ViewClipSampler,) if base is object else (_ViewClipSampler, base)
        made = type(name, bases, {"__doc__": _ViewClipSampler.__doc__, "__module__": __name__})
        globals()[name] = made
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---- our reader in their dataset


class ReaderVideo:
    """An open video with the interface of pytorchvideo's ``Video``, read by one of our readers.

    Args:
        num_frames: return only this many frames of each clip, spread as ``UniformTemporalSubsample`` does, so
        that the
            others need not be converted; None returns all frames of the clip, as pytorchvideo's own videos
            do.
    """

    def __init__(self, reader: VideoReader, *, num_frames: int | None = None) -> None:
        self._reader = reader
        self._num_frames = num_frames
        rate = _exact_rate(reader.fps)
        pts: Sequence[int] | np.ndarray | None = getattr(reader, "frame_pts", None)
        if pts is None:
            self._pts, self._time_base = np.arange(reader.num_frames), 1 / rate
        else:
            self._pts, self._time_base = np.asarray(pts) - int(pts[0]), reader.time_base  # type: ignore[attr-defined]

    @classmethod
    def from_path(
        cls, file_path: str | os.PathLike[str], *, backend: str = "pyav", num_frames: int | None = None
    ) -> ReaderVideo:
        """Takes the place of ``EncodedVideo.from_path``. Audio is not read. Raises VideoReadError."""
        return cls(open_video(file_path, backend), num_frames=num_frames)

    @property
    def name(self) -> str:
        return os.path.basename(self._reader.path)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._reader.duration

    def get_clip(
        self, start_sec: float | Fraction, end_sec: float | Fraction
    ) -> dict[str, torch.Tensor | None]:
        """-> {"video": float32 (C, T, H, W) in 0..255, None if [start, end) holds no frame; "audio": None}"""
        first, end = (int(np.searchsorted(self._pts, self._ticks(second))) for second in (start_sec, end_sec))
        if first >= end:
            return {"video": None, "audio": None}
        indices = np.arange(first, end)
        if self._num_frames is not None:
            indices = _subsample(first, end, self._num_frames)
        frames = self._reader.get_frames(indices)
        return {
            "video": frames.permute(3, 0, 1, 2).to(torch.float32),
            "audio": None,
        }  # (T, H, W, C) -> (C, T, H, W)

    def _ticks(self, second: float | Fraction) -> float:
        if second == math.inf:
            return math.inf
        return math.ceil(Fraction(second) / self._time_base)

    def close(self) -> None:
        self._reader.close()


class ReaderPathHandler:
    """Takes the place of pytorchvideo's ``VideoPathHandler``: ``dataset.video_path_handler =
    ReaderPathHandler()``.

    Their dataset then reads with ours: exact frames, rotation applied, the first video stream. Audio is not
    read. What their dataset does with an unreadable video stays as it is: it logs at DEBUG level and takes
    the next one.
    """

    def __init__(
        self, *, backend: str = "pyav", num_frames: int | None = None, apply_rotation: bool = True
    ) -> None:
        self.backend = backend
        self.num_frames = num_frames
        self.apply_rotation = apply_rotation

    def video_from_path(
        self, filepath: str, decode_audio: bool = False, decoder: str = "pyav", fps: int = 30
    ) -> ReaderVideo:
        """Opens a video file. The other arguments are pytorchvideo's and have no meaning for our readers.

        Raises:
            VideoReadError: the file cannot be read (folders of frames are not videos here).
        """
        reader = open_video(filepath, self.backend, apply_rotation=self.apply_rotation)
        return ReaderVideo(reader, num_frames=self.num_frames)


def _exact_rate(fps: float | Fraction) -> Fraction:
    """30000/1001 for 29.97002997..."""
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"fps={fps} must be a positive frame rate")
    return rate


def _exact_seconds(seconds: float | Fraction) -> Fraction:
    """10/3 for 3.3333333333333335: a start that should meet a frame must not come an ulp after it."""
    return Fraction(seconds).limit_denominator(1_000_000)


def _subsample(first: int, end: int, num_frames: int) -> np.ndarray:
    """num_frames of the frames first..end-1, as UniformTemporalSubsample picks them -> (T,)"""
    count = end - first
    return first + torch.linspace(0, count - 1, num_frames).clamp(0, count - 1).long().numpy()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's global generator seeded within the block, and put back after it."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
