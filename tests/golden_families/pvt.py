"""PVT's (official) and PVTv2's (timm) reference cases: their arguments -> ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from vidformers.models import PVT, PVTv2


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[nn.Module], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames` > 1, those of the video model of the case.

    Tubelets of 2 frames if the number is even; reductions of 2 in time where there is one in space.
    """
    found = pyramid_arguments(case, num_frames)
    video = found["num_frames"] > 1
    if case["arch"] == "pvt_v2":
        linear = case["kwargs"].get("linear", False)
        found |= {"linear": linear, "mlp_kernel": (3 if video else 1, 3, 3)}
        if linear:
            found["linear_pool_size"] = (2, 7, 7)
        del found["patch_size"]
        return PVTv2, found
    found |= {
        "temporal_position": video,
        "class_token_log_frames": video,
        "qkv_bias": case["kwargs"].get("qkv_bias", False),  # the official default
        "norm_eps": case["kwargs"]["norm_eps"],
    }
    return PVT, found


def pyramid_arguments(case: Mapping[str, Any], num_frames: int | None) -> dict[str, Any]:
    """What PVT, PVTv2 and Twins have in common."""
    kwargs = case["kwargs"]
    num_frames = num_frames or 1
    size = kwargs.get("img_size", case["input"].shape[-2:])  # PVTv2 does not have one
    return {
        "num_frames": num_frames,
        "image_size": size if isinstance(size, int) else tuple(size),
        "num_classes": kwargs.get("num_classes", 1000),
        "tubelet_size": 2 if num_frames % 2 == 0 else 1,
        "patch_size": kwargs.get("patch_size", 4),
        "embed_dims": kwargs["embed_dims"],
        "depths": kwargs["depths"],
        "num_heads": kwargs["num_heads"],
        "mlp_ratios": kwargs["mlp_ratios"],
        "sr_ratios": sr_ratios(kwargs["sr_ratios"], 2 if num_frames > 1 else 1),
        "qkv_bias": kwargs.get("qkv_bias", True),
    }


def sr_ratios(spatial: Sequence[int], temporal: int) -> list[tuple[int, int, int]]:
    """Reductions of (t, h, w): in time only where the image model has a convolution that can be inflated."""
    return [(temporal if side > 1 else 1, side, side) for side in spatial]
