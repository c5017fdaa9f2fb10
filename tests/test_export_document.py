"""The commands of docs/export_and_weights.md, run as they stand but for their size."""

import json
from pathlib import Path

import pytest
import torch

from tests.documents import ROOT, run_blocks
from vidformers.checkpoints.metadata import read_metadata
from vidformers.config import load_config
from vidformers.engine.model import build_model

SMALLER = {
    "mvit_v2_s_16x4": "mvit_tiny",
    "--frames 32 --size 256 --batch 8": "--frames 4 --size 32 --batch 2",
    "--model mvit_b_16x4": "--model configs/motion_mvit_tiny.yaml",
}


def test_costs_weights_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    cfg = load_config(ROOT / "configs" / "motion_mvit_tiny.yaml")
    model = build_model(cfg)
    torch.save({"model_state": model.state_dict()}, tmp_path / "K400_MVIT_B_16x4_CONV.pyth")
    (tmp_path / "kinetics400.json").write_text(json.dumps([f"class {label}" for label in range(10)]))
    run = tmp_path / "output" / "my_run" / "checkpoints"
    run.mkdir(parents=True)
    own = {"model": model.state_dict(), "ema": None, "vidformers": "0", "config": cfg.dump()}
    torch.save(own, run / "best.pyth")

    printed, names = run_blocks(ROOT / "docs" / "export_and_weights.md", tmp_path, monkeypatch, SMALLER)
    for text in ("multiply-adds", "measured on cpu", "estimated", "stage 2", "#activations", "64 pixels"):
        assert text in printed
    assert json.loads((tmp_path / "costs.json").read_text())["memory"]["batch"] == 2
    assert read_metadata(tmp_path / "mvit_b_16x4.safetensors").labels[9] == "class 9"
    assert names["model"].metadata.protocol.num_temporal_views == 3
    assert names["new"].num_classes == 7
    assert names["difference"] < 1e-4
    with torch.no_grad():
        logits = names["model"].eval()(names["clip"])
        torch.testing.assert_close(names["same"], logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.from_numpy(names["logits"]), logits, atol=1e-4, rtol=1e-3)
        assert (names["small"](names["clip"]) - logits).abs().max() < 0.1 * logits.abs().max()


def test_the_commands_of_the_readme_are_of_that_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "export_and_weights.md").read_text(encoding="utf-8")
    section = readme.partition("## Costs, weights, export\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("python ")]
    commands = [line.partition("  #")[0] for line in lines]
    assert len(commands) == 3
    for command in commands:
        assert command in page
