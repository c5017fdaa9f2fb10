"""Pooling of token volumes, for pooling attention and its skip connection.

Every pool maps (B, T, H, W, C) to (B, T', H', W', C): tokens are a channels-last volume already, so heads
need not be folded into the batch and nothing is permuted in memory. All pad kernel // 2 on both sides.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.caching import once_per_size
from vidformers.layers.depthwise import depthwise_conv3d
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
        stride, padding = triple(self.stride), half(self.kernel_size)
        return depthwise_conv3d(volume, self.weight_of_heads(volume.shape[-1]), stride, padding)

    def weight_of_heads(self, channels: int) -> Tensor:
        """(channels, 1, kt, kh, kw): heads are the slow part of the channel axis."""
        return torch.cat([self.weight] * (channels // self.in_channels))


class MaxPool(nn.Module):
    """Max pooling."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        self.kernel_size, self.stride = triple(kernel), triple(stride)

    def forward(self, volume: Tensor, stride: Grid | None = None) -> Tensor:
        stride, padding = stride or self.stride, half(self.kernel_size)
        if self.kernel_size[0] == stride[0] == 1:
            # The 2D kernel keeps channels last and is several times faster than the 3D one on CPU.
            frames = volume.flatten(0, 1).permute(0, 3, 1, 2)  # (B, T, H, W, C) -> (B*T, C, H, W)
            frames = _max_pool2d(frames, self.kernel_size[1:], stride[1:], padding[1:])
            return frames.permute(0, 2, 3, 1).unflatten(0, volume.shape[:2])
        x = F.max_pool3d(volume.permute(0, 4, 1, 2, 3), self.kernel_size, stride, padding)
        return x.permute(0, 2, 3, 4, 1)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel_size}, stride={self.stride}"


def _max_pool2d(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    if not torch.is_grad_enabled():
        return F.max_pool2d(x, kernel, stride, padding)
    return _MaxPool2d.apply(x, kernel, stride, padding)


class _MaxPool2d(torch.autograd.Function):
    """F.max_pool2d, which besides the places of the maxima would keep its input for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
    ) -> Tensor:
        pooled, places = F.max_pool2d(x, kernel, stride, padding, return_indices=True)
        ctx.save_for_backward(places.int())
        ctx.shape = x.shape
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (places,) = ctx.saved_tensors
        B, C, H, W = ctx.shape
        # (B, C, H', W') -> (B, H'*W', C), tokens as they lie in memory
        gradient, places = (part.permute(0, 2, 3, 1).flatten(1, 2) for part in (gradients[0], places))
        of_x = gradient.new_zeros(B, H * W, C).scatter_add_(1, places.long(), gradient)
        return of_x.unflatten(1, (H, W)).permute(0, 3, 1, 2), None, None, None


class AvgPool(nn.Module):
    """Mean over the whole kernel, the padded zeros counted."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]):
        super().__init__()
        self.kernel_size, self.stride = triple(kernel), triple(stride)

    def forward(self, volume: Tensor, stride: Grid | None = None) -> Tensor:
        x = volume.permute(0, 4, 1, 2, 3)  # (B, T, H, W, C) -> (B, C, T, H, W)
        # Padded by hand: avg_pool3d refuses maps smaller than its kernel even where its own padding would do.
        kt, kh, kw = half(self.kernel_size)
        x = F.pad(x, (kw, kw, kh, kh, kt, kt))
        if x.device.type == "cpu":  # where torch has no avg_pool3d in half precision
            x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        x = F.avg_pool3d(x, self.kernel_size, stride or self.stride).to(volume.dtype)
        return x.permute(0, 2, 3, 4, 1)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel_size}, stride={self.stride}"


def split_tokens(x: Tensor, class_token: bool) -> tuple[Tensor | None, Tensor]:
    """(B, [1 +] N, C) -> the class token (B, 1, C), if there is one, and the patches (B, N, C).

    Split and not sliced: the backward pass of each slice would fill and add a tensor of x's size.
    """
    if not class_token:
        return None, x
    token, patches = x.split((1, x.shape[1] - 1), dim=1)
    return token, patches


def join_tokens(token: Tensor | None, volume: Tensor) -> tuple[Tensor, Grid]:
    """The class token, if there is one, and a volume (B, T, H, W, C) -> (B, [1 +] T*H*W, C) and the grid."""
    grid = (volume.shape[1], volume.shape[2], volume.shape[3])
    patches = volume.flatten(1, 3)
    return (patches if token is None else torch.cat([token, patches], dim=1)), grid


def pool_tokens(x: Tensor, grid: Grid, pool: nn.Module, class_token: bool) -> tuple[Tensor, Grid]:
    """(B, [1 +] T*H*W, C) -> (B, [1 +] T'*H'*W', C) and the new grid; a class token passes unpooled."""
    token, patches = split_tokens(x, class_token)
    return join_tokens(token, pool(patches.unflatten(1, grid)))


def positions_read(size: int, kernel: int, stride: int) -> list[int]:
    """The positions of one axis that a pool reads, in order: all, unless it strides past some.

    On the others a pool need not be given values. What it reads lies in runs as long as the kernel, so the
    same pool with a stride of `kernel` over these positions alone gives the same outputs: the first run lacks
    what is padding, as the last does.
    """
    if stride <= kernel:
        return list(range(size))
    first = -(kernel // 2)
    outputs = (size - 2 * first - kernel) // stride + 1
    read = [first + i * stride + tap for i in range(outputs) for tap in range(kernel)]
    return [position for position in read if 0 <= position < size]


def grid_read(grid: Grid, kernel: Grid, stride: Grid) -> Grid:
    """How many positions of each axis a pool reads."""
    return triple([len(positions_read(n, k, s)) for n, k, s in zip(grid, kernel, stride, strict=True)])


@once_per_size
def index_read(
    grid: Grid, kernel: Grid, stride: Grid, class_token: bool, *, device: torch.device | None = None
) -> Tensor:
    """Indices of the tokens that a pool reads, the class token's before them if there is one."""
    t, h, w = (
        torch.tensor(positions_read(n, k, s), device=device)
        for n, k, s in zip(grid, kernel, stride, strict=True)
    )
    _, H, W = grid
    index = ((t[:, None, None] * H + h[:, None]) * W + w).flatten()
    return F.pad(index + 1, (1, 0)) if class_token else index


def stride_over_read(kernel: Sequence[int], stride: Sequence[int]) -> Grid:
    """The strides of a pool that is given the `positions_read` alone."""
    return triple([min(k, s) for k, s in zip(kernel, stride, strict=True)])


def pool_pair(volume: Tensor, first: nn.Module, second: nn.Module, stride: Grid) -> Tensor:
    """Two pools of the same kind and kernel, each over its half of the channels, in one pass.

    (B, T, H, W, 2C) -> (B, T', H', W', 2C): keys and values side by side.
    """
    if isinstance(first, ConvPool) and isinstance(second, ConvPool):
        channels = volume.shape[-1] // 2
        weight = torch.cat([first.weight_of_heads(channels), second.weight_of_heads(channels)])
        return depthwise_conv3d(volume, weight, stride, half(first.kernel_size))
    return first(volume, stride)
