"""UniFormer against the official video code's recorded outputs; image weights in time; any size.

There is no reference case of the image code, nor of `std` (embeddings that see three frames): image weights
are our own image model's here, under the official names.
"""

import re
from typing import Any

import pytest
import torch

import vidformers as vf
from tests.golden import build, find_cases, load_case
from tests.golden_families.uniformer import official_arguments
from tests.models.parity import FP64, check_case, load_manifest, logits, manifests, still
from vidformers.analysis.complexity import count_flops, count_parameters
from vidformers.models.uniformer import AttentionBlock

CASES = find_cases("uniformer/*.pt")
SIZES = {"uniformer_small_16x224": "uniformer_s", "uniformer_base_16x224": "uniformer_b"}
IMAGE = {
    "num_frames": 1,
    "patch_kernel": (1, 4, 4),
    "patch_stride": (1, 4, 4),
    "patch_padding": (0, 0, 0),
    "position_kernel": (1, 3, 3),
    "local_kernel": (1, 5, 5),
}
SPLIT = {"mixers": ("local", "local", "split", "split")}


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    check_case(name)


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_frames_is_seen(name: str) -> None:
    case = load_case(name)
    model = build(case)
    assert (logits(model, case["input"].flip(2)) - case["logits"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", manifests("uniformer"))
def test_published_sizes(name: str) -> None:
    published = load_manifest("uniformer", name)
    registered = SIZES[name]
    arguments = vf.model_arguments(registered)
    for key, value in official_arguments(published["kwargs"]).items():
        assert (
            list(arguments[key]) == list(value)
            if isinstance(value, list | tuple)
            else arguments[key] == value
        )
    with torch.device("meta"):
        model = vf.create_model(registered)
    assert count_parameters(model) == published["num_params"]
    flops = count_flops(model, published["input_shape"])["total"]
    assert flops / 1e9 == pytest.approx(published["gflops"], rel=1e-3)
    state = {key: torch.ones(()).expand(shape) for key, shape in published["state_dict"].items()}
    info = vf.load_weights(model.to_empty(device="cpu"), state)
    assert info.source == "official"
    assert len(info.matched) == len(state)
    assert not info.resized
    assert not info.inflated


def image_model() -> torch.nn.Module:
    """With random weights everywhere, biases and statistics included."""
    torch.manual_seed(0)
    model = vf.create_model("uniformer_tiny", **IMAGE).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            tensor.normal_(std=0.3)
        elif "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("weight") and tensor.ndim == 2:
            tensor.normal_(std=tensor.shape[1] ** -0.5)
    return model


def official_names(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of an image model as the official image code names and shapes them."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"stages\.(\d)\.merge", lambda found: f"patch_embed{int(found[1]) + 1}", name)
        name = re.sub(r"stages\.(\d)\.blocks", lambda found: f"blocks{int(found[1]) + 1}", name)
        name = name.replace("head.projection", "head")
        state[name] = tensor.squeeze(2) if tensor.ndim == 5 else tensor
    return state


@pytest.mark.parametrize("num_frames", [1, 4, 7, 8])
@pytest.mark.parametrize("changes", [{}, {"merge_kernel": (3, 2, 2)}, SPLIT], ids=["joint", "std", "split"])
def test_still_clip_gives_the_image_logits(num_frames: int, changes: dict[str, Any]) -> None:
    image = image_model()
    video = vf.create_model("uniformer_tiny", num_frames=num_frames, **changes).double().eval()
    info = vf.load_weights(video, official_names(image))
    assert info.source == "official"
    assert "stages.0.merge.proj.weight" in info.inflated
    assert ("stages.2.blocks.0.t_attn.qkv.weight" in info.inflated) == (changes == SPLIT)
    picture = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = logits(image, picture)
    torch.testing.assert_close(logits(video, still(picture, num_frames)), expected, atol=FP64, rtol=0)


def test_moving_clip_is_more_than_its_frames() -> None:
    image = image_model()
    video = vf.create_model("uniformer_tiny").double().eval()
    vf.load_weights(video, official_names(image))
    frames = torch.randn(8, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    clip = frames.transpose(0, 1)[None]
    # The inflated embedding reads every other frame.
    each = logits(image, frames[::2]).mean(dim=0)
    assert (logits(video, clip) - each).abs().max() > 1e-2


def test_temporal_attention_is_learnt_from_the_first_step() -> None:
    torch.manual_seed(0)
    model = vf.create_model("uniformer_tiny", **SPLIT)
    attention = model.stages[2].blocks[0].t_attn
    clip = torch.randn(2, 3, 8, 64, 64)
    model(clip).square().sum().backward()
    values = attention.qkv.weight.grad[-64:]
    assert values.abs().max() > 0
    with torch.no_grad():
        assert attention.attend_volume(torch.randn(1, 4, 2, 2, 64), (4, 1, 1)).abs().max() == 0


@pytest.mark.parametrize(("split", "groups"), [(False, [(1, 64)]), (True, [(16, 4), (4, 16)])])
def test_who_attends_to_whom(split: bool, groups: list[tuple[int, int]]) -> None:
    """Groups and tokens of each: all of the clip; or each place over time, then each frame."""
    options = {"mlp_ratio": 2.0, "qkv_bias": True, "norm_eps": 1e-6, "dropout_rate": 0, "drop_path_rate": 0}
    block = AttentionBlock(8, num_heads=2, split=split, position_kernel=(1, 1, 1), **options)
    found = []
    for part in [block.t_attn, block.attn] if split else [block.attn]:
        part.register_forward_pre_hook(lambda _, given: found.append(tuple(given[0].shape[:2])))
    block(torch.randn(1, 8, 4, 4, 4))
    assert found == groups


@pytest.mark.parametrize("size", [(8, 64, 64), (5, 50, 70), (1, 32, 36), (3, 40, 100)])
@pytest.mark.parametrize("changes", [{}, SPLIT], ids=["joint", "split"])
def test_any_size(size: tuple[int, int, int], changes: dict[str, Any]) -> None:
    model = vf.create_model("uniformer_tiny", **changes).eval()
    clip = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.forward_features(clip)
    assert features.shape == (2, -(-size[0] // 2), size[1] // 32, size[2] // 32, 96)
    assert torch.isfinite(features).all()


def test_too_small_frames() -> None:
    with pytest.raises(ValueError, match="at least 32x32"):
        vf.create_model("uniformer_tiny")(torch.randn(1, 3, 8, 64, 31))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mixers": ("local", "joint")}, "need one entry a stage"),
        ({"depths": (1, 1, 0, 1)}, "at least one block a stage"),
        ({"mixers": ("local", "local", "joint", "global")}, r"mixers\[3\]='global' is not one of 'local'"),
        ({"head_dim": 40}, r"embed_dims\[2\]=64 is not divisible by head_dim=40; use 40 or 80"),
        ({"local_kernel": (4, 5, 5)}, "must be odd along each axis"),
        ({"merge_kernel": (2, 2, 2)}, r"must be \(t, 2, 2\), t odd"),
        ({"image_size": 28}, "too small; use at least 32 pixels a side"),
        ({"num_frames": 0}, "num_frames=0 must be a whole number"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate=1\.0 must be at least 0 and below 1"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vf.create_model("uniformer_tiny", **wrong)
