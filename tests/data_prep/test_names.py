"""Names of files are bytes: what is no text is printed with escapes, and reports and shards keep it."""

import functools
import io
import json
import os
import sys
from pathlib import Path

import pytest

from data_prep import folder, resize, shards, stats, verify
from tests.data.video_files import write_video
from vidformers.data.datasets.webdataset import load_webdataset, scan_shard
from vidformers.data.prepare.inputs import collect_videos, exit_with
from vidformers.data.prepare.report import Report

ODD = "caf\udce9"  # "café" in Latin-1, as it comes out of an old archive


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for name in (ODD, "plain"):
        try:
            (root / name).mkdir(parents=True)
        except OSError:
            pytest.skip("this file system takes text only")
        for number in range(3):
            write_video(root / name / f"{name} {number}.mp4", num_frames=3)
    return root


def ended(monkeypatch, main, *arguments: object) -> tuple[int, str]:
    """Exit code and what was printed to a terminal that takes UTF-8 and nothing else."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict"))
        with pytest.raises(SystemExit) as stopped:
            exit_with(functools.partial(main, [str(argument) for argument in arguments]))
        sys.stdout.flush()
        return stopped.value.code, sys.stdout.buffer.getvalue().decode()


def test_a_bad_video_is_named_and_the_summary_printed(videos, tmp_path, monkeypatch):
    bad = videos / ODD / f"{ODD} 0.mp4"
    bad.write_text("no video")
    report = tmp_path / "report.csv"
    code, printed = ended(monkeypatch, verify.main, videos, "--report", report, "--workers", 1)
    assert code == 1 and "6 files: 5 sound, 1 unreadable" in printed
    assert r"/caf\udce9/caf\udce9 0.mp4: unreadable" in printed
    assert os.fsencode(bad) in report.read_bytes()
    code, printed = ended(monkeypatch, verify.main, videos, "--report", report, "--dry-run")
    assert (code, printed.split(" are in")[0]) == (0, "6 files: 6")

    arguments = [videos, tmp_path / "small", "--short-side", 32, "--workers", 1]
    code, printed = ended(monkeypatch, resize.main, *arguments)
    assert code == 1 and r"/caf\udce9/caf\udce9 0.mp4: left out" in printed
    assert (tmp_path / "small" / ODD / f"{ODD} 1.mp4").is_file()
    code, printed = ended(monkeypatch, resize.main, *arguments, "--dry-run")
    assert code == 0 and "6 videos: 6 are done" in printed

    code, printed = ended(monkeypatch, stats.main, videos, "--out", tmp_path / "stats", "--workers", 1)
    assert code == 1 and r"2  caf\udce9" in printed
    assert r"2  caf\udce9" in (tmp_path / "stats" / "summary.txt").read_text()


def test_shards_keep_names_and_lists_refuse_them(videos, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    packed = tmp_path / "shards"
    assert ended(monkeypatch, shards.main, videos, packed, "--dataset", "folder")[0] == 0
    names = {record.video_id for record in load_webdataset(str(packed), "train", backend="pyav").records}
    assert len(names) == 4 and sum(name.startswith(f"{ODD}/{ODD} ") for name in names) == 2
    shard = next((packed / "train").glob("*.tar"))
    assert {sample.video_id for sample in scan_shard(str(shard)).samples} == names
    assert json.loads((packed / "train" / "index.json").read_text())["classes"]["names"] == [ODD, "plain"]

    with pytest.raises(ValueError, match=r"caf\\udce9.* cannot stand in a list, .*; rename the file"):
        folder.main([str(videos), str(tmp_path / "lists")])
    assert not list((tmp_path / "lists").iterdir())


def test_a_report_keeps_every_name(tmp_path):
    names = ["a\rb", "a\nb", 'q"x', ODD, "a,b", " s ", "é"]
    report = Report(tmp_path / "report.csv", ("more",))
    report.save()
    for name in names:
        report.append(dict.fromkeys(report.columns, "") | {"path": name, "more": "1"})
    for _ in range(2):
        report = Report(report.path, ("more",))
        assert list(report.rows) == names and {row["more"] for row in report.rows.values()} == {"1"}
        report.save()


def test_links_round_in_circles_are_passed_over_and_others_followed(tmp_path, capsys):
    for name in ("a", "b/c"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "x.mp4").touch()
    (tmp_path / "videos" / "b" / "up").symlink_to("..")
    (tmp_path / "videos" / "b" / "c" / "top").symlink_to(tmp_path / "videos")
    (tmp_path / "videos" / "b" / "here").symlink_to(".")
    (tmp_path / "videos" / "linked").symlink_to("b/c")
    found = collect_videos([str(tmp_path / "videos")], prefix="", separator=" ")
    wanted = ["videos/a/x.mp4", "videos/b/c/x.mp4", "videos/linked/x.mp4"]
    assert [os.path.relpath(path, tmp_path) for path in found] == wanted
    said = capsys.readouterr().err
    assert "passed over 4 links to a folder that they lie in" in said
