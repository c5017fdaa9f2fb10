"""MaxViT: multi-axis attention (Tu et al., arXiv 2204.01697), extended in time.

Names, order and arithmetic follow timm's `maxvit_*_tf_*` models, whose image weights inflate (see
checkpoints/maxvit.py). In time: the stem halves the frame rate, its convolutions and the depthwise ones see
`temporal_kernel` frames, squeeze-excitation pools over all frames, and windows and grids are boxes. No later
stage merges frames.

Shape letters: B clips, C channels, T H W tokens along time, height and width. Convolutions see
(B, C, T, H, W), attention (B, T, H, W, C).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.checks import check_counts, check_positive, check_rates
from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import ONES, clip_group, grid_interval
from vidformers.layers.position_bias import TableBias
from vidformers.layers.pyramid import drop_path_rates, stage_layer_id
from vidformers.layers.sizes import triple
from vidformers.layers.stage import Stage
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, stage_info


def same_conv(
    dim: int, dim_out: int, temporal_kernel: int, stride: Sequence[int] = (1, 1, 1), **arguments: Any
) -> Conv3d:
    """Convolution of 3x3 pixels, padded in space as TensorFlow does, in time by zeros on both sides."""
    padding = (temporal_kernel // 2, 0, 0)
    return Conv3d(dim, dim_out, (temporal_kernel, 3, 3), stride, padding, space_padding="same", **arguments)


class Stem(nn.Module):
    """Two convolutions, the first with the strides; no norm after the second."""

    def __init__(
        self, in_channels: int, dim: int, temporal_stride: int, temporal_kernel: int, norm_eps: float
    ):
        super().__init__()
        self.conv1 = same_conv(in_channels, dim, temporal_kernel, (temporal_stride, 2, 2))
        self.norm1 = nn.BatchNorm3d(dim, eps=norm_eps)
        self.act = nn.GELU(approximate="tanh")
        self.conv2 = same_conv(dim, dim, temporal_kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act(self.norm1(self.conv1(x))))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from its mean over the whole clip (Hu et al. 2018)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Conv3d(dim, hidden_dim, 1)
        self.fc2 = nn.Conv3d(hidden_dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.silu(self.fc1(x.mean(dim=(2, 3, 4), keepdim=True))))
        return x * gate.sigmoid()


class Shortcut(nn.Module):
    """The skip of an MBConv: 2x2 average where it strides, 1x1 convolution where it widens."""

    def __init__(self, dim: int, dim_out: int, spatial_stride: int):
        super().__init__()
        self.stride = spatial_stride
        self.expand = nn.Conv3d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            stride = self.stride
            # TensorFlow's "same": what is missing is added at the bottom and right, and counts as zeros.
            x = F.pad(x, (0, -x.shape[4] % stride, 0, -x.shape[3] % stride))
            # Not avg_pool3d, which torch lacks in half precision on the CPU.
            x = x.unflatten(4, (-1, stride)).unflatten(3, (-1, stride)).mean(dim=(4, 6))
        return self.expand(x)


class MBConv(nn.Module):
    """Inverted residual with squeeze-excitation: (B, dim, T, H, W) -> (B, dim_out, T, ceil(H/s), ceil(W/s)).

    As in the TensorFlow models the hidden width is a multiple of the *output* width.
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        spatial_stride: int,
        temporal_kernel: int,
        expand_ratio: float,
        se_ratio: float,
        drop_path_rate: float,
        norm_eps: float,
    ):
        super().__init__()
        hidden = int(dim_out * expand_ratio)
        self.shortcut = Shortcut(dim, dim_out, spatial_stride)
        self.pre_norm = nn.BatchNorm3d(dim, eps=norm_eps)
        self.conv1_1x1 = nn.Conv3d(dim, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm3d(hidden, eps=norm_eps)
        self.act = nn.GELU(approximate="tanh")
        stride = (1, spatial_stride, spatial_stride)
        self.conv2_kxk = same_conv(hidden, hidden, temporal_kernel, stride, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm3d(hidden, eps=norm_eps)
        self.se = SqueezeExcite(hidden, max(int(dim_out * se_ratio), 1))
        self.conv3_1x1 = nn.Conv3d(hidden, dim_out, 1)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.shortcut(x)
        x = self.act(self.norm1(self.conv1_1x1(self.pre_norm(x))))
        x = self.act(self.norm2(self.conv2_kxk(x)))
        return skip + self.drop_path(self.conv3_1x1(self.se(x)))


class PartitionAttention(nn.Module):
    """Attention among the tokens of each group and MLP, both pre-norm and residual.

    "window": groups of `size` neighbours; "grid": groups of `size` tokens spread evenly over the whole map.
    forward: (B, T, H, W, C) -> the same shape. On a map that the groups do not fit, what is missing is padded
    and hidden; along an axis shorter than the group, the group is that axis.
    """

    def __init__(
        self,
        *,
        dim: int,
        head_dim: int,
        kind: str,
        size: Sequence[int],
        mlp_ratio: float,
        dropout_rate: float,
        drop_path_rate: float,
        norm_eps: float,
    ):
        super().__init__()
        self.size = triple(size)
        self.is_grid = kind == "grid"
        num_heads = dim // head_dim
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = GroupAttention(
            dim, num_heads, position_bias=TableBias(self.size, num_heads), dropout_rate=dropout_rate
        )
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.mlp.act = nn.GELU(approximate="tanh")
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        group = clip_group(self.size, x.shape[1:4])
        interval = grid_interval(x.shape[1:4], group) if self.is_grid else ONES
        x = x + self.drop_path(self.attn.attend_volume(self.norm1(x), group, interval))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MaxViTBlock(nn.Module):
    """MBConv, window attention, grid attention: (B, dim, T, H, W) -> (B, dim_out, T, H', W')."""

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        spatial_stride: int,
        temporal_kernel: int,
        window: Sequence[int],
        grid: Sequence[int],
        expand_ratio: float,
        se_ratio: float,
        conv_norm_eps: float,
        drop_path_rate: float,
        **attention_arguments: Any,
    ):
        super().__init__()
        self.conv = MBConv(
            dim=dim,
            dim_out=dim_out,
            spatial_stride=spatial_stride,
            temporal_kernel=temporal_kernel,
            expand_ratio=expand_ratio,
            se_ratio=se_ratio,
            drop_path_rate=drop_path_rate,
            norm_eps=conv_norm_eps,
        )
        attention_arguments |= {"dim": dim_out, "drop_path_rate": drop_path_rate}
        self.attn_block = PartitionAttention(kind="window", size=window, **attention_arguments)
        self.attn_grid = PartitionAttention(kind="grid", size=grid, **attention_arguments)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 4, 1)  # (B, C, T, H, W) -> (B, T, H, W, C)
        x = self.attn_grid(self.attn_block(x))
        return x.permute(0, 4, 1, 2, 3)


class PreLogitsHead(nn.Module):
    """LayerNorm, Linear and tanh before the classifier: (B, dim) -> (B, num_classes)."""

    def __init__(self, dim: int, hidden_dim: int, num_classes: int, dropout_rate: float, norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.pre_logits = nn.Linear(dim, hidden_dim)
        self.dropout = nn.Dropout(dropout_rate)
        self.projection = nn.Linear(hidden_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(torch.tanh(self.pre_logits(self.norm(x)))))


class MaxViT(MeanClassifier):
    """MaxViT for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T, H and W will do.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)): the size that the model is meant for; no weight
        depends on it. in_channels, num_classes
      stem_dim; temporal_stride: frames a token, by the stem's first convolution
      temporal_kernel: frames that the stem's and the depthwise convolutions see, odd. An image model has
        num_frames=1, temporal_stride=1, temporal_kernel=1 and windows and grids of one frame.
    Blocks:
      embed_dims, depths: width and number of blocks of each stage; every stage halves H and W. head_dim
      window, grid: (t, h, w) tokens that attend among themselves, neighbours and spread over the whole map
      expand_ratio, se_ratio: of the MBConv's hidden width and its squeezed one to the output width; mlp_ratio
      conv_norm_eps, norm_eps: of batch and layer norms
    Output:
      pre_logits_dim: of the hidden Linear before the classifier, or None for the last width
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (branches), head_dropout_rate,
      activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    head: PreLogitsHead

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        stem_dim: int = 64,
        temporal_stride: int = 2,
        temporal_kernel: int = 3,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 5, 2),
        head_dim: int = 32,
        window: Sequence[int] = (2, 7, 7),
        grid: Sequence[int] = (4, 7, 7),
        expand_ratio: float = 4.0,
        se_ratio: float = 0.25,
        mlp_ratio: float = 4.0,
        conv_norm_eps: float = 1e-3,
        norm_eps: float = 1e-5,
        pre_logits_dim: int | None = None,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes, stem_dim=stem_dim, head_dim=head_dim)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        if pre_logits_dim is not None:
            check_counts(pre_logits_dim=pre_logits_dim)
        check_positive(
            mlp_ratio=mlp_ratio, expand_ratio=expand_ratio, conv_norm_eps=conv_norm_eps, norm_eps=norm_eps
        )
        if len(embed_dims) != len(depths):
            raise ValueError(
                f"embed_dims={tuple(embed_dims)} and depths={tuple(depths)} need one entry a stage each"
            )
        if temporal_kernel < 1 or temporal_kernel % 2 == 0:
            raise ValueError(f"temporal_kernel={temporal_kernel} must be odd; use 1 or 3")
        for dim in embed_dims:
            if dim % head_dim:
                raise ValueError(
                    f"embed_dims={tuple(embed_dims)} must be multiples of head_dim={head_dim}, not {dim}; "
                    f"use {dim // head_dim * head_dim or head_dim} or {(dim // head_dim + 1) * head_dim}"
                )
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, sizes in (
            ("num_frames and image_size", (num_frames, height, width)),
            ("depths", depths),
            ("temporal_stride", (temporal_stride,)),
            ("window", window),
            ("grid", grid),
        ):
            if min(sizes) < 1:
                raise ValueError(f"{name} must be at least 1 along each axis, got {tuple(sizes)}")
        self.in_channels = in_channels
        self.num_layers = sum(depths)
        self.depths = tuple(depths)

        self.stem = Stem(in_channels, stem_dim, temporal_stride, temporal_kernel, conv_norm_eps)
        dim = stem_dim
        self.stages = nn.ModuleList()
        for dim_out, rates in zip(embed_dims, drop_path_rates(drop_path_rate, depths), strict=True):
            blocks = [
                MaxViTBlock(
                    dim=dim if j == 0 else dim_out,
                    dim_out=dim_out,
                    spatial_stride=2 if j == 0 else 1,
                    temporal_kernel=temporal_kernel,
                    window=window,
                    grid=grid,
                    expand_ratio=expand_ratio,
                    se_ratio=se_ratio,
                    conv_norm_eps=conv_norm_eps,
                    drop_path_rate=rate,
                    head_dim=head_dim,
                    mlp_ratio=mlp_ratio,
                    dropout_rate=dropout_rate,
                    norm_eps=norm_eps,
                )
                for j, rate in enumerate(rates)
            ]
            self.stages.append(Stage(blocks, activation_checkpointing=activation_checkpointing))
            dim = dim_out
        first = (temporal_stride, 4, 4)
        self.feature_info = stage_info("stages.{stage}.blocks.{block}", embed_dims, depths, first=first)
        self.head = PreLogitsHead(dim, pre_logits_dim or dim, num_classes, head_dropout_rate, norm_eps)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        return self.head(self.forward_features(clip).mean(dim=(1, 2, 3)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C); the head's norm comes after its mean."""
        x = self.stem(as_clip(clip, self.in_channels))
        for stage in self.stages:
            x = stage(x)
        return x.permute(0, 2, 3, 4, 1)  # (B, C, T', H', W') -> (B, T', H', W', C)

    def no_weight_decay(self) -> set[str]:
        """Full names of the position bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("position_bias.table")}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest."""
        part, *rest = name.split(".")
        if part == "stem":
            return 0
        if part == "stages":
            return stage_layer_id(int(rest[0]), int(rest[2]), self.depths)
        return self.num_layers + 1

    def _classified_features(self) -> int:
        return self.head.pre_logits.out_features

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises convolutions by their fan-out and Linears with a standard deviation of 0.02."""
        reset_pyramid(self)
        for module in self.modules():
            if isinstance(module, TableBias | nn.BatchNorm3d):
                module.reset_parameters()


# The published sizes. Parameters (400 classes) and GFLOPs (16 frames of 224 pixels) of the video models as
# counted here; of the image models: timm, and the paper's ImageNet-1k accuracy at 224 pixels.

_LARGER = {"depths": (2, 6, 14, 2)}


@register_model(MaxViT)
def maxvit_t() -> dict[str, Any]:
    """MaxViT-T: 31.0 M parameters, 55.8 GFLOPs (image model 30.9 M, 5.6, 83.6)."""
    return {}


@register_model(MaxViT)
def maxvit_s() -> dict[str, Any]:
    """MaxViT-S: 69.0 M parameters, 105.9 GFLOPs (image model 68.9 M, 11.7, 84.5)."""
    return {"embed_dims": (96, 192, 384, 768)}


@register_model(MaxViT)
def maxvit_b() -> dict[str, Any]:
    """MaxViT-B: 120.0 M parameters, 209.6 GFLOPs (image model 119.5 M, 24.0, 85.0)."""
    return {**maxvit_s(), **_LARGER}


@register_model(MaxViT)
def maxvit_l() -> dict[str, Any]:
    """MaxViT-L: 212.7 M parameters, 392.4 GFLOPs (image model 211.8 M, 43.7, 85.2)."""
    return {**_LARGER, "stem_dim": 128, "embed_dims": (128, 256, 512, 1024)}


@register_model(MaxViT)
def maxvit_xl() -> dict[str, Any]:
    """MaxViT-XL: 476.6 M parameters, 866.6 GFLOPs (image model 475 M, 97.5, pre-trained on ImageNet-21k)."""
    return {**_LARGER, "stem_dim": 192, "embed_dims": (192, 384, 768, 1536)}


@register_model(MaxViT)
def maxvit_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10, "stem_dim": 16, "head_dim": 16}
    return {**small, "embed_dims": (16, 32, 64), "depths": (1, 1, 1), "window": (2, 4, 4), "grid": (4, 4, 4)}
