"""Conditional Position encoding Vision Transformer: CPVT (Chu et al., arXiv 2102.10882), extended in time.

A plain vision transformer without position embedding, but with a positional encoding generator after its
first block. There is no official code: names and arithmetic are those of timm's ViT.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"; a class token comes before
them, as token 0), C channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.checks import (
    check_counts,
    check_heads,
    check_positive,
    check_rates,
    declared_size,
    height_and_width,
)
from vidformers.layers.conv import Conv3d
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_pyramid
from vidformers.layers.peg import PositionalEncodingGenerator
from vidformers.layers.pyramid import PyramidBlock, clip_of_side, drop_path_rates
from vidformers.layers.sizes import Grid, triple
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import VideoClassifier, feature


class JointAttention(GroupAttention):
    """Attention among all tokens. forward: (B, [1 +] T*H*W, dim), grid -> the same shape.

    `class_token_log_frames` adds log(T) to the key of token 0, the class token.
    """

    def __init__(self, dim: int, num_heads: int, *, class_token_log_frames: bool, **arguments: Any):
        super().__init__(dim, num_heads, **arguments)
        self.class_token_log_frames = class_token_log_frames

    def forward(self, x: Tensor, grid: Grid) -> Tensor:  # type: ignore[override]
        if not self.class_token_log_frames:
            return super().forward(x, grid)
        return super().forward(x, grid, num_prefix=1, prefix_logit=x.new_full((), math.log(grid[0])))


class PatchEmbed(nn.Module):
    """Tubelets to tokens. forward: (B, in_channels, T, H, W) -> (B, T'*H'*W', dim), grid; T' rounded up."""

    def __init__(self, in_channels: int, dim: int, cell: Sequence[int]):
        super().__init__()
        self.proj = Conv3d(in_channels, dim, cell, cell, time_padding="replicate")

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        volume = self.proj(clip)
        return volume.flatten(2).transpose(1, 2), triple(volume.shape[2:])


class CPVT(VideoClassifier):
    """Conditional position encoding vision transformer for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). T, H and W may differ from `num_frames` and `image_size`, on which
    nothing depends; a last tubelet that is not full repeats the last frame; pixels beyond whole patches are
    dropped.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      tubelet_size, patch_size: of a token, in frames and pixels. An image model has tubelet_size=1 and
        peg_kernel=(1, 3, 3).
    Blocks:
      embed_dim, depth, num_heads, mlp_ratio, qkv_bias, norm_eps
      peg_after_block, peg_kernel (t, h, w): place and kernel of the positional encoding generator, which the
        class token bypasses
    Output:
      class_token: the head sees norm(x)[0]; without one (the paper's CPVT-GAP) norm(mean of the patches)
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
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        peg_after_block: int = 0,
        peg_kernel: Sequence[int] = (3, 3, 3),
        class_token: bool = True,
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
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        declared_size(num_frames, tubelet_size, height_and_width(image_size), patch_size)
        check_heads(embed_dim, num_heads)
        if not 0 <= peg_after_block < depth:
            raise ValueError(f"peg_after_block={peg_after_block} is none of the blocks 0 to {depth - 1}")
        if class_token_log_frames and not class_token:
            raise ValueError("class_token_log_frames=True needs class_token=True")
        self.in_channels = in_channels
        self.num_layers = depth
        self.smallest_side = patch_size
        self.peg_after_block = peg_after_block
        self.activation_checkpointing = activation_checkpointing

        self.patch_embed = PatchEmbed(in_channels, embed_dim, (tubelet_size, patch_size, patch_size))
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.pos_drop = nn.Dropout(dropout_rate)
        self.blocks = nn.ModuleList(
            PyramidBlock(
                embed_dim,
                JointAttention(
                    embed_dim,
                    num_heads,
                    qkv_bias=qkv_bias,
                    dropout_rate=dropout_rate,
                    class_token_log_frames=class_token_log_frames,
                ),
                mlp_ratio=mlp_ratio,
                norm_eps=norm_eps,
                dropout_rate=dropout_rate,
                drop_path_rate=rate,
            )
            for rate in drop_path_rates(drop_path_rate, [depth])[0]
        )
        cell = (tubelet_size, patch_size, patch_size)
        self.feature_info = [feature(f"blocks.{depth - 1}", embed_dim, cell)]
        self.peg = PositionalEncodingGenerator(embed_dim, peg_kernel)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.head = ClassifierHead(embed_dim, num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x, _ = self.forward_tokens(clip)
        if self.cls_token is not None:
            return self.head(self.norm(x[:, 0]))
        return self.head(self.norm(x.mean(dim=1)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm, without the class token."""
        x, grid = self.forward_tokens(clip)
        return self.norm(x[:, self._first :]).unflatten(1, grid)

    def forward_tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> tokens (B, [1 +] T'*H'*W', C) after the last block, not yet normed, and their grid."""
        x, grid = self.patch_embed(clip_of_side(clip, self.in_channels, self.smallest_side))
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        x = self.pos_drop(x)
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
            if i == self.peg_after_block:
                class_token, patches = x[:, : self._first], x[:, self._first :]
                x = torch.cat([class_token, self.peg(patches, grid)], dim=1)
        return x, grid

    def no_weight_decay(self) -> set[str]:
        """Full names of the class token and of the positional encoding generator's parameters."""
        return {n for n, _ in self.named_parameters() if n.startswith(("cls_token", "peg."))}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest.

        The positional encoding generator counts as the block that it comes after.
        """
        if name.startswith(("cls_token", "patch_embed.")):
            return 0
        if name.startswith("peg."):
            return self.peg_after_block + 1
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises all weights anew."""
        reset_pyramid(self)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    @property
    def _first(self) -> int:
        """Index of the first patch token."""
        return 0 if self.cls_token is None else 1


# The published sizes, with clips of 16 frames. Parameters and GFLOPs: of a 16x224x224 clip, 400 classes, by
# vidformers.analysis.complexity; there are no published weights.


@register_model(CPVT)
def cpvt_ti() -> dict[str, Any]:
    """CPVT-Ti: 5.7 M parameters, 20.2 GFLOPs. With class_token=False the paper's CPVT-Ti-GAP."""
    return {"embed_dim": 192, "num_heads": 3}


@register_model(CPVT)
def cpvt_s() -> dict[str, Any]:
    """CPVT-S: 22.0 M parameters, 57.0 GFLOPs. With class_token=False the paper's CPVT-S-GAP."""
    return {"embed_dim": 384, "num_heads": 6}


@register_model(CPVT)
def cpvt_b() -> dict[str, Any]:
    """CPVT-B: 86.6 M parameters, 180.7 GFLOPs. With class_token=False the paper's CPVT-B-GAP."""
    return {"embed_dim": 768, "num_heads": 12}


@register_model(CPVT)
def cpvt_tiny() -> dict[str, Any]:
    """Not published (CPVT-Ti is cpvt_ti): for tests and for training on a CPU. 8 frames of 64 pixels."""
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 2.0,
    }
