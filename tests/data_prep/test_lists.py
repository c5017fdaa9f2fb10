"""Official annotations in, lists out: the lists give a run what the datasets' own loaders give it."""

import importlib
import json
import shlex
from pathlib import Path

import pytest

from vidformers.data.records import read_classes
from vidformers.engine.build import load_videos

DATASETS = {
    "kinetics": "kinetics_cvdf",
    "ssv2": "ssv2",
    "ucf101": "ucf101",
    "hmdb51": "hmdb51",
    "diving48": "diving48",
    "moments": "moments",
}


def run(name: str, *arguments: object) -> int:
    return importlib.import_module(f"data_prep.{name}").main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_run_reads_from_the_lists_what_it_reads_from_the_annotations(
    request, tmp_path, make_cfg, capsys, name
):
    root, out = request.getfixturevalue(name), tmp_path / "my lists"
    code = run(name, root, out, "--keep-missing")
    printed = capsys.readouterr().out
    settings = shlex.split(printed.splitlines()[-1].removeprefix("add to a run: "))
    num_missing = 0
    for split in ("train", "val", "test"):
        wanted = load_videos(make_cfg(DATASETS[name], root), split)
        found = load_videos(make_cfg("kinetics", out, *settings), split)
        assert [(r.path, r.label) for r in found.records] == [(r.path, r.label) for r in wanted.records]
        assert found.class_names == wanted.class_names
        num_missing += sum(not Path(record.path).exists() for record in wanted.records)
    # The tiny ssv2 has a video in both parts.
    assert ("1 videos are in training and in testing, such as 78687" in printed) == (name == "ssv2")
    assert code == (1 if num_missing or name == "ssv2" else 0), printed
    assert ("DATA.RANDOM_FLIP" in settings) == (name == "ssv2")


def test_what_is_missing_is_counted_named_and_left_out(tmp_path, kinetics, make_cfg, capsys):
    out = tmp_path / "out"
    official = load_videos(make_cfg("kinetics_cvdf", kinetics), "train").records
    gone = [record for record in official if not Path(record.path).exists()]
    assert 0 < len(gone) < len(official)
    capsys.readouterr()
    assert run("kinetics", kinetics, out, "--classes", 4) == 1
    printed = capsys.readouterr().out
    assert f"train: {len(official) - len(gone)} of {len(official)} videos" in printed
    assert f", {len(gone)} missing" in printed
    named = [f"train,{record.video_id},{record.path}" for record in gone]
    assert (out / "missing.csv").read_text().splitlines() == ["split,video,path", *named]
    assert "gone" not in (out / "train.csv").read_text()
    assert json.loads((out / "classes.json").read_text()) == read_classes(str(out)).names
    first = f"{kinetics}/train/---QUuC4vJs_000084_000094.mp4 1"
    assert (out / "train.csv").read_text().splitlines()[0] == first
    for record in gone:
        Path(record.path).write_bytes(b"now it is there")
    assert run("kinetics", kinetics, out) == 0
    assert not (out / "missing.csv").exists()
    assert len((out / "train.csv").read_text().splitlines()) == len(official)


def test_one_split_may_be_missing(tmp_path, kinetics, make_cfg):
    for video in (kinetics / "train").iterdir():
        video.unlink()
    assert run("kinetics", kinetics, tmp_path / "out") == 1
    assert (tmp_path / "out" / "train.csv").read_text() == ""
    assert len(load_videos(make_cfg("kinetics", tmp_path / "out"), "val").records) == 1
    assert run("kinetics", kinetics, tmp_path / "out") == 1, "an empty list is one of ours"


def test_paths_from_a_folder_on_and_another_separator(tmp_path, ucf101, make_cfg, capsys):
    out = tmp_path / "out"
    assert run("ucf101", ucf101, out, "--split", 2, "--relative-to", ucf101, "--separator", ",") == 0
    assert (out / "train.csv").read_text() == ("UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi,1\n")
    settings = capsys.readouterr().out.splitlines()[-1].removeprefix("add to a run: ")
    videos = load_videos(make_cfg("kinetics", out, *shlex.split(settings)), "train")
    assert Path(videos.records[0].path).is_file()


def test_a_dry_run_writes_nothing(tmp_path, diving48, capsys):
    run("diving48", diving48, tmp_path / "out", "--dry-run")
    assert "nothing is written" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_charades_has_all_labels_of_a_video(tmp_path, charades, make_cfg, capsys):
    out = tmp_path / "out"
    assert run("charades", charades, out) == 1, "one video has no label"
    printed = capsys.readouterr().out
    assert "1 without a label" in printed
    settings = printed.splitlines()[-1].removeprefix("add to a run: ").split()
    cfg = make_cfg("mmaction2", out, *settings, "MODEL.LOSS_FUNC", "bce_logit")
    videos = load_videos(cfg, "train")
    assert [(r.labels, Path(r.path).name) for r in videos.records] == [
        ((0, 2), "YSKX3.mp4"),
        ((1,), "7UPGT.mp4"),
    ]
    assert all(Path(record.path).is_file() for record in videos.records)


def test_official_files_are_never_replaced(tmp_path, kinetics):
    official = kinetics / "annotations" / "train.csv"
    before = official.read_bytes()
    with pytest.raises(ValueError, match="no list of ours; give another folder"):
        run("kinetics", kinetics, kinetics / "annotations")
    assert official.read_bytes() == before and not (kinetics / "annotations" / "classes.json").exists()


def test_errors_name_the_arguments_of_the_script(tmp_path, kinetics, ucf101):
    with pytest.raises(FileNotFoundError, match="ROOT must be the folder that holds"):
        run("ucf101", kinetics, tmp_path / "out")
    with pytest.raises(ValueError, match="have 4 classes, not 400"):
        run("kinetics", kinetics, tmp_path / "out", "--classes", 400)
    with pytest.raises(FileNotFoundError, match=r"none of the videos .* with --videos"):
        run("ucf101", ucf101, tmp_path / "out", "--videos", tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [" begins with a space.mp4", "new\nline.mp4"])
def test_a_path_that_a_list_cannot_hold_is_refused(tmp_path, put_videos, name):
    root = tmp_path / "videos"
    put_videos(root / "a", "0.mp4", "1.mp4", "2.mp4", "take 2, again.mp4 3.mp4")
    assert run("folder", root, tmp_path / "out", "--relative-to", root / "a") == 0
    put_videos(root / "a", name)
    with pytest.raises(ValueError, match="cannot stand in a list") as error:
        run("folder", root, tmp_path / "out", "--relative-to", root / "a")
    assert repr(name)[1:-1] in str(error.value)
    assert not list((tmp_path / "out").glob("*.part"))


def test_folder_splits_by_class_and_seed(tmp_path, put_videos, make_cfg, capsys):
    root = tmp_path / "mine"
    put_videos(root / "class10", *(f"{number:02d}.mp4" for number in range(20)))
    put_videos(root / "class2", *(f"{number}.mp4" for number in range(5)))
    arguments = ["--val", 0.2, "--test", 0.1]
    assert run("folder", root, tmp_path / "a", *arguments) == 0
    lists = {
        split: load_videos(make_cfg("kinetics", tmp_path / "a"), split) for split in ("train", "val", "test")
    }
    counts = {split: [r.label for r in videos.records] for split, videos in lists.items()}
    assert {split: (c.count(1), c.count(0)) for split, c in counts.items()} == {
        "train": (14, 3), "val": (4, 1), "test": (2, 1)
    }  # fmt: skip
    assert lists["train"].class_names == ["class2", "class10"]
    paths = [record.path for videos in lists.values() for record in videos.records]
    assert len(set(paths)) == len(paths) == 25
    run("folder", root, tmp_path / "again", *arguments)
    run("folder", root, tmp_path / "other", *arguments, "--seed", 1)
    texts = [(tmp_path / name / "val.csv").read_text() for name in ("a", "again", "other")]
    assert texts[0] == texts[1] != texts[2]

    put_videos(root / "class3", "only.mp4")
    capsys.readouterr()
    assert run("folder", root, tmp_path / "a", *arguments) == 1
    assert "val has no video of 1 classes: class3" in capsys.readouterr().out
    with pytest.raises(ValueError, match="leave something to train on"):
        run("folder", root, tmp_path / "a", "--val", 0.5, "--test", 0.5)


def test_digits_that_are_no_numbers_are_named_or_sorted_as_letters(tmp_path, moments, put_videos):
    (tmp_path / "lists").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "lists" / f"{name}.csv").write_text("a.mp4 ²\n")
        (tmp_path / "lists" / f"{name}.txt").write_text("a.mp4 ²\n")
    (moments / "moments_categories.txt").write_text("a,²\n")
    shards = [tmp_path / "lists", tmp_path / "out", "--dataset"]
    for name, arguments, message in (
        ("verify", [tmp_path / "lists" / "val.csv"], r"line 1 does not end in a whole number: 'a.mp4 ²'"),
        ("shards", [*shards, "kinetics"], r"whole number: 'a.mp4 ²'.*; --separator is a space"),
        ("shards", [*shards, "mmaction2"], r"line 1 is 'a.mp4 ²'; wanted `path/video.mp4 label`"),
        ("moments", [moments, tmp_path / "out"], "line 1 is 'a,²'; wanted `class,number`"),
    ):
        with pytest.raises(ValueError, match=message):
            run(name, *arguments)
    for name in ("2²", "10", "²"):
        put_videos(tmp_path / "mine" / name, "0.mp4", "1.mp4", "2.mp4")
    assert run("folder", tmp_path / "mine", tmp_path / "out") == 0
    assert read_classes(str(tmp_path / "out")).names == ["2²", "10", "²"]


@pytest.mark.parametrize("content", ["{", "[]", '{"root": "/x", "seed": 0}', b"\xff"])
def test_a_broken_split_is_named(tmp_path, put_videos, content):
    for name in ("a", "b"):
        put_videos(tmp_path / "mine" / name, "0.mp4", "1.mp4")
    split = tmp_path / "out" / "folder_split.json"
    split.parent.mkdir()
    split.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(
        ValueError, match=r"folder_split.json does not hold a split .* or give another folder OUT"
    ):
        run("shards", tmp_path / "mine", tmp_path / "out", "--dataset", "folder")


def test_folder_keeps_splits_that_are_there(tmp_path, put_videos, make_cfg, capsys):
    root = tmp_path / "mine"
    put_videos(root / "train" / "a", "1.mp4", "2.mp4")
    put_videos(root / "train" / "b", "1.mp4")
    put_videos(root / "val" / "b", "3.mp4")
    assert run("folder", root, tmp_path / "lists") == 1, "val has no class a"
    videos = load_videos(make_cfg("kinetics", tmp_path / "lists"), "val")
    assert [(r.path, r.label) for r in videos.records] == [(str(root / "val" / "b" / "3.mp4"), 1)]
    assert "test is val again" in capsys.readouterr().out
