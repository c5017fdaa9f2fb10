"""One video stream of a file, decoded from a key frame on or from the start: timestamps in, frames out.

What is in it is not known here; :mod:`.index` finds that out, and :mod:`.pyav` asks for frames by it.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vidformers.data.readers.base import VideoReadError, check_frame_size
from vidformers.data.readers.index import (
    announced_size,
    decoder_limit,
    first_video_stream,
    open_container,
    read_only,
)
from vidformers.data.tar_parts import TarPart

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["StreamDecoder", "TimestampsLieError", "decode_through", "is_refused_for_size"]

# Decoders known to obey skip_frame packet by packet. dav1d, for one, reads it only when it is opened.
SKIPS_PER_PACKET = ("h264", "hevc")
# Packets up to this many bytes (minutes at Kinetics' size) are kept once they have been read.
KEPT_BYTES = 1 << 24
# What a packet takes besides its data, as an object of PyAV: 90 000 of an hour took 66 MB, 8 of it data.
_PACKET_BYTES = 640


class TimestampsLieError(Exception):
    """Decoded timestamps do not increase: the packet index cannot be used for this file."""


class StreamDecoder:
    """The first video stream of a local file, opened as often as it takes.

    path, backend: what errors name. time_limit: seconds from now after which work stops; 0 = none.
    max_frame_pixels: larger frames are not decoded.

    Attributes:
        num_decoded_frames: frames that came out of the decoder so far, wanted or not.
        corrupt: timestamps, or numbers from the start, of those that it flagged as damaged.
    """

    def __init__(
        self,
        path: str,
        local_path: str | TarPart,
        *,
        backend: str,
        thread_count: int,
        time_limit: float,
        max_frame_pixels: int,
    ) -> None:
        self._path = path
        self._local_path = local_path
        self._backend = backend
        self._thread_count = thread_count
        self._time_limit = time_limit
        self._max_frame_pixels = max_frame_pixels
        self._deadline = time.monotonic() + time_limit if time_limit else math.inf
        self._container: InputContainer | None = None
        self._kept: list[Packet] = []  # all packets of the stream as it is open, or none
        self.num_decoded_frames = 0
        self.corrupt: set[int] = set()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        container = open_container(
            self._path, self._local_path, self._backend, max_frame_pixels=self._max_frame_pixels
        )
        try:
            stream = first_video_stream(container, self._path, self._backend)
            read_only(container, stream)
            context = stream.codec_context
            height, width = context.height, context.width
            if not (height and width):  # unknown, or refused
                height, width = announced_size(self._local_path, stream.index)
            check_frame_size(height, width, self._max_frame_pixels, path=self._path, backend=self._backend)
            # A stream may say more than its container, and change on the way.
            context.options = decoder_limit(self._max_frame_pixels)
            context.thread_count = self._thread_count
            if self._thread_count != 1:
                stream.codec_context.thread_type = "AUTO"
        except BaseException:
            container.close()
            raise
        return container, stream

    def opened(self) -> tuple[InputContainer, VideoStream]:
        """The container, wherever it stands."""
        return self.reopened() if self._container is None else (self._container, self._stream)

    def reopened(self) -> tuple[InputContainer, VideoStream]:
        """A fresh container, standing at the start. Unlike seeking to 0 this works for every format."""
        self.close()
        self._container, self._stream = self._open()
        return self._container, self._stream

    def packets(self) -> Iterator[Packet]:
        """All packets of the stream, from where a freshly opened container stands."""
        container, stream = self.opened()
        kept: list[Packet] = []
        num_bytes = 0
        may_keep = stream.codec_context.codec.name in SKIPS_PER_PACKET
        for packet in container.demux(stream):
            self.check_time()
            # What changes the decoder's settings on the way depends on where reading began.
            num_bytes += packet.size + _PACKET_BYTES
            may_keep = may_keep and num_bytes <= KEPT_BYTES and not packet.has_sidedata("new_extradata")
            if may_keep:
                kept.append(packet)
            else:
                kept.clear()
            yield packet
        if may_keep:
            self._kept = kept

    def _packets_from(self, start: int) -> Iterator[Packet]:
        """Those from the key frame at timestamp `start` on, for a decoder that has forgotten all before."""
        container, stream = self.opened()
        for place, packet in enumerate(self._kept):
            if packet.pts == start and packet.is_keyframe:
                stream.codec_context.flush_buffers()
                return iter(self._kept[place:])
        container.seek(start, stream=stream)
        return container.demux(stream)

    def close(self) -> None:
        self._kept = []
        if self._container is not None:
            self._container.close()
            self._container = None

    def decode_from(
        self,
        start: int | None,
        missing: dict[int, int],
        put: Callable[[int, VideoFrame], None],
        *,
        first_pts: int | None,
    ) -> None:
        """Decodes from the key frame at timestamp `start` (None: from the start of the file) until the last
        wanted frame, taking frames out of `missing` (timestamp -> row) and giving them to `put(row, frame)`.

        first_pts: timestamp of the first packet in the file. Raises TimestampsLieError.
        """
        if start is None:
            container, stream = self.reopened()
            packets = container.demux(stream)
        else:
            packets = self._packets_from(start)
        context = self._stream.codec_context
        can_skip = context.codec.name in SKIPS_PER_PACKET
        skips = can_skip and start is not None and self._thread_count == 1
        skipping = False
        if can_skip:
            context.skip_frame = "DEFAULT"
        last_wanted = max(missing)
        to_send = set(missing)  # wanted frames whose packets are still to come
        # Decoding that begins at a key frame gives sound frames from its timestamp on; what is shown before
        # it may refer to frames that were not decoded.
        sound_from: float | None = -np.inf if start is None else None
        last_pts: int | None = None
        for packet in packets:
            self.check_time()
            if sound_from is None:
                if not packet.is_keyframe or packet.pts is None:
                    continue
                sound_from = -np.inf if packet.pts == first_pts else packet.pts
            if skips:
                # A frame that nothing refers to need not be decoded unless it is wanted itself.
                skip = packet.pts is not None and packet.pts not in missing
                if skip != skipping:
                    context.skip_frame = "NONREF" if skip else "DEFAULT"
                    skipping = skip
            frames = packet.decode()
            to_send.discard(packet.pts)
            if not to_send and start is not None:
                # All that is wanted is in the decoder; without more packets it hands it out at once. Where
                # that is not so after all, decoding from the start of the file does not use this.
                frames += context.decode(None)
            for frame in frames:
                pts = frame.pts
                if pts is None or (last_pts is not None and pts <= last_pts):
                    raise TimestampsLieError
                last_pts = pts
                self.num_decoded_frames += 1
                if frame.is_corrupt:
                    self.corrupt.add(pts)
                if pts in missing and pts >= sound_from:
                    put(missing.pop(pts), frame)
            if (last_pts is not None and last_pts >= last_wanted) or (not to_send and start is not None):
                return

    def frames_from_start(self, on_error: Callable[[Packet], None] | None = None) -> Iterator[VideoFrame]:
        """Every frame in output order, from a fresh container; `on_error` is that of `decode_through`."""
        for number, frame in enumerate(decode_through(*self.reopened(), on_error)):
            self.num_decoded_frames += 1
            if frame.is_corrupt:
                self.corrupt.add(number)
            self.check_time()
            yield frame

    def first_frame(self) -> VideoFrame:
        """The file's first frame, looked up beside whatever is being decoded. Raises VideoReadError."""
        container, stream = self._open()
        try:
            frame = next(decode_through(container, stream), None)
        finally:
            container.close()
        if frame is None:
            raise VideoReadError(
                self._path,
                "no frames",
                "no frame of the video decodes; get it again, or leave it out",
                self._backend,
            )
        return frame

    def check_time(self) -> None:
        """Raises VideoReadError once the time limit is over."""
        if time.monotonic() > self._deadline:
            detail = (
                f"it is not done after {self._time_limit:g} s (DATA.READ_TIMEOUT), {self.num_decoded_frames} "
                "frames decoded; a smaller or shorter copy reads faster"
            )
            raise VideoReadError(self._path, "timeout", detail, self._backend)


def is_refused_for_size(error: Exception, stream: VideoStream) -> bool:
    """Whether the decoder gave up for the size of frames, where only the stream says it."""
    from av.error import FFmpegError

    if not isinstance(error, FFmpegError) or error.errno not in (errno.EINVAL, errno.ENOMEM):
        return False
    return not (stream.codec_context.height and stream.codec_context.width)


def decode_through(
    container: InputContainer, stream: VideoStream, on_error: Callable[[Packet], None] | None = None
) -> Iterator[VideoFrame]:
    """Every frame in output order, from where a freshly opened container stands.

    on_error: told of a packet that the decoder refuses (with several threads, of one a few later), and
    decoding goes on; None: it raises.
    """
    started = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except Exception as error:
            # A recording that begins in the middle of a group of pictures has packets that cannot decode
            # before its first key frame; after the first frame an error is an error.
            if not started and packet.size > 0 and not is_refused_for_size(error, stream):
                continue
            if on_error is None or is_refused_for_size(error, stream):
                raise
            on_error(packet)
            continue
        started = started or bool(frames)
        yield from frames
