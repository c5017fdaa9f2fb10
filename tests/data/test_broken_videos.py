"""Files that are no videos, or not whole ones: every backend says so, and no frame is taken for another."""

import os
import pickle
import tarfile
import time
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.test_readers import made, needs_decord, reference
from tests.data.video_files import copy_packets, write_video
from vidformers.data.readers import VideoReadError, index, open_video
from vidformers.data.readers.decoding import decode_through
from vidformers.data.readers.pixels import FrameSink
from vidformers.data.readers.pyav import PyAVReader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


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
