"""Multiply-adds against the manifests, which fvcore made from the reference implementations."""

import pytest
import torch

from tests.golden_json import load_json
from vidformers.analysis.complexity import count_flops, count_parameters
from vidformers.models import create_model

MANIFESTS = {
    "mvit_b_16x4": "slowfast/Kinetics__MVIT_B_16x4_CONV",
    "mvit_b_32x3": "slowfast/Kinetics__MVIT_B_32x3_CONV",
    "mvit_v2_s_16x4": "slowfast/Kinetics__MVITv2_S_16x4",
    "mvit_v2_b_32x3": "slowfast/Kinetics__MVITv2_B_32x3",
    "mvit_v2_l_40x3": "slowfast/Kinetics__MVITv2_L_40x3_test",
    "mvit_b_16": "slowfast/ImageNet__MVIT_B_16_CONV",
    "mvit_v2_t": "slowfast/ImageNet__MVITv2_T",
    "mvit_v2_s": "slowfast/ImageNet__MVITv2_S",
    "mvit_v2_b": "slowfast/ImageNet__MVITv2_B",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_published_sizes(name: str) -> None:
    manifest = load_json(f"manifests/{MANIFESTS[name]}.json")
    with torch.device("meta"):
        model = create_model(name)
    assert count_parameters(model) == manifest["num_params"]
    flops = count_flops(model, manifest["input_shape"])
    assert flops["total"] / 1e9 == pytest.approx(manifest["gflops_per_view"], rel=1e-3)
    for operator in ("conv", "linear", "layer_norm"):
        assert flops["by_operator"][operator] / 1e9 == pytest.approx(
            manifest["gflops_by_operator"][operator], rel=1e-6
        )


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("mvit_tiny", {}),
        ("mvit_tiny", {"rel_pos_spatial": True, "rel_pos_temporal": True}),
        ("shuffle_tiny", {}),
    ],
)
def test_both_counters_agree(name: str, overrides: dict[str, bool]) -> None:
    """fvcore runs the model; the meta device's counter does not, so it counts 2.8 TFLOPs in a second."""
    model = create_model(name, **overrides)
    with torch.device("meta"):
        without_values = create_model(name, **overrides)
    by_fvcore = count_flops(model.train(), (1, 3, 8, 64, 64))
    on_meta = count_flops(without_values, (1, 3, 8, 64, 64))
    assert by_fvcore["total"] == pytest.approx(on_meta["total"], rel=1e-5)
    assert by_fvcore["by_operator"]["linear"] == on_meta["by_operator"]["linear"]
    assert model.training
    assert by_fvcore["by_operator"]["matmul"] > 0
