"""Writing shards: reproducible, resumable, and never over something else."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep import shards
from vidformers.data.datasets.webdataset import scan_shard
from vidformers.engine.build import load_videos

ROOT = Path(__file__).parents[2]
# Stops the process without warning half way through the shard with the number that is given.
KILLER = """
import os, signal, sys
from data_prep import shards
import webdataset
seen, write = 0, webdataset.TarWriter.write
def counted(self, sample):
    global seen
    result = write(self, sample)
    seen += 1
    if seen == int(os.environ["KILL_AT"]):
        self.stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return result
webdataset.TarWriter.write = counted
sys.exit(shards.main(sys.argv[1:]))
"""
SMALL = ("--shard-mb", "0.01")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kill_at", [1, 4])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tiny_dataset: Path, tmp_path: Path, kill_at: int, capsys
) -> None:
    straight, out = tmp_path / "straight", tmp_path / "out"
    arguments = [str(tiny_dataset), str(out), "--parts", "train", *SMALL]
    assert shards.main([arguments[0], str(straight), *arguments[2:]]) == 0
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, *arguments],
        env={**os.environ, "KILL_AT": str(kill_at), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "train").exists(), "half a split is not taken for a whole one"
    done = {path: path.stat().st_mtime_ns for path in (out / "train.part").glob("*.tar")}
    assert bool(done) == (kill_at > 1) and list((out / "train.part").glob(".*.part"))
    assert shards.main(arguments) == 0
    assert content(out) == content(straight) and len(content(out)) > 3
    for path, written in done.items():
        assert (out / "train" / path.name).stat().st_mtime_ns == written, "what is done is not done again"
    before = content(out)
    assert shards.main(arguments) == 0 and content(out) == before


def test_an_unfinished_split_is_said_to_be_one(
    tiny_dataset: Path, tmp_path: Path, make_cfg, monkeypatch
) -> None:
    monkeypatch.setattr(shards, "write_index_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shards.main([str(tiny_dataset), str(tmp_path / "out"), *SMALL])
    with pytest.raises(FileNotFoundError, match=r"train.part is there: the command that began it goes on"):
        load_videos(make_cfg("webdataset", tmp_path / "out"), "train")


def test_sizes_seeds_and_settings(tiny_dataset: Path, tmp_path: Path, make_cfg, capsys) -> None:
    orders = []
    for seed in ("0", "0", "1"):
        out = tmp_path / f"out {len(orders)}"
        assert shards.main([str(tiny_dataset), str(out), "--seed", seed, *SMALL]) == 0
        found = [scan_shard(str(path)) for path in sorted((out / "train").glob("*.tar"))]
        assert (out / "train" / "shard-000000.tar").is_file() and len(found) > 2
        # A tar file ends with blocks of nothing, filled up to 10240 bytes.
        assert all(shard.samples[-1].offset + shard.samples[-1].size < 10_000 for shard in found)
        orders.append([sample.position for shard in found for sample in shard.samples])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[2]) == list(range(8))
    index = json.loads((tmp_path / "out 0" / "train" / "index.json").read_text())
    assert index["num_samples"] == sum(shard["num_samples"] for shard in index["shards"]) == 8
    printed = capsys.readouterr().out
    assert "test is val again" in printed
    settings = shlex.split(re.findall("add to a run: (.*)", printed)[0])
    assert settings[-2:] == ["MODEL.NUM_CLASSES", "2"]
    cfg = make_cfg("kinetics", tmp_path, *settings)
    assert [record.label for record in load_videos(cfg, "test").records] == [0, 1] * 4

    assert shards.main([str(tiny_dataset), str(tmp_path / "one each"), "--shard-mb", "0.001"]) == 0
    assert len(list((tmp_path / "one each" / "train").glob("*.tar"))) == 8


def test_missing_videos_are_counted_named_and_left_out(
    tiny_dataset: Path, tmp_path: Path, make_cfg, capsys
) -> None:
    rows = [f"{tiny_dataset}/video_0.mp4 0", f"{tiny_dataset}/gone.mp4 1", f"{tiny_dataset}/video_1.mp4 1"]
    (tmp_path / "val.csv").write_text("\n".join(rows) + "\n")
    arguments = [str(tmp_path), str(tmp_path / "out"), "--parts", "val"]
    assert shards.main([*arguments, "--dry-run"]) == 1 and not (tmp_path / "out").exists()
    assert shards.main(arguments) == 1
    assert "val: 2 videos" in (said := capsys.readouterr().out) and "1 missing" in said
    named = (tmp_path / "out" / "missing.csv").read_text().splitlines()
    assert named == ["split,video,path", f"val,{tiny_dataset}/gone.mp4,{tiny_dataset}/gone.mp4"]
    records = load_videos(make_cfg("webdataset", tmp_path / "out"), "val").records
    assert [(Path(r.video_id).name, r.label) for r in records] == [("video_0.mp4", 0), ("video_1.mp4", 1)]
    (tmp_path / "val.csv").write_text(f"{rows[0]}\n{rows[2]}\n")
    (tmp_path / "all there").mkdir()
    (tmp_path / "all there" / "missing.csv").write_text("of an earlier run")
    assert shards.main([*arguments[:1], str(tmp_path / "all there"), *arguments[2:]]) == 0
    assert not (tmp_path / "all there" / "missing.csv").exists()
    (tmp_path / "val.csv").write_text(rows[1] + "\n")
    with pytest.raises(FileNotFoundError, match=r"none of the 1 videos .* with --videos"):
        shards.main([str(tmp_path), str(tmp_path / "other"), "--parts", "val"])


def test_sets_of_labels_and_odd_names(charades: Path, tmp_path: Path, make_cfg, capsys) -> None:
    out = tmp_path / "out"
    shards.main([str(charades), str(out), "--dataset", "charades"])
    settings = shlex.split(re.findall("add to a run: (.*)", capsys.readouterr().out)[0])
    official = load_videos(make_cfg("charades", charades, "MODEL.LOSS_FUNC", "bce_logit"), "train")
    packed = load_videos(make_cfg("webdataset", out, *settings), "train")
    assert any(record.actions for record in official.records)
    assert [(r.labels, r.actions, r.video_id) for r in packed.records] == [
        (r.labels, r.actions, r.video_id) for r in official.records
    ]
    assert packed.classes == official.classes


def test_names_that_a_tar_file_would_not_hold(
    put_videos: Callable[..., None], tmp_path: Path, make_cfg
) -> None:
    names = ["b.c/ä..mp4.MP4", "a/" + "x" * 150 + ".mkv", "a/../a/..x.mp4", "a/-.webm"]
    put_videos(tmp_path, *names)
    (tmp_path / "train.csv").write_text("".join(f"{name} {label}\n" for label, name in enumerate(names)))
    arguments = [str(tmp_path), str(tmp_path / "out"), "--videos", str(tmp_path), "--parts", "train"]
    assert shards.main(arguments) == 0
    records = load_videos(make_cfg("webdataset", tmp_path / "out"), "train").records
    assert [(r.video_id, r.label) for r in records] == [(name, label) for label, name in enumerate(names)]
    assert [r.path.rpartition("/")[2][10:] for r in records] == [
        "_mp4.mp4",
        "x" * 60 + ".mkv",
        "_x.mp4",
        "-.webm",
    ]


def test_other_shards_are_not_replaced(tiny_dataset: Path, tmp_path: Path) -> None:
    arguments = [str(tiny_dataset), str(tmp_path / "out"), "--parts", "val", *SMALL]
    assert shards.main(arguments) == 0
    before = content(tmp_path / "out")
    for changed in (["--seed", "5"], ["--shard-mb", "1"], ["--shard-mb", "0.001"]):
        with pytest.raises(ValueError, match=r"holds other videos than it would now.*give another folder"):
            shards.main([*arguments, *changed])
    (tmp_path / "lists").mkdir()
    rows = (tiny_dataset / "val.csv").read_text().replace("video_3.mp4 1", "video_3.mp4 0")
    (tmp_path / "lists" / "val.csv").write_text(rows)
    with pytest.raises(ValueError, match="holds other videos"):
        shards.main([str(tmp_path / "lists"), *arguments[1:]])
    assert content(tmp_path / "out") == before


def test_what_cannot_be_written_is_said(tiny_dataset: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="wanted ROOT OUT, or ROOT --index"):
        shards.main([str(tiny_dataset)])
    with pytest.raises(FileNotFoundError, match=r"there is no \*.tar"):
        shards.main([str(tiny_dataset), "--index"])
    (tmp_path / "train.csv").write_text("a.jpg 0\n")
    with pytest.raises(ValueError, match=r"'a.jpg' is no video file by its name"):
        shards.main([str(tmp_path), str(tmp_path / "out"), "--parts", "train"])
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r"pip install 'vidformers\[webdataset\]'"):
        shards.main([str(tiny_dataset), str(tmp_path / "out")])
