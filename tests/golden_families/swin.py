"""Swin's reference cases: timm's and torchvision's arguments -> ours."""

from collections.abc import Mapping
from typing import Any

from vidformers.models import Swin


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[Swin], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames`, those of the video model of an image case.

    The video model: tubelets of 2 frames and windows of 2 if the number of frames is 4 or more.
    """
    kwargs, source = case["kwargs"], case["source"].partition(":")[2]
    found: dict[str, Any] = {
        "in_channels": case["input"].shape[1],
        "num_frames": case["input"].shape[2] if case["input"].ndim == 5 else num_frames or 1,
        "image_size": tuple(case["input"].shape[-2:]),
        "num_classes": kwargs["num_classes"],
        "embed_dim": kwargs["embed_dim"],
        "depths": kwargs["depths"],
        "num_heads": kwargs["num_heads"],
        "mlp_ratio": kwargs.get("mlp_ratio", 4.0),
        "qkv_bias": kwargs.get("qkv_bias", True),
        "norm_eps": kwargs.get("norm_eps", 1e-5),
    }
    if source == "swin3d":
        return Swin, {
            **found,
            "patch_size": kwargs["patch_size"],
            "window": kwargs["window_size"],
            "pad_mask": "none",
            "patch_time_padding": "zero",
            "small_window_bias": "corner",
        }
    is_video = num_frames is not None and num_frames > 1
    tubelet, frames = (2, 2) if num_frames is not None and num_frames >= 4 else (1, 2 if is_video else 1)
    return Swin, {
        **found,
        "patch_size": (tubelet, *pair(kwargs["patch_size"])),
        "window": (frames, *pair(kwargs["window_size"])),
        "padding_style": "timm" if case["source"].startswith("timm") else "torchvision",
    }


def pair(size: int | list[int]) -> tuple[int, int]:
    """timm gives one number for both axes, torchvision two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
