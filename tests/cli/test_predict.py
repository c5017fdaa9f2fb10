"""tools/predict.py as a user types it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.predicting import save_run
from vidformers.cli.predict import find_videos, main, stems

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: run.pyth, and more/ with two videos (one deeper) and a text file."""
    save_run(tmp_path, class_names=["blue", "red"])
    (tmp_path / "more" / "deep").mkdir(parents=True)
    for seed, name in enumerate(("b.mp4", "deep/a.MP4", "notes.txt", ".hidden.mp4")):
        (tmp_path / "more" / name).write_bytes((tiny_dataset / f"video_{seed}.mp4").read_bytes())
    (tmp_path / "one.mp4").write_bytes((tiny_dataset / "video_4.mp4").read_bytes())
    (tmp_path / "broken.mp4").write_text("no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tool_prints_and_writes_and_goes_on_after_a_broken_video(folder: Path) -> None:
    tool = str(ROOT / "tools" / "predict.py")
    arguments = ["one.mp4", "broken.mp4", "none.mp4", "more", "--weights", "run.pyth", "--out", "new/a.json"]
    done = subprocess.run(
        [sys.executable, tool, *arguments], capture_output=True, text=True, cwd=folder, timeout=300
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for text in (
        "mvit_tiny, 2 classes",
        "3 temporal views x 2 spatial crops; 4 frames",
        "one.mp4",
        "more/b.mp4",
    ):
        assert text in done.stdout
    assert "2 of 5 videos could not be read" in done.stderr
    assert "broken.mp4: not a video: " in done.stderr and "none.mp4: missing file: " in done.stderr
    content = json.loads((folder / "new" / "a.json").read_text())
    assert [video["path"] for video in content["videos"]] == ["one.mp4", "more/b.mp4", "more/deep/a.MP4"]
    assert {answer["class"] for answer in content["videos"][0]["top"]} == {"blue", "red"}
    assert sum(answer["probability"] for answer in content["videos"][0]["top"]) == pytest.approx(1, abs=1e-5)
    assert content["protocol"]["num_temporal_views"] == 3 and content["model"] == "mvit_tiny"
    assert [row["reason"] for row in content["unreadable"]] == ["not a video", "missing file"]


def test_a_table_of_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["--weights", "run.pyth", "--top", "1", "--views", "1", "--crops", "1"]
    assert main(["more", "one.mp4", "one.mp4", *fixed, "--out", "a.csv"]) == 0
    rows = list(csv.DictReader((folder / "a.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["more/b.mp4", "more/deep/a.MP4", "one.mp4"]
    assert all(row["rank"] == "1" and row["class"] in ("blue", "red") for row in rows)
    assert "1 temporal views x 1 spatial crops" in capsys.readouterr().out
    assert main(["broken.mp4", *fixed, "--out", "a.csv"]) == 1
    (row,) = csv.DictReader((folder / "a.csv").read_text().splitlines())
    assert row["path"] == "broken.mp4" and row["unreadable"].startswith("not a video: ")


def test_a_timeline_of_several_videos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["--weights", "run.pyth", "--timeline", "--window", "0.5", "--hop", "0.25", "--out", "lines"]
    assert main(["one.mp4", "broken.mp4", "more/b.mp4", *fixed]) == 1
    names = [f"{stem}_timeline.{end}" for stem in ("b", "one") for end in ("csv", "json", "png")]
    assert sorted(path.name for path in (folder / "lines").iterdir()) == names
    captured = capsys.readouterr()
    assert "one.mp4   0:02.0, 7 windows of 0.50 s" in captured.out and "0:00.0 to" in captured.out
    assert "broken.mp4: not a video" in captured.err
    assert json.loads((folder / "lines" / "one_timeline.json").read_text())["hop_seconds"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one.mp4", "--weights", "none.pyth"], "none.pyth does not exist"),
        (["one.mp4", "--weights", "more"], "more is a folder, not a checkpoint file; give the path"),
        (["one.mp4", "--weights", "output"], "checkpoint file; give output/checkpoints/best.pyth"),
        (["one.mp4", "--weights", "sharded"], "tools/export_checkpoint.py sharded weights.pyth"),
        (
            ["one.mp4", "--weights", "run.pyth", "--labels", "three.txt"],
            "names 3 classes, but mvit_tiny has 2",
        ),
        (
            ["one.mp4", "--weights", "run.pyth", "--model", "vit_tiny"],
            "holds a mvit_tiny, but vit_tiny was asked",
        ),
        (["one.mp4", "--weights", "run.pyth", "--model", "mvit_tyni"], "did you mean mvit_tiny?"),
        (["empty", "--weights", "run.pyth"], "no video in the folder empty"),
        (["one.mp4", "--weights", "run.pyth", "--timeline", "--out", "one.mp4"], "one.mp4 is a file"),
    ],
)
def test_wrong_usage_is_one_line(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "three.txt").write_text("a\nb\nc\n")
    for name in ("output/checkpoints/best.pyth", "sharded/run.pyth", "sharded/.metadata"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "empty").mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "--weights", "x", "--hop", "1"], "add --timeline"),
        (["a.mp4", "--weights", "x", "--timeline", "--views", "2"], "leave out --views and --crops"),
        (["a.mp4", "--weights", "x", "--out", "a.txt"], "ends in .json or .csv"),
        (["a.mp4", "--weights", "x", "--timeline", "--out", "lines/a.csv"], "it is a folder"),
        (["a.mp4", "--weights", "x", "--top", "0"], "wanted 1 or more"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_names_of_files() -> None:
    assert stems(["a/x.mp4", "b/x.avi", "y.mp4"]) == ["x_timeline", "x_timeline_2", "y_timeline"]
    assert find_videos(["a.mp4", "b.mp4", "a.mp4"]) == ["a.mp4", "b.mp4"]


def test_without_weights_it_says_where_to_get_some(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one.mp4", "--model", "mvit_v2_s_16x4"]) == 2
    assert "mvit_v2_s_16x4 would have random weights; give the file" in capsys.readouterr().err
    assert main(["one.mp4"]) == 2
    said = capsys.readouterr().err
    assert "no model is given; give the file of its weights (--weights x.pyth)" in said
    assert "docs/predict.md says where they are" in said


def test_sets_of_labels_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(save_run(folder, "MODEL.LOSS_FUNC", "bce_logit"))
    assert main(["one.mp4", "--weights", run, "--out", "a.json"]) == 0
    assert "each class for itself: they do not sum to 100 %" in capsys.readouterr().out
    content = json.loads((folder / "a.json").read_text())
    assert content["multi_label"] is True
    assert sum(answer["probability"] for answer in content["videos"][0]["top"]) > 1.01
