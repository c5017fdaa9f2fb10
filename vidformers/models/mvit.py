"""Multiscale Vision Transformers: MViT (Fan et al., arXiv 2104.11227) and MViTv2 (Li et al., 2112.01526).

Parameter names, initialisation and arithmetic follow PySlowFast, so its checkpoints load as they are.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"; a class token comes before
them, as token 0), C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.attention import runs_unseen
from vidformers.layers.checks import (
    check_choice,
    check_counts,
    check_finite,
    check_positive,
    check_rates,
    checked_triple,
    height_and_width,
)
from vidformers.layers.clip import as_clip
from vidformers.layers.drop_path import DropPath
from vidformers.layers.head import ClassifierHead
from vidformers.layers.linear import is_watched
from vidformers.layers.mlp import Mlp, rows_at_a_time, suits_rows
from vidformers.layers.patch_embed import PatchEmbed
from vidformers.layers.pooling import MaxPool, pool_tokens, pooled_grid
from vidformers.layers.pooling_attention import POOL_MODES, PoolingAttention
from vidformers.layers.sizes import Grid, floor_divided
from vidformers.models import mvit_schedule as schedule
from vidformers.models.mvit_base import POSITION_EMBEDDINGS, MViTBase
from vidformers.models.registry import register_model


class MultiscaleBlock(nn.Module):
    """Pooling attention and MLP, both pre-norm and residual; may shrink the grid and widen the channels.

    The width grows in the MLP (MViT) or, with `dim_mul_in_attention`, in the attention (MViTv2). In both the
    skip of the widening branch is a Linear of the *normed* tokens. Where the query is pooled, so is the skip.
    forward: tokens (B, [1 +] T*H*W, dim), grid -> tokens (B, [1 +] T'*H'*W', dim_out), new grid.
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        dim_mul_in_attention: bool,
        mlp_ratio: float,
        grid: Grid,
        q_stride: Grid | None,
        class_token: bool,
        dropout_rate: float,
        drop_path_rate: float,
        layer_scale_init_value: float,
        norm_eps: float,
        **attention_arguments: Any,
    ):
        super().__init__()
        attention_dim = dim_out if dim_mul_in_attention else dim
        self.dim_out = dim_out
        self.dim_mul_in_attention = dim_mul_in_attention
        self.class_token = class_token
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = PoolingAttention(
            dim=dim,
            dim_out=attention_dim,
            grid=grid,
            q_stride=q_stride,
            class_token=class_token,
            dropout_rate=dropout_rate,
            norm_eps=norm_eps,
            **attention_arguments,
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(attention_dim, eps=norm_eps)
        self.mlp = Mlp(attention_dim, int(attention_dim * mlp_ratio), dim_out, dropout_rate)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.pool_skip: nn.Module | None = None
        skip_grid = grid
        if q_stride is not None and max(q_stride) > 1:
            kernel = schedule.shrinking_kernel(q_stride)
            self.pool_skip = MaxPool(kernel, q_stride)
            skip_grid = pooled_grid(grid, kernel, q_stride)
        _check_same_grid(self.attn.query_grid, skip_grid, grid)
        self.layer_scale_init_value = layer_scale_init_value
        has_scale = layer_scale_init_value > 0
        self.gamma_1 = nn.Parameter(torch.empty(attention_dim)) if has_scale else None
        self.gamma_2 = nn.Parameter(torch.empty(dim_out)) if has_scale else None

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        normed = self.norm1(x)
        branch, query_grid = self.attn(normed, grid)
        if self.proj is not None and self.dim_mul_in_attention:
            x = self.proj(normed)
        skip_grid = grid
        if self.pool_skip is not None:
            x, skip_grid = pool_tokens(x, grid, self.pool_skip, self.class_token)
        _check_same_grid(query_grid, skip_grid, grid)
        if self.gamma_1 is not None:
            branch = branch * self.gamma_1
        return self._mlp_half(x + self.drop_path(branch)), query_grid

    def of_class_token(self, x: Tensor, grid: Grid) -> Tensor:
        """What `forward` gives for the class token: (B, 1, dim_out)."""
        normed = self.norm1(x)
        branch = self.attn.of_class_token(normed, grid)
        token = x[:, :1]
        if self.proj is not None and self.dim_mul_in_attention:
            token = self.proj(normed[:, :1])
        if self.gamma_1 is not None:
            branch = branch * self.gamma_1
        return self._mlp_half(token + self.drop_path(branch))

    def _mlp_half(self, x: Tensor) -> Tensor:
        """Tokens (B, N, attention's width) -> (B, N, dim_out); without gradients on a CPU some at a time,
        so that what is in between stays in the processor's cache."""
        if self.training or not suits_rows(x) or is_watched(*self.modules()):
            return self._of_rows(x)
        out = x.new_empty(*x.shape[:-1], self.dim_out)
        for part, rows in zip(rows_at_a_time(x), rows_at_a_time(out), strict=True):
            self._of_rows(part, out=rows)
        return out

    def _of_rows(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        normed = self.norm2(x)
        branch = self.mlp(normed)
        if self.proj is not None and not self.dim_mul_in_attention:
            x = self.proj(normed)
        if self.gamma_2 is not None:
            branch = branch * self.gamma_2
        return torch.add(x, self.drop_path(branch), out=out)


class MViT(MViTBase):
    """Multiscale Vision Transformer, v1 and v2, for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). T, H and W may differ from `num_frames` and `image_size`: absolute
    position embeddings (trilinear, the sum of separable ones too) and relative ones (linear) are
    interpolated. An input smaller than a patch is a ValueError that names the axis.

    Input and stem:
      num_frames, image_size (pixels, int or (height, width)), in_channels, num_classes
      patch_kernel, patch_stride, patch_padding: (t, h, w) of the patch embedding. An image model has kernel
        (1, k, k), stride (1, s, s), padding (0, p, p) and num_frames=1.
      position_embedding: "none", "joint" (one vector a token), "separable" (space + time), or "sincos"
        (fixed; added twice, as PySlowFast's checkpoints expect)
      norm_stem: LayerNorm before the first block
    Blocks:
      embed_dim, depth, num_heads, mlp_ratio: of the first block
      dim_mul, head_mul: ((block, factor), ...), where width and heads grow
      block_widths: output width of each block, with dim_mul=(), for models whose widths follow another rule
        than PySlowFast's rounding (torchvision's, PyTorchVideo's)
      dim_mul_in_attention: grow in that block's attention (v2), not in the MLP of the block before (v1)
      pool_q_stride, pool_kv_stride: ((block, t, h, w), ...); a block that is not listed does not pool
      pool_kv_stride_adaptive: (t, h, w) of block 0, divided by each query stride on the way; replaces
        pool_kv_stride
      pool_kvq_kernel: (t, h, w), or None for stride + 1 on each axis whose stride is above 1
      pool_mode: "conv" (one for all heads), "conv_unshared" (needs pool_first), "avg" (padded zeros count)
        or "max"
      pool_first: pool the block's input, then project; separate_qkv: three Linears, not one; qkv_bias
      residual_pooling: add the pooled query to the attention's output; to the class token's only with
        residual_pooling_class_token, as torchvision (residual_with_cls_embed) and PyTorchVideo can
      rel_pos_spatial, rel_pos_temporal, rel_pos_zero_init: decomposed relative position
      layer_scale_init_value: 0 for none; norm ("layernorm") and norm_eps
    Output:
      class_token, mean_pooling: the head sees norm(x)[0]; with mean_pooling norm(mean of the patches);
        with neither the mean of norm(x)
      class_token_log_frames: add log(frames) to the class key: for image weights run on clips
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate (tokens and branches),
      head_dropout_rate, head_init_scale, activation_checkpointing (recompute blocks in the backward pass)

    Raises ValueError, saying what would work, for arguments that do not go together.
    """

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
        embed_dim: int = 96,
        depth: int = 16,
        num_heads: int = 1,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dim_mul: Sequence[Sequence[float]] = ((1, 2.0), (3, 2.0), (14, 2.0)),
        head_mul: Sequence[Sequence[float]] = ((1, 2.0), (3, 2.0), (14, 2.0)),
        block_widths: Sequence[int] | None = None,
        dim_mul_in_attention: bool = False,
        pool_mode: str = "conv",
        pool_first: bool = False,
        separate_qkv: bool = False,
        pool_kvq_kernel: Sequence[int] | None = (3, 3, 3),
        pool_q_stride: Sequence[Sequence[int]] = ((1, 1, 2, 2), (3, 1, 2, 2), (14, 1, 2, 2)),
        pool_kv_stride: Sequence[Sequence[int]] = (),
        pool_kv_stride_adaptive: Sequence[int] | None = None,
        residual_pooling: bool = False,
        residual_pooling_class_token: bool = False,
        class_token: bool = True,
        mean_pooling: bool = False,
        position_embedding: str = "separable",
        norm_stem: bool = False,
        rel_pos_spatial: bool = False,
        rel_pos_temporal: bool = False,
        rel_pos_zero_init: bool = False,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        head_init_scale: float = 1.0,
        norm: str = "layernorm",
        norm_eps: float = 1e-6,
        layer_scale_init_value: float = 0.0,
        activation_checkpointing: bool = False,
        class_token_log_frames: bool = False,
    ):
        super().__init__()
        height, width = height_and_width(image_size)
        check_counts(
            in_channels=in_channels,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
        )
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        check_finite(head_init_scale=head_init_scale)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_choice("pool_mode", pool_mode, POOL_MODES)
        check_choice("position_embedding", position_embedding, POSITION_EMBEDDINGS)
        check_choice("norm", norm, ("layernorm",))
        if pool_mode == "conv_unshared" and not pool_first:
            raise ValueError("pool_mode='conv_unshared' needs pool_first=True; or use pool_mode='conv'")
        if residual_pooling_class_token and not residual_pooling:
            raise ValueError("residual_pooling_class_token=True needs residual_pooling=True")
        if class_token_log_frames and not class_token:
            raise ValueError("class_token_log_frames=True needs class_token=True")

        self.in_channels = in_channels
        self.num_layers = depth
        self.position_embedding = position_embedding
        self.mean_pooling = mean_pooling
        self.activation_checkpointing = activation_checkpointing
        self.rel_pos_zero_init = rel_pos_zero_init
        self.head_init_scale = head_init_scale

        self.patch_embed = PatchEmbed(
            in_channels=in_channels,
            embed_dim=embed_dim,
            kernel=checked_triple("patch_kernel", patch_kernel),
            stride=checked_triple("patch_stride", patch_stride),
            padding=checked_triple("patch_padding", patch_padding, smallest=0),
        )
        self.grid = self.patch_embed.declared_grid((num_frames, height, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self._add_position_embedding(embed_dim, class_token)
        self.pos_drop = nn.Dropout(dropout_rate)
        self.norm_stem = nn.LayerNorm(embed_dim, eps=norm_eps) if norm_stem else None

        heads_of = schedule.block_heads(num_heads, head_mul, depth)
        if block_widths is None:
            widths = schedule.grown_widths(
                embed_dim, heads_of, dim_mul, head_mul, in_attention=dim_mul_in_attention
            )
        else:
            widths = schedule.checked_widths(block_widths, dim_mul, depth)
        q_stride_of = schedule.strides_by_block("pool_q_stride", pool_q_stride, depth)
        kv_stride_of = schedule.key_value_strides(pool_kv_stride, pool_kv_stride_adaptive, q_stride_of, depth)
        kernel = None
        if pool_kvq_kernel is not None:
            kernel = checked_triple("pool_kvq_kernel", pool_kvq_kernel)

        dim = embed_dim
        grid = self.grid  # what each block really sees
        tracked = self.grid  # PySlowFast's estimate of it, rounded down; sizes the relative position tables
        self.blocks = nn.ModuleList()
        for i, (heads, dim_out) in enumerate(zip(heads_of, widths, strict=True)):
            attention_dim = dim_out if dim_mul_in_attention else dim
            if attention_dim % heads or (pool_first and dim % heads):
                raise ValueError(
                    f"block {i} has input width {dim} and attention width {attention_dim}, to be divided by "
                    f"{heads} heads; change embed_dim={embed_dim}, num_heads={num_heads}, dim_mul, head_mul "
                    f"or block_widths so that they are multiples of {heads}"
                )
            q_stride, kv_stride = q_stride_of.get(i), kv_stride_of.get(i)
            block = MultiscaleBlock(
                dim=dim,
                dim_out=dim_out,
                dim_mul_in_attention=dim_mul_in_attention,
                num_heads=heads,
                mlp_ratio=mlp_ratio,
                grid=grid,
                qkv_bias=qkv_bias,
                separate_qkv=separate_qkv,
                pool_mode=pool_mode,
                pool_first=pool_first,
                q_kernel=schedule.pool_kernel(q_stride, kernel),
                q_stride=q_stride,
                kv_kernel=schedule.pool_kernel(kv_stride, kernel),
                kv_stride=kv_stride,
                residual_pooling=residual_pooling,
                residual_pooling_class_token=residual_pooling_class_token,
                rel_pos_rows=schedule.rel_pos_rows(
                    tracked, q_stride, kv_stride, rel_pos_spatial, rel_pos_temporal
                ),
                class_token=class_token,
                class_token_log_frames=class_token_log_frames,
                dropout_rate=dropout_rate,
                drop_path_rate=drop_path_rate * i / max(depth - 1, 1),
                layer_scale_init_value=layer_scale_init_value,
                norm_eps=norm_eps,
            )
            self.blocks.append(block)
            dim, grid = dim_out, block.attn.query_grid
            if q_stride is not None:
                tracked = floor_divided(tracked, q_stride)

        self.feature_grid = grid
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.head = ClassifierHead(dim, num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x, _ = self.run_blocks(*self.embed_patches(clip), class_token_alone=self._head_reads_class_token())
        if self.mean_pooling:
            x = self.norm(self._patches(x).mean(dim=1))
        elif self.cls_token is not None:
            x = self.norm(x)[:, 0]
        else:
            x = self.norm(x).mean(dim=1)
        return self.head(x)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm, without the class token."""
        x, grid = self.forward_tokens(clip)
        return self.norm(self._patches(x)).unflatten(1, grid)

    def forward_tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> tokens (B, [1 +] T'*H'*W', C) after the last block, not yet normed, and their grid."""
        return self.run_blocks(*self.embed_patches(clip))

    def embed_patches(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Clip -> patches without positions (B, T*H*W, C), T-major, and their grid."""
        return self.patch_embed(as_clip(clip, self.in_channels))

    def run_blocks(self, x: Tensor, grid: Grid, *, class_token_alone: bool = False) -> tuple[Tensor, Grid]:
        """Patches of `embed_patches` and their grid -> what `forward_tokens` gives, or of it the class token
        alone, (B, 1, C): then the last block computes nothing else."""
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.position_embedding != "none":
            x = x + self._position(grid)
        x = self.pos_drop(x)
        if self.norm_stem is not None:
            x = self.norm_stem(x)
        recomputes = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        blocks: list[Any] = list(self.blocks)
        last = blocks.pop() if class_token_alone else None
        for block in blocks:
            x, grid = checkpoint(block, x, grid, use_reentrant=False) if recomputes else block(x, grid)
        if last is not None:
            of_token = last.of_class_token
            x = checkpoint(of_token, x, grid, use_reentrant=False) if recomputes else of_token(x, grid)
        return x, grid

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest."""
        if name.startswith(("cls_token", "mask_token", "pos_embed", "patch_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as PySlowFast does, biases of 0.02 included; also fills the fixed position table."""
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, MultiscaleBlock):
                for gamma in (module.gamma_1, module.gamma_2):
                    if gamma is not None:
                        nn.init.constant_(gamma, module.layer_scale_init_value)

    def _head_reads_class_token(self) -> bool:
        """Whether nothing sees the other tokens of the last block: neither the head nor hooks."""
        if self.cls_token is None or self.mean_pooling or not runs_unseen():
            return False
        if type(self.blocks[-1]) is not MultiscaleBlock:  # something has been wrapped around it
            return False
        return not is_watched(self.norm, *self.blocks[-1].modules())

    def _patches(self, x: Tensor) -> Tensor:
        return x if self.cls_token is None else x[:, 1:]


def _check_same_grid(query_grid: Grid, skip_grid: Grid, grid: Grid) -> None:
    if query_grid != skip_grid:
        raise ValueError(
            f"pool_kvq_kernel makes the {grid} tokens (t, h, w) {query_grid}, and max pooling of the skip "
            f"connection with a kernel of stride + 1 makes them {skip_grid}; use odd kernels with strides of "
            "1 or even strides, or pool_kvq_kernel=None"
        )


# The published sizes. GFLOPs and accuracies: the papers, PySlowFast's model zoo.


def _stages(depth: int, *starts: int, pool_in_every_block: bool = False) -> dict[str, Any]:
    """Depth, and doubled width and heads and 2x2 query stride at the first block of each later stage."""
    doubling = tuple((i, 2.0) for i in starts)
    blocks = range(depth) if pool_in_every_block else starts
    q_stride = tuple((i, 1, 2, 2) if i in starts else (i, 1, 1, 1) for i in blocks)
    return {"depth": depth, "dim_mul": doubling, "head_mul": doubling, "pool_q_stride": q_stride}


def _v2(depth: int, *starts: int) -> dict[str, Any]:
    return {
        **_stages(depth, *starts, pool_in_every_block=True),
        "dim_mul_in_attention": True,
        "residual_pooling": True,
        "rel_pos_spatial": True,
        "position_embedding": "none",
    }


def _v2_video(depth: int, *starts: int) -> dict[str, Any]:
    return {**_v2(depth, *starts), "rel_pos_temporal": True, "pool_kv_stride_adaptive": (1, 8, 8)}


_IMAGE = {
    "num_frames": 1,
    "num_classes": 1000,
    "patch_kernel": (1, 7, 7),
    "patch_stride": (1, 4, 4),
    "patch_padding": (0, 3, 3),
    "pool_kvq_kernel": (1, 3, 3),
}


def _v2_image(depth: int, *starts: int) -> dict[str, Any]:
    return {**_IMAGE, **_v2(depth, *starts), "class_token": False, "pool_kv_stride_adaptive": (1, 4, 4)}


@register_model(MViT)
def mvit() -> dict[str, Any]:
    """No published size: the class's defaults, for configs that give the sizes themselves."""
    return {}


@register_model(MViT)
def mvit_b_16x4() -> dict[str, Any]:
    """MViT-B 16x4: 36.6 M parameters, 70.8 GFLOPs, Kinetics-400 78.4."""
    return {**_stages(16, 1, 3, 14), "pool_kv_stride_adaptive": (1, 8, 8)}


@register_model(MViT)
def mvit_b_16x4_max() -> dict[str, Any]:
    """The model of the paper's ablations (shuffled frames too): max pooling, kernel = stride + 1."""
    return {**mvit_b_16x4(), "pool_mode": "max", "pool_kvq_kernel": None}


@register_model(MViT)
def mvit_b_16x4_avg() -> dict[str, Any]:
    """Average pooling instead (MViT paper, pooling function ablation)."""
    return {**mvit_b_16x4_max(), "pool_mode": "avg"}


@register_model(MViT)
def mvit_b_32x3() -> dict[str, Any]:
    """PySlowFast's MVIT_B_32x3_CONV, the paper's MViT-B-24: 53.1 M, 236.3 GFLOPs, Kinetics-400 80.4."""
    stages = _stages(24, 2, 5, 21)
    return {**stages, "num_frames": 32, "pool_kv_stride_adaptive": (1, 8, 8), "pool_kvq_kernel": None}


@register_model(MViT)
def mvit_v2_s_16x4() -> dict[str, Any]:
    """MViTv2-S 16x4: 34.5 M, 64.5 GFLOPs, Kinetics-400 81.0."""
    return _v2_video(16, 1, 3, 14)


@register_model(MViT)
def mvit_v2_b_32x3() -> dict[str, Any]:
    """MViTv2-B 32x3: 51.2 M, 225.2 GFLOPs, Kinetics-400 82.9."""
    return {**_v2_video(24, 2, 5, 21), "num_frames": 32}


@register_model(MViT)
def mvit_v2_l_40x3() -> dict[str, Any]:
    """MViTv2-L 40x3 at 312 pixels: 213.4 M, 2828 GFLOPs, Kinetics-400 86.1 (pre-trained on ImageNet-21k)."""
    return {**_v2_video(48, 2, 8, 44), "num_frames": 40, "image_size": 312, "embed_dim": 144, "num_heads": 2}


@register_model(MViT)
def mvit_b_16() -> dict[str, Any]:
    """MViT-B-16 for images: 37.0 M, 7.8 GFLOPs, ImageNet-1k 82.9."""
    stages = _stages(16, 1, 3, 14)
    return {**_IMAGE, **stages, "position_embedding": "joint", "pool_kv_stride_adaptive": (1, 4, 4)}


@register_model(MViT)
def mvit_v2_t() -> dict[str, Any]:
    """MViTv2-T for images: 24.2 M, 4.7 GFLOPs, ImageNet-1k 82.3."""
    return _v2_image(10, 1, 3, 8)


@register_model(MViT)
def mvit_v2_s() -> dict[str, Any]:
    """MViTv2-S for images: 34.9 M, 7.0 GFLOPs, ImageNet-1k 83.6."""
    return _v2_image(16, 1, 3, 14)


@register_model(MViT)
def mvit_v2_b() -> dict[str, Any]:
    """MViTv2-B for images: 51.5 M, 10.2 GFLOPs, ImageNet-1k 84.4."""
    return _v2_image(24, 2, 5, 21)


@register_model(MViT)
def mvit_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    stages = _stages(4, 1, 3)
    small = {"num_frames": 8, "image_size": 64, "num_classes": 10, "embed_dim": 32}
    return {**stages, **small, "pool_kv_stride_adaptive": (1, 4, 4)}
