"""Swin Transformer (Liu et al., arXiv 2103.14030) and Video Swin Transformer (Liu et al., 2106.13230).

One class: an image Swin is the one whose patch and window are 1 along time. Parameter names are timm's.

Shape letters: B clips, T H W tokens along time, height and width, C channels, G windows of a clip, N tokens
of a window.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.checks import check_choice, check_counts, check_positive, check_rates
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_swin
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import (
    ONES,
    PAD_MASKS,
    ZEROS,
    clip_group,
    clip_shift,
    group_mask,
    padded_size,
    partition,
    unpartition,
)
from vidformers.layers.position_bias import TableBias
from vidformers.layers.pyramid import clip_of_side, drop_path_rates, stage_layer_id
from vidformers.layers.sizes import Grid, floor_divided, triple
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, stage_info

PADDING_STYLES = ("video_swin", "timm", "torchvision")
SMALL_WINDOW_BIASES = ("offset", "corner")


class SwinPatchEmbed(nn.Module):
    """Clip (B, C, T, H, W) -> normed tokens (B, T', H', W', dim), T' rounded up, H' and W' as
    `space_padding` of Conv3d says."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch_size: Grid,
        time_padding: str,
        norm_eps: float,
        space_padding: str = "ceil",
    ):
        super().__init__()
        self.proj = Conv3d(
            in_channels,
            dim,
            patch_size,
            patch_size,
            time_padding=time_padding,
            space_padding=space_padding,
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, clip: Tensor) -> Tensor:
        return self.norm(self.proj(clip).permute(0, 2, 3, 4, 1))  # (B, C, T, H, W) -> (B, T, H, W, C)


class PatchMerging(nn.Module):
    """Halves height and width, doubles the channels; odd sizes are padded with a row or column of zeros."""

    def __init__(self, dim: int, norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2:
            x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))  # (B, T, H/2, W/2, 4C -> 2C)


class SwinBlock(nn.Module):
    """Attention in windows, then MLP; both pre-norm and residual. (B, T, H, W, C) -> the same."""

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window: Grid,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_eps: float,
        corner_bias: bool,
        pad_mask: str,
        roll_before_padding: bool,
        dropout_rate: float,
        drop_path_rate: float,
    ):
        super().__init__()
        self.pad_mask = pad_mask
        self.roll_before_padding = roll_before_padding
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        bias = TableBias(window, num_heads, corner=corner_bias)
        self.attn = GroupAttention(
            dim, num_heads, qkv_bias=qkv_bias, position_bias=bias, dropout_rate=dropout_rate
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)

    def forward(self, x: Tensor, window: Grid, shift: Grid) -> Tensor:
        """window and shift: those of this map."""
        x = x + self.drop_path(self._attend(self.norm1(x), window, shift))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, window: Grid, shift: Grid) -> Tensor:
        size, plane = triple(x.shape[1:4]), shift[1:]
        if not (self.roll_before_padding and any(plane)) or padded_size(size, window)[1:] == size[1:]:
            return self.attn.attend_volume(x, window, shift=shift, pad_mask=self.pad_mask)
        # The masks are those of the whole shift.
        mask = group_mask(size, window, ONES, shift, pad_mask=self.pad_mask, device=x.device)
        x, in_time = x.roll([-s for s in plane], dims=(2, 3)), (shift[0], 0, 0)
        groups = partition(x, window, shift=in_time)  # (B, T, H, W, C) -> (B*G, N, C)
        x = unpartition(self.attn(groups, window, mask), size, window, shift=in_time)
        return x.roll(plane, dims=(2, 3))


class SwinStage(nn.Module):
    """Merging, if any, and blocks; every second one shifts its windows by half."""

    def __init__(
        self,
        *,
        dim: int,
        window: Grid,
        merges: bool,
        norm_eps: float,
        clips_plane: bool,
        drop_path_rates: Sequence[float],
        activation_checkpointing: bool,
        **block_arguments: Any,
    ):
        super().__init__()
        self.window = window
        self.clips_plane = clips_plane
        self.activation_checkpointing = activation_checkpointing
        self.downsample = PatchMerging(dim // 2, norm_eps) if merges else None
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim=dim,
                window=window,
                norm_eps=norm_eps,
                drop_path_rate=rate,
                **block_arguments,
            )
            for rate in drop_path_rates
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        size = x.shape[1:4]
        window = clip_group(self.window, size)
        if not self.clips_plane:
            window = (window[0], self.window[1], self.window[2])
        half = triple([w // 2 for w in self.window])
        shifts = (ZEROS, clip_shift(half, self.window, size))
        for j, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, window, shifts[j % 2], use_reentrant=False)
            else:
                x = block(x, window, shifts[j % 2])
        return x


class Swin(MeanClassifier):
    """Swin Transformer for clips and for images: attention in shifted windows over time and space.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T, H and W: what does not fill a patch or a window is padded,
    and a window longer than an axis is clipped to it.

    Input:
      num_frames, image_size (pixels, int or (height, width)): what the model is made for; no parameter
        depends on them
      in_channels, num_classes
      patch_size: (t, h, w) of the patch embedding, without overlap; (1, 4, 4) for an image model
    Stages:
      embed_dim: channels of the first stage; each further one has twice as many, on half the height and width
      depths, num_heads: of each stage
      window: (t, h, w) in tokens, shifted by half in every second block; (1, 7, 7) for an image model
      mlp_ratio, qkv_bias, norm_eps
    Padding (the defaults keep a clip of equal frames at the image's logits, whatever its length):
      pad_mask: which padded tokens are hidden in attention: "time", "all", or "none", as Video Swin and
        torchvision have it
      patch_time_padding: frames that fill the last patch: "replicate" or, as Video Swin, "zero"
      padding_style: "video_swin" pads, then shifts; "timm" shifts before it pads height and width;
        "torchvision", its image model, pads a small map up to the window and does not clip it. They differ
        for maps that the window does not divide, and for frames that the patch does not divide: the image
        models drop the rows and columns that are left over.
      small_window_bias: "offset" looks a clipped window's bias up by its true offsets; "corner" takes the
        first rows and columns of the whole window's, as Video Swin: another bias if height or width is
        clipped (inputs below 224 pixels at the published sizes)
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (in attention's and MLP's
      outputs and after the patch embedding), head_dropout_rate, activation_checkpointing (recompute blocks in
      the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        patch_size: Sequence[int] = (2, 4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Sequence[int] = (8, 7, 7),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-5,
        pad_mask: str = "time",
        patch_time_padding: str = "replicate",
        padding_style: str = "video_swin",
        small_window_bias: str = "offset",
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes, embed_dim=embed_dim)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        check_choice("pad_mask", pad_mask, tuple(PAD_MASKS))
        check_choice("padding_style", padding_style, PADDING_STYLES)
        check_choice("small_window_bias", small_window_bias, SMALL_WINDOW_BIASES)
        if len(depths) != len(num_heads):
            raise ValueError(
                f"depths={tuple(depths)} has {len(depths)} stages and num_heads={tuple(num_heads)} has "
                f"{len(num_heads)}; give both the same number"
            )
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        clip_size = triple((num_frames, height, width))
        self.patch_size, self.window = triple(patch_size), triple(window)
        for name, sizes in (
            ("num_frames and image_size", clip_size),
            ("patch_size", self.patch_size),
            ("window", self.window),
            ("depths", depths),
            ("num_heads", num_heads),
        ):
            if min(sizes) < 1:
                raise ValueError(f"{name} must be at least 1 everywhere, got {tuple(sizes)}")
        if padding_style == "timm" and pad_mask == "all":
            raise ValueError("padding_style='timm' shows padded height and width; use pad_mask='time'")

        pads_frames = padding_style == "video_swin"
        self.smallest_side = 1 if pads_frames else max(self.patch_size[1:])
        if min(height, width) < self.smallest_side:
            raise ValueError(
                f"image_size={image_size} is less than a patch of {self.patch_size[1:]}; use a larger one, "
                "or padding_style='video_swin', which pads"
            )
        # Tokens of the first stage for the input that the model is made for; time is always padded.
        rounded_up = triple([-(-n // p) for n, p in zip(clip_size, self.patch_size, strict=True)])
        rounded_down = floor_divided(clip_size, self.patch_size)
        self.grid = rounded_up if pads_frames else (rounded_up[0], *rounded_down[1:])

        self.in_channels = in_channels
        self.depths = tuple(depths)
        self.num_layers = sum(depths)
        self.patch_embed = SwinPatchEmbed(
            in_channels,
            embed_dim,
            self.patch_size,
            patch_time_padding,
            norm_eps,
            "ceil" if pads_frames else "zero",
        )
        self.pos_drop = nn.Dropout(dropout_rate)
        self.layers = nn.ModuleList()
        for i, (rates, heads) in enumerate(
            zip(drop_path_rates(drop_path_rate, depths), num_heads, strict=True)
        ):
            dim = embed_dim * 2**i
            if dim % heads:
                raise ValueError(
                    f"stage {i} has width {dim} (embed_dim={embed_dim} doubled {i} times), which "
                    f"num_heads[{i}]={heads} does not divide; change one of them"
                )
            stage = SwinStage(
                dim=dim,
                num_heads=heads,
                window=self.window,
                merges=i > 0,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                norm_eps=norm_eps,
                pad_mask=pad_mask,
                clips_plane=padding_style != "torchvision",
                corner_bias=small_window_bias == "corner",
                roll_before_padding=padding_style == "timm",
                dropout_rate=dropout_rate,
                drop_path_rates=rates,
                activation_checkpointing=activation_checkpointing,
            )
            self.layers.append(stage)
        dims = [embed_dim * 2**i for i in range(len(depths))]
        self.feature_info = stage_info("layers.{stage}.blocks.{block}", dims, depths, first=self.patch_size)
        self.norm = nn.LayerNorm(dims[-1], eps=norm_eps)
        self.head = ClassifierHead(dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        return self.head(self.forward_features(clip).mean(dim=(1, 2, 3)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C), normed."""
        clip = clip_of_side(clip, self.in_channels, self.smallest_side)
        x = self.pos_drop(self.patch_embed(clip))
        for stage in self.layers:
            x = stage(x)
        return self.norm(x)

    def no_weight_decay(self) -> set[str]:
        """Full names of the position bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("position_bias.table")}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the patch embedding, 1 the first block, ...,
        num_layers + 1 the last norm and the head. A merging counts with the block after it."""
        if name.startswith("patch_embed."):
            return 0
        if not name.startswith("layers."):
            return self.num_layers + 1
        _, stage, part, block, *_ = name.split(".")
        return stage_layer_id(int(stage), int(block) if part == "blocks" else 0, self.depths)

    def reset_parameters(self) -> None:
        """Initialises as the published code: Linears and tables normal (0.02), biases 0."""
        reset_swin(self)


# The published sizes. Parameters and GFLOPs (of one clip of the default size, of images of 224 pixels) as
# counted here; accuracies: the papers' repositories, of Video Swin-L the paper.


def _small() -> dict[str, Any]:
    return {"depths": (2, 2, 18, 2)}


def _base() -> dict[str, Any]:
    return {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}


def _large() -> dict[str, Any]:
    return {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)}


_PUBLISHED_VIDEO: dict[str, Any] = {
    "num_frames": 32,
    "pad_mask": "none",
    "patch_time_padding": "zero",
    "small_window_bias": "corner",
}


@register_model(Swin)
def swin_t() -> dict[str, Any]:
    """Swin-T for clips of 16 frames, made to start from ImageNet weights (28.3 M there, 4.5 GFLOPs, 81.2)."""
    return {}


@register_model(Swin)
def swin_s() -> dict[str, Any]:
    """Swin-S for clips of 16 frames, made to start from ImageNet weights (49.6 M there, 8.8 GFLOPs, 83.2)."""
    return _small()


@register_model(Swin)
def swin_b() -> dict[str, Any]:
    """Swin-B for clips of 16 frames, made to start from ImageNet weights (87.8 M there, 15.5 GFLOPs,
    83.5)."""
    return _base()


@register_model(Swin)
def swin_l() -> dict[str, Any]:
    """Swin-L for clips of 16 frames, made to start from ImageNet weights (196.5 M there, 34.5 GFLOPs, 86.3
    after ImageNet-22k)."""
    return _large()


@register_model(Swin)
def swin3d_t() -> dict[str, Any]:
    """Video Swin-T, padding as published: 28.2 M, 88.1 GFLOPs (32x224x224), Kinetics-400 78.8."""
    return _PUBLISHED_VIDEO


@register_model(Swin)
def swin3d_s() -> dict[str, Any]:
    """Video Swin-S, padding as published: 49.8 M, 166.1 GFLOPs (32x224x224), Kinetics-400 80.6."""
    return {**_PUBLISHED_VIDEO, **_small()}


@register_model(Swin)
def swin3d_b() -> dict[str, Any]:
    """Video Swin-B, padding as published: 88.0 M, 281.9 GFLOPs (32x224x224), Kinetics-400 80.6, and 82.7
    after pre-training on ImageNet-22k."""
    return {**_PUBLISHED_VIDEO, **_base()}


@register_model(Swin)
def swin3d_l() -> dict[str, Any]:
    """Video Swin-L, padding as published: 197.0 M, 604 GFLOPs (32x224x224), Kinetics-400 83.1 after
    pre-training on ImageNet-22k."""
    return {**_PUBLISHED_VIDEO, **_large()}


@register_model(Swin)
def swin3d_l_384() -> dict[str, Any]:
    """Video Swin-L at 384 pixels, windows of 12: 200.0 M, 2109 GFLOPs, Kinetics-400 84.9 after pre-training
    on ImageNet-22k."""
    return {**swin3d_l(), "image_size": 384, "window": (8, 12, 12)}


@register_model(Swin)
def swin3d_b_ssv2() -> dict[str, Any]:
    """Video Swin-B for Something-Something v2, its window twice as long: 88.8 M, 320.9 GFLOPs, 69.6."""
    return {**swin3d_b(), "window": (16, 7, 7), "num_classes": 174}


@register_model(Swin)
def swin_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "embed_dim": 24,
        "depths": (2, 2, 2),
        "num_heads": (1, 2, 4),
        "window": (4, 4, 4),
    }
