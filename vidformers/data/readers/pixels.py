"""From decoded frames to RGB bytes, turned upright, converted as they arrive."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidformers.data.readers.base import Conversion

if TYPE_CHECKING:
    from av import VideoFrame

# Decoded frames wait until there are so many bytes of them (counted as RGB, twice what they take), and are
# then converted one after the other. Each change from decoding to converting costs something, because the
# processor's caches hold the code and data of the one or of the other.
WAITING_BYTES = 1 << 22

_QUARTER_TURNS = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}  # cosine and sine

__all__ = ["FrameSink", "RgbConverter", "display_orientation", "turn"]


class RgbConverter:
    """Decoded frames of any pixel format -> views of uint8 RGB (H, W, 3), as stored (not turned)."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        # One converter for each step keeps its tables from frame to frame; a frame's own to_ndarray() builds
        # new ones.
        self._to_rgb, self._to_8_bits = VideoReformatter(), VideoReformatter()
        self._format = ""  # of the last frame, and what _eight_bit_format says to it
        self._narrow = ""

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if frame.format.name != self._format:
            self._format, self._narrow = frame.format.name, _eight_bit_format(frame)
        if self._narrow:
            # Going to RGB from here treats chroma as for 8-bit video; the direct conversion does not.
            frame = self._to_8_bits.reformat(frame, format=self._narrow, threads=1)
        plane = self._to_rgb.reformat(frame, format="rgb24", threads=1).planes[0]
        # Lines are longer than they look, by what alignment takes.
        shape, strides = (plane.height, plane.width, 3), (plane.line_size, 3, 1)
        return np.ndarray(shape, np.uint8, buffer=memoryview(plane), strides=strides)


class FrameSink:
    """The frames of one request, in any order; all of one size.

    picture: a decoded frame -> uint8 (H, W, 3). convert: None, or what becomes of pictures.
    """

    def __init__(
        self, num_rows: int, *, picture: Callable[[VideoFrame], np.ndarray], convert: Conversion | None
    ) -> None:
        self._num_rows = num_rows
        self._picture = picture
        self._convert = convert
        self._waiting: list[tuple[int, VideoFrame]] = []
        self._num_done = 0
        self._out: np.ndarray | None = None

    def put(self, row: int, frame: VideoFrame) -> None:
        self._waiting.append((row, frame))
        if len(self._waiting) * frame.height * frame.width * 3 >= WAITING_BYTES:
            self._take_waiting()

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for row, frame in waiting:
            picture = self._picture(frame)
            if self._convert is None:
                self._rows_like(picture)[row] = picture
            else:
                self._store_converted(row, picture, self._convert)
            self._num_done += 1

    def _store_converted(self, row: int, picture: np.ndarray, convert: Conversion) -> None:
        if min(picture.strides) < 0:  # turned upside down or mirrored, which torch cannot hold
            picture = picture.copy()
        one = torch.from_numpy(picture[None])
        if self._out is not None:
            convert(one, torch.from_numpy(self._out[row : row + 1]))
        else:
            converted = convert(one, None).numpy()[0]
            self._rows_like(converted)[row] = converted

    def _rows_like(self, row: np.ndarray) -> np.ndarray:
        if self._out is None:
            # NumPy's memory and not torch's: it asks for huge pages, without which the first touch of 30 MB
            # costs a tenth of the decoding. And its assignment to rows is a copy of memory, torch's is not.
            self._out = np.empty((self._num_rows, *row.shape), row.dtype)
        return self._out

    def frames(self) -> torch.Tensor:
        """All of them, in the order of their rows."""
        if self._waiting:
            self._take_waiting()
        if self._num_done < self._num_rows:  # an error on the way was taken for one of decoding
            raise RuntimeError(f"{self._num_rows - self._num_done} decoded frames could not be converted")
        return torch.from_numpy(self._out)


def _eight_bit_format(frame: VideoFrame) -> str:
    """The 8-bit pixel format with a deeper frame's chroma layout; empty for an 8-bit frame."""
    pixel_format = frame.format
    if pixel_format.is_rgb or all(component.bits <= 8 for component in pixel_format.components):
        return ""
    name = pixel_format.name
    if name.startswith("gray"):
        return "gray"
    layout = re.match(r"yuva?(4\d\d)p", name)
    return f"yuv{layout.group(1)}p" if layout else "yuv420p"


def display_orientation(frame: VideoFrame) -> np.ndarray:
    """(2, 2) of -1, 0, 1: the display matrix [[a, b], [c, d]] with x' = a x + c y, y' = b x + d y.

    Identity if there is none, or if it asks for an angle that is no multiple of 90 degrees.
    """
    identity = np.eye(2, dtype=int)
    from av.sidedata.sidedata import Type

    try:
        items: Any = frame.side_data
        side_data = items[Type.DISPLAYMATRIX]
    except KeyError:
        return identity
    except ValueError:
        # Where there is a kind that PyAV does not know (EXIF, for one) it gives none of them, but the angle.
        cos, sin = _QUARTER_TURNS.get(frame.rotation % 360, (1, 0))
        return np.array([[cos, -sin], [sin, cos]])
    matrix = np.frombuffer(bytes(side_data), dtype=np.int32)[[0, 1, 3, 4]].reshape(2, 2) / 65536.0
    rounded = np.rint(matrix).astype(int)
    is_quarter_turn = (np.abs(rounded).sum(0) == 1).all() and (np.abs(rounded).sum(1) == 1).all()
    return rounded if is_quarter_turn and np.abs(matrix - rounded).max() < 0.02 else identity


def turn(image: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Applies a display orientation to (H, W, 3); a view."""
    (a, b), (c, d) = orientation
    if a:
        return image[:: int(d), :: int(a)]
    return image.swapaxes(0, 1)[:: int(b), :: int(c)]
