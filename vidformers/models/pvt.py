"""Pyramid Vision Transformer: PVT (Wang et al., arXiv 2102.12122), extended in time.

Four stages of attention to a spatially (here also temporally) reduced map, an absolute position embedding at
the start of each stage, and a class token in the last one. Block arithmetic follows the official code.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"; in the last stage a class
token comes before them, as token 0), C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
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
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.position import resize_temporal
from vidformers.layers.pyramid import (
    PyramidBlock,
    StageEmbed,
    clip_of_side,
    drop_path_rates,
    run_blocks,
    stage_layer_id,
    to_volume,
)
from vidformers.layers.sizes import Grid
from vidformers.layers.subsampled_attention import SubsampledAttention
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import VideoClassifier, stage_info


def resize_plane(embedding: Tensor, old_size: Sequence[int], new_size: Sequence[int]) -> Tensor:
    """(1, H*W, C) -> (1, H'*W', C), bilinear, align_corners False, as the official PVT does."""
    if tuple(old_size) == tuple(new_size):
        return embedding
    plane = embedding.transpose(1, 2).unflatten(2, tuple(old_size))  # (1, C, H, W)
    return F.interpolate(plane, size=tuple(new_size), mode="bilinear").flatten(2).transpose(1, 2)


class PVT(VideoClassifier):
    """Pyramid Vision Transformer (v1) for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). T, H and W may differ from `num_frames` and `image_size`: position
    embeddings are interpolated; a last tubelet that is not full repeats the last frame.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      tubelet_size, patch_size: of the first embedding, in frames and pixels; later stages halve H and W only
      temporal_position: a learned embedding of the frame beside the spatial one, in each stage. An image
        model has tubelet_size=1, temporal_position=False, num_frames=1 and reductions of 1 in time.
    Blocks (one entry a stage):
      embed_dims, depths, num_heads, mlp_ratios
      sr_ratios: (t, h, w), how much the map that keys and values come from is reduced; the last stage, where
        the class token is, must have (1, 1, 1)
      qkv_bias, norm_eps
      class_token_log_frames: add log(frames) to the class key: for image weights run on clips
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
        temporal_position: bool = True,
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[Sequence[int]] = ((2, 8, 8), (2, 4, 4), (2, 2, 2), (1, 1, 1)),
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        class_token_log_frames: bool = False,
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
            patch_size=patch_size,
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
        if reductions[-1] != (1, 1, 1):
            raise ValueError(
                f"the last stage has a class token and cannot be reduced, but sr_ratios ends in "
                f"{reductions[-1]}; use (1, 1, 1) there"
            )
        self.in_channels = in_channels
        self.depths = tuple(depths)
        self.num_layers = sum(depths)
        self.smallest_side = patch_size * 2 ** (len(depths) - 1)
        self.activation_checkpointing = activation_checkpointing
        frames, height, width = declared_size(
            num_frames, tubelet_size, height_and_width(image_size), self.smallest_side
        )

        self.grids: list[Grid] = []  # of each stage, for the size that the model is built for
        self.patch_embeds = nn.ModuleList()
        self.pos_embed_spatial = nn.ParameterList()
        self.pos_embed_temporal = nn.ParameterList() if temporal_position else None
        self.blocks = nn.ModuleList()
        rates = drop_path_rates(drop_path_rate, depths)
        for i, dim in enumerate(embed_dims):
            step = patch_size if i == 0 else 2
            tubelet = tubelet_size if i == 0 else 1
            cell = (tubelet, step, step)
            in_dim = in_channels if i == 0 else embed_dims[i - 1]
            self.patch_embeds.append(StageEmbed(in_dim, dim, kernel=cell, stride=cell))
            frames, height, width = -(-frames // tubelet), height // step, width // step
            self.grids.append((frames, height, width))
            self.pos_embed_spatial.append(nn.Parameter(torch.empty(1, height * width, dim)))
            if self.pos_embed_temporal is not None:
                self.pos_embed_temporal.append(nn.Parameter(torch.empty(1, frames, dim)))
            is_last = i == len(embed_dims) - 1
            blocks = [
                PyramidBlock(
                    dim,
                    SubsampledAttention(
                        dim,
                        num_heads[i],
                        reduction=reductions[i],
                        qkv_bias=qkv_bias,
                        dropout_rate=dropout_rate,
                        class_token_log_frames=class_token_log_frames and is_last,
                    ),
                    mlp_ratio=mlp_ratios[i],
                    norm_eps=norm_eps,
                    dropout_rate=dropout_rate,
                    drop_path_rate=rate,
                )
                for rate in rates[i]
            ]
            self.blocks.append(nn.ModuleList(blocks))
        dim = embed_dims[-1]
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed_class = nn.Parameter(torch.empty(1, 1, dim))
        first = (tubelet_size, patch_size, patch_size)
        self.feature_info = stage_info("blocks.{stage}.{block}", embed_dims, depths, first=first)
        self.pos_drop = nn.Dropout(dropout_rate)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.head = ClassifierHead(dim, num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x, _ = self.forward_tokens(clip)
        return self.head(self.norm(x)[:, 0])

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm, without the class token."""
        x, grid = self.forward_tokens(clip)
        return self.norm(x)[:, 1:].unflatten(1, grid)

    def forward_tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> tokens (B, 1 + T'*H'*W', C) after the last block, not yet normed, and their grid."""
        volume = clip_of_side(clip, self.in_channels, self.smallest_side)
        last = len(self.blocks) - 1
        for i, (embed, blocks) in enumerate(zip(self.patch_embeds, self.blocks, strict=True)):
            x, grid = embed(volume)
            x = x + self._position(i, grid)
            if i == last:
                class_token = self.cls_token + self.pos_embed_class
                x = torch.cat([class_token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
            x = self.pos_drop(x)
            x = run_blocks(blocks, x, grid, recompute=self.activation_checkpointing)
            if i < last:
                volume = to_volume(x, grid)
        return x, grid

    def no_weight_decay(self) -> set[str]:
        """Full names of the position and class embedding parameters."""
        return {n for n, _ in self.named_parameters() if n.startswith(("pos_embed", "cls_token"))}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest.

        A later stage's embedding and positions count as its first block, the class token as the last
        stage's.
        """
        if name.startswith(("cls_token", "pos_embed_class")):
            return stage_layer_id(len(self.depths) - 1, 0, self.depths)
        kind, stage, *rest = name.split(".")
        if kind in ("patch_embeds", "pos_embed_spatial", "pos_embed_temporal"):
            return 0 if stage == "0" else stage_layer_id(int(stage), 0, self.depths)
        if kind == "blocks":
            return stage_layer_id(int(stage), int(rest[0]), self.depths)
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises all weights anew."""
        reset_pyramid(self)
        for name, parameter in self.named_parameters():
            if name.startswith(("pos_embed", "cls_token")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def _position(self, stage: int, grid: Grid) -> Tensor:
        """Position embedding of the patches of a grid: (1, T*H*W, C)."""
        position = resize_plane(self.pos_embed_spatial[stage], self.grids[stage][1:], grid[1:])[:, None]
        if self.pos_embed_temporal is not None:
            position = position + resize_temporal(self.pos_embed_temporal[stage], grid[0])[:, :, None]
        # (1, T or 1, H*W, C) -> (1, T*H*W, C)
        return position.expand(-1, grid[0], -1, -1).flatten(1, 2)


# The published sizes, with clips of 16 frames. Parameters and GFLOPs: of a 16x224x224 clip, 400 classes, by
# vidformers.analysis.complexity, and of the image models with 1000 classes, whose accuracies are the papers'.


@register_model(PVT)
def pvt_t() -> dict[str, Any]:
    """PVT-Tiny: 14.8 M parameters, 17.5 GFLOPs; for images 13.2 M, 1.9 GFLOPs, ImageNet-1k 75.1."""
    return {"depths": (2, 2, 2, 2)}


@register_model(PVT)
def pvt_s() -> dict[str, Any]:
    """PVT-Small: 28.5 M parameters, 34.1 GFLOPs; for images 24.5 M, 3.8 GFLOPs, ImageNet-1k 79.8."""
    return {"depths": (3, 4, 6, 3)}


@register_model(PVT)
def pvt_m() -> dict[str, Any]:
    """PVT-Medium: 53.1 M parameters, 58.2 GFLOPs; for images 44.2 M, 6.7 GFLOPs, ImageNet-1k 81.2."""
    return {"depths": (3, 4, 18, 3)}


@register_model(PVT)
def pvt_l() -> dict[str, Any]:
    """PVT-Large: 75.0 M parameters, 85.4 GFLOPs; for images 61.4 M, 9.8 GFLOPs, ImageNet-1k 81.7."""
    return {"depths": (3, 8, 27, 3)}


@register_model(PVT)
def pvt_tiny() -> dict[str, Any]:
    """Not published (PVT-Tiny is pvt_t): for tests and for training on a CPU. 8 frames of 64 pixels."""
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
