"""Pyramid Vision Transformer v2: PVTv2 (Wang et al., arXiv 2106.13797), extended in time.

A pyramid like PVT's, with overlapping patch embeddings, a depthwise convolution in each MLP (whose zero
padding replaces position embeddings) and no class token. Parameter names follow timm.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"), C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.checks import (
    check_counts,
    check_positive,
    check_rates,
    check_stages,
    checked_triple,
    declared_size,
    height_and_width,
)
from vidformers.layers.clip import as_clip
from vidformers.layers.drop_path import DropPath
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.peg import DepthwiseConv
from vidformers.layers.pyramid import StageEmbed, drop_path_rates, run_blocks, stage_layer_id, to_volume
from vidformers.layers.sizes import Grid
from vidformers.layers.subsampled_attention import SubsampledAttention
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, stage_info


class DepthwiseMlp(nn.Module):
    """Linear, [ReLU,] depthwise convolution over (T, H, W), exact (erf) GELU, Linear.

    forward: tokens (B, T*H*W, dim) and their grid -> the same shape.
    """

    def __init__(
        self, dim: int, hidden_dim: int, *, kernel: Sequence[int], extra_relu: bool, dropout_rate: float
    ):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.relu = nn.ReLU() if extra_relu else nn.Identity()
        self.dwconv = DepthwiseConv(hidden_dim, kernel)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = self.dwconv(self.relu(self.fc1(x)), grid)
        return self.drop(self.fc2(self.drop(self.act(x))))


class Block(nn.Module):
    """Attention to the reduced map and MLP, both pre-norm and residual; the shape stays."""

    def __init__(
        self, dim: int, attention: nn.Module, mlp: nn.Module, *, norm_eps: float, drop_path_rate: float
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


class Stage(nn.Module):
    """Embedding (not the first stage's, which is the model's patch_embed), blocks and norm.

    forward: tokens (B, N, C) and their grid -> tokens (B, N', C') and their grid.
    """

    def __init__(self, downsample: StageEmbed | None, blocks: Sequence[Block], norm: nn.LayerNorm):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor, grid: Grid, *, recompute: bool) -> tuple[Tensor, Grid]:
        if self.downsample is not None:
            x, grid = self.downsample(to_volume(x, grid))
        return self.norm(run_blocks(self.blocks, x, grid, recompute=recompute)), grid


class PVTv2(MeanClassifier):
    """Pyramid Vision Transformer v2 for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T, H and W will do: nothing in the model depends on
    `num_frames` and `image_size`; a last tubelet that is not full repeats the last frame.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      tubelet_size: frames in a token; later stages halve H and W only. An image model has tubelet_size=1,
        reductions of 1 in time and mlp_kernel=(1, 3, 3).
    Blocks (one entry a stage):
      embed_dims, depths, num_heads, mlp_ratios
      sr_ratios: (t, h, w), how much the map that keys and values come from is reduced
      linear: the "linear" attention instead: keys and values from a map of linear_pool_size (t, h, w) tokens
        (fewer in time if the clip has fewer), and a ReLU in the MLP; sr_ratios are then not used
      mlp_kernel: (t, h, w) of the MLP's depthwise convolution
      qkv_bias, norm_eps
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (of branches),
      head_dropout_rate, activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        tubelet_size: int = 2,
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[Sequence[int]] = ((2, 8, 8), (2, 4, 4), (2, 2, 2), (1, 1, 1)),
        linear: bool = False,
        linear_pool_size: Sequence[int] = (4, 7, 7),
        mlp_kernel: Sequence[int] = (3, 3, 3),
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(
            num_frames=num_frames,
            in_channels=in_channels,
            num_classes=num_classes,
            tubelet_size=tubelet_size,
        )
        check_positive(norm_eps=norm_eps)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_stages(
            {
                "embed_dims": embed_dims,
                "depths": depths,
                "num_heads": num_heads,
                "mlp_ratios": mlp_ratios,
                "sr_ratios": sr_ratios,
            }
        )
        reductions = [checked_triple(f"sr_ratios[{i}]", ratio) for i, ratio in enumerate(sr_ratios)]
        pool_size = checked_triple("linear_pool_size", linear_pool_size)
        declared_size(num_frames, tubelet_size, height_and_width(image_size), 1)
        self.in_channels = in_channels
        self.depths = tuple(depths)
        self.num_layers = sum(depths)
        self.activation_checkpointing = activation_checkpointing

        self.patch_embed = StageEmbed(
            in_channels, embed_dims[0], kernel=(tubelet_size, 7, 7), stride=(tubelet_size, 4, 4), padding=3
        )
        self.stages = nn.ModuleList()
        rates = drop_path_rates(drop_path_rate, depths)
        for i, dim in enumerate(embed_dims):
            downsample = None
            if i > 0:
                downsample = StageEmbed(embed_dims[i - 1], dim, kernel=(1, 3, 3), stride=(1, 2, 2), padding=1)
            blocks = [
                Block(
                    dim,
                    SubsampledAttention(
                        dim,
                        num_heads[i],
                        reduction=reductions[i],
                        pool_size=pool_size if linear else None,
                        qkv_bias=qkv_bias,
                        dropout_rate=dropout_rate,
                    ),
                    DepthwiseMlp(
                        dim,
                        int(dim * mlp_ratios[i]),
                        kernel=checked_triple("mlp_kernel", mlp_kernel),
                        extra_relu=linear,
                        dropout_rate=dropout_rate,
                    ),
                    norm_eps=norm_eps,
                    drop_path_rate=rate,
                )
                for rate in rates[i]
            ]
            self.stages.append(Stage(downsample, blocks, nn.LayerNorm(dim, eps=norm_eps)))
        first = (tubelet_size, 4, 4)
        self.feature_info = stage_info("stages.{stage}.blocks.{block}", embed_dims, depths, first=first)
        self.head = ClassifierHead(embed_dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x, _ = self.forward_tokens(clip)
        return self.head(x.mean(dim=1))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the last stage's norm."""
        x, grid = self.forward_tokens(clip)
        return x.unflatten(1, grid)

    def forward_tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> normed tokens (B, T'*H'*W', C) of the last stage and their grid."""
        x, grid = self.patch_embed(as_clip(clip, self.in_channels))
        for stage in self.stages:
            x, grid = stage(x, grid, recompute=self.activation_checkpointing)
        return x, grid

    def no_weight_decay(self) -> set[str]:
        """Full names of the position embedding parameters: there are none."""
        return set()

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest.

        A stage's embedding counts as its first block, a stage's norm as its last one; the last norm belongs
        to the rest.
        """
        if name.startswith("patch_embed."):
            return 0
        if not name.startswith("stages."):
            return self.num_layers + 1
        _, stage, kind, block, *_ = name.split(".")
        if kind == "blocks":
            return stage_layer_id(int(stage), int(block), self.depths)
        if kind == "downsample":
            return stage_layer_id(int(stage), 0, self.depths)
        is_last = int(stage) == len(self.depths) - 1
        return stage_layer_id(int(stage), self.depths[int(stage)] - 1, self.depths) + int(is_last)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises all weights anew."""
        reset_pyramid(self)


# The published sizes, with clips of 16 frames. Parameters and GFLOPs: of a 16x224x224 clip, 400 classes, by
# vidformers.analysis.complexity, and of the image models with 1000 classes, whose accuracies are the papers'.


@register_model(PVTv2)
def pvt_v2_b0() -> dict[str, Any]:
    """PVTv2-B0: 4.1 M parameters, 6.1 GFLOPs; for images 3.7 M, 0.6 GFLOPs, ImageNet-1k 70.5."""
    return {"embed_dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2)}


@register_model(PVTv2)
def pvt_v2_b1() -> dict[str, Any]:
    """PVTv2-B1: 15.8 M parameters, 19.9 GFLOPs; for images 14.0 M, 2.1 GFLOPs, ImageNet-1k 78.7."""
    return {"depths": (2, 2, 2, 2)}


@register_model(PVTv2)
def pvt_v2_b2() -> dict[str, Any]:
    """PVTv2-B2: 29.7 M parameters, 37.4 GFLOPs; for images 25.4 M, 4.0 GFLOPs, ImageNet-1k 82.0."""
    return {"depths": (3, 4, 6, 3)}


@register_model(PVTv2)
def pvt_v2_b2_li() -> dict[str, Any]:
    """PVTv2-B2-Li: 22.6 M parameters, 35.5 GFLOPs; for images 22.6 M, 3.9 GFLOPs, ImageNet-1k 82.1."""
    return {"depths": (3, 4, 6, 3), "linear": True}


@register_model(PVTv2)
def pvt_v2_b3() -> dict[str, Any]:
    """PVTv2-B3: 54.8 M parameters, 62.1 GFLOPs; for images 45.2 M, 6.9 GFLOPs, ImageNet-1k 83.1."""
    return {"depths": (3, 4, 18, 3)}


@register_model(PVTv2)
def pvt_v2_b4() -> dict[str, Any]:
    """PVTv2-B4: 77.1 M parameters, 90.5 GFLOPs; for images 62.6 M, 10.1 GFLOPs, ImageNet-1k 83.6."""
    return {"depths": (3, 8, 27, 3)}


@register_model(PVTv2)
def pvt_v2_b5() -> dict[str, Any]:
    """PVTv2-B5: 101.5 M parameters, 104.0 GFLOPs; for images 82.0 M, 11.8 GFLOPs, ImageNet-1k 83.8."""
    return {"depths": (3, 6, 40, 3), "mlp_ratios": (4, 4, 4, 4)}


@register_model(PVTv2)
def pvt_v2_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "embed_dims": (16, 32, 64, 96),
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 2, 4, 6),
        "mlp_ratios": (4, 4, 2, 2),
        "sr_ratios": ((2, 4, 4), (1, 2, 2), (1, 1, 1), (1, 1, 1)),
    }
