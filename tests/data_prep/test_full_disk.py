"""A disk that fills while a dataset is written: what is done is whole, and the same command goes on."""

import resource
from pathlib import Path

import pytest

from data_prep import resize, shards

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
