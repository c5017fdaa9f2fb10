"""What the decord and torchcodec readers share: each file is looked over with PyAV before they open it.

Both return other frames than every other decoder for some files, without an error. What those files have in
common is visible in the packets, a few milliseconds' work, so they are refused with a reason that says so.
"""

from __future__ import annotations

import os
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vidformers.data.readers.base import (
    FrameIndices,
    VideoReadError,
    check_indices,
    in_asked_order,
    local_video_path,
)
from vidformers.data.readers.pyav import PyAVReader

__all__ = ["LookedOverReader"]


class LookedOverReader:
    """See :class:`~vidformers.data.readers.base.VideoReader`.

    A subclass sets `_decoder` and says how to read from it.

    Attributes:
        path: as given.
        frame_pts, time_base: as in :class:`~vidformers.data.readers.pyav.PyAVReader`.
        damage: signs in header and packets that the file is not whole; not what decoding would show.
    """

    backend: str

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        apply_rotation: bool,
        index_cache: str,
        max_frame_pixels: int,
    ) -> None:
        """Raises VideoReadError."""
        self.path, self._local_path = local_video_path(path, self.backend)
        self._decoder: Any = None
        try:
            with PyAVReader(
                path,
                apply_rotation=apply_rotation,
                index_cache=index_cache,
                max_frame_pixels=max_frame_pixels,
            ) as first_look:
                self._facts = first_look.stream_facts
                self._orientation = first_look.display_orientation
                self.num_frames: int = first_look.num_frames
                self.fps: float = first_look.fps
                self.duration: float = first_look.duration
                self.height: int = first_look.height
                self.width: int = first_look.width
                self.frame_pts: np.ndarray | None = first_look.frame_pts
                self.time_base: Fraction = first_look.time_base
                self.damage: tuple[str, ...] = first_look.damage
        except VideoReadError as error:
            raise VideoReadError(self.path, error.reason, error.detail, self.backend) from error

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """See :meth:`VideoReader.get_frames`."""
        if self._decoder is None:
            raise ValueError(f"video '{self.path}' is closed; open it again to read frames")
        wanted, rows = np.unique(check_indices(indices, self.num_frames, self.path), return_inverse=True)
        try:
            frames = self._read(wanted)
        except Exception as error:
            detail = f"decoding failed ({self._brief(error)}); the pyav backend may tell more"
            raise VideoReadError(self.path, "truncated or damaged", detail, self.backend) from error
        if tuple(frames.shape[1:]) != (self.height, self.width, 3):
            height, width = frames.shape[1:3]
            raise self._refuse(f"it returns {width}x{height} frames, not {self.width}x{self.height}")
        return in_asked_order(frames, rows)

    def _read(self, wanted: np.ndarray) -> torch.Tensor:
        """wanted: (U,) distinct ascending indices -> uint8 (U, H, W, 3), contiguous"""
        raise NotImplementedError

    @staticmethod
    def _brief(error: BaseException) -> str:
        """What the library's error says, in a line."""
        raise NotImplementedError

    def _check_count(self) -> None:
        if len(self._decoder) != self.num_frames:
            raise self._refuse(f"it counts {len(self._decoder)} frames where {self.num_frames} are shown")

    def _refuse(self, why: str) -> VideoReadError:
        return VideoReadError(
            self.path, f"unsupported by {self.backend}", f"{why}; read it with the pyav backend", self.backend
        )

    def close(self) -> None:
        self._decoder = None

    def __enter__(self) -> LookedOverReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
