"""Shuffle Transformer (Huang et al., arXiv 2106.03650), extended in time.

Arithmetic as in the official image code, whose weights inflate (see checkpoints/shuffle_transformer.py).
Blocks come in pairs: attention in windows of neighbours, then in the "shuffled" windows, whose tokens are
spread over the whole map. In time: the stem halves the frame rate, its convolutions and the local ones see
`temporal_kernel` frames, and windows are boxes. No later stage merges frames.

Shape letters: B clips, T H W tokens along time, height and width, C channels. Volumes are (B, T, H, W, C).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidformers.layers.checks import check_counts, check_positive, check_rates, check_stages
from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import ONES, clip_group, grid_interval
from vidformers.layers.position_bias import TableBias
from vidformers.layers.pyramid import drop_path_rates, stage_layer_id
from vidformers.layers.sizes import triple
from vidformers.layers.stage import Stage
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, feature


class BatchNorm(nn.BatchNorm3d):
    """Batch norm of volumes (B, T, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        # (B, T, H, W, C) -> (B, C, T, H, W) and back, both views
        return super().forward(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class Stem(nn.Module):
    """(B, in_channels, T, H, W) -> (B, T / temporal_stride, H / 4, W / 4, dim), sizes rounded up."""

    def __init__(
        self, in_channels: int, hidden_dim: int, dim: int, temporal_stride: int, temporal_kernel: int
    ):
        super().__init__()
        kernel, padding = (temporal_kernel, 3, 3), (temporal_kernel // 2, 1, 1)
        self.conv1 = Conv3d(in_channels, hidden_dim, kernel, (temporal_stride, 2, 2), padding)
        self.norm1 = nn.BatchNorm3d(hidden_dim)
        self.conv2 = Conv3d(hidden_dim, dim, kernel, (1, 2, 2), padding)
        self.norm2 = nn.BatchNorm3d(dim)
        self.act = nn.ReLU6()
        self.proj = nn.Conv3d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        x = self.act(self.norm2(self.conv2(x)))
        return self.proj(x).permute(0, 2, 3, 4, 1)  # (B, C, T, H, W) -> (B, T, H, W, C)


class Merge(nn.Module):
    """Batch norm, then one token for each 2x2: (B, T, H, W, dim) -> (B, T, ceil(H/2), ceil(W/2), dim_out)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.norm = BatchNorm(dim)
        self.reduction = Conv3d(dim, dim_out, (1, 2, 2), (1, 2, 2), bias=False, space_padding="ceil")

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).permute(0, 4, 1, 2, 3)  # (B, T, H, W, C) -> (B, C, T, H, W)
        return self.reduction(x).permute(0, 2, 3, 4, 1)


class ShuffleBlock(nn.Module):
    """Attention in windows or, with `shuffled`, in spread ones; a depthwise convolution; an MLP.

    All three are pre-norm (batch norm) and residual. forward: (B, T, H, W, C) -> the same shape. On a map
    that the windows do not fit, what is missing is padded and hidden; along an axis shorter than the window,
    the window is that axis.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        shuffled: bool,
        window: Sequence[int],
        local_kernel: Sequence[int],
        local_bias: bool,
        mlp_ratio: float,
        dropout_rate: float,
        drop_path_rate: float,
    ):
        super().__init__()
        self.window = triple(window)
        self.shuffled = shuffled
        self.norm1 = BatchNorm(dim)
        self.attn = GroupAttention(
            dim,
            num_heads,
            qkv_bias=False,
            position_bias=TableBias(self.window, num_heads),
            dropout_rate=dropout_rate,
        )
        self.norm2 = BatchNorm(dim)
        padding = [k // 2 for k in local_kernel]
        self.local = Conv3d(dim, dim, local_kernel, padding=padding, groups=dim, bias=local_bias)
        self.norm3 = BatchNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.mlp.act = nn.ReLU6()  # type: ignore[assignment]
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        group = clip_group(self.window, x.shape[1:4])
        interval = grid_interval(x.shape[1:4], group) if self.shuffled else ONES
        x = x + self.drop_path(self.attn.attend_volume(self.norm1(x), group, interval))
        local = self.local(self.norm2(x).permute(0, 4, 1, 2, 3))  # (B, T, H, W, C) -> (B, C, T, H, W)
        x = x + local.permute(0, 2, 3, 4, 1)
        return x + self.drop_path(self.mlp(self.norm3(x)))


class ShuffleTransformer(MeanClassifier):
    """Shuffle Transformer for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T, H and W will do.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)): the size that the model is meant for; no weight
        depends on it. in_channels, num_classes
      stem_dim: of the first convolution; temporal_stride: frames a token, by that convolution
      temporal_kernel: frames that the stem's convolutions see, odd. An image model has num_frames=1,
        temporal_stride=1, temporal_kernel=1, and a window and a local kernel of one frame.
    Blocks:
      embed_dims, depths, num_heads: width, number of blocks (even: windows and shuffled windows in turn) and
        heads of each stage; a stage whose width is another than the one before it halves H and W
      window: (t, h, w) tokens that attend among themselves; local_kernel: (t, h, w), odd, of the depthwise
        convolution, which has a bias with local_bias; mlp_ratio
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
        stem_dim: int = 32,
        temporal_stride: int = 2,
        temporal_kernel: int = 3,
        embed_dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Sequence[int] = (4, 7, 7),
        local_kernel: Sequence[int] = (3, 7, 7),
        local_bias: bool = True,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes, stem_dim=stem_dim)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_positive(mlp_ratio=mlp_ratio)
        check_stages({"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads})
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, sizes in (
            ("num_frames and image_size", (num_frames, height, width)),
            ("temporal_stride", (temporal_stride,)),
            ("window", window),
        ):
            if min(sizes) < 1:
                raise ValueError(f"{name} must be at least 1 along each axis, got {tuple(sizes)}")
        if any(depth % 2 for depth in depths):
            raise ValueError(
                f"depths={tuple(depths)} must be even, as windows and shuffled windows take turns; "
                f"use {tuple(depth + depth % 2 for depth in depths)}"
            )
        for name, kernel in (("temporal_kernel", [temporal_kernel]), ("local_kernel", local_kernel)):
            if any(k < 1 or k % 2 == 0 for k in kernel):
                raise ValueError(f"{name}={kernel} must be odd, such as 1, 3 or 7")
        self.in_channels = in_channels
        self.num_layers = sum(depths)
        self.depths = tuple(depths)

        self.stem = Stem(in_channels, stem_dim, embed_dims[0], temporal_stride, temporal_kernel)
        self.stages = nn.ModuleList()
        self.feature_info = []
        last_dim, side = embed_dims[0], 4
        for dim, heads, rates in zip(
            embed_dims, num_heads, drop_path_rates(drop_path_rate, depths), strict=True
        ):
            blocks = [
                ShuffleBlock(
                    dim=dim,
                    num_heads=heads,
                    shuffled=j % 2 == 1,
                    window=window,
                    local_kernel=local_kernel,
                    local_bias=local_bias,
                    mlp_ratio=mlp_ratio,
                    dropout_rate=dropout_rate,
                    drop_path_rate=rate,
                )
                for j, rate in enumerate(rates)
            ]
            merge = Merge(last_dim, dim) if dim != last_dim else None
            self.stages.append(Stage(blocks, merge=merge, activation_checkpointing=activation_checkpointing))
            side = side if merge is None else 2 * side
            block = f"stages.{len(self.stages) - 1}.blocks.{len(blocks) - 1}"
            self.feature_info.append(feature(block, dim, (temporal_stride, side, side)))
            last_dim = dim
        self.head = ClassifierHead(last_dim, num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        return self.head(self.forward_features(clip).mean(dim=(1, 2, 3)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C); the model has no norm after it."""
        x = self.stem(as_clip(clip, self.in_channels))
        for stage in self.stages:
            x = stage(x)
        return x

    def no_weight_decay(self) -> set[str]:
        """Full names of the position bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("position_bias.table")}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i (and the merge before it),
        num_layers + 1 the rest."""
        part, *rest = name.split(".")
        if part == "stem":
            return 0
        if part == "stages":
            return stage_layer_id(int(rest[0]), int(rest[2]) if rest[1] == "blocks" else 0, self.depths)
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises convolutions by their fan-out and Linears with a standard deviation of 0.02."""
        reset_pyramid(self)
        for module in self.modules():
            if isinstance(module, TableBias | nn.BatchNorm3d):
                module.reset_parameters()


# The published sizes. Parameters (400 classes) and GFLOPs (16 frames of 224 pixels) of the video models as
# counted here; of the image models: the official code, and the paper's ImageNet-1k accuracy at 224 pixels.


@register_model(ShuffleTransformer)
def shuffle_t() -> dict[str, Any]:
    """Shuffle-T: 28.7 M parameters, 43.5 GFLOPs (image model 28.5 M, 4.7, 82.4)."""
    return {}


@register_model(ShuffleTransformer)
def shuffle_s() -> dict[str, Any]:
    """Shuffle-S: 50.8 M parameters, 80.7 GFLOPs (image model 50.1 M, 9.0, 83.6)."""
    return {"depths": (2, 2, 18, 2)}


@register_model(ShuffleTransformer)
def shuffle_b() -> dict[str, Any]:
    """Shuffle-B: 89.4 M parameters, 137.9 GFLOPs (image model 88.4 M, 15.8, 84.0)."""
    return {**shuffle_s(), "embed_dims": (128, 256, 512, 1024), "num_heads": (4, 8, 16, 32)}


@register_model(ShuffleTransformer)
def shuffle_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10, "stem_dim": 16, "depths": (2, 2, 2)}
    sizes = {"embed_dims": (32, 64, 96), "num_heads": (1, 2, 3), "mlp_ratio": 2.0}
    return {**small, **sizes, "window": (2, 4, 4), "local_kernel": (3, 3, 3)}
