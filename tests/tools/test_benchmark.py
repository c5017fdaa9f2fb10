"""tools/benchmark.py runs and prints all, and compares readers of the same frames. No time is checked."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.benchmark import main
from vidformers.benchmarks import data
from vidformers.benchmarks.timing import interleaved
from vidformers.benchmarks.video_loaders import (
    decode_only,
    decord_clip,
    pytorchvideo_clip,
    pytorchvideo_views,
    slowfast_view,
)
from vidformers.benchmarks.videos import make_videos
from vidformers.data.datasets.clips import TestVideos
from vidformers.data.readers import open_video
from vidformers.data.records import Record
from vidformers.data.views import gather_views

SECONDS = 2.2
GOP = 12
CLIP = {"num_frames": 16, "sampling_rate": 4, "short_side": 224, "crop_size": 224}
MEAN, STD = 0.45, 0.225


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    return make_videos(folder, seconds=SECONDS, gops=[GOP])[GOP]


def test_every_row_is_printed_and_written(
    folder: Path,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data, "BARS_GOP", GOP)
    monkeypatch.setattr(data, "CLIPS_PER_ROUND", 1)
    monkeypatch.setattr(data, "BARS", {**data.BARS, ("2x1 views", data.SLOWFAST): 1e9})
    made = video.stat().st_mtime_ns
    settings = f"--rounds 1 --seconds {SECONDS} --gops {GOP} --views 2x1 --videos {folder}"
    main(["data", *settings.split(), "--json", str(tmp_path / "out.json")])
    assert video.stat().st_mtime_ns == made, "the file that is there is taken"
    printed = capsys.readouterr().out
    views = (
        data.OURS, data.LIMIT, data.AS_FLOATS, data.EXACT, data.SLOWFAST, data.PYTORCHVIDEO, data.DECORD
    )  # fmt: skip
    clips = (data.OURS, data.LIMIT, data.DECORD_CLIP, data.PYTORCHVIDEO_CLIP)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["what"], row["name"]) for row in rows] == [
        *(("2x1 views", name) for name in views), *(("training clip", name) for name in clips)
    ]  # fmt: skip
    for row in rows:
        assert not row["note"] and row["cpu_ms"] > 0 and row["wall_ms"] > 0 and row["ratio"] > 0
        assert (
            f"| {row['name']} | {row['cpu_ms']:.1f} | {row['wall_ms']:.1f} | {row['ratio']:.2f} |" in printed
        )
    assert "| at least 1e+09x: MISSED |" in printed and "ours at most 1.4x:" in printed
    for word in ("date 20", "commit ", "machine ", "torch ", "decord ", f"### GOP {GOP}, 2x1 views"):
        assert word in printed


def test_a_library_that_is_not_there_is_a_row_with_the_reason(
    folder: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(data, "CLIPS_PER_ROUND", 1)
    monkeypatch.setattr(data, "decord_clip", broken)
    environment, rows = data.measure_data(seconds=SECONDS, gops=[GOP], views=[], rounds=1, folder=str(folder))
    (row,) = (row for row in rows if row.note)
    assert row.name == data.DECORD_CLIP and row.cpu_ms is None
    assert "no such library" in "\n".join(data.report_lines(environment, rows))


@pytest.mark.parametrize(("num_crops", "short_side"), [(1, 256), (3, 224)])
def test_views_are_those_of_the_others(video: Path, num_crops: int, short_side: int) -> None:
    """Float mode gives PySlowFast's clips to the order of two float operations, bytes within one level."""
    clip = {**CLIP, "short_side": short_side}
    theirs = torch.stack(
        [
            slowfast_view(video, view=v, num_views=2, crop=c, num_crops=num_crops, mean=MEAN, std=STD, **clip)
            for v in range(2)
            for c in range(num_crops)
        ]
    )
    for mode, tolerance in (("float", 2e-6), ("uint8", 1.01 / 255)):
        videos = TestVideos(
            [Record(str(video), 0, "a")],
            num_views=2,
            num_crops=num_crops,
            use_offset=True,
            resize_mode=mode,
            **clip,
        )
        item = videos[0]
        ours = gather_views(item, range(2 * num_crops), mean=(MEAN,) * 3, std=(STD,) * 3, device="cpu")
        assert ours.shape == theirs.shape
        # In units of the pixel values, 0..1.
        assert (ours - theirs).abs().max() * STD <= tolerance
        if short_side == 256:
            assert torch.equal(ours, theirs), "nothing is resized"


def test_pytorchvideo_gives_as_many_views_and_the_same_frames(video: Path) -> None:
    settings = {**CLIP, "num_views": 2, "num_crops": 3, "mean": MEAN, "std": STD}
    clips = pytorchvideo_views(video, video_seconds=Fraction(round(30 * SECONDS), 30), **settings)
    assert [clip.shape for clip in clips] == [(3, 3, 16, 224, 224)] * 2
    left = slowfast_view(video, view=0, num_views=2, crop=0, num_crops=3, mean=MEAN, std=STD, **CLIP)
    assert (clips[0][0] - left).abs().max() < 1e-4
    clip = pytorchvideo_clip(video, start=2, num_frames=16, sampling_rate=4)
    assert clip.shape == (3, 64, 256, 340)
    with open_video(video) as reader:
        ours = reader.get_frames(range(2, 66))
    assert torch.equal(clip.permute(1, 2, 3, 0).byte(), ours)


def test_decord_gives_the_same_frames_and_bare_decoding_finds_all(video: Path) -> None:
    indices = [3, 8, 30, 31, 65]
    with open_video(video) as reader:
        assert reader.num_frames == 66
        assert torch.equal(decord_clip(video, indices), reader.get_frames(indices))
    assert decode_only(video, indices) == len(indices)


def test_ratios_are_taken_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    slowness = iter([1, 1, 10, 10, 2, 2])

    def work(seconds: float) -> None:
        nonlocal clock
        clock += seconds * next(slowness)

    monkeypatch.setattr("time.process_time", lambda: clock)
    monkeypatch.setattr("time.perf_counter", lambda: 2 * clock)
    timings = interleaved({"a": lambda: work(1), "b": lambda: work(3)}, rounds=3)
    assert np.allclose([timings["a"].ratio, timings["b"].ratio], [1, 3])
    assert np.allclose([timings["a"].cpu_ms, timings["b"].cpu_ms, timings["b"].wall_ms], [2000, 6000, 12000])


def test_mistakes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "--views", "5x2"])
    assert "got '5x2'; wanted temporal x spatial views with 1 or 3 spatial ones" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "--seconds", "2"])
    assert "needs at least 2.13" in capsys.readouterr().err
