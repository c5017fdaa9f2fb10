"""Videos inside tar files: the path of one, and its bytes as a file. Nothing is ever unpacked.

A path such as `/data/train/shard-000003.tar#1536+244012/000000017-abc.mp4` names the 244012 bytes from byte
1536 of the shard on, which its index says are the member 000000017-abc.mp4.
"""

from __future__ import annotations

import io
import re
import tarfile
from typing import IO, Any, NamedTuple

__all__ = ["PartFile", "TarPart", "open_source", "split_part", "whole_file", "why_not_there"]

_PART = re.compile(r"(.+?\.tar)#([0-9]+)\+([0-9]+)/(.+)", flags=re.DOTALL)
# A header says so much in its octal digits; of larger members an extended header before it tells the size.
_MAX_HEADER_SIZE = 8 << 30


class TarPart(NamedTuple):
    """One member of a tar file: the file, where its content lies in it (bytes), and its name."""

    shard: str
    offset: int
    size: int
    member: str

    @property
    def path(self) -> str:
        return f"{self.shard}#{self.offset}+{self.size}/{self.member}"


def split_part(path: str) -> TarPart | None:
    """The part that a path names; None for the path of an ordinary file.

    >>> split_part("s3://b/shard-0.tar#512+9/a.mp4")
    TarPart(shard='s3://b/shard-0.tar', offset=512, size=9, member='a.mp4')
    """
    match = _PART.fullmatch(path)
    return TarPart(match[1], int(match[2]), int(match[3]), match[4]) if match else None


def whole_file(path: str) -> str:
    """The file that must be there for a path to be read: the shard of a part, else the path itself."""
    part = split_part(path)
    return part.shard if part else path


def why_not_there(part: TarPart, num_bytes: int) -> str:
    """Empty if the member is where the part says, in a local shard of `num_bytes`; else what is found.

    A shard that was cut short, or replaced by another after it was indexed, would else give the bytes of
    another video under this one's label.
    """
    if part.offset + part.size > num_bytes:
        return f"the shard has {num_bytes} bytes, and this video ends at byte {part.offset + part.size}"
    with open(part.shard, "rb") as file:
        file.seek(max(0, part.offset - tarfile.BLOCKSIZE))
        block = file.read(min(tarfile.BLOCKSIZE, part.offset))
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        return f"the shard has no header of a file before byte {part.offset} ({error})"
    # Names of 100 bytes or more, or not in ASCII, are whole only in an extended header.
    has_whole_name = part.member.isascii() and len(part.member) < 99
    if has_whole_name and header.name.removeprefix("./") != part.member:
        return f"the shard has '{header.name}' there; was it replaced after its index was made?"
    if part.size < _MAX_HEADER_SIZE and header.size != part.size:
        return f"the shard has {header.size} bytes there; was it replaced after its index was made?"
    return ""


def open_source(local: str | TarPart) -> IO[bytes]:
    """The bytes of a local video, a file of its own or a part of one."""
    return open(local, "rb") if isinstance(local, str) else PartFile(local)  # type: ignore[return-value]


class PartFile(io.RawIOBase):
    """A part of a local file as a file of its own: read-only, seekable. `name` is the member's.

    It is not read into memory: of a long video decoders fetch what they need.
    """

    def __init__(self, part: TarPart) -> None:
        self.name = part.member  # FFmpeg takes a hint at the format from the extension
        self._start, self._size, self._place = part.offset, part.size, 0
        self._file = open(part.shard, "rb", buffering=0)  # noqa: SIM115 (closed by close)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + (0, self._place, self._size)[whence]
        if place < 0:
            raise OSError(f"seek to byte {place} of '{self.name}'")
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._start + self._place)
        count = self._file.readinto(memoryview(buffer)[:count])
        self._place += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
