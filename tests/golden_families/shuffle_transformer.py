"""Shuffle Transformer's reference cases: the official code's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import ShuffleTransformer


def arguments(
    case: Mapping[str, Any], num_frames: int | None
) -> tuple[type[ShuffleTransformer], dict[str, Any]]:
    """The constructor arguments of a case, or of the video model with `num_frames` that it inflates to."""
    return ShuffleTransformer, official_arguments(case["kwargs"], num_frames)


def official_arguments(kwargs: Mapping[str, Any], num_frames: int | None) -> dict[str, Any]:
    side = kwargs["window_size"]
    video = num_frames is not None
    return {
        "num_frames": num_frames or 1,
        "image_size": kwargs["img_size"],
        "num_classes": kwargs.get("num_classes", 1000),
        "stem_dim": kwargs["token_dim"],
        "temporal_stride": 2 if video else 1,
        "temporal_kernel": 3 if video else 1,
        "embed_dims": [32 * heads for heads in kwargs["num_heads"]],  # 32 a head is fixed there
        "depths": kwargs["layers"],
        "num_heads": kwargs["num_heads"],
        "window": (3 if video else 1, side, side),
        "local_kernel": (3 if video else 1, side, side),
        "local_bias": kwargs["qkv_bias"],
        "mlp_ratio": kwargs["mlp_ratio"],
    }
