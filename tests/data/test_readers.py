"""Readers: the same frame for the same index, however it is asked for, and one clear error for what is no
video."""

import hashlib
import os
import pickle
import subprocess
import sys
import tarfile
import time
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
    copy_packets,
    reference_frames,
    shared_video,
    write_video,
)
from vidformers.data.readers import BACKENDS, VideoReader, VideoReadError, index, open_video
from vidformers.data.readers.decoding import StreamDecoder, decode_through
from vidformers.data.readers.pixels import FrameSink
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


# ---- errors


@pytest.fixture(scope="module")
def broken(folder: Path) -> dict[str, Path]:
    plain = made(folder, "plain.mp4").read_bytes()
    files = {
        "text.mp4": b"path label\nthis is not a video, whatever its name says\n" * 20,
        "empty.mp4": b"",
        "zeros.mp4": bytes(10_000),
        "noise.mp4": np.random.default_rng(0).bytes(50_000),
        "truncated.mp4": plain[: len(plain) // 2],
        "html.avi": b"<!DOCTYPE html><html><body>404</body></html>",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 16000, 0
        container.mux(stream.encode(tone))
        container.mux(stream.encode(None))
    with av.open(str(folder / "still.mp4"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24"))
        )
        container.mux(stream.encode(None))
    (folder / "folder.mp4").mkdir()
    names = [*files, "sound.mp4", "still.mp4", "folder.mp4"]
    return {name: folder / name for name in names} | {"missing.mp4": folder / "no" / "missing.mp4"}


@pytest.mark.parametrize("in_shard", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mkv\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_text_that_names_other_files_or_addresses_is_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, in_shard: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "other.mkv")
    write_video(tmp_path / "other.ts")
    path = tmp_path / ("clip.m3u8" if text.startswith("#EXT") else "clip.mp4")
    path.write_text(text)
    name = str(path)
    if in_shard:
        with tarfile.open(tmp_path / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
            shard.add(path, path.name)
        name = f"{tmp_path}/shard.tar#512+{len(text)}/{path.name}"
    begun = time.monotonic()
    with pytest.raises(VideoReadError) as caught:
        open_video(name)
    assert caught.value.reason == "not a video"
    assert time.monotonic() - begun < 5  # the address of an SDP is listened at for 10 s


def test_a_file_without_permission_is_not_readable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # which nobody says to root

    monkeypatch.setattr(index, "_open", refuse)
    monkeypatch.setattr(index, "open_source", refuse)
    with pytest.raises(VideoReadError, match="check the file's permissions") as caught:
        open_video(made(folder, "plain.mp4"))
    assert caught.value.reason == "not readable"


def test_a_turned_frame_of_one_pixel_is_converted() -> None:
    """NumPy takes it for contiguous, whatever its strides."""
    sink = FrameSink(
        1, picture=lambda _: np.full((1, 1, 3), 7, np.uint8)[::-1, ::-1], convert=lambda frames, _: frames * 2
    )
    sink.put(0, av.VideoFrame(16, 16, "rgb24"))
    assert sink.frames().tolist() == [[[[14, 14, 14]]]]


@pytest.mark.parametrize("backend", ["pyav", pytest.param("decord", marks=needs_decord)])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.mp4", "not a video"),
        ("html.avi", "not a video"),
        ("zeros.mp4", "not a video"),
        ("noise.mp4", "not a video"),
        ("still.mp4", "not a video"),
        ("empty.mp4", "empty file"),
        ("truncated.mp4", "truncated or damaged"),
        ("sound.mp4", "no video stream"),
        ("folder.mp4", "directory"),
        ("missing.mp4", "missing file"),
    ],
)
def test_what_is_no_video_says_so(broken: dict[str, Path], name: str, reason: str, backend: str) -> None:
    with pytest.raises(VideoReadError) as caught:
        open_video(broken[name], backend)
    error = caught.value
    assert isinstance(error, OSError)
    assert (error.path, error.reason, error.backend) == (str(broken[name]), reason, backend)
    assert error.detail and "\n" not in str(error)
    for part in (error.path, reason, error.detail, backend):
        assert part in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason, copy.detail) == (str(error), error.reason, error.detail)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_in_the_middle_is_an_error_or_is_counted(folder: Path, codec: str) -> None:
    whole = write_video(folder / f"whole_{codec}.mp4", codec=codec, num_frames=60, width=160, height=120)
    outcomes = []
    for part in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        content = bytearray(whole.read_bytes())
        place = content.index(b"mdat") + 4
        place += int((len(content) - place) * part)
        content[place : place + 200] = bytes(200)
        path = folder / "damaged.mp4"
        path.write_bytes(content)
        try:
            with PyAVReader(path) as video:
                video.get_frames(range(60))
                outcomes.append(video.num_corrupt_frames)
                assert bool(video.num_corrupt_frames) == ("damaged" in " ".join(video.damage))
        except VideoReadError as error:
            assert error.reason == "truncated or damaged"
    assert any(outcomes), "the decoder's own signs of damage were not counted"


def test_packets_that_do_not_decode_are_passed_over_only_at_the_start() -> None:
    class Packet:
        size = 10

        def __init__(self, *frames: str) -> None:
            self.frames = list(frames)

        def decode(self) -> list[str]:
            if not self.frames:
                raise ValueError("broken")
            return self.frames

    class Container:
        def demux(self, stream: object) -> list[Packet]:
            return [Packet(), Packet(), Packet("a"), Packet("b", "c"), Packet(), Packet("d")]

    frames = decode_through(Container(), None)  # type: ignore[arg-type]
    assert [next(frames), next(frames), next(frames)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="broken"):
        next(frames)


def test_a_cut_off_file_gives_its_frames_and_says_what_is_missing(folder: Path) -> None:
    whole = write_video(
        folder / "faststart.mp4",
        num_frames=60,
        width=160,
        height=120,
        container_options={"movflags": "faststart"},
    )
    path = folder / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: os.path.getsize(whole) * 2 // 3])
    with PyAVReader(path) as video:
        assert 10 < video.num_frames < 55
        assert any("header promises 60 frames" in sign for sign in video.damage)
        try:
            assert np.array_equal(video.get_frames([3, 9]).numpy(), reference(whole)[[3, 9]])
        except VideoReadError as error:
            pytest.fail(str(error))


def test_a_lost_key_frame_is_no_reason_to_return_a_wrong_frame(folder: Path) -> None:
    whole = write_video(
        folder / "three_groups.mkv", num_frames=36, options={"x264-params": "scenecut=0:bframes=0"}
    )
    path = folder / "lost_key.mkv"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        keys = 0
        for packet in old.demux(video=0):
            if packet.size == 0:
                continue
            keys += packet.is_keyframe
            if not (packet.is_keyframe and keys == 2):
                packet.stream = copy
                new.mux(packet)
    with PyAVReader(path) as video:
        assert video.num_frames == 35
        assert np.array_equal(video.get_frames([0, 5, 11]).numpy(), reference(whole)[[0, 5, 11]])
        assert np.array_equal(video.get_frames([23, 34]).numpy(), reference(whole)[[24, 35]])
        with pytest.raises(VideoReadError, match=r"lists 35 frames, \d+ decode"):
            video.get_frames([15])


def test_a_frame_that_was_not_converted_is_no_frame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong there is not to be taken for trouble in decoding, after which another try may help."""
    convert, calls = PyAVReader._picture, []

    def fails_once(self: PyAVReader, frame: object) -> np.ndarray:
        calls.append(frame)
        if len(calls) == 1:
            raise ValueError("no colours")
        return convert(self, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(PyAVReader, "_picture", fails_once)
    monkeypatch.setattr("vidformers.data.readers.pixels.WAITING_BYTES", 1)
    with PyAVReader(made(folder, "plain.mp4")) as video:
        with pytest.raises(VideoReadError, match="1 decoded frames could not be converted"):
            video.get_frames([3, 20])
        assert np.array_equal(video.get_frames([3]).numpy(), reference(made(folder, "plain.mp4"))[[3]])


def test_a_change_of_frame_size_is_an_error(folder: Path) -> None:
    parts = [
        write_video(folder / f"part{n}.ts", width=64 + 32 * n, height=48, num_frames=20, options={"bf": "0"})
        for n in range(2)
    ]
    path = folder / "two_sizes.h264"
    streams = [copy_packets(part, part.with_suffix(".h264"), container_format="h264") for part in parts]
    path.write_bytes(b"".join(stream.read_bytes() for stream in streams))
    with open_video(path) as video:
        assert video.num_frames == 40
        with pytest.raises(VideoReadError, match="from 64x48 to 96x48") as error:
            video.get_frames([0, 39])
        assert error.value.reason == "frame size changes"


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


def test_files_are_closed_after_success_and_after_failure(folder: Path, broken: dict[str, Path]) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    path = made(folder, "mpeg4_b.avi")
    with open_video(path) as video:
        video.get_frames([3])
    before = open_files()
    for _ in range(5):
        with open_video(path) as video:
            video.get_frames([3, 30])
            assert video.width
        for name in ("truncated.mp4", "sound.mp4", "text.mp4", "still.mp4"):
            with pytest.raises(VideoReadError):
                open_video(broken[name])
    assert open_files() == before


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
