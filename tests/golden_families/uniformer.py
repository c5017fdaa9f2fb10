"""UniFormer's reference cases: the official video code's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import UniFormer


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[UniFormer], dict[str, Any]]:
    """The constructor arguments of a case; all cases are videos, so `num_frames` only replaces theirs."""
    frames, height, width = case["input"].shape[2:]
    return UniFormer, {
        "num_frames": num_frames or frames,
        "image_size": (height, width),
        **official_arguments(case["kwargs"]),
    }


def official_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    attention = "split" if kwargs["split"] else "joint"
    return {
        "embed_dims": kwargs["embed_dim"],
        "depths": kwargs["depth"],
        "mixers": ["local", "local", attention, attention],
        "head_dim": kwargs["head_dim"],
        "mlp_ratio": kwargs["mlp_ratio"],
        "qkv_bias": kwargs["qkv_bias"],
        "merge_kernel": (3 if kwargs["std"] else 1, 2, 2),
        "num_classes": kwargs["num_classes"],
    }
