"""MaxViT's reference cases: timm's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import MaxViT


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[MaxViT], dict[str, Any]]:
    """The constructor arguments of a case, or of the video model with `num_frames` that it inflates to."""
    return MaxViT, timm_arguments(case["kwargs"], num_frames)


def timm_arguments(kwargs: Mapping[str, Any], num_frames: int | None) -> dict[str, Any]:
    """ValueError for timm's own variants, which are other models than the published ones."""
    if kwargs["variant"] != "tf":
        raise ValueError(f"MaxViT cases of variant {kwargs['variant']!r} are not supported")
    window, grid = (_pair(kwargs[name]) for name in ("window_size", "grid_size"))
    video = num_frames is not None
    return {
        "num_frames": num_frames or 1,
        "image_size": _pair(kwargs["img_size"]),
        "num_classes": kwargs.get("num_classes", 1000),
        "stem_dim": kwargs["stem_width"],
        "temporal_stride": 2 if video else 1,
        "temporal_kernel": 3 if video else 1,
        "embed_dims": kwargs["embed_dim"],
        "depths": kwargs["depths"],
        "head_dim": kwargs["dim_head"],
        "window": (2 if video else 1, *window),
        "grid": (3 if video else 1, *grid),
        "conv_norm_eps": kwargs["conv_norm_eps"],
        "norm_eps": kwargs["transformer_norm_eps"],
        "pre_logits_dim": kwargs["head_hidden_size"],
    }


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
