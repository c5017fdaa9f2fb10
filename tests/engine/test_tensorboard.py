"""TensorBoard's files: each logged step and validation, once, also after an interruption."""

import sys
from pathlib import Path

import pytest
import simplejson

from tests.engine.test_run import ONE_EPOCH, make_cfg, run_training  # noqa: F401
from vidformers.engine.tensorboard import TensorBoardLog

EVENTS = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
SETTINGS = ("TENSORBOARD.ENABLE", "True", "LOG_PERIOD", "1", "TRAIN.EVAL_PERIOD", "1")


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EVENTS.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        name: {point.step: point.value for point in events.Scalars(name)} for name in events.Tags()["scalars"]
    }


def test_a_run_and_its_continuation_are_one_curve(make_cfg):  # noqa: F811
    cfg = make_cfg("run", *SETTINGS)
    run_training(cfg)
    (Path(cfg.OUTPUT_DIR) / "checkpoints" / "checkpoint_epoch_00003.pyth").unlink()
    run_training(cfg)  # the last epoch once more
    written = scalars(Path(cfg.OUTPUT_DIR) / "tensorboard")
    lines = [simplejson.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "log.jsonl").read_text().splitlines()]
    steps = {2 * (x["epoch"] - 1) + x["step"]: x["loss"] for x in lines if x["event"] == "train"}
    assert written["train/loss"] == pytest.approx(steps, rel=1e-5) and list(written["train/loss"]) == [
        *range(1, 7)
    ]
    top1 = {2 * x["epoch"]: x["top1"] for x in lines if x["event"] == "val"}
    assert written["val/top1"] == pytest.approx(top1, rel=1e-5)
    assert {"train/lr", "train/waiting_for_data", "train/gradient_norm", "val/loss"} <= written.keys()


def test_nothing_is_written_unless_asked_for(make_cfg):  # noqa: F811
    cfg = make_cfg("run", *ONE_EPOCH)
    run_training(cfg)
    assert not (Path(cfg.OUTPUT_DIR) / "tensorboard").exists()


def test_without_the_library_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ImportError, match=r"TENSORBOARD.ENABLE is True.*pip install 'vidformers\[tensorboard\]'"
    ):
        TensorBoardLog(tmp_path, first_step=0)
