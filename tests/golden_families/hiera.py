"""Hiera's reference cases: the official arguments -> ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from vidformers.models import Hiera

SAME = (
    "embed_dim",
    "num_heads",
    "stages",
    "q_pool",
    "mask_unit_attn",
    "mlp_ratio",
    "num_classes",
    "norm_eps",
)


def arguments(case: Mapping[str, Any], num_frames: int | None) -> tuple[type[Hiera], dict[str, Any]]:
    """The constructor arguments of a case; with `num_frames`, those of the video model of an image case."""
    found = official(case["kwargs"])
    if num_frames is not None:
        found["num_frames"] = num_frames
        if case["input"].ndim == 4 and num_frames > 1:
            stride = 2 if num_frames % 2 == 0 else 1
            found["position_embedding"] = "separable"
            for name, first in (("patch_kernel", 3), ("patch_stride", stride), ("patch_padding", 1)):
                found[name] = (first, *found[name][1:])
    return Hiera, found


def official(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Official arguments -> ours; those of an image model have two axes."""
    *frames, height, width = kwargs["input_size"]
    found = {name: kwargs[name] for name in SAME if name in kwargs}
    found |= {"num_frames": frames[0] if frames else 1, "image_size": (height, width)}
    found |= {"position_embedding": "separable" if kwargs.get("sep_pos_embed") else "joint"}
    for name, first in (("q_stride", 1), ("mask_unit_size", 1), ("patch_kernel", 1), ("patch_stride", 1)):
        found[name] = as_3d(kwargs[name], first)
    found["patch_padding"] = as_3d(kwargs["patch_padding"], 0)
    return found


def as_3d(values: Sequence[int], first: int) -> tuple[int, ...]:
    return tuple(values) if len(values) == 3 else (first, *values)
