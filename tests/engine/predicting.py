"""A checkpoint of a run without the run, to predict with."""

from pathlib import Path

import torch

import vidformers
from vidformers.config import load_config
from vidformers.engine.model import build_model

CONFIG = """
MODEL: {NAME: mvit_tiny, NUM_CLASSES: 2, ARGS: {embed_dim: 8}}
DATA:
  NUM_FRAMES: 4
  SAMPLING_RATE: 2
  TARGET_FPS: 12.0
  TRAIN_CROP_SIZE: 32
  TEST_CROP_SIZE: 32
  TRAIN_JITTER_SCALES: [36, 40]
  MEAN: [0.4, 0.5, 0.6]
TEST: {BATCH_SIZE: 8, NUM_ENSEMBLE_VIEWS: 3, NUM_SPATIAL_CROPS: 2}
DEVICE: cpu
"""


def save_run(folder: Path, *overrides: str, class_names: list[str] | None = None) -> Path:
    """run.pyth in `folder`, as a run of CONFIG would write it, with random weights that differ by class."""
    (folder / "run.yaml").write_text(CONFIG)
    cfg = load_config(folder / "run.yaml", [*overrides])
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        model.head.projection.weight.mul_(50)  # type: ignore[operator, union-attr]
    path = folder / "run.pyth"
    state = {
        "model": model.state_dict(),
        "ema": None,
        "config": cfg.dump(),
        "class_names": class_names,
        "multi_label": cfg.MODEL.LOSS_FUNC == "bce_logit",
        "vidformers": vidformers.__version__,
    }
    torch.save(state, path)
    return path
