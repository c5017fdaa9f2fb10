"""Clips to tokens by one strided convolution."""

from collections.abc import Sequence

from torch import Tensor, nn

from vidformers.layers.conv import PlainConv3d
from vidformers.layers.sizes import Grid, conv_output_size, triple

AXES = ("T (frames)", "H (height)", "W (width)")
DECLARED_AS = ("num_frames", "image_size (height)", "image_size (width)")


class PatchEmbed(nn.Module):
    """Conv3d patch embedding; an image model is the one with a temporal kernel of 1.

    forward: (B, in_channels, T, H, W) -> tokens (B, T'*H'*W', embed_dim), T-major, and the grid (T', H', W').
    """

    def __init__(
        self,
        *,
        in_channels: int,
        embed_dim: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
    ):
        super().__init__()
        self.kernel, self.stride, self.padding = triple(kernel), triple(stride), triple(padding)
        self.proj = PlainConv3d(in_channels, embed_dim, self.kernel, self.stride, self.padding)

    def grid_size(self, clip_size: Sequence[int]) -> Grid:
        """(T, H, W) in frames and pixels -> (T', H', W') in tokens; ValueError if an axis is too small."""
        for axis, size, kernel, padding in zip(AXES, clip_size, self.kernel, self.padding, strict=True):
            smallest = max(kernel - 2 * padding, 1)
            if size < smallest:
                raise ValueError(
                    f"the input is too small along {axis}: got {size}, and the patch embedding "
                    f"(kernel {kernel}, padding {padding}) needs at least {smallest}"
                )
        return conv_output_size(clip_size, self.kernel, self.stride, self.padding)

    def declared_grid(self, clip_size: Sequence[int]) -> Grid:
        """Grid of the size that a model is built for: size // stride, as in the projects whose weights are
        loaded; a ValueError if the convolution gives another one."""
        grid = conv_output_size(clip_size, self.kernel, self.stride, self.padding)
        for axis, name, size, got, kernel, stride in zip(
            AXES, DECLARED_AS, clip_size, grid, self.kernel, self.stride, strict=True
        ):
            if size >= 1 and got == size // stride >= 1:
                continue
            if size % stride or size < 1:
                works = [n for n in (size // stride * stride, (size // stride + 1) * stride) if n > 0]
                raise ValueError(
                    f"{name}={size} is not divisible by the patch stride {stride} along this axis; "
                    f"use {' or '.join(map(str, works))}"
                )
            raise ValueError(
                f"patch_padding={self.padding} gives {got} tokens along {axis} where size / stride is "
                f"{size // stride}; for kernel {kernel} and stride {stride} use padding "
                f"{(kernel - 1) // 2 if kernel > stride else 0} on this axis"
            )
        return grid

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        grid = self.grid_size(clip.shape[2:])
        # (B, C, T', H', W') -> (B, T'*H'*W', C)
        return self.proj(clip).flatten(2).transpose(1, 2), grid
