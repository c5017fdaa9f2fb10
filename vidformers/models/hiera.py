"""Hiera (Ryali et al., arXiv 2306.00989): a plain hierarchy of ViT blocks, for images and for clips.

The first stages attend within mask units (windows that shrink as the map does), the later ones to all tokens;
the map shrinks by max pooling of the queries. Parameter names are the official ones. The official code keeps
the tokens of a mask unit adjacent ("unrolled"); here they are a volume, split into windows where needed. So
the size need be no multiple of a mask unit: it is padded, and the padding hidden as keys.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"), C channels, d channels of a
head, G windows of a clip, N tokens of a window.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.attention import attention
from vidformers.layers.checks import (
    check_choice,
    check_counts,
    check_finite,
    check_heads,
    check_positive,
    check_rates,
    checked_triple,
    height_and_width,
)
from vidformers.layers.clip import as_clip
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import masked_logit
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_slowfast
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import group_mask, partition, unpartition
from vidformers.layers.patch_embed import PatchEmbed
from vidformers.layers.position import resize_joint, resize_spatial, resize_temporal
from vidformers.layers.sizes import Grid, triple
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import VideoClassifier, feature

POSITION_EMBEDDINGS = ("joint", "separable")


def max_pool(x: Tensor, stride: Grid) -> Tensor:
    """(B, T, H, W, C) -> (B, T', H', W', C): the maxima of boxes, which may be smaller at the ends."""
    if max(stride) == 1:
        return x
    # (B, T, H, W, C) -> (B, C, T, H, W) and back
    pooled = F.max_pool3d(x.permute(0, 4, 1, 2, 3), stride, stride, ceil_mode=True)
    return pooled.permute(0, 2, 3, 4, 1)


class MaskUnitAttention(nn.Module):
    """Attention within windows of `window` tokens (t, h, w), or to all tokens; queries may be pooled.

    forward: (B, T, H, W, dim) -> (B, T', H', W', dim_out), the grid divided by `q_stride`.
    """

    def __init__(self, *, dim: int, dim_out: int, num_heads: int, q_stride: Grid, window: Grid | None):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim_out // num_heads) ** -0.5
        self.q_stride = q_stride
        self.window = window
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = max_pool(q, self.q_stride)
        size, query_size = triple(x.shape[1:4]), triple(q.shape[1:4])
        # A window of everything is attention to all tokens.
        window = self.window if self.window is not None else size
        query_window = query_size
        if self.window is not None:
            query_window = triple([w // s for w, s in zip(self.window, self.q_stride, strict=True)])
        # (B, T, H, W, heads*d) -> (B*G, N, heads*d) -> (B*G, heads, N, d)
        q, k, v = (
            partition(part, group).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part, group in ((q, query_window), (k, window), (v, window))
        )
        out = attention(q, k, v, self._hidden_padding(size, window, k), self.scale)
        # (B*G, heads, N, d) -> (B*G, N, heads*d) -> (B, T', H', W', heads*d)
        return self.proj(unpartition(out.transpose(1, 2).flatten(2), query_size, query_window))

    def _hidden_padding(self, size: Grid, window: Grid, k: Tensor) -> Tensor | None:
        """Added to the logits to hide the keys that are padding: (B*G, 1, 1, N); None if there are none."""
        mask = group_mask(size, window, device=k.device)
        if mask is None:
            return None
        hidden = k.new_zeros(mask.shape).masked_fill(~mask, masked_logit(k.dtype))
        # (G, 1, N) -> (B*G, 1, 1, N)
        return hidden.repeat(k.shape[0] // mask.shape[0], 1, 1)[:, None]


class HieraBlock(nn.Module):
    """Attention and MLP, both pre-norm and residual; the attention may widen the channels and shrink the map.

    The skip of a widening attention is a Linear of the *normed* tokens, pooled as the queries are.
    forward: (B, T, H, W, dim) -> (B, T', H', W', dim_out).
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        num_heads: int,
        mlp_ratio: float,
        q_stride: Grid,
        window: Grid | None,
        drop_path_rate: float,
        norm_eps: float,
    ):
        super().__init__()
        self.q_stride = q_stride
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = MaskUnitAttention(
            dim=dim, dim_out=dim_out, num_heads=num_heads, q_stride=q_stride, window=window
        )
        self.norm2 = nn.LayerNorm(dim_out, eps=norm_eps)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio), dim_out)
        self.drop_path = DropPath(drop_path_rate)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.proj is not None:
            x = max_pool(self.proj(normed), self.q_stride)
        x = x + self.drop_path(self.attn(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Hiera(VideoClassifier):
    """Hiera, for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes), also in eval mode, where the official code gives probabilities. T, H
    and W may differ from `num_frames` and `image_size`: position embeddings are interpolated (joint ones
    trilinear; separable ones linear in time, bicubic in space). The official code runs at one size only.

    Input:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      patch_kernel, patch_stride, patch_padding: (t, h, w) of the patch embedding. An image model has kernel
        (1, k, k), stride (1, s, s), padding (0, p, p) and num_frames=1.
      position_embedding: "separable" (space + time) or "joint" (a vector a token; the image models)
    Blocks:
      embed_dim, num_heads: of the first stage, doubled in each later one; mlp_ratio; norm_eps
      stages: number of blocks of each stage
      q_stride: (t, h, w) by which the map shrinks at the start of the stages 1 to `q_pool`
      mask_unit_size: (t, h, w) in tokens of the first stage; a multiple of q_stride ** q_pool on each axis,
        and as large in all published models. Larger ones are neighbours here too; the official code's order
        of tokens makes them places spread over the map, which are other logits
      mask_unit_attn: for each stage, whether it attends within mask units. The first block of a stage does as
        the stage before it: it attends before it pools.
    Training:
      drop_path_rate (of the last block; grows linearly from 0), head_dropout_rate, head_init_scale,
      activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

    head: ClassifierHead

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        patch_kernel: Sequence[int] = (3, 7, 7),
        patch_stride: Sequence[int] = (2, 4, 4),
        patch_padding: Sequence[int] = (1, 3, 3),
        position_embedding: str = "separable",
        embed_dim: int = 96,
        num_heads: int = 1,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        stages: Sequence[int] = (2, 3, 16, 3),
        q_stride: Sequence[int] = (1, 2, 2),
        q_pool: int = 3,
        mask_unit_size: Sequence[int] = (1, 8, 8),
        mask_unit_attn: Sequence[bool] = (True, True, False, False),
        drop_path_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        head_init_scale: float = 1.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        height, width = height_and_width(image_size)
        check_counts(
            num_frames=num_frames,
            in_channels=in_channels,
            num_classes=num_classes,
            embed_dim=embed_dim,
            num_heads=num_heads,
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        check_finite(head_init_scale=head_init_scale)
        check_rates(drop_path_rate=drop_path_rate, head_dropout_rate=head_dropout_rate)
        check_choice("position_embedding", position_embedding, POSITION_EMBEDDINGS)
        q_stride = checked_triple("q_stride", q_stride)
        mask_unit_size = checked_triple("mask_unit_size", mask_unit_size)
        check_heads(embed_dim, num_heads)
        if len(mask_unit_attn) != len(stages) or min(stages, default=0) < 1 or not 0 <= q_pool < len(stages):
            raise ValueError(
                f"stages={tuple(stages)} needs at least one block a stage, "
                f"mask_unit_attn={tuple(mask_unit_attn)} as many entries as there are stages, and "
                f"q_pool={q_pool} must be 0 to {len(stages) - 1}"
            )
        smallest = triple([stride**q_pool for stride in q_stride])
        if any(unit % small for unit, small in zip(mask_unit_size, smallest, strict=True)):
            raise ValueError(
                f"mask_unit_size={mask_unit_size} must be a multiple of {smallest}, "
                f"by which q_stride={q_stride} shrinks it {q_pool} times; use {smallest}"
            )

        self.in_channels = in_channels
        self.num_layers = sum(stages)
        self.position_embedding = position_embedding
        self.activation_checkpointing = activation_checkpointing
        self.head_init_scale = head_init_scale

        self.patch_embed = PatchEmbed(
            in_channels=in_channels,
            embed_dim=embed_dim,
            kernel=checked_triple("patch_kernel", patch_kernel),
            stride=checked_triple("patch_stride", patch_stride),
            padding=checked_triple("patch_padding", patch_padding, smallest=0),
        )
        self.grid = T, H, W = self.patch_embed.declared_grid((num_frames, height, width))
        if position_embedding == "separable":
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, H * W, embed_dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, T, embed_dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, T * H * W, embed_dim))

        dim, window, token = embed_dim, mask_unit_size, triple(patch_stride)
        self.blocks = nn.ModuleList()
        self.feature_info = []
        for stage, depth in enumerate(stages):
            for i in range(depth):
                starts = stage > 0 and i == 0
                pools = starts and stage <= q_pool
                in_units = mask_unit_attn[stage - 1] if starts else mask_unit_attn[stage]
                block = HieraBlock(
                    dim=dim,
                    dim_out=embed_dim * 2**stage,
                    num_heads=num_heads * 2**stage,
                    mlp_ratio=mlp_ratio,
                    q_stride=q_stride if pools else (1, 1, 1),
                    window=window if in_units else None,
                    drop_path_rate=drop_path_rate * len(self.blocks) / max(self.num_layers - 1, 1),
                    norm_eps=norm_eps,
                )
                self.blocks.append(block)
                dim = embed_dim * 2**stage
                if pools:
                    window = triple([w // s for w, s in zip(window, q_stride, strict=True)])
                    token = triple([n * s for n, s in zip(token, q_stride, strict=True)])
            self.feature_info.append(feature(f"blocks.{len(self.blocks) - 1}", dim, token))
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.head = ClassifierHead(dim, num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x = self.forward_volume(clip)
        return self.head(self.norm(x.mean(dim=(1, 2, 3))))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm."""
        return self.norm(self.forward_volume(clip))

    def forward_volume(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C), not yet normed."""
        x, grid = self.patch_embed(as_clip(clip, self.in_channels))
        x = (x + self._position(grid)).unflatten(1, grid)
        for block in self.blocks:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def no_weight_decay(self) -> set[str]:
        """Full names of the position embedding parameters."""
        return {name for name, _ in self.named_parameters() if name.startswith("pos_embed")}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest."""
        if name.startswith(("pos_embed", "patch_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as the official code does, biases of 0.02 included."""
        reset_slowfast(self)
        for name, parameter in self.named_parameters():
            if name.startswith("pos_embed"):
                nn.init.trunc_normal_(parameter, std=0.02)
        self.head.projection.weight.mul_(self.head_init_scale)
        self.head.projection.bias.mul_(self.head_init_scale)

    def _position(self, grid: Grid) -> Tensor:
        """Position embedding of a grid's tokens: (1, T*H*W, C)."""
        if self.position_embedding == "joint":
            return resize_joint(self.pos_embed, self.grid, grid)
        space = resize_spatial(self.pos_embed_spatial, self.grid[1:], grid[1:])
        time = resize_temporal(self.pos_embed_temporal, grid[0])
        # (1, T, 1, C) + (1, 1, H*W, C) -> (1, T*H*W, C)
        return (time[:, :, None] + space[:, None]).flatten(1, 2)


# The published sizes, as video models. GFLOPs: fvcore, at 16 x 224 x 224. Accuracies: the official model zoo.


@register_model(Hiera)
def hiera_t() -> dict[str, Any]:
    """Hiera-T, published for images (27.9 M, 4.9 GFLOPs, ImageNet-1k 82.8): 27.5 M, 51.0 GFLOPs."""
    return {"stages": (1, 2, 7, 2)}


@register_model(Hiera)
def hiera_s() -> dict[str, Any]:
    """Hiera-S, published for images (35 M, 6.4 GFLOPs, ImageNet-1k 83.8): 34.6 M, 69.6 GFLOPs."""
    return {"stages": (1, 2, 11, 2)}


@register_model(Hiera)
def hiera_b() -> dict[str, Any]:
    """Hiera-B: 51.1 M, 101.9 GFLOPs, Kinetics-400 84.0 (for images 51.5 M, 9.4 GFLOPs, ImageNet-1k 84.5)."""
    return {}


@register_model(Hiera)
def hiera_b_plus() -> dict[str, Any]:
    """Hiera-B+: 69.4 M, 132.5 GFLOPs, Kinetics-400 85.0 (for images ImageNet-1k 85.2)."""
    return {"embed_dim": 112, "num_heads": 2}


@register_model(Hiera)
def hiera_l() -> dict[str, Any]:
    """Hiera-L: 213.1 M, 412.7 GFLOPs, Kinetics-400 87.3 (for images ImageNet-1k 86.1)."""
    return {"embed_dim": 144, "num_heads": 2, "stages": (2, 6, 36, 4)}


@register_model(Hiera)
def hiera_h() -> dict[str, Any]:
    """Hiera-H: 671.6 M, 1159 GFLOPs, Kinetics-400 87.8 (for images ImageNet-1k 86.9)."""
    return {"embed_dim": 256, "num_heads": 4, "stages": (2, 6, 36, 4)}


@register_model(Hiera)
def hiera_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10}
    return {**small, "embed_dim": 24, "stages": (1, 1, 2, 1), "mlp_ratio": 2.0}
