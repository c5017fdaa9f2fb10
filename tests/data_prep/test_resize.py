"""resize.py: the same frames at the same times, upright, in the same colours; or no copy at all."""

import csv
import signal
import subprocess
import sys
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from data_prep.resize import Settings, destination, main, resize_video, target_size
from tests.data.video_files import READABLE, SHARED_VIDEOS, shared_video, write_video
from vidformers.data.readers import open_video

SETTINGS = Settings(short_side=32, gop=12, crf=10, preset="ultrafast", keep_audio=False)
FEW = ["--preset", "ultrafast", "--short-side", "32", "--workers", "1"]


def frame_times(path: Path) -> list[Fraction]:
    """Seconds, of every frame that an ordinary player decodes."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def copy_of(path: Path, tmp_path: Path, settings: Settings = SETTINGS) -> tuple[Path, dict[str, str]]:
    out = tmp_path / "out"
    row = resize_video(str(path), source=str(path.parent), out=str(out), settings=settings)
    assert row["status"] == "ok", row
    assert [p.name for p in out.iterdir()] == [Path(row["destination"]).name], "nothing else is left there"
    return Path(row["destination"]), row


def assert_same_pictures(original: Path, copy: Path, *, short_side: int, tolerance: float) -> None:
    with open_video(original) as before, open_video(copy) as after:
        assert after.num_frames == before.num_frames
        assert np.array_equal(after.display_orientation, np.eye(2))
        size = (after.height, after.width)
        assert size == target_size(before.height, before.width, short_side)
        places = sorted({0, before.num_frames // 2, before.num_frames - 1})
        wanted = before.get_frames(places)
        # Bilinear with antialiasing is what comes closest to the copy's bicubic.
        images = wanted.permute(0, 3, 1, 2).float()
        wanted = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        found = after.get_frames(places).permute(0, 3, 1, 2).float()
        assert float((wanted - found).abs().mean()) < tolerance
        # A wrong matrix or range would shift a whole channel.
        assert float((wanted - found).mean((0, 2, 3)).abs().max()) < 2.0


@pytest.mark.parametrize("name", list(READABLE))
def test_frames_and_times_are_kept(tmp_path, name):
    original = READABLE[name](tmp_path / name)
    copy, row = copy_of(original, tmp_path)
    assert copy.suffix == (original.suffix if original.suffix in (".mp4", ".mkv") else ".mp4")
    counted = "timestamps counted" in row["changes"]
    times = frame_times(copy)
    assert len(times) == int(row["frames"])
    if name in ("raw.h264", "mpeg4_b.avi"):
        assert counted and times == [Fraction(k, 25) for k in range(40)]
    elif not counted and name != "mid_gop.ts":
        assert times == frame_times(original)
    assert ("turned upright" in row["changes"]) == name.startswith(("rot", "mirrored", "camera"))
    if name != "mid_gop.ts":  # its first frames are damaged in the original
        # A palette of random colours is noise, of which 4:2:0 keeps the brightness.
        tolerance = 20.0 if name == "palette.avi" else 8.0
        assert_same_pictures(original, copy, short_side=32, tolerance=tolerance)
    with av.open(str(copy)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.dts is not None]
        assert all(any(keys[k : k + 12]) for k in range(0, len(keys), 12))


@pytest.mark.parametrize("name", sorted(p.name for p in SHARED_VIDEOS.glob("*.m*") if p.suffix != ".md"))
def test_real_videos(tmp_path, name):
    original = shared_video(name)
    settings = Settings(short_side=112, gop=12, crf=10, preset="ultrafast", keep_audio=False)
    copy, row = copy_of(original, tmp_path, settings)
    assert frame_times(copy) == frame_times(original) and len(frame_times(copy)) > 9
    assert_same_pictures(original, copy, short_side=112, tolerance=7.0)
    assert ("audio dropped" in row["changes"]) == (name in ("nasa_13013.mp4", "pancake.mkv"))


def test_variable_rate_and_rotation_are_tested_by_files_that_have_them(tmp_path):
    times = frame_times(READABLE["variable_rate.mp4"](tmp_path / "v.mp4"))
    assert len({b - a for a, b in pairwise(times)}) > 3
    with open_video(READABLE["rot90.mp4"](tmp_path / "r.mp4")) as video:
        assert (video.height, video.width) == (64, 48)


def test_audio_is_dropped_unless_asked_and_then_equal(tmp_path):
    original = write_video(tmp_path / "a.mp4", audio=True)
    copy, row = copy_of(original, tmp_path)
    with av.open(str(copy)) as container:
        assert not container.streams.audio and "audio dropped" in row["changes"]
    settings = Settings(short_side=32, gop=12, crf=10, preset="ultrafast", keep_audio=True)
    copy, row = copy_of(original, tmp_path, settings)
    assert "audio" not in row["changes"]
    with av.open(str(original)) as old, av.open(str(copy)) as new:
        sounds = [[(p.pts, bytes(p)) for p in c.demux(audio=0) if p.dts is not None] for c in (old, new)]
    assert sounds[0] == sounds[1] and len(sounds[0]) > 5
    assert frame_times(copy) == frame_times(original)


def test_sizes():
    assert target_size(720, 1280, 256) == (256, 456)
    assert target_size(1280, 720, 256) == (456, 256)
    assert target_size(256, 340, 256) == (256, 340)
    assert target_size(240, 320, 256) == (240, 320), "never enlarged"
    assert target_size(47, 63, 256) == (46, 62)
    assert target_size(1, 400, 256) == (2, 400)


def test_a_damaged_video_is_left_out_and_leaves_nothing(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    data = write_video(source / "sound.mp4").read_bytes()
    middle = data.index(b"mdat") + 900
    (source / "zeroed.mp4").write_bytes(data[:middle] + bytes(400) + data[middle + 400 :])
    (source / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert main([str(source), str(out), *FEW]) == 1
    assert sorted(p.name for p in out.iterdir()) == ["resize.csv", "sound.mp4"]
    with open(out / "resize.csv", newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "cut.mp4": "left out",
        "sound.mp4": "ok",
        "zeroed.mp4": "left out",
    }
    assert "1 are in" in capsys.readouterr().out


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c", "d"):
        write_video(source / f"{name}.mp4", num_frames=150, width=160, height=120)
    script = Path(__file__).parents[2] / "data_prep" / "resize.py"
    command = [sys.executable, str(script), str(source), str(out), *FEW[2:], "--preset", "veryslow"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    finished = time.monotonic() + 60
    while time.monotonic() < finished and not list(out.glob("*.mp4")):
        time.sleep(0.02)
    # The workers end of themselves: what they would write is written anew at once.
    process.send_signal(signal.SIGTERM)
    process.wait()
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert 1 <= len(first) < 4, "killed too early or too late to test anything"
    for path in first:
        assert len(frame_times(path)) == 150
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "4 videos: 4 are in" in done.stdout, done.stderr
    copies = sorted(str(path.relative_to(out)) for path in out.rglob("*.mp4"))
    assert copies == ["a.mp4", "b.mp4", "d.mp4", "deep/c.mp4"]
    assert not list(out.rglob(".*"))
    with open(out / "resize.csv", newline="") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == [
            "a.mp4",
            "b.mp4",
            "d.mp4",
            "c.mp4",
        ]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    # A copy that is gone is made again, the others are not.
    (out / "b.mp4").unlink()
    assert main([str(source), str(out), *FEW[2:], "--preset", "veryslow", "--dry-run"]) == 0
    assert main([str(source), str(out), *FEW[2:], "--preset", "veryslow"]) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert {path.name for path in after if after[path] != before[path]} == {"b.mp4"}


def folder_contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_originals_are_never_replaced_whatever_their_names(tmp_path):
    (tmp_path / "d" / "val" / "val").mkdir(parents=True)
    write_video(tmp_path / "d" / "val" / "x.mp4", num_frames=3)
    write_video(tmp_path / "d" / "val" / "val" / "x.mp4", num_frames=4)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard" / "x.mp4").hardlink_to(tmp_path / "d" / "val" / "x.mp4")
    (tmp_path / "hard" / "val").symlink_to("../nowhere")
    before = folder_contents(tmp_path)
    val = tmp_path / "d" / "val"
    for source, out, message in (
        (tmp_path / "link" / "val", val, "give a folder beside it"),
        (tmp_path / "link" / "val", val / "small", "give a folder beside it"),
        (val, tmp_path / "d", f"the copy of '{val}/val/x.mp4' would take the place of '{val}/x.mp4'"),
        (val, tmp_path / "link", f"take the place of '{tmp_path}/link/val/x.mp4', .* '{val}/x.mp4'"),
        (
            val,
            tmp_path / "hard",
            f"the copy of '{val}/x.mp4' would take the place of '{tmp_path}/hard/x.mp4'",
        ),
    ):
        for more in ([], ["--dry-run"]):
            with pytest.raises(ValueError, match=message):
                main([str(source), str(out), *FEW, *more])
        assert folder_contents(tmp_path) == before


def test_a_file_that_the_report_does_not_know_stays(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    for name in "abcde":
        write_video(source / f"{name}.mp4", num_frames=3)
    for name in "abcd":
        (out / f"{name}.mp4").write_bytes(b"precious")
    (out / "other.mp4").write_bytes(b"in nobody's way")
    before = folder_contents(out)
    message = (
        r"4 of the files that would be written are there, .*/a.mp4', .*c.mp4', \.\.\.; .* another folder"
    )
    for more in ([], ["--dry-run"]):
        with pytest.raises(ValueError, match=message):
            main([str(source), str(out), *FEW, *more])
    assert folder_contents(out) == before
    for name in "abcd":
        (out / f"{name}.mp4").unlink()
    assert main([str(source), str(out), *FEW]) == 0
    # Ours: made with other settings, cut short, moved with its folder; but not that of another source.
    assert main([str(source), str(out), *FEW, "--crf", "40"]) == 0
    (out / "a.mp4").write_bytes(b"")
    out = out.rename(tmp_path / "moved")
    copies = {name: (out / f"{name}.mp4").stat().st_mtime_ns for name in "abcde"}
    assert main([str(source), str(out), *FEW, "--crf", "40"]) == 0
    again = {name: (out / f"{name}.mp4").stat().st_mtime_ns for name in "abcde"}
    assert [name for name in "abcde" if again[name] != copies[name]] == ["a"]
    assert len(frame_times(out / "a.mp4")) == 3
    with pytest.raises(ValueError, match="5 of the files"):
        main([str(source.rename(tmp_path / "renamed")), str(out), *FEW])


def test_a_copy_whose_making_anew_has_failed_stays_ours(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    sound = write_video(source / "a.mp4", num_frames=30).read_bytes()
    assert main([str(source), str(out), *FEW]) == 0
    (source / "a.mp4").write_bytes(sound[: len(sound) // 2])
    assert main([str(source), str(out), *FEW]) == 1
    (source / "a.mp4").write_bytes(sound)
    assert main([str(source), str(out), *FEW]) == 0
    # As a run leaves it that was killed after a copy had its name, and before its row was written.
    report = out / "resize.csv"
    rows = [row.split(",") for row in report.read_text().splitlines()]
    rows[1][1], rows[1][5:] = "not done", [""] * len(rows[1][5:])
    report.write_text("".join(",".join(row) + "\n" for row in rows))
    assert main([str(source), str(out), *FEW]) == 0


def test_one_run_at_a_time_and_what_a_killed_one_left_is_removed(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    (out / "deep").mkdir(parents=True)
    write_video(source / "deep" / "a.mp4", num_frames=3)
    left = out / "deep" / ".copy-0123abcd.mp4.part"
    left.write_bytes(b"half")
    (out / "deep" / ".mine.mp4.part").write_bytes(b"precious")
    script = "import sys, pathlib; from vidformers.data.prepare.copies import sole_run\n"
    script += "with sole_run(pathlib.Path(sys.argv[1])): print('has it', flush=True), sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(ValueError, match="another process is writing copies"):
            main([str(source), str(out), *FEW])
        assert left.exists()
        other.kill()
    assert main([str(source), str(out), *FEW]) == 0
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    assert names == ["deep", "deep/.mine.mp4.part", "deep/a.mp4", "resize.csv"]


def test_wrong_usage_is_said_before_anything_is_written(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    write_video(source / "a.mp4", num_frames=3)
    for arguments, message in (
        ([str(source), str(source)], "give a folder beside it"),
        ([str(source), str(source / "small")], "give a folder beside it"),
        ([str(source), str(tmp_path / "out"), "--short-side", "255"], "even number of pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            main(arguments)
    write_video(source / "a.avi", codec="mpeg4", num_frames=3)
    with pytest.raises(ValueError, match="would both become"):
        main([str(source), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert destination("/d/x/a.webm", "/d", "/out") == "/out/x/a.mp4"
