"""Copy videos at a smaller size, which decode several times faster than the originals:

    python data_prep/resize.py /data/kinetics400/val /data/kinetics400_256/val --short-side 256

Each copy is H.264 with its shorter side at --short-side pixels (never enlarged), upright, with a key frame
at least every --gop frames, and with the frames and timestamps of the original, which is checked on the file
that was written. Names stay; files that cannot hold H.264 with its timestamps (.avi, .webm, ...) become .mp4.
A video that is damaged is left out: its copy would hide the damage. Originals are only read, and a file that
is in the new folder and that resize.csv does not know stays as it is: nothing is begun then.

resize.csv in the new folder says what was changed, and what was left out and why. A run that was stopped goes
on where it was. Exit code: 0 all done, 1 some videos were left out, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidformers.data.prepare.copies import (
    begin_copies,
    check_originals_stay,
    forget_lost_copies,
    keep_copies,
    part_path,
    remove_parts,
    sole_run,
)
from vidformers.data.prepare.inputs import (
    add_worker_arguments,
    collect_videos,
    exit_with,
    positive_int,
    script_parser,
)
from vidformers.data.prepare.report import Report, Row, process_files
from vidformers.data.readers.base import VideoReadError
from vidformers.data.readers.decoding import decode_through
from vidformers.data.readers.index import describe, first_video_stream, open_container, read_only
from vidformers.data.readers.pyav import PyAVReader

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.video.stream import VideoStream

COLUMNS = ("destination", "destination_bytes", "frames", "changes")
# What keeps its name, and FFmpeg's name of the format. Matroska counts milliseconds.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class Settings:
    """short_side: pixels, even. gop: largest distance of key frames. crf, preset: x264's. keep_audio: copy
    the first audio stream."""

    short_side: int
    gop: int
    crf: int
    preset: str
    keep_audio: bool


class _TimestampsLieError(Exception):
    """Decoded frames have timestamps that do not increase."""


def destination(path: str, source: str, out: str) -> str:
    """Where the copy of the video `path`, which lies below `source`, goes."""
    stem, suffix = os.path.splitext(os.path.join(out, os.path.relpath(path, source)))
    return stem + (suffix if suffix.lower() in FORMATS else ".mp4")


def target_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width), both even as H.264 with 4:2:0 needs them; never larger than they were."""
    scale = min(1.0, short_side / min(height, width))
    longer = max(height, width) * scale
    longer = max(2, 2 * (round(longer / 2) if scale < 1 else int(longer / 2)))
    shorter = max(2, 2 * int(min(height, width) * scale / 2 + 1e-6))
    return (longer, shorter) if height > width else (shorter, longer)


def resize_video(path: str, *, source: str, out: str, settings: Settings) -> Row:
    """Writes the copy; the row says what was changed, or why there is none."""
    target = destination(path, source, out)
    part = part_path(target)
    try:
        with PyAVReader(path) as reader:
            if reader.damage:
                raise VideoReadError(path, "truncated or damaged", "; ".join(reader.damage), "pyav")
            facts, orientation, fps = reader.stream_facts, reader.display_orientation, reader.fps
            before = (reader.height, reader.width)
            trusted = reader.frame_pts is not None
        after = target_size(*before, settings.short_side)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            if not trusted:
                raise _TimestampsLieError
            times, had_audio = encode(path, part, after, orientation, settings=settings, rate=None)
        except _TimestampsLieError:
            trusted = False
            rate = Fraction(fps).limit_denominator(1001)
            times, had_audio = encode(path, part, after, orientation, settings=settings, rate=rate)
        check_copy(part, times)
        os.replace(part, target)
    except VideoReadError as error:
        return {"status": "left out", "reason": error.reason, "detail": " ".join(error.detail.split())}
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
    changes = []
    if after != before:
        changes.append(f"{before[1]}x{before[0]} to {after[1]}x{after[0]}")
    if facts.codec != "h264":
        changes.append(f"{facts.codec} to h264")
    if facts.pixel_format != "yuv420p":
        changes.append(f"{facts.pixel_format} to yuv420p")
    if facts.is_turned:
        changes.append("turned upright")
    if not trusted:
        changes.append(f"timestamps counted at {fps:.3f} frames a second, its own are not in order")
    if had_audio and not settings.keep_audio:
        changes.append("audio dropped")
    if os.path.splitext(target)[1] != os.path.splitext(path)[1]:
        changes.append(f"{os.path.splitext(path)[1]} to {os.path.splitext(target)[1]}")
    return {
        "status": "ok",
        "destination": target,
        "destination_bytes": str(os.path.getsize(target)),
        "frames": str(len(times)),
        "changes": "; ".join(changes) or "encoded anew",
    }


def encode(
    path: str,
    part: str,
    size: tuple[int, int],
    orientation: np.ndarray,
    *,
    settings: Settings,
    rate: Fraction | None,
) -> tuple[list[Fraction], bool]:
    """Writes `part`; -> time of each frame in seconds, whether the original has audio.

    size: (height, width) of the copy. rate: frames a second to count by; None: keep the timestamps.
    Raises _TimestampsLieError, VideoReadError.
    """
    import av
    from av.video.reformatter import VideoReformatter

    suffix = os.path.splitext(part.removesuffix(".part"))[1].lower()
    with open_container(path, path, "pyav") as old, av.open(part, "w", format=FORMATS[suffix]) as new:
        stream = first_video_stream(old, path, "pyav")
        read_only(old, stream)
        stream.codec_context.thread_count = 1
        time_base = 1 / rate if rate else Fraction(stream.time_base or 0)
        options = {"crf": str(settings.crf), "preset": settings.preset}
        copy = new.add_stream("libx264", rate=rate or stream.average_rate or 25, options=options)
        copy.height, copy.width = size
        copy.pix_fmt = "yuv420p"
        copy.gop_size = settings.gop
        copy.codec_context.thread_count = 1  # the files are what is done in parallel
        copy.codec_context.time_base = time_base
        copy.time_base = time_base
        if stream.sample_aspect_ratio and orientation[0, 0]:
            copy.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio
        audio = _AudioCopy(path, new) if old.streams.audio and settings.keep_audio else None

        scaler, turner = VideoReformatter(), _Turner(orientation)
        stored = size if orientation[0, 0] else size[::-1]
        times: list[Fraction] = []
        for number, frame in enumerate(decoded_frames(path, old, stream)):
            if frame.is_corrupt:
                detail = f"frame {number} is damaged; data_prep/verify.py tells more"
                raise VideoReadError(path, "truncated or damaged", detail, "pyav")
            pts = number if rate else frame.pts
            if pts is None or (times and pts * time_base <= times[-1]):
                raise _TimestampsLieError
            if not times:
                _copy_colour(frame, copy.codec_context)
            scaled = scaler.reformat(
                frame,
                width=stored[1],
                height=stored[0],
                format="yuv420p",
                dst_color_range=frame.color_range or None,
                interpolation="BICUBIC",
                threads=1,
            )
            scaled.pts, scaled.time_base = pts, time_base
            times.append(pts * time_base)
            scaled = turner(scaled)
            scaled.pict_type = 0  # the encoder's choice, not the original's
            for packet in copy.encode(scaled):
                if audio and packet.dts is not None:
                    audio.mux_until(packet.dts * Fraction(packet.time_base))
                new.mux(packet)
        new.mux(copy.encode(None))
        if audio:
            audio.mux_until(None)
        return times, bool(old.streams.audio)


def decoded_frames(path: str, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame of a freshly opened container in presentation order. Raises VideoReadError."""
    try:
        yield from decode_through(container, stream)
    except Exception as error:
        detail = f"decoding failed ({describe(error)})"
        raise VideoReadError(path, "truncated or damaged", detail, "pyav") from error


def _copy_colour(frame: VideoFrame, context: object) -> None:
    """Players and readers convert to RGB as these say; they stay what they were."""
    if frame.format.is_rgb:
        return
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(context, name, getattr(frame, name))


class _Turner:
    """Turns frames as a display orientation asks (see `PyAVReader.display_orientation`)."""

    def __init__(self, orientation: np.ndarray) -> None:
        (a, b), (c, d) = orientation.tolist()
        # x' = a x + c y, y' = b x + d y: swap the axes where a is 0, then mirror what comes out negative.
        steps = [("transpose", "cclock_flip", not a), ("hflip", "", a + c < 0), ("vflip", "", b + d < 0)]
        self._filters = [(name, arguments) for name, arguments, is_wanted in steps if is_wanted]
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        if not self._filters:
            return frame
        if self._graph is None:
            from av.filter import Graph

            self._graph = Graph()
            nodes = [
                self._graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                ),
                *(self._graph.add(name, arguments or None) for name, arguments in self._filters),
                self._graph.add("buffersink"),
            ]
            self._graph.link_nodes(*nodes).configure()
        self._graph.vpush(frame)
        turned = self._graph.vpull()
        turned.time_base = frame.time_base
        return turned


class _AudioCopy:
    """The packets of the first audio stream, written in between those of the video."""

    def __init__(self, path: str, new: OutputContainer) -> None:
        self._new = new
        self._container = open_container(path, path, "pyav")
        stream = self._container.streams.audio[0]
        self._copy = new.add_stream_from_template(stream)
        self._packets = (packet for packet in self._container.demux(stream) if packet.dts is not None)
        self._next = next(self._packets, None)

    def mux_until(self, seconds: Fraction | None) -> None:
        """Writes the packets before a time; all that are left for None."""
        while self._next is not None:
            dts = (self._next.dts or 0) * Fraction(self._next.time_base)
            if seconds is not None and dts > seconds:
                return
            self._next.stream = self._copy
            self._new.mux(self._next)
            self._next = next(self._packets, None)
        self._container.close()


def check_copy(path: str, times: Sequence[Fraction]) -> None:
    """Decodes a copy; VideoReadError if it does not have a frame at each of the times, and no other."""
    with open_container(path, path, "pyav") as container:
        stream = first_video_stream(container, path, "pyav")
        read_only(container, stream)
        stream.codec_context.thread_count = 1
        frames = decoded_frames(path, container, stream)
        time_base = Fraction(stream.time_base or 0)
        written = [frame.pts * time_base for frame in frames if frame.pts is not None]
    if len(written) != len(times):
        detail = f"the copy has {len(written)} frames, the original {len(times)}"
        raise VideoReadError(path, "copy differs", detail, "pyav")
    worst = max((abs(ours - own) for ours, own in zip(written, times, strict=True)), default=Fraction(0))
    if worst > 0:
        detail = f"a frame of the copy is {float(worst):.6f} s away from where the original has it"
        raise VideoReadError(path, "copy differs", detail, "pyav")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("source", help="folder of videos; its subfolders too")
    parser.add_argument("out", help="folder for the copies, in the same subfolders")
    parser.add_argument("--short-side", type=positive_int, default=256, help="pixels (%(default)s)")
    parser.add_argument("--gop", type=positive_int, default=12, help="frames a key frame (%(default)s)")
    parser.add_argument("--crf", type=int, default=23, help="x264's quality, lower is better (%(default)s)")
    parser.add_argument("--preset", choices=PRESETS, default="medium", help="x264's effort (%(default)s)")
    parser.add_argument("--keep-audio", action="store_true", help="copy the first audio stream")
    add_worker_arguments(parser, time_limit=1800)
    chosen = parser.parse_args(arguments)
    if chosen.short_side % 2 or not 0 <= chosen.crf <= 51:
        raise ValueError(
            f"got --short-side {chosen.short_side} --crf {chosen.crf}; H.264 wants an even number of pixels, "
            "such as 256, and a crf from 0 to 51"
        )
    source, out = os.path.abspath(chosen.source), os.path.abspath(chosen.out)
    if os.path.commonpath(list(map(os.path.realpath, (source, out)))) == os.path.realpath(source):
        raise ValueError(f"'{chosen.out}' is '{chosen.source}' or in it; give a folder beside it")
    videos = list(collect_videos([source], prefix="", separator=" "))
    targets = {path: destination(path, source, out) for path in videos}
    twice = [path for path, count in Counter(targets.values()).items() if count > 1]
    if twice:
        both = " and ".join(path for path in videos if targets[path] == twice[0])
        raise ValueError(f"{both} would both become '{twice[0]}'; move one of them away")
    check_originals_stay(targets)

    settings = Settings(chosen.short_side, chosen.gop, chosen.crf, chosen.preset, chosen.keep_audio)
    text = " ".join(f"{name}={value}" for name, value in asdict(settings).items())
    with contextlib.nullcontext() if chosen.dry_run else sole_run(Path(out)):
        report = Report(Path(out) / "resize.csv", COLUMNS)
        forget_lost_copies(targets, report)
        to_do = [path for path in videos if not report.is_done(path, text)]
        had_copy = begin_copies(to_do, targets, report)
        if chosen.dry_run:
            renamed = sum(Path(path).suffix != Path(targets[path]).suffix for path in videos)
            print(
                f"{len(videos)} videos: {len(videos) - len(to_do)} are done, {len(to_do)} would be written "
                f"to {out}, short side {settings.short_side}; {renamed} become .mp4"
            )
            return 0
        remove_parts(targets.values())
        try:
            rows = process_files(
                videos,
                functools.partial(resize_video, source=source, out=out, settings=settings),
                report=report,
                settings=text,
                num_workers=chosen.workers,
                time_limit=chosen.time_limit,
            )
        finally:
            remove_parts(targets.values())  # of workers that were stopped
        keep_copies(had_copy, targets, report)
    left_out = [row for row in rows if row["status"] != "ok"]
    for row in left_out[:20]:
        print(f"{row['path']}: {row['status']}, {row['reason']}: {row['detail']}")
    if len(left_out) > 20:
        print(f"... and {len(left_out) - 20} more")
    changes = Counter(
        change for row in rows for change in row["changes"].split("; ") if row["status"] == "ok"
    )
    print(f"{len(rows)} videos: {len(rows) - len(left_out)} are in {out}, {len(left_out)} were left out")
    for change, count in changes.most_common(12):
        print(f"{count:8d} {change}")
    print(f"report: {report.path}")
    return 1 if left_out else 0


if __name__ == "__main__":
    exit_with(main)
