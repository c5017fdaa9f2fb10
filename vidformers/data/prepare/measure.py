"""What a video is, by its header and packets, as a row of a table."""

from vidformers.data.prepare.report import Row
from vidformers.data.readers.base import VideoReadError
from vidformers.data.readers.pyav import PyAVReader

COLUMNS = ("container", "codec", "pixel_format", "width", "height", "fps", "frames", "seconds")


def measure(path: str) -> Row:
    """Opened and its packets counted, but not decoded; `status` "ok", or "unreadable" with the reason."""
    try:
        with PyAVReader(path) as reader:
            facts = reader.stream_facts
            return {
                "status": "ok",
                "container": facts.container.split(",")[0],
                "codec": facts.codec,
                "pixel_format": facts.pixel_format,
                "width": str(reader.width),
                "height": str(reader.height),
                "fps": f"{reader.fps:.3f}",
                "frames": str(reader.num_frames),
                "seconds": f"{reader.duration:.3f}",
            }
    except VideoReadError as error:
        return {"status": "unreadable", "reason": error.reason, "detail": " ".join(error.detail.split())}
