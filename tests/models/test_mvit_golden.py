"""MViT against the recorded outputs of PySlowFast, torchvision and PyTorchVideo."""

from typing import Any

import pytest
import torch

from tests.golden import build, find_cases, load_case

SUPPORTED = [name for name in find_cases("slowfast/*.pt", "mvit/*.pt") if "/rev_" not in name]
WITH_FP64 = find_cases("mvit/*.pt")
IMAGE = [name for name in find_cases("slowfast/*image*.pt") if "/rev_" not in name]
GRADIENT = ["slowfast/mvit_v1_conv_cls_sep", "slowfast/mvit_v2_odd_interp"]


def run(model: torch.nn.Module, clip: torch.Tensor) -> dict[str, Any]:
    """Logits, output of the final norm and grid after each block."""
    outputs: dict[str, Any] = {"shapes": []}
    handles = [model.norm.register_forward_hook(lambda _, __, out: outputs.update(features=out))]
    for block in model.blocks:
        handles.append(block.register_forward_hook(lambda _, __, out: outputs["shapes"].append(list(out[1]))))
    with torch.no_grad():
        outputs["logits"] = model(clip)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("name", SUPPORTED)
def test_logits_features_and_grids(name: str) -> None:
    case = load_case(name)
    model = build(case)
    outputs = run(model, case["input"])
    torch.testing.assert_close(outputs["logits"], case["logits"], atol=1e-5, rtol=0)
    if "features" in case:
        torch.testing.assert_close(outputs["features"], case["features"], atol=2e-5, rtol=0)
        assert outputs["shapes"] == case["block_shapes"]
        with torch.no_grad():
            features = model.forward_features(case["input"])
        assert list(features.shape[1:4]) == case["block_shapes"][-1]
        if case["features"].ndim == 3:  # normed tokens, perhaps with a class token in front
            tokens = case["features"][:, -features[0, ..., 0].numel() :]
            torch.testing.assert_close(features.flatten(1, 3), tokens, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", WITH_FP64)
def test_logits_in_float64(name: str) -> None:
    """float32 would hide a wrong LayerNorm eps."""
    case = load_case(name)
    outputs = run(build(case).double(), case["input"].double())
    torch.testing.assert_close(outputs["logits"], case["logits_fp64"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_norms(name: str) -> None:
    case = load_case(name)
    model = build(case).double()
    clip = case["input"].double().requires_grad_()
    (model(clip) * case["grad_out"].double()).sum().backward()
    assert clip.grad is not None
    assert clip.grad.norm().item() == pytest.approx(float(case["grad_input_norm"]), rel=1e-6)
    norms = {n: p.grad.norm().item() if p.grad is not None else 0.0 for n, p in model.named_parameters()}
    assert set(norms) == set(case["grad_norms"])
    wrong = [
        n for n, v in case["grad_norms"].items() if norms[n] != pytest.approx(float(v), rel=1e-6, abs=1e-9)
    ]
    assert not wrong


@pytest.mark.parametrize("num_frames", [1, 3, 4])
@pytest.mark.parametrize("name", IMAGE)
def test_still_clip_gives_the_image_logits(name: str, num_frames: int) -> None:
    case = load_case(name)
    clip = case["input"].unsqueeze(2).expand(-1, -1, num_frames, -1, -1)
    outputs = run(build(case, num_frames=num_frames), clip)
    torch.testing.assert_close(outputs["logits"], case["logits"], atol=1e-5, rtol=0)


def test_moving_clip_does_not_give_the_image_logits() -> None:
    """Otherwise the test above could be passed by a model that looks at one frame only."""
    case = load_case(IMAGE[0])
    # Pairs of frames: inflated tubelets see only the first of the two.
    clip = torch.stack([case["input"], case["input"].flip(-1)], dim=2).repeat_interleave(2, dim=2)
    outputs = run(build(case, num_frames=4), clip)
    assert (outputs["logits"] - case["logits"]).abs().max() > 1e-2


def test_unsupported_cases_say_so() -> None:
    with pytest.raises(ValueError, match="'resnet' are not supported yet"):
        build({"source": "timm:resnet", "arch": "resnet"})
