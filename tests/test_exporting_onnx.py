"""ONNX files give the model's logits in onnxruntime, whatever the model and the number of clips."""

import json
import logging
from pathlib import Path

import pytest
import torch

import vidformers as vf
from tests.models.tiny import TWO_STAGES, tiny, tiny_clip
from vidformers.cli.export_model import main

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", vf.list_models("*_tiny"))
def test_onnx(name: str, tmp_path: Path) -> None:
    model, clip = tiny(name, **TWO_STAGES.get(name, {})).eval(), tiny_clip(name)
    path = tmp_path / "model.onnx"
    assert vf.export(model, path, format="onnx") < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map["vidformers"]
    assert json.loads(text)["model_name"] == name
    five = clip.repeat(3, 1, 1, 1, 1)[:5]
    (logits,) = session.run(None, {"clip": five.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(five), atol=1e-4, rtol=1e-3)


def test_the_command_does_not_tell_what_the_converter_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("torch.onnx", "onnxscript.optimizer"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
    assert main(["mvit_tiny", str(tmp_path / "model.onnx"), "--frames", "4", "--size", "32"]) == 0
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == []
