"""Every family: fused attention, clips with channels last, half precision in training."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.tiny import REPRESENTATIVES, tiny, tiny_clip


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_fused_attention_gets_four_dimensions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's fused kernels take no others, and no bias of another type: the slow path would be taken."""
    model, clip = tiny(name).eval(), tiny_clip(name)
    # Sizes that leave a rest, so that there are masks.
    clip = F.interpolate(clip, size=(clip.shape[2], 40, 36))
    calls = 0
    original = F.scaled_dot_product_attention

    def checked(q: Any, k: Any, v: Any, attn_mask: Any = None, **rest: Any) -> Any:
        nonlocal calls
        calls += 1
        assert q.dim() == k.dim() == v.dim() == 4
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        assert q.shape[-1] == v.shape[-1]
        if attn_mask is not None:
            assert attn_mask.dim() == 4
            # Autocast makes all of them the same.
            assert torch.is_autocast_enabled("cpu") or attn_mask.dtype == q.dtype
        return original(q, k, v, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", checked)
    with torch.no_grad():
        model(clip)
        with torch.autocast("cpu", torch.bfloat16):
            model(clip)
    assert calls


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_clips_with_channels_last(name: str) -> None:
    model, clip = tiny(name).eval(), tiny_clip(name)
    last = clip.contiguous(memory_format=torch.channels_last_3d)
    assert last.stride() != clip.stride()
    with torch.no_grad():
        expected = model(clip)
        torch.testing.assert_close(model(last), expected, atol=1e-5, rtol=1e-4)
        if any(parameter.ndim == 4 for parameter in model.parameters()):
            return  # MSG-Transformer's: torch converts no model that has one
        converted = model.to(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(converted(last), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_gradients_in_bfloat16(name: str) -> None:
    """Finite, and those of float32 by and large: every parameter's points the same way."""
    model, clip = tiny(name).train(), tiny_clip(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(clip)
        F.cross_entropy(logits.float(), torch.tensor([1, 3])).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    exact, rounded = gradients
    assert exact.keys() == rounded.keys()
    assert all(torch.isfinite(gradient).all() for gradient in rounded.values())
    whole = [torch.cat([gradient.flatten() for gradient in found.values()]) for found in gradients]
    assert F.cosine_similarity(*whole, dim=0) > 0.85
