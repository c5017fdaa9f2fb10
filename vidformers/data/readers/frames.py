"""A folder of extracted frames behind the readers' protocol: img_00001.jpg, frame_000001.png, 000001.jpg, ...

Frames are ordered by the last number in their names, so frame_2 comes before frame_10. Images say nothing
about time: the frame rate is given.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vidformers.data.readers.base import (
    MAX_FRAME_PIXELS,
    FrameIndices,
    VideoReadError,
    check_frame_size,
    check_indices,
)

__all__ = ["IMAGE_EXTENSIONS", "FrameFolderReader"]

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)")


class FrameFolderReader:
    """See :class:`~vidformers.data.readers.base.VideoReader`. A single image file is a video of one frame.

    Attributes:
        path: as given.
        damage: signs that the folder is not whole (numbers missing between the first and the last), each a
            phrase.
    """

    backend = "frames"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        apply_rotation: bool = True,
        max_frame_pixels: int = MAX_FRAME_PIXELS,
    ) -> None:
        """fps: frames a second at which the images were taken. apply_rotation: as their EXIF data asks.

        Raises VideoReadError, and ValueError for a frame rate that is not positive.
        """
        if not 0 < fps < float("inf"):
            raise ValueError(
                f"fps={fps}; wanted the frame rate at which the frames were extracted, such as 30"
            )
        self.path, self._files, self.damage = _find_frames(path)
        self.fps = float(fps)
        self.num_frames = len(self._files)
        self.duration = self.num_frames / self.fps
        self._apply_rotation = apply_rotation
        self._max_frame_pixels = max_frame_pixels
        self._size: tuple[int, int] | None = None
        self._closed = False

    @property
    def height(self) -> int:
        return self._first_size()[0]

    @property
    def width(self) -> int:
        return self._first_size()[1]

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """See :meth:`VideoReader.get_frames`. Each distinct frame is decoded once."""
        if self._closed:
            raise ValueError(f"video '{self.path}' is closed; open it again to read frames")
        wanted, rows = np.unique(check_indices(indices, self.num_frames, self.path), return_inverse=True)
        height, width = self._first_size()
        frames = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        for row, index in enumerate(wanted.tolist()):
            image = self._decode(self._files[index])
            if image.shape != frames.shape[1:]:
                raise VideoReadError(
                    self.path,
                    "frame size changes",
                    f"{os.path.basename(self._files[0])} has {width}x{height} pixels, "
                    f"{os.path.basename(self._files[index])} {image.shape[1]}x{image.shape[0]}; extract the "
                    "frames again at one size",
                    self.backend,
                )
            frames[row] = image
        result = torch.from_numpy(frames)
        if len(rows) == len(wanted) and (np.diff(rows) > 0).all():
            return result
        return result[torch.from_numpy(rows)]

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> FrameFolderReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first_size(self) -> tuple[int, int]:
        if self._size is None:
            with self._open(self._files[0]) as image:
                width, height = image.size
                lies_on_side = self._apply_rotation and image.getexif().get(0x0112, 1) >= 5
            self._size = (width, height) if lies_on_side else (height, width)
        return self._size

    def _open(self, file: str) -> Any:
        from PIL import Image

        try:
            image = Image.open(file)
        except Image.DecompressionBombError as error:  # PIL's own limit, of 179 million pixels
            detail = f"{os.path.basename(file)}: {error}"
            raise VideoReadError(self.path, "frames too large", detail, self.backend) from error
        except (OSError, ValueError, SyntaxError) as error:
            detail = f"{os.path.basename(file)} is no image that can be read ({error})"
            raise VideoReadError(self.path, "truncated or damaged", detail, self.backend) from error
        width, height = image.size
        try:
            check_frame_size(height, width, self._max_frame_pixels, path=self.path, backend=self.backend)
        except VideoReadError:
            image.close()
            raise
        return image

    def _decode(self, file: str) -> np.ndarray:
        """-> uint8 (H, W, 3)"""
        from PIL import ImageOps

        with self._open(file) as image:
            if image.mode.startswith(("I", "F")):
                detail = f"{os.path.basename(file)} has more than 8 bits a channel ({image.mode})"
                raise VideoReadError(self.path, "no decoder", f"{detail}; save it with 8", self.backend)
            try:
                if self._apply_rotation:
                    image = ImageOps.exif_transpose(image)
                return np.asarray(image.convert("RGB"))
            except (OSError, ValueError, SyntaxError) as error:  # PIL's troubles with a broken file
                detail = f"{os.path.basename(file)} does not decode ({error})"
                raise VideoReadError(self.path, "truncated or damaged", detail, self.backend) from error


def _find_frames(path: str | os.PathLike[str]) -> tuple[str, list[str], tuple[str, ...]]:
    """-> (path as text, image files in order, damage)"""
    from vidformers.data.paths import path_manager

    text = os.fspath(path)
    try:
        local = path_manager().get_local_path(text)
        if not os.path.isdir(local):
            if os.path.isfile(local) and local.lower().endswith(IMAGE_EXTENSIONS):
                return text, [local], ()
            what = "is a file, not a folder of frames" if os.path.exists(local) else "there is no such folder"
            reason = "not a video" if os.path.exists(local) else "missing file"
            raise VideoReadError(text, reason, f"{what}; backend 'pyav' reads video files", "frames")
        names = [entry for entry in os.listdir(local) if entry.lower().endswith(IMAGE_EXTENSIONS)]
    except VideoReadError:
        raise
    except Exception as error:  # each path handler raises what its network library raises
        raise VideoReadError(text, "not readable", str(error), "frames") from error
    # The optical flow that TSN's tools leave beside the frames is not part of the video.
    names = [name for name in names if not name.startswith((".", "flow_"))]
    if not names:
        detail = f"the folder holds no image ({' '.join(IMAGE_EXTENSIONS)})"
        raise VideoReadError(text, "no frames", detail, "frames")
    names, damage = _in_order(names, text)
    return text, [os.path.join(local, name) for name in names], damage


def _in_order(names: list[str], path: str) -> tuple[list[str], tuple[str, ...]]:
    """-> (names by number, damage)"""
    numbered: dict[int, str] = {}
    series: dict[str, int] = {}
    for name in sorted(names):
        match = _NUMBERED.fullmatch(os.path.splitext(name)[0])
        if match is None:
            if len(names) == 1:
                return names, ()
            detail = f"'{name}' has no number, so its place is not known; wanted names such as img_00001.jpg"
            raise VideoReadError(path, "ambiguous frames", detail, "frames")
        stem = f"{match[1]}*{match[3]}"
        series[stem] = series.get(stem, 0) + 1
        number = int(match[2])
        if number in numbered and len(series) == 1:
            detail = f"'{numbered[number]}' and '{name}' are both frame {number}; keep one of them"
            raise VideoReadError(path, "ambiguous frames", detail, "frames")
        numbered[number] = name
    if len(series) > 1:
        shown = ", ".join(f"{stem} ({count})" for stem, count in sorted(series.items())[:5])
        detail = f"the folder holds {len(series)} series of images: {shown}; keep one a folder"
        raise VideoReadError(path, "ambiguous frames", detail, "frames")
    numbers = sorted(numbered)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    damage: tuple[str, ...] = ()
    if missing:
        before = next(a for a, b in pairwise(numbers) if b > a + 1)
        damage = (
            f"{missing} of the frames {numbers[0]} to {numbers[-1]} are missing, the first after "
            f"'{numbered[before]}'",
        )
    return [numbered[number] for number in numbers], damage
