"""One run on several processes (gloo): the same parameters, the same scores, each video once."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch

from tests.warm_processes import ROOT, RUN_NET, run_script
from vidformers.checkpoints import load_weights
from vidformers.engine.distributed import process_group
from vidformers.hub import from_pretrained
from vidformers.models import create_model

# No dropout and no mixing, whose random numbers are each process's own; batch normalisation would differ too.
CONFIG = """
_BASE_: {base}
DATA: {{PATH_TO_DATA_DIR: {data}}}
TRAIN: {{BATCH_SIZE: 4, EVAL_PERIOD: 5}}
TEST: {{NUM_ENSEMBLE_VIEWS: 2, BATCH_SIZE: 3}}
# Adam would blow up the rounding of parameters whose gradient is zero (biases of keys).
SOLVER: {{OPTIMIZING_METHOD: sgd, MAX_EPOCH: 5, BASE_LR: 1e-1, EMA_DECAY: 0.5, CLIP_GRAD_L2NORM: 1.0}}
OUTPUT_DIR: {output}
"""


def torchrun(script: Path, *arguments: str, processes: int) -> subprocess.CompletedProcess:
    """What `run_script` stands for."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [sys.executable, *launcher, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def write_config(folder: Path, data: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(
        CONFIG.format(base=Path(__file__).with_name("tiny.yaml"), data=data, output=folder / "out")
    )
    return path


def run(folder: Path, data: Path, processes: int, *overrides: str, start=run_script) -> Path:
    """Train 10 steps of 4 videos and test; returns OUTPUT_DIR."""
    config = write_config(folder, data)
    result = start(RUN_NET, "--cfg", str(config), *overrides, processes=processes)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("Test of") == 1
    return folder / "out"


def final_state(output: Path) -> dict:
    return torch.load(output / "checkpoints" / "checkpoint_epoch_00005.pyth", weights_only=True)


def losses(output: Path) -> list[float]:
    rows = map(simplejson.loads, (output / "log.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["event"] == "train"]


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_dataset) -> Path:
    """The tiny dataset with 7 test videos, one of which cannot be read: neither 2 nor 3 divide that."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text((tiny_dataset / f"{split}.csv").read_text())
    rows = (tiny_dataset / "test.csv").read_text().splitlines()[:6]
    (folder / "text.mp4").write_text("no video")
    (folder / "test.csv").write_text("\n".join([*rows[:3], f"{folder}/text.mp4 0", *rows[3:]]) + "\n")
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory, data) -> Path:
    return run(tmp_path_factory.mktemp("single") / "run", data, 1)


def same_scores(ours: Path, theirs: Path) -> None:
    one, other = (np.load(output / "predictions.npz") for output in (ours, theirs))
    assert (one["video_ids"] == other["video_ids"]).all() and (one["failed"] == other["failed"]).all()
    np.testing.assert_allclose(one["view_scores"], other["view_scores"], atol=2e-5)
    results = [simplejson.loads((output / "test_results.json").read_text()) for output in (ours, theirs)]
    for key in ("top1", "top5", "num_videos", "num_views", "num_failed", "failed_by_reason"):
        assert results[0][key] == results[1][key], key
    assert results[0]["num_videos"] == 7 and results[0]["num_failed"] == 1


@pytest.mark.parametrize(
    ("processes", "start", "overrides"),
    [
        (2, torchrun, ()),
        (2, run_script, ("TRAIN.SHARD", "True")),
        (1, run_script, ("TRAIN.MICRO_BATCHES", "3")),
    ],
    ids=["ddp", "fsdp2", "micro-batches"],
)
def test_the_same_global_batch_gives_the_same_parameters(single, data, tmp_path, processes, start, overrides):
    output = run(tmp_path / "run", data, processes, *overrides, start=start)
    expected = final_state(single)
    # A sharded run leaves the weights to use, averaged here, in one file.
    wanted = expected["ema"] if "TRAIN.SHARD" in overrides else expected["model"]
    assert len(losses(output)) == len(losses(single)) == 10
    np.testing.assert_allclose(losses(output), losses(single), atol=1e-5)
    for name, tensor in final_state(output)["model"].items():
        torch.testing.assert_close(tensor, wanted[name], atol=2e-5, rtol=1e-4, msg=name)
    same_scores(output, single)
    assert (output / "checkpoints" / "best.pyth").is_file()
    if "TRAIN.SHARD" in overrides:
        check_export(output, wanted, tmp_path)


def check_export(output: Path, wanted: dict, tmp_path: Path) -> None:
    """The folder's export is what the run itself wrote at the end, and loads."""
    folder = output / "checkpoints" / "checkpoint_epoch_00005.sharded"
    for name in ("weights.safetensors", "weights.pyth"):
        done = run_script(ROOT / "tools" / "export_checkpoint.py", str(folder), str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        model = create_model("mvit_tiny", num_classes=2, embed_dim=8, num_frames=4, image_size=32)
        load_weights(model, tmp_path / name)
        for key, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, wanted[key], atol=2e-5, rtol=1e-4, msg=key)
        whole = from_pretrained(tmp_path / name)
        assert whole.metadata.protocol is not None and whole.metadata.protocol == model.metadata.protocol
        assert torch.equal(whole.head.projection.weight, model.head.projection.weight)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "weights.safetensors", "weights.pyth"}


def test_a_sharded_run_resumes_from_its_folder(data, tmp_path):
    overrides = ("TRAIN.SHARD", "True", "TRAIN.CHECKPOINT_STEPS", "1")
    straight = run(tmp_path / "straight", data, 2, *overrides)
    cut = run(tmp_path / "cut", data, 2, *overrides)
    checkpoints = cut / "checkpoints"
    damaged = checkpoints / "checkpoint_epoch_00003.sharded"
    for path in [path for epoch in (3, 4, 5) for path in checkpoints.glob(f"checkpoint_epoch_0000{epoch}*")]:
        if path != damaged:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    part = damaged / "__1_0.distcp"  # of the second process
    part.write_bytes(part.read_bytes()[:-200] + bytes(200))
    (cut / "log.jsonl").unlink()
    again = tmp_path / "cut" / "again"
    again.mkdir()
    (tmp_path / "cut" / "run.yaml").rename(again / "run.yaml")
    result = run_script(RUN_NET, "--cfg", str(again / "run.yaml"), *overrides, processes=2)
    assert result.returncode == 0, result.stderr
    assert f"{damaged} cannot be read (ValueError: {part.name} is damaged" in result.stdout
    assert "checkpoint_epoch_00002_step_000001.sharded after 2 of 5 epochs and 1 steps" in result.stdout
    assert losses(cut) == losses(straight)[-len(losses(cut)) :] and len(losses(cut)) == 5
    for name, tensor in final_state(cut)["model"].items():
        assert torch.equal(tensor, final_state(straight)["model"][name]), name


def test_three_processes_test_each_video_once(single, data, tmp_path):
    weights = str(single / "checkpoints" / "checkpoint_epoch_00005.pyth")
    alone = run(tmp_path / "one", data, 1, "TRAIN.ENABLE", "False", "TEST.CHECKPOINT_FILE_PATH", weights)
    three = run(tmp_path / "three", data, 3, "TRAIN.ENABLE", "False", "TEST.CHECKPOINT_FILE_PATH", weights)
    same_scores(three, alone)
    # To the last bit: the same views go through the model together, whoever does it.
    one, other = (np.load(output / "predictions.npz") for output in (alone, three))
    np.testing.assert_array_equal(one["view_scores"], other["view_scores"])
    with open(three / "failed_videos.csv", newline="") as file:
        assert [(row["split"], Path(row["path"]).name) for row in csv.DictReader(file)] == [
            ("test", "text.mp4")
        ]


def test_a_batch_that_cannot_be_shared_is_refused(data, tmp_path):
    with pytest.raises(AssertionError, match=r"TRAIN\.BATCH_SIZE=3 .* cannot be shared equally by 2 of them"):
        run(tmp_path / "run", data, 2, "TRAIN.BATCH_SIZE", "3")


# Models whose blocks are lists of lists (PVT, Twins), and with statistics of batches that are not sharded.
SHARDING = """
import sys, torch
from tests.models.tiny import tiny, tiny_clip
from torch.optim.swa_utils import AveragedModel
from vidformers.engine.distributed import full_state, gathered, process_group, rank, same_buffers_, shard_
from vidformers.engine.trained_model import moving_average

with process_group("cpu"):
    for name in ("pvt_tiny", "twins_svt_tiny", "uniformer_tiny"):
        model = tiny(name)
        ema = AveragedModel(model, multi_avg_fn=moving_average(0.5), use_buffers=True)
        for one in (model, ema.module):
            shard_(one, torch.device("cpu"))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for step in range(2):
            optimizer.zero_grad()
            (model(tiny_clip(name) * (1 + rank())) ** 2).sum().backward()
            optimizer.step()
            before = {key: value.clone() for key, value in full_state(ema.module).items()}
            ema.update_parameters(model)
        now = full_state(model)
        for key, value in full_state(ema.module).items():
            wanted = (before[key] + now[key]) / 2 if value.is_floating_point() else value
            assert torch.allclose(value, wanted, atol=1e-6), (name, key)
        sums = lambda: gathered([buffer.sum().item() for buffer in model.buffers()])
        assert name != "uniformer_tiny" or sums()[0] != sums()[1]
        same_buffers_(model)
        assert sums()[0] == sums()[1]
    try:
        shard_(tiny("rev_mvit_tiny"), torch.device("cpu"))
    except ValueError as error:
        print(error)
"""


def test_models_of_all_kinds_are_sharded_or_refused(tmp_path):
    (tmp_path / "sharding.py").write_text(SHARDING)
    result = run_script(tmp_path / "sharding.py", processes=2)
    assert result.returncode == 0, result.stderr
    assert "TRAIN.SHARD cannot split RevMViT" in result.stdout


BAD_LOSS = """
import os, runpy, sys
from vidformers.engine.train import Trainer
step, sys.argv = Trainer.train_step, ["run_net.py", *sys.argv[1:]]
def train_step(self, *arguments):
    loss, *rest = step(self, *arguments)
    return (float("nan") if self.progress.step == 1 and os.environ["RANK"] == "1" else loss), *rest
Trainer.train_step = train_step
runpy.run_path({tool!r}, run_name="__main__")
"""


def test_a_bad_loss_in_one_process_stops_all_and_names_the_videos_of_the_step(data, tmp_path):
    config = write_config(tmp_path, data)
    (tmp_path / "bad.py").write_text(BAD_LOSS.format(tool=str(RUN_NET)))
    result = run_script(tmp_path / "bad.py", "--cfg", str(config), processes=2)
    assert result.returncode == 1 and "The training loss became nan at epoch 1, step 2" in result.stderr
    rows = map(simplejson.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
    (row,) = (row for row in rows if row["event"] == "bad_loss")
    assert row["loss"] == "nan" and len(row["videos"]) == 4


STOPPED = """
import os, runpy, signal, sys
from vidformers.engine import test
gather, sys.argv = test.gather_views, ["run_net.py", *sys.argv[1:]]
seen = 0
def gather_views(*arguments, **others):
    global seen
    seen += 1
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return gather(*arguments, **others)
test.gather_views = gather_views
try:
    runpy.run_path({tool!r}, run_name="__main__")
finally:
    print("views", seen)
"""


@pytest.mark.parametrize("shard", ["True", "False"])
def test_a_warning_to_one_process_in_a_validation_stops_all(data, tmp_path, shard):
    config = write_config(tmp_path, data)
    (tmp_path / "stopped.py").write_text(STOPPED.format(tool=str(RUN_NET)))
    overrides = ("TEST.BATCH_SIZE", "1", "TRAIN.EVAL_PERIOD", "1", "TRAIN.SHARD", shard)
    result = run_script(tmp_path / "stopped.py", "--cfg", str(config), *overrides, processes=2)
    assert result.returncode == 1 and "SIGTERM: stopped with a checkpoint" in result.stdout, result.stderr
    assert result.stdout.count("views 1\n") == 2  # of 4 each
    names = [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()]
    assert names == [f"checkpoint_epoch_00000_step_000002.{'sharded' if shard == 'True' else 'pyth'}"]


def test_processes_on_the_cpu_need_no_gpu_of_their_own(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    backends = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("vidformers.engine.distributed._init", backends.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with process_group("cpu"):
        assert backends == ["gloo"]
    with pytest.raises(ValueError, match=r"has 1 GPUs; use --nproc_per_node=1"), process_group("auto"):
        pass
