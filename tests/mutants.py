"""Damaged and hostile copies of video files, drawn from a seed: what disks and strangers do to them.

Each kind is a function (content, random) -> content. Files that are no copy of anything come first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from tests.data.video_files import READABLE, SHARED_TABLE, SHARED_VIDEOS, write_video

GENERATED = (
    "b_frames.mp4", "one_key.mp4", "hevc.mp4", "vp9.webm", "mpeg4.avi", "mpeg4_b.avi", "h264_b.ts",
    "mjpeg.avi", "av1.mp4", "flash.flv", "fragmented.mp4", "with_sound.mkv", "ten_bits.mp4", "raw.h264",
    "animation.mov", "archive.avi",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A file to read: its path, what was done, and the sound file that it was made from ("" for none)."""

    path: str
    kind: str
    base: str


# ---- what becomes of a file


def _cut(content: bytes, random: Random) -> bytes:
    return content[: max(1, int(len(content) * random.choice((0.01, 0.05, 0.3, 0.6, 0.9, 0.995))))]


def _flip(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(random.choice((1, 2, 20, 200, 2000))):
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _flip_header(content: bytes, random: Random) -> bytes:
    """Bits of the first or the last 2 KB, where containers keep what they say of themselves."""
    damaged = bytearray(content)
    span = min(2048, len(damaged))
    start = random.choice((0, len(damaged) - span))
    for _ in range(random.choice((1, 4, 32))):
        damaged[start + random.randrange(span)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _range(content: bytes, random: Random) -> tuple[int, int]:
    size = random.choice((64, 512, 8192, len(content) // 10, len(content) // 3))
    start = random.randrange(len(content))
    return start, min(len(content), start + size)


def _zero(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:start] + bytes(end - start) + content[end:]


def _noise(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:start] + random.randbytes(end - start) + content[end:]


def _insert(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + random.randbytes(random.choice((1, 13, 1000))) + content[place:]


def _delete(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:start] + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    """A block written twice, as a resumed download does."""
    start, end = _range(content, random)
    return content[:end] + content[start:]


# ---- what its header says

_MARKS: tuple[tuple[bytes, bytes], ...] = (  # what holds the index, and a name for it that nobody knows
    (b"moov", b"xxxx"), (b"stbl", b"xxxx"), (b"stco", b"xxxx"), (b"stsz", b"xxxx"), (b"moof", b"xxxx"),
    (b"idx1", b"JUNK"), (b"\x1c\x53\xbb\x6b", b"\xec\x53\xbb\x6b"),
)  # fmt: skip


def _no_index(content: bytes, random: Random) -> bytes:
    present = [(mark, other) for mark, other in _MARKS if mark in content]
    if not present:
        return content[len(content) // 10 :]
    mark, other = random.choice(present)
    return content.replace(mark, other)


def _huge_number(content: bytes, random: Random) -> bytes:
    """A count of frames, samples, bytes or ticks in the header becomes absurd."""
    # Name in the file -> places behind it at which four bytes are a count, size, duration or rate.
    fields = {
        b"stsz": (8, 12), b"stts": (8, 12, 16), b"stsc": (8, 12, 16), b"stco": (8, 12), b"ctts": (8, 12),
        b"mdhd": (16, 20), b"mvhd": (16, 20), b"tkhd": (24,), b"elst": (8, 12, 16), b"trun": (8, 12),
        b"avih": (4, 8, 20, 40), b"strh": (24, 28, 36, 40), b"\x44\x89": (3,), b"\x2a\xd7\xb1": (4,),
        b"\x23\xe3\x83": (4,),
    }  # fmt: skip
    places = [
        content.find(name) + place for name, offsets in fields.items() if name in content for place in offsets
    ]
    damaged = bytearray(content)
    for place in random.sample(places, min(len(places), random.choice((1, 1, 3)))):
        if place + 4 <= len(damaged):
            value = random.choice((2**31, 2**31 - 1, 2**32 - 1, 2**30 + 7, 150_000_000, 0))
            struct.pack_into(random.choice((">I", "<I")), damaged, place, value)
    return bytes(damaged)


def _huge_frame(content: bytes, random: Random) -> bytes:
    """The container claims frames of up to 60000 x 60000 pixels."""
    width, height = random.choice(((60000, 60000), (16000, 16000), (65535, 1), (0, 0), (20000, 2000)))
    damaged = bytearray(content)
    for tag in (b"avc1", b"hvc1", b"hev1", b"mp4v", b"av01", b"vp09", b"jpeg", b"rle "):
        place = content.find(tag, 64)
        if place > 0 and place + 32 <= len(content):
            struct.pack_into(">HH", damaged, place + 28, width, height)
    if content[:4] == b"RIFF":
        struct.pack_into("<II", damaged, content.index(b"avih") + 40, width, height)
        struct.pack_into("<ii", damaged, content.index(b"strf") + 12, width, height)
    place = content.find(b"\xb0\x82")  # Matroska: PixelWidth and PixelHeight of two bytes
    if content[:4] == b"\x1aE\xdf\xa3" and place > 0:
        struct.pack_into(">H", damaged, place + 2, min(width, 65535))
        other = content.find(b"\xba", place)
        if content[other + 1] == 0x82:
            struct.pack_into(">H", damaged, other + 2, min(height, 65535))
    return bytes(damaged)


def _same(content: bytes, random: Random) -> bytes:
    return content


KINDS: dict[str, Callable[[bytes, Random], bytes]] = {
    "cut short": _cut,
    "bits flipped": _flip,
    "header bits flipped": _flip_header,
    "range zeroed": _zero,
    "range of noise": _noise,
    "bytes inserted": _insert,
    "bytes deleted": _delete,
    "block repeated": _repeat,
    "index missing": _no_index,
    "absurd number in the header": _huge_number,
    "absurd frame size in the header": _huge_frame,
    "wrong extension": _same,
}
_EXTENSIONS = (".mp4", ".avi", ".mkv", ".ts", ".txt", ".jpg", "")


# ---- files


def make_bases(folder: Path, names: Sequence[str] = GENERATED) -> list[Path]:
    """The sound files: the generated ones, written into `folder`, and the real ones where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = READABLE | {  # whose containers alone know the size of their frames
        "animation.mov": lambda path: write_video(path, codec="qtrle", pix_fmt="rgb24"),
        "archive.avi": lambda path: write_video(path, codec="rawvideo", num_frames=20),
    }
    made = [makers[name](folder / name) for name in names]
    return [*made, *(SHARED_VIDEOS / name for name in SHARED_TABLE if (SHARED_VIDEOS / name).is_file())]


def make_mutants(bases: Sequence[Path], folder: Path, *, count: int, seed: int) -> Iterator[Mutant]:
    """`count` files in `folder`: those that are no copy first, then kinds and bases in turn.

    The same for the same seed and bases. Written one by one, when they are asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    odd = list(_no_videos(folder, Random(seed)))[:count]
    yield from odd
    kinds = list(KINDS)
    for number in range(count - len(odd)):
        kind, base = kinds[number % len(kinds)], bases[(number // len(kinds) + number) % len(bases)]
        random = Random(f"{seed} {number}")
        suffix = random.choice(_EXTENSIONS) if kind == "wrong extension" else base.suffix
        path = folder / f"{number:05d}{suffix}"
        path.write_bytes(KINDS[kind](base.read_bytes(), random))
        yield Mutant(str(path), kind, str(base))


def _no_videos(folder: Path, random: Random) -> Iterator[Mutant]:
    import av

    contents = {
        "empty": b"",
        "one byte": b"\0",
        "text": b"path label\nthis is not a video\n" * 40,
        "web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros": bytes(100_000),
        "noise": random.randbytes(50_000),
        "zip archive": b"PK\x03\x04" + random.randbytes(3000),
        "playlist": b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    for kind, content in contents.items():
        path = folder / f"{kind.replace(' ', '_')}.mp4"
        path.write_bytes(content)
        yield Mutant(str(path), kind, "")
    directory = folder / "directory.mp4"
    directory.mkdir(exist_ok=True)
    yield Mutant(str(directory), "directory", "")
    yield Mutant(str(folder / "missing.mp4"), "missing", "")
    pipe = folder / "pipe.mp4"
    if hasattr(os, "mkfifo") and not pipe.exists():
        os.mkfifo(pipe)
    yield Mutant(str(pipe), "named pipe", "")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 16000, 0
        container.mux(stream.encode(tone))
        container.mux(stream.encode(None))
    yield Mutant(str(folder / "sound.mp4"), "audio only", "")
    still = write_video(
        folder / "still.png", codec="png", pix_fmt="rgb24", num_frames=1, container_format="image2"
    )
    still = still.rename(folder / "still.mp4")
    yield Mutant(str(still), "picture", "")
