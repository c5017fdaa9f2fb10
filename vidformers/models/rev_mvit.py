"""Reversible Vision Transformers: Rev-ViT and Rev-MViT (Mangalam et al., CVPR 2022, arXiv 2302.04869).

Parameter names, initialisation and arithmetic follow PySlowFast, so its checkpoints load as they are.

Two streams X1, X2 run through the blocks. A reversible block,

    Y1 = X1 + F(X2)    F: norm, pooling attention          X2 = Y2 - G(Y1)
    Y2 = X2 + G(Y1)    G: norm, MLP                        X1 = Y1 - F(X2)

can be computed backwards, so the backward pass keeps no activations: it makes them again from the outputs.
Where the grid shrinks or the width grows that is impossible: a transition block merges the streams, goes on
as a common block does, and both streams start again from its output.

Shape letters: B clips, T H W tokens along time, height and width (the "grid"), N = T*H*W, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
from vidformers.layers.mlp import Mlp
from vidformers.layers.patch_embed import PatchEmbed
from vidformers.layers.pooling_attention import POOL_MODES
from vidformers.layers.reversible import (
    AttentionBranch,
    MlpBranch,
    ReversibleBlock,
    draw_seed,
    run_reversibly,
)
from vidformers.layers.sizes import Grid, floor_divided
from vidformers.models import mvit_schedule as schedule
from vidformers.models.mvit_base import POSITION_EMBEDDINGS, MViTBase
from vidformers.models.registry import register_model

_FUSIONS = ("concat", "avg", "max", "min", "add")


class StreamFusion(nn.Module):
    """Both streams as one: (B, N, C) twice -> (B, N, C), or (B, N, 2C) for the fusions named concat.

    `mode`: "avg", "max", "min", "add", "concat", or "concat_linear[_m[_d]]": concatenated, plus an MLP of
    that, m (1) times as wide inside, with dropout d (0); "ln+" in front puts a LayerNorm before the MLP.
    """

    def __init__(self, argument: str, mode: str, dim: int):
        super().__init__()
        self.mode = mode
        self.concatenates = "concat" in mode
        self.fuse_fn: nn.Module | None = None
        if mode in _FUSIONS:
            return
        ratio, dropout_rate = _mlp_of(argument, mode)
        mlp = Mlp(2 * dim, int(2 * dim * ratio), 2 * dim, dropout_rate)
        # PySlowFast leaves this one LayerNorm at PyTorch's eps, 1e-5.
        self.fuse_fn = nn.Sequential(nn.LayerNorm(2 * dim), mlp) if mode.startswith("ln+") else mlp

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if self.mode == "avg":
            return (first + second) / 2
        if self.mode == "add":
            return first + second
        if self.mode == "max":
            return torch.maximum(first, second)
        if self.mode == "min":
            return torch.minimum(first, second)
        return self.fuse_concatenated(torch.cat([first, second], dim=-1))

    def fuse_concatenated(self, x: Tensor) -> Tensor:
        """(B, N, 2C) -> (B, N, 2C), of the fusions named concat."""
        return x if self.fuse_fn is None else x + self.fuse_fn(x)


class TransitionBlock(nn.Module):
    """Merges the streams, shrinks the grid, widens the channels: two streams (B, N, C) -> (B, N', dim_out).

    The skip goes through a Linear, where the width changes, and through the query's pooling and norm.
    Stochastic depth drops a sample's whole output, the skip too, as in PySlowFast.
    """

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        fusion: StreamFusion,
        mlp_ratio: float,
        norm_eps: float,
        drop_path_rate: float,
        **attention_arguments: Any,
    ):
        super().__init__()
        self.pool_first = attention_arguments["pool_first"]
        self.F = AttentionBranch(dim=dim, dim_out=dim_out, norm_eps=norm_eps, **attention_arguments)
        self.G = MlpBranch(dim=dim_out, mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        self.drop_path = DropPath(drop_path_rate)
        self.pre_q_fuse = fusion
        self.res_proj: nn.Module = nn.Linear(dim, dim_out) if dim != dim_out else nn.Identity()

    def forward(self, first: Tensor, second: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        x = self.pre_q_fuse(first, second)
        branch, query_grid = self.F(x, grid)
        skip = x if self.pool_first else self.res_proj(x)
        skip, _ = self.F.attn.pool_as_query(skip, grid)
        if self.pool_first:
            skip = self.res_proj(skip)
        x = skip + branch
        x = x + self.G(x)
        return self.drop_path(x), query_grid


class RevBackbone(nn.Module):
    """All blocks. forward: tokens (B, N, C), grid -> two streams (B, N', C'), new grid."""

    def __init__(
        self, layers: Sequence[nn.Module], reversible_backward: bool, activation_checkpointing: bool
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.reversible_backward = reversible_backward
        self.activation_checkpointing = activation_checkpointing

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Grid]:
        first = second = x
        run: list[ReversibleBlock] = []  # blocks in a row that are reversible
        for layer in self.layers:
            if isinstance(layer, ReversibleBlock):
                run.append(layer)
                continue
            first, second = self._through(run, first, second, grid)
            run = []
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x, grid = checkpoint(layer, first, second, grid, use_reentrant=False)
            else:
                x, grid = layer(first, second, grid)
            first = second = x
        first, second = self._through(run, first, second, grid)
        return first, second, grid

    def _through(
        self, run: list[ReversibleBlock], first: Tensor, second: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor]:
        if not run:
            return first, second
        reversible = self.reversible_backward and torch.is_grad_enabled()
        seed = None
        # Under a compiler that is to make one graph of everything, random numbers are as they come.
        if any(block.training and block.draws_in_training for block in run) and (
            reversible or not torch.compiler.is_compiling()
        ):
            seed = draw_seed()
        half = first.dtype in (torch.float16, torch.bfloat16)
        if half and torch.is_autocast_enabled(first.device.type):
            first, second = first.float(), second.float()  # half the digits would not bring the inputs back
        if reversible:
            return run_reversibly(run, first, second, grid, seed)
        for i, block in enumerate(run):
            first, second = block(first, second, grid, seed if seed is None else seed + i)
        return first, second


class RevMViT(MViTBase):
    """Reversible Vision Transformer, with stages (Rev-MViT) and without (Rev-ViT), for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). T, H, W may differ from `num_frames` and `image_size`, as in MViT.

    Most arguments are those of MViT; there is no class token. Those of their own:
      dim_mul: where the width grows, always in that block's attention
      buffer_layers: the blocks that are not reversible; all that shrink the grid or widen must be among them
      pre_q_fusion: how these merge the streams: "avg", "max", "min", "add", "concat", or
        "[ln+]concat_linear[_m[_d]]", which adds an MLP (m times as wide inside, dropout d)
      respath_fusion: the same at the end; the head is twice as wide for those named concat
      res_path: "conv", the only one: the transition's skip is pooled as its query
      mean_pooling: norm(mean of the fused tokens); without it, for the fusions named concat, the mean of
        fuse(norm(both streams)), for the others the mean of norm(fused), which PySlowFast cannot build
      dropout_rate: of the tokens and of the attention branches, not of the MLPs
      drop_path_rate: a sample loses both branches of a reversible block, or all of a transition block
      reversible_backward: False keeps all activations instead (same results, a quarter less time a step, and
        torch.compile takes the model as one graph, which it cannot where the backward pass is ours)
      activation_checkpointing: recompute the transition blocks too in the backward pass

    The backward pass makes each block's inputs from its outputs; in float32 the gradients differ from those
    of ordinary autograd by rounding. Under autocast the streams stay float32. A model whose own parameters
    are half precision should be trained with reversible_backward=False.

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
        qkv_bias: bool = False,
        dim_mul: Sequence[Sequence[float]] = ((1, 2.0), (3, 2.0), (14, 2.0)),
        head_mul: Sequence[Sequence[float]] = ((1, 2.0), (3, 2.0), (14, 2.0)),
        buffer_layers: Sequence[int] = (1, 3, 14),
        pre_q_fusion: str = "avg",
        respath_fusion: str = "concat",
        res_path: str = "conv",
        pool_mode: str = "conv",
        pool_first: bool = False,
        separate_qkv: bool = False,
        pool_kvq_kernel: Sequence[int] | None = (3, 3, 3),
        pool_q_stride: Sequence[Sequence[int]] = ((1, 1, 2, 2), (3, 1, 2, 2), (14, 1, 2, 2)),
        pool_kv_stride: Sequence[Sequence[int]] = (),
        pool_kv_stride_adaptive: Sequence[int] | None = None,
        residual_pooling: bool = False,
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
        norm_eps: float = 1e-6,
        reversible_backward: bool = True,
        activation_checkpointing: bool = False,
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
        if pool_mode == "conv_unshared" and not pool_first:
            raise ValueError("pool_mode='conv_unshared' needs pool_first=True; or use pool_mode='conv'")
        if res_path != "conv":
            raise ValueError(
                f"res_path={res_path!r} is not supported; use 'conv' (PySlowFast's 'max' fails when it runs)"
            )

        self.in_channels = in_channels
        self.num_layers = depth
        self.position_embedding = position_embedding
        self.mean_pooling = mean_pooling
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
        self._add_position_embedding(embed_dim, class_token=False)
        self.pos_drop = nn.Dropout(dropout_rate)
        self.norm_stem = nn.LayerNorm(embed_dim, eps=norm_eps) if norm_stem else None

        # As many heads as the next block has decide the rounding of a block's width.
        *heads_of, _ = all_heads = schedule.block_heads(num_heads, head_mul, depth + 1)
        factors = schedule.factors_by_block("dim_mul", dim_mul, depth + 1)
        q_stride_of = schedule.strides_by_block("pool_q_stride", pool_q_stride, depth)
        kv_stride_of = schedule.key_value_strides(pool_kv_stride, pool_kv_stride_adaptive, q_stride_of, depth)
        kernel = None
        if pool_kvq_kernel is not None:
            kernel = checked_triple("pool_kvq_kernel", pool_kvq_kernel)
        transitions = _checked_buffer_layers(buffer_layers, depth)

        dim = embed_dim
        grid = self.grid  # what each block really sees
        tracked = self.grid  # PySlowFast's estimate of it, rounded down; sizes the relative position tables
        layers: list[ReversibleBlock | TransitionBlock] = []
        for i, heads in enumerate(heads_of):
            dim_out = schedule.round_width(dim, factors.get(i, 1.0), all_heads[i + 1])
            q_stride, kv_stride = q_stride_of.get(i), kv_stride_of.get(i)
            arguments: dict[str, Any] = {
                "mlp_ratio": mlp_ratio,
                "norm_eps": norm_eps,
                "drop_path_rate": drop_path_rate * i / max(depth - 1, 1),
                "num_heads": heads,
                "grid": grid,
                "qkv_bias": qkv_bias,
                "separate_qkv": separate_qkv,
                "pool_mode": pool_mode,
                "pool_first": pool_first,
                "q_kernel": schedule.pool_kernel(q_stride, kernel),
                "q_stride": q_stride,
                "kv_kernel": schedule.pool_kernel(kv_stride, kernel),
                "kv_stride": kv_stride,
                "residual_pooling": residual_pooling,
                "rel_pos_rows": schedule.rel_pos_rows(
                    tracked, q_stride, kv_stride, rel_pos_spatial, rel_pos_temporal
                ),
                "dropout_rate": dropout_rate,
            }
            layer: ReversibleBlock | TransitionBlock
            if i in transitions:
                fusion = StreamFusion("pre_q_fusion", pre_q_fusion, dim)
                dim_in = 2 * dim if fusion.concatenates else dim
                _check_heads(i, heads, dim_in if pool_first else dim_out, dim_out)
                layer = TransitionBlock(dim=dim_in, dim_out=dim_out, fusion=fusion, **arguments)
            else:
                _check_heads(i, heads, dim, dim_out)
                layer = ReversibleBlock(dim=dim, **arguments)
                if dim_out != dim or layer.F.attn.query_grid != grid:
                    raise ValueError(
                        f"block {i} changes the width or the grid, so it cannot be reversible; add {i} to "
                        f"buffer_layers={tuple(buffer_layers)}, or leave it out of dim_mul and pool_q_stride"
                    )
            layers.append(layer)
            dim, grid = dim_out, layer.F.attn.query_grid
            if q_stride is not None:
                tracked = floor_divided(tracked, q_stride)

        self.rev_backbone = RevBackbone(layers, reversible_backward, activation_checkpointing)
        self.backbone_drop = nn.Dropout(dropout_rate)
        self.fuse = StreamFusion("respath_fusion", respath_fusion, dim)
        fused_dim = 2 * dim if self.fuse.concatenates else dim
        self.norm = nn.LayerNorm(fused_dim, eps=norm_eps)
        self.head = ClassifierHead(fused_dim, num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        first, second, _ = self.forward_streams(clip)
        if self.mean_pooling:
            return self.head(self.norm(self.fuse(first, second).mean(dim=1)))
        return self.head(self._fused_and_normed(first, second).mean(dim=1))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C), fused and normed."""
        first, second, grid = self.forward_streams(clip)
        return self._fused_and_normed(first, second).unflatten(1, grid)

    def forward_streams(self, clip: Tensor) -> tuple[Tensor, Tensor, Grid]:
        """Clip -> both streams (B, T'*H'*W', C) after the last block, not yet normed, and their grid."""
        x, grid = self.patch_embed(as_clip(clip, self.in_channels))
        if self.position_embedding != "none":
            x = x + self._position(grid)
        x = self.pos_drop(x)
        if self.norm_stem is not None:
            x = self.norm_stem(x)
        first, second, grid = self.rev_backbone(x, grid)
        return self.backbone_drop(first), self.backbone_drop(second), grid

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the stem, i + 1 block i, num_layers + 1 the rest.

        (PySlowFast does not know the blocks by their names, and treats all as the head.)
        """
        if name.startswith(("pos_embed", "patch_embed")):
            return 0
        if name.startswith("rev_backbone.layers."):
            return int(name.split(".")[2]) + 1
        return self.num_layers + 1

    def _fused_and_normed(self, first: Tensor, second: Tensor) -> Tensor:
        if self.fuse.concatenates and not self.mean_pooling:
            return self.fuse.fuse_concatenated(self.norm(torch.cat([first, second], dim=-1)))
        return self.norm(self.fuse(first, second))


def _mlp_of(argument: str, mode: str) -> tuple[float, float]:
    """Width ratio and dropout rate of "[ln+]concat_linear[_m[_d]]"."""
    name, *numbers = mode.removeprefix("ln+").replace("concat_linear", "concat-linear").split("_")
    try:
        ratio, dropout_rate, *more = [*map(float, numbers), *(1.0, 0.0)[len(numbers) :]]
    except ValueError:
        more = [0.0]
    if name != "concat-linear" or more or ratio <= 0 or not 0 <= dropout_rate < 1:
        raise ValueError(
            f"{argument}={mode!r} is not one of {', '.join(map(repr, _FUSIONS))}, or '[ln+]concat_linear', "
            "'[ln+]concat_linear_m', '[ln+]concat_linear_m_d' with a width ratio m and a dropout rate d, "
            "such as 'concat_linear_2'"
        )
    return ratio, dropout_rate


def _checked_buffer_layers(buffer_layers: Any, depth: int) -> set[int]:
    found: set[Any] = set(buffer_layers) if isinstance(buffer_layers, Sequence) else {None}
    if not found <= set(range(depth)):
        raise ValueError(
            f"buffer_layers={buffer_layers!r} must be numbers of blocks, from 0 to {depth - 1}; "
            "give buffer_layers too when you change depth"
        )
    return found


def _check_heads(block: int, heads: int, *widths: int) -> None:
    if any(width % heads for width in widths):
        raise ValueError(
            f"block {block} has the widths {widths}, to be divided by {heads} heads; change embed_dim, "
            f"num_heads, dim_mul or head_mul so that they are multiples of {heads}"
        )


# The published sizes. GFLOPs and accuracies: PySlowFast's model zoo.

_IMAGE = {
    "num_frames": 1,
    "num_classes": 1000,
    "position_embedding": "joint",
    "qkv_bias": True,
    "separate_qkv": True,
}


def _vit(embed_dim: int, num_heads: int) -> dict[str, Any]:
    return {
        **_IMAGE,
        "patch_kernel": (1, 16, 16),
        "patch_stride": (1, 16, 16),
        "patch_padding": (0, 0, 0),
        "embed_dim": embed_dim,
        "depth": 12,
        "num_heads": num_heads,
        "dim_mul": (),
        "head_mul": (),
        "buffer_layers": (),
        "pre_q_fusion": "concat",
        "pool_kvq_kernel": None,
        "pool_q_stride": (),
    }


@register_model(RevMViT)
def rev_mvit() -> dict[str, Any]:
    """No published size: the class's defaults, for configs that give the sizes themselves."""
    return {}


@register_model(RevMViT)
def rev_mvit_b_16x4() -> dict[str, Any]:
    """Rev-MViT-B 16x4: 35.0 M parameters, 63.8 GFLOPs, Kinetics-400 78.4."""
    return {"pool_kv_stride_adaptive": (1, 8, 8)}


@register_model(RevMViT)
def rev_mvit_b_16() -> dict[str, Any]:
    """Rev-MViT-B for images: 39.7 M, 8.7 GFLOPs, ImageNet-1k 82.9."""
    return {
        **_IMAGE,
        "patch_kernel": (1, 7, 7),
        "patch_stride": (1, 4, 4),
        "patch_padding": (0, 3, 3),
        "pre_q_fusion": "concat_linear_2",
        "pool_kvq_kernel": (1, 3, 3),
        "pool_kv_stride_adaptive": (1, 4, 4),
    }


@register_model(RevMViT)
def rev_vit_s() -> dict[str, Any]:
    """Rev-ViT-S for images: 22.4 M, 4.6 GFLOPs, ImageNet-1k 79.9."""
    return _vit(384, 6)


@register_model(RevMViT)
def rev_vit_b() -> dict[str, Any]:
    """Rev-ViT-B for images: 87.3 M, 17.5 GFLOPs, ImageNet-1k 81.8."""
    return _vit(768, 12)


@register_model(RevMViT)
def rev_mvit_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    doubling = ((1, 2.0), (3, 2.0))
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "embed_dim": 32,
        "depth": 5,
        "dim_mul": doubling,
        "head_mul": doubling,
        "buffer_layers": (1, 3),
        "pool_q_stride": ((1, 1, 2, 2), (3, 1, 2, 2)),
        "pool_kv_stride_adaptive": (1, 4, 4),
    }
