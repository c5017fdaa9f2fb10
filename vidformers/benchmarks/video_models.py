"""The models of other libraries that ours are measured beside, as those libraries have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import vidformers as vf
from vidformers.compat import prepare_pytorchvideo, prepare_torchvision

__all__ = ["PAIRS", "Pair", "build_ours", "build_theirs", "clip_for"]


@dataclass(frozen=True)
class Pair:
    """A registered model of ours, with overrides, and the function that builds the same one of another."""

    ours: str
    theirs: Callable[[], nn.Module]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        return {**vf.model_arguments(self.ours), **self.overrides}


def torchvision_mvit_v1_b() -> nn.Module:
    prepare_torchvision()
    from torchvision.models.video import mvit_v1_b

    return mvit_v1_b()


def torchvision_mvit_v2_s() -> nn.Module:
    prepare_torchvision()
    from torchvision.models.video import mvit_v2_s

    return mvit_v2_s()


def torchvision_swin3d_t() -> nn.Module:
    prepare_torchvision()
    from torchvision.models.video import swin3d_t

    return swin3d_t()


def pytorchvideo_mvit_b() -> nn.Module:
    """Its MViT-B 16x4, as the example in its documentation builds it."""
    prepare_pytorchvideo()
    from pytorchvideo.models.vision_transformers import create_multiscale_vision_transformers

    model = create_multiscale_vision_transformers(
        spatial_size=224,
        temporal_size=16,
        embed_dim_mul=[[1, 2.0], [3, 2.0], [14, 2.0]],
        atten_head_mul=[[1, 2.0], [3, 2.0], [14, 2.0]],
        pool_q_stride_size=[[1, 1, 2, 2], [3, 1, 2, 2], [14, 1, 2, 2]],
        pool_kv_stride_adaptive=[1, 8, 8],
        pool_kvq_kernel=[3, 3, 3],
        head_num_classes=400,
    )
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6  # 0.1.5 has 1e-5 in the norms after pooling, unlike the releases around it
    return model


# Named by theirs.
PAIRS = {
    "torchvision/mvit_v1_b": Pair("mvit_b_16x4", torchvision_mvit_v1_b),
    "pytorchvideo/mvit_b_16x4": Pair("mvit_b_16x4", pytorchvideo_mvit_b),
    "torchvision/mvit_v2_s": Pair("mvit_v2_s_16x4", torchvision_mvit_v2_s),
    "torchvision/swin3d_t": Pair("swin3d_t", torchvision_swin3d_t, {"num_frames": 16}),
}


def build_ours(pair: Pair) -> nn.Module:
    """Ours, with random weights."""
    torch.manual_seed(0)
    return vf.create_model(pair.ours, **pair.overrides)


def build_theirs(pair: Pair) -> nn.Module:
    """Theirs, with random weights and, as ours, without dropout and stochastic depth."""
    torch.manual_seed(0)
    model = pair.theirs()
    for module in model.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]
    return model


def clip_for(pair: Pair, batch: int) -> Tensor:
    """Clips (batch, 3, T, H, W) of the size that the models are made for."""
    arguments = pair.arguments()
    size = arguments["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, arguments["num_frames"], height, width, generator=generator)
