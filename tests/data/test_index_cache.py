"""The frame-index cache: what it saves, when it must not be believed, and many processes at once."""

import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.video_files import READABLE, reference_frames
from vidformers.data.readers import VideoReadError, open_video, pyav

NAMES = ["b_frames.mp4", "variable_rate.mp4", "edit_list.mp4", "rot90.mp4", "mpeg4_b.avi", "raw.h264"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for name in NAMES:
        READABLE[name](root / name)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "not" / "there yet")


def entries(cache: str) -> list[Path]:
    return sorted(Path(cache).rglob("*.index"))


def facts(path: Path, cache: str = "") -> dict[str, Any]:
    with open_video(path, index_cache=cache) as video:
        names = ("num_frames", "fps", "duration", "height", "width", "time_base", "damage", "stream_facts")
        seen = {name: getattr(video, name) for name in names}
        seen["pts"] = None if video.frame_pts is None else video.frame_pts.tolist()  # type: ignore[attr-defined]
        seen["frames"] = video.get_frames(range(video.num_frames - 1, -1, -3)).numpy().tobytes()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_a_second_opening_says_the_same_without_scanning_or_counting(
    folder: Path, name: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / name
    plain = facts(path)
    assert facts(path, cache) == plain and len(entries(cache)) == 1
    monkeypatch.setattr(pyav, "scan_packets", lambda *_: pytest.fail("scanned again"))
    monkeypatch.setattr(pyav.PyAVReader, "_probe_geometry", lambda _: pytest.fail("probed again"))
    written = entries(cache)[0].stat().st_mtime_ns
    with open_video(path, index_cache=cache) as video:
        assert video.num_frames == plain["num_frames"] and video.width == plain["width"]
        assert video._decoder._container is None and video.num_decoded_frames == 0, (
            "the file is not even opened"
        )
    assert facts(path, cache) == plain
    assert entries(cache)[0].stat().st_mtime_ns == written, "nothing new is nothing to write"


def test_without_a_cache_nothing_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    facts(folder / "b_frames.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_changed_video_is_scanned_again(folder: Path, tmp_path: Path, cache: str, change: str) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes((folder / "b_frames.mp4").read_bytes())
    os.utime(path, ns=(10**18, 10**18))
    with open_video(path, index_cache=cache) as video:
        assert video.num_frames == 40
    if change == "content":
        path.write_bytes((folder / "edit_list.mp4").read_bytes())
        os.utime(path, ns=(10**18, 10**18))
    else:
        # As if the size had stayed the same by chance.
        READABLE["seven_frames.mp4"](path)
        with open(path, "r+b") as file:
            file.truncate(max(path.stat().st_size, (folder / "b_frames.mp4").stat().st_size))
        os.utime(path, ns=(2 * 10**18, 2 * 10**18))
    with open_video(path, index_cache=cache) as video:
        assert video.num_frames == (33 if change == "content" else 7)
        expected = reference_frames(path)
        assert np.array_equal(video.get_frames(range(video.num_frames)).numpy(), expected)
    with open_video(path, index_cache=cache) as video:
        assert video.num_frames == len(expected), "the entry is the new file's"


def test_a_video_replaced_while_it_is_open_leaves_no_entry(folder: Path, tmp_path: Path, cache: str) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes((folder / "b_frames.mp4").read_bytes())
    with open_video(path, index_cache=cache):
        READABLE["seven_frames.mp4"](tmp_path / "new.mp4").replace(path)
    assert not entries(cache)
    with open_video(path, index_cache=cache) as video:
        assert video.num_frames == 7


@pytest.mark.parametrize("damage", ["empty", "half", "a bit", "text", "appended"])
def test_a_damaged_entry_is_said_and_made_anew(folder: Path, cache: str, damage: str) -> None:
    path = folder / "b_frames.mp4"
    plain = facts(path, cache)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 4
    content = {"empty": b"", "half": whole[: len(whole) // 2], "a bit": bytes(broken), "text": b"hello"}
    entry.write_bytes(content.get(damage, whole + b"x"))
    with pytest.warns(UserWarning, match=r"b_frames.mp4' is damaged .* made anew"):
        assert facts(path, cache) == plain
    assert entry.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert facts(path, cache) == plain


def test_an_entry_of_another_version_is_made_anew_without_a_word(folder: Path, cache: str) -> None:
    plain = facts(folder / "b_frames.mp4", cache)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(whole.replace(b"index 1\n", b"index 0\n", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert facts(folder / "b_frames.mp4", cache) == plain
    assert entry.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_a_warning(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be"):
        assert facts(folder / "b_frames.mp4", str(tmp_path / "file"))["num_frames"] == 40


def test_an_unreadable_video_leaves_no_entry(tmp_path: Path, cache: str) -> None:
    (tmp_path / "bad.mp4").write_text("no video " * 100)
    with pytest.raises(VideoReadError):
        open_video(tmp_path / "bad.mp4", index_cache=cache)
    assert entries(cache) == []


def test_a_lie_found_while_decoding_is_remembered(
    folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that turns out wrong is not tried again in the next epoch."""
    path = folder / "b_frames.mp4"

    def lie(*_: object) -> None:
        raise pyav.TimestampsLieError

    with monkeypatch.context() as patch, open_video(path, index_cache=cache) as video:
        patch.setattr(pyav.PyAVReader, "_decode_from", lie)
        expected = video.get_frames([3, 30])
    with open_video(path, index_cache=cache) as video:
        assert video.frame_pts is None and video.num_frames == 40  # type: ignore[attr-defined]
        assert np.array_equal(video.get_frames([3, 30]).numpy(), expected.numpy())


def _hammer(arguments: tuple[Path, str, int]) -> bool:
    folder, cache, number = arguments
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for round_number in range(20):
            name = NAMES[(number + round_number) % 3]
            if round_number % 4 == 0:  # as good as the first opening of another worker
                for entry in entries(cache):
                    entry.unlink(missing_ok=True)
            with open_video(folder / name, index_cache=cache) as video:
                video.get_frames([0])
    return True


def test_many_processes_share_one_folder(folder: Path, cache: str) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_hammer, [(folder, cache, number) for number in range(3)]) == [True] * 3
    assert not [path for path in Path(cache).rglob("*") if path.name.endswith(".part")]
