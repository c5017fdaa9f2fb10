"""torch.export programs give the model's logits, whatever the model and the number of clips."""

from pathlib import Path

import pytest
import torch

import vidformers as vf
from tests.models.tiny import TWO_STAGES, tiny, tiny_clip
from vidformers.checkpoints.metadata import from_header
from vidformers.exporting import own_clip_size


@pytest.mark.parametrize("name", vf.list_models("*_tiny"))
def test_torch_export(name: str, tmp_path: Path) -> None:
    model, clip = tiny(name, **TWO_STAGES.get(name, {})).eval(), tiny_clip(name)
    path = tmp_path / "model.pt2"
    assert vf.export(model, path, format="torch_export") < 1e-5
    if name != "vit_tiny":  # `export` has read the file of each and compared what it gives
        return
    extra = {"vidformers.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert from_header({"vidformers": extra["vidformers.json"]}, "model.pt2") == model.metadata
    with torch.no_grad():
        torch.testing.assert_close(program.module()(clip), model(clip), atol=1e-5, rtol=1e-4)


def test_a_fixed_batch_and_another_clip(tmp_path: Path) -> None:
    model = tiny("vit_tiny").train()
    vf.export(model, tmp_path / "one.pt2", format="torch_export", clip_size=(6, 48, 48), dynamic_batch=False)
    assert model.training
    program = torch.export.load(tmp_path / "one.pt2").module()
    assert program(torch.zeros(1, 3, 6, 48, 48)).shape == (1, 5)
    with pytest.raises(Exception, match=r"size\(\)\[0\] == 1"):
        program(torch.zeros(2, 3, 6, 48, 48))


def test_what_is_asked_for_must_be_clear(tmp_path: Path) -> None:
    model = tiny("mvit_tiny")
    with pytest.raises(ValueError, match="got format='torchscript'; wanted one of onnx, torch_export"):
        vf.export(model, tmp_path / "model.pt", format="torchscript")
    assert own_clip_size(model) == (4, 32, 32)
    del model.metadata
    with pytest.raises(ValueError, match=r"give clip_size=\(frames, height, width\)"):
        vf.export(model, tmp_path / "model.pt2", format="torch_export")


def test_a_program_with_other_logits_is_an_error(tmp_path: Path) -> None:
    model = tiny("vit_tiny").eval()

    class Drifts(torch.nn.Module):
        """Its program is not the model: whether it is exported decides what it adds."""

        in_channels = 3

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            return self.model(clip) * (1.5 if torch.compiler.is_exporting() else 1.0)

    with pytest.raises(ValueError, match="gives other logits than the model"):
        vf.export(Drifts(), tmp_path / "model.pt2", format="torch_export", clip_size=(4, 32, 32))
