"""Twenty steps of the whole recipe give the curve that is checked in (tests/golden/loss_curve.json).

The videos are folders of lossless pictures drawn here, so that no encoder or decoder has a say in them. After
a change that is meant to change training, `python -m tests.engine.test_golden_curve` writes the file anew.

Tolerance: the curve repeats bit by bit on one machine. On others float32 sums are taken in another order.
Measured on one machine with torch 2.13.0 on 21 November 2026, by the same command with a FILE: AVX2 kernels
(ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS) or 2 threads in place of AVX-512 and 1
change a loss by up to 8e-7 of it and a gradient's norm by 1.4e-5; a learning rate 1 % higher changes them by
8e-4 and 3e-2. torch's kernels without AVX2 (whose normal numbers differ already) move the losses by 8e-3: no
comparison there.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch
from PIL import Image

from vidformers.config import load_config
from vidformers.engine.build import load_videos
from vidformers.engine.train import Trainer

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curve.json"
TOLERANCES = {"loss": 2e-5, "gradient_norm": 4e-4, "lr": 1e-12, "validation_loss": 2e-5}  # relative
CONFIG = """
MODEL:
  NAME: mvit_tiny
  NUM_CLASSES: 2
  LOSS_FUNC: soft_cross_entropy
  ARGS: {embed_dim: 16, drop_path_rate: 0.1, head_dropout_rate: 0.1}
DATA:
  DECODING_BACKEND: frames
  NUM_FRAMES: 4
  SAMPLING_RATE: 2
  TRAIN_CROP_SIZE: 32
  TEST_CROP_SIZE: 32
  TRAIN_JITTER_SCALES: [36, 40]
  TRAIN_JITTER_SCALES_RELATIVE: [0.3, 1.0]
  TRAIN_JITTER_ASPECT_RELATIVE: [0.75, 1.3333]
TRAIN: {BATCH_SIZE: 4, EVAL_PERIOD: 5, CHECKPOINT_PERIOD: 5, MICRO_BATCHES: 2}
AUG: {ENABLE: true, NUM_SAMPLE: 2, COLOR_JITTER: 0.2}
MIXUP: {ENABLE: true}
SOLVER:
  MAX_EPOCH: 5
  BASE_LR: 2e-3
  WARMUP_EPOCHS: 1.0
  LAYER_DECAY: 0.9
  EMA_DECAY: 0.9
  CLIP_GRAD_L2NORM: 1.0
DATA_LOADER: {NUM_WORKERS: 0}
LOG_PERIOD: 1
DEVICE: cpu
"""


def draw_videos(folder: Path, count: int = 16) -> None:
    """Folders of 12 pictures: a square that moves right in class 0 and left in class 1, on noise."""
    rows = []
    for number in range(count):
        random = np.random.default_rng(number)
        label = number % 2
        (folder / str(number)).mkdir()
        background = random.integers(0, 120, (40, 48, 3), dtype=np.uint8)
        top, start = random.integers(0, 28, 2)
        for position in range(12):
            frame = background.copy()
            left = int(start + (2 - 4 * label) * position) % 36
            frame[top : top + 12, left : left + 12] = (250, 200, 40)
            Image.fromarray(frame).save(folder / str(number) / f"{position:03d}.png")
        rows.append(f"{folder}/{number} {label}")
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


def curve(folder: Path) -> dict[str, list[float]]:
    """The steps of the run, and what it has learnt in the end."""
    draw_videos(folder)
    (folder / "run.yaml").write_text(CONFIG)
    cfg = load_config(
        folder / "run.yaml", ["DATA.PATH_TO_DATA_DIR", str(folder), "OUTPUT_DIR", str(folder / "out")]
    )
    (folder / "out").mkdir()
    Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val")).run()
    lines = [simplejson.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "train"]
    last = [line for line in lines if line["event"] == "val"][-1]
    return {
        **{key: [step[key] for step in steps] for key in ("loss", "gradient_norm", "lr")},
        "validation_loss": [last["loss"], last["ema_loss"]],
    }


@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="torch's kernels for processors without AVX2 compute other numbers",
)
def test_the_curve_is_the_one_checked_in(tmp_path: Path) -> None:
    wanted = json.loads(GOLDEN.read_text())
    found = curve(tmp_path)
    assert len(found["loss"]) == 20
    assert wanted["curve"].keys() == TOLERANCES.keys()
    for key, values in wanted["curve"].items():
        assert found[key] == pytest.approx(values, rel=TOLERANCES[key]), key


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        values = curve(Path(place))
    made_with = {"torch": torch.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    path.write_text(json.dumps({"made_with": made_with, "curve": values}, indent=1) + "\n")
