"""Folders of extracted frames: order, holes, sizes and broken images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.video_files import picture
from vidformers.data.readers import VideoReader, VideoReadError, open_video
from vidformers.data.readers.frames import FrameFolderReader


def save(path: Path, index: int, *, width: int = 40, height: int = 30) -> None:
    Image.fromarray(picture(index, width, height)).save(path, quality=95)


def make(folder: Path, pattern: str, numbers: range | list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        save(folder / pattern.format(number), number)
    return folder


@pytest.mark.parametrize(
    "pattern",
    ["img_{:05d}.jpg", "frame_{:06d}.png", "{:06d}.JPG", "{}.png", "v_3.cut{}_rgb.jpeg", "f{}.webp"],
)
def test_any_numbered_name_in_the_order_of_its_number(tmp_path: Path, pattern: str) -> None:
    folder = make(tmp_path / "video.mp4 frames", pattern, range(8, 13))  # 8 9 10 11 12
    with open_video(folder, "frames", frames_fps=5) as video:
        assert isinstance(video, VideoReader) and isinstance(video, FrameFolderReader)
        assert (video.num_frames, video.fps, video.duration) == (5, 5.0, 1.0)
        assert (video.height, video.width, video.damage) == (30, 40, ())
        frames = video.get_frames([4, 0, 2, 0])
    assert frames.dtype == torch.uint8 and frames.is_contiguous()
    for frame, number in zip(frames, [12, 8, 10, 8], strict=True):
        expected = np.asarray(Image.open(folder / pattern.format(number)).convert("RGB"))
        assert np.array_equal(frame.numpy(), expected)


def test_missing_numbers_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "holes", "img_{:05d}.jpg", [1, 2, 4, 5, 8])
    with open_video(folder, "frames") as video:
        assert video.num_frames == 5
        (sign,) = video.damage  # type: ignore[attr-defined]
    assert sign == "3 of the frames 1 to 8 are missing, the first after 'img_00002.jpg'"


def test_optical_flow_and_other_files_are_not_frames(tmp_path: Path) -> None:
    folder = make(tmp_path / "tsn", "img_{:05d}.jpg", range(1, 4))
    make(folder, "flow_x_{:05d}.jpg", range(1, 4))
    (folder / "readme.txt").write_text("hello")
    (folder / ".hidden_1.jpg").write_text("no image")
    with open_video(folder, "frames") as video:
        assert video.num_frames == 3


def test_rotation_of_photographs(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(picture(1, 40, 30)).save(tmp_path / "photo.jpg", exif=exif)
    with open_video(tmp_path / "photo.jpg", "frames") as video:
        assert (video.num_frames, video.height, video.width) == (1, 40, 30)
        turned = video.get_frames([0])[0]
    with open_video(tmp_path / "photo.jpg", "frames", apply_rotation=False) as video:
        assert (video.height, video.width) == (30, 40)
        assert torch.equal(video.get_frames([0])[0].rot90(-1), turned)


def broken_folder(folder: Path, what: str) -> Path:
    if what == "missing":
        return folder / "nowhere"
    if what == "a file":
        (folder / "video.mp4").write_bytes(b"video")
        return folder / "video.mp4"
    make(folder, "img_{:05d}.jpg", [] if what == "empty" else [1, 2, 3])
    if what == "two series":
        save(folder / "rgb_00001.jpg", 1)
    elif what == "a number twice":
        save(folder / "img_2.jpg", 1)
    elif what == "no number":
        save(folder / "cover.jpg", 1)
    elif what == "other size":
        save(folder / "img_00002.jpg", 2, width=50)
    elif what == "not an image":
        (folder / "img_00002.jpg").write_text("no image")
    elif what == "truncated":
        content = (folder / "img_00002.jpg").read_bytes()
        (folder / "img_00002.jpg").write_bytes(content[: len(content) // 2])
    elif what == "16 bits":
        Image.fromarray(np.zeros((30, 40), np.uint16)).save(folder / "img_00004.png")
    return folder


@pytest.mark.parametrize(
    ("what", "reason", "word"),
    [
        ("missing", "missing file", "no such folder"),
        ("a file", "not a video", "'pyav'"),
        ("empty", "no frames", "no image"),
        ("two series", "ambiguous frames", "img_\\* \\(3\\), rgb_\\* \\(1\\)"),
        ("a number twice", "ambiguous frames", "both frame 2"),
        ("no number", "ambiguous frames", "'cover.jpg' has no number"),
        ("other size", "frame size changes", "40x30 pixels, img_00002.jpg 50x30"),
        ("not an image", "truncated or damaged", "img_00002.jpg"),
        ("truncated", "truncated or damaged", "img_00002.jpg"),
        ("16 bits", "no decoder", "img_00004.png"),
    ],
)
def test_a_folder_that_is_no_video_says_why(tmp_path: Path, what: str, reason: str, word: str) -> None:
    folder = broken_folder(tmp_path, what)
    with pytest.raises(VideoReadError, match=word) as error, open_video(folder, "frames") as video:
        video.get_frames(range(video.num_frames))
    assert (error.value.reason, error.value.backend) == (reason, "frames")


def test_the_protocol_of_errors(tmp_path: Path) -> None:
    folder = make(tmp_path / "video", "{}.png", range(3))
    with pytest.raises(ValueError, match="fps=0"):
        open_video(folder, "frames", frames_fps=0)
    video = open_video(folder, "frames")
    with pytest.raises(IndexError, match="3 is outside"):
        video.get_frames([3])
    video.close()
    with pytest.raises(ValueError, match="is closed"):
        video.get_frames([0])
    with pytest.raises(VideoReadError, match="backend 'frames'"):
        open_video(folder, "pyav")
