"""MSG-Transformer (Fang et al., arXiv 2105.15168), extended in time.

Names and arithmetic follow the official repository, whose image weights inflate (see
checkpoints/msg_transformer.py). Attention stays within windows; each window has one messenger token, and
messengers exchange channels within regions of windows. In time windows and regions are boxes, so that a
messenger stands for all frames of its window. No stage merges frames.

Shape letters: B clips, T H W patches along time, height and width, G = nt*nh*nw windows of a clip, N patches
of a window, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.caching import once_per_size
from vidformers.layers.checks import (
    check_counts,
    check_positive,
    check_rates,
    check_stages,
    checked_triple,
    declared_size,
)
from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.head import ClassifierHead
from vidformers.layers.initialise import reset_swin
from vidformers.layers.mlp import Mlp
from vidformers.layers.partition import clip_group, frames_in_groups, group_mask, partition, unpartition
from vidformers.layers.position_bias import TableBias
from vidformers.layers.pyramid import drop_path_rates, stage_layer_id
from vidformers.layers.sizes import Grid, triple
from vidformers.models.registry import register_model
from vidformers.models.video_classifier import VideoClassifier, stage_info


@dataclass(frozen=True)
class Layout:
    """How the blocks of a stage see a map: its windows, and what attention and shuffle need of them."""

    size: Grid  # (T, H, W) in patches
    window: Grid
    windows: Grid  # (nt, nh, nw)
    mask: Tensor | None  # bool (G, 1, N): the patches that are no padding
    messenger_logit: Tensor | None  # () or (G,), added to the logit of the messenger as a key
    shuffle: Tensor | None  # long (G*C,): where each channel of each messenger comes from


def window_grid(size: Sequence[int], window: Sequence[int]) -> Grid:
    """Number of windows along each axis, the last one perhaps padded."""
    return triple([-(-n // w) for n, w in zip(size, window, strict=True)])


@once_per_size
def shuffle_index(
    windows: Grid, region: Grid, dim: int, *, device: torch.device | None = None
) -> Tensor | None:
    """Source of each channel of each messenger, long (nt*nh*nw*dim,); None where nothing moves.

    The channels are cut into one chunk for each place of a region in space, each chunk into one sub-chunk for
    each place in time. In space, chunk g of the messenger at place p is chunk p of the one at place g, as
    published; in time, sub-chunk u comes from u windows later, cyclic within the region. (Treating time as a
    third axis of the space rule would not leave a clip of equal frames unchanged.)

    At the end of an axis a region may be cut short. There, a chunk whose partner does not exist stays, and
    the cycle in time has as many windows as there are: always a permutation.
    """
    if all(min(r, n) == 1 for r, n in zip(region, windows, strict=True)):
        return None
    rt, rh, rw = region
    nt, nh, nw = windows
    t = torch.arange(nt, device=device).view(-1, 1, 1, 1)
    h = torch.arange(nh, device=device).view(-1, 1, 1)
    w = torch.arange(nw, device=device).view(-1, 1)
    channel = torch.arange(dim, device=device)
    chunk_width = dim // (rh * rw)
    chunk, within = channel // chunk_width, channel % chunk_width

    first = t // rt * rt
    source_t = first + (t - first + within // (chunk_width // rt)) % (nt - first).clamp(max=rt)
    partner_h = h // rh * rh + chunk // rw
    partner_w = w // rw * rw + chunk % rw
    exists = (partner_h < nh) & (partner_w < nw)
    source_h, source_w = torch.where(exists, partner_h, h), torch.where(exists, partner_w, w)
    own_place = h % rh * rw + w % rw
    source_channel = torch.where(exists, own_place * chunk_width + within, channel)
    return (((source_t * nh + source_h) * nw + source_w) * dim + source_channel).flatten()


class MessengerBias(nn.Module):
    """Position bias of a window and its messenger: (t, h, w) -> (heads, 1+N, 1+N), the messenger first.

    rel_pos_msg (heads, 2, 1, 1): [:, 0] for patches that look at the messenger, [:, 1] for the messenger that
    looks at anything (which the softmax cancels; the published weights have it).
    """

    def __init__(self, window: Sequence[int], num_heads: int):
        super().__init__()
        self.patches = TableBias(window, num_heads)
        self.rel_pos_msg = nn.Parameter(torch.empty(num_heads, 2, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.rel_pos_msg, std=0.02)

    def forward(self, group: Sequence[int]) -> Tensor:
        patches = self.patches(group)  # (heads, N, N)
        num_patches = patches.shape[-1]
        to_messenger = self.rel_pos_msg[:, 0].expand(-1, num_patches, 1)
        from_messenger = self.rel_pos_msg[:, 1].expand(-1, 1, 1 + num_patches)
        return torch.cat([from_messenger, torch.cat([to_messenger, patches], dim=2)], dim=1)


class MessengerBlock(nn.Module):
    """Window attention, shuffle of the messengers, MLP; attention and MLP pre-norm and residual.

    forward: windows (B, G, 1+N, C), the messenger first, and their layout -> the same shape.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window: Sequence[int],
        mlp_ratio: float,
        qkv_bias: bool,
        dropout_rate: float,
        drop_path_rate: float,
        norm_eps: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = GroupAttention(
            dim,
            num_heads,
            qkv_bias=qkv_bias,
            position_bias=MessengerBias(window, num_heads),
            dropout_rate=dropout_rate,
        )
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        branch = self.attn(
            self.norm1(x).flatten(0, 1),
            layout.window,
            layout.mask,
            num_prefix=1,
            prefix_logit=layout.messenger_logit,
        )
        x = x + self.drop_path(branch.view_as(x))
        if layout.shuffle is not None:
            messengers = x[:, :, 0]
            messengers = messengers.flatten(1)[:, layout.shuffle].view_as(messengers)
            x = torch.cat([messengers[:, :, None], x[:, :, 1:]], dim=2)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MessengerMerging(nn.Module):
    """Between stages: one convolution and norm for the patches and for the messengers, each a map.

    (B, T, H, W, C) -> (B, T, ceil(H / 2), ceil(W / 2), 2C)
    """

    def __init__(self, dim: int, kernel: Sequence[int], norm_eps: float):
        super().__init__()
        padding = [k // 2 for k in kernel]
        self.reduction = Conv3d(dim, 2 * dim, kernel, (1, 2, 2), padding)
        self.norm = nn.LayerNorm(2 * dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        # (B, T, H, W, C) -> (B, C, T, H, W) and back
        return self.norm(self.reduction(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1))


class MessengerEmbed(nn.Module):
    """Patch embedding: convolution, norm. (B, in_channels, T, H, W) -> (B, T', H', W', dim)."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        norm_eps: float,
    ):
        super().__init__()
        self.proj = Conv3d(
            in_channels, dim, kernel, stride, padding, time_padding="replicate", space_padding="ceil"
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, clip: Tensor) -> Tensor:
        return self.norm(self.proj(clip).permute(0, 2, 3, 4, 1))


class MessengerStage(nn.Module):
    """Blocks on one map, then the merging into the next stage.

    forward: patches (B, T, H, W, C) and messengers (B, nt, nh, nw, C) -> those of the next stage.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        downsample: nn.Module | None,
        *,
        window: Grid,
        region: Grid | None,
        log_frames: bool,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.window = window
        self.region = region
        self.log_frames = log_frames

    def forward(self, patches: Tensor, messengers: Tensor, *, recompute: bool) -> tuple[Tensor, Tensor]:
        """`recompute`: keep no activations inside the blocks for the backward pass."""
        layout = self.layout(patches)
        # (B, T, H, W, C) -> (B*G, N, C) -> (B, G, N, C), and (B, nt, nh, nw, C) -> (B, G, 1, C)
        windows = partition(patches, layout.window).unflatten(0, (-1, math.prod(layout.windows)))
        x = torch.cat([messengers.flatten(1, 3)[:, :, None], windows], dim=2)
        for block in self.blocks:
            x = checkpoint(block, x, layout, use_reentrant=False) if recompute else block(x, layout)
        patches = unpartition(x[:, :, 1:].flatten(0, 1), layout.size, layout.window)
        messengers = x[:, :, 0].unflatten(1, layout.windows)
        if self.downsample is None:
            return patches, messengers
        return self.downsample(patches), self.downsample(messengers)

    def layout(self, patches: Tensor) -> Layout:
        """Layout of a map (B, T, H, W, C) of this stage."""
        size, dim, device = triple(patches.shape[1:4]), patches.shape[4], patches.device
        window = clip_group(self.window, size)
        windows = window_grid(size, self.window)
        logit = None
        if self.log_frames and window[0] > 1:
            logit = frames_in_groups(size, window, device=device).to(patches.dtype).log()
            if size[0] % window[0] == 0:
                logit = logit[0]  # the same in all windows
        shuffle = None if self.region is None else shuffle_index(windows, self.region, dim, device=device)
        return Layout(size, window, windows, group_mask(size, window, device=device), logit, shuffle)


class MSGTransformer(VideoClassifier):
    """MSG-Transformer for clips and for images.

    forward: clip (B, in_channels, T, H, W), float, normalised, or images (B, in_channels, H, W) = clips of
    one frame -> logits (B, num_classes), from the mean of the messengers of the last stage (one a window).
    Any T, H, W: windows are padded, and the padding is hidden from attention; regions are cut short.

    Input and embedding:
      num_frames, image_size (pixels, int or (height, width); what the model is meant for), in_channels,
      num_classes
      patch_kernel, patch_stride, patch_padding: (t, h, w)
      merge_kernel: (t, h, w) of the convolutions between stages, odd, at stride (1, 2, 2)
    Stages (one entry each where a sequence is due):
      embed_dim: width of the first, doubled by each later one
      depths, num_heads, mlp_ratio, qkv_bias, norm_eps
      window_size: (t, h, w) in patches, the same in all stages
      region_size: ((t, h, w), ...) in windows: within these messengers exchange channels after each block's
        attention. A stage's width must be divisible by t*h*w
      shuffle_messengers: False to leave that out
      messenger_log_frames: adds log(frames in the window) to the messenger's logit as a key, so that its
        share of the attention does not fade as the window grows in time; needed for image weights
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
        patch_kernel: Sequence[int] = (2, 7, 7),
        patch_stride: Sequence[int] = (2, 4, 4),
        patch_padding: Sequence[int] = (0, 2, 2),
        merge_kernel: Sequence[int] = (1, 3, 3),
        embed_dim: int = 64,
        depths: Sequence[int] = (2, 4, 12, 4),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        window_size: Sequence[int] = (4, 7, 7),
        region_size: Sequence[Sequence[int]] = ((2, 4, 4), (2, 4, 4), (2, 2, 2), (2, 1, 1)),
        shuffle_messengers: bool = True,
        messenger_log_frames: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
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
        check_positive(mlp_ratio=mlp_ratio, norm_eps=norm_eps)
        num_stages = len(depths)
        dims = [embed_dim * 2**i for i in range(num_stages)]
        check_stages(
            {"embed_dims": dims, "depths": depths, "num_heads": num_heads, "region_size": region_size}
        )
        regions = [checked_triple(f"region_size[{i}]", region) for i, region in enumerate(region_size)]
        patch_kernel = checked_triple("patch_kernel", patch_kernel)
        patch_stride = checked_triple("patch_stride", patch_stride)
        merge_kernel = checked_triple("merge_kernel", merge_kernel)
        for i, (dim, region) in enumerate(zip(dims, regions, strict=True)):
            if shuffle_messengers and dim % math.prod(region):
                raise ValueError(
                    f"messengers of width {dim} in stage {i} cannot be shared out among "
                    f"region_size[{i}]={region}, {math.prod(region)} windows; use fewer windows, or "
                    f"an embed_dim that makes the width a multiple of {math.prod(region)}"
                )
        if any(k % 2 == 0 for k in merge_kernel):
            raise ValueError(f"merge_kernel={tuple(merge_kernel)} must be odd on every axis")
        declared_size(num_frames, patch_stride[0], image_size, 1)

        self.in_channels = in_channels
        self.depths = tuple(depths)
        self.num_layers = sum(depths)
        self.activation_checkpointing = activation_checkpointing
        self.window, self.region = checked_triple("window_size", window_size), regions[0]
        # Every region starts with the same messengers.
        self.msg_tokens = nn.Parameter(torch.empty(1, math.prod(self.region), 1, embed_dim))
        self.patch_embed = MessengerEmbed(
            in_channels, embed_dim, patch_kernel, patch_stride, patch_padding, norm_eps
        )
        self.pos_drop = nn.Dropout(dropout_rate)
        drop_paths = drop_path_rates(drop_path_rate, depths)
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            blocks = [
                MessengerBlock(
                    dim=dim,
                    num_heads=num_heads[i],
                    window=self.window,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    dropout_rate=dropout_rate,
                    drop_path_rate=drop_paths[i][j],
                    norm_eps=norm_eps,
                )
                for j in range(depths[i])
            ]
            downsample = MessengerMerging(dim, merge_kernel, norm_eps) if i < num_stages - 1 else None
            self.layers.append(
                MessengerStage(
                    blocks,
                    downsample,
                    window=self.window,
                    region=regions[i] if shuffle_messengers else None,
                    log_frames=messenger_log_frames,
                )
            )
        self.feature_info = stage_info("layers.{stage}.blocks.{block}", dims, depths, first=patch_stride)
        self.norm = nn.LayerNorm(dims[-1], eps=norm_eps)
        self.head = ClassifierHead(dims[-1], num_classes, head_dropout_rate)
        self.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, in_channels, T, H, W) or images (B, in_channels, H, W) -> logits (B, num_classes)."""
        _, messengers = self.forward_maps(clip)
        return self.head(self.norm(messengers).mean(dim=(1, 2, 3)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip -> last feature map (B, T', H', W', C) after the final norm, without the messengers."""
        patches, _ = self.forward_maps(clip)
        return self.norm(patches)

    def forward_maps(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Clip -> last patches (B, T', H', W', C) and messengers (B, nt, nh, nw, C), not yet normed."""
        patches = self.pos_drop(self.patch_embed(as_clip(clip, self.in_channels)))
        messengers = self._first_messengers(patches)
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for stage in self.layers:
            patches, messengers = stage(patches, messengers, recompute=recompute)
        return patches, messengers

    def _first_messengers(self, patches: Tensor) -> Tensor:
        """(B, nt, nh, nw, C): the learned messengers of a region, repeated over the map."""
        nt, nh, nw = window_grid(patches.shape[1:4], self.window)
        tokens = self.msg_tokens.view(1, *self.region, -1)
        repeats = [-(-n // r) for n, r in zip((nt, nh, nw), self.region, strict=True)]
        return tokens.repeat(1, *repeats, 1)[:, :nt, :nh, :nw].expand(patches.shape[0], -1, -1, -1, -1)

    def no_weight_decay(self) -> set[str]:
        """Full names of the messengers and the position biases."""
        kinds = ("msg_tokens", "rel_pos_msg", "table")
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in kinds}

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise decay: 0 embedding and messengers, i + 1 block i of the model
        and a merge that follows it, num_layers + 1 the rest."""
        if name.startswith(("patch_embed", "msg_tokens")):
            return 0
        if name.startswith("layers."):
            _, stage, kind, *rest = name.split(".")
            block = int(rest[0]) if kind == "blocks" else self.depths[int(stage)] - 1
            return stage_layer_id(int(stage), block, self.depths)
        return self.num_layers + 1

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises as the official code: Linears and tokens narrow, convolutions at PyTorch's default."""
        reset_swin(self)
        nn.init.trunc_normal_(self.msg_tokens, std=0.02)


# The published image models, as video models of 16x224x224. Parameters and GFLOPs are of the video models;
# ImageNet-1k accuracies are those that the official repository states for the image models.


@register_model(MSGTransformer)
def msg_t() -> dict[str, Any]:
    """MSG-T: 25.0 M parameters, 34.0 GFLOPs; the image model has 82.4 on ImageNet-1k."""
    return {}


@register_model(MSGTransformer)
def msg_s() -> dict[str, Any]:
    """MSG-S: 55.8 M, 72.6 GFLOPs; ImageNet-1k 83.4."""
    return {"embed_dim": 96, "num_heads": (3, 6, 12, 24)}


@register_model(MSGTransformer)
def msg_b() -> dict[str, Any]:
    """MSG-B: 84.4 M, 121.1 GFLOPs; ImageNet-1k 84.0."""
    return {**msg_s(), "depths": (2, 4, 28, 4)}


@register_model(MSGTransformer)
def msg_tiny() -> dict[str, Any]:
    """Not published: for tests and for demonstrations that train on a CPU. 8 frames of 64 pixels."""
    return {
        "num_frames": 8,
        "image_size": 64,
        "num_classes": 10,
        "embed_dim": 48,
        "depths": (2, 2),
        "num_heads": (3, 6),
        "window_size": (2, 4, 4),
        "region_size": ((2, 2, 2), (2, 2, 2)),
        "mlp_ratio": 2.0,
    }
