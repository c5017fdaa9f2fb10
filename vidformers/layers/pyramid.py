"""What models of several stages share: stage embedding, block, drop path rates, layer ids."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidformers.layers.clip import as_clip
from vidformers.layers.conv import Conv3d
from vidformers.layers.drop_path import DropPath
from vidformers.layers.mlp import Mlp
from vidformers.layers.sizes import Grid, triple


class StageEmbed(nn.Module):
    """Strided convolution and LayerNorm in front of a stage; along time it never overlaps.

    forward: volume (B, C, T, H, W) -> tokens (B, T'*H'*W', dim) and their grid, with T' = ceil(T / stride);
    H and W as the convolution gives them: without padding trailing rows are dropped, as in the references.
    """

    def __init__(
        self, in_channels: int, dim: int, *, kernel: Sequence[int], stride: Sequence[int], padding: int = 0
    ):
        super().__init__()
        # Zeros after the last frame would make a still clip's last tubelet differ from the others.
        self.proj = Conv3d(in_channels, dim, kernel, stride, (0, padding, padding), time_padding="replicate")
        # The references leave this one at PyTorch's default eps, also where their blocks have 1e-6.
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, volume: Tensor) -> tuple[Tensor, Grid]:
        volume = self.proj(volume)
        grid = triple(volume.shape[2:])
        return self.norm(volume.flatten(2).transpose(1, 2)), grid  # (B, C, T, H, W) -> (B, T*H*W, C)


class PyramidBlock(nn.Module):
    """Attention and MLP, both pre-norm and residual. forward: tokens (B, N, dim), grid -> the same shape."""

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        *,
        mlp_ratio: float,
        norm_eps: float,
        dropout_rate: float,
        drop_path_rate: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def run_blocks(
    blocks: nn.Module, x: Tensor, grid: Grid, *, recompute: bool, peg: nn.Module | None = None
) -> Tensor:
    """Each of a ModuleList of blocks (x, grid) -> x in turn, and `peg` (x, grid) -> x after the first one.

    With `recompute`, a training step keeps no activations within blocks but computes them again backwards.
    """
    assert isinstance(blocks, nn.ModuleList)
    for i, block in enumerate(blocks):
        if recompute and block.training and torch.is_grad_enabled():
            x = checkpoint(block, x, grid, use_reentrant=False)
        else:
            x = block(x, grid)
        if i == 0 and peg is not None:
            x = peg(x, grid)
    return x


def to_volume(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, T*H*W, C) -> (B, C, T, H, W), a view."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Per stage and block: growing linearly over all blocks, from 0 to `rate`."""
    total = sum(depths)
    rates = iter([rate * i / max(total - 1, 1) for i in range(total)])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def stage_layer_id(stage: int, block: int, depths: Sequence[int]) -> int:
    """Layer of a block for layer-wise decay: 1 for the first one of the model."""
    return sum(depths[:stage]) + block + 1


def clip_of_side(clip: Tensor, in_channels: int, smallest_side: int) -> Tensor:
    """`as_clip`, and a ValueError for frames of which strided convolutions would leave nothing."""
    clip = as_clip(clip, in_channels)
    if min(clip.shape[3:]) < smallest_side:
        raise ValueError(
            f"the input is too small: got frames of {clip.shape[3]}x{clip.shape[4]} pixels, and this model "
            f"needs at least {smallest_side}x{smallest_side}"
        )
    return clip
