"""stats.py: figures that are known, a picture, and files that do not open."""

import csv
import struct

import pytest

from data_prep.stats import draw, duration, main
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
    assert text.startswith("3 videos, 6.6 seconds, 0.0 MB")
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


@pytest.mark.parametrize("num_classes", [3, 20])
def test_the_picture_names_its_classes_or_numbers_them(tmp_path, monkeypatch, num_classes):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    row = {"seconds": "2.5", "fps": "25", "width": "320", "height": "240"}
    rows = [{**row, "path": str(i)} for i in range(2 * num_classes - 1)]
    names = {row["path"]: f"class {int(row['path']) // 2}" for row in rows}
    draw(rows, names, tmp_path / "stats.png")
    (figure,) = drawn
    assert (
        figure.get_suptitle()
        == f"{len(rows)} videos, {'12.5 seconds' if num_classes == 3 else '1.6 minutes'}"
    )
    classes = figure.axes[3]
    if num_classes == 3:
        assert [text.get_text() for text in classes.get_yticklabels()] == ["class 0", "class 1", "class 2"]
        assert [bar.get_width() for bar in classes.patches] == [2, 2, 1]
        assert [bar.get_y() for bar in classes.patches] == sorted(
            (bar.get_y() for bar in classes.patches), reverse=True
        )
    else:
        assert classes.get_xlabel() == "the 20 classes, largest first"
        assert all(tick == round(tick) for tick in classes.get_xticks())


def test_short_durations_are_not_nothing():
    assert [duration(seconds) for seconds in (0.4, 89, 90, 5399, 5400, 7e6)] == [
        "0.4 seconds", "89.0 seconds", "1.5 minutes", "90.0 minutes", "1.5 hours", "1944.4 hours",
    ]  # fmt: skip


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
