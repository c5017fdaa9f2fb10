"""The default reader: PyAV (FFmpeg), exact frames by index at the least decoding.

How a request is served: one packet scan at opening gives the timestamp of every frame (:mod:`.index`). Wanted
frames are grouped by the key frame before them; for each group the file is sought to that key frame's own
timestamp (seeking to the wanted timestamp misses frames right after reordered key frames), decoded forward
and matched by exact timestamp until the last wanted frame. A frame that does not turn up is looked for once
more from one key frame earlier, then from the start of the file. Where timestamps cannot be believed, frames
are counted from the start instead. So a mismatch shows as a missing frame, never as a wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from vidformers.data.readers.base import (
    MAX_FRAME_PIXELS,
    Conversion,
    FrameIndices,
    VideoReadError,
    check_frame_size,
    check_indices,
    in_asked_order,
    local_video_path,
)
from vidformers.data.readers.decoding import StreamDecoder, TimestampsLieError, is_refused_for_size
from vidformers.data.readers.index import (
    PacketIndex,
    StreamFacts,
    describe,
    header_seconds,
    scan_packets,
    stream_facts,
)
from vidformers.data.readers.index_cache import CachedIndex, file_identity, load_index, save_index
from vidformers.data.readers.pixels import FrameSink, RgbConverter, display_orientation, turn
from vidformers.data.readers.streaming import OnDamage

if TYPE_CHECKING:
    from av import VideoFrame
    from av.packet import Packet

__all__ = ["PyAVReader"]

_DAMAGED = "truncated or damaged"


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
        max_frame_pixels: int = MAX_FRAME_PIXELS,
    ) -> None:
        """Opens and indexes the file; what that takes is kept in the folder `index_cache`, if one is given.

        time_limit: seconds from now after which decoding gives up (reason ``timeout``); 0 = none.
        max_frame_pixels: larger frames are refused (reason ``frames too large``) before they are decoded.

        Raises VideoReadError.
        """
        self.path, self._local_path = local_video_path(path, self.backend)
        self._decoder = StreamDecoder(
            self.path,
            self._local_path,
            backend=self.backend,
            thread_count=thread_count,
            time_limit=time_limit,
            max_frame_pixels=max_frame_pixels,
        )
        self._max_frame_pixels = max_frame_pixels
        self._apply_rotation = apply_rotation
        self._index_cache = index_cache
        self._closed = False
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
        self._to_rgb = RgbConverter()
        if self._index_cache:
            self._identity = file_identity(self._local_path)
            self._in_cache = load_index(self._index_cache, self._local_path)
        if self._in_cache is not None:
            self._recall(self._in_cache)
            height, width = self._header_size
            check_frame_size(height, width, self._max_frame_pixels, path=self.path, backend=self.backend)
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
        container, stream = self._decoder.reopened()
        context = stream.codec_context
        self._header_size = (context.height, context.width)
        self.time_base: Fraction = stream.time_base or Fraction(1, 1000)
        self._header_frames = stream.frames
        self._header_seconds = header_seconds(container, stream)
        self._header_fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)
        self._index: PacketIndex = scan_packets(container, stream, self._decoder.packets())
        self._trusted = not self._index.distrust
        self._num_frames = len(self._index.frame_pts)
        if not self._trusted:
            self._num_frames = sum(1 for _ in self._decoder.frames_from_start())
        if self._num_frames == 0:
            raise VideoReadError(
                self.path,
                "no frames",
                "the video stream holds no frame that decodes; get it again, or leave it out",
                self.backend,
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
            save_index(self._index_cache, self._local_path, entry, identity=self._identity)
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
        container, stream = self._decoder.opened()
        is_turned = not np.array_equal(self.display_orientation, np.eye(2))
        return stream_facts(container, stream, self._index, is_turned=is_turned)

    @property
    def num_decoded_frames(self) -> int:
        return self._decoder.num_decoded_frames

    @property
    def num_corrupt_frames(self) -> int:
        return len(self._decoder.corrupt)

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
        if self._decoder.corrupt:
            signs.append(f"{self.num_corrupt_frames} decoded frames are damaged")
        return tuple(signs)

    def get_frames(self, indices: FrameIndices) -> torch.Tensor:
        """See :meth:`VideoReader.get_frames`. Each distinct frame is decoded and converted once."""
        return self.get_converted_frames(indices, None)

    def get_converted_frames(self, indices: FrameIndices, convert: Conversion | None) -> torch.Tensor:
        """See :meth:`ConvertingReader.get_converted_frames`."""
        if self._closed:
            raise ValueError(f"video '{self.path}' is closed; open it again to read frames")
        wanted, rows = np.unique(check_indices(indices, self._num_frames, self.path), return_inverse=True)
        try:
            frames = self._fetch(wanted, convert)
        except Exception as error:
            raise self._as_read_error(error) from error
        return in_asked_order(frames, rows)

    def stream_frames(
        self, indices: FrameIndices, on_damage: OnDamage | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """See :class:`~vidformers.data.readers.streaming.StreamingReader`."""
        wanted = check_indices(indices, self._num_frames, self.path)
        done = 0
        try:
            while done < len(wanted):
                try:
                    for index, frame in self._numbered_frames(on_damage):
                        if on_damage is not None:
                            done = max(done, int(np.searchsorted(wanted, index)))
                            if done == len(wanted):
                                return
                        if index == wanted[done]:
                            done += 1
                            # Copied: a picture that was turned has strides that no tensor has.
                            yield index, torch.from_numpy(np.array(self._picture(frame)))
                            if done == len(wanted):
                                return
                except TimestampsLieError:
                    self._count_instead()
                    continue  # from the frame that was to come next
                if on_damage is not None:
                    on_damage(int(wanted[done]), self._num_frames)
                    return
                detail = f"{len(wanted) - done} of {len(wanted)} wanted frames did not decode"
                raise VideoReadError(self.path, _DAMAGED, detail, self.backend)
        except Exception as error:
            raise self._as_read_error(error) from error

    def _numbered_frames(self, on_damage: OnDamage | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """Every frame from the start with its index; -1 for one that is in the file but not in its index.

        on_damage: as of `stream_frames`. Raises TimestampsLieError where the index cannot be used.
        """
        known = self._index.frame_pts if self._trusted else None
        last_pts: int | None = None
        place = -1
        refused = False

        def unsound_from(pts: int) -> None:
            # Until the next key frame every frame may refer to the damaged one. (Whether that was a key frame
            # itself nobody knows: FFmpeg looks for it in the data.)
            assert on_damage is not None and known is not None
            keys = self._index.key_pts
            later = int(np.searchsorted(keys, pts, side="right"))
            end = int(np.searchsorted(known, keys[later])) if later < len(keys) else len(known)
            on_damage(min(place + 1, end - 1), end)

        def refuse(packet: Packet) -> None:
            nonlocal refused
            refused = True
            unsound_from(packet.pts or 0)

        on_error = None if on_damage is None or known is None else refuse
        for number, frame in enumerate(self._decoder.frames_from_start(on_error)):
            if known is None:
                yield number, frame
                continue
            if frame.pts is None or (last_pts is not None and frame.pts <= last_pts):
                if refused:
                    continue  # after a key frame that is lost others come late
                raise TimestampsLieError
            last_pts = frame.pts
            if frame.is_corrupt and on_damage is not None:
                unsound_from(frame.pts)
            place = int(np.searchsorted(known, last_pts))
            yield (place if place < len(known) and known[place] == last_pts else -1), frame

    def close(self) -> None:
        if self._index_cache and self._has_opened and not self._closed:
            self._remember()
        self._closed = True
        self._decoder.close()

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- decoding

    def _fetch(self, wanted: np.ndarray, convert: Conversion | None) -> torch.Tensor:
        """wanted: (U,) distinct ascending indices -> (U, H, W, 3)"""
        if self._trusted:
            try:
                sink = FrameSink(len(wanted), picture=self._picture, convert=convert)
                if self._fetch_by_pts(wanted, sink):
                    return sink.frames()
                found = self._count_instead()
            except TimestampsLieError:
                found = self._count_instead()
            if int(wanted[-1]) >= found:
                raise VideoReadError(
                    self.path,
                    _DAMAGED,
                    f"frame {int(wanted[-1])} is wanted, {found} frames decode",
                    self.backend,
                )
        sink = FrameSink(len(wanted), picture=self._picture, convert=convert)
        rows = {int(index): row for row, index in enumerate(wanted)}
        for index, frame in enumerate(self._decoder.frames_from_start()):
            if index in rows:
                sink.put(rows.pop(index), frame)
                if not rows:
                    return sink.frames()
        raise VideoReadError(
            self.path, _DAMAGED, f"{len(rows)} of {len(wanted)} wanted frames did not decode", self.backend
        )

    def _fetch_by_pts(self, wanted: np.ndarray, sink: FrameSink) -> bool:
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
                except (TimestampsLieError, VideoReadError):
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

    def _decode_from(self, start: int | None, missing: dict[int, int], sink: FrameSink) -> None:
        self._decoder.decode_from(start, missing, sink.put, first_pts=self._index.first_pts)

    def _count_instead(self) -> int:
        """Gives up the index for good; returns how many frames decode.

        Raises VideoReadError if that is another number than the index gave: then callers have chosen their
        indices from a wrong length, and the n-th frame may not be the one that was meant.
        """
        count = sum(1 for _ in self._decoder.frames_from_start())
        if count != self._num_frames:
            raise VideoReadError(
                self.path, _DAMAGED, f"the file lists {self._num_frames} frames, {count} decode", self.backend
            )
        self._trusted = False
        self._index = replace(self._index, distrust="decoded timestamps are not those of the packets")
        return count

    # ---- geometry and time

    def _picture(self, frame: VideoFrame) -> np.ndarray:
        """uint8 RGB (H, W, 3), upright; VideoReadError if it is not of the size of the others."""
        height, width = self._learn_geometry(frame)
        if (frame.height, frame.width) != (height, width):
            raise VideoReadError(
                self.path,
                "frame size changes",
                f"from {width}x{height} to {frame.width}x{frame.height} pixels; re-encode it at one size",
                self.backend,
            )
        image = self._to_rgb(frame)
        if not self._apply_rotation:
            return image
        assert self._orientation is not None
        return turn(image, self._orientation)

    def _learn_geometry(self, frame: VideoFrame) -> tuple[int, int]:
        """-> (height, width) that every frame must have"""
        size = (frame.height, frame.width)
        if self._size is None:
            if size != self._header_size:
                return self._probe_geometry()
            self._size = size
        if self._orientation is None:
            self._orientation = display_orientation(frame)
        return self._size

    def _probe_geometry(self) -> tuple[int, int]:
        frame = self._decoder.first_frame()
        check_frame_size(
            frame.height, frame.width, self._max_frame_pixels, path=self.path, backend=self.backend
        )
        self._size, self._orientation = (frame.height, frame.width), display_orientation(frame)
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

    def _as_read_error(self, error: Exception) -> Exception:
        from av.error import FFmpegError

        # FFmpeg's memory errors are about what a file asks for, ours are about the machine.
        if isinstance(error, VideoReadError) or (
            isinstance(error, MemoryError) and not isinstance(error, FFmpegError)
        ):
            return error
        if not self._closed and is_refused_for_size(error, self._decoder.opened()[1]):
            detail = f"the decoder refuses its frames: more than {self._max_frame_pixels:,} pixels, or none"
            return VideoReadError(self.path, "frames too large", detail, self.backend)
        return VideoReadError(self.path, _DAMAGED, f"decoding failed ({describe(error)})", self.backend)
