"""Every configs/motion_*.yaml trains and tests; a few tiny videos stand for the generated dataset."""

from pathlib import Path

import pytest

from vidformers.config import load_config
from vidformers.engine.build import load_videos
from vidformers.engine.pretrain import Pretrainer
from vidformers.engine.test import test as run_test
from vidformers.engine.train import Trainer

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("motion_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_trains_and_tests(path, tiny_dataset, tmp_path):
    settings = {
        "TRAIN.DATASET": "kinetics",
        "TEST.DATASET": "kinetics",
        "DATA.PATH_TO_DATA_DIR": str(tiny_dataset),
        "TRAIN.BATCH_SIZE": "4",
        "SOLVER.MAX_EPOCH": "1",
        "SOLVER.WARMUP_EPOCHS": "0.0",
        "DATA_LOADER.NUM_WORKERS": "0",
        "DEVICE": "cpu",
        "OUTPUT_DIR": str(tmp_path),
    }
    cfg = load_config(path, [word for pair in settings.items() for word in pair])
    assert load_config(path).TRAIN.DATASET == load_config(path).TEST.DATASET == "motion"
    if cfg.PRETRAIN.ENABLE:  # what it makes is no classifier to test
        results = Pretrainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val")).run()
        assert results["num_videos"] == 8 and results["loss"] > 0
        return
    Trainer(cfg, load_videos(cfg, "train"), load_videos(cfg, "val")).run()
    results = run_test(cfg)
    assert results["num_videos"] == 8 and results["num_views"] == cfg.TEST.NUM_ENSEMBLE_VIEWS
    assert results["checkpoint"].endswith("checkpoint_epoch_00001.pyth")
