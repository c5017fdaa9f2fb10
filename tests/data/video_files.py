"""Writes small real video files with the oddities found in the wild. PyAV brings every encoder used here."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED_VIDEOS = Path(os.environ.get("VIDFORMERS_SHARED") or ROOT.parent / "shared") / "videos"

# What ../shared/videos/README.md says: frames, width, height, fps, first 16 hex digits of sha256 over all RGB
# bytes. The 10-bit file's published hash belongs to a direct conversion to RGB; ours goes through 8 bits
# (facts 2.3).
SHARED_TABLE = {
    "av1_video.mkv": (125, 640, 360, 25.0, "9e0b104518554e63"),
    "dog.mp4": (150, 256, 256, 30.0, "7c28e114b1506252"),
    "h264_10bits.mp4": (30, 200, 200, 30.0, None),
    "h265_video.mp4": (10, 128, 128, 10.0, "3ae2c76be4aa9327"),
    "k400_Tw2yXa6CzWE.mp4": (300, 426, 320, 30.0, "679d7653a5b83d5d"),
    "mm_demo.mp4": (280, 340, 256, 28.0, "117ac5c406ab685c"),
    "mm_test.avi": (164, 320, 240, 25.0, "2189d4cec6e5c7a2"),
    "nasa_13013.mp4": (325, 320, 180, 25.0, "bb895ee5e75dcf26"),
    "pancake.mkv": (310, 426, 240, 30.0, "b71dc7eb9a98d131"),
}


def shared_video(name: str) -> Path:
    """The file, or a skip where the repository stands alone."""
    path = SHARED_VIDEOS / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def picture(index: int, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8, different for every index: a drifting gradient and a bar code of the index."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack(
        [(x * 2 + index * 7) % 256, (y * 3 + index * 3) % 256, (x + y + index * 11) % 256], axis=-1
    )
    image = image.astype(np.uint8)
    cell = max(width // 10, 1)
    for bit in range(8):
        image[: height // 4, bit * cell : (bit + 1) * cell] = 255 if index >> bit & 1 else 0
    return image


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 40,
    width: int = 64,
    height: int = 48,
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 12,
    ticks: Sequence[int] | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    audio: bool = False,
    full_range: bool = False,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """ticks: timestamp of each frame in units of 1/fps (default 0, 1, 2, ...)."""
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, fps)
        if full_range:
            stream.codec_context.color_range = 2
        if rotation is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("PyAV before 17.1 cannot write a display matrix")
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = None
        if audio:
            sound = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24").reformat(
                format=pix_fmt, dst_color_range=2 if full_range else None
            )
            frame.pts = index if ticks is None else int(ticks[index])
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            samples = round(16000 * num_frames / fps)
            wave = (np.sin(np.arange(samples) / 8)[None] * 0.2).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 16000, 0
            container.mux(sound.encode(tone))
            container.mux(sound.encode(None))
    return path


def copy_packets(
    source: Path, path: Path, *, skip_packets: int = 0, shift: int = 0, container_format: str | None = None
) -> Path:
    """Remuxes without re-encoding, dropping the first packets and shifting timestamps (in source ticks)."""
    with av.open(str(source)) as old, av.open(str(path), "w", format=container_format) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(old.demux(stream)):
            if packet.dts is None or number < skip_packets:
                continue
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = copy
            new.mux(packet)
    return path


def _variable_rate(path: Path) -> Path:
    ticks = np.cumsum([1 + (7 * i % 5) * (i % 3) for i in range(40)])
    return write_video(path, ticks=ticks, fps=50)


def _gap(path: Path) -> Path:
    return write_video(path, ticks=[i if i < 15 else i + 20 for i in range(40)])


def _late_start(path: Path) -> Path:
    return write_video(path, ticks=[2500 + i for i in range(40)])


def _edit_list(path: Path) -> Path:
    """What `ffmpeg -ss ... -c copy` leaves: packets before the cut, hidden by an edit list."""
    whole = write_video(path.with_name("whole_" + path.name), gop=20)
    with av.open(str(whole)) as container:
        ticks_per_frame = Fraction(1, 25) / container.streams.video[0].time_base
    copy_packets(whole, path, shift=-int(7 * ticks_per_frame))
    whole.unlink()
    return path


def _mid_gop(path: Path) -> Path:
    whole = write_video(path.with_name("whole.ts"), gop=20)
    copy_packets(whole, path, skip_packets=7, container_format="mpegts")
    whole.unlink()
    return path


def _no_index(path: Path) -> Path:
    """An AVI whose recording was cut short before the index."""
    write_video(path, codec="mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"idx1")])
    return path


def _piped(path: Path) -> Path:
    """What a pipe leaves: the writer could not go back to note duration and seek table."""

    class Pipe:
        def __init__(self) -> None:
            self.content = bytearray()

        def write(self, data: bytes) -> int:
            self.content += data
            return len(data)

    whole = write_video(path.with_suffix(".whole.mp4"), options=_BFRAMES)
    pipe = Pipe()
    with av.open(str(whole)) as old, av.open(pipe, "w", format="matroska") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    path.write_bytes(pipe.content)
    whole.unlink()
    return path


def _raw_h264(path: Path) -> Path:
    return write_video(path, container_format="h264")


def _two_streams(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((64, 48), (96, 80)):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for index in range(20):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(
                    picture(index, stream.width, stream.height), format="rgb24"
                )
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def _palette(path: Path) -> Path:
    """Its colours are in the header: FFmpeg hands them over with the first packet and never again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        colours = np.random.default_rng(0).integers(0, 256, (256, 4)).astype(np.uint8)
        colours[:, 0] = 255
        for index in range(12):
            pixels = picture(index, 64, 48)[:, :, 0]
            frame = av.VideoFrame.from_ndarray((pixels, colours), format="pal8")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
    return path


def _camera_pictures(path: Path) -> Path:
    """A motion JPEG of a camera held upright: each picture says in its EXIF data that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
        for index in range(12):
            file = io.BytesIO()
            Image.fromarray(picture(index, 64, 48)).save(file, "JPEG", exif=exif)
            packet = av.Packet(file.getvalue())
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    return path


_BFRAMES = {"bf": "3", "x264-params": "b-adapt=0:scenecut=0"}

# Name (with the suffix that matters) -> how to write it. All are read by the PyAV backend.
READABLE: dict[str, Callable[[Path], Path]] = {
    "plain.mp4": write_video,
    "b_frames.mp4": lambda p: write_video(p, options=_BFRAMES),
    "b_pyramid.mkv": lambda p: write_video(
        p, options={"bf": "5", "x264-params": "b-pyramid=normal:b-adapt=0"}
    ),
    "open_gop.mp4": lambda p: write_video(
        p, options={"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
    ),
    "intra_refresh.mp4": lambda p: write_video(p, options={"x264-params": "intra-refresh=1:bframes=0"}),
    # Refreshes that begin at frame number 0 again, which FFmpeg takes for sound before they are.
    "short_refresh.mp4": lambda p: write_video(
        p, gop=4, options={"x264-params": "intra-refresh=1:bframes=0"}
    ),
    "all_key.mp4": lambda p: write_video(p, gop=1),
    "all_key.avi": lambda p: write_video(p, gop=1),
    "b_pyramid.flv": lambda p: write_video(p, gop=4, options={"x264-params": "bframes=3:b-pyramid=normal"}),
    "one_key.mp4": lambda p: write_video(p, gop=1000, options=_BFRAMES),
    "one_frame.mp4": lambda p: write_video(p, num_frames=1),
    "seven_frames.mp4": lambda p: write_video(p, num_frames=7, options=_BFRAMES),
    "hevc.mp4": lambda p: write_video(
        p, codec="libx265", options={"x265-params": "log-level=none:bframes=3"}
    ),
    "hevc_open.mp4": lambda p: write_video(
        p,
        codec="libx265",
        options={"x265-params": "log-level=none:bframes=4:open-gop=1:keyint=8:min-keyint=8"},
    ),
    "vp9.webm": lambda p: write_video(
        p, codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}
    ),
    "vp9_altref.webm": lambda p: write_video(
        p,
        codec="libvpx-vp9",
        options={"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8", "b": "50k"},
    ),
    "vp8_altref.webm": lambda p: write_video(
        p,
        codec="libvpx",
        options={"auto-alt-ref": "1", "lag-in-frames": "16", "b": "50k", "arnr-maxframes": "7"},
    ),
    "mpeg4.avi": lambda p: write_video(p, codec="mpeg4"),
    "mpeg4_b.avi": lambda p: write_video(p, codec="mpeg4", options={"bf": "2"}),
    "mpeg4_b.mp4": lambda p: write_video(p, codec="mpeg4", options={"bf": "2"}),
    "mpeg2_b.ts": lambda p: write_video(p, codec="mpeg2video", options={"bf": "2"}),
    "h264_b.ts": lambda p: write_video(p, options=_BFRAMES),
    "mjpeg.avi": lambda p: write_video(p, codec="mjpeg", pix_fmt="yuvj420p"),
    "av1.mp4": lambda p: write_video(p, codec="libsvtav1", num_frames=20, options={"preset": "12"}),
    "flash.flv": lambda p: write_video(p, codec="flv"),
    "animation.gif": lambda p: write_video(p, codec="gif", pix_fmt="rgb8", num_frames=12),
    "raw.h264": _raw_h264,
    "odd_size.mp4": lambda p: write_video(p, width=63, height=47, pix_fmt="yuv444p"),
    "odd_size_vp9.webm": lambda p: write_video(
        p, codec="libvpx-vp9", width=63, height=47, options={"cpu-used": "8"}
    ),
    "padded_size.mp4": lambda p: write_video(p, width=70, height=50),
    "full_range.mp4": lambda p: write_video(p, full_range=True),
    "yuv422.mp4": lambda p: write_video(p, pix_fmt="yuv422p"),
    "ten_bits.mp4": lambda p: write_video(p, pix_fmt="yuv420p10le"),
    "ten_bits_444.mp4": lambda p: write_video(p, pix_fmt="yuv444p10le"),
    "ten_bits_hevc.mp4": lambda p: write_video(
        p, codec="libx265", pix_fmt="yuv420p10le", num_frames=20, options={"x265-params": "log-level=none"}
    ),
    "no_index.avi": _no_index,
    "piped.mkv": _piped,
    "variable_rate.mp4": _variable_rate,
    "variable_rate_b.mp4": lambda p: write_video(
        p, ticks=np.cumsum([1 + i % 4 for i in range(40)]), fps=50, options=_BFRAMES
    ),
    "gap.mkv": _gap,
    "late_start.mkv": _late_start,
    "late_start.mp4": _late_start,
    "edit_list.mp4": _edit_list,
    "fragmented.mp4": lambda p: write_video(
        p, options=_BFRAMES, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "with_sound.mp4": lambda p: write_video(p, audio=True),
    "with_sound.mkv": lambda p: write_video(p, audio=True, options=_BFRAMES),
    "mid_gop.ts": _mid_gop,
    "two_streams.mp4": _two_streams,
    "rot90.mp4": lambda p: write_video(p, rotation=90, options=_BFRAMES),
    "rot180.mp4": lambda p: write_video(p, rotation=180),
    "rot270.mp4": lambda p: write_video(p, rotation=-90),
    "mirrored.mp4": lambda p: write_video(p, rotation=0, hflip=True),
    "palette.avi": _palette,
    "camera.avi": _camera_pictures,
}


def reference_frames(path: Path) -> np.ndarray:
    """(N, H, W, 3): every frame of stream 0 as stored (not rotated), decoded straight through."""
    frames = []
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                assert not frames  # only a stream that begins mid-GOP
                continue
            for frame in decoded:
                if any(component.bits > 8 for component in frame.format.components):
                    chroma = frame.format.name[3:6]
                    frame = frame.reformat(format=f"yuv{chroma}p")
                frames.append(frame.to_ndarray(format="rgb24"))
    return np.stack(frames)
