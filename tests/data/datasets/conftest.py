"""Tiny copies of the published layouts: one small H.264 file under every name that a layout asks for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fvcore.common.config import CfgNode

from tests.conftest import write_video
from vidformers.config import load_config

CONFIG = """
MODEL: {NAME: mvit_tiny, NUM_CLASSES: 8, ARGS: {embed_dim: 8}}
DATA:
  NUM_FRAMES: 4
  SAMPLING_RATE: 2
  TRAIN_CROP_SIZE: 32
  TEST_CROP_SIZE: 32
  TRAIN_JITTER_SCALES: [36, 40]
  MAX_BAD_VIDEO_FRACTION: 0.5
TRAIN: {BATCH_SIZE: 2}
TEST: {BATCH_SIZE: 8, NUM_ENSEMBLE_VIEWS: 2, NUM_SPATIAL_CROPS: 1}
SOLVER: {MAX_EPOCH: 1, BASE_LR: 1e-3}
DATA_LOADER: {NUM_WORKERS: 0}
DEVICE: cpu
"""


@pytest.fixture(scope="session")
def one_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("one_video") / "one.mp4"
    write_video(path, 0)
    return path


@pytest.fixture
def put_videos(one_video: Path) -> Callable[..., None]:
    """put_videos(folder, "a/b.mp4", ...) makes those files; containers are probed, so names may say avi."""

    def put(folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(one_video, folder / name)

    return put


@pytest.fixture
def make_cfg(tmp_path: Path) -> Callable[..., CfgNode]:
    """make_cfg("ucf101", folder, "KEY", "value", ...) for training and testing on that dataset."""
    path = tmp_path / "tiny_config.yaml"
    path.write_text(CONFIG)

    def make(dataset: str, folder: Path, *overrides: str) -> CfgNode:
        fixed = ["TRAIN.DATASET", dataset, "TEST.DATASET", dataset, "DATA.PATH_TO_DATA_DIR", str(folder)]
        output = tmp_path / "output"
        output.mkdir(exist_ok=True)
        return load_config(str(path), [*fixed, "OUTPUT_DIR", str(output), *overrides])

    return make
