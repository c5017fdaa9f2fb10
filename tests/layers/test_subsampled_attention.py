"""Sub-sampled attention and the positional encoding generator against their definitions, with loops."""

import math

import pytest
import torch

from vidformers.layers.peg import PositionalEncodingGenerator
from vidformers.layers.subsampled_attention import SubsampledAttention


def attend(layer: SubsampledAttention, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """One clip: tokens (N, C) to the tokens of the reduced map (M, C), head by head."""
    q, (k, v) = layer.q(x), layer.kv(keys).split(x.shape[1], dim=1)
    size = x.shape[1] // layer.num_heads
    heads = []
    for h in range(layer.num_heads):
        part = slice(h * size, (h + 1) * size)
        heads.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1) @ v[:, part])
    return layer.proj(torch.cat(heads, dim=1))


@pytest.mark.parametrize("grid", [(4, 6, 4), (5, 7, 5), (1, 2, 3)])
def test_reduction_by_convolution(grid: tuple[int, int, int]) -> None:
    """Cells of 2 frames, the last one repeated if need be, and 3x2 tokens; the rest of h and w is no key."""
    torch.manual_seed(0)
    layer = SubsampledAttention(8, 2, reduction=(2, 3, 2)).double()
    T, H, W = grid
    x = torch.randn(2, T * H * W, 8, dtype=torch.float64)
    volume = x.view(2, T, H, W, 8)
    keys = []
    for t in range(0, T, 2):
        for h in range(max(H // 3, 1)):
            for w in range(max(W // 2, 1)):
                cell = torch.zeros(2, 8, dtype=torch.float64) + layer.sr.bias
                for dt in range(2):
                    for dh in range(3):
                        for dw in range(2):
                            token = volume[
                                :, min(t + dt, T - 1), min(3 * h + dh, H - 1), min(2 * w + dw, W - 1)
                            ]
                            cell = cell + token @ layer.sr.weight[:, :, dt, dh, dw].T
                keys.append(layer.norm(cell))
    expected = torch.stack([attend(layer, x[b], torch.stack(keys, dim=1)[b]) for b in range(2)])
    torch.testing.assert_close(layer(x, grid), expected)


def test_reduction_by_pooling() -> None:
    """The linear attention: averages over cells, then a convolution of one token, norm and GELU."""
    torch.manual_seed(0)
    layer = SubsampledAttention(8, 2, reduction=(9, 9, 9), pool_size=(2, 2, 3)).double()
    x = torch.randn(1, 4 * 4 * 6, 8, dtype=torch.float64)
    means = x.view(2, 2, 2, 2, 3, 2, 8).mean(dim=(1, 3, 5)).reshape(-1, 8)
    reduced = means @ layer.sr.weight[:, :, 0, 0, 0].T + layer.sr.bias
    keys = torch.nn.functional.gelu(layer.norm(reduced))
    torch.testing.assert_close(layer(x, (4, 4, 6))[0], attend(layer, x[0], keys))
    # One frame has one cell in time, not the same one twice.
    assert layer._reduced(x[:, :24], (1, 4, 6)).shape == (1, 6, 8)


def test_class_token_counts_once_a_frame() -> None:
    """The logarithm is worth the same as repeating the class key."""
    torch.manual_seed(0)
    layer = SubsampledAttention(8, 2, class_token_log_frames=True).double()
    x = torch.randn(1, 1 + 3 * 4, 8, dtype=torch.float64)
    repeated = torch.cat([x[:, :1], x[:, :1], x], dim=1)
    torch.testing.assert_close(layer(x, (3, 2, 2))[0], attend(layer, x[0], repeated[0]))


def test_positional_encoding_generator() -> None:
    torch.manual_seed(0)
    layer = PositionalEncodingGenerator(2, (3, 1, 3)).double()
    x = torch.randn(1, 2 * 3 * 4, 2, dtype=torch.float64)
    volume = x.view(2, 3, 4, 2)
    expected = volume + layer.proj.bias
    for t in range(2):
        for w in range(4):
            for dt in (-1, 0, 1):
                for dw in (-1, 0, 1):
                    if 0 <= t + dt < 2 and 0 <= w + dw < 4:
                        tap = layer.proj.weight[:, 0, dt + 1, 0, dw + 1]
                        expected[t, :, w] += tap * volume[t + dt, :, w + dw]
    torch.testing.assert_close(layer(x, (2, 3, 4)), expected.reshape(1, 24, 2))


def test_positional_encoding_generator_needs_a_centre() -> None:
    with pytest.raises(ValueError, match=r"odd sizes \(t, h, w\), got \(2, 3, 3\)"):
        PositionalEncodingGenerator(2, (2, 3, 3))
