"""What every video reader offers, and the one error it raises."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from vidformers.data.tar_parts import TarPart, split_part, why_not_there

__all__ = [
    "MAX_FRAME_PIXELS", "Conversion", "ConvertingReader", "FrameIndices", "VideoReadError", "VideoReader",
    "check_frame_size", "check_indices", "frame_seconds", "in_asked_order", "local_video_path",
]  # fmt: skip

FrameIndices = Sequence[int] | np.ndarray | torch.Tensor
# Larger frames are refused unless the caller allows them: 8192 x 4320 (8K) fits, 108 MB as RGB.
MAX_FRAME_PIXELS = 36_000_000
# Longer side to shorter. Clips are scaled by the shorter: a frame of 65535 x 1 is small until then.
MAX_ASPECT = 256
# A function of uint8 (n, H, W, 3) frames, each for itself, such as a resize to (n, h, w, 3): convert(frames,
# out) writes into `out` and returns it where that is not None.
Conversion = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class VideoReadError(OSError):
    """A video that cannot be read, and why. ``str(error)`` is a full sentence; survives pickling.

    Attributes:
        path: the path as the caller gave it.
        reason: a short fixed phrase to count by: ``missing file``, ``directory``, ``empty file``, ``not
        readable``,
            ``not a video``, ``no video stream``, ``no decoder``, ``no frames``, ``ambiguous frames``,
            ``truncated or damaged``, ``frame size changes``, ``frames too large``, ``unsupported by
            decord``, ``unsupported by torchcodec``, ``timeout``.
        detail: what exactly was found, and what to try where something can be tried.
        backend: the reader that failed.
    """

    def __init__(self, path: str, reason: str, detail: str, backend: str) -> None:
        super().__init__(f"cannot read video '{path}' with {backend} ({reason}): {detail}")
        self.path = path
        self.reason = reason
        self.detail = detail
        self.backend = backend

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason, self.detail, self.backend)

    def __str__(self) -> str:
        return str(self.args[0])


@runtime_checkable
class VideoReader(Protocol):
    """Random access to the frames of one video file.

    Frame indices count the frames in presentation order from 0, whatever the file's timestamps are.
    ``num_frames`` is the number of frames that can be had, not what the header claims. ``height`` and
    ``width`` describe the frames as returned, rotation applied.
    """

    path: str

    @property
    def num_frames(self) -> int: ...
    @property
    def fps(self) -> float:
        """Average frame rate in frames a second."""

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """Frames at ``indices`` (any order, repeats allowed) -> uint8 RGB (T, H, W, 3).

        Raises:
            ValueError: indices are empty, not integers or not one-dimensional.
            IndexError: an index is negative or not below ``num_frames``.
            VideoReadError: the frames cannot be decoded.
        """

    def close(self) -> None:
        """Frees the file. Further calls are harmless; reading afterwards raises ValueError."""

    def __enter__(self) -> VideoReader: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class ConvertingReader(Protocol):
    """A reader that converts frames while it decodes."""

    def get_converted_frames(self, indices: FrameIndices, convert: Conversion | None) -> torch.Tensor:
        """`get_frames` and then `convert`, without holding all of the frames at full size."""


def check_indices(indices: FrameIndices, num_frames: int, path: str) -> np.ndarray:
    """-> (T,) int64. Raises ValueError / IndexError as :meth:`VideoReader.get_frames` says."""
    if isinstance(indices, torch.Tensor):
        indices = indices.detach().cpu().numpy()
    array = np.asarray(indices)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"frame indices for '{path}' have shape {array.shape}; give a non-empty one-dimensional list, "
            "for instance [0, 4, 8]"
        )
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"frame indices for '{path}' are {array.dtype}; whole numbers are needed (round first)"
        )
    outside = array[(array < 0) | (array >= num_frames)]
    if outside.size:
        raise IndexError(
            f"frame index {int(outside[0])} is outside '{path}', which has {num_frames} frames; "
            f"use 0 to {num_frames - 1} (negative indices are not counted from the end)"
        )
    return array.astype(np.int64)


def check_frame_size(height: int, width: int, max_pixels: int, *, path: str, backend: str) -> None:
    """Raises VideoReadError where frames have, or are announced with, more pixels than are allowed.

    What a header says costs nothing to write; a decoder believes it and asks for the memory.
    """
    if height * width > max_pixels:
        raise VideoReadError(
            path,
            "frames too large",
            f"its frames are said to be {width}x{height}, {height * width:,} pixels, and {max_pixels:,} are "
            "allowed; if they are, make a smaller copy or raise DATA.MAX_FRAME_PIXELS (open_video's "
            "max_frame_pixels)",
            backend,
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise VideoReadError(
            path,
            "frames too large",
            f"its frames are said to be {width}x{height}, whose longer side is more than {MAX_ASPECT} times "
            "the shorter: scaled to the short side of a clip they would fill the memory; crop it first",
            backend,
        )


def frame_seconds(video: VideoReader) -> np.ndarray:
    """When each frame comes on the screen, in seconds after the first, float64 (N,): by times of their own
    where the reader knows them (phones record so), else by the frame rate."""
    pts = getattr(video, "frame_pts", None)
    if pts is None:
        return np.arange(video.num_frames) / video.fps
    return (pts - pts[0]) * float(video.time_base)  # type: ignore[attr-defined]


def in_asked_order(frames: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """(U, H, W, 3) distinct frames and (T,) their places in the request, of `np.unique` -> (T, H, W, 3)."""
    if len(rows) == len(frames) and (np.diff(rows) > 0).all():
        return frames
    return frames[torch.from_numpy(rows)]


def local_video_path(path: str | os.PathLike[str], backend: str) -> tuple[str, str | TarPart]:
    """-> (path as text, local file, or part of a local tar file, that exists and is not empty).

    Raises VideoReadError otherwise.
    """
    from vidformers.data.paths import path_manager

    text = os.fspath(path)
    part = split_part(text)
    try:
        local = path_manager().get_local_path(part.shard if part else text)
    except Exception as error:  # each path handler raises what its network library raises
        raise VideoReadError(
            text, "missing file", f"the path could not be fetched: {error}", backend
        ) from error
    try:
        size = os.stat(local).st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"shard '{part.shard}'" if part else "such file"
        detail = f"there is no {what}; check the path (of a list's relative ones also DATA.PATH_PREFIX)"
        raise VideoReadError(text, "missing file", detail, backend) from error
    except (OSError, ValueError) as error:
        raise VideoReadError(text, "not readable", str(error), backend) from error
    if os.path.isdir(local):
        detail = "it is a directory, not a video file; backend 'frames' reads folders of extracted frames"
        raise VideoReadError(text, "directory", detail, backend)
    if size == 0 or (part and part.size == 0):
        raise VideoReadError(text, "empty file", "the file has no content (0 bytes); get it again", backend)
    if part is None:
        return text, local
    part = part._replace(shard=local)
    try:
        trouble = why_not_there(part, size)
    except OSError as error:
        raise VideoReadError(text, "not readable", str(error), backend) from error
    if trouble:
        raise VideoReadError(text, "truncated or damaged", trouble, backend)
    return text, part
