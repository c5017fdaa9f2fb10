"""tools/make_temporal_dataset.py: what it writes runs as it says, and wrong settings are one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from vidformers.config import load_config
from vidformers.engine.build import load_videos

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "make_temporal_dataset.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_printed_settings_read_what_was_written(tmp_path):
    folder = tmp_path / "range"
    few = ["--train", "2", "--val", "1", "--test", "1", "--seed", "3"]
    done = make("--family", "range", "--out", str(folder), "--distance", "2", "--num-frames", "8", *few)
    assert done.returncode == 0, done.stderr
    assert "range: 100%" in done.stderr  # the progress bar
    settings = done.stdout.splitlines()[-1].split()
    cfg = load_config(ROOT / "configs" / "motion_mvit_tiny.yaml", settings)
    for split, number in (("train", 4), ("val", 2), ("test", 2)):
        videos = load_videos(cfg, split)
        assert [record.label for record in videos.records] == [0, 1] * (number // 2)
        assert all(Path(record.path).is_file() for record in videos.records)
    assert (cfg.DATA.NUM_FRAMES, cfg.MODEL.NUM_CLASSES) == (8, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "clock", "--rho", "0.5"], "clock has no setting 'rho'"),
        (["--family", "clock", "--size", "33"], "size=33 is odd"),
        (["--family", "speed"], "try num_frames=15 or 17"),
        (["--family", "clock", "--train", "0"], "number >= 1 for each of train, val, test"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, arguments, message):
    done = make(*arguments, "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_help_has_an_example():
    text = make("--help").stdout
    assert "--family clock --out" in text
    assert "--hold" in text
