"""The keys of DATA and DATA_LOADER that say how videos are read, in a whole run; and where its time goes."""

import csv
import time
import warnings
from pathlib import Path

import pytest
import simplejson
from PIL import Image

from tests.data.video_files import picture
from tests.engine.test_run import ONE_EPOCH, make_cfg, run_training  # noqa: F401
from vidformers.data.datasets import clips
from vidformers.data.readers import open_video
from vidformers.engine import build
from vidformers.engine.data_time import DataTime
from vidformers.engine.test import test as run_test


def test_each_line_of_the_log_says_where_the_time_goes(make_cfg, monkeypatch):  # noqa: F811
    def slow_reader(*arguments, **settings):
        time.sleep(0.02)
        return open_video(*arguments, **settings)

    monkeypatch.setattr(clips, "open_video", slow_reader)
    cfg = make_cfg("times", *ONE_EPOCH, "LOG_PERIOD", "1")
    run_training(cfg)
    results = run_test(cfg)
    lines = [simplejson.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["train", "train", "val", "test"]
    for line, clips_a_video in zip(lines, (1, 1, 1, 6), strict=True):
        assert 0 < line["waiting_for_data"] < 1
        assert 0.02 / clips_a_video <= line["decode_seconds_per_clip"] < 1
        assert 0 < line["transform_seconds_per_clip"] < 1
    assert results["waiting_for_data"] == lines[-1]["waiting_for_data"]


def test_time_is_counted_between_the_batches_only():
    data_time = DataTime()

    def batches():
        for number in range(3):
            time.sleep(0.01)
            yield number

    for _ in data_time.watch(batches()):
        time.sleep(0.03)
        data_time.add((0.2, 0.1), num_clips=2)
    values = data_time.values()
    assert 0.03 <= data_time.waiting < 0.09 and 0.1 < values["waiting_for_data"] < 0.6
    assert values["decode_seconds_per_clip"] == pytest.approx(0.1)
    assert values["transform_seconds_per_clip"] == pytest.approx(0.05)
    assert DataTime().values()["decode_seconds_per_clip"] == 0


def test_the_index_cache_lies_beside_the_lists(make_cfg, tiny_dataset, tmp_path):  # noqa: F811
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test.csv").write_text((tiny_dataset / "test.csv").read_text())
    cfg = make_cfg(
        "cached",
        "TRAIN.ENABLE",
        "False",
        "DATA.PATH_TO_DATA_DIR",
        str(lists),
        "DATA.INDEX_CACHE",
        "frame_index",
    )
    first = run_test(cfg)
    assert len(list((lists / "frame_index").rglob("*.index"))) == 8
    assert run_test(cfg)["top1"] == first["top1"]
    loader = build.build_train_loader(
        make_cfg("absolute", "DATA.INDEX_CACHE", str(tmp_path / "x")), build.load_videos(cfg, "test")
    )
    assert loader.dataset.index_cache == str(tmp_path / "x")
    assert (
        build.build_test_dataset(
            make_cfg("none"), build.load_videos(cfg, "test"), num_views=1, num_crops=1
        ).index_cache
        == ""
    )


def test_folders_of_frames_are_tested_like_videos(make_cfg, tmp_path):  # noqa: F811
    rows = []
    for video in range(3):
        folder = tmp_path / f"video {video}"
        folder.mkdir()
        for number in range(1, 13):
            if (video, number) != (1, 5):
                Image.fromarray(picture(number, 48, 36)).save(folder / f"img_{number:05d}.jpg")
        rows.append(f"{folder},{video % 2}")
    (tmp_path / "test.csv").write_text("\n".join(rows))
    cfg = make_cfg(
        "frames", "TRAIN.ENABLE", "False", "DATA.PATH_TO_DATA_DIR", str(tmp_path),
        "DATA.PATH_LABEL_SEPARATOR", ",",
        "DATA.DECODING_BACKEND", "frames", "DATA.FRAMES_FPS", "12",
    )  # fmt: skip
    results = run_test(cfg)
    assert (results["num_videos"], results["num_failed"], results["num_damaged"]) == (3, 0, 1)
    with open(Path(cfg.OUTPUT_DIR) / "failed_videos.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["reason"] == "damaged" and "after 'img_00004.jpg'" in row["detail"]


def test_a_video_that_takes_too_long_is_counted(make_cfg, monkeypatch):  # noqa: F811
    monkeypatch.setattr("vidformers.data.time_limit._GRACE_SECONDS", 0.0)

    def stuck_reader(path, *arguments, **settings):
        if "video_3" in path:
            time.sleep(20)
            raise OSError("woke up in the middle of another test")
        return open_video(path, *arguments, **settings)

    monkeypatch.setattr(clips, "open_video", stuck_reader)
    results = run_test(make_cfg("stuck", "TRAIN.ENABLE", "False", "DATA.READ_TIMEOUT", "1"))
    assert results["num_failed"] == 1 and results["failed_by_reason"] == {"timeout": 1}


def test_fewer_workers_where_memory_does_not_hold_their_batches(make_cfg, monkeypatch):  # noqa: F811
    monkeypatch.setattr(build.os, "cpu_count", lambda: 8)
    # 10 views of 4 frames, 1000 x 2000 pixels: 240 MB a video.
    large = ("TEST.NUM_ENSEMBLE_VIEWS", "10", "DATA.TEST_CROP_SIZE", "1000", "DATA_LOADER.NUM_WORKERS", "4")
    for megabytes, workers, ahead in ((2048, 4, 2), (1000, 4, 1), (500, 2, 1), (1, 1, 1)):
        cfg = make_cfg("large", *large, "DATA_LOADER.PREFETCH_MB", str(megabytes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader = build.build_test_loader(cfg, build.load_videos(cfg, "test"), num_views=10, num_crops=3)
        assert (loader.num_workers, loader.prefetch_factor) == (workers, ahead)
