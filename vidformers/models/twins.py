"""Twins (Chu et al., arXiv 2104.13840): Twins-PCPVT and Twins-SVT, extended in time.

Pyramids with a positional encoding generator after the first block of each stage and no other position.
PCPVT's blocks all attend to a reduced map; SVT alternates attention within local windows (here of space and
time) and to a reduced map. Parameter names and arithmetic follow timm and the official code.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"), C channels.
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
    check_stages,
    checked_triple,
    declared_size,
    height_and_width,
)
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.partition import PAD_MASKS
from vidformers.layers.peg import PositionalEncodingGenerator
from vidformers.layers.pyramid import (
    PyramidBlock,
    StageEmbed,
    clip_of_side,
    drop_path_rates,
    run_blocks,
    stage_layer_id,
    to_volume,
)
from vidformers.layers.sizes import Grid, triple
from vidformers.layers.subsampled_attention import SubsampledAttention
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, stage_info


class LocalBlock(PyramidBlock):
    """A block with locally-grouped attention (section 3.2): within windows of (t, h, w) tokens.

    forward: tokens (B, T*H*W, dim) and their grid -> the same shape. A window is at most as long as the clip.
    In H and W the map is padded to whole windows, also where it is smaller than one, as in timm.
    """

    attn: GroupAttention

    def __init__(
        self, dim: int, attention: GroupAttention, *, window: Sequence[int], pad_mask: str, **arguments: Any
    ):
        super().__init__(dim, attention, **arguments)
        self.window = triple(window)
        self.pad_mask = pad_mask

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        frames, height, width = self.window
        window = (min(frames, grid[0]), height, width)
        volume = self.norm1(x).unflatten(1, grid)  # (B, T*H*W, C) -> (B, T, H, W, C)
        volume = self.attn.attend_volume(volume, window, pad_mask=self.pad_mask)
        x = x + self.drop_path(volume.flatten(1, 3))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class _Twins(MeanClassifier):
    """What the two have in common; `window_sizes` is None for PCPVT."""

    def __init__(
        self,
        *,
        num_frames: int,
        image_size: int | Sequence[int],
        in_channels: int,
        num_classes: int,
        tubelet_size: int,
        patch_size: int,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratios: Sequence[float],
        sr_ratios: Sequence[Sequence[int]],
        window_sizes: Sequence[Sequence[int]] | None,
        pad_mask: str,
        peg_kernel: Sequence[int],
        qkv_bias: bool,
        norm_eps: float,
        drop_path_rate: float,
        dropout_rate: float,
        head_dropout_rate: float,
        activation_checkpointing: bool,
    ):
        super().__init__()
        check_counts(
            num_frames=num_frames,
            in_channels=in_channels,
            num_classes=num_classes,
            tubelet_size=tubelet_size,
            patch_size=patch_size,
        )
        check_positive(norm_eps=norm_eps)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        by_stage = {
            "embed_dims": embed_dims,
            "depths": depths,
            "num_heads": num_heads,
            "mlp_ratios": mlp_ratios,
            "sr_ratios": sr_ratios,
        }
        check_stages(by_stage if window_sizes is None else {**by_stage, "window_sizes": window_sizes})
        check_choice("pad_mask", pad_mask, list(PAD_MASKS))
        checked_triple("peg_kernel", peg_kernel)
        reductions = [checked_triple(f"sr_ratios[{i}]", ratio) for i, ratio in enumerate(sr_ratios)]
        windows = [checked_triple(f"window_sizes[{i}]", size) for i, size in enumerate(window_sizes or ())]
        self.in_channels = in_channels
        self.depths = tuple(depths)
        self.num_layers = sum(depths)
        self.smallest_side = patch_size * 2 ** (len(depths) - 1)
        self.activation_checkpointing = activation_checkpointing
        declared_size(num_frames, tubelet_size, height_and_width(image_size), self.smallest_side)

        self.patch_embeds = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.pos_block = nn.ModuleList()
        rates = drop_path_rates(drop_path_rate, depths)
        for i, dim in enumerate(embed_dims):
            cell = (tubelet_size, patch_size, patch_size) if i == 0 else (1, 2, 2)
            in_dim = in_channels if i == 0 else embed_dims[i - 1]
            self.patch_embeds.append(StageEmbed(in_dim, dim, kernel=cell, stride=cell))
            blocks: list[PyramidBlock] = []
            for j, rate in enumerate(rates[i]):
                common = {
                    "mlp_ratio": mlp_ratios[i],
                    "norm_eps": norm_eps,
                    "dropout_rate": dropout_rate,
                    "drop_path_rate": rate,
                }
                if windows and j % 2 == 0:
                    local = GroupAttention(dim, num_heads[i], qkv_bias=qkv_bias, dropout_rate=dropout_rate)
                    blocks.append(LocalBlock(dim, local, window=windows[i], pad_mask=pad_mask, **common))
                else:
                    reduced = SubsampledAttention(
                        dim,
                        num_heads[i],
                        reduction=reductions[i],
                        qkv_bias=qkv_bias,
                        dropout_rate=dropout_rate,
                    )
                    blocks.append(PyramidBlock(dim, reduced, **common))
            self.blocks.append(nn.ModuleList(blocks))
            self.pos_block.append(PositionalEncodingGenerator(dim, peg_kernel))
        first = (tubelet_size, patch_size, patch_size)
        self.feature_info = stage_info("blocks.{stage}.{block}", embed_dims, depths, first=first)
        self.pos_drop = nn.Dropout(dropout_rate)
        self.norm = nn.LayerNorm(embed_dims[-1], eps=norm_eps)
        self.head = ClassifierHead(embed_dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x, _ = self.forward_tokens(clip)
        return self.head(self.norm(x).mean(dim=1))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm."""
        x, grid = self.forward_tokens(clip)
        return self.norm(x).unflatten(1, grid)

    def forward_tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> tokens (B, T'*H'*W', C) after the last block, not yet normed, and their grid."""
        volume = clip_of_side(clip, self.in_channels, self.smallest_side)
        for embed, blocks, peg in zip(self.patch_embeds, self.blocks, self.pos_block, strict=True):
            x, grid = embed(volume)
            x = self.pos_drop(x)
            x = run_blocks(blocks, x, grid, recompute=self.activation_checkpointing, peg=peg)
            volume = to_volume(x, grid)
        return x, grid

    def no_weight_decay(self) -> set[str]:
        """Full names of the positional encoding generators' parameters, as in the official code."""
        return {n for n, _ in self.named_parameters() if n.startswith("pos_block.")}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest.

        A later stage's embedding and a stage's positional encoding generator count as its first block.
        """
        kind, stage, *rest = name.split(".")
        if kind == "patch_embeds" and stage == "0":
            return 0
        if kind in ("patch_embeds", "pos_block"):
            return stage_layer_id(int(stage), 0, self.depths)
        if kind == "blocks":
            return stage_layer_id(int(stage), int(rest[0]), self.depths)
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises all weights anew."""
        reset_pyramid(self)


class TwinsPCPVT(_Twins):
    """Twins-PCPVT, a PVT with conditional position encoding, for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). T, H and W may differ from `num_frames` and `image_size`, on which
    nothing depends; a last tubelet that is not full repeats the last frame; pixels beyond whole patches are
    dropped.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      tubelet_size, patch_size: of the first embedding, in frames and pixels; later stages halve H and W
        only. An image model has tubelet_size=1, reductions of 1 in time and peg_kernel=(1, 3, 3).
    Blocks (one entry a stage):
      embed_dims, depths, num_heads, mlp_ratios
      sr_ratios: (t, h, w), how much the map that keys and values come from is reduced
      peg_kernel: (t, h, w) of the positional encoding generators, of all stages
      qkv_bias, norm_eps
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (tokens and branches),
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
        patch_size: int = 4,
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[Sequence[int]] = ((2, 8, 8), (2, 4, 4), (2, 2, 2), (1, 1, 1)),
        peg_kernel: Sequence[int] = (3, 3, 3),
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__(
            num_frames=num_frames,
            image_size=image_size,
            in_channels=in_channels,
            num_classes=num_classes,
            tubelet_size=tubelet_size,
            patch_size=patch_size,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            sr_ratios=sr_ratios,
            window_sizes=None,
            pad_mask="time",
            peg_kernel=peg_kernel,
            qkv_bias=qkv_bias,
            norm_eps=norm_eps,
            drop_path_rate=drop_path_rate,
            dropout_rate=dropout_rate,
            head_dropout_rate=head_dropout_rate,
            activation_checkpointing=activation_checkpointing,
        )


class TwinsSVT(_Twins):
    """Twins-SVT: blocks 0, 2, ... of a stage attend within windows, blocks 1, 3, ... to a reduced map.

    forward and arguments as `TwinsPCPVT`; besides:
      window_sizes: (t, h, w) of each stage's windows, in tokens; an image model has t = 1
      pad_mask: which tokens of the padding to whole windows are hidden: "time" (those in H and W are seen,
        as in timm; the published sizes at 224 pixels have none), "all" (as the official segmentation code
        means to), or "none" (then still clips do not give the image logits)
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        tubelet_size: int = 2,
        patch_size: int = 4,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 10, 4),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        sr_ratios: Sequence[Sequence[int]] = ((2, 8, 8), (2, 4, 4), (2, 2, 2), (1, 1, 1)),
        window_sizes: Sequence[Sequence[int]] = ((4, 7, 7), (4, 7, 7), (4, 7, 7), (4, 7, 7)),
        pad_mask: str = "time",
        peg_kernel: Sequence[int] = (3, 3, 3),
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__(
            num_frames=num_frames,
            image_size=image_size,
            in_channels=in_channels,
            num_classes=num_classes,
            tubelet_size=tubelet_size,
            patch_size=patch_size,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            sr_ratios=sr_ratios,
            window_sizes=window_sizes,
            pad_mask=pad_mask,
            peg_kernel=peg_kernel,
            qkv_bias=qkv_bias,
            norm_eps=norm_eps,
            drop_path_rate=drop_path_rate,
            dropout_rate=dropout_rate,
            head_dropout_rate=head_dropout_rate,
            activation_checkpointing=activation_checkpointing,
        )


# The published sizes, with clips of 16 frames. Parameters and GFLOPs: of a 16x224x224 clip, 400 classes, by
# vidformers.analysis.complexity, and of the image models with 1000 classes, whose accuracies are the papers'.


@register_model(TwinsPCPVT)
def twins_pcpvt_s() -> dict[str, Any]:
    """Twins-PCPVT-S: 28.1 M parameters, 34.1 GFLOPs; for images 24.1 M, 3.8 GFLOPs, ImageNet-1k 81.2."""
    return {"depths": (3, 4, 6, 3)}


@register_model(TwinsPCPVT)
def twins_pcpvt_b() -> dict[str, Any]:
    """Twins-PCPVT-B: 52.7 M parameters, 58.2 GFLOPs; for images 43.8 M, 6.7 GFLOPs, ImageNet-1k 82.7."""
    return {"depths": (3, 4, 18, 3)}


@register_model(TwinsPCPVT)
def twins_pcpvt_l() -> dict[str, Any]:
    """Twins-PCPVT-L: 74.6 M parameters, 85.4 GFLOPs; for images 61.0 M, 9.8 GFLOPs, ImageNet-1k 83.1."""
    return {"depths": (3, 8, 27, 3)}


@register_model(TwinsPCPVT)
def twins_pcpvt_tiny() -> dict[str, Any]:
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


@register_model(TwinsSVT)
def twins_svt_s() -> dict[str, Any]:
    """Twins-SVT-S: 25.6 M parameters, 26.5 GFLOPs; for images 24.1 M, 2.9 GFLOPs, ImageNet-1k 81.7."""
    return {"embed_dims": (64, 128, 256, 512), "depths": (2, 2, 10, 4), "num_heads": (2, 4, 8, 16)}


@register_model(TwinsSVT)
def twins_svt_b() -> dict[str, Any]:
    """Twins-SVT-B: 62.1 M parameters, 74.0 GFLOPs; for images 56.1 M, 8.6 GFLOPs, ImageNet-1k 83.2."""
    return {"embed_dims": (96, 192, 384, 768), "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}


@register_model(TwinsSVT)
def twins_svt_l() -> dict[str, Any]:
    """Twins-SVT-L: 110.2 M parameters, 128.0 GFLOPs; for images 99.3 M, 15.1 GFLOPs, ImageNet-1k 83.7."""
    return {"embed_dims": (128, 256, 512, 1024), "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}


@register_model(TwinsSVT)
def twins_svt_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "embed_dims": (16, 32, 64),
        "depths": (2, 2, 2),
        "num_heads": (1, 2, 4),
        "mlp_ratios": (4, 4, 2),
        "sr_ratios": ((2, 4, 4), (1, 2, 2), (1, 1, 1)),
        "window_sizes": ((2, 4, 4), (2, 4, 4), (2, 4, 4)),
    }
