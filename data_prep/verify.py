"""Read every frame of every video, and name each file that is unreadable, damaged or short, with the reason:

    python data_prep/verify.py /data/kinetics400/val --report val_verified.csv
    python data_prep/verify.py val.csv --prefix /data/kinetics400 --report val_verified.csv

The report has one row a file. A run that was stopped goes on where it was, and a later run reads only what
has changed since. Not found is what a decoder cannot know: one or two flipped bits of a picture.
Exit code: 0 all files are sound, 1 some are not, 2 wrong usage.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vidformers.data.prepare.inputs import (
    add_input_arguments,
    add_worker_arguments,
    collect_videos,
    exit_with,
    positive_float,
    positive_int,
    script_parser,
)
from vidformers.data.prepare.report import Report, Row, process_files
from vidformers.data.readers.base import VideoReadError, local_video_path
from vidformers.data.readers.index import describe, first_video_stream, open_container, read_only
from vidformers.data.readers.pyav import PyAVReader

COLUMNS = (
    "container", "codec", "pixel_format", "width", "height", "fps", "frames", "seconds",
)  # fmt: skip

# Zeros that some programs leave at the end of a unit when they take it from a broadcast stream.
MAX_PADDING = 16


def check_video(path: str, *, min_frames: int, min_seconds: float) -> Row:
    """status "ok", "short" (sound, but below a minimum), "damaged" (plays, but not as it was made) or
    "unreadable"; the reason to count by, all that was found, and what the video is."""
    try:
        _, local_path = local_video_path(path, "pyav")
        if not isinstance(local_path, str):
            detail = "it lies in a shard; verify the videos before they are packed"
            raise VideoReadError(path, "not a file", detail, "pyav")
        with PyAVReader(path) as reader:
            facts = reader.stream_facts
            row = {
                "container": facts.container,
                "codec": facts.codec,
                "pixel_format": facts.pixel_format,
                "width": str(reader.width),
                "height": str(reader.height),
                "fps": f"{reader.fps:.3f}",
                "frames": str(reader.num_frames),
                "seconds": f"{reader.duration:.3f}",
            }
            num_frames, seconds, signs = reader.num_frames, reader.duration, list(reader.damage)
        missing = missing_bytes(local_path)
        if missing:
            signs.append(f"the file ends {missing} bytes before its container does")
        signs += decode_all(local_path, num_frames, strict=True)
        if signs and (fatal := decode_all(local_path, num_frames, strict=False, only_errors=True)):
            return row | {"status": "unreadable", "reason": "truncated or damaged", "detail": fatal[0]}
    except VideoReadError as error:
        return {"status": "unreadable", "reason": error.reason, "detail": " ".join(error.detail.split())}
    if signs:
        return row | {"status": "damaged", "reason": "truncated or damaged", "detail": "; ".join(signs)}
    if num_frames < min_frames:
        return row | {"status": "short", "reason": "too short", "detail": f"{num_frames} frames"}
    if seconds < min_seconds:
        return row | {"status": "short", "reason": "too short", "detail": f"{seconds:.3f} s"}
    return row | {"status": "ok"}


def decode_all(path: str, num_frames: int, *, strict: bool, only_errors: bool = False) -> list[str]:
    """Signs of damage in decoding the whole stream; strict: stop at what the decoder would conceal."""
    import av.logging

    # What FFmpeg conceals it still logs, and it must not leave out what it has said before.
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    decoded = corrupt = broken = 0
    size: tuple[int, int] | None = None
    signs = []
    with av.logging.Capture() as log, open_container(path, path, "pyav") as container:
        stream = first_video_stream(container, path, "pyav")
        read_only(container, stream)
        context = stream.codec_context
        context.thread_count = 1
        contexts = [other.codec_context for other in container.streams if other.type != "video"]
        other_names = {other.codec.canonical_name for other in contexts if other is not None}
        length_bytes = unit_length_bytes(context.codec.name, context.extradata or b"")
        if strict:
            context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        try:
            for packet in container.demux(stream):
                broken += bool(length_bytes) and not has_whole_units(bytes(packet), length_bytes)
                try:
                    frames = packet.decode()
                except Exception:
                    # A recording that was cut from a longer one has packets before its first key frame.
                    if decoded or not packet.size:
                        raise
                    log.clear()
                    continue
                for frame in frames:
                    decoded += 1
                    corrupt += frame.is_corrupt
                    if size not in (None, (frame.width, frame.height)):
                        signs.append(f"the frame size changes at frame {decoded}")
                    size = (frame.width, frame.height)
        except Exception as error:
            signs.append(f"decoding stops after {decoded} of {num_frames} frames ({describe(error)})")
        finally:
            av.logging.set_level(None)  # elsewhere these lines would run through the progress bar
    if only_errors:
        return signs
    if not signs and decoded != num_frames:
        signs.append(f"{num_frames} frames are listed, {decoded} decode")
    if corrupt:
        signs.append(f"{corrupt} frames are damaged")
    if broken:
        signs.append(f"{broken} packets hold bytes that no encoder writes")
    # PyAV before 17.1 looks into the sound as well, which nobody asked about.
    said = [message for _, name, message in log if name not in other_names]
    if said:
        signs.append(f"the decoder says: {' '.join(said[0].split())} ({len(said)} messages)")
    return signs


def unit_length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each unit of an H.264 or HEVC packet; 0 if they are not stored that way."""
    # ISO/IEC 14496-15: avcC and hvcC begin with version 1, streams with start codes with 0.
    place = {"h264": 4, "hevc": 21}.get(codec, len(extradata))
    return (extradata[place] & 3) + 1 if extradata[:1] == b"\x01" and place < len(extradata) else 0


def has_whole_units(packet: bytes, length_bytes: int) -> bool:
    """Whether the units of an H.264 or HEVC packet fill it and hold no forbidden bytes.

    HEVC's decoder notices nothing of a zeroed range; but inside a unit 0, 0 is never followed by 0, 1 or 2.
    """
    place = 0
    while place < len(packet):
        end = place + length_bytes + int.from_bytes(packet[place : place + length_bytes], "big")
        unit = packet[place + length_bytes : end].rstrip(b"\0")
        if end > len(packet) or end - place - length_bytes - len(unit) > MAX_PADDING:
            return False
        if unit[:1] >= b"\x80" or any(code in unit for code in (b"\0\0\0", b"\0\0\1", b"\0\0\2")):
            return False
        place = end
    return True


def missing_bytes(path: str) -> int:
    """By how much a file is shorter than its container says (AVI, MP4, Matroska); 0 for all others."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            length = int.from_bytes(head[4:8], "little")
            # 0 and all ones: written by a program that could not go back to fill it in.
            return max(0, length + 8 - size) if length not in (0, 0xFFFFFFFF) else 0
        if head[:4] == b"\x1aE\xdf\xa3":
            after_header, header_length = _ebml_length(head, 4)
            start = after_header + header_length
            file.seek(start)
            segment = file.read(12)
            if segment[:4] != b"\x18S\x80g":
                return 0
            after, length = _ebml_length(segment, 4)
            return max(0, start + after + length - size) if length >= 0 else 0
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return 0
        place = 0
        while place + 8 <= size:
            file.seek(place)
            box = file.read(16)
            length = int.from_bytes(box[:4], "big")
            if length == 1:
                length = int.from_bytes(box[8:16], "big")
            if length < 8:  # 0: to the end of the file; less is no box
                return 0
            place += length
        return max(0, place - size)


def _ebml_length(data: bytes, place: int) -> tuple[int, int]:
    """-> (place after the number, the number or -1 for "unknown") of a length in Matroska's variable form."""
    num_bytes = 9 - data[place].bit_length() if data[place] else 8
    number = int.from_bytes(data[place : place + num_bytes], "big") & ((1 << 7 * num_bytes) - 1)
    return place + num_bytes, -1 if number == (1 << 7 * num_bytes) - 1 else number


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_input_arguments(parser)
    parser.add_argument("--report", type=Path, default=Path("verify.csv"), help="CSV file (%(default)s)")
    parser.add_argument("--min-frames", type=positive_int, default=2, help="fewer is short (%(default)s)")
    parser.add_argument("--min-seconds", type=positive_float, help="less is short (no limit)")
    add_worker_arguments(parser, time_limit=300)
    chosen = parser.parse_args(arguments)

    videos = list(collect_videos(chosen.inputs, prefix=chosen.prefix, separator=chosen.separator))
    report = Report(chosen.report, COLUMNS)
    settings = f"min_frames={chosen.min_frames} min_seconds={chosen.min_seconds or 0:g}"
    if chosen.dry_run:
        done = sum(report.is_done(path, settings) for path in videos)
        print(f"{len(videos)} files: {done} are in {report.path} already, {len(videos) - done} would be read")
        return 0
    rows = process_files(
        videos,
        functools.partial(check_video, min_frames=chosen.min_frames, min_seconds=chosen.min_seconds or 0.0),
        report=report,
        settings=settings,
        num_workers=chosen.workers,
        time_limit=chosen.time_limit,
    )
    problems = [row for row in rows if row["status"] != "ok"]
    for row in problems[:20]:
        print(f"{row['path']}: {row['status']}, {row['reason']}: {row['detail']}")
    if len(problems) > 20:
        print(f"... and {len(problems) - 20} more")
    counts = Counter(f"{row['status']} ({row['reason']})" for row in problems)
    summary = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{len(rows)} files: {len(rows) - len(problems)} sound{', ' + summary if summary else ''}")
    print(f"report: {report.path}")
    return 1 if problems else 0


if __name__ == "__main__":
    exit_with(main)
