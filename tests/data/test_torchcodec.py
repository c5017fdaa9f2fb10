"""The torchcodec reader against PyAV's. Where torchcodec loads only with PyAV's FFmpeg libraries in the
library path, the tests run in a process that has them there."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.test_readers import file_named, some_requests
from tests.data.video_files import ROOT, SHARED_TABLE
from vidformers.data.readers import VideoReadError, open_video
from vidformers.data.readers.ffmpeg_links import link_libraries


def loads() -> bool:
    try:
        importlib.import_module("av")
        importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError):
        return False
    return True


LOADS_HERE = loads()
needs_torchcodec = pytest.mark.skipif(
    not LOADS_HERE, reason="torchcodec does not load in this process; see the test that starts another"
)

NAMES = [
    "b_frames.mp4", "open_gop.mp4", "intra_refresh.mp4", "one_frame.mp4", "hevc_open.mp4", "vp9_altref.webm",
    "mpeg4_b.mp4", "mpeg4_b.avi", "mpeg2_b.ts", "h264_b.ts", "raw.h264", "odd_size.mp4", "odd_size_vp9.webm",
    "full_range.mp4", "ten_bits.mp4", "variable_rate.mp4", "gap.mkv", "late_start.mp4", "edit_list.mp4",
    "fragmented.mp4", "mid_gop.ts", "two_streams.mp4", "rot90.mp4", "rot270.mp4", "mirrored.mp4",
    "ten_bits_hevc.mp4", "no_index.avi", "piped.mkv", "variable_rate_b.mp4", "palette.avi", *SHARED_TABLE,
]  # fmt: skip
# Files that it must refuse, and a word of the reason it must give.
REFUSED = {
    "mpeg2_b.ts": "cannot seek",
    "h264_b.ts": "cannot seek",
    "mid_gop.ts": "cannot seek",
    "raw.h264": "no packet has a timestamp",
    "mpeg4_b.avi": "AVI",
    "mm_test.avi": "AVI",
    "mirrored.mp4": "mirrored",
    "palette.avi": "palette",
}
# The mean difference in grey levels that another conversion to RGB may make.
OTHER_COLOURS = {
    "ten_bits.mp4": 2.5,
    "ten_bits_hevc.mp4": 2.5,
    "h264_10bits.mp4": 2.5,
    "odd_size_vp9.webm": 1.0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.mark.skipif(LOADS_HERE, reason="torchcodec loads here: the tests below run as they are")
def test_in_a_process_that_finds_the_libraries_of_pyav(tmp_path: Path) -> None:
    try:
        names = link_libraries(tmp_path)
    except ValueError as error:
        pytest.skip(str(error))
    assert any(name.startswith("libavcodec.so.") for name in names)
    if importlib.util.find_spec("torchcodec") is None:
        pytest.skip("torchcodec is not installed")
    library_path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": library_path},
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    # without ../shared its nine videos are skipped there, as they are here
    assert passed and int(passed[1]) > len(NAMES) // 2, "the child has skipped the tests that matter"


@needs_torchcodec
@pytest.mark.parametrize("name", NAMES)
def test_torchcodec_returns_the_same_frames_or_refuses(folder: Path, name: str) -> None:
    path = file_named(folder, name)
    if name in REFUSED:
        with pytest.raises(VideoReadError, match="pyav backend") as error:
            open_video(path, "torchcodec")
        assert error.value.reason == "unsupported by torchcodec" and REFUSED[name] in error.value.detail
        return
    with open_video(path, "torchcodec") as video, open_video(path) as other:
        for fact in ("num_frames", "height", "width", "fps", "duration"):
            assert getattr(video, fact) == getattr(other, fact)
        expected = other.get_frames(range(other.num_frames)).numpy()
        for indices in some_requests(len(expected)):
            frames = video.get_frames(indices)
            assert frames.dtype == torch.uint8 and frames.is_contiguous()
            if name in OTHER_COLOURS:
                difference = np.abs(frames.numpy().astype(int) - expected[indices])
                assert difference.mean() <= OTHER_COLOURS[name], indices
            else:
                assert np.array_equal(frames.numpy(), expected[indices]), indices


@needs_torchcodec
@pytest.mark.parametrize("name", ["rot90.mp4", "rot270.mp4"])
def test_rotation_can_be_left_out(folder: Path, name: str) -> None:
    path = file_named(folder, name)
    stored = {"apply_rotation": False}
    with open_video(path, "torchcodec", **stored) as video, open_video(path, **stored) as other:
        assert torch.equal(video.get_frames([0, 7]), other.get_frames([0, 7]))
        assert (video.height, video.width) == (other.height, other.width)


@needs_torchcodec
def test_errors_of_the_protocol(folder: Path) -> None:
    (folder / "text.mp4").write_text("this is no video\n" * 20)
    with pytest.raises(VideoReadError) as error:
        open_video(folder / "text.mp4", "torchcodec")
    assert (error.value.reason, error.value.backend) == ("not a video", "torchcodec")
    video = open_video(file_named(folder, "plain.mp4"), "torchcodec")
    with pytest.raises(IndexError, match="40 is outside"):
        video.get_frames([40])
    video.close()
    video.close()
    with pytest.raises(ValueError, match="is closed"):
        video.get_frames([0])


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (ModuleNotFoundError("No module named 'torchcodec'"), r"not installed .*vidformers\[torchcodec\]"),
        (RuntimeError("Could not load libtorchcodec.\n1. ..."), r"\(Could not load .*readers.ffmpeg_links"),
    ],
)
def test_without_torchcodec_the_error_says_what_to_install(
    trouble: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_module(name: str) -> None:
        if name.startswith("torchcodec"):
            raise trouble

    monkeypatch.setattr("vidformers.data.readers.torchcodec.importlib.import_module", import_module)
    with pytest.raises(ImportError, match=message):
        open_video("video.mp4", "torchcodec")


def test_a_pyav_without_libraries_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = type("Spec", (), {"origin": str(tmp_path / "av" / "__init__.py")})()
    monkeypatch.setattr("vidformers.data.readers.ffmpeg_links.importlib.util.find_spec", lambda name: fake)
    with pytest.raises(ValueError, match="got no FFmpeg libraries"):
        link_libraries(tmp_path / "links")
