"""verify.py finds every damaged copy and only those, and nothing that a file does can stop it."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.verify import check_video, main
from tests.data.video_files import READABLE, SHARED_VIDEOS, write_video
from vidformers.data.prepare.isolated import WorkerFailure, run_isolated
from vidformers.data.prepare.report import Report, process_files


def rows_of(report: Path) -> dict[str, dict[str, str]]:
    with open(report, newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def damaged_copies(source: Path, folder: Path) -> list[str]:
    """Copies of a video that are not what they were, each with a kind of damage; their names."""
    data, suffix = source.read_bytes(), source.suffix
    generator = random.Random(source.name)
    made = {}
    for percent in (30, 60, 90):
        made[f"truncated_{percent}"] = data[: len(data) * percent // 100]
    for length in (len(data) // 10, len(data) // 3):
        start = generator.randrange(len(data) // 4, len(data) - length)
        made[f"zeroed_{length}"] = data[:start] + bytes(length) + data[start + length :]
    flipped = bytearray(data)
    for _ in range(200):
        flipped[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    made["flipped_200"] = bytes(flipped)
    if suffix == ".mp4":
        start = data.rindex(b"moov") - 4
        length = int.from_bytes(data[start : start + 4], "big")
        made["without_moov"] = data[:start] + data[start + length :]
    names = []
    for kind, content in made.items():
        names.append(f"{source.stem}_{kind}{suffix}")
        (folder / names[-1]).write_bytes(content)
    return names


SOURCES = ("mm_test.avi", "pancake.mkv", "k400_Tw2yXa6CzWE.mp4", "h265_video.mp4", "dog.mp4", "av1_video.mkv")


def test_every_damaged_copy_is_found_and_the_sound_ones_are_not(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    sources = [SHARED_VIDEOS / name for name in SOURCES if (SHARED_VIDEOS / name).is_file()]
    made = [write_video(videos / "made.mp4", options={"bf": "2"}), write_video(videos / "made.mkv")]
    for source in sources:
        (videos / source.name).write_bytes(source.read_bytes())
    damaged = [name for source in sources + made for name in damaged_copies(source, videos)]
    (videos / "text.mp4").write_text("this is no video\n" * 10)
    (videos / "empty.mp4").touch()
    (videos / "directory.mp4").mkdir()
    (videos / "gone.mp4").symlink_to(videos / "nowhere.mp4")
    write_video(videos / "one_frame.mp4", num_frames=1)
    audio_only(videos / "sound.mp4")

    report = tmp_path / "report.csv"
    assert main([str(videos), "--report", str(report), "--workers", "2"]) == 1
    rows = rows_of(report)
    # The damaged ones among them, and nothing else, are missing here.
    sound = {name for name, row in rows.items() if row["status"] == "ok"}
    assert sound == {path.name for path in sources + made}
    assert all(rows[name]["detail"] for name in damaged)
    reasons = {
        "text.mp4": "not a video",
        "empty.mp4": "empty file",
        "directory.mp4": "directory",
        "gone.mp4": "missing file",
        "one_frame.mp4": "too short",
        "sound.mp4": "no video stream",
    }
    assert {name: rows[name]["reason"] for name in reasons} == reasons
    assert "is no known video format" in rows["text.mp4"]["detail"]
    out = capsys.readouterr().out
    assert f"{len(rows)} files: {len(sound)} sound, " in out


def audio_only(path: Path) -> None:
    import av

    both = write_video(path.with_name("both.mp4"), audio=True)
    with av.open(str(both)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    both.unlink()


# Cut at the front and at the end; readers make the best of them.
CUT = ("mid_gop.ts", "no_index.avi")


@pytest.mark.parametrize("name", [name for name in READABLE if name not in CUT])
def test_odd_but_sound_files_are_sound(tmp_path, name):
    row = check_video(str(READABLE[name](tmp_path / name)), min_frames=1, min_seconds=0.0)
    assert row["status"] == "ok", row


@pytest.mark.parametrize("name", CUT)
def test_files_that_are_cut_are_damaged(tmp_path, name):
    row = check_video(str(READABLE[name](tmp_path / name)), min_frames=1, min_seconds=0.0)
    assert row["status"] == "damaged" and row["frames"] in ("24", "40")


def test_minimum_length(tmp_path):
    path = str(write_video(tmp_path / "a.mp4", num_frames=40, fps=25))
    assert check_video(path, min_frames=40, min_seconds=1.6)["status"] == "ok"
    assert check_video(path, min_frames=41, min_seconds=0.0)["detail"] == "40 frames"
    assert check_video(path, min_frames=1, min_seconds=1.7)["detail"] == "1.600 s"


def test_a_second_run_reads_what_has_changed_only_and_half_a_row_is_no_harm(tmp_path, capsys, monkeypatch):
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", num_frames=5)
    report = tmp_path / "report.csv"
    arguments = [str(tmp_path), "--report", str(report), "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "3 files: 0 are in" in capsys.readouterr().out and not report.exists()
    assert main(arguments) == 0
    whole = report.read_text()
    lines = whole.splitlines(keepends=True)
    # As a killed run leaves it: the second row cut, the third not there.
    report.write_text("".join(lines[:2]) + lines[2][:30])
    main([*arguments, "--dry-run"])
    assert "3 files: 1 are in" in capsys.readouterr().out
    (tmp_path / "a.mp4").write_bytes(b"changed")
    assert main(arguments) == 1
    assert [row["status"] for row in rows_of(report).values()] == ["unreadable", "ok", "ok"]
    assert main([*arguments, "--min-frames", "6"]) == 1
    assert [row["status"] for row in rows_of(report).values()] == ["unreadable", "short", "short"]


def test_lists_are_read_with_their_prefix_and_wrong_usage_is_said(tmp_path):
    write_video(tmp_path / "a b.mp4", num_frames=5)
    (tmp_path / "list.csv").write_text("a b.mp4 0\nmissing.mp4 1\n")
    report = tmp_path / "report.csv"
    assert main([str(tmp_path / "list.csv"), "--prefix", str(tmp_path), "--report", str(report)]) == 1
    assert [row["reason"] for row in rows_of(report).values()] == ["", "missing file"]
    with pytest.raises(ValueError, match="not a report of this kind"):
        main([str(tmp_path), "--report", str(tmp_path / "list.csv")])
    with pytest.raises(FileNotFoundError, match="give a folder of videos"):
        main([str(tmp_path / "nowhere")])


def misbehave(item: str) -> str:
    if item == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "hang":
        time.sleep(600)
    if item == "raise":
        raise KeyError("x")
    return item.upper()


def test_a_killed_or_stuck_worker_is_named_and_the_rest_goes_on():
    items = ["a", "kill", "hang", "b", "raise", "kill", "c", "d"]
    results = list(run_isolated(misbehave, items, num_workers=2, time_limit=2.0))
    assert sorted(item for item, _ in results) == sorted(items)
    by_item = dict(results)
    assert [by_item[item] for item in "abcd"] == ["A", "B", "C", "D"]
    failures = {item: by_item[item] for item in ("kill", "hang", "raise")}
    assert all(isinstance(failure, WorkerFailure) for failure in failures.values())
    assert [failure.reason for failure in failures.values()] == ["crashed", "timeout", "error"]
    assert "SIGSEGV" in failures["kill"].detail and "KeyError" in failures["raise"].detail


PARENT = """
import sys, time
from tests.data_prep.test_verify import hold_on
from vidformers.data.prepare.isolated import run_isolated
if __name__ == "__main__":
    list(run_isolated(hold_on, sys.argv[1:], num_workers=2, time_limit=600.0))
"""


def hold_on(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def test_workers_end_with_their_parent_in_the_middle_of_a_file(tmp_path):
    places = [tmp_path / "a", tmp_path / "b"]
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), *map(str, places)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment) as parent:
        wait_until(lambda: all(place.exists() and place.read_text() for place in places))
        parent.kill()
    pids = [int(place.read_text()) for place in places]
    wait_until(lambda: not any(map(is_running, pids)), seconds=5)


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    finished = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < finished
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that the container's first process has not taken in yet is no longer at work.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_failed_worker_becomes_a_row_which_the_next_run_tries_again(tmp_path):
    report = Report(tmp_path / "report.csv", ())
    arguments = {"report": report, "settings": "", "num_workers": 1, "time_limit": 20.0}
    rows = process_files(["kill", "fine"], misbehaving_row, **arguments)
    assert [(row["status"], row["reason"]) for row in rows] == [("failed", "crashed"), ("ok", "")]
    again = Report(tmp_path / "report.csv", ())
    assert [again.is_done(path, "") for path in ("kill", "fine")] == [False, True]


def misbehaving_row(path: str) -> dict[str, str]:
    misbehave(path)
    return {"status": "ok"}
