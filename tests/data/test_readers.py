"""Readers: the same frame for the same index, however it is asked for, and one clear error for what is no
video."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.data.video_files import (
    READABLE,
    ROOT,
    SHARED_TABLE,
    reference_frames,
    shared_video,
    write_video,
)
from vidformers.data.readers import BACKENDS, VideoReader, VideoReadError, open_video
from vidformers.data.readers.decoding import StreamDecoder
from vidformers.data.readers.pyav import PyAVReader

HAS_DECORD = subprocess.run([sys.executable, "-c", "import decord"], capture_output=True).returncode == 0
needs_decord = pytest.mark.skipif(not HAS_DECORD, reason="decord is not installed")

# Files that decord must refuse, and a word of the reason it must give.
REFUSED_BY_DECORD = {
    "mpeg2_b.ts": "mpegts",
    "h264_b.ts": "mpegts",
    "mid_gop.ts": "mpegts",
    "av1.mp4": "av1",
    "av1_video.mkv": "av1",
    "animation.gif": "gif",
    "raw.h264": "h264",
    "odd_size_vp9.webm": "odd sizes",
    "ten_bits.mp4": "yuv420p10le",
    "ten_bits_hevc.mp4": "yuv420p10le",
    "piped.mkv": "cannot open the file",
    "ten_bits_444.mp4": "yuv444p10le",
    "h264_10bits.mp4": "yuv420p10le",
    "edit_list.mp4": "edit list",
    "two_streams.mp4": "2 video streams",
    "nasa_13013.mp4": "2 video streams",
    "rot90.mp4": "rotation",
    "rot180.mp4": "rotation",
    "rot270.mp4": "rotation",
    "mirrored.mp4": "rotation",
    "palette.avi": "palette",
    "camera.avi": "rotation",
}
# MPEG-4 part 2 leaves the rounding of its inverse transform open, and decord's FFmpeg 4 rounds otherwise than
# FFmpeg 8.
ROUNDS_OTHERWISE = ("mpeg4.avi", "no_index.avi", "mpeg4_b.avi", "mpeg4_b.mp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def made(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else READABLE[name](path)


def file_named(folder: Path, name: str) -> Path:
    return made(folder, name) if name in READABLE else shared_video(name)


_references: dict[Path, np.ndarray] = {}


def reference(path: Path) -> np.ndarray:
    if path not in _references:
        _references.clear()
        _references[path] = reference_frames(path)
    return _references[path]


def some_requests(num_frames: int) -> Iterator[list[int]]:
    """Every frame alone for short files, then random sets in any order and with repeats."""
    generator = np.random.default_rng(0)
    step = max(num_frames // 40, 1)
    yield from ([index] for index in range(0, num_frames, step))
    yield [num_frames - 1]
    yield list(range(num_frames - 1, -1, -max(num_frames // 8, 1)))
    for _ in range(6):
        yield generator.integers(0, num_frames, size=generator.integers(1, 17)).tolist()


@pytest.mark.parametrize("name", [*READABLE, *SHARED_TABLE])
def test_random_access_equals_decoding_straight_through(folder: Path, name: str) -> None:
    path = file_named(folder, name)
    expected = reference(path)
    with open_video(path, apply_rotation=False) as video:
        assert isinstance(video, VideoReader)
        assert video.num_frames == len(expected)
        assert (video.height, video.width) == expected.shape[1:3]
        for indices in some_requests(len(expected)):
            frames = video.get_frames(indices)
            assert frames.dtype == torch.uint8 and frames.is_contiguous()
            assert np.array_equal(frames.numpy(), expected[indices]), indices


@pytest.mark.parametrize("name", [*READABLE, *SHARED_TABLE])
def test_seeking_equals_decoding_straight_through(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done for files whose packets are too many to be kept."""
    monkeypatch.setattr("vidformers.data.readers.decoding.KEPT_BYTES", 0)
    path = file_named(folder, name)
    expected = reference(path)
    with PyAVReader(path, apply_rotation=False) as video:
        assert not video._decoder._kept
        for indices in some_requests(len(expected)):
            assert np.array_equal(video.get_frames(indices).numpy(), expected[indices]), indices


def test_packets_are_read_once(folder: Path) -> None:
    with PyAVReader(made(folder, "b_frames.mp4")) as video:
        container, _ = video._decoder.opened()
        for indices in ([30], [5, 39], [0]):
            video.get_frames(indices)
        assert video._decoder.opened()[0] is container and len(video._decoder._kept) == 41, "and an end mark"
    assert not video._decoder._kept
    with PyAVReader(made(folder, "vp9.webm")) as video:
        assert not video._decoder._kept, "not known to be the same wherever reading begins"


@pytest.mark.parametrize("name", SHARED_TABLE)
def test_shared_files_have_their_published_frames(name: str) -> None:
    num_frames, width, height, fps, digest = SHARED_TABLE[name]
    with open_video(shared_video(name)) as video:
        assert (video.num_frames, video.width, video.height) == (num_frames, width, height)
        assert video.fps == pytest.approx(fps) and video.duration == pytest.approx(num_frames / fps, rel=0.01)
        frames = video.get_frames(range(num_frames))
        assert isinstance(video, PyAVReader) and video.damage == () and video.num_corrupt_frames == 0
    if digest is not None:
        assert hashlib.sha256(frames.numpy().tobytes()).hexdigest()[:16] == digest


@needs_decord
@pytest.mark.parametrize("name", [*READABLE, *SHARED_TABLE])
def test_decord_returns_the_same_frames_or_refuses(folder: Path, name: str) -> None:
    path = file_named(folder, name)
    if name in REFUSED_BY_DECORD:
        with pytest.raises(VideoReadError, match="pyav backend") as error:
            open_video(path, "decord")
        assert error.value.reason == "unsupported by decord" and REFUSED_BY_DECORD[name] in error.value.detail
        return
    with open_video(path, "decord") as video, open_video(path) as other:
        for fact in ("num_frames", "height", "width", "fps", "duration"):
            assert getattr(video, fact) == getattr(other, fact)
        expected = other.get_frames(range(other.num_frames)).numpy()
        for indices in some_requests(len(expected)):
            frames = video.get_frames(indices).numpy()
            if name in ROUNDS_OTHERWISE:
                assert np.abs(frames.astype(int) - expected[indices]).max() <= 2, indices
            else:
                assert np.array_equal(frames, expected[indices]), indices


@pytest.mark.parametrize("name", ["b_frames.mp4", "hevc_open.mp4", "vp9.webm", "mpeg4_b.avi"])
def test_threads_change_nothing(folder: Path, name: str) -> None:
    path = made(folder, name)
    with open_video(path, thread_count=2) as video:
        for indices in some_requests(video.num_frames):
            assert np.array_equal(video.get_frames(indices).numpy(), reference(path)[indices])


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("rot90.mp4", lambda x: np.rot90(x, 1, (1, 2))),
        ("rot180.mp4", lambda x: np.rot90(x, 2, (1, 2))),
        ("rot270.mp4", lambda x: np.rot90(x, -1, (1, 2))),
        ("mirrored.mp4", lambda x: x[:, :, ::-1]),
        ("camera.avi", lambda x: np.rot90(x, -1, (1, 2))),
    ],
)
def test_rotation_is_applied_unless_told_not_to(folder: Path, name: str, turn: object) -> None:
    path = made(folder, name)
    expected = turn(reference(path))  # type: ignore[operator]
    with av.open(str(path)) as container:
        rotation = next(container.decode(video=0)).rotation
    assert rotation == {"rot90.mp4": 90, "rot270.mp4": -90}.get(name, rotation), "counter-clockwise"
    with open_video(path) as video:
        assert (video.height, video.width) == expected.shape[1:3], "known before any frame is read"
        assert np.array_equal(video.get_frames([0, 5, 3]).numpy(), expected[[0, 5, 3]])
    with open_video(path) as video:
        video.get_frames([1])
        assert (video.height, video.width) == expected.shape[1:3]


def test_time_of_odd_files(folder: Path) -> None:
    with open_video(made(folder, "variable_rate.mp4")) as video:
        assert video.fps == pytest.approx(40 / video.duration, rel=0.1)
    with open_video(made(folder, "gap.mkv")) as video:
        assert (video.fps, video.duration) == (25.0, pytest.approx(2.4))
    with open_video(made(folder, "late_start.mkv")) as video:
        assert video.duration == pytest.approx(1.6, abs=0.01) and video.damage == ()  # type: ignore[attr-defined]
    with open_video(made(folder, "edit_list.mp4")) as video:
        assert video.num_frames == 33 and video.duration == pytest.approx(1.32)


def test_only_the_needed_part_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "long.mp4"
    write_video(
        path,
        num_frames=120,
        gop=20,
        options={"bf": "3", "x264-params": "b-adapt=0:scenecut=0:b-pyramid=none"},
    )
    with PyAVReader(path) as video:
        assert video.num_decoded_frames == 0, "opening decodes nothing"
        frames = video.get_frames([105, 110, 33])
        skipping = video.num_decoded_frames
    monkeypatch.setattr("vidformers.data.readers.decoding.SKIPS_PER_PACKET", ())
    with PyAVReader(path) as video:
        assert torch.equal(video.get_frames([105, 110, 33]), frames)
        plain = video.num_decoded_frames
    # Groups begin at 20 and 100: frames 20..33 and 100..110, and one that a wanted one refers to.
    assert 14 + 11 <= plain <= 14 + 11 + 2
    assert skipping < 0.6 * plain, "frames that nothing refers to are three in four"
    assert np.array_equal(frames.numpy(), reference(path)[[105, 110, 33]])


def test_the_decoder_is_fed_no_more_than_it_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that orders frames holds some back: they are asked for, and not pushed out by others."""
    fed = 0
    original = StreamDecoder._packets_from

    def watch(self: StreamDecoder, start: int) -> Iterator[av.Packet]:
        nonlocal fed
        for packet in original(self, start):
            fed += 1
            yield packet

    monkeypatch.setattr(StreamDecoder, "_packets_from", watch)
    with PyAVReader(made(folder, "b_frames.mp4")) as video:
        for index, num_packets in ((0, 1), (4, 2), (12, 1), (14, 3)):
            fed = 0
            assert np.array_equal(video.get_frames([index]).numpy(), reference(Path(video.path))[[index]])
            assert fed == num_packets, index


@pytest.mark.parametrize("kept_bytes", [0, 1 << 24])
@pytest.mark.parametrize("name", [*READABLE, *SHARED_TABLE])
def test_a_frame_is_found_at_the_first_try(
    folder: Path, name: str, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_named(folder, name)
    tries = 0
    original = PyAVReader._decode_from

    def watch(self: PyAVReader, *arguments: object) -> None:
        nonlocal tries
        # Another test's reader may still be at work in a thread that its time limit left behind.
        tries += self is video
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PyAVReader, "_decode_from", watch)
    monkeypatch.setattr("vidformers.data.readers.decoding.KEPT_BYTES", kept_bytes)
    with PyAVReader(path) as video:
        if video.frame_pts is None:
            assert name in ("mpeg4_b.avi", "mm_test.avi", "raw.h264", "mid_gop.ts", "palette.avi"), (
                "only these must be counted"
            )
            return
        indices = range(0, video.num_frames, max(video.num_frames // 30, 1))
        for index in indices:
            video.get_frames([index])
    # Transport streams, and here AVI and FLV, have no index to seek by.
    sought = () if kept_bytes else ("h264_b.ts", "all_key.avi", "b_pyramid.flv")
    if name not in ("mpeg2_b.ts", *sought):
        assert tries == len(indices)


# ---- requests


@pytest.mark.parametrize("backend", ["pyav", pytest.param("decord", marks=needs_decord)])
@pytest.mark.parametrize(
    ("indices", "kind", "message"),
    [
        ([], ValueError, "non-empty"),
        ([[1, 2]], ValueError, "one-dimensional"),
        ([0.5], ValueError, "whole numbers"),
        ([-1], IndexError, "-1 is outside .* 40 frames"),
        ([0, 40], IndexError, "40 is outside .* use 0 to 39"),
    ],
)
def test_wrong_indices_are_named(
    folder: Path, backend: str, indices: list[float], kind: type[Exception], message: str
) -> None:
    with open_video(made(folder, "plain.mp4"), backend) as video, pytest.raises(kind, match=message):
        video.get_frames(indices)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_indices_of_any_kind_and_order(folder: Path, backend: str) -> None:
    path = made(folder, "b_frames.mp4")
    with open_video(str(path), backend) as video:
        for indices in ([7, 7, 2, 39, 2], range(3, 9), np.array([5, 1], np.uint8), torch.tensor([8, 8])):
            assert np.array_equal(video.get_frames(indices).numpy(), reference(path)[np.asarray(indices)])


@pytest.mark.parametrize("backend", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_a_closed_video_says_that_it_is_closed(folder: Path, backend: str) -> None:
    video = open_video(made(folder, "plain.mp4"), backend)
    video.close()
    video.close()
    with pytest.raises(ValueError, match="is closed"):
        video.get_frames([0])


def test_unknown_or_missing_backend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKENDS == ("pyav", "decord", "torchcodec", "frames")
    with pytest.raises(
        ValueError, match="unknown video backend 'opencv'; use one of: pyav, decord, torchcodec, frames"
    ):
        open_video(made(folder, "plain.mp4"), "opencv")
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ImportError, match="pip install decord"):
        open_video(made(folder, "plain.mp4"), "decord")


def test_paths_go_through_the_path_manager(folder: Path) -> None:
    from iopath.common.file_io import PathHandler

    from vidformers.data.paths import path_manager

    class Here(PathHandler):
        def _get_supported_prefixes(self) -> list[str]:
            return ["here://"]

        def _get_local_path(self, path: str, force: bool = False, **kwargs: object) -> str:
            return str(folder / path.removeprefix("here://"))

    made(folder, "plain.mp4")
    path_manager().register_handler(Here(), allow_override=True)
    with open_video("here://plain.mp4") as video:
        assert video.num_frames == 40 and video.path == "here://plain.mp4"


def test_importing_the_readers_loads_no_decoder() -> None:
    code = "import sys, vidformers.data.readers; print({'av', 'decord'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
