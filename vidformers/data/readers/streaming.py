"""Frames of a long video one after the other, without holding them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from vidformers.data.readers.base import FrameIndices, VideoReader, VideoReadError, check_indices

__all__ = ["CHUNK", "OnDamage", "StreamingReader", "stream_frames"]

# Told that the frames first, ..., end - 1 do not decode, or refer to what did not.
OnDamage = Callable[[int, int], None]

# Frames that readers without a stream are asked for at a time.
CHUNK = 16


@runtime_checkable
class StreamingReader(Protocol):
    """A reader that hands out frames while it decodes."""

    def stream_frames(
        self, indices: FrameIndices, on_damage: OnDamage | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(index, uint8 (H, W, 3)) for ascending distinct `indices`, the file decoded once from its start.

        on_damage: told of frames that are damaged, and reading goes on: those that do not decode are left
        out. None: that is an error.
        """


def stream_frames(
    video: VideoReader,
    indices: FrameIndices,
    convert: Callable[[torch.Tensor], torch.Tensor],
    *,
    on_damage: OnDamage | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(index, frame as `convert` makes it) for each of `indices`, ascending and distinct.

    convert: a function of uint8 (n, H, W, 3) frames, each for itself. No more than CHUNK frames are in memory
    at a time, beside those that the caller keeps. on_damage: told of frames that are damaged, and those that
    do not decode are left out; None: it raises. Raises as `get_frames`.
    """
    wanted = check_indices(indices, video.num_frames, video.path)
    assert (np.diff(wanted) > 0).all()
    if isinstance(video, StreamingReader):
        for index, frame in video.stream_frames(wanted, on_damage):
            yield index, convert(frame[None])[0]
        return
    for first in range(0, len(wanted), CHUNK):
        for part in _readable(video, wanted[first : first + CHUNK], on_damage):
            for index, frame in zip(part[0].tolist(), convert(part[1]), strict=True):
                yield index, frame.clone()  # a part would keep the whole of them in memory


def _readable(
    video: VideoReader, part: np.ndarray, on_damage: OnDamage | None
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """(indices, frames) of a part: all at once, or where some do not decode, one by one."""
    try:
        yield part, video.get_frames(part)
        return
    except VideoReadError:
        if on_damage is None:
            raise
    for index in part:
        try:
            yield part[part == index], video.get_frames([index])
        except VideoReadError:
            on_damage(int(index), int(index) + 1)
