"""Linears in 8-bit integers: of every family, near the model's own logits."""

import pytest
import torch
from torch import nn

import vidformers as vf
from tests.models.tiny import tiny, tiny_clip


@pytest.mark.parametrize("name", vf.list_models("*_tiny"))
def test_logits_stay_near(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    before = {n: p.clone() for n, p in model.named_parameters()}
    quantized = vf.quantize_int8(model)
    assert not any(type(module) is nn.Linear for module in (quantized.head.projection, *quantized.children()))
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    with torch.no_grad():
        expected, logits = model(clip), quantized(clip)
    assert 0 < (logits - expected).abs().max() < 0.2 * expected.abs().max()


def test_only_on_the_cpu() -> None:
    with torch.device("meta"):
        model = tiny("mvit_tiny")
    with pytest.raises(ValueError, match=r"got a model on meta; wanted the CPU"):
        vf.quantize_int8(model)
