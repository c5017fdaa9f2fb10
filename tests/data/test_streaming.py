"""Frames handed out as a stream are those that the reader finds, whatever the file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.video_files import READABLE, write_video
from vidformers.data.readers import VideoReadError, decoding, open_video
from vidformers.data.readers.streaming import CHUNK, stream_frames


@pytest.mark.parametrize("name", READABLE)
def test_streamed_frames_are_those_of_the_reader(tmp_path: Path, name: str) -> None:
    path = READABLE[name](tmp_path / name)
    with open_video(path) as video:
        indices = sorted({0, *range(3, video.num_frames, 4), video.num_frames - 1})
        whole = video.get_frames(indices)
        parts = list(stream_frames(video, indices, lambda frames: frames[:, :20, ::2]))
    assert [index for index, _ in parts] == indices
    assert torch.equal(torch.stack([frame for _, frame in parts]), whole[:, :20, ::2])


def test_a_stream_decodes_each_frame_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=200, options={"g": "1000"})
    with open_video(path) as video:
        assert len(list(stream_frames(video, range(0, 150, 7), lambda frames: frames))) == 22
        assert 148 <= video.num_decoded_frames <= 170  # type: ignore[attr-defined]


def test_decord_streams_in_parts(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_video(tmp_path / "a.mp4", num_frames=60)
    indices = list(range(0, 60, 2))
    with open_video(path) as video:
        whole = video.get_frames(indices)
    with open_video(path, "decord") as video:
        parts = list(stream_frames(video, indices, lambda frames: frames))
    assert [index for index, _ in parts] == indices
    assert torch.equal(torch.stack([frame for _, frame in parts]), whole)


def test_readers_without_a_stream_are_asked_for_a_few_frames_at_a_time() -> None:
    class Video:
        path, num_frames = "a.mp4", 100

        def __init__(self) -> None:
            self.asked: list[int] = []

        def get_frames(self, indices: np.ndarray) -> torch.Tensor:
            self.asked.append(len(indices))
            return torch.from_numpy(indices)[:, None, None, None].expand(-1, 2, 2, 3)

    video = Video()
    frames = list(stream_frames(video, range(0, 100, 2), lambda frames: frames + 1))  # type: ignore[arg-type]
    assert [(index, int(frame[0, 0, 0])) for index, frame in frames] == [(i, i + 1) for i in range(0, 100, 2)]
    assert max(video.asked) == CHUNK and sum(video.asked) == 50
    assert all(frame.untyped_storage().nbytes() == frame.nbytes for _, frame in frames)


def test_timestamps_that_lie_are_counted_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=40)
    with open_video(path) as video:
        indices = [0, 5, 30, 39]
        whole = video.get_frames(indices)
        # An index whose timestamps the decoder does not give, from the tenth frame on.
        index = video._index  # type: ignore[attr-defined]
        decode = video._decoder.frames_from_start  # type: ignore[attr-defined]

        def lying(*_):
            for number, frame in enumerate(decode()):
                frame.pts = frame.pts if number < 10 else 0
                yield frame

        monkeypatch.setattr(video._decoder, "frames_from_start", lying)  # type: ignore[attr-defined]
        parts = list(stream_frames(video, indices, lambda frames: frames))
        assert [number for number, _ in parts] == indices
        assert torch.equal(torch.stack([frame for _, frame in parts]), whole)
        assert index.distrust == "" and video.frame_pts is None  # type: ignore[attr-defined]


def test_frames_that_are_lost_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=40)
    with open_video(path) as video:
        decode = video._decoder.frames_from_start  # type: ignore[attr-defined]
        monkeypatch.setattr(
            video._decoder,  # type: ignore[attr-defined]
            "frames_from_start",
            lambda *_: (frame for number, frame in enumerate(decode()) if number < 30),
        )
        with pytest.raises(VideoReadError, match="1 of 3 wanted frames did not decode"):
            list(stream_frames(video, [1, 2, 35], lambda frames: frames))


def test_frames_that_do_not_decode_are_left_out_if_somebody_wants_to_know() -> None:
    class Video:
        path, num_frames = "a.mp4", 40

        def get_frames(self, indices: np.ndarray) -> torch.Tensor:
            if 21 in np.asarray(indices):
                raise VideoReadError("a.mp4", "truncated or damaged", "frame 21", "decord")
            return torch.as_tensor(np.asarray(indices))[:, None, None, None].expand(-1, 2, 2, 3)

    told: list[tuple[int, int]] = []
    video = Video()
    frames = stream_frames(
        video,  # type: ignore[arg-type]
        range(40),
        lambda frames: frames,
        on_damage=lambda first, end: told.append((first, end)),
    )
    found = [(index, int(frame[0, 0, 0])) for index, frame in frames]
    assert found == [(i, i) for i in range(40) if i != 21] and told == [(21, 22)]
    with pytest.raises(VideoReadError):
        list(stream_frames(video, range(40), lambda frames: frames))  # type: ignore[arg-type]


def test_packets_of_a_long_video_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet counts as the object that it is, however little is in it."""
    path = write_video(tmp_path / "a.mp4", num_frames=60)
    with open_video(path) as video:
        assert len(video._decoder._kept) >= 60  # type: ignore[attr-defined]
    monkeypatch.setattr(decoding, "KEPT_BYTES", path.stat().st_size + 30 * 640)
    with open_video(path) as video:
        assert video._decoder._kept == [] and video.num_frames == 60  # type: ignore[attr-defined]
