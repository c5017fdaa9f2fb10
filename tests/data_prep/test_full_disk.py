"""A disk that fills while a dataset is written: what is done is whole, and the same command goes on."""

import resource
from pathlib import Path

import pytest

from data_prep import folder, resize, shards
from vidformers.data.motion import ensure_motion_dataset
from vidformers.data.prepare.report import Report

pytest.importorskip("webdataset")


@pytest.fixture
def file_limit():
    """No file of this process may grow beyond so many bytes: the system's own error, not a made-up one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(num_bytes: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if num_bytes is None else (num_bytes, before[1]))

    yield limit
    limit(None)


def test_shards(tiny_dataset: Path, tmp_path: Path, file_limit) -> None:
    arguments = [str(tiny_dataset), str(tmp_path / "out"), "--parts", "train"]
    file_limit(4000)
    with pytest.raises(OSError, match=r"File too large"):
        shards.main(arguments)
    assert not (tmp_path / "out" / "train").exists()
    assert not list((tmp_path / "out").rglob("shard-*.tar")), "no shard has its name before it is whole"
    file_limit(None)
    assert shards.main(arguments) == 0
    assert (tmp_path / "out" / "train" / "index.json").is_file()


def test_lists(tmp_path: Path, file_limit, capsys) -> None:  # capsys: what is printed goes to no file
    for name in ("a", "b"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for number in range(9):
            (tmp_path / "videos" / name / f"{number}.mp4").touch()
    arguments = [str(tmp_path / "videos"), str(tmp_path / "out")]
    file_limit(40)
    with pytest.raises(OSError, match=r"File too large.*/train.csv'"):
        folder.main(arguments)
    assert not list((tmp_path / "out").iterdir())
    file_limit(None)
    assert folder.main(arguments) == 0


def test_resized_copies(tiny_dataset: Path, tmp_path: Path, file_limit) -> None:
    target = tmp_path / "copy"
    source = tiny_dataset / "video_0.mp4"
    settings = resize.Settings(short_side=32, gop=12, crf=23, preset="ultrafast", keep_audio=False)
    arguments = {"source": str(tiny_dataset), "out": str(target), "settings": settings}
    file_limit(500)
    with pytest.raises((OSError, ValueError)):
        resize.resize_video(str(source), **arguments)
    assert not (target / "video_0.mp4").exists()
    file_limit(None)
    assert resize.resize_video(str(source), **arguments)["status"] == "ok"
    assert [path.name for path in target.iterdir()] == ["video_0.mp4"]


def test_a_generated_dataset(tmp_path: Path, file_limit) -> None:
    sizes = {"train": 1, "val": 1, "test": 1}
    file_limit(2000)
    with pytest.raises(OSError, match=r"File too large"):
        ensure_motion_dataset(tmp_path, videos_per_class=sizes, progress=False)
    assert not list(tmp_path.glob("*/complete.json")), "half a dataset has no name yet"
    file_limit(None)
    folder = ensure_motion_dataset(tmp_path, videos_per_class=sizes, progress=False)
    assert len(list(folder.rglob("*.mp4"))) == 3 * len((folder / "train.csv").read_text().splitlines())


def test_the_report_of_what_was_done(tmp_path: Path, file_limit) -> None:
    report = Report(tmp_path / "report.csv", ["path", "reason"])
    report.save()
    for number in range(40):
        report.append({"path": f"{number}.mp4", "reason": ""})
    before = report.path.read_bytes()
    report.rows["new.mp4"] = {"path": "new.mp4", "reason": ""}
    file_limit(100)
    with pytest.raises(OSError, match=r"File too large.*report.csv"):
        report.save()
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"] and report.path.read_bytes() == before
