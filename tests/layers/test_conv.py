"""The convolutions over clips that torch's own is wrong for."""

import pytest
import torch
from torch import nn

from vidformers.layers.conv import Conv3d, PlainConv3d


@pytest.mark.parametrize("layer", [PlainConv3d, Conv3d])
def test_one_frame_in_bfloat16(layer: type[nn.Conv3d]) -> None:
    """torch's nn.Conv3d gives NaN or random numbers here on the CPU (seen in 2.13)."""
    torch.manual_seed(0)
    convolution = layer(3, 8, (3, 7, 7), (2, 4, 4), (1, 3, 3))
    frame = torch.randn(2, 3, 1, 16, 16)
    expected = convolution(frame)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(convolution(frame).float(), expected, atol=0.02, rtol=0.02)
    half = convolution.bfloat16()(frame.bfloat16())
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.02)
