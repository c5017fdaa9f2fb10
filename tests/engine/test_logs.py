import csv
import re

import simplejson

from tests.engine.test_run import make_cfg, run_training  # noqa: F401
from vidformers.engine.logs import FailedVideos, JsonlLog, write_json


def test_log_lines_are_json_even_with_nan(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl")
    log.write("train", loss=1.5)
    log.write("train", loss=float("nan"))
    lines = [simplejson.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [1.5, None] and lines[0]["event"] == "train"
    write_json(tmp_path / "x.json", {"a": float("inf")})
    assert simplejson.loads((tmp_path / "x.json").read_text()) == {"a": None}


def test_failed_videos_are_listed_once_and_kept_by_split(tmp_path):
    path = tmp_path / "failed_videos.csv"
    failed = FailedVideos(path)
    assert len(failed.add("train", [("a, b.mp4", "truncated", 'it says "no"')])) == 1
    assert failed.add("train", [("a, b.mp4", "truncated", "again")]) == []
    FailedVideos(path).add("test", [("c.mp4", "not a video", "text")])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["path"]) for row in rows] == [("train", "a, b.mp4"), ("test", "c.mp4")]
    again = FailedVideos(path)
    again.forget("test")
    assert again.count("test") == 0 and again.reasons("train") == {"truncated": 1}
    assert FailedVideos(path).count("test") == 0


def test_the_progress_bar_says_how_the_run_goes(make_cfg, capsys):  # noqa: F811
    run_training(make_cfg("run", "LOG_PERIOD", "1", "SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0.0"))
    bar = capsys.readouterr().err
    assert "epoch 1/1" in bar and "video/s" in bar
    for pattern in (r"loss=\d\.\d{3}", r"lr=0\.\d+", r"wait=\d+%", r"mem=\d+\.\dG", r"eta=\d\d:\d\d"):
        assert re.search(pattern, bar), pattern
