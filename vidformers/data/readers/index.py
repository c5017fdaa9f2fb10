"""What one pass over a file's packets says about its frames, and whether that can be believed.

The index maps a frame's place in presentation order to its timestamp. It is made from packets, without
decoding, so it is only worth having where packet timestamps are those of the decoded frames; ``distrust``
says why they are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vidformers.data.readers.base import MAX_FRAME_PIXELS, VideoReadError
from vidformers.data.tar_parts import PartFile, TarPart, open_source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = [
    "PacketIndex", "StreamFacts", "all_keys_are_idr", "announced_size", "decoder_limit", "decoder_source",
    "first_video_stream", "header_seconds", "open_container", "scan_packets", "stream_facts",
]  # fmt: skip

# The messages of an H.264 picture come before its pixels.
_HEAD_BYTES = 1 << 12
# Texts that name what is to be shown, and devices. What they name is not the file that somebody listed: other
# files of this machine, addresses that it would listen at.
REFUSED_FORMATS = {
    "alsa", "avisynth", "concat", "dash", "fbdev", "hls", "imf", "iec61883", "jack", "kmsgrab", "lavfi",
    "oss", "pulse", "rtp", "rtsp", "sap", "sdp", "sndio", "vapoursynth", "video4linux2,v4l2",
    "webm_dash_manifest", "x11grab", "xcbgrab",
}  # fmt: skip
_CONTAINER_SIGNATURES = (b"ftyp", b"moov", b"mdat", b"RIFF", b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"0&\xb2u")


@dataclass(frozen=True)
class PacketIndex:
    """Attributes:
    frame_pts: (N,) int64, timestamps of the packets that are shown, ascending (in stream time base). Without
        timestamps in the file it holds what there is, and ``distrust`` is set.
    key_pts: (K,) int64, timestamps at which decoding can start, ascending; K >= 1 where the index is trusted.
    first_pts: timestamp of the first packet in the file, None if it has none.
    end_pts: where the last shown frame ends.
    num_packets: packets of the stream, hidden ones included.
    num_hidden: packets marked discard (the pre-roll of an mp4 that was cut without re-encoding).
    has_reordered_keys: some key frame's place in the file differs from its place in presentation order (open
    groups
        of pictures), so that counting on from it goes wrong.
    distrust: empty, or the reason why frames must be counted instead of looked up.
    """

    frame_pts: np.ndarray
    key_pts: np.ndarray
    first_pts: int | None
    end_pts: int
    num_packets: int
    num_hidden: int
    has_reordered_keys: bool
    distrust: str


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
    num_missing_packets: int  # of those that the header promises
    distrust: str
    has_reordered_keys: bool
    is_turned: bool


def stream_facts(
    container: InputContainer, stream: VideoStream, index: PacketIndex, *, is_turned: bool
) -> StreamFacts:
    """What a stream and its index show; is_turned: whether the file asks to be shown turned or mirrored."""
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
        num_hidden_packets=index.num_hidden,
        num_missing_packets=max(0, stream.frames - index.num_packets),
        distrust=index.distrust,
        has_reordered_keys=index.has_reordered_keys,
        is_turned=is_turned,
    )


def open_container(
    path: str, local_path: str | TarPart, backend: str, *, max_frame_pixels: int = MAX_FRAME_PIXELS
) -> InputContainer:
    """Opens a file with FFmpeg's demuxer; VideoReadError says what the file is if it is no video.

    max_frame_pixels: for the decoder that looks for what the header leaves out.
    """
    try:
        container = _open(local_path, decoder_limit(max_frame_pixels))
    except Exception as error:
        try:
            with open_source(local_path) as file:
                head = file.read(16)
                size = file.seek(0, os.SEEK_END)
        except OSError as refused:
            detail = f"{describe(refused)}; check the file's permissions"
            raise VideoReadError(path, "not readable", detail, backend) from refused
        if any(mark in head for mark in _CONTAINER_SIGNATURES):
            detail = (
                f"it begins like a video file but its structure cannot be read ({describe(error)}); get it "
                "again, or leave it out"
            )
            raise VideoReadError(path, "truncated or damaged", detail, backend) from error
        detail = (
            f"its content ({size} bytes, beginning {head!r}) is no known video format ({describe(error)}), "
            "such as MP4, WebM, Matroska or AVI; get it again, or leave it out"
        )
        raise VideoReadError(path, "not a video", detail, backend) from error
    name = container.format.name
    if name.endswith("_pipe") or name in ("image2", "tty"):
        container.close()
        raise VideoReadError(
            path,
            "not a video",
            f"its content is a still image or text (format {name}); backend 'frames' reads images",
            backend,
        )
    return container


def _open(local_path: str | TarPart, options: Mapping[str, str]) -> InputContainer:
    import av

    allowed = {
        "format_whitelist": _whitelist(),
        "protocol_whitelist": "file" if isinstance(local_path, str) else "none",
    }
    # Titles in another encoding are no reason to refuse a video.
    return av.open(decoder_source(local_path), metadata_errors="ignore", options={**allowed, **options})


@cache
def _whitelist() -> str:
    """All formats that FFmpeg knows but those that read other files, devices or addresses."""
    import av

    return ",".join(sorted(av.formats_available - REFUSED_FORMATS))


def decoder_limit(max_frame_pixels: int) -> dict[str, str]:
    """The options by which a decoder refuses larger frames without asking for their memory.

    Twice as many, because it counts what it adds around each; the frames themselves are looked at.
    """
    return {"max_pixels": str(2 * max_frame_pixels + (1 << 16))}


def announced_size(local_path: str | TarPart, stream_index: int) -> tuple[int, int]:
    """(height, width) that the container gives a stream, whatever its decoder thinks of it; 0 if none."""
    with _open(local_path, {"codec_whitelist": "none"}) as container:
        context: Any = container.streams[stream_index].codec_context
        return (0, 0) if context is None else (context.height, context.width)


def decoder_source(local_path: str | TarPart) -> Any:
    """What a decoding library opens: the path of a file, or a part of one as a file object."""
    return local_path if isinstance(local_path, str) else PartFile(local_path)


def first_video_stream(container: InputContainer, path: str, backend: str) -> VideoStream:
    """The first video stream that is not an attached picture (cover art), the one every backend reads."""
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
        raise VideoReadError(path, "no video stream", f"the file holds only: {kinds}; leave it out", backend)
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoReadError(
            path,
            "no decoder",
            "this FFmpeg build has no decoder for its video codec; re-encode it, to H.264 say",
            backend,
        )
    return stream


def read_only(container: InputContainer, stream: VideoStream) -> None:
    """Lets the demuxer skip what belongs to other streams (PyAV before 17.1 reads and drops it)."""
    try:
        from av.stream import Discard
    except ImportError:
        return
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def scan_packets(container: InputContainer, stream: VideoStream, packets: Iterable[Packet]) -> PacketIndex:
    """What `packets`, all of the stream, say. Nothing is decoded."""
    frames: list[int] = []
    keys: list[int] = []
    key_places: list[int] = []
    num_packets = num_hidden = num_without_pts = 0
    first_pts: int | None = None
    starts_with_key, has_palette = True, False
    is_h264, length_bytes = stream.codec_context.codec.name == "h264", _unit_length_bytes(stream)
    last_pts, end_pts = -(1 << 62), 0
    for packet in packets:
        if packet.size == 0 and packet.dts is None:
            continue  # PyAV's closing flush packet
        pts = packet.pts
        if num_packets == 0:
            first_pts, starts_with_key = pts, packet.is_keyframe
        num_packets += 1
        has_palette = has_palette or packet.has_sidedata("palette")
        if pts is None:
            num_without_pts += 1
            continue
        if packet.is_keyframe and not (is_h264 and _begins_intra_refresh(packet, length_bytes)):
            keys.append(pts)
        if packet.is_discard:
            num_hidden += 1
            continue
        if packet.is_keyframe:
            key_places.append(len(frames))
        frames.append(pts)
        if pts > last_pts:
            last_pts, end_pts = pts, pts + (packet.duration or 0)
    frame_pts = np.unique(np.asarray(frames, dtype=np.int64))
    distrust = ""
    if not frames:
        distrust = "no packet has a timestamp" if num_packets else "the stream has no packets"
    elif num_without_pts:
        distrust = f"{num_without_pts} packets have no timestamp"
    elif len(frame_pts) != len(frames):
        distrust = f"{len(frames) - len(frame_pts)} timestamps are repeated"
    elif not starts_with_key or not keys:
        distrust = "the stream does not begin with a key frame"
    elif container.format.name == "avi" and stream.codec_context.has_b_frames:
        # AVI stores no timestamps: the demuxer makes them up in decoding order, so with reordering they name
        # other frames, and a look-up would return the wrong frame without any sign of it.
        distrust = "AVI with reordered frames has no true timestamps"
    elif has_palette:
        # The demuxer hands a palette over with one packet, and not again after seeking.
        distrust = "its colours are a palette that comes once"
    return PacketIndex(
        frame_pts=frame_pts,
        key_pts=np.unique(np.asarray(keys, dtype=np.int64)),
        first_pts=first_pts,
        end_pts=end_pts,
        num_packets=num_packets,
        num_hidden=num_hidden,
        has_reordered_keys=any(
            frame_pts[place] != frames[place] for place in key_places if place < len(frame_pts)
        ),
        distrust=distrust,
    )


def header_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The video's length as the header claims it; 0.0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration:
        return container.duration / 1_000_000
    return 0.0


def all_keys_are_idr(local_path: str | TarPart) -> bool:
    """Whether every H.264 key packet holds an IDR picture, and not the beginning of an intra refresh."""
    with _open(local_path, {}) as container:
        stream = container.streams.video[0]
        length_bytes = _unit_length_bytes(stream)
        for packet in container.demux(stream):
            if packet.is_keyframe and packet.size:
                types = {unit[0] & 31 for unit in _units(bytes(packet), length_bytes)}
                if 5 not in types:
                    return False
    return True


def _unit_length_bytes(stream: VideoStream) -> int:
    """Bytes of the length before each H.264 unit; 0 where start codes part them (Annex B)."""
    extradata = stream.codec_context.extradata or b""
    # avcC extradata begins with version 1.
    return (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 4 else 0


def _units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """The H.264 units in (the beginning of) a packet; the lower five bits of their first byte are the type
    (ISO/IEC 14496-10, 7.4.1)."""
    if length_bytes == 0:
        yield from (unit for unit in data.split(b"\x00\x00\x01")[1:] if unit)
        return
    place = 0
    while place + length_bytes < len(data):
        begin = place + length_bytes
        place = begin + int.from_bytes(data[place:begin], "big")
        yield data[begin : max(place, begin + 1)]


def _begins_intra_refresh(packet: Packet, length_bytes: int) -> bool:
    """Whether an H.264 packet is flagged as a key frame although whole pictures come some frames after it,
    when every part of one has been refreshed (recovery point message, ISO/IEC 14496-10, D.2.8).

    FFmpeg's decoder holds frames back until then, but where its frame numbers go round it gives wrong ones.
    """
    for unit in _units(memoryview(packet)[:_HEAD_BYTES].tobytes(), length_bytes):
        if unit[0] & 31 in (1, 5):  # pixels
            return False
        if unit[0] & 31 == 6:
            messages = unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")
            while len(messages) > 2:
                kind, messages = _leading_number(messages)
                size, messages = _leading_number(messages)
                if kind == 6:  # its first number, recovery_frame_cnt, is 0 if the first bit is set
                    return not messages[:1] >= b"\x80"
                messages = messages[size:]
    return False


def _leading_number(data: bytes) -> tuple[int, bytes]:
    """A number written as bytes 255 that are added to the next other one, and what follows it."""
    place = len(data) - len(data.lstrip(b"\xff"))
    return 255 * place + (data[place] if place < len(data) else 0), data[place + 1 :]


def describe(error: BaseException) -> str:
    """An exception in one line, without the path that FFmpeg's messages repeat."""
    text = getattr(error, "strerror", None) or str(error) or "no message"
    return f"{type(error).__name__}: {text}"
