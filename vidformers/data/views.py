"""Spatial views for testing: crop boxes as pure geometry, and cutting the views of a video.

The geometry is PySlowFast's (slowfast/datasets/transform.py), so that published testing protocols are
reproduced: the long side is truncated, centred offsets are rounded up, and nothing is antialiased. PySlowFast
resizes to another short side when it tests one crop than when it tests three; that rule belongs to the
caller, and the functions here take what they are told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidformers.data.transforms import normalize_in_place, resize_frames, short_side_size

__all__ = ["VideoViews", "gather_views", "resize_frames", "short_side_size", "spatial_crops"]


@dataclass(frozen=True)
class VideoViews:
    """All views of one test video, stored without repeating a frame.

    frames: uint8 (float32 with values 0..255 in resize mode "float") (U, h, w, 3), the U distinct frames that
    the
        views need, already at the short side. U is 0 if the video could not be read.
    view_index: int64 (n_t, T), rows of `frames` for each temporal view.
    crops: int64 (n_s, 4), (top, left, height, width) of each spatial view.
    video_id, label, index: the record's id and label, and its place in the list.
    failure: None, or (reason, detail) of a video that could not be read; it then has no views.
    damage: what is wrong with a video that could be read, as far as its reader can tell; "" for nothing.
    seconds: what reading the video and resizing its frames took.
    """

    frames: torch.Tensor
    view_index: torch.Tensor
    crops: torch.Tensor
    video_id: str
    label: int
    index: int
    failure: tuple[str, str] | None = None
    damage: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def num_views(self) -> int:
        """Number of (temporal, spatial) views; row v is temporal view v // n_s, crop v % n_s."""
        return self.view_index.shape[0] * self.crops.shape[0]


def spatial_crops(height: int, width: int, crop_size: int, num_crops: int) -> np.ndarray:
    """Boxes of `num_crops` square crops, int64 (num_crops, 4) as (top, left, height, width).

    One crop is the centre. Several are evenly spaced along the longer side from one end to the other (left,
    centre, right for three of a landscape frame) and centred on the shorter. Raises ValueError if a crop does
    not fit.
    """
    if num_crops < 1:
        raise ValueError(
            f"num_crops={num_crops}; use 1 (centre), 3 (PySlowFast's left, centre, right) or more"
        )
    if crop_size < 1 or crop_size > min(height, width):
        raise ValueError(
            f"a crop of {crop_size} pixels does not fit into a {height}x{width} frame; "
            f"use a crop size of at most {min(height, width)} or a larger short side"
        )
    top, left = height - crop_size, width - crop_size
    boxes = np.empty((num_crops, 4), dtype=np.int64)
    boxes[:] = (math.ceil(top / 2), math.ceil(left / 2), crop_size, crop_size)
    if num_crops > 1:
        axis, room = (0, top) if height > width else (1, left)
        # -(-a // b) is the ceiling in integers: 3 crops of 117 pixels of room start at 0, 59, 117.
        boxes[:, axis] = [-(-i * room // (num_crops - 1)) for i in range(num_crops)]
    return boxes


def gather_views(
    views: VideoViews,
    rows: Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> torch.Tensor:
    """Cut, stack and normalise some views of a video: float32 (len(rows), 3, T, h, w) on `device`.

    Row v is temporal view v // n_s and crop v % n_s (PySlowFast's order). Bytes are transferred, floats made
    there.
    """
    num_crops = len(views.crops)
    size = (views.view_index.shape[1], *views.crops[0, 2:].tolist())
    clips = torch.empty((len(rows), 3, *size), device=device)
    # A view at a time: it stays in the processor's cache from the bytes to the normalised floats.
    for clip, row in zip(clips, rows, strict=True):
        if not 0 <= row < views.num_views:
            raise IndexError(f"view {row} of {views.video_id}, which has {views.num_views} views")
        top, left, height, width = views.crops[row % num_crops].tolist()
        index = views.view_index[row // num_crops].to(views.frames.device)
        # Cropped before it is indexed: only the pixels of this view are copied.
        frames = views.frames[:, top : top + height, left : left + width].index_select(0, index)
        # (T, h, w, 3) -> (3, T, h, w)
        clip.copy_(frames.permute(3, 0, 1, 2).contiguous().to(device, non_blocking=True))
        normalize_in_place(clip, mean, std)
    return clips
