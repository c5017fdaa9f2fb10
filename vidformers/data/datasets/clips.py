"""Map-style datasets over a list of records: augmented clips for training, all views of a video for testing.

Training and testing treat an unreadable video differently, on purpose. In training another video of the same
class takes its place, the same one in every run, and the failure is reported with the item. In testing
nothing takes its
place: the item says so, and the video counts as a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vidformers.data.augment import parse_rand_augment
from vidformers.data.clip_sampling import test_views, train_clip
from vidformers.data.readers import FrameIndices, VideoReader, VideoReadError, open_video
from vidformers.data.readers.base import MAX_FRAME_PIXELS, Conversion, ConvertingReader
from vidformers.data.records import Record, labels_between
from vidformers.data.time_limit import within
from vidformers.data.transforms import RESIZE_MODES, TrainTransform, resize_frames, short_side_size
from vidformers.data.views import VideoViews, spatial_crops

__all__ = ["TestVideos", "TrainClips", "VideoViews", "collate_train", "collate_videos"]

MAX_SUBSTITUTES = 10
# Of readers that do not resize while they decode, so many bytes of frames are asked for at once.
PART_BYTES = 1 << 24


class TrainClips(Dataset):
    """One augmented random clip a record (`num_samples` differently augmented copies of it).

    Item: dict of clip uint8 (R, 3, T, crop, crop), label int64 () or, where videos have sets of labels,
    float32 (num_classes,) with 1 for those that occur in the clip, index int (of the record asked for),
    erase_box int64 (R, erase_count, 4), erase_seed int64 (R,), failures list of (path, reason, detail) of the
    videos that could not be read on the way. All of it is a function of (seed, epoch, index) and of which
    files can be read; besides, seconds is the time that (reading, transforms) took.

    temporal_sampling is a rule of `clip_sampling`; the clip spans num_frames * sampling_rate frames at
    target_fps. num_classes is only needed for sets of labels. The spatial arguments are those of
    `transforms.TrainTransform`, rand_augment is a policy such
    as "rand-m7-n4-mstd0.5-inc1" or "".
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        num_frames: int,
        sampling_rate: int,
        crop_size: int,
        num_classes: int = 0,
        target_fps: float = 30.0,
        temporal_sampling: str = "slowfast",
        jitter_scales: tuple[int, int] = (256, 320),
        area_range: tuple[float, float] | None = None,
        aspect_range: tuple[float, float] | None = None,
        inverse_uniform: bool = False,
        motion_shift: bool = False,
        flip: bool = True,
        rand_augment: str = "",
        rand_augment_interpolation: str = "bicubic",
        color_jitter: float = 0.0,
        erase_probability: float = 0.0,
        erase_count: int = 1,
        num_samples: int = 1,
        backend: str = "pyav",
        frames_fps: float = 30.0,
        index_cache: str = "",
        read_timeout: float = 0.0,
        max_frame_pixels: int = MAX_FRAME_PIXELS,
        seed: int = 0,
    ) -> None:
        if not records:
            raise ValueError("the list of training videos is empty")
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}; use 1 or more copies of each clip (AUG.NUM_SAMPLE)")
        self.records = list(records)
        self.num_frames = num_frames
        self.sampling_rate = sampling_rate
        self.target_fps = target_fps
        self.temporal_sampling = temporal_sampling
        self.num_classes = num_classes
        self.num_samples = num_samples
        self.backend = backend
        self.frames_fps = frames_fps
        self.index_cache = index_cache
        self.read_timeout = read_timeout
        self.max_frame_pixels = max_frame_pixels
        self.seed = seed
        self.item_bytes = num_samples * num_frames * crop_size**2 * 3
        self.transform = TrainTransform(
            crop_size=crop_size,
            jitter_scales=jitter_scales,
            area_range=area_range,
            aspect_range=aspect_range,
            inverse_uniform=inverse_uniform,
            motion_shift=motion_shift,
            flip=flip,
            rand_augment=parse_rand_augment(rand_augment, interpolation=rand_augment_interpolation),
            color_jitter=color_jitter,
            erase_probability=erase_probability,
            erase_count=erase_count,
        )
        self._labels = np.array([record.label for record in self.records], dtype=np.int64)
        self._epoch = 0
        # Unreadable files met in this epoch by this worker: not opened twice.
        self._bad: dict[str, tuple[str, str, str]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random clips are given. Call it before the loader starts its workers."""
        self._epoch = epoch
        self._bad.clear()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        failures: list[tuple[str, str, str]] = []
        for attempt, candidate in enumerate(self._candidates(index)):
            record = self.records[candidate]
            # A generator an attempt, so that a clip does not depend on how many others failed before it was
            # drawn.
            generator = np.random.default_rng([self.seed, self._epoch, index, attempt])
            started = time.perf_counter()
            try:
                frames, label = self._read(record, generator)
            except VideoReadError as error:
                self._bad[record.path] = (record.path, error.reason, error.detail)
                failures.append(self._bad[record.path])
                continue
            except _KnownBadError:
                failures.append(self._bad[record.path])
                continue
            read = time.perf_counter()
            samples = [self.transform(frames, generator) for _ in range(self.num_samples)]
            return {
                "clip": torch.stack([clip for clip, _, _ in samples]),
                "label": label,
                "index": index,
                "erase_box": torch.from_numpy(np.stack([box for _, box, _ in samples])),
                "erase_seed": torch.tensor([seed for _, _, seed in samples], dtype=torch.int64),
                "failures": failures,
                "seconds": (read - started, time.perf_counter() - read),
            }
        path, reason, detail = failures[0]
        raise ValueError(
            f"{len(failures)} training videos in a row cannot be read; the first is '{path}' ({reason}: "
            f"{detail}). Check that the list's paths exist from here (DATA.PATH_PREFIX is put before "
            "relative ones) and that they are videos."
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """The record itself, then its substitutes: of the same label, if that has others, else any."""
        yield index
        generator = np.random.default_rng([self.seed, self._epoch, index, 2**31])
        same = np.flatnonzero(self._labels == self._labels[index])
        others = np.setdiff1d(np.arange(len(self.records)), same)
        order = np.concatenate([generator.permutation(same[same != index]), generator.permutation(others)])
        yield from order[:MAX_SUBSTITUTES].tolist()

    def _read(self, record: Record, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The frames of a random clip, uint8 (T, H, W, 3), and its label or labels."""
        path = record.path
        if path in self._bad:
            raise _KnownBadError

        def read() -> tuple[torch.Tensor, torch.Tensor]:
            with open_video(
                path,
                self.backend,
                frames_fps=self.frames_fps,
                index_cache=self.index_cache,
                time_limit=self.read_timeout,
                max_frame_pixels=self.max_frame_pixels,
            ) as video:
                indices = train_clip(
                    self.temporal_sampling,
                    video.num_frames,
                    video.fps,
                    num_frames=self.num_frames,
                    sampling_rate=self.sampling_rate,
                    target_fps=self.target_fps,
                    generator=generator,
                )
                return video.get_frames(indices), self._label(record, indices / video.fps)

        return within(self.read_timeout, read, path=path, backend=self.backend)

    def _label(self, record: Record, seconds: np.ndarray) -> torch.Tensor:
        """What the item's label is, for a clip with frames at these times."""
        if record.labels is None:
            return torch.tensor(record.label)
        present = torch.zeros(self.num_classes)
        present[list(labels_between(record, seconds.min(), seconds.max()))] = 1
        return present


class _KnownBadError(Exception):
    pass


class TestVideos(Dataset):
    """One item a video, holding all its views (`VideoViews`); each file is opened and decoded once.

    num_views temporal views by the rule `temporal_sampling` (use_offset: PySlowFast's USE_OFFSET_SAMPLING),
    num_crops spatial ones of `crop_size` after scaling the short side to `short_side`. resize_mode "uint8" or
    "float" (`transforms.resize_frames`). An unreadable video gives an item without views whose `failure` says
    why. frames_fps, index_cache, read_timeout and max_frame_pixels are those of `TrainClips`.
    """

    __test__ = False  # pytest takes classes named Test* for tests

    def __init__(
        self,
        records: Sequence[Record],
        *,
        num_frames: int,
        sampling_rate: int,
        num_views: int,
        num_crops: int,
        short_side: int,
        crop_size: int,
        target_fps: float = 30.0,
        temporal_sampling: str = "slowfast",
        use_offset: bool = False,
        resize_mode: str = "uint8",
        backend: str = "pyav",
        frames_fps: float = 30.0,
        index_cache: str = "",
        read_timeout: float = 0.0,
        max_frame_pixels: int = MAX_FRAME_PIXELS,
    ) -> None:
        if not records:
            raise ValueError("the list of test videos is empty")
        if resize_mode not in RESIZE_MODES:
            raise ValueError(f"unknown resize mode {resize_mode!r}; use one of {', '.join(RESIZE_MODES)}")
        spatial_crops(
            short_side, short_side, crop_size, num_crops
        )  # complains about sizes now, not in a worker
        self.records = list(records)
        self.num_frames = num_frames
        self.sampling_rate = sampling_rate
        self.target_fps = target_fps
        self.temporal_sampling = temporal_sampling
        self.use_offset = use_offset
        self.num_views = num_views
        self.num_crops = num_crops
        self.short_side = short_side
        self.crop_size = crop_size
        self.resize_mode = resize_mode
        self.backend = backend
        self.frames_fps = frames_fps
        self.index_cache = index_cache
        self.read_timeout = read_timeout
        self.max_frame_pixels = max_frame_pixels
        # Of a video twice as wide as high whose views share no frame.
        self.item_bytes = num_views * num_frames * short_side * 2 * short_side * 3
        if resize_mode == "float":
            self.item_bytes *= 4

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> VideoViews:
        return self.load(index, lambda views, num_video_frames: views)

    def load(self, index: int, frame_rows: Callable[[np.ndarray, int], np.ndarray]) -> VideoViews:
        """The video with other clips than its views, decoded once all the same.

        frame_rows: (views int64 (n_t, T), frames in the video) -> int64 (R, T), frames of the video; they
        become the rows of `view_index`.
        """
        record = self.records[index]
        started, resizing = time.perf_counter(), 0.0

        def resize(frames: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
            nonlocal resizing
            begun = time.perf_counter()
            size = short_side_size(frames.shape[1], frames.shape[2], self.short_side)
            resized = resize_frames(frames, size, mode=self.resize_mode, out=out)
            resizing += time.perf_counter() - begun
            return resized

        try:
            frames, view_index, damage = within(
                self.read_timeout,
                lambda: self._read(record, frame_rows, resize),
                path=record.path,
                backend=self.backend,
            )
        except VideoReadError as error:
            return VideoViews(
                frames=torch.zeros((0, 0, 0, 3), dtype=torch.uint8),
                view_index=torch.zeros((0, self.num_frames), dtype=torch.int64),
                crops=torch.zeros((0, 4), dtype=torch.int64),
                video_id=record.video_id,
                label=record.label,
                index=index,
                failure=(error.reason, error.detail),
                seconds=(time.perf_counter() - started - resizing, resizing),
            )
        height, width = frames.shape[1:3]
        return VideoViews(
            frames=frames,
            view_index=view_index,
            crops=torch.from_numpy(spatial_crops(height, width, self.crop_size, self.num_crops)),
            video_id=record.video_id,
            label=record.label,
            index=index,
            damage=damage,
            seconds=(time.perf_counter() - started - resizing, resizing),
        )

    def open(self, record: Record) -> VideoReader:
        """The reader of one video; raises VideoReadError."""
        return open_video(
            record.path,
            self.backend,
            frames_fps=self.frames_fps,
            index_cache=self.index_cache,
            time_limit=self.read_timeout,
            max_frame_pixels=self.max_frame_pixels,
        )

    def _read(
        self,
        record: Record,
        frame_rows: Callable[[np.ndarray, int], np.ndarray],
        resize: Conversion,
    ) -> tuple[torch.Tensor, torch.Tensor, str]:
        """-> resized (U, h, w, 3) distinct frames of all rows, int64 (R, T) indices into them, damage."""
        with self.open(record) as video:
            views = test_views(
                self.temporal_sampling,
                video.num_frames,
                video.fps,
                num_frames=self.num_frames,
                sampling_rate=self.sampling_rate,
                target_fps=self.target_fps,
                num_views=self.num_views,
                use_offset=self.use_offset,
            )
            rows = frame_rows(views, video.num_frames)
            distinct, places = np.unique(rows, return_inverse=True)
            frames = _converted_frames(video, distinct, resize)
            # Only PyAV's reader can tell what was damaged in decoding, the others what the header tells.
            damage = "; ".join(getattr(video, "damage", ()))
            return frames, torch.from_numpy(places.reshape(rows.shape).astype(np.int64)), damage


def _converted_frames(video: VideoReader, indices: FrameIndices, convert: Conversion) -> torch.Tensor:
    """Frames as `convert` makes them, without holding all of them at full size."""
    if isinstance(video, ConvertingReader):
        return video.get_converted_frames(indices, convert)
    count = max(1, PART_BYTES // (video.height * video.width * 3))
    parts = (indices[first : first + count] for first in range(0, len(indices), count))
    return torch.cat([convert(video.get_frames(part), None) for part in parts])


def collate_train(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of `TrainClips` -> a batch; the R copies of a clip lie side by side.

    clip uint8 (B*R, 3, T, h, w), label (B*R,) or (B*R, K), index int64 (B*R,), erase_box int64 (B*R, n, 4),
    erase_seed int64 (B*R,), failures list of (path, reason, detail), seconds list of B (reading, transforms).
    """
    copies = len(items[0]["clip"])
    batch: dict[str, Any] = {
        key: torch.cat([item[key] for item in items]) for key in ("clip", "erase_box", "erase_seed")
    }
    batch["label"] = torch.stack([item["label"] for item in items]).repeat_interleave(copies, dim=0)
    batch["index"] = torch.tensor([item["index"] for item in items]).repeat_interleave(copies)
    batch["failures"] = [failure for item in items for failure in item["failures"]]
    batch["seconds"] = [item["seconds"] for item in items]
    return batch


def collate_videos(items: Sequence[VideoViews]) -> list[VideoViews]:
    """Videos differ in size and number of frames: they stay a list."""
    return list(items)
