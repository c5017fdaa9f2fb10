"""CPVT's reference cases: the arguments of timm's ViT -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import CPVT


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[CPVT], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames` > 1, those of the video model of the case."""
    kwargs = case["kwargs"]
    num_frames = num_frames or 1
    size = kwargs["img_size"]
    class_token = kwargs.get("class_token", True)
    return CPVT, {
        "num_frames": num_frames,
        "image_size": size if isinstance(size, int) else tuple(size),
        "num_classes": kwargs["num_classes"],
        "tubelet_size": 2 if num_frames % 2 == 0 else 1,
        "patch_size": kwargs["patch_size"],
        "embed_dim": kwargs["embed_dim"],
        "depth": kwargs["depth"],
        "num_heads": kwargs["num_heads"],
        "mlp_ratio": kwargs.get("mlp_ratio", 4.0),
        "qkv_bias": kwargs.get("qkv_bias", True),
        "norm_eps": kwargs["norm_eps"],
        "peg_after_block": kwargs["peg_after_block"],
        "peg_kernel": (kwargs["peg_kernel"] if num_frames > 1 else 1, *[kwargs["peg_kernel"]] * 2),
        "class_token": class_token,
        "class_token_log_frames": class_token and num_frames > 1,
    }
