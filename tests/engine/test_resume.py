"""A killed run goes on as if nothing had happened: real processes, real signals."""

import signal
import subprocess
from pathlib import Path

import pytest
import simplejson
import torch

from tests.warm_processes import RUN_NET, run_script

CONFIG = """
_BASE_: {base}
MODEL: {{LOSS_FUNC: soft_cross_entropy, ARGS: {{drop_path_rate: 0.2}}}}
DATA: {{PATH_TO_DATA_DIR: {data}}}
TRAIN: {{BATCH_SIZE: 2, EVAL_PERIOD: 2, CHECKPOINT_STEPS: 1, KEEP_CHECKPOINTS: 3}}
TEST: {{ENABLE: false, BATCH_SIZE: 2}}
AUG: {{ENABLE: true}}
MIXUP: {{ENABLE: true}}
SOLVER: {{MAX_EPOCH: 3, BASE_LR: 1e-3, EMA_DECAY: 0.9, CLIP_GRAD_L2NORM: 1.0}}
DATA_LOADER: {{NUM_WORKERS: 1}}
OUTPUT_DIR: {output}
"""
# Signals the process where it is told: after a step, half way through a file, at a video of a validation.
KILLER = """
import atexit, os, runpy, torch
place, count = os.environ["KILL_AT"].split(":")
from vidformers.engine.train import Trainer
seen = 0
def die(): os.kill(os.getpid(), int(os.environ["KILL_SIGNAL"]))
if place == "step":
    step = Trainer.train_step
    def train_step(self, *arguments):
        global seen
        seen += 1
        result = step(self, *arguments)
        if seen == int(count): die()
        return result
    Trainer.train_step = train_step
if place == "write":
    save = torch.save
    def half(state, file):
        global seen
        seen += 1
        if seen == int(count):
            file.write(b"half a checkpoint"); file.flush(); die()
        save(state, file)
    torch.save = half
if place == "validate":
    from vidformers.engine import test
    gather = test.gather_views
    def gather_views(*arguments, **others):
        global seen
        seen += 1
        if seen == int(count): die()
        return gather(*arguments, **others)
    test.gather_views = gather_views
    atexit.register(lambda: print("validated views:", seen))
runpy.run_path({tool!r}, run_name="__main__")
"""


def start(
    config: Path, *, kill_at: str = "never:0", number: int = signal.SIGKILL
) -> subprocess.CompletedProcess:
    script = config.with_name("killer.py")
    script.write_text(KILLER.format(tool=str(RUN_NET)))
    environment = {"KILL_AT": kill_at, "KILL_SIGNAL": str(int(number))}
    return run_script(script, "--cfg", str(config), environment=environment)


def make_config(folder: Path, data: Path) -> Path:
    folder.mkdir()
    path = folder / "run.yaml"
    path.write_text(
        CONFIG.format(base=Path(__file__).with_name("tiny.yaml"), data=data, output=folder / "out")
    )
    return path


def curve(config: Path) -> dict[tuple[int, int], tuple]:
    """What was logged of each step, the last word where a step was done twice."""
    lines = (config.parent / "out" / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(simplejson.loads, lines) if row["event"] == "train"]
    return {(row["epoch"], row["step"]): (row["loss"], row["gradient_norm"], row["lr"]) for row in rows}


def validations(config: Path) -> list[tuple]:
    lines = (config.parent / "out" / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(simplejson.loads, lines) if row["event"] == "val"]
    return [tuple(row[key] for key in ("epoch", "train_loss", "loss", "top1", "ema_loss")) for row in rows]


def same_weights(one: Path, other: Path) -> None:
    ours, theirs = (
        torch.load(config.parent / "out" / "checkpoints" / "checkpoint_epoch_00003.pyth", weights_only=True)
        for config in (one, other)
    )
    for part in ("model", "ema"):
        for name, tensor in theirs[part].items():
            assert torch.equal(ours[part][name], tensor), (part, name)
    assert ours["best"] == theirs["best"] and ours["optimizer"].keys() == theirs["optimizer"].keys()


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_dataset) -> Path:
    config = make_config(tmp_path_factory.mktemp("straight") / "run", tiny_dataset)
    result = start(config)
    assert result.returncode == 0, result.stderr
    return config


@pytest.mark.parametrize("kill_at", ["step:2", "step:7", "write:6"])
def test_a_run_that_was_killed_repeats_the_straight_one_bit_by_bit(straight, kill_at, tmp_path, tiny_dataset):
    config = make_config(tmp_path / "run", tiny_dataset)
    killed = start(config, kill_at=kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = start(config)
    assert again.returncode == 0, again.stderr
    if kill_at != "step:2":
        assert "Resuming from" in again.stdout
    assert curve(config) == curve(straight)
    same_weights(config, straight)
    assert not list((config.parent / "out" / "checkpoints").glob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_warning_ends_the_run_with_a_checkpoint(straight, number, tmp_path, tiny_dataset):
    config = make_config(tmp_path / "run", tiny_dataset)
    config.write_text(config.read_text().replace("CHECKPOINT_STEPS: 1", "CHECKPOINT_STEPS: 0"))
    stopped = start(config, kill_at="step:6", number=number)
    assert stopped.returncode == 128 + number, stopped.stderr
    name = signal.Signals(number).name
    assert (
        f"{name}: stopped with a checkpoint; the same command goes on from epoch 2, after step 2 of it.\n"
        in stopped.stdout
    )
    checkpoints = sorted(path.name for path in (config.parent / "out" / "checkpoints").glob("checkpoint*"))
    assert checkpoints == ["checkpoint_epoch_00001.pyth", "checkpoint_epoch_00001_step_000002.pyth"]
    again = start(config)
    assert again.returncode == 0, again.stderr
    assert curve(config) == curve(straight)


@pytest.mark.parametrize(
    ("kill_at", "place"),
    [("step:1", "epoch 1"), ("step:5", "epoch 2"), ("step:7", "epoch 2, after step 2 of it")],
)
def test_ctrl_c_says_where_the_same_command_goes_on(kill_at, place, tmp_path, tiny_dataset):
    config = make_config(tmp_path / "run", tiny_dataset)
    stopped = start(config, kill_at=kill_at, number=signal.SIGINT)
    assert stopped.returncode == 130, stopped.stderr
    assert f"Ctrl-C: stopped; the same command goes on from {place}.\n" in stopped.stdout


def test_a_warning_at_the_end_of_an_epoch_does_not_wait_for_the_validation(straight, tmp_path, tiny_dataset):
    config = make_config(tmp_path / "run", tiny_dataset)
    config.write_text(config.read_text().replace("CHECKPOINT_STEPS: 1", "CHECKPOINT_STEPS: 0"))
    stopped = start(config, kill_at="step:8", number=signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    checkpoints = config.parent / "out" / "checkpoints"
    assert (checkpoints / "checkpoint_epoch_00001_step_000004.pyth").is_file()
    assert not (checkpoints / "best.pyth").exists()
    again = start(config)
    assert again.returncode == 0, again.stderr
    assert curve(config) == curve(straight)
    same_weights(config, straight)


# The validation after epoch 2 has 8 videos, 2 at a time; after the weights come their averages.
@pytest.mark.parametrize(("view", "done"), [(3, 4), (13, 14)])
def test_a_warning_in_a_validation_is_heeded_after_the_batch(straight, view, done, tmp_path, tiny_dataset):
    config = make_config(tmp_path / "run", tiny_dataset)
    config.write_text(config.read_text().replace("CHECKPOINT_STEPS: 1", "CHECKPOINT_STEPS: 0"))
    stopped = start(config, kill_at=f"validate:{view}", number=signal.SIGUSR1)
    assert stopped.returncode == 128 + signal.SIGUSR1, stopped.stderr
    assert f"validated views: {done}\n" in stopped.stdout
    checkpoints = config.parent / "out" / "checkpoints"
    assert (checkpoints / "checkpoint_epoch_00001_step_000004.pyth").is_file()
    assert not (checkpoints / "best.pyth").exists() and not validations(config)
    again = start(config)
    assert again.returncode == 0, again.stderr
    assert curve(config) == curve(straight) and validations(config) == validations(straight)
    same_weights(config, straight)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(straight, tmp_path, tiny_dataset):
    config = make_config(tmp_path / "run", tiny_dataset)
    assert start(config, kill_at="step:7").returncode == -signal.SIGKILL
    newest = max(
        (config.parent / "out" / "checkpoints").glob("checkpoint*"), key=lambda path: path.stat().st_mtime
    )
    newest.write_bytes(newest.read_bytes()[:1000])
    again = start(config)
    assert again.returncode == 0, again.stderr
    assert f"{newest} cannot be read" in again.stdout.replace("\n", "")
    assert curve(config) == curve(straight)


def test_only_the_last_checkpoints_and_the_best_are_kept(straight):
    names = {path.name for path in (straight.parent / "out" / "checkpoints").iterdir()}
    assert names == {
        "best.pyth", "checkpoint_epoch_00002_step_000003.pyth", "checkpoint_epoch_00003.pyth",
        "checkpoint_epoch_00002_step_000002.pyth",
    }  # fmt: skip
