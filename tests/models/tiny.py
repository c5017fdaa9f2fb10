"""Every registered model, made small: its stages and options, but few channels, blocks and pixels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import vidformers as vf


def _tiny_pyramid(arguments: dict[str, Any]) -> dict[str, Any]:
    """Of PVT and Twins: 4 channels a head, and at most 2 blocks a stage."""
    return {
        "embed_dims": [4 * heads for heads in arguments["num_heads"]],
        "depths": [min(depth, 2) for depth in arguments["depths"]],
    }


# Model class -> what makes one of its registered sizes small; `arguments` are those of the registered size.
# Each gets num_classes=5, image_size=32 and num_frames=min(its own, 4) besides.
TINY: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "CPVT": lambda arguments: {
        "embed_dim": 4 * arguments["num_heads"],
        "depth": min(arguments["depth"], 4),
        "patch_size": 8,
    },
    "Hiera": lambda arguments: {
        "embed_dim": 4 * arguments["num_heads"],
        "stages": [min(depth, 2) for depth in arguments["stages"]],
    },
    "GGTransformer": lambda arguments: {
        "embed_dim": 8 * arguments["num_heads"][0],
        "depths": [min(depth, 2) for depth in arguments["depths"]],
    },
    "MViT": lambda arguments: {"embed_dim": 4 * arguments["num_heads"]},
    "MaxViT": lambda arguments: {
        "stem_dim": 8,
        "embed_dims": [8 * 2**i for i in range(len(arguments["depths"]))],
        "depths": [min(depth, 2) for depth in arguments["depths"]],
        "head_dim": 8,
    },
    "PVT": _tiny_pyramid,
    "PVTv2": _tiny_pyramid,
    "RevMViT": lambda arguments: {
        "embed_dim": 4 * arguments["num_heads"],
        "patch_kernel": [min(size, 8) for size in arguments["patch_kernel"]],
        "patch_stride": [min(size, 8) for size in arguments["patch_stride"]],
    },
    "ShuffleTransformer": lambda arguments: {
        "stem_dim": 8,
        "embed_dims": [8 * heads for heads in arguments["num_heads"]],
        "depths": [2 for _ in arguments["depths"]],
    },
    "Swin": lambda arguments: {
        "embed_dim": 4 * arguments["num_heads"][0],
        "depths": [min(depth, 2) for depth in arguments["depths"]],
    },
    "TwinsPCPVT": _tiny_pyramid,
    "TwinsSVT": _tiny_pyramid,
    "UniFormer": lambda arguments: {
        "embed_dims": [8, 8, 16, 16],
        "depths": [min(depth, 2) for depth in arguments["depths"]],
        "head_dim": 4,
    },
    "VisionTransformer": lambda arguments: {
        "embed_dim": 4 * arguments["num_heads"],
        "depth": min(arguments["depth"], 4),
        "patch_kernel": (arguments["patch_kernel"][0], 8, 8),
        "patch_stride": (arguments["patch_stride"][0], 8, 8),
    },
    # The position bias network has a sixteenth of the channels, and needs some.
    "CrossFormer": lambda arguments: {
        "embed_dim": 32,
        "num_heads": [2] * len(arguments["depths"]),
        "depths": [min(depth, 4) for depth in arguments["depths"]],
    },
    "MSGTransformer": lambda arguments: {
        "embed_dim": 8,
        "num_heads": [2] * len(arguments["depths"]),
        "depths": [min(depth, 2) for depth in arguments["depths"]],
        "window_size": (2, 2, 2),
        "region_size": [(2, 2, 2)] * len(arguments["depths"]),
    },
}


def tiny(name: str, **overrides: Any) -> nn.Module:
    """A small version of a registered model, with seeded weights."""
    arguments = vf.model_arguments(name)
    common = {"num_classes": 5, "image_size": 32, "num_frames": min(arguments["num_frames"], 4)}
    torch.manual_seed(0)
    return vf.create_model(name, **{**common, **TINY[vf.model_class(name).__name__](arguments), **overrides})


# For tests whose time is that of the number of operations: one merge of stages stands for two.
TWO_STAGES: dict[str, dict[str, Any]] = {
    "maxvit_tiny": {"embed_dims": (8, 16), "depths": (1, 1)},
    "shuffle_tiny": {"embed_dims": (8, 16), "depths": (2, 2), "num_heads": (1, 2)},
    "swin_tiny": {"depths": (2, 1), "num_heads": (1, 2)},
}


def tiny_clip(name: str) -> torch.Tensor:
    """A clip of the size that `tiny` models are built for: (2, 3, T, 32, 32)."""
    num_frames = min(vf.model_arguments(name)["num_frames"], 4)
    return torch.randn(2, 3, num_frames, 32, 32, generator=torch.Generator().manual_seed(1))


# One name for each class, and further ones that go other ways through its code: for tests that take long.
REPRESENTATIVES = [
    "cpvt_tiny",
    "crossformer_tiny",
    "crossformer_pp_s",
    "gg_tiny",
    "hiera_tiny",
    "maxvit_tiny",
    "msg_tiny",
    "mvit_tiny",
    "mvit_v2_t",
    "pvt_tiny",
    "pvt_v2_tiny",
    "pvt_v2_b2_li",
    "rev_mvit_tiny",
    "shuffle_tiny",
    "swin_tiny",
    "swin3d_t",
    "timesformer_b",
    "twins_pcpvt_tiny",
    "twins_svt_tiny",
    "uniformer_tiny",
    "videomae_s",
    "vit_tiny",
]
