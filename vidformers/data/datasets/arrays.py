"""Test videos that are already in memory: generated clips, and frames that somebody else decoded."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch

from vidformers.data.datasets.clips import TestVideos
from vidformers.data.readers import FrameIndices, VideoReader
from vidformers.data.records import Record


class ArrayReader:
    """Frames in memory behind the readers' protocol."""

    def __init__(self, name: str, frames: torch.Tensor, fps: float) -> None:
        self.path = name
        self.fps = fps
        self._frames = frames
        self.num_frames, self.height, self.width = frames.shape[:3]
        self.duration = self.num_frames / fps

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        return self._frames[torch.as_tensor(indices, dtype=torch.int64)]

    def close(self) -> None:
        pass

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class ArrayVideos(TestVideos):
    """`TestVideos` over frames in memory; by default one clip of all their frames, uncropped.

    videos: uint8 (F, H, W, 3) arrays, each at `fps` frames a second; labels: one an array. The other
    arguments are those of `TestVideos`; num_frames is F of the first video unless given, short_side and
    crop_size its shorter side, video_ids "0", "1", ...
    """

    def __init__(
        self,
        videos: Sequence[np.ndarray],
        labels: Sequence[int],
        *,
        video_ids: Sequence[str] | None = None,
        num_frames: int | None = None,
        sampling_rate: int = 1,
        num_views: int = 1,
        num_crops: int = 1,
        short_side: int | None = None,
        crop_size: int | None = None,
        fps: float = 30.0,
        temporal_sampling: str = "slowfast",
        use_offset: bool = False,
        resize_mode: str = "uint8",
    ) -> None:
        ids = [str(i) for i in range(len(videos))] if video_ids is None else list(video_ids)
        if not len(videos) == len(labels) == len(ids):
            raise ValueError(
                f"got {len(videos)} videos, {len(labels)} labels and {len(ids)} ids; give one of each a video"
            )
        for name, video in zip(ids, videos, strict=True):
            if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or not video.size:
                raise ValueError(
                    f"video {name} is {video.dtype} {video.shape}; wanted uint8 (frames, height, width, 3)"
                )
        side = min(videos[0].shape[1:3]) if len(videos) else 1
        super().__init__(
            [Record(name, int(label), name) for name, label in zip(ids, labels, strict=True)],
            num_frames=num_frames or (len(videos[0]) if len(videos) else 1),
            sampling_rate=sampling_rate,
            num_views=num_views,
            num_crops=num_crops,
            short_side=short_side or crop_size or side,
            crop_size=crop_size or side,
            target_fps=fps,
            temporal_sampling=temporal_sampling,
            use_offset=use_offset,
            resize_mode=resize_mode,
        )
        self._videos = {
            name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in zip(ids, videos, strict=True)
        }

    def open(self, record: Record) -> VideoReader:
        return ArrayReader(record.path, self._videos[record.path], self.target_fps)
