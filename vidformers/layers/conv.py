"""3D convolution with its own padding rule along time, for families that inflate from images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.checks import check_choice
from vidformers.layers.sizes import Grid, triple

TIME_PADDING = ("zero", "replicate")
SPACE_PADDING = ("zero", "ceil", "same")


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding of one axis: ceil(size / stride) outputs, the odd zero at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def ceil_padding(size: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """`padding` on both sides, and at the end what ceil(size / stride) outputs need besides."""
    missing = (-(-size // stride) - 1) * stride + kernel - size - 2 * padding
    return padding, padding + max(missing, 0)


class PlainConv3d(nn.Conv3d):
    """nn.Conv3d that is right for one frame too, see `pad_one_frame`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)
        x, padding = pad_one_frame(input, triple(self.padding))
        return F.conv3d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(nn.Conv3d):
    """nn.Conv3d that pads time and space by different rules. (B, C, T, H, W) -> (B, C', T', H', W').

    padding (t, h, w): on both sides. Time is padded further at the end, to ceil(T / stride) outputs; all of
    its padding is "zero" or "replicate", which repeats the first and the last frame: then a clip of equal
    frames stays one. space_padding: "zero", as nn.Conv3d (what is left over at the end is dropped); "ceil",
    further zeros at the end for ceil(size / stride) outputs; "same", TensorFlow's rule (`padding` of h and w
    is then not used).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] = (0, 0, 0),
        *,
        groups: int = 1,
        bias: bool = True,
        time_padding: str = "zero",
        space_padding: str = "zero",
    ):
        check_choice("time_padding", time_padding, TIME_PADDING)
        check_choice("space_padding", space_padding, SPACE_PADDING)
        size = (triple(kernel), triple(stride), triple(padding))
        super().__init__(in_channels, out_channels, *size, groups=groups, bias=bias)
        self.time_padding = time_padding
        self.space_padding = space_padding

    def pads(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """(before, after) of the axes t, h, w for an input of size (T, H, W)."""
        sizes = triple(size)
        kernel, stride, padding = triple(self.kernel_size), triple(self.stride), self._padding
        pads = [ceil_padding(sizes[0], kernel[0], stride[0], padding[0])]
        for n, k, s, p in zip(sizes[1:], kernel[1:], stride[1:], padding[1:], strict=True):
            if self.space_padding == "same":
                pads.append(same_padding(n, k, s))
            elif self.space_padding == "ceil":
                pads.append(ceil_padding(n, k, s, p))
            else:
                pads.append((p, p))
        return pads

    def forward(self, x: Tensor) -> Tensor:
        time, height, width = self.pads(x.shape[2:])
        if self.time_padding == "replicate" and any(time):
            first, last = x[:, :, :1], x[:, :, -1:]
            x = torch.cat(
                [first.expand(-1, -1, time[0], -1, -1), x, last.expand(-1, -1, time[1], -1, -1)], dim=2
            )
            time = (0, 0)
        pads = (time, height, width)
        padding = triple([low for low, _ in pads])
        if any(low != high for low, high in pads):
            x = F.pad(x, (*width, *height, *time))
            padding = (0, 0, 0)
        if channels_last_gradient_is_wrong(x) and self.groups > 1:
            x = x.contiguous()
        x, padding = pad_one_frame(x, padding)
        return F.conv3d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    @property
    def _padding(self) -> Grid:
        assert not isinstance(self.padding, str)
        return triple(self.padding)


def channels_last_gradient_is_wrong(x: Tensor) -> bool:
    """In bfloat16 on the CPU, torch (seen in 2.13) leaves the weight gradient of a channels-last depthwise
    conv3d uninitialised: random numbers, now and then NaN. Contiguous input and other types are right."""
    return torch.is_grad_enabled() and _in_bfloat16_on_cpu(x)


def pad_one_frame(x: Tensor, padding: Grid) -> tuple[Tensor, Grid]:
    """Input and padding for F.conv3d. In bfloat16 on the CPU torch (seen in 2.13) gives random numbers for
    one frame that the convolution pads in time; padded beforehand, the result is right."""
    if x.shape[2] > 1 or not padding[0] or not _in_bfloat16_on_cpu(x):
        return x, padding
    return F.pad(x, (0, 0, 0, 0, padding[0], padding[0])), (0, padding[1], padding[2])


def _in_bfloat16_on_cpu(x: Tensor) -> bool:
    if x.device.type != "cpu":
        return False
    return x.dtype == torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )
