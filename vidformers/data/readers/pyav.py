"""The default reader: PyAV (FFmpeg), exact frames by index at the least decoding.

How a request is served: one packet scan at opening gives the timestamp of every frame (:mod:`.index`). Wanted
frames are grouped by the key frame before them; for each group the file is sought to that key frame's own
timestamp (seeking to the wanted timestamp misses frames right after reordered key frames), decoded forward
and matched by exact timestamp until the last wanted frame. A frame that does not turn up is looked for once
more from one key frame earlier, then from the start of the file. Where timestamps cannot be believed, frames
are counted from the start instead. So a mismatch shows as a missing frame, never as a wrong one.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidformers.data.readers.base import (
    PART_BYTES,
    FrameIndices,
    VideoReadError,
    check_indices,
    local_video_path,
)
from vidformers.data.readers.index import (
    PacketIndex,
    describe,
    first_video_stream,
    open_container,
    read_only,
    scan_packets,
)
from vidformers.data.readers.index_cache import CachedIndex, load_index, save_index

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["PyAVReader", "StreamFacts", "decode_through", "turn"]

_DAMAGED = "truncated or damaged"
# Decoders known to obey skip_frame packet by packet. dav1d, for one, reads it only when it is opened.
_SKIPS_PER_PACKET = ("h264", "hevc")


@dataclass(frozen=True)
class StreamFacts:
    """What a file is made of, as far as another decoder might care."""

    container: str
    stream_index: int
    codec: str
    pixel_format: str
    max_bits: int
    has_alpha: bool
    has_cut_chroma: bool
    num_video_streams: int
    num_hidden_packets: int
    distrust: str
    has_reordered_keys: bool
    is_turned: bool


class _TimestampsLieError(Exception):
    """Decoded timestamps do not increase: the packet index cannot be used for this file."""


class PyAVReader:
    """See :class:`~vidformers.data.readers.base.VideoReader` for the common part.

    Attributes:
        path: as given.
        frame_pts: (N,) int64 timestamp of each frame in units of ``time_base``, or None where frames are
        counted. time_base: seconds a tick.
        num_decoded_frames: frames the decoder put out so far, wanted or not: what the requests have cost.
        num_corrupt_frames: frames the decoder flagged as damaged among all that it decoded so far. They are
        returned
            all the same, as players do.
    """

    backend = "pyav"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        thread_count: int = 1,
        apply_rotation: bool = True,
        index_cache: str = "",
        time_limit: float = 0.0,
    ) -> None:
        """Opens and indexes the file; what that takes is kept in the folder `index_cache`, if one is given.

        time_limit: seconds from now after which decoding gives up (reason ``timeout``); 0 = none.

        Raises VideoReadError.
        """
        self.path, self._local_path = local_video_path(path, self.backend)
        self._thread_count = thread_count
        self._apply_rotation = apply_rotation
        self._index_cache = index_cache
        self._time_limit = time_limit
        self._deadline = time.monotonic() + time_limit if time_limit else math.inf
        self._container: InputContainer | None = None
        self._closed = False
        self._corrupt: set[int] = set()
        self.num_decoded_frames = 0
        self._size: tuple[int, int] | None = None  # (height, width) as stored, before rotation
        self._orientation: np.ndarray | None = None  # as the file asks, applied or not
        self._in_cache: CachedIndex | None = None
        self._has_opened = False
        try:
            self._open()
            self._has_opened = True
        except Exception as error:
            self.close()
            raise self._as_read_error(error) from error

    def _open(self) -> None:
        from av.video.reformatter import VideoReformatter

        # One converter for each step keeps its tables from frame to frame; a frame's own to_ndarray() builds
        # new ones.
        self._to_rgb, self._to_8_bits = VideoReformatter(), VideoReformatter()
        if self._index_cache:
            self._in_cache = load_index(self._index_cache, self._local_path)
        if self._in_cache is not None:
            self._recall(self._in_cache)
        else:
            self._scan()
        span = self._span_seconds()
        if self._header_fps > 0:
            self._fps = self._header_fps
        else:
            self._fps = self._num_frames / span if span > 0 else 25.0
        self._duration = span if self._trusted and span > 0 else self._num_frames / self._fps

    def _scan(self) -> None:
        """Finds out what can be known without decoding, and the number of frames where that takes it."""
        container, stream = self._reopen()
        context = stream.codec_context
        self._header_size = (context.height, context.width)
        self.time_base: Fraction = stream.time_base or Fraction(1, 1000)
        self._header_frames = stream.frames
        self._header_seconds = _header_seconds(container, stream)
        self._header_fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)
        self._index: PacketIndex = scan_packets(container, stream, self._check_time)
        self._trusted = not self._index.distrust
        self._num_frames = len(self._index.frame_pts)
        if not self._trusted:
            self._num_frames = sum(1 for _ in self._frames_from_start())
        if self._num_frames == 0:
            raise VideoReadError(
                self.path, "no frames", "the video stream holds no frame that decodes", self.backend
            )

    def _recall(self, entry: CachedIndex) -> None:
        """Takes over what an earlier opening found out. The file itself is opened when frames are wanted."""
        self._index, self._num_frames = entry.index, entry.num_frames
        self._trusted = not entry.index.distrust
        self.time_base = Fraction(*entry.time_base)
        self._header_fps, self._header_size = entry.fps, entry.header_size
        self._header_frames, self._header_seconds = entry.header_frames, entry.header_seconds
        self._size = entry.size
        if entry.orientation is not None:
            self._orientation = np.array(entry.orientation).reshape(2, 2)

    def _remember(self) -> None:
        """Keeps what this opening found out, if the cache does not have it yet."""
        orientation = None if self._orientation is None else tuple(self._orientation.ravel().tolist())
        entry = CachedIndex(
            index=self._index,
            num_frames=self._num_frames,
            fps=self._header_fps,
            time_base=(self.time_base.numerator, self.time_base.denominator),
            header_frames=self._header_frames,
            header_seconds=self._header_seconds,
            header_size=self._header_size,
            size=self._size,
            orientation=orientation,
        )
        known = self._in_cache
        if known is None or (known.size, known.orientation, known.index.distrust) != (
            entry.size,
            entry.orientation,
            entry.index.distrust,
        ):
            save_index(self._index_cache, self._local_path, entry)
            self._in_cache = entry

    # ---- what callers see

    @property
    def num_frames(self) -> int:
        return self._num_frames

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def duration(self) -> float:
        return self._duration

    @property
    def height(self) -> int:
        return self._shown_size()[0]

    @property
    def width(self) -> int:
        return self._shown_size()[1]

    @property
    def frame_pts(self) -> np.ndarray | None:
        return self._index.frame_pts if self._trusted else None

    @property
    def display_orientation(self) -> np.ndarray:
        """How the file asks to be shown: (2, 2) of -1, 0, 1.

        [[a, b], [c, d]] with x' = a x + c y and y' = b x + d y.
        """
        self._shown_size()
        assert self._orientation is not None
        return self._orientation

    @property
    def stream_facts(self) -> StreamFacts:
        container, stream = self._opened()
        context = stream.codec_context
        components = context.format.components if context.format is not None else ()
        return StreamFacts(
            container=container.format.name,
            stream_index=stream.index,
            codec=context.codec.name if context.name != "libdav1d" else "av1",
            pixel_format=context.pix_fmt or "unknown",
            max_bits=max((component.bits for component in components), default=8),
            has_alpha=any(component.is_alpha for component in components),
            has_cut_chroma=any(
                component.width * 2 == size + 1 or component.height * 2 == size + 1
                for component in components
                for size in (context.width, context.height)
            ),
            num_video_streams=len(container.streams.video),
            num_hidden_packets=self._index.num_hidden,
            distrust=self._index.distrust,
            has_reordered_keys=self._index.has_reordered_keys,
            is_turned=not np.array_equal(self.display_orientation, np.eye(2)),
        )

    @property
    def num_corrupt_frames(self) -> int:
        return len(self._corrupt)

    @property
    def damage(self) -> tuple[str, ...]:
        """Signs that a readable file is not whole, each a phrase; empty for a sound file, as it was read."""
        signs = []
        if self._header_frames > self._index.num_packets:
            signs.append(f"header promises {self._header_frames} frames, {self._index.num_packets} are there")
        # Matroska's length counts from 0, wherever the first frame is.
        lost = self._header_seconds - max(self._span_seconds(), float(self._index.end_pts * self.time_base))
        if self._trusted and lost > max(0.5, 0.05 * self._header_seconds):
            signs.append(f"header promises {self._header_seconds:.2f} s, {lost:.2f} s of it are missing")
        if self._corrupt:
            signs.append(f"{len(self._corrupt)} decoded frames are damaged")
        return tuple(signs)

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """See :meth:`VideoReader.get_frames`. Each distinct frame is decoded and converted once."""
        return self.get_converted_frames(indices, None)

    def get_converted_frames(
        self, indices: FrameIndices, convert: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> torch.Tensor:
        """See :meth:`ConvertingReader.get_converted_frames`."""
        if self._closed:
            raise ValueError(f"video '{self.path}' is closed; open it again to read frames")
        wanted, rows = np.unique(check_indices(indices, self._num_frames, self.path), return_inverse=True)
        try:
            frames = self._fetch(wanted, convert)
        except Exception as error:
            raise self._as_read_error(error) from error
        if len(rows) == len(wanted) and (np.diff(rows) > 0).all():
            return frames
        return frames[torch.from_numpy(rows)]

    def close(self) -> None:
        if self._index_cache and self._has_opened and not self._closed:
            self._remember()
        self._closed = True
        if self._container is not None:
            self._container.close()
            self._container = None

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- decoding

    def _open_stream(self) -> tuple[InputContainer, VideoStream]:
        container = open_container(self.path, self._local_path, self.backend)
        try:
            stream = first_video_stream(container, self.path, self.backend)
            read_only(container, stream)
            stream.codec_context.thread_count = self._thread_count
            if self._thread_count != 1:
                stream.codec_context.thread_type = "AUTO"
        except BaseException:
            container.close()
            raise
        return container, stream

    def _opened(self) -> tuple[InputContainer, VideoStream]:
        """The container, wherever it stands."""
        return self._reopen() if self._container is None else (self._container, self._stream)

    def _reopen(self) -> tuple[InputContainer, VideoStream]:
        """A fresh container, standing at the start. Unlike seeking to 0 this works for every format."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._container, self._stream = self._open_stream()
        return self._container, self._stream

    def _fetch(
        self, wanted: np.ndarray, convert: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> torch.Tensor:
        """wanted: (U,) distinct ascending indices -> (U, H, W, 3)"""
        if self._trusted:
            try:
                sink = _Sink(self, len(wanted), convert)
                if self._fetch_by_pts(wanted, sink):
                    return sink.frames()
                found = self._count_instead()
            except _TimestampsLieError:
                found = self._count_instead()
            if int(wanted[-1]) >= found:
                raise VideoReadError(
                    self.path,
                    _DAMAGED,
                    f"frame {int(wanted[-1])} is wanted, {found} frames decode",
                    self.backend,
                )
        sink = _Sink(self, len(wanted), convert)
        rows = {int(index): row for row, index in enumerate(wanted)}
        for index, frame in enumerate(self._frames_from_start()):
            if index in rows:
                sink.put(rows.pop(index), frame)
                if not rows:
                    return sink.frames()
        raise VideoReadError(
            self.path, _DAMAGED, f"{len(rows)} of {len(wanted)} wanted frames did not decode", self.backend
        )

    def _fetch_by_pts(self, wanted: np.ndarray, sink: _Sink) -> bool:
        """Looks frames up through the index. False: some did not turn up even from the start of the file."""
        pts = self._index.frame_pts[wanted]
        keys = self._index.key_pts
        # Frames shown before the first key frame (reordered ones) are decoded from it too.
        group_of = np.maximum(np.searchsorted(keys, pts, side="right") - 1, 0)
        for group in np.unique(group_of):
            members = np.flatnonzero(group_of == group)
            missing = {int(pts[row]): int(row) for row in members}
            starts = [int(keys[group])]
            if group > 0:
                starts.append(int(keys[group - 1]))
            for start in starts:
                try:
                    self._decode_from(start, missing, sink)
                except _TimestampsLieError:
                    raise
                except VideoReadError:
                    raise
                except Exception:
                    # Not seekable, or broken data at this entry point; another entry point may still do.
                    pass
                if not missing:
                    break
            if missing:
                self._decode_from(None, missing, sink)
            if missing:
                return False
        return True

    def _decode_from(self, start: int | None, missing: dict[int, int], sink: _Sink) -> None:
        """Decodes from the key frame at timestamp ``start`` (None: from the start of the file) until the last
        wanted frame, moving frames from ``missing`` (timestamp -> row) into the sink."""
        if start is None:
            container, stream = self._reopen()
        else:
            container, stream = self._opened()
            container.seek(start, stream=stream)
        context = stream.codec_context
        can_skip = context.codec.name in _SKIPS_PER_PACKET
        skips = can_skip and start is not None and self._thread_count == 1
        skipping = False
        if can_skip:
            context.skip_frame = "DEFAULT"
        last_wanted = max(missing)
        # Decoding that begins at a key frame gives sound frames from its timestamp on; what is shown before
        # it may refer to frames that were not decoded.
        sound_from: float | None = -np.inf if start is None else None
        last_pts: int | None = None
        for packet in container.demux(stream):
            self._check_time()
            if sound_from is None:
                if not packet.is_keyframe or packet.pts is None:
                    continue
                sound_from = -np.inf if packet.pts == self._index.first_pts else packet.pts
            if skips:
                # A frame that nothing refers to need not be decoded unless it is wanted itself.
                skip = packet.pts is not None and packet.pts not in missing
                if skip != skipping:
                    context.skip_frame = "NONREF" if skip else "DEFAULT"
                    skipping = skip
            for frame in packet.decode():
                pts = frame.pts
                if pts is None or (last_pts is not None and pts <= last_pts):
                    raise _TimestampsLieError
                last_pts = pts
                self.num_decoded_frames += 1
                if frame.is_corrupt:
                    self._corrupt.add(pts)
                if pts in missing and pts >= sound_from:
                    sink.put(missing.pop(pts), frame)
            if last_pts is not None and last_pts >= last_wanted:
                return

    def _frames_from_start(self) -> Iterator[VideoFrame]:
        """Every frame in output order, from a fresh container."""
        for number, frame in enumerate(decode_through(*self._reopen())):
            self.num_decoded_frames += 1
            if frame.is_corrupt:
                self._corrupt.add(number)
            self._check_time()
            yield frame

    def _count_instead(self) -> int:
        """Gives up the index for good; returns how many frames decode.

        Raises VideoReadError if that is another number than the index gave: then callers have chosen their
        indices from a wrong length, and the n-th frame may not be the one that was meant.
        """
        count = sum(1 for _ in self._frames_from_start())
        if count != self._num_frames:
            raise VideoReadError(
                self.path, _DAMAGED, f"the file lists {self._num_frames} frames, {count} decode", self.backend
            )
        self._trusted = False
        self._index = replace(self._index, distrust="decoded timestamps are not those of the packets")
        return count

    # ---- geometry and time

    def _learn_geometry(self, frame: VideoFrame) -> tuple[int, int]:
        """-> (height, width) that every frame must have"""
        size = (frame.height, frame.width)
        if self._size is None:
            if size != self._header_size:
                return self._probe_geometry()
            self._size = size
        if self._orientation is None:
            self._orientation = _display_orientation(frame)
        return self._size

    def _probe_geometry(self) -> tuple[int, int]:
        """Looks at the file's first frame, beside whatever is being decoded."""
        container, stream = self._open_stream()
        try:
            frame = next(decode_through(container, stream), None)
            if frame is None:
                raise VideoReadError(self.path, "no frames", "no frame of the video decodes", self.backend)
            self._size, self._orientation = (frame.height, frame.width), _display_orientation(frame)
        finally:
            container.close()
        return self._size

    def _shown_size(self) -> tuple[int, int]:
        if self._size is None or self._orientation is None:
            if self._closed:
                raise ValueError(f"video '{self.path}' is closed; read its size before closing it")
            try:
                self._probe_geometry()
            except Exception as error:
                raise self._as_read_error(error) from error
        assert self._size is not None and self._orientation is not None
        height, width = self._size
        lies_on_side = self._apply_rotation and self._orientation[0, 0] == 0
        return (width, height) if lies_on_side else (height, width)

    def _span_seconds(self) -> float:
        """From the start of the first frame to the end of the last, by the index; 0.0 if it cannot tell."""
        pts = self._index.frame_pts
        if len(pts) == 0 or self._index.distrust:
            return 0.0
        end = max(self._index.end_pts, int(pts[-1]))
        if end == int(pts[-1]) and len(pts) > 1:  # the container stores no durations
            end += round(int(pts[-1] - pts[0]) / (len(pts) - 1))
        return float((end - int(pts[0])) * self.time_base)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            detail = (
                f"it is not done after {self._time_limit:g} s (DATA.READ_TIMEOUT), {self.num_decoded_frames} "
                "frames decoded; a smaller or shorter copy reads faster"
            )
            raise VideoReadError(self.path, "timeout", detail, self.backend)

    def _as_read_error(self, error: Exception) -> Exception:
        if isinstance(error, VideoReadError | MemoryError):
            return error
        return VideoReadError(self.path, _DAMAGED, f"decoding failed ({describe(error)})", self.backend)


def decode_through(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame in output order, from where a freshly opened container stands."""
    started = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except Exception:
            # A recording that begins in the middle of a group of pictures has packets that cannot decode
            # before its first key frame; after the first frame an error is an error.
            if not started and packet.size > 0:
                continue
            raise
        started = started or bool(frames)
        yield from frames


class _Sink:
    """The frames of one request, converted to RGB and turned upright as they arrive."""

    def __init__(
        self,
        reader: PyAVReader,
        num_rows: int,
        convert: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        self._reader = reader
        self._num_rows = num_rows
        self._convert = convert
        self._part: np.ndarray | None = None  # frames as decoded: all of them, or those not yet converted
        self._part_rows: list[int] = []
        self._out: np.ndarray | None = None
        self._format = ""  # of the last frame, and what _eight_bit_format says to it
        self._narrow = ""

    def put(self, row: int, frame: VideoFrame) -> None:
        reader = self._reader
        height, width = reader._learn_geometry(frame)
        if (frame.height, frame.width) != (height, width):
            raise VideoReadError(
                reader.path,
                "frame size changes",
                f"from {width}x{height} to {frame.width}x{frame.height} pixels; re-encode it at one size",
                reader.backend,
            )
        if frame.format.name != self._format:
            self._format, self._narrow = frame.format.name, _eight_bit_format(frame)
        if self._narrow:
            # Going to RGB from here treats chroma as for 8-bit video; the direct conversion does not.
            frame = reader._to_8_bits.reformat(frame, format=self._narrow, threads=1)
        rgb = reader._to_rgb.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8, count=plane.line_size * height).reshape(
            height, plane.line_size
        )
        image = lines[:, : width * 3].reshape(height, width, 3)
        if reader._apply_rotation:
            assert reader._orientation is not None
            image = turn(image, reader._orientation)
        if self._part is None:
            count = self._num_rows
            if self._convert is not None:
                count = min(count, max(1, PART_BYTES // image.nbytes))
            self._part = np.empty((count, *image.shape), dtype=np.uint8)
        if self._convert is None:
            self._part[row] = image
            return
        self._part[len(self._part_rows)] = image
        self._part_rows.append(row)
        if len(self._part_rows) == len(self._part):
            self._convert_part()

    def _convert_part(self) -> None:
        assert self._part is not None and self._convert is not None
        converted = self._convert(torch.from_numpy(self._part[: len(self._part_rows)])).numpy()
        if self._out is None:
            # NumPy's memory and not torch's: it asks for huge pages, without which the first touch of 30 MB
            # costs a tenth of the decoding. And its assignment to rows is a copy of memory, torch's is not.
            self._out = np.empty((self._num_rows, *converted.shape[1:]), dtype=converted.dtype)
        self._out[self._part_rows] = converted
        self._part_rows = []

    def frames(self) -> torch.Tensor:
        if self._convert is None:
            return torch.from_numpy(self._part)
        if self._part_rows:
            self._convert_part()
        assert self._out is not None
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


def _display_orientation(frame: VideoFrame) -> np.ndarray:
    """(2, 2) of -1, 0, 1: the display matrix [[a, b], [c, d]] with x' = a x + c y, y' = b x + d y.

    Identity if there is none, or if it asks for an angle that is no multiple of 90 degrees.
    """
    identity = np.eye(2, dtype=int)
    if len(frame.side_data) == 0:
        return identity
    from av.sidedata.sidedata import Type

    items: Any = frame.side_data
    try:
        side_data = items[Type.DISPLAYMATRIX]
    except KeyError:
        return identity
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


def _header_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The video's length as the header claims it; 0.0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration:
        return container.duration / 1_000_000
    return 0.0
