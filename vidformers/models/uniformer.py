"""UniFormer (Li et al., arXiv 2201.04676): convolutions in the early stages, attention in the late ones.

Arithmetic as in the official video code, whose weights load; image weights of the same names inflate (see
checkpoints/uniformer.py). Every block first adds a depthwise convolution, which stands for the position
embedding; then the tokens mix, by another depthwise convolution ("local") or by attention; then an MLP. The
first embedding halves the frame rate; no later stage merges frames.

Shape letters: B clips, T H W tokens along time, height and width, C channels. Volumes are (B, C, T, H, W).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.checks import (
    check_choice,
    check_counts,
    check_positive,
    check_rates,
    checked_triple,
    height_and_width,
)
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_swin
from vidformers.layers.mlp import Mlp
from vidformers.layers.pyramid import clip_of_side, drop_path_rates, stage_layer_id
from vidformers.layers.sizes import Grid
from vidformers.layers.stage import Stage
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, stage_info

MIXERS = ("local", "joint", "split")


def depthwise(dim: int, kernel: Grid) -> Conv3d:
    """Depthwise convolution, same size, zeros beyond the borders."""
    return Conv3d(dim, dim, kernel, padding=[k // 2 for k in kernel], groups=dim)


class PatchEmbed(nn.Module):
    """Strided convolution and LayerNorm in front of a stage: (B, C, T, H, W) -> (B, dim, T', H', W').

    Trailing rows and columns that fill no patch are dropped, as in the official code; frames never are.
    """

    def __init__(self, in_channels: int, dim: int, *, kernel: Grid, stride: Grid, padding: Grid):
        super().__init__()
        self.proj = Conv3d(in_channels, dim, kernel, stride, padding)
        # The official code leaves this one at PyTorch's default eps.
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).permute(0, 2, 3, 4, 1)  # (B, C, T, H, W) -> (B, T, H, W, C)
        return self.norm(x).permute(0, 4, 1, 2, 3)


class ConvMlp(nn.Module):
    """The MLP of local blocks, its Linears written as 1x1x1 convolutions. (B, C, T, H, W) -> the same."""

    def __init__(self, dim: int, hidden_dim: int, dropout_rate: float):
        super().__init__()
        self.fc1 = nn.Conv3d(dim, hidden_dim, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv3d(hidden_dim, dim, 1)
        self.drop = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class LocalBlock(nn.Module):
    """Position convolution; depthwise convolution of neighbours (`attn`); MLP: residual, batch-normed.

    forward: (B, C, T, H, W) -> the same shape.
    """

    def __init__(
        self,
        dim: int,
        *,
        position_kernel: Grid,
        local_kernel: Grid,
        mlp_ratio: float,
        dropout_rate: float,
        drop_path_rate: float,
    ):
        super().__init__()
        self.pos_embed = depthwise(dim, position_kernel)
        self.norm1 = nn.BatchNorm3d(dim)
        self.conv1 = nn.Conv3d(dim, dim, 1)
        self.attn = depthwise(dim, local_kernel)
        self.conv2 = nn.Conv3d(dim, dim, 1)
        self.norm2 = nn.BatchNorm3d(dim)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AttentionBlock(nn.Module):
    """Position convolution; attention of all tokens of the clip; MLP: residual, layer-normed.

    With `split`, each place attends over time, and what comes of it within its frame; the skip around both
    is that of the block, as in the official code: nothing of the temporal attention goes past the spatial
    one. forward: (B, C, T, H, W) -> the same shape.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        split: bool,
        position_kernel: Grid,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_eps: float,
        dropout_rate: float,
        drop_path_rate: float,
    ):
        super().__init__()
        self.split = split
        self.pos_embed = depthwise(dim, position_kernel)
        if split:
            self.t_norm = nn.LayerNorm(dim, eps=norm_eps)
            self.t_attn = GroupAttention(dim, num_heads, qkv_bias=qkv_bias, dropout_rate=dropout_rate)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = GroupAttention(dim, num_heads, qkv_bias=qkv_bias, dropout_rate=dropout_rate)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.pos_embed(x)).permute(0, 2, 3, 4, 1)  # (B, C, T, H, W) -> (B, T, H, W, C)
        T, H, W = x.shape[1:4]
        if self.split:
            over_time = x + self.drop_path(self.t_attn.attend_volume(self.t_norm(x), (T, 1, 1)))
            x = x + self.drop_path(self.attn.attend_volume(self.norm1(over_time), (1, H, W)))
        else:
            x = x + self.drop_path(self.attn.attend_volume(self.norm1(x), (T, H, W)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 4, 1, 2, 3)


class UniFormer(MeanClassifier):
    """UniFormer for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T will do, and any H and W of at least one last token, 32 pixels
    in the published sizes.

    Input:
      num_frames, image_size (pixels, int or (height, width)): the size that the model is meant for; no weight
        depends on it. in_channels, num_classes
      patch_kernel, patch_stride, patch_padding: (t, h, w) of the first embedding
      merge_kernel: (t, h, w), t odd, of the later ones, which halve H and W; (3, 2, 2) is the official `std`
    Blocks:
      embed_dims, depths, mixers: one entry a stage. A mixer is "local" (depthwise convolution), "joint"
        (attention of all tokens) or "split" (over time, then within frames).
      head_dim: channels of a head; position_kernel, local_kernel: (t, h, w), odd, of the depthwise
        convolutions; mlp_ratio, qkv_bias, norm_eps (of the LayerNorms in blocks)
      An image model has num_frames=1, and kernels and a stride of 1 and a padding of 0 in time.
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (branches), head_dropout_rate,
      activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        patch_kernel: Sequence[int] = (3, 4, 4),
        patch_stride: Sequence[int] = (2, 4, 4),
        patch_padding: Sequence[int] = (1, 0, 0),
        merge_kernel: Sequence[int] = (1, 2, 2),
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 8, 3),
        mixers: Sequence[str] = ("local", "local", "joint", "joint"),
        head_dim: int = 64,
        position_kernel: Sequence[int] = (3, 3, 3),
        local_kernel: Sequence[int] = (5, 5, 5),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(
            num_frames=num_frames, in_channels=in_channels, num_classes=num_classes, head_dim=head_dim
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        patch_kernel = checked_triple("patch_kernel", patch_kernel)
        patch_stride = checked_triple("patch_stride", patch_stride)
        patch_padding = checked_triple("patch_padding", patch_padding, smallest=0)
        merge_kernel = checked_triple("merge_kernel", merge_kernel)
        position_kernel = checked_triple("position_kernel", position_kernel)
        local_kernel = checked_triple("local_kernel", local_kernel)
        for name, kernel in (("position_kernel", position_kernel), ("local_kernel", local_kernel)):
            if any(k % 2 == 0 for k in kernel):
                raise ValueError(f"{name}={kernel} must be odd along each axis, such as (3, 3, 3)")
        if merge_kernel[0] % 2 == 0 or merge_kernel[1:] != (2, 2):
            raise ValueError(f"merge_kernel={merge_kernel} must be (t, 2, 2), t odd, such as (1, 2, 2)")
        check_stages(embed_dims, depths, mixers, head_dim)
        # So that the last stage has a token.
        tokens = 2 ** (len(depths) - 1)
        self.smallest_side = max(
            (tokens - 1) * s + k - 2 * p
            for k, s, p in zip(patch_kernel[1:], patch_stride[1:], patch_padding[1:], strict=True)
        )
        if min(height_and_width(image_size)) < self.smallest_side:
            raise ValueError(
                f"image_size={image_size} is too small; use at least {self.smallest_side} pixels a side"
            )
        self.in_channels = in_channels
        self.num_layers = sum(depths)
        self.depths = tuple(depths)

        self.stages = nn.ModuleList()
        merge = PatchEmbed(
            in_channels, embed_dims[0], kernel=patch_kernel, stride=patch_stride, padding=patch_padding
        )
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim = embed_dims[i]
            if i > 0:
                padding = (merge_kernel[0] // 2, 0, 0)
                merge = PatchEmbed(
                    embed_dims[i - 1], dim, kernel=merge_kernel, stride=(1, 2, 2), padding=padding
                )
            blocks: list[nn.Module] = []
            for rate in rates:
                if mixers[i] == "local":
                    block: nn.Module = LocalBlock(
                        dim,
                        position_kernel=position_kernel,
                        local_kernel=local_kernel,
                        mlp_ratio=mlp_ratio,
                        dropout_rate=dropout_rate,
                        drop_path_rate=rate,
                    )
                else:
                    block = AttentionBlock(
                        dim,
                        num_heads=dim // head_dim,
                        split=mixers[i] == "split",
                        position_kernel=position_kernel,
                        mlp_ratio=mlp_ratio,
                        qkv_bias=qkv_bias,
                        norm_eps=norm_eps,
                        dropout_rate=dropout_rate,
                        drop_path_rate=rate,
                    )
                blocks.append(block)
            self.stages.append(Stage(blocks, merge=merge, activation_checkpointing=activation_checkpointing))
        self.feature_info = stage_info(
            "stages.{stage}.blocks.{block}", embed_dims, depths, first=patch_stride
        )
        self.norm = nn.BatchNorm3d(embed_dims[-1])
        self.head = ClassifierHead(embed_dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        return self.head(self.forward_volume(clip).mean(dim=(2, 3, 4)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm."""
        return self.forward_volume(clip).permute(0, 2, 3, 4, 1)

    def forward_volume(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, C, T', H', W') after the final norm."""
        x = clip_of_side(clip, self.in_channels, self.smallest_side)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def no_weight_decay(self) -> set[str]:
        """Full names of the position embedding parameters: there are none, convolutions stand for them."""
        return set()

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the first embedding, i + 1 block i (and the embedding
        before it), num_layers + 1 the rest."""
        part, *rest = name.split(".")
        if part != "stages":
            return self.num_layers + 1
        stage, kind = int(rest[0]), rest[1]
        if kind == "merge":
            return stage_layer_id(stage, 0, self.depths) if stage > 0 else 0
        return stage_layer_id(stage, int(rest[2]), self.depths)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as the official code does: convolutions by PyTorch's default, and temporal attention so
        that it adds nothing at first, but learns from the first step on."""
        reset_swin(self)
        for module in self.modules():
            if isinstance(module, AttentionBlock) and module.split:
                start_temporal_attention(module.t_attn)


def start_temporal_attention(attention: GroupAttention) -> None:
    """Values of 0, projected by 1: zeros in both places would leave neither a gradient."""
    nn.init.zeros_(attention.qkv.weight)
    nn.init.ones_(attention.proj.weight)


def check_stages(
    embed_dims: Sequence[int], depths: Sequence[int], mixers: Sequence[str], head_dim: int
) -> None:
    """ValueError if the per-stage arguments do not go together."""
    if not len(embed_dims) == len(depths) == len(mixers) or min(depths, default=0) < 1:
        raise ValueError(
            f"embed_dims={tuple(embed_dims)}, depths={tuple(depths)} and mixers={tuple(mixers)} need one "
            "entry a stage, the same number each, and at least one block a stage"
        )
    for stage, (dim, mixer) in enumerate(zip(embed_dims, mixers, strict=True)):
        check_choice(f"mixers[{stage}]", mixer, MIXERS)
        check_counts(**{f"embed_dims[{stage}]": dim})
        if mixer != "local" and dim % head_dim:
            raise ValueError(
                f"embed_dims[{stage}]={dim} is not divisible by head_dim={head_dim}; "
                f"use {dim // head_dim * head_dim or head_dim} or {(dim // head_dim + 1) * head_dim}"
            )


# The published sizes, with clips of 16 frames. Parameters and GFLOPs of a 16x224x224 clip, 400 classes, by
# vidformers.analysis.complexity; Kinetics-400 top-1 of 16 frames, 4 apart, and 4 views: the official list.


@register_model(UniFormer)
def uniformer_s() -> dict[str, Any]:
    """UniFormer-S: 21.4 M parameters, 41.8 GFLOPs, Kinetics-400 80.8."""
    return {}


@register_model(UniFormer)
def uniformer_b() -> dict[str, Any]:
    """UniFormer-B: 49.8 M parameters, 96.7 GFLOPs, Kinetics-400 82.0."""
    return {"depths": (5, 8, 20, 7)}


@register_model(UniFormer)
def uniformer_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10, "depths": (1, 1, 2, 1)}
    return {**small, "embed_dims": (16, 32, 64, 96), "head_dim": 16, "mlp_ratio": 2.0}
