"""Which frames of a video make up a clip: pure index arithmetic.

Every function maps a video's length (and frame rate) to frame indices and touches neither files nor pixels.
Three rules, because published numbers hang on them:

``slowfast``  PySlowFast's rule (slowfast/datasets/decoder.py), the default: a clip covers ``num_frames *
sampling_rate``
    frames *at target_fps*, so its length in seconds does not depend on the video's frame rate; frames are
    spread over it end to end, so 16 frames at rate 4 are 4.2 frames apart (0 4 8 12 16 21 ... 63); short
    videos repeat their last frame.
``uniform``   mmaction2's default: exactly ``sampling_rate`` source frames apart whatever the frame rate;
views spread
    from the first frame to the last; short videos start over.
``segment``   TSN's and Something-Something's: the video is cut into ``num_frames`` equal segments, one frame
from each.

Indices are int64, (T,) for a clip and (V, T) for the views of a test, always inside the video.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

__all__ = [
    "RULES",
    "TemporalRule",
    "center_clip",
    "random_clip",
    "random_segment_clip",
    "random_uniform_clip",
    "segment_views",
    "slowfast_clip_span",
    "slowfast_views",
    "test_views",
    "train_clip",
    "uniform_views",
]

RULES = ("slowfast", "uniform", "segment")


class TemporalRule(Protocol):
    """A rule of one's own, given in place of a rule's name (as is SamplerRule in data/pytorchvideo.py)."""

    def test_views(self, num_video_frames: int, fps: float, *, num_frames: int) -> np.ndarray:
        """-> (V, T) int64"""

    def train_clip(
        self, num_video_frames: int, fps: float, *, num_frames: int, generator: np.random.Generator
    ) -> np.ndarray:
        """-> (T,) int64"""


def slowfast_clip_span(
    num_video_frames: int, fps: float, *, num_frames: int, sampling_rate: int, target_fps: float
) -> float:
    """Length of a clip in source frames (a float, not limited by the video's length; at least 1).

    >>> slowfast_clip_span(300, 30.0, num_frames=16, sampling_rate=4, target_fps=30)
    64.0
    >>> round(slowfast_clip_span(280, 28.0, num_frames=16, sampling_rate=4, target_fps=30), 3)
    59.733
    """
    _check(num_video_frames, num_frames=num_frames, sampling_rate=sampling_rate)
    if not (math.isfinite(fps) and fps > 0 and math.isfinite(target_fps) and target_fps > 0):
        raise ValueError(f"fps={fps} and target_fps={target_fps} must be positive frame rates")
    return max(1.0, sampling_rate * num_frames / target_fps * fps)


def slowfast_views(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    sampling_rate: int,
    target_fps: float,
    num_views: int,
    use_offset: bool,
) -> np.ndarray:
    """PySlowFast's evenly spaced test clips -> (V, T).

    Args:
        use_offset: PySlowFast's DATA.USE_OFFSET_SAMPLING. True (the published MViT recipes): the last view
            ends at, or just before, the end of the video, and a single view is the centre clip. False
            (PySlowFast's default): views start at ``v / num_views`` of the last possible start, so that the
            end of the video is never seen.

    This is the rule for a video decoded as a whole. PySlowFast usually decodes only a clip's span and spreads
    frames over what it got, which gives indices that differ by at most one frame in about a third of the
    cases.

    >>> clip = {"num_frames": 16, "sampling_rate": 4, "target_fps": 30}
    >>> slowfast_views(300, 30.0, **clip, num_views=5, use_offset=True)[:, 0]
    array([  0,  59, 118, 177, 236])
    >>> slowfast_views(300, 30.0, **clip, num_views=5, use_offset=False)[:, 0]
    array([  0,  47,  94, 141, 188])
    """
    _check(num_video_frames, num_views=num_views)
    span = slowfast_clip_span(
        num_video_frames, fps, num_frames=num_frames, sampling_rate=sampling_rate, target_fps=target_fps
    )
    last_start = max(num_video_frames - span, 0.0)
    starts: list[float]
    if not use_offset:
        starts = [last_start * view / num_views for view in range(num_views)]
    elif num_views == 1:
        starts = [math.floor(last_start / 2)]
    else:
        starts = [view * math.floor(last_start / (num_views - 1)) for view in range(num_views)]
    return np.stack([_spread(start, span, num_frames, num_video_frames) for start in starts])


def center_clip(
    num_video_frames: int, fps: float, *, num_frames: int, sampling_rate: int, target_fps: float
) -> np.ndarray:
    """The slowfast clip in the middle of the video -> (T,).

    >>> center_clip(300, 30.0, num_frames=4, sampling_rate=16, target_fps=30)
    array([118, 139, 160, 181])
    """
    return slowfast_views(
        num_video_frames,
        fps,
        num_frames=num_frames,
        sampling_rate=sampling_rate,
        target_fps=target_fps,
        num_views=1,
        use_offset=True,
    )[0]


def random_clip(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    sampling_rate: int,
    target_fps: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """A slowfast clip whose start is uniform over all possible starts, fractions included -> (T,).

    >>> generator = np.random.default_rng(0)
    >>> random_clip(300, 30.0, num_frames=4, sampling_rate=16, target_fps=30, generator=generator)
    array([150, 171, 192, 213])
    """
    span = slowfast_clip_span(
        num_video_frames, fps, num_frames=num_frames, sampling_rate=sampling_rate, target_fps=target_fps
    )
    start = generator.uniform(0.0, max(num_video_frames - span, 0.0))
    return _spread(start, span, num_frames, num_video_frames)


def uniform_views(
    num_video_frames: int, *, num_frames: int, sampling_rate: int, num_views: int
) -> np.ndarray:
    """mmaction2's default test clips (SampleFrames, test_mode) -> (V, T).

    >>> uniform_views(300, num_frames=16, sampling_rate=4, num_views=5)[:, [0, 1, -1]].tolist()
    [[0, 4, 60], [60, 64, 120], [120, 124, 180], [179, 183, 239], [239, 243, 299]]
    >>> uniform_views(10, num_frames=4, sampling_rate=4, num_views=1)   # too short: it starts over
    array([[0, 4, 8, 2]])
    """
    _check(num_video_frames, num_frames=num_frames, sampling_rate=sampling_rate, num_views=num_views)
    last_start = max(num_video_frames - _stride_span(num_frames, sampling_rate), 0)
    if num_views == 1:
        starts = np.array([last_start // 2])
    else:
        starts = np.round(np.arange(num_views) * (last_start / (num_views - 1))).astype(np.int64)
    return _strided(starts, num_frames, sampling_rate, num_video_frames)


def random_uniform_clip(
    num_video_frames: int, *, num_frames: int, sampling_rate: int, generator: np.random.Generator
) -> np.ndarray:
    """A clip of the ``uniform`` rule with a random whole start -> (T,)."""
    _check(num_video_frames, num_frames=num_frames, sampling_rate=sampling_rate)
    last_start = max(num_video_frames - _stride_span(num_frames, sampling_rate), 0)
    starts = generator.integers(0, last_start + 1, size=1)
    return _strided(starts, num_frames, sampling_rate, num_video_frames)[0]


def segment_views(num_video_frames: int, *, num_frames: int, num_views: int = 1) -> np.ndarray:
    """One frame from each of ``num_frames`` equal segments -> (V, T).

    One view takes the middle of each segment, as PySlowFast does for Something-Something
    (slowfast/datasets/ssv2.py). View v of V takes the frame (v + 1) / (V + 1) of the way through each
    segment: other frames for every view as far as segments have enough of them. (PySlowFast returns the same
    frames for all views, so that its multi-view test of this rule only repeats itself.)

    >>> segment_views(45, num_frames=8)
    array([[ 3,  8, 13, 19, 25, 30, 35, 41]])
    >>> segment_views(45, num_frames=4, num_views=2)
    array([[ 3, 14, 25, 36],
           [ 7, 18, 29, 40]])
    """
    _check(num_video_frames, num_frames=num_frames, num_views=num_views)
    first, last = _segment_bounds(num_video_frames, num_frames)
    views = np.arange(1, num_views + 1)[:, None]
    return first + (last - first) * views // (num_views + 1)


def random_segment_clip(
    num_video_frames: int, *, num_frames: int, generator: np.random.Generator
) -> np.ndarray:
    """A random frame from each of ``num_frames`` equal segments, both ends of a segment included -> (T,).

    Neighbouring segments share their border frame, as in PySlowFast.
    """
    _check(num_video_frames, num_frames=num_frames)
    first, last = _segment_bounds(num_video_frames, num_frames)
    return generator.integers(first, last, endpoint=True)


def test_views(
    rule: str | TemporalRule,
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    sampling_rate: int,
    target_fps: float,
    num_views: int,
    use_offset: bool,
) -> np.ndarray:
    """The test clips of a rule -> (V, T). ``uniform`` and ``segment`` use only the arguments they have, a
    rule of one's own only the length, the rate and ``num_frames`` (it decides the number of views itself).

    Raises:
        ValueError: unknown rule, or a length, rate or count that is not positive.
    """
    if not isinstance(rule, str):
        return rule.test_views(num_video_frames, fps, num_frames=num_frames)
    if rule == "slowfast":
        return slowfast_views(
            num_video_frames,
            fps,
            num_frames=num_frames,
            sampling_rate=sampling_rate,
            target_fps=target_fps,
            num_views=num_views,
            use_offset=use_offset,
        )
    if rule == "uniform":
        return uniform_views(
            num_video_frames, num_frames=num_frames, sampling_rate=sampling_rate, num_views=num_views
        )
    if rule == "segment":
        return segment_views(num_video_frames, num_frames=num_frames, num_views=num_views)
    raise ValueError(f"unknown temporal sampling rule '{rule}'; use one of: {', '.join(RULES)}")


# pytest collects whatever a test module imports under a name that begins with "test".
test_views.__test__ = False  # type: ignore[attr-defined]


def train_clip(
    rule: str | TemporalRule,
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    sampling_rate: int,
    target_fps: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """A random training clip of a rule -> (T,). Raises ValueError as :func:`test_views`."""
    if not isinstance(rule, str):
        return rule.train_clip(num_video_frames, fps, num_frames=num_frames, generator=generator)
    if rule == "slowfast":
        return random_clip(
            num_video_frames,
            fps,
            num_frames=num_frames,
            sampling_rate=sampling_rate,
            target_fps=target_fps,
            generator=generator,
        )
    if rule == "uniform":
        return random_uniform_clip(
            num_video_frames, num_frames=num_frames, sampling_rate=sampling_rate, generator=generator
        )
    if rule == "segment":
        return random_segment_clip(num_video_frames, num_frames=num_frames, generator=generator)
    raise ValueError(f"unknown temporal sampling rule '{rule}'; use one of: {', '.join(RULES)}")


def _spread(start: float, span: float, num_frames: int, num_video_frames: int) -> np.ndarray:
    """num_frames from start to start + span - 1, ends included, cut to frames inside the video -> (T,)"""
    # float32 as in the reference (torch.linspace): where a position is a whole number but for rounding,
    # cutting it to an integer depends on the precision.
    positions = _linspace32(start, start + span - 1, num_frames)
    return np.clip(positions, 0, num_video_frames - 1).astype(np.int64)


def _linspace32(start: float, end: float, steps: int) -> np.ndarray:
    """torch.linspace in float32, which counts up from the start in the first half and down from the end after
    it.

    Written out because torch's last bit depends on the processor's vector instructions, and indices should
    not.
    """
    first, last = np.float32(start), np.float32(end)
    if steps == 1:
        return np.array([first])
    step = (last - first) / np.float32(steps - 1)
    places = np.arange(steps, dtype=np.float32)
    return np.where(places < steps // 2, first + step * places, last - step * (steps - 1 - places))


def _stride_span(num_frames: int, sampling_rate: int) -> int:
    return (num_frames - 1) * sampling_rate + 1


def _strided(starts: np.ndarray, num_frames: int, sampling_rate: int, num_video_frames: int) -> np.ndarray:
    """(V,) starts -> (V, T), going round where the video ends"""
    return (starts[:, None] + np.arange(num_frames) * sampling_rate) % num_video_frames


def _segment_bounds(num_video_frames: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """-> first and last frame of each segment, both (T,); rounded half to even as the reference does"""
    bounds = np.round((num_video_frames - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)
    return bounds[:-1], bounds[1:]


def _check(num_video_frames: int, **counts: int) -> None:
    if num_video_frames < 1:
        raise ValueError(f"num_video_frames={num_video_frames}: a clip needs a video of at least one frame")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
