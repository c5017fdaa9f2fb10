"""Frames of a long video one after the other, without holding them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from vidformers.data.readers.base import FrameIndices, VideoReader, check_indices

__all__ = ["CHUNK", "StreamingReader", "stream_frames"]

# Frames that readers without a stream are asked for at a time.
CHUNK = 16


@runtime_checkable
class StreamingReader(Protocol):
    """A reader that hands out frames while it decodes."""

    def stream_frames(self, indices: FrameIndices) -> Iterator[tuple[int, torch.Tensor]]:
        """(index, uint8 (H, W, 3)) for ascending distinct `indices`, the file decoded once from its start."""


def stream_frames(
    video: VideoReader, indices: FrameIndices, convert: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[int, torch.Tensor]]:
    """(index, frame as `convert` makes it) for each of `indices`, ascending and distinct.

    convert: a function of uint8 (n, H, W, 3) frames, each for itself. No more than CHUNK frames are in memory
    at a time, beside those that the caller keeps. Raises as `get_frames`.
    """
    wanted = check_indices(indices, video.num_frames, video.path)
    assert (np.diff(wanted) > 0).all()
    if isinstance(video, StreamingReader):
        for index, frame in video.stream_frames(wanted):
            yield index, convert(frame[None])[0]
        return
    for first in range(0, len(wanted), CHUNK):
        part = wanted[first : first + CHUNK]
        for index, frame in zip(part.tolist(), convert(video.get_frames(part)), strict=True):
            yield index, frame.clone()  # a part would keep the whole of them in memory
