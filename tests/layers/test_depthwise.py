"""Depthwise convolution of tokens, the positions that pools read, and keys and values pooled together."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidformers.layers.depthwise import depthwise_conv3d
from vidformers.layers.pooling import (
    AvgPool,
    ConvPool,
    MaxPool,
    half,
    pool_pair,
    pooled_grid,
    positions_read,
    stride_over_read,
)
from vidformers.layers.pooling_attention import PoolingAttention

Size = tuple[int, int, int]


@st.composite
def pools(draw: st.DrawFn) -> tuple[Size, Size, Size]:
    """Grid, kernel and stride that give at least one output."""
    kernel = draw(st.tuples(*[st.integers(1, 5)] * 3))
    stride = draw(st.tuples(*[st.sampled_from((1, 2, 3, 4, 8))] * 3))
    grid = [draw(st.integers(max(1, k - 2 * (k // 2)), 11)) for k in kernel]
    return (grid[0], grid[1], grid[2]), kernel, stride


@given(
    pools(), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]), st.integers(1, 3), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_those_of_conv3d(
    sizes: tuple[Size, Size, Size], dtype: torch.dtype, batch: int, class_token: bool
) -> None:
    grid, kernel, stride = sizes
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, class_token + grid[0] * grid[1] * grid[2], 6, generator=generator).to(dtype)
    volume = tokens[:, int(class_token) :].unflatten(1, grid).requires_grad_()
    weight = torch.randn(6, 1, *kernel, generator=generator).to(dtype).requires_grad_()
    out = depthwise_conv3d(volume, weight, stride, half(kernel))
    gradient = torch.randn(out.shape, generator=generator).to(dtype)
    found = [out, *torch.autograd.grad(out, (volume, weight), gradient)]

    exact = [tensor.detach().double().requires_grad_() for tensor in (volume, weight)]
    x = F.conv3d(exact[0].permute(0, 4, 1, 2, 3), exact[1], None, stride, half(kernel), groups=6)
    x = x.permute(0, 2, 3, 4, 1)
    wanted = [x, *torch.autograd.grad(x, exact, gradient.double())]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours.double(), theirs, rtol=0, atol=tolerance * max(1.0, theirs.abs().max().item())
        )


def _compacted(volume: Tensor, kernel: Size, stride: Size) -> Tensor:
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=1):
        volume = volume.index_select(axis, torch.tensor(positions_read(volume.shape[axis], k, s)))
    return volume


@given(pools(), st.sampled_from(["conv", "avg", "max"]))
@settings(max_examples=60, deadline=None)
def test_pooling_the_positions_read_is_pooling_all(sizes: tuple[Size, Size, Size], mode: str) -> None:
    grid, kernel, stride = sizes
    if mode != "conv" and any(n < k for n, k in zip(grid, kernel, strict=True)):
        return  # torch's max_pool3d refuses them
    volume = torch.randn(2, *grid, 4, dtype=torch.float64)
    pool = {"conv": lambda k, s: ConvPool(2, k, s).double(), "avg": AvgPool, "max": MaxPool}[mode](
        kernel, stride
    )
    read, over_read = _compacted(volume, kernel, stride), stride_over_read(kernel, stride)
    if mode != "conv" and any(n < k for n, k in zip(read.shape[1:4], kernel, strict=True)):
        return
    pooled = pool_pair(read, pool, pool, over_read)
    assert tuple(pooled.shape[1:4]) == pooled_grid(grid, kernel, stride)
    torch.testing.assert_close(pooled, pool(volume), rtol=0, atol=1e-12)


def test_keys_and_values_have_their_own_weights() -> None:
    first, second = ConvPool(3, (3, 3, 3), (1, 2, 2)), ConvPool(3, (3, 3, 3), (1, 2, 2))
    keys, values = torch.randn(2, 2, 3, 6, 5, 6).unbind()
    together = pool_pair(torch.cat([keys, values], dim=-1), first, second, (1, 2, 2))
    torch.testing.assert_close(together[..., :6], first(keys), rtol=0, atol=1e-6)
    torch.testing.assert_close(together[..., 6:], second(values), rtol=0, atol=1e-6)


@pytest.mark.parametrize("separate_qkv", [False, True])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("pool_mode", ["conv", "avg", "max"])
def test_tokens_that_no_key_reads_are_not_projected(
    pool_mode: str, class_token: bool, separate_qkv: bool
) -> None:
    """The values of all tokens projected and pooled, and fewer rows in the Linear of keys and values."""
    attention = PoolingAttention(
        dim=8,
        dim_out=12,
        num_heads=2,
        grid=(2, 9, 8),
        qkv_bias=True,
        separate_qkv=separate_qkv,
        pool_mode=pool_mode,
        pool_first=False,
        q_kernel=None,
        q_stride=None,
        kv_kernel=(3, 3, 3),
        kv_stride=(1, 4, 5),
        residual_pooling=False,
        residual_pooling_class_token=False,
        rel_pos_rows=(0, 0, 0),
        class_token=class_token,
        class_token_log_frames=False,
        dropout_rate=0.0,
        norm_eps=1e-6,
    ).double()
    x = torch.randn(3, class_token + 2 * 9 * 8, 8, dtype=torch.float64)
    num_read = []

    def keys_and_values_of(read: Tensor) -> Tensor:
        num_read.append(read.shape[1])
        return attention._linears(x)[1](read)

    k, v, key_grid = attention._keys_and_values(x, (2, 9, 8), keys_and_values_of)
    assert num_read == [class_token + 2 * 7 * 5]  # rows 0 1, 3 4 5, 7 8; columns 0 1, 4 5 6
    if separate_qkv:
        keys, values = attention.k(x), attention.v(x)
    else:
        _, keys, values = attention.qkv(x).chunk(3, dim=-1)
    for ours, projected, pool, norm in (
        (k, keys, attention.pool_k, attention.norm_k),
        (v, values, attention.pool_v, attention.norm_v),
    ):
        expected, expected_grid = attention._pool(projected, (2, 9, 8), pool, norm)
        assert key_grid == expected_grid == attention.key_grid
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
