"""A timeline: which frames its windows show, what it answers, and that it streams."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import vidformers as vf
from tests.engine.predicting import save_run
from vidformers.checkpoints.metadata import Protocol
from vidformers.cli.predict import timeline_text
from vidformers.data.clip_sampling import slowfast_views
from vidformers.data.readers import VideoReadError, open_video
from vidformers.engine.predict import Predictor
from vidformers.engine.timeline import Timeline, clip_seconds, window_frames, window_starts
from vidformers.report.timeline import timeline_csv, write_timeline

ROOT = Path(__file__).parents[2]


def write_colours(path: Path, *, seconds: float, fps: int = 10, size: int = 40, gop: int = 250) -> None:
    """Blue in the first half, red in the second; a bar that moves, so that frames differ."""
    count = round(seconds * fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for index in range(count):
            image = np.full((size, size, 3), (40, 40, 200) if index < count / 2 else (200, 40, 40), np.uint8)
            image[:, index % size] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


class ColourModel(torch.nn.Module):
    """Class 0 for blue clips, 1 for red ones."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Module()
        self.head.projection = torch.nn.Linear(1, 2)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        red, _, blue = clips.mean(dim=(2, 3, 4)).unbind(1)
        return torch.stack([blue - red, red - blue], dim=1) * 3


def test_starts_of_windows() -> None:
    assert window_starts(10.0, 4.0, 2.0).tolist() == [0, 2, 4, 6]
    assert window_starts(10.5, 4.0, 2.0).tolist() == [0, 2, 4, 6, 6.5]  # the end is seen
    assert window_starts(3.0, 4.0, 2.0).tolist() == [0]
    assert window_starts(9.0, 1.0, 3.0).tolist() == [0, 3, 6, 8]


@pytest.mark.parametrize("fps", [10, 25])
def test_a_window_as_long_as_a_clip_shows_the_frames_of_a_clip(tmp_path: Path, fps: int) -> None:
    write_colours(tmp_path / "a.mp4", seconds=8, fps=fps)
    protocol = Protocol(
        num_frames=8, sampling_rate=4, num_temporal_views=1, num_spatial_crops=1, short_side=32, crop_size=32
    )
    with open_video(tmp_path / "a.mp4") as video:
        views = slowfast_views(
            video.num_frames, fps, num_frames=8, sampling_rate=4, target_fps=30, num_views=4, use_offset=False
        )
        starts = (video.num_frames - clip_seconds(protocol) * fps) * np.arange(4) / 4 / fps
        rows = window_frames(video, starts, clip_seconds(protocol), protocol)
        # A moment that falls on the border of two frames may be rounded to either.
        assert np.abs(rows - views).max() <= 1 and (rows == views).mean() > 0.8
        short = window_frames(video, np.array([7.9]), 4.0, protocol)
        assert short.max() == video.num_frames - 1


def test_frames_that_have_times_of_their_own_are_taken_by_them(tmp_path: Path) -> None:
    """A recording that drops to a quarter of its rate in the second half."""

    class Video:
        num_frames, fps, time_base = 50, 6.25, 0.1
        frame_pts = np.concatenate([np.arange(0, 40), 40 + 4 * np.arange(10)])

    protocol = Protocol(
        num_frames=2, sampling_rate=4, num_temporal_views=1, num_spatial_crops=1, short_side=32, crop_size=32
    )
    rows = window_frames(Video(), np.array([0.0, 4.0, 6.0]), 0.16, protocol)  # type: ignore[arg-type]
    assert rows[:, 0].tolist() == [0, 40, 45]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_what_happens_when(tmp_path: Path, batch_size: int) -> None:
    write_colours(tmp_path / "a.mp4", seconds=12)
    predictor = Predictor(ColourModel(), labels=["blue", "red"], batch_size=batch_size)
    told: list[tuple[int, int]] = []
    timeline = vf.predict_timeline(
        predictor,
        tmp_path / "a.mp4",
        window_seconds=2,
        hop_seconds=0.5,
        progress=lambda done, total: told.append((done, total)),
    )
    assert timeline.start_seconds.tolist() == [0.5 * i for i in range(21)]
    assert timeline.probabilities.shape == (21, 2) and timeline.probabilities.dtype == np.float32
    (first, second) = timeline.segments()
    assert (first[0], first[2], second[1], second[2]) == (0.0, "blue", 12.0, "red")
    assert first[1] == second[0] == pytest.approx(6.0, abs=0.5)
    assert timeline.probabilities[0, 0] > 0.95 < timeline.probabilities[-1, 1]
    assert told[-1] == (21, 21)


def test_a_window_is_scored_as_a_view_is(tmp_path: Path) -> None:
    write_colours(tmp_path / "a.mp4", seconds=2)
    run = save_run(tmp_path, "TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1")
    predictor = Predictor(weights=run)
    view = predictor(tmp_path / "a.mp4").view_probabilities[0]
    with open_video(tmp_path / "a.mp4") as video:
        span = 4 * 2 / 12
        start = np.floor((20 - span * 10) / 2) / 10
        rows = window_frames(video, np.array([start]), span, predictor.protocol)
    hop = float(start)
    timeline = vf.predict_timeline(predictor, tmp_path / "a.mp4", hop_seconds=hop)
    assert timeline.window_seconds == pytest.approx(span) and rows.shape == (1, 4)
    assert np.allclose(timeline.probabilities[1], view, atol=1e-5)


MEASURE = """
import json, resource, sys, torch
import vidformers as vf
torch.set_num_threads(1)
predictor = vf.Predictor(weights=sys.argv[1], batch_size=4)
for path in sys.argv[2:]:
    timeline = vf.predict_timeline(predictor, path, window_seconds=2, hop_seconds=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([len(timeline.probabilities), timeline.peak_frames_held, peak]))
"""


def test_no_more_frames_are_held_for_a_longer_video(tmp_path: Path) -> None:
    """Half a minute and five: the same frames in memory, by count and by what the process takes (MB)."""
    paths = [tmp_path / "short.mp4", tmp_path / "long.mp4"]
    for path, seconds in zip(paths, (30, 300), strict=True):
        write_colours(path, seconds=seconds, size=160)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(save_run(tmp_path)), *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    short, long = (json.loads(line) for line in done.stdout.splitlines())
    assert (short[0], long[0]) == (29, 299)
    # 4 frames a window, two windows open at a time, and a batch of 4 clips.
    assert long[1] == short[1] <= 4 * 2 + 4 * 4
    # 3000 frames of 160 x 160 pixels are 230 MB, the 1200 that are looked at 92.
    assert long[2] < short[2] + 25


def test_a_broken_file_and_wrong_settings(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    predictor = Predictor(ColourModel(), labels=["blue", "red"])
    with pytest.raises(VideoReadError, match="not a video"):
        vf.predict_timeline(predictor, tmp_path / "text.mp4")
    for window, hop in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ValueError, match="both must be above 0"):
            vf.predict_timeline(predictor, tmp_path / "a.mp4", window_seconds=window, hop_seconds=hop)


def spoil_packets(path: Path, first: int, count: int = 1) -> None:
    """Zero the data of `count` packets of a file, in their order, from number `first` on."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[first : first + count]:
        content[position : position + size] = bytes(size)
    path.write_bytes(content)


def test_a_damaged_packet_in_the_middle_is_said_and_passed_over(tmp_path: Path) -> None:
    """10 frames a second, key frames every 2 seconds; the 13th second begins in the middle of a group."""
    path = tmp_path / "a.mp4"
    write_colours(path, seconds=40, gop=20)
    predictor = Predictor(ColourModel(), labels=["blue", "red"])
    sound = vf.predict_timeline(predictor, path, window_seconds=2, hop_seconds=1)
    assert sound.damage == "" and sound.damaged_seconds == ()
    spoil_packets(path, 130)
    with pytest.raises(VideoReadError), open_video(path) as video:
        list(video.stream_frames(range(0, video.num_frames, 2)))  # type: ignore[attr-defined]
    spoilt = vf.predict_timeline(predictor, path, window_seconds=2, hop_seconds=1)
    ((start, end),) = spoilt.damaged_seconds
    assert 12.0 <= start <= 13.0 and end == pytest.approx(14.0)
    assert f"not sound from {start:.1f} to 14.0 s" in spoilt.damage
    assert np.allclose(spoilt.probabilities[[0, 5, 20, 38]], sound.probabilities[[0, 5, 20, 38]], atol=0.02)
    assert [name for *_, name, _ in spoilt.segments()] == ["blue", "red"]


def test_windows_without_frames_have_no_answer(tmp_path: Path) -> None:
    """More than a group of pictures lost: 5 seconds of which nothing decodes."""
    path = tmp_path / "a.mp4"
    write_colours(path, seconds=20, gop=20)
    spoil_packets(path, 100, 50)
    predictor = Predictor(ColourModel(), labels=["blue", "red"])
    timeline = vf.predict_timeline(predictor, path, window_seconds=2, hop_seconds=1)
    unreadable = np.isnan(timeline.probabilities).all(axis=1)
    assert np.array_equal(unreadable, np.isnan(timeline.probabilities).any(axis=1))
    assert timeline.start_seconds[unreadable].min() >= 9 and unreadable[10:14].all()
    assert not unreadable[:9].any() and not unreadable[16:].any()
    # The rest of the group whose key frame is lost decodes, and may show anything: it is among the damaged.
    ((start, end),) = timeline.damaged_seconds
    assert 9 <= start <= 10 and end == pytest.approx(16)
    names = [name for *_, name, _ in timeline.segments()]
    assert names[:2] == ["blue", "(not readable)"] and names[-1] == "red"
    written = write_timeline(timeline, tmp_path, "t")
    rows = list(csv.reader(written[0].read_text().splitlines()))
    assert rows[12][2:] == ["", "", ""] and rows[2][2] == "blue"
    content = json.loads(written[1].read_text())
    assert content["windows"][11]["top"] == [] and len(content["windows"][1]["top"]) == 2
    assert content["damaged_seconds"] == [[pytest.approx(v, abs=1e-3) for v in timeline.damaged_seconds[0]]]
    assert content["segments"][1]["mean_probability"] is None
    assert "            (not readable)" in timeline_text(timeline)
    spoil_packets(path, 0, 200)
    with pytest.raises(VideoReadError):
        vf.predict_timeline(predictor, path)


def make_timeline(num_classes: int, num_windows: int) -> Timeline:
    scores = np.random.default_rng(0).random((num_windows, num_classes)).astype(np.float32)
    starts = np.arange(num_windows) * 2.0
    protocol = Protocol(
        num_frames=8, sampling_rate=4, num_temporal_views=1, num_spatial_crops=1, short_side=32, crop_size=32
    )
    return Timeline(
        path="folder/a long $name$.mp4",
        duration_seconds=starts[-1] + 4,
        window_seconds=4.0,
        hop_seconds=2.0,
        start_seconds=starts,
        end_seconds=starts + 4,
        probabilities=scores / scores.sum(axis=1, keepdims=True),
        class_names=[f"class, {k}" for k in range(num_classes)],
        protocol=protocol,
        peak_frames_held=8,
    )


@pytest.mark.parametrize(("num_classes", "num_windows"), [(2, 1), (40, 200)])
def test_files_of_a_timeline(tmp_path: Path, num_classes: int, num_windows: int) -> None:
    timeline = make_timeline(num_classes, num_windows)
    written = write_timeline(timeline, tmp_path / "new", "a")
    assert [path.name for path in written] == ["a.csv", "a.json", "a.png"]
    assert written[2].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.reader(timeline_csv(timeline).splitlines()))
    assert (
        rows[0][:4] == ["start_seconds", "end_seconds", "top1", "class, 0"] and len(rows) == num_windows + 1
    )
    assert [float(value) for value in rows[1][3:]] == pytest.approx(
        timeline.probabilities[0].tolist(), abs=1e-5
    )
    content = json.loads(written[1].read_text())
    assert len(content["windows"]) == num_windows and content["windows"][0]["top"][0]["class"] == rows[1][2]
    assert content["segments"][0]["start"] == 0
    assert content["segments"][-1]["end"] == timeline.duration_seconds
    for before, after in zip(content["segments"], content["segments"][1:], strict=False):
        assert before["end"] == after["start"] and before["class"] != after["class"]
