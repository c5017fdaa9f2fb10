"""Depthwise 3D convolution of channels-last volumes, fast forward and backward on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidformers.layers.sizes import Grid


def depthwise_conv3d(volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
    """Each channel convolved with its own kernel: (B, T, H, W, C) -> (B, T', H', W', C).

    weight (C, 1, kt, kh, kw), no bias, C above 1. torch's own backward of this convolution takes 20 to 50
    times as long as its forward on a CPU, so the two gradients are computed by the forward kernel and by 2D
    convolutions. Elsewhere it is F.conv3d.
    """
    if volume.device.type == "cpu" and torch.is_grad_enabled():
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            volume, weight = volume.to(dtype), weight.to(dtype)
        return _DepthwiseConv3d.apply(volume, weight, stride, padding)
    return _convolve(volume, weight, stride, padding)


def _convolve(volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
    x = volume.permute(0, 4, 1, 2, 3)  # (B, T, H, W, C) -> (B, C, T, H, W), no copy
    x = F.conv3d(x, weight, None, stride, padding, groups=weight.shape[0])
    return x.permute(0, 2, 3, 4, 1)


class _DepthwiseConv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
        ctx.save_for_backward(volume, weight)
        ctx.stride, ctx.padding = stride, padding
        return _convolve(volume, weight, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        volume, weight = ctx.saved_tensors
        of_volume = of_weight = None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                of_volume = _volume_gradient(gradient, volume, weight, ctx.stride, ctx.padding)
            if ctx.needs_input_grad[1]:
                of_weight = _weight_gradient(gradient, volume, weight, ctx.stride, ctx.padding)
        return of_volume, of_weight, None, None


def _volume_gradient(gradient: Tensor, volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
    """The gradient, set apart by the stride, convolved with the mirrored kernel."""
    kernel = weight.shape[2:]
    st, sh, sw = stride
    if max(stride) > 1:
        # What the strides left over at the end are positions that no output reads, or reads partly.
        sizes = [n + 2 * p - k + 1 for n, k, p in zip(volume.shape[1:4], kernel, padding, strict=True)]
        apart = gradient.new_zeros((gradient.shape[0], *sizes, gradient.shape[4]))
        apart[:, ::st, ::sh, ::sw] = gradient
        gradient = apart
    opposite = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
    return _convolve(gradient, weight.flip(2, 3, 4), (1, 1, 1), (opposite[0], opposite[1], opposite[2]))


def _weight_gradient(gradient: Tensor, volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
    """One 2D convolution's weight gradient for each frame of the kernel."""
    channels = weight.shape[0]
    if weight.dtype in (torch.bfloat16, torch.float16):
        # There torch (seen in 2.13) leaves some of it uninitialised: random numbers, now and then NaN.
        full = _weight_gradient(gradient.float(), volume.float(), weight.float(), stride, padding)
        return full.to(weight.dtype)
    num_frames, num_outputs = volume.shape[1], gradient.shape[1]
    of_frames = []
    for tap in range(weight.shape[2]):
        # Output o reads frame o * stride + tap - padding; those outside of the clip are zeros.
        offset = tap - padding[0]
        first = -(min(offset, 0) // stride[0])
        last = min((num_frames - 1 - offset) // stride[0], num_outputs - 1)
        if last < first:
            of_frames.append(torch.zeros_like(weight[:, :, 0]))
            continue
        start = first * stride[0] + offset
        frames = volume[:, start : last * stride[0] + offset + 1 : stride[0]].flatten(0, 1)
        outputs = gradient[:, first : last + 1].flatten(0, 1)
        # (N, H, W, C) -> (N, C, H, W), no copy
        _, of_frame, _ = torch.ops.aten.convolution_backward(
            outputs.permute(0, 3, 1, 2),
            frames.permute(0, 3, 1, 2),
            weight[:, :, tap],
            None,
            stride[1:],
            padding[1:],
            (1, 1),
            False,
            (0, 0),
            channels,
            (False, True, False),
        )
        of_frames.append(of_frame)
    return torch.stack(of_frames, dim=2)
