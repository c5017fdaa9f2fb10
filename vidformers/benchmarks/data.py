"""`tools/benchmark.py data`: what test views and training clips cost, beside other loaders."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vidformers.benchmarks.environment import describe_environment
from vidformers.benchmarks.timing import Timing, interleaved
from vidformers.benchmarks.video_loaders import (
    decode_only,
    decord_clip,
    decord_frames,
    pytorchvideo_clip,
    pytorchvideo_views,
    slowfast_views,
)
from vidformers.benchmarks.videos import FPS, HEIGHT, WIDTH, make_videos
from vidformers.data.clip_sampling import test_views, train_clip
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.readers import open_video
from vidformers.data.records import Record
from vidformers.data.views import gather_views

__all__ = ["OURS", "Row", "measure_data", "report_lines"]

PACKAGES = ("vidformers", "torch", "av", "opencv-python-headless", "decord", "pytorchvideo", "numpy")
NUM_FRAMES, SAMPLING_RATE, CROP_SIZE = 16, 4, 224
MEAN, STD = 0.45, 0.225
CLIPS_PER_ROUND = 8
VIEWS_PER_BATCH = 8  # clips that are cut, normalised and given to the model at once

OURS = "vidformers"
AS_FLOATS = "vidformers, and float clips made on this CPU"
EXACT = "vidformers, the same in float mode"
LIMIT = "decoding the needed frames, nothing else"
SLOWFAST = "PySlowFast's way: open and decode a view"
PYTORCHVIDEO = "pytorchvideo LabeledVideoDataset, UniformClipSampler"
DECORD = "decord: one get_batch of the needed frames, resized"
DECORD_CLIP = "decord get_batch"
PYTORCHVIDEO_CLIP = "pytorchvideo EncodedVideo.get_clip"
TRAINING = "training clip"

# (what, row, bar): on the file of GOP 250 the row's cpu time divided by ours is to be at least this; of the
# limit it is ours that is to be at most so many times as dear.
BARS = {
    ("5x1 views", SLOWFAST): 4.0,
    ("5x3 views", SLOWFAST): 11.0,
    ("10x3 views", SLOWFAST): 19.0,
    (TRAINING, DECORD_CLIP): 1.4,
    (TRAINING, PYTORCHVIDEO_CLIP): 2.0,
}
LIMIT_BAR = 1.4
BARS_GOP = 250


@dataclass(frozen=True)
class Row:
    """A line of the table. Of a contender that cannot run here `note` says why, and it has no times."""

    gop: int
    what: str
    name: str
    cpu_ms: float | None
    wall_ms: float | None
    ratio: float | None  # its cpu time / ours
    bar: str = ""
    note: str = ""


def measure_data(
    *,
    seconds: float,
    gops: Sequence[int],
    views: Sequence[tuple[int, int]],
    rounds: int,
    folder: str | None,
) -> tuple[dict[str, str], list[Row]]:
    """Measures everything on generated files; -> (environment, rows).

    seconds: length of the videos. gops: their key frame distances. views: (temporal, spatial) each. rounds:
    how often everything runs; medians are given. folder: keeps the generated videos for the next call.
    """
    if seconds * FPS < NUM_FRAMES * SAMPLING_RATE:
        raise ValueError(
            f"seconds={seconds}; a {NUM_FRAMES}x{SAMPLING_RATE} clip at {FPS} frames a second needs at least "
            f"{NUM_FRAMES * SAMPLING_RATE / FPS:.2f}"
        )
    torch.set_num_threads(1)
    environment = describe_environment(PACKAGES)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        paths = make_videos(folder or temporary, seconds=seconds, gops=gops)
        groups: list[tuple[int, str, Mapping[str, Callable[[], object]], int]] = []
        for gop, path in paths.items():
            num_frames = round(seconds * FPS)
            for num_views, num_crops in views:
                contenders = _view_contenders(path, num_frames, num_views, num_crops)
                groups.append((gop, f"{num_views}x{num_crops} views", contenders, 1))
            groups.append((gop, TRAINING, _clip_contenders(path, num_frames), CLIPS_PER_ROUND))
        notes: dict[str, str] = {}
        for gop, what, contenders, count in tqdm(groups, desc="benchmark", unit="group", dynamic_ncols=True):
            for name in contenders.keys() - notes.keys():
                notes[name] = _try(name, contenders[name])
            rows += _measure_group(gop, what, contenders, notes, rounds=rounds, count=count)
    return environment, rows


def _try(name: str, run: Callable[[], object]) -> str:
    """Why a contender cannot run here, or "". Its imports and first allocations are not measured then."""
    try:
        run()
    except Exception as error:
        if name.startswith(OURS):
            raise
        return f"does not run here ({type(error).__name__}: {error})"
    return ""


def _measure_group(
    gop: int,
    what: str,
    contenders: Mapping[str, Callable[[], object]],
    notes: Mapping[str, str],
    *,
    rounds: int,
    count: int,
) -> list[Row]:
    """count: videos or clips that a contender reads in one run."""
    timings = interleaved({name: run for name, run in contenders.items() if not notes[name]}, rounds=rounds)
    rows = []
    for name in contenders:
        if notes[name]:
            rows.append(Row(gop, what, name, None, None, None, note=notes[name]))
            continue
        timing = timings[name]
        cpu_ms, wall_ms = timing.cpu_ms / count, timing.wall_ms / count
        rows.append(Row(gop, what, name, cpu_ms, wall_ms, timing.ratio, bar=_bar(gop, what, name, timing)))
    return rows


def _bar(gop: int, what: str, name: str, timing: Timing) -> str:
    if gop != BARS_GOP:
        return ""
    if name == LIMIT and what != TRAINING:
        met = 1 / timing.ratio <= LIMIT_BAR
        return f"ours at most {LIMIT_BAR:g}x: {1 / timing.ratio:.2f}x, {'met' if met else 'MISSED'}"
    bar = BARS.get((what, name))
    if bar is None:
        return ""
    return f"at least {bar:g}x: {'met' if timing.ratio >= bar else 'MISSED'}"


def _view_contenders(
    path: Path, video_frames: int, num_views: int, num_crops: int
) -> dict[str, Callable[[], object]]:
    """Everything that reads all views of a video."""
    # PySlowFast's rule: one crop is cut from a short side of 256 pixels, three from 224.
    clip: dict[str, Any] = {
        "num_frames": NUM_FRAMES,
        "sampling_rate": SAMPLING_RATE,
        "short_side": 256 if num_crops == 1 else CROP_SIZE,
        "crop_size": CROP_SIZE,
    }
    test = partial(
        TestVideos,
        [Record(str(path), 0, path.stem)],
        num_views=num_views,
        num_crops=num_crops,
        use_offset=True,
        **clip,
    )
    ours, exact = test(), test(resize_mode="float")
    views = test_views(
        "slowfast",
        video_frames,
        float(FPS),
        num_frames=NUM_FRAMES,
        sampling_rate=SAMPLING_RATE,
        target_fps=30.0,
        num_views=num_views,
        use_offset=True,
    )
    needed = np.unique(views).tolist()
    theirs = {**clip, "num_views": num_views, "num_crops": num_crops, "mean": MEAN, "std": STD}
    return {
        OURS: lambda: ours[0],
        LIMIT: lambda: decode_only(path, needed),
        AS_FLOATS: lambda: _float_clips(ours),
        EXACT: lambda: _float_clips(exact),
        SLOWFAST: lambda: slowfast_views(path, **theirs),
        PYTORCHVIDEO: lambda: pytorchvideo_views(path, video_seconds=Fraction(video_frames, FPS), **theirs),
        DECORD: lambda: decord_frames(path, needed, short_side=clip["short_side"]),
    }


def _float_clips(videos: TestVideos) -> None:
    """What the test does for the model with a video, on a machine whose device is the CPU."""
    video = videos[0]
    for start in range(0, video.num_views, VIEWS_PER_BATCH):
        rows = range(start, min(video.num_views, start + VIEWS_PER_BATCH))
        gather_views(video, rows, mean=(MEAN,) * 3, std=(STD,) * 3, device="cpu")


def _clip_contenders(path: Path, video_frames: int) -> dict[str, Callable[[], object]]:
    """Everything that reads random training clips: the same ones."""
    generator = np.random.default_rng(0)
    clips = [
        train_clip(
            "slowfast",
            video_frames,
            float(FPS),
            num_frames=NUM_FRAMES,
            sampling_rate=SAMPLING_RATE,
            target_fps=30.0,
            generator=generator,
        )
        for _ in range(CLIPS_PER_ROUND)
    ]
    starts = [int(clip[0]) for clip in clips]
    size = {"num_frames": NUM_FRAMES, "sampling_rate": SAMPLING_RATE}
    return {
        OURS: lambda: [_our_clip(path, clip) for clip in clips],
        LIMIT: lambda: [decode_only(path, np.unique(clip).tolist()) for clip in clips],
        DECORD_CLIP: lambda: [decord_clip(path, clip.tolist()) for clip in clips],
        PYTORCHVIDEO_CLIP: lambda: [pytorchvideo_clip(path, start=start, **size) for start in starts],
    }


def _our_clip(path: Path, indices: np.ndarray) -> torch.Tensor:
    with open_video(path) as video:
        return video.get_frames(indices)


def report_lines(environment: Mapping[str, str], rows: Sequence[Row]) -> list[str]:
    """The measurement as a Markdown text."""
    lines = [", ".join(f"{name} {value}" for name, value in environment.items())]
    lines += [
        "",
        f"{NUM_FRAMES}x{SAMPLING_RATE} clips of H.264 files {WIDTH}x{HEIGHT}; milliseconds a video or clip",
    ]
    for gop, what in dict.fromkeys((row.gop, row.what) for row in rows):
        lines += ["", f"### GOP {gop}, {what}", "", "| | CPU ms | wall ms | CPU / ours | bar |"]
        lines.append("|---|---|---|---|---|")
        for row in rows:
            if (row.gop, row.what) != (gop, what):
                continue
            if row.cpu_ms is None:
                lines.append(f"| {row.name} | | | | {row.note} |")
            else:
                times = f"{row.cpu_ms:.1f} | {row.wall_ms:.1f} | {row.ratio:.2f}"
                lines.append(f"| {row.name} | {times} | {row.bar} |")
    return lines


def as_json(environment: Mapping[str, str], rows: Sequence[Row]) -> dict[str, Any]:
    """The measurement as plain data."""
    return {"environment": dict(environment), "rows": [asdict(row) for row in rows]}
