"""Keeps what opening a video found out, so that later epochs neither scan its packets nor count its frames.

One small file a video, in a folder. An entry holds as long as the size and modification time of the video
(for one inside a tar file: of all of that) stay what they were. Entries are written beside their place and
renamed into it: any number of processes may use one folder, and what they find is a whole entry or none. An
entry that is damaged all the same is reported once, with a warning, and made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
import warnings
import zlib
from dataclasses import asdict, dataclass

import numpy as np

from vidformers.data.readers.index import PacketIndex
from vidformers.data.tar_parts import TarPart

__all__ = ["CachedIndex", "file_identity", "load_index", "save_index"]

# Changed whenever the content or its meaning changes: older entries are then made anew.
_MAGIC = b"vidformers frame index 2\n"


@dataclass(frozen=True)
class CachedIndex:
    """What a PyAVReader knows of a file once it has been opened and read from.

    num_frames: frames that can be had (counted, where the index is not trusted). fps, header_frames,
    header_seconds, time_base (numerator, denominator): as the container says. header_size, size: (height,
    width) as the header says and as decoded; size and orientation (2 x 2, row by row) are None until a frame
    has been decoded.
    """

    index: PacketIndex
    num_frames: int
    fps: float
    time_base: tuple[int, int]
    header_frames: int
    header_seconds: float
    header_size: tuple[int, int]
    size: tuple[int, int] | None
    orientation: tuple[int, int, int, int] | None


def load_index(folder: str, local_path: str | TarPart) -> CachedIndex | None:
    """The entry of a video file, or None if there is none that fits the file as it is now."""
    place = _place(folder, local_path)
    try:
        with open(place, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(
            f"the frame index '{place}' cannot be read ({error}); the video is scanned", stacklevel=2
        )
        return None
    if not content.startswith(_MAGIC):
        if content.startswith(_MAGIC[:-2]):
            return None  # of another version of this library
        _warn_damaged(place, local_path, "it does not begin as one")
        return None
    try:
        body, checksum = content[len(_MAGIC) : -4], content[-4:]
        if zlib.crc32(body).to_bytes(4, "little") != checksum:
            raise ValueError("its checksum is wrong")
        head, _, rest = body.partition(b"\n")
        values = json.loads(head)
        if values.pop("file") != file_identity(local_path):
            return None  # the video has changed
        num_frames, num_keys = values.pop("num_pts"), values.pop("num_keys")
        pts = np.frombuffer(rest, "<i8", count=num_frames)
        keys = np.frombuffer(rest, "<i8", count=num_keys, offset=8 * num_frames)
        index = PacketIndex(frame_pts=pts, key_pts=keys, **values.pop("index"))
        for name in ("time_base", "header_size", "size", "orientation"):
            values[name] = None if values[name] is None else tuple(values[name])
        return CachedIndex(index=index, **values)
    except (ValueError, KeyError, TypeError) as error:
        _warn_damaged(place, local_path, str(error))
        return None


def save_index(folder: str, local_path: str | TarPart, entry: CachedIndex, *, identity: list[int]) -> None:
    """Writes the entry of a video file that had this `file_identity` before it was looked at; nothing if it
    has changed since. A folder that cannot be written is a warning: reading goes on."""
    if file_identity(local_path) != identity:
        return
    place = _place(folder, local_path)
    values = asdict(entry)
    index = values.pop("index")
    pts, keys = (np.asarray(index.pop(name), dtype="<i8") for name in ("frame_pts", "key_pts"))
    values.update(index=index, num_pts=len(pts), num_keys=len(keys), file=identity)
    body = json.dumps(values).encode() + b"\n" + pts.tobytes() + keys.tobytes()
    temporary = f"{place}.{uuid.uuid4().hex}.part"
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(_MAGIC + body + zlib.crc32(body).to_bytes(4, "little"))
        os.replace(temporary, place)
    except OSError as error:
        with contextlib.suppress(OSError):  # half an entry, where the disk is full
            os.remove(temporary)
        warnings.warn(f"the frame index '{place}' cannot be written ({error})", stacklevel=2)


def _place(folder: str, local_path: str | TarPart) -> str:
    # 256 folders, because a folder of hundreds of thousands of files is slow on many file systems.
    text = os.path.abspath(local_path if isinstance(local_path, str) else local_path.path)
    name = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
    return os.path.join(folder, name[:2], name + ".index")


def file_identity(local_path: str | TarPart) -> list[int]:
    """By which a file is known not to have changed: size and modification time; empty if it is gone."""
    try:
        status = os.stat(local_path if isinstance(local_path, str) else local_path.shard)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _warn_damaged(place: str, local_path: str | TarPart, what: str) -> None:
    shown = local_path if isinstance(local_path, str) else local_path.path
    warnings.warn(
        f"the frame index '{place}' of '{shown}' is damaged ({what}); it is made anew", stacklevel=3
    )
