"""Shuffle Transformer against the official code's recorded outputs, as image, still-clip and video model."""

from typing import Any

import pytest
import torch

from tests.golden import find_cases, load_case
from tests.golden_families.shuffle_transformer import official_arguments
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
from vidformers.models import ShuffleTransformer, create_model
from vidformers.models.shuffle_transformer import ShuffleBlock

CASES = find_cases("shuffle_transformer/*.pt")


@pytest.mark.parametrize("num_frames", [None, 1, 4, 7, 8])
@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, num_frames: int | None) -> None:
    """None: the image model. 7 and 8 frames give 4 tokens, which windows of 3 do not fit."""
    check_case(name, num_frames)


def test_moving_clip() -> None:
    check_moving_clip(CASES[0])


@pytest.mark.parametrize(
    ("shuffled", "seen"),
    [(False, [[0, 1], [0, 1], [2, 3], [2, 3]]), (True, [[0, 2], [1, 3], [0, 2], [1, 3]])],
)
def test_windows_span_frames(shuffled: bool, seen: list[list[int]]) -> None:
    torch.manual_seed(0)
    options = {"local_bias": True, "mlp_ratio": 2.0, "dropout_rate": 0.0, "drop_path_rate": 0.0}
    block = ShuffleBlock(
        dim=8, num_heads=2, shuffled=shuffled, window=(2, 2, 2), local_kernel=(1, 3, 3), **options
    ).eval()
    assert frames_seen(block, 8) == seen


def rebuilt(case: dict[str, Any], num_frames: int, **changed: Any) -> ShuffleTransformer:
    model = ShuffleTransformer(**{**official_arguments(case["kwargs"], num_frames), **changed}).eval()
    load_weights(model, case["state_dict"])
    return model


@pytest.mark.parametrize(
    "changed",
    [
        {"temporal_stride": 1, "window": (2, 3, 3)},
        {"temporal_stride": 3, "temporal_kernel": 5, "local_kernel": (5, 3, 3)},
        {"window": (8, 3, 3), "local_kernel": (1, 3, 3)},
    ],
)
def test_still_clip_in_other_temporal_sizes(changed: dict[str, Any]) -> None:
    case = load_case(CASES[-1])
    model = rebuilt(case, 5, **changed).double()
    found = logits(model, still(case["input"], 5).double())
    torch.testing.assert_close(found, case["logits_fp64"], atol=1e-9, rtol=0)


def test_a_mean_over_taps_would_fade_at_the_ends() -> None:
    case = load_case(CASES[-1])
    model = rebuilt(case, 8)
    average_taps(model)
    assert (logits(model, still(case["input"], 8)) - case["logits"]).abs().max() > 1e-1


@pytest.mark.parametrize("name", manifests("shuffle_transformer"))
def test_published_checkpoints_fit(name: str) -> None:
    content = load_manifest("shuffle_transformer", name)
    with torch.device("meta"):
        image = ShuffleTransformer(**official_arguments(content["kwargs"], None))
        video = create_model(f"shuffle_{name.split('_')[1][0]}", num_classes=1000)
    check_published(content, image, video)
    flops = count_flops(image, content["input_shape"])["total"]
    assert flops / 1e9 == pytest.approx(content["gflops"], rel=1e-4)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 37, 50), (9, 64, 30)])
def test_any_size(size: tuple[int, int, int]) -> None:
    check_any_size(create_model("shuffle_tiny"), size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (2, 1, 2)}, r"depths=\(2, 1, 2\) must be even.*use \(2, 2, 2\)"),
        ({"depths": (2, 2)}, "one entry a stage"),
        ({"local_kernel": (3, 4, 4)}, "local_kernel=.* must be odd"),
        ({"temporal_kernel": 2}, "temporal_kernel=.* must be odd"),
        ({"num_heads": (1, 2, 5)}, "not divisible by"),
        ({"temporal_stride": 0}, "temporal_stride must be at least 1"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("shuffle_tiny", **arguments)


def test_layer_ids_and_weight_decay() -> None:
    model = create_model("shuffle_tiny")
    assert model.layer_id("stem.proj.bias") == 0
    assert model.layer_id("stages.0.blocks.1.local.weight") == 2
    assert model.layer_id("stages.1.merge.reduction.weight") == 3
    assert model.layer_id("stages.2.blocks.1.mlp.fc1.bias") == 6 == model.num_layers
    assert model.layer_id("head.projection.weight") == 7
    assert len(model.no_weight_decay()) == 6
