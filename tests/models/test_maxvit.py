"""MaxViT against timm's recorded outputs, as image, still-clip and video model.

The case `maxvit_rw_optional` is left out: timm's own variant differs from the published model in activations,
expansion, padding, layout of q k v, position bias and head, and no weights of the paper have that form.
"""

from typing import Any

import pytest
import torch

from tests.golden import build, find_cases, load_case
from tests.golden_families.maxvit import timm_arguments
from tests.models.parity import (
    average_taps,
    check_any_size,
    check_case,
    check_moving_clip,
    check_published,
    frames_seen,
    load_manifest,
    logits,
    manifests,
    still,
)
from vidformers.analysis.complexity import count_flops
from vidformers.checkpoints import load_weights
from vidformers.checkpoints.maxvit import convert
from vidformers.models import MaxViT, create_model
from vidformers.models.maxvit import PartitionAttention, SqueezeExcite

CASES = find_cases("maxvit/maxvit_tf_*.pt")


@pytest.mark.parametrize("num_frames", [None, 1, 4, 5, 7, 8])
@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, num_frames: int | None) -> None:
    """None: the image model. 5 and 7 frames give 3 and 4 tokens: windows of 2, grids of 3 do not fit."""
    check_case(name, num_frames)


def test_moving_clip() -> None:
    check_moving_clip(CASES[0])


def test_squeeze_excitation_sees_all_frames() -> None:
    """One gate a channel and clip, of the mean over frames too; a still clip cannot tell."""
    torch.manual_seed(0)
    x = torch.rand(2, 4, 3, 5, 5) + 1
    gate = SqueezeExcite(4, 2)(x) / x
    torch.testing.assert_close(gate, gate[:, :, :1, :1, :1].expand_as(gate))
    assert gate.std() > 1e-3


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("window", [[0, 1], [0, 1], [2, 3], [2, 3]]), ("grid", [[0, 2], [1, 3], [0, 2], [1, 3]])],
)
def test_windows_and_grids_span_frames(kind: str, seen: list[list[int]]) -> None:
    torch.manual_seed(0)
    options = {"mlp_ratio": 2.0, "dropout_rate": 0.0, "drop_path_rate": 0.0, "norm_eps": 1e-5}
    block = PartitionAttention(dim=8, head_dim=4, kind=kind, size=(2, 2, 2), **options)
    assert frames_seen(block, 8) == seen


def rebuilt(case: dict[str, Any], num_frames: int, **changed: Any) -> MaxViT:
    model = MaxViT(**{**timm_arguments(case["kwargs"], num_frames), **changed}).eval()
    load_weights(model, case["state_dict"])
    return model


@pytest.mark.parametrize(
    "changed",
    [
        {"temporal_stride": 1},
        {"temporal_stride": 3, "temporal_kernel": 5},
        {"window": (5, 3, 3), "grid": (2, 3, 3)},
        {"window": (1, 3, 3), "grid": (1, 3, 3)},
    ],
)
def test_still_clip_in_other_temporal_sizes(changed: dict[str, Any]) -> None:
    case = load_case(CASES[0])
    spatial = tuple(case["kwargs"]["window_size"]), tuple(case["kwargs"]["grid_size"])
    for name, size in zip(("window", "grid"), spatial, strict=True):
        if name in changed:
            changed = {**changed, name: (changed[name][0], *size)}
    model = rebuilt(case, 7, **changed).double()
    found = logits(model, still(case["input"], 7).double())
    torch.testing.assert_close(found, case["logits_fp64"], atol=1e-9, rtol=0)


def test_a_mean_over_taps_would_fade_at_the_ends() -> None:
    """What inflation must not do to kernels that meet zeros beyond the first and the last frame."""
    case = load_case(CASES[0])
    model = rebuilt(case, 8)
    average_taps(model)
    assert (logits(model, still(case["input"], 8)) - case["logits"]).abs().max() > 1e-2


def test_eps_and_position_sign_are_seen() -> None:
    """The float64 comparison tells the published eps from PyTorch's, and query - key from key - query."""
    case = load_case(CASES[0])
    clip = case["input"].double()
    for wrong in ({"conv_norm_eps": 1e-5}, {"norm_eps": 1e-6}):
        arguments = {**timm_arguments(case["kwargs"], None), **wrong}
        model = MaxViT(**arguments).eval()
        load_weights(model, case["state_dict"])
        assert (logits(model.double(), clip) - case["logits_fp64"]).abs().max() > 1e-7
    model = build(case).double()
    for name, table in model.named_parameters():
        if name.endswith("position_bias.table"):
            table.data = table.data.flip(0)
    assert (logits(model, clip) - case["logits_fp64"]).abs().max() > 1e-5


@pytest.mark.parametrize("name", manifests("maxvit"))
def test_published_checkpoints_fit(name: str) -> None:
    content = load_manifest("maxvit", name)
    kwargs = content["kwargs"]
    registered = f"maxvit_{name.split('_')[1][0]}"
    with torch.device("meta"):
        image = MaxViT(**timm_arguments(kwargs, None))
        video = create_model(registered, num_classes=1000)
    check_published(content, image, video)
    # fvcore counts some means and gates besides.
    flops = count_flops(image, content["input_shape"])["total"]
    assert flops / 1e9 == pytest.approx(content["gflops"], rel=2e-3)


def test_extra_large() -> None:
    """Published with ImageNet-21k weights only, and without a manifest: the paper's 475 M."""
    form = {"num_frames": 1, "temporal_stride": 1, "temporal_kernel": 1, "num_classes": 1000}
    with torch.device("meta"):
        model = create_model("maxvit_xl", **form, window=(1, 7, 7), grid=(1, 7, 7))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 475


def test_other_image_sizes_resize_the_tables() -> None:
    """A checkpoint for 384 pixels has windows of 12."""
    case = load_case(CASES[0])
    model = MaxViT(**{**timm_arguments(case["kwargs"], 4), "window": (2, 5, 5), "grid": (2, 6, 6)})
    info = load_weights(model, case["state_dict"])
    assert all(name.endswith("position_bias.table") for name in info.resized)
    assert len(info.resized) == 2 * sum(case["kwargs"]["depths"])


def test_other_variants_say_so() -> None:
    state = {
        "stages.0.blocks.0.attn_grid.attn.qkv.weight": torch.zeros(3, 1),
        "head.fc.weight": torch.zeros(1),
    }
    with pytest.raises(ValueError, match=r"maxvit_\*_rw_\*.*use one of the published maxvit_\*_tf_\*"):
        convert(state)
    with pytest.raises(ValueError, match=r"cannot be loaded into MaxViT: .*own MaxViT variants"):
        load_weights(create_model("maxvit_tiny"), state)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 37, 50), (9, 64, 30)])
def test_any_size(size: tuple[int, int, int]) -> None:
    check_any_size(create_model("maxvit_tiny"), size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 1)}, "one entry a stage"),
        ({"temporal_kernel": 2}, "must be odd; use 1 or 3"),
        ({"head_dim": 24}, r"multiples of head_dim=24, not 16; use 24 or 24"),
        ({"window": (0, 4, 4)}, r"window must be at least 1 along each axis, got \(0, 4, 4\)"),
        ({"num_frames": 0}, "num_frames and image_size must be at least 1"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("maxvit_tiny", **arguments)


def test_layer_ids_weight_decay_and_drop_path() -> None:
    model = create_model("maxvit_tiny", depths=(2, 1, 1), drop_path_rate=0.3)
    assert model.layer_id("stem.conv2.bias") == 0
    assert model.layer_id("stages.0.blocks.1.conv.pre_norm.weight") == 2
    assert model.layer_id("stages.2.blocks.0.attn_grid.norm1.weight") == 4 == model.num_layers
    assert model.layer_id("head.norm.weight") == 5
    assert len(model.no_weight_decay()) == 8
    rates = [block.attn_grid.drop_path.drop_rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert model.stages[2].blocks[0].conv.drop_path.drop_rate == pytest.approx(0.3)
