"""What all datasets have in common: choosing one by name, odd list files, missing videos, class orders."""

import re
from pathlib import Path

import pytest

from vidformers.data.datasets import DATASETS
from vidformers.data.datasets.annotations import locate_videos, read_table
from vidformers.data.records import Record, check_labels, class_order
from vidformers.engine.build import load_videos


def test_an_unknown_dataset_is_named_with_the_nearest_one(make_cfg, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"TRAIN.DATASET is 'kinetcs'.*did you mean kinetics.*folder, webdataset, motion"
    ):
        load_videos(make_cfg("kinetcs", tmp_path), "train")


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"motion"}))
def test_without_a_folder_the_error_says_what_it_must_hold(make_cfg, name: str) -> None:
    content = (DATASETS[name].__doc__ or "").splitlines()[0]
    assert content
    with pytest.raises(ValueError) as error:
        load_videos(make_cfg(name, Path(), "DATA.PATH_TO_DATA_DIR", ""), "test")
    assert f"the folder that holds {content}" in str(error.value)
    assert f"TEST.DATASET is {name!r}" in str(error.value)


def test_lists_with_a_mark_carriage_returns_quotes_and_spaces(make_cfg, put_videos, tmp_path: Path) -> None:
    put_videos(tmp_path / "my videos", "a b.mp4", "c, d.mp4", "e.mp4", 'say "hi".mp4', "line\u2028end.mp4")
    rows = ['"a b.mp4",1', '"c, d.mp4",2', "e.mp4,3", '"say ""hi"".mp4","4"', "line\u2028end.mp4,5"]
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode() + b"\r\n")
    prefix = ("DATA.PATH_PREFIX", str(tmp_path / "my videos"), "DATA.PATH_LABEL_SEPARATOR", ",")
    videos = load_videos(make_cfg("kinetics", tmp_path, *prefix), "train")
    assert [record.label for record in videos.records] == [1, 2, 3, 4, 5]
    assert all(Path(record.path).is_file() for record in videos.records)


def test_missing_videos_stay_on_the_list_and_are_counted(
    make_cfg, put_videos, tmp_path: Path, capsys
) -> None:
    put_videos(tmp_path, "here.mp4")
    (tmp_path / "test.csv").write_text("here.mp4 0\ngone.mp4 1\nsub/gone.mp4 1\n")
    videos = load_videos(make_cfg("kinetics", tmp_path, "DATA.PATH_PREFIX", str(tmp_path)), "test")
    assert len(videos.records) == 3
    assert f"2 of the 3 videos of {tmp_path}/test.csv are not there, such as {tmp_path}/gone.mp4" in (
        capsys.readouterr().out
    )
    with pytest.raises(FileNotFoundError, match=r"None of the 3 videos .*'here.mp4'\. Set DATA.PATH_PREFIX"):
        load_videos(make_cfg("kinetics", tmp_path), "test")
    (tmp_path / "test.csv").write_text("sub\\gone.mp4 1\n")
    with pytest.raises(FileNotFoundError, match="backslashes of Windows"):
        load_videos(make_cfg("kinetics", tmp_path), "test")


@pytest.mark.parametrize("name", ["folder", "imagenet", "motion", "webdataset"])
def test_a_prefix_that_would_not_be_used_is_refused(make_cfg, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"PATH_PREFIX is '/videos', but the videos of {name} are found"):
        load_videos(make_cfg(name, tmp_path, "DATA.PATH_PREFIX", "/videos"), "train")


def test_training_does_not_begin_without_too_many_of_its_videos(make_cfg, put_videos, tmp_path: Path) -> None:
    put_videos(tmp_path, "0.mp4", "1.mp4", "2.mp4")
    (tmp_path / "train.csv").write_text("".join(f"{i}.mp4 0\n" for i in range(4)))
    prefix = ("DATA.PATH_PREFIX", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"1 of the 4 .*MAX_BAD_VIDEO_FRACTION=0.2 allows.*/3\.mp4\."):
        load_videos(make_cfg("kinetics", tmp_path, *prefix, "DATA.MAX_BAD_VIDEO_FRACTION", "0.2"), "train")
    cfg = make_cfg("kinetics", tmp_path, *prefix, "DATA.MAX_BAD_VIDEO_FRACTION", "0.25")
    assert len(load_videos(cfg, "train").records) == 4


def test_an_official_annotation_file_is_no_list(make_cfg, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('label,youtube_id,time_start,time_end,split\n"a b",x,1,2,train\n')
    with pytest.raises(ValueError, match=r"line 1 is the header of Kinetics' official.*kinetics_cvdf"):
        load_videos(make_cfg("kinetics", tmp_path), "train")


def test_a_class_file_sets_the_order_of_a_folder(make_cfg, put_videos, tmp_path: Path) -> None:
    put_videos(tmp_path, "train/cat/a.mp4", "train/dog/b.mp4", "val/dog/c.mp4")
    assert [r.label for r in load_videos(make_cfg("folder", tmp_path), "train").records] == [0, 1]
    (tmp_path / "classes.txt").write_text("bird\ndog\ncat\n")
    videos = load_videos(make_cfg("folder", tmp_path), "train")
    assert videos.class_names == ["bird", "dog", "cat"]
    assert [(r.video_id, r.label) for r in videos.records] == [("cat/a.mp4", 2), ("dog/b.mp4", 1)]
    assert load_videos(make_cfg("folder", tmp_path), "val").records[0].label == 1
    (tmp_path / "classes.txt").write_text("bird\ndog\n")
    with pytest.raises(ValueError, match="lacks 1 of the dataset's 2 classes, such as 'cat'"):
        load_videos(make_cfg("folder", tmp_path), "train")


def test_the_readme_lists_every_dataset() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Datasets")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(DATASETS)


def test_class_order_without_a_file(tmp_path: Path) -> None:
    assert class_order(str(tmp_path), ["b", "a"]) == ["b", "a"]


def test_sets_of_labels_are_checked_too() -> None:
    records = [Record("a", -1, "a", labels=(0, 3)), Record("b", -1, "b", labels=())]
    check_labels(records, 4)
    with pytest.raises(ValueError, match=r"label 3 of 'a'.*NUM_CLASSES=3.*1 of 2 rows.*at least 4"):
        check_labels(records, 3)


def test_a_converted_or_extracted_video_is_found(put_videos, tmp_path: Path) -> None:
    put_videos(tmp_path, "c/as_is.avi", "c/as_is.mp4", "c/converted.mp4")
    (tmp_path / "c" / "noted.txt").touch()
    names = ["c/as_is.avi", "c/converted.avi", "c/noted.avi", "d/e.avi"]
    found = locate_videos(str(tmp_path), names, backend="pyav")
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        *("c/as_is.avi", "c/converted.mp4", "c/noted.avi", "d/e.avi")
    ]
    assert locate_videos(str(tmp_path), names[:1], backend="frames") == [f"{tmp_path}/c/as_is"]


def test_tables_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfid, name\r\n1,"a, ""b"""\r\n\r\n2,c\r\n')
    assert list(read_table(str(path), ["name"])) == [
        (2, {"id": "1", "name": 'a, "b"'}),
        (4, {"id": "2", "name": "c"}),
    ]
    path.write_text("id,name\n1,a,b\n")
    with pytest.raises(ValueError, match=r"t.csv', line 2 has 3 fields where the header has 2: '1,a,b'"):
        list(read_table(str(path), ["name"]))
    with pytest.raises(ValueError, match="begins with 'id,name'; wanted a header with the columns label"):
        list(read_table(str(path), ["label"]))
