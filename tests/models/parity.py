"""What the tests of several families ask of a model and its reference cases."""

from typing import Any

import torch
from torch import nn

from tests.golden import COPIES, build, load_case
from tests.golden_json import load_json
from vidformers.checkpoints import to_our_names
from vidformers.checkpoints.families import FAMILIES
from vidformers.layers.conv import Conv3d

FP32, FP64 = 1e-5, 1e-9  # float32 alone would hide a wrong eps


def logits(model: nn.Module, clip: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(clip)


def still(image: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, num_frames, H, W), the image in each frame."""
    return image.unsqueeze(2).expand(-1, -1, num_frames, -1, -1)


def check_case(name: str, num_frames: int | None = None) -> None:
    """A case gives its logits; with `num_frames`, so does the video model that it inflates to."""
    case = load_case(name)
    clip = case["input"] if num_frames is None else still(case["input"], num_frames)
    check_logits(build(case, num_frames=num_frames), clip, case)


def check_logits(model: nn.Module, clip: torch.Tensor, case: dict[str, Any]) -> None:
    """A model gives the logits of a case; it is a float64 one afterwards."""
    torch.testing.assert_close(logits(model, clip), case["logits"], atol=FP32, rtol=0)
    exact = logits(model.double(), clip.double())
    torch.testing.assert_close(exact, case["logits_fp64"], atol=FP64, rtol=0)


def check_moving_clip(name: str) -> None:
    """Frames are seen together: the logits are not those of the frames one by one, averaged."""
    case = load_case(name)
    clip = torch.stack([case["input"].roll(7 * t, dims=-1) for t in range(8)], dim=2)
    image, video = build(case), build(case, num_frames=8)
    each = torch.stack([logits(image, frame) for frame in clip.unbind(2)]).mean(dim=0)
    assert (logits(video, clip) - each).abs().max() > 1e-2


def check_any_size(model: nn.Module, size: tuple[int, int, int]) -> None:
    """Of a model with tokens of 2 frames and 16 x 16 pixels: features, sizes rounded up, and gradients."""
    clip = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = model.eval().forward_features(clip)
    grid = [-(-n // step) for n, step in zip(size, (2, 16, 16), strict=True)]
    assert list(features.shape) == [1, *grid, model.head.projection.in_features]
    features.square().sum().backward()
    assert clip.grad is not None
    assert torch.isfinite(clip.grad).all()


def frames_seen(block: nn.Module, dim: int) -> list[list[int]]:
    """Of 4 frames of 4 x 4 tokens: which ones each frame's output of a block depends on."""
    x = torch.randn(1, 4, 4, 4, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen = []
    for frame in block.eval()(x).unbind(1):
        (gradient,) = torch.autograd.grad(frame.square().sum(), x, retain_graph=True)
        seen.append(gradient.abs().amax(dim=(0, 2, 3, 4)).nonzero().flatten().tolist())
    return seen


def average_taps(model: nn.Module) -> None:
    """Spreads each kernel evenly over time, as inflation must not do where zeros are padded."""
    for module in model.modules():
        if isinstance(module, Conv3d):
            mean = module.weight.detach().mean(dim=2, keepdim=True)
            module.weight.data = mean.expand_as(module.weight).contiguous()


def manifests(family: str) -> list[str]:
    """Names of the published sizes whose manifests a clone has; at least one."""
    found = sorted(p.name.removesuffix(".json.gz") for p in (COPIES / "manifests" / family).glob("*.json.gz"))
    assert found, f"no manifest in {COPIES / 'manifests' / family}"
    return found


def load_manifest(family: str, name: str) -> dict[str, Any]:
    return load_json(f"manifests/{family}/{name}.json")


def check_published(content: dict[str, Any], image: nn.Module, video: nn.Module) -> None:
    """Every name and shape of a published image checkpoint, without its values, fits both models."""
    state = {key: torch.empty(shape, device="meta") for key, shape in content["state_dict"].items()}
    assert sum(p.numel() for p in image.parameters()) == content["num_params"]
    for model in (image, video):
        family = type(model).__name__
        _, converted = to_our_names(state, family)
        adapted = FAMILIES[family].adapt(converted, model)
        fitted = {key: tuple(tensor.shape) for key, tensor in adapted.state.items()}
        assert fitted == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        assert not adapted.resized
        assert bool(adapted.inflated) == (model is video)
