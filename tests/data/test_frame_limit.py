"""A limit on the pixels of a frame, kept before anything is decoded: what a header claims costs nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.data.video_files import READABLE, shared_video, write_video
from vidformers.config.defaults import get_defaults
from vidformers.data.readers import VideoReadError, open_video
from vidformers.data.readers.base import MAX_FRAME_PIXELS
from vidformers.data.readers.decoding import StreamDecoder

FILES = ("plain.mp4", "hevc.mp4", "vp9.webm", "mpeg4.avi", "mjpeg.avi", "h264_b.ts", "raw.h264", "flash.flv")


def refusal(path: Path, *, backend: str = "pyav", max_frame_pixels: int = MAX_FRAME_PIXELS) -> VideoReadError:
    with (
        pytest.raises(VideoReadError) as caught,
        open_video(path, backend, max_frame_pixels=max_frame_pixels) as video,
    ):
        video.get_frames([0])
    return caught.value


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("name", FILES)
def test_a_frame_above_the_limit_is_refused_and_one_at_it_is_read(
    tmp_path: Path, name: str, backend: str
) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    path = READABLE[name](tmp_path / name)
    error = refusal(path, backend=backend, max_frame_pixels=64 * 48 - 1)
    assert (error.reason, error.backend) == ("frames too large", backend)
    assert "3,071" in error.detail
    try:
        with open_video(path, backend, max_frame_pixels=64 * 48) as video:
            assert video.get_frames([0, 5]).shape == (2, 48, 64, 3)
    except VideoReadError as other:
        assert other.reason == "unsupported by decord"


def claiming(path: Path, width: int, height: int, *, codec: str) -> Path:
    """A QuickTime file whose container says another size than its frames have."""
    pix_fmt, tag = ("rgb24", b"rle ") if codec == "qtrle" else ("yuv420p", b"mp4v")
    content = bytearray(write_video(path, codec=codec, pix_fmt=pix_fmt).read_bytes())
    place = content.index(tag) + 28  # ISO/IEC 14496-12, 12.1.3: the visual sample entry
    assert struct.unpack_from(">HH", content, place) == (64, 48)
    struct.pack_into(">HH", content, place, width, height)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (16000, 16000)])
def test_nothing_is_decoded_of_a_video_with_an_absurd_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    path = claiming(tmp_path / "absurd.mov", width, height, codec="qtrle")
    monkeypatch.setattr(StreamDecoder, "packets", lambda self: pytest.fail("packets were read"))
    monkeypatch.setattr(StreamDecoder, "frames_from_start", lambda self: pytest.fail("frames were decoded"))
    error = refusal(path)
    assert error.reason == "frames too large"
    assert f"{width}x{height}, {width * height:,} pixels, and 36,000,000 are allowed" in error.detail
    assert "DATA.MAX_FRAME_PIXELS" in error.detail


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_frames_that_are_small_until_they_are_scaled_are_refused(tmp_path: Path, backend: str) -> None:
    """65535 x 1 pixels, of which a clip of short side 64 would take 800 MB a frame."""
    if backend == "decord":
        pytest.importorskip("decord")
    error = refusal(claiming(tmp_path / "thread.mov", 65535, 1, codec="qtrle"), backend=backend)
    assert error.reason == "frames too large" and "65535x1, whose longer side" in error.detail


def test_a_stream_that_says_more_than_its_container_is_not_decoded(tmp_path: Path) -> None:
    path = claiming(tmp_path / "modest.mov", 16, 16, codec="mpeg4")
    assert refusal(path, max_frame_pixels=3000).reason == "frames too large"


def test_a_stream_that_grows_on_the_way_is_not_decoded(tmp_path: Path) -> None:
    """Two streams one after the other, as a recording that was switched over."""
    parts = [
        write_video(tmp_path / f"{width}.h264", width=width, num_frames=10, container_format="h264")
        for width in (64, 2048)
    ]
    path = tmp_path / "grows.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert refusal(path, max_frame_pixels=100 * 48).reason == "truncated or damaged"
    with av.open(str(path)) as container:  # without the limit it is decoded
        assert {frame.width for frame in container.decode(video=0)} == {64, 2048}


def test_the_limit_holds_for_a_file_that_is_known_already(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mp4")
    with open_video(path, index_cache=str(tmp_path / "cache")) as video:
        video.get_frames([0])
    with pytest.raises(VideoReadError, match=r"\(frames too large\): its frames are said to be 64x48"):
        open_video(path, index_cache=str(tmp_path / "cache"), max_frame_pixels=3000)


def test_images(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (1, 2):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / f"{number:03d}.png")
    assert refusal(folder, backend="frames", max_frame_pixels=3000).reason == "frames too large"
    # A PNG whose header says 60000 x 60000: the size stands at bytes 16 to 24, then its checksum.
    import zlib

    content = bytearray((folder / "001.png").read_bytes())
    struct.pack_into(">II", content, 16, 60000, 60000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    (folder / "001.png").write_bytes(content)
    assert refusal(folder, backend="frames").reason == "frames too large"


def test_torchcodec_is_looked_over_first(tmp_path: Path) -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception as error:
        pytest.skip(f"torchcodec does not load: {str(error)[:80]}")
    error = refusal(write_video(tmp_path / "a.mp4"), backend="torchcodec", max_frame_pixels=3000)
    assert (error.reason, error.backend) == ("frames too large", "torchcodec")


def test_the_config_has_the_readers_limit() -> None:
    assert get_defaults().DATA.MAX_FRAME_PIXELS == MAX_FRAME_PIXELS
    assert MAX_FRAME_PIXELS >= 8192 * 4320


def test_real_files_are_not_affected() -> None:
    for name in ("av1_video.mkv", "h264_10bits.mp4"):
        with open_video(shared_video(name)) as video:
            assert len(video.get_frames([0])) == 1
