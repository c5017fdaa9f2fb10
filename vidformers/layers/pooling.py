"""Pooling of token volumes, for pooling attention and its skip connection.

Every pool maps (B, T, H, W, C) to (B, T', H', W', C): tokens are a channels-last volume already, so heads
need not be folded into the batch and nothing is permuted in memory. All pad kernel // 2 on both sides.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.conv import channels_last_gradient_is_wrong
from vidformers.layers.sizes import Grid, conv_output_size, triple


def needs_pooling(kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Kernel and stride of ones: there is nothing to pool, and the reference has no layer there."""
    return any(k > 1 for k in kernel) or any(s > 1 for s in stride)


def half(kernel: Sequence[int]) -> Grid:
    """The padding of every pool."""
    return triple([k // 2 for k in kernel])


def pooled_grid(grid: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Grid:
    return conv_output_size(grid, kernel, stride, half(kernel))


class ConvPool(nn.Conv3d):
    """Depthwise convolution without bias; one set of `channels` weights serves every head of the volume."""

    def __init__(self, channels: int, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__(
            channels, channels, triple(kernel), triple(stride), half(kernel), groups=channels, bias=False
        )

    def forward(self, volume: Tensor) -> Tensor:
        channels = volume.shape[-1]
        # Heads are the slow part of the channel axis: tiling the weights gives each head the same ones.
        weight = self.weight.repeat(channels // self.in_channels, 1, 1, 1, 1)
        x = volume.permute(0, 4, 1, 2, 3)  # (B, T, H, W, C) -> (B, C, T, H, W), no copy
        if channels_last_gradient_is_wrong(x):
            x = x.contiguous()
        x = F.conv3d(x, weight, None, self.stride, self.padding, groups=channels)
        return x.permute(0, 2, 3, 4, 1)


class MaxPool(nn.Module):
    """Max pooling."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        self.kernel, self.stride = triple(kernel), triple(stride)
        self.padding = half(kernel)

    def forward(self, volume: Tensor) -> Tensor:
        if self.kernel[0] == self.stride[0] == 1:
            # The 2D kernel keeps channels last and is several times faster than the 3D one on CPU.
            frames = volume.flatten(0, 1).permute(0, 3, 1, 2)  # (B, T, H, W, C) -> (B*T, C, H, W)
            frames = F.max_pool2d(frames, self.kernel[1:], self.stride[1:], self.padding[1:])
            return frames.permute(0, 2, 3, 1).unflatten(0, volume.shape[:2])
        x = F.max_pool3d(volume.permute(0, 4, 1, 2, 3), self.kernel, self.stride, self.padding)
        return x.permute(0, 2, 3, 4, 1)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


class AvgPool(nn.Module):
    """Mean over the whole kernel, the padded zeros counted."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        self.kernel, self.stride = triple(kernel), triple(stride)

    def forward(self, volume: Tensor) -> Tensor:
        x = volume.permute(0, 4, 1, 2, 3)  # (B, T, H, W, C) -> (B, C, T, H, W)
        # Padded by hand: avg_pool3d refuses maps smaller than its kernel even where its own padding would do.
        kt, kh, kw = half(self.kernel)
        x = F.pad(x, (kw, kw, kh, kh, kt, kt))
        if x.device.type == "cpu":  # where torch has no avg_pool3d in half precision
            x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        x = F.avg_pool3d(x, self.kernel, self.stride).to(volume.dtype)
        return x.permute(0, 2, 3, 4, 1)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


def pool_tokens(x: Tensor, grid: Grid, pool: nn.Module, class_token: bool) -> tuple[Tensor, Grid]:
    """(B, [1 +] T*H*W, C) -> (B, [1 +] T'*H'*W', C) and the new grid; a class token passes unpooled."""
    patches = x[:, 1:] if class_token else x
    volume = pool(patches.unflatten(1, grid))
    pooled = volume.flatten(1, 3)
    if class_token:
        pooled = torch.cat([x[:, :1], pooled], dim=1)
    return pooled, (volume.shape[1], volume.shape[2], volume.shape[3])
