"""CrossFormer (Wang et al., arXiv 2108.00154) and CrossFormer++ (2303.06908), extended in time.

Names and arithmetic follow the official repository, whose image weights inflate (see
checkpoints/crossformer.py). In time: the embedding's large kernels overlap, the short- and long-distance
groups are boxes, and the position bias sees (dt, dh, dw). No stage merges frames.

Shape letters: B clips, T H W tokens along time, height and width, C channels. Everything between the
convolutions is (B, T, H, W, C).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.checks import (
    check_choice,
    check_counts,
    check_positive,
    check_rates,
    check_stages,
    checked_triple,
    declared_size,
    is_sequence,
)
from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_swin
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import ONES, PAD_MASKS, ZEROS, clip_group, grid_interval, padded_size
from vidformers.layers.position_bias import DynamicBias
from vidformers.layers.pyramid import drop_path_rates, stage_layer_id
from vidformers.layers.sizes import Grid, triple
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import MeanClassifier, stage_info

PAD_SIDES = ("end", "both")


class CrossScaleConvs(nn.ModuleList):
    """Convolutions of growing kernels and shrinking widths at a common stride; their outputs concatenated.

    Kernel i gives dim / 2^(i+1) channels, the last one as many as the one before it. (B, T, H, W, C) ->
    (B, ceil(T / st), ceil(H / sh), ceil(W / sw), dim). Each is centred on its stride cell; the first and the
    last frame are repeated beyond the ends of the clip, height and width are padded with zeros.
    """

    def __init__(self, in_channels: int, dim: int, kernels: Sequence[Sequence[int]], stride: Sequence[int]):
        super().__init__()
        if not is_sequence(kernels):
            raise ValueError(f"kernels {kernels!r} must be a sequence of (t, h, w), one for each scale")
        kernels = [checked_triple("kernel", kernel) for kernel in kernels]
        if not kernels or dim % 2 ** (len(kernels) - 1):
            raise ValueError(
                f"width {dim} cannot be halved for each of the kernels {list(kernels)} but the first; "
                f"use a multiple of {2 ** max(len(kernels) - 1, 0)}, and at least one kernel"
            )
        for i, kernel in enumerate(kernels):
            if any(k < s for k, s in zip(kernel, stride, strict=True)):
                raise ValueError(
                    f"kernel {tuple(kernel)} would skip tokens at stride {tuple(stride)}; "
                    "make it at least as large as the stride on every axis"
                )
            padding = [(k - s) // 2 for k, s in zip(kernel, stride, strict=True)]
            halvings = min(i + 1, len(kernels) - 1)
            self.append(
                Conv3d(
                    in_channels,
                    dim // 2**halvings,
                    kernel,
                    stride,
                    padding,
                    time_padding="replicate",
                    space_padding="ceil",
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 4, 1, 2, 3)  # (B, T, H, W, C) -> (B, C, T, H, W)
        x = torch.cat([convolution(x) for convolution in self], dim=1)
        return x.permute(0, 2, 3, 4, 1)  # (B, C, T, H, W) -> (B, T, H, W, C)


class CrossScaleEmbedding(nn.Module):
    """Cross-scale patch embedding: convolutions, then norm. (B, T, H, W, 3) -> (B, T', H', W', dim)."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        kernels: Sequence[Sequence[int]],
        stride: Sequence[int],
        norm_eps: float,
    ):
        super().__init__()
        self.projs = CrossScaleConvs(in_channels, dim, kernels, stride)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projs(x))


class CrossScaleMerging(nn.Module):
    """Between stages: norm, then convolutions. (B, T, H, W, C) -> (B, T, ceil(H / 2), ceil(W / 2), 2C)."""

    def __init__(self, dim: int, kernels: Sequence[Sequence[int]], norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.reductions = CrossScaleConvs(dim, 2 * dim, kernels, (1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.reductions(self.norm(x))


class CrossFormerBlock(nn.Module):
    """Short- or long-distance attention and MLP, both pre-norm and residual.

    Short distance (interval None): groups of G neighbours. Long distance: the padded axis is cut into pieces
    of G x interval tokens, and a group is every interval-th token of a piece; an interval of 0 makes the
    piece the whole axis. Along an axis that is no longer than G both are the whole axis. With a
    `cooling_kernel` the block ends in CrossFormer++'s amplitude cooling layer: depthwise convolution and
    norm, without a skip. (B, T, H, W, C) -> the same.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        group: Sequence[int],
        interval: Sequence[int] | None,
        pad_side: str,
        pad_mask: str,
        mlp_ratio: float,
        qkv_bias: bool,
        cooling_kernel: Sequence[int] | None,
        dropout_rate: float,
        drop_path_rate: float,
        norm_eps: float,
    ):
        super().__init__()
        self.group = checked_triple("group_size", group)
        self.interval = triple(interval) if interval is not None else ONES
        self.pad_side = pad_side
        self.pad_mask = pad_mask
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        # Groups of one time step have no dt: their bias network is the published one.
        bias = DynamicBias(dim // 16, num_heads, temporal=self.group[0] > 1)
        self.attn = GroupAttention(
            dim, num_heads, qkv_bias=qkv_bias, position_bias=bias, dropout_rate=dropout_rate
        )
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.ex_conv: nn.Module | None = None
        if cooling_kernel is not None:
            padding = [k // 2 for k in cooling_kernel]
            self.ex_conv = Conv3d(dim, dim, cooling_kernel, ONES, padding, groups=dim)
            self.ex_ln = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        group, interval, before = self.layout(x.shape[1:4])
        branch = self.attn.attend_volume(
            self.norm1(x), group, interval, before=before, pad_mask=self.pad_mask
        )
        x = x + self.drop_path(branch)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if self.ex_conv is None:
            return x
        # (B, T, H, W, C) -> (B, C, T, H, W) and back
        return self.ex_ln(self.ex_conv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1))

    def layout(self, size: Sequence[int]) -> tuple[Grid, Grid, Grid]:
        """(group, interval, padding in front) for a volume of size (T, H, W)."""
        group = clip_group(self.group, size)
        whole = grid_interval(size, group)
        interval = triple(
            [1 if n <= g else i or w for n, g, i, w in zip(size, group, self.interval, whole, strict=True)]
        )
        before = ZEROS
        if self.pad_side == "both":
            # Never in time, where groups would start in the padding before the first frame.
            padded = padded_size(size, group, interval)
            before = (0, (padded[1] - size[1]) // 2, (padded[2] - size[2]) // 2)
        return group, interval, before


class CrossFormerStage(nn.Module):
    """Blocks of alternating short- and long-distance attention, then the merging into the next stage."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, *, recompute: bool) -> Tensor:
        """`recompute`: keep no activations inside the blocks for the backward pass."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x if self.downsample is None else self.downsample(x)


class CrossFormer(MeanClassifier):
    """CrossFormer and CrossFormer++ for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes). Any T, H, W: what does not fill a stride, a merge or a group is
    padded, and padding is hidden from attention. Nothing is learned for a size, so weights serve all.

    Input and embedding:
      num_frames, image_size (pixels, int or (height, width); what the model is meant for), in_channels,
      num_classes
      patch_kernels: ((t, h, w), ...), smallest first, at patch_stride (t, h, w); kernel i gives embed_dim /
        2^(i+1) channels, the last as many as the one before
      merge_kernels: the same between the stages, one entry for each, at stride (1, 2, 2)
    Stages (one entry each):
      embed_dim: width of the first, doubled by each later one; at least 48 is sensible, because the position
        bias network has embed_dim / 16 channels
      depths, num_heads, mlp_ratio (one number for all, or one each)
      group_size (t, h, w): tokens that attend to each other, in even blocks neighbours
      interval (t, h, w): distance between them in odd blocks; 0: as large as spreads the group over the axis
      qkv_bias, norm_eps
      pad_side: where height and width are padded up to whole groups, "end" or "both" sides
      pad_mask: "all" hides padding from attention, "time" only padded frames, "none" none
      cooling_kernel: (t, h, w) of the amplitude cooling layer after every third block of a stage but after
        the last block (CrossFormer++), or None
    Training:
      drop_path_rate (of the last block; grows linearly from 0), dropout_rate, head_dropout_rate,
      activation_checkpointing (recompute blocks in the backward pass)

    Image model: temporal extents 1 everywhere. Weights inflated from it give a clip of equal frames the
    image's logits. Raises ValueError, saying what would work, for arguments that do not go together.
    """

    def __init__(
        self,
        *,
        num_frames: int = 16,
        image_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        num_classes: int = 400,
        patch_kernels: Sequence[Sequence[int]] = ((2, 4, 4), (2, 8, 8), (4, 16, 16), (4, 32, 32)),
        patch_stride: Sequence[int] = (2, 4, 4),
        merge_kernels: Sequence[Sequence[Sequence[int]]] = (((1, 2, 2), (1, 4, 4)),) * 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        group_size: Sequence[Sequence[int]] = ((4, 7, 7),) * 4,
        interval: Sequence[Sequence[int]] = ((0, 8, 8), (0, 4, 4), (0, 2, 2), (0, 1, 1)),
        mlp_ratio: float | Sequence[float] = 4.0,
        qkv_bias: bool = True,
        pad_side: str = "end",
        pad_mask: str = "all",
        cooling_kernel: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        head_dropout_rate: float = 0.0,
        norm_eps: float = 1e-5,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes)
        check_rates(
            drop_path_rate=drop_path_rate, dropout_rate=dropout_rate, head_dropout_rate=head_dropout_rate
        )
        check_positive(norm_eps=norm_eps)
        num_stages = len(depths)
        dims = [embed_dim * 2**i for i in range(num_stages)]
        ratios = (mlp_ratio,) * num_stages if isinstance(mlp_ratio, int | float) else mlp_ratio
        for ratio in ratios:
            check_positive(mlp_ratio=ratio)
        check_stages(
            {
                "embed_dims": dims,
                "depths": depths,
                "num_heads": num_heads,
                "group_size": group_size,
                "mlp_ratio": ratios,
            }
        )
        if len(interval) != num_stages or min(i for stage in interval for i in stage) < 0:
            raise ValueError(
                f"interval={tuple(interval)} does not fit {num_stages} stages; give (t, h, w) for each, 1 or "
                "more, or 0 for as large as spreads a group over the axis"
            )
        if len(merge_kernels) != num_stages - 1:
            raise ValueError(
                f"merge_kernels has {len(merge_kernels)} entries, and {num_stages} stages have "
                f"{num_stages - 1} merges between them; give one entry for each"
            )
        if embed_dim < 16:
            raise ValueError(
                f"embed_dim={embed_dim} leaves the position bias network without channels; use 48 or more"
            )
        patch_stride = checked_triple("patch_stride", patch_stride)
        if cooling_kernel is not None:
            cooling_kernel = checked_triple("cooling_kernel", cooling_kernel)
        if cooling_kernel is not None and any(k % 2 == 0 for k in cooling_kernel):
            raise ValueError(f"cooling_kernel={tuple(cooling_kernel)} must be odd on every axis")
        check_choice("pad_side", pad_side, PAD_SIDES)
        check_choice("pad_mask", pad_mask, tuple(PAD_MASKS))
        declared_size(num_frames, patch_stride[0], image_size, 1)

        self.in_channels = in_channels
        self.depths = tuple(depths)
        self.num_layers = sum(depths)
        self.activation_checkpointing = activation_checkpointing
        self.patch_embed = CrossScaleEmbedding(in_channels, embed_dim, patch_kernels, patch_stride, norm_eps)
        self.pos_drop = nn.Dropout(dropout_rate)
        drop_paths = drop_path_rates(drop_path_rate, depths)
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            blocks = [
                CrossFormerBlock(
                    dim=dim,
                    num_heads=num_heads[i],
                    group=group_size[i],
                    interval=interval[i] if j % 2 else None,
                    pad_side=pad_side,
                    pad_mask=pad_mask,
                    mlp_ratio=ratios[i],
                    qkv_bias=qkv_bias,
                    cooling_kernel=cooling_kernel if j % 3 == 2 and j < depths[i] - 1 else None,
                    dropout_rate=dropout_rate,
                    drop_path_rate=drop_paths[i][j],
                    norm_eps=norm_eps,
                )
                for j in range(depths[i])
            ]
            is_last = i == num_stages - 1
            self.layers.append(
                CrossFormerStage(
                    blocks, None if is_last else CrossScaleMerging(dim, merge_kernels[i], norm_eps)
                )
            )
        self.feature_info = stage_info("layers.{stage}.blocks.{block}", dims, depths, first=patch_stride)
        self.norm = nn.LayerNorm(dims[-1], eps=norm_eps)
        self.head = ClassifierHead(dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        return self.head(self.forward_features(clip).mean(dim=(1, 2, 3)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm."""
        clip = as_clip(clip, self.in_channels)
        # (B, C, T, H, W) -> (B, T, H, W, C)
        x = self.pos_drop(self.patch_embed(clip.permute(0, 2, 3, 4, 1)))
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for stage in self.layers:
            x = stage(x, recompute=recompute)
        return self.norm(x)

    def no_weight_decay(self) -> set[str]:
        """None: the position biases are the output of a network."""
        return set()

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 the embedding, i + 1 block i of the model and a merge
        that follows it, num_layers + 1 the rest."""
        if name.startswith("patch_embed"):
            return 0
        if name.startswith("layers."):
            _, stage, kind, *rest = name.split(".")
            block = int(rest[0]) if kind == "blocks" else self.depths[int(stage)] - 1
            return stage_layer_id(int(stage), block, self.depths)
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as the official code: Linears narrow, convolutions at PyTorch's default."""
        reset_swin(self)


# The published image models, as video models of 16x224x224. Parameters and GFLOPs are of the video models;
# ImageNet-1k accuracies are those that the official repository states for the image models.


def _plus_plus() -> dict[str, Any]:
    return {
        "group_size": ((4, 4, 4), (4, 4, 4), (4, 14, 14), (4, 7, 7)),
        "interval": ((0, 4, 4), (0, 2, 2), (0, 1, 1), (0, 1, 1)),
        "cooling_kernel": (3, 3, 3),
    }


@register_model(CrossFormer)
def crossformer_t() -> dict[str, Any]:
    """CrossFormer-T: 27.6 M parameters, 27.4 GFLOPs; the image model has 81.5 on ImageNet-1k."""
    return {"embed_dim": 64, "depths": (1, 1, 8, 6), "num_heads": (2, 4, 8, 16)}


@register_model(CrossFormer)
def crossformer_s() -> dict[str, Any]:
    """CrossFormer-S: 30.3 M, 46.4 GFLOPs; ImageNet-1k 82.5."""
    return {}


@register_model(CrossFormer)
def crossformer_b() -> dict[str, Any]:
    """CrossFormer-B: 51.7 M, 82.6 GFLOPs; ImageNet-1k 83.4."""
    return {"depths": (2, 2, 18, 2)}


@register_model(CrossFormer)
def crossformer_l() -> dict[str, Any]:
    """CrossFormer-L: 91.6 M, 141.3 GFLOPs; ImageNet-1k 84.0."""
    return {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}


@register_model(CrossFormer)
def crossformer_pp_s() -> dict[str, Any]:
    """CrossFormer++-S: 23.1 M, 47.2 GFLOPs; ImageNet-1k 83.2."""
    return {**_plus_plus(), "embed_dim": 64, "depths": (2, 2, 18, 2), "num_heads": (2, 4, 8, 16)}


@register_model(CrossFormer)
def crossformer_pp_b() -> dict[str, Any]:
    """CrossFormer++-B: 51.7 M, 94.4 GFLOPs; ImageNet-1k 84.2."""
    return {**_plus_plus(), **crossformer_b()}


@register_model(CrossFormer)
def crossformer_pp_l() -> dict[str, Any]:
    """CrossFormer++-L: 91.6 M, 157.3 GFLOPs; ImageNet-1k 84.7."""
    return {**_plus_plus(), **crossformer_l()}


@register_model(CrossFormer)
def crossformer_pp_h() -> dict[str, Any]:
    """CrossFormer++-H: 95.6 M, 202.0 GFLOPs; ImageNet-1k 84.9."""
    return {**_plus_plus(), **crossformer_l(), "depths": (6, 6, 18, 2)}


@register_model(CrossFormer)
def crossformer_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "patch_kernels": ((2, 4, 4), (2, 8, 8), (4, 16, 16)),
        "merge_kernels": (((1, 2, 2), (1, 4, 4)),),
        "embed_dim": 48,
        "depths": (2, 2),
        "num_heads": (3, 6),
        "group_size": ((2, 4, 4), (2, 4, 4)),
        "interval": ((0, 0, 0), (0, 0, 0)),
        "mlp_ratio": 2.0,
    }
