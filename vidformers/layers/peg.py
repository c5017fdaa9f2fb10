"""Depthwise convolutions over tokens: the positional encoding generator, and the one in PVTv2's MLP."""

from collections.abc import Sequence

from torch import Tensor, nn

from vidformers.layers.conv import Conv3d
from vidformers.layers.sizes import Grid, triple


class DepthwiseConv(Conv3d):
    """Depthwise convolution of tokens, same size, zeros beyond the borders.

    forward: tokens (B, T*H*W, dim) and their grid -> the same shape.
    """

    def __init__(self, dim: int, kernel: Sequence[int]):
        kernel = triple(kernel)
        if any(k < 1 or k % 2 == 0 for k in kernel):
            raise ValueError(f"a depthwise kernel has odd sizes (t, h, w), got {kernel}; use (3, 3, 3)")
        super().__init__(dim, dim, kernel, padding=[k // 2 for k in kernel], groups=dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:  # type: ignore[override]
        volume = x.transpose(1, 2).unflatten(2, grid)  # (B, T*H*W, C) -> (B, C, T, H, W), no copy
        return super().forward(volume).flatten(2).transpose(1, 2)


class PositionalEncodingGenerator(nn.Module):
    """Conditional position encoding (Chu et al., arXiv 2102.10882, section 3.2): x + depthwise convolution.

    The zero padding is what tells tokens near a border, and through them all others, where they are; in time
    it tells the first frame from the last. forward: tokens (B, T*H*W, dim), grid -> the same shape.
    """

    def __init__(self, dim: int, kernel: Sequence[int] = (3, 3, 3)):
        super().__init__()
        self.proj = DepthwiseConv(dim, kernel)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x + self.proj(x, grid)
