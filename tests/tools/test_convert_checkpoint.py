"""tools/convert_checkpoint.py: weights of our runs and of others become files that say what they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vidformers as vf
from tests.warm_processes import ROOT, run_script
from vidformers.checkpoints.metadata import read_metadata
from vidformers.config import load_config
from vidformers.engine.convert import convert_weights
from vidformers.engine.model import build_model

pytest.importorskip("safetensors")
CONFIG = ROOT / "configs" / "motion_mvit_tiny.yaml"
TOOL = ROOT / "tools" / "convert_checkpoint.py"


def test_a_checkpoint_of_our_own_run(tmp_path: Path) -> None:
    cfg = load_config(CONFIG, ["MODEL.NUM_CLASSES", "3", "TEST.NUM_ENSEMBLE_VIEWS", "4"])
    last, averaged = build_model(cfg), build_model(cfg)
    checkpoint = {"model": last.state_dict(), "ema": averaged.state_dict(), "vidformers": "0.1.0"}
    checkpoint |= {"config": cfg.dump(), "class_names": ["up", "down", "still"]}
    torch.save(checkpoint, tmp_path / "best.pyth")
    command = [sys.executable, TOOL, tmp_path / "best.pyth", tmp_path / "mine.safetensors"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "mvit with 3 classes (named), from vidformers names" in result.stdout
    metadata = read_metadata(tmp_path / "mine.safetensors")
    assert metadata.labels == ("up", "down", "still")
    protocol = metadata.protocol
    assert (protocol.num_frames, protocol.sampling_rate, protocol.target_fps) == (8, 4, 30.0)
    assert (protocol.num_temporal_views, protocol.num_spatial_crops) == (4, 1)
    assert (protocol.crop_size, protocol.short_side, protocol.mean) == (64, 64, (0.45, 0.45, 0.45))
    model = vf.from_pretrained(tmp_path / "mine.safetensors").eval()
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), averaged.eval()(clip), atol=0, rtol=0)


def test_weights_of_another_project(tmp_path: Path) -> None:
    """A name tells the protocol; the arguments of the recipe alone, such as drop path, stay out."""
    model = vf.create_model("mvit_v2_s_16x4", num_classes=7)
    torch.save({"model_state": model.state_dict()}, tmp_path / "theirs.pyth")
    (tmp_path / "names.json").write_text(json.dumps({f"class {i}": i for i in range(7)}))
    metadata = convert_weights(
        tmp_path / "theirs.pyth",
        tmp_path / "ours.safetensors",
        model="mvit_v2_s_16x4",
        labels=tmp_path / "names.json",
    )
    assert metadata == read_metadata(tmp_path / "ours.safetensors")
    assert metadata.labels == tuple(f"class {i}" for i in range(7))
    assert metadata.protocol.num_temporal_views == 5
    assert metadata.model_arguments["num_classes"] == 7
    assert "drop_path_rate" not in metadata.model_arguments
    # A file that says what it is is converted again without being told.
    assert convert_weights(tmp_path / "ours.safetensors", tmp_path / "again.safetensors") == metadata
    with pytest.raises(ValueError, match=r"wanted a name that ends with \.safetensors"):
        convert_weights(tmp_path / "ours.safetensors", tmp_path / "again.pth")


def test_what_is_not_known_is_asked_for(tmp_path: Path) -> None:
    torch.save(vf.create_model("swin_tiny").state_dict(), tmp_path / "weights.pth")
    weights, out = str(tmp_path / "weights.pth"), str(tmp_path / "out.safetensors")
    result = run_script(TOOL, weights, out)
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert result.stderr.startswith("convert_checkpoint.py: ") and "--model" in result.stderr
    with pytest.raises(ValueError, match=r"no file of configs/ is of it; give the YAML file"):
        convert_weights(weights, out, model="swin_tiny")
