"""stats.py: figures that are known, a picture, and files that do not open."""

import csv
import struct

import pytest

from data_prep.stats import main
from tests.data.video_files import write_video


def test_table_and_picture(tmp_path, capsys):
    videos, out = tmp_path / "videos", tmp_path / "out"
    for folder in ("run", "jump"):
        (videos / folder).mkdir(parents=True)
    write_video(videos / "run" / "a.mp4", num_frames=40, fps=25)
    write_video(videos / "run" / "b.mp4", num_frames=90, fps=30, width=80, height=64)
    write_video(videos / "jump" / "c.mkv", num_frames=20, fps=10, rotation=90)
    (videos / "jump" / "bad.mp4").write_text("no video")
    assert main([str(videos), "--out", str(out), "--dry-run"]) == 0
    assert not out.exists()
    assert main([str(videos), "--out", str(out), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "bad.mp4: unreadable, not a video" in printed and "1 of 4 videos did not open" in printed
    text = (out / "summary.txt").read_text()
    assert text in printed
    assert text.startswith("3 videos, 0.00 hours")
    lines = {line[:18].strip(): line[18:].split() for line in text.splitlines()}
    assert lines["seconds"] == ["1.60", "1.64", "2.00", "2.90", "3.00"]
    assert lines["frames a second"][0] == "10.00" and lines["shorter side"][-1] == "64.00"
    assert "2 videos are shorter than a 16x4 clip" in text
    assert "1  80x64" in text and "2  run" in text and "1  jump" in text and "1  30.00" in text
    header = (out / "stats.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", header[16:]) > (900, 600)
    with open(out / "stats.csv", newline="") as file:
        rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert (rows["a.mp4"]["frames"], rows["a.mp4"]["seconds"], rows["a.mp4"]["codec"]) == (
        "40",
        "1.600",
        "h264",
    )
    assert rows["bad.mp4"]["reason"] == "not a video"


def test_classes_of_a_list_have_their_names(tmp_path, capsys):
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", num_frames=4)
    (tmp_path / "val.csv").write_text("a.mp4 1\nb.mp4 0\nc.mp4 1\n")
    (tmp_path / "classes.json").write_text('["still", "moving"]')
    arguments = [str(tmp_path / "val.csv"), "--prefix", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "2  moving" in printed and "1  still" in printed
    with pytest.raises(ValueError, match="there is no video below"):
        main([str(tmp_path / "out")])
