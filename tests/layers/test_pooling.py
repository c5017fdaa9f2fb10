"""Pooling of token volumes against torch's modules on the usual layout."""

import pytest
import torch
from torch import nn

from vidformers.layers.drop_path import DropPath
from vidformers.layers.pooling import AvgPool, ConvPool, MaxPool, needs_pooling, pool_tokens, pooled_grid


def channels_first(volume: torch.Tensor) -> torch.Tensor:
    return volume.permute(0, 4, 1, 2, 3).contiguous()


def test_conv_pool_shares_its_weights_among_heads() -> None:
    heads, dim = 3, 4
    pool = ConvPool(dim, (3, 3, 3), (1, 2, 2))
    volume = torch.randn(2, 3, 6, 7, heads * dim)
    pooled = pool(volume)
    usual = nn.Conv3d(dim, dim, 3, (1, 2, 2), 1, groups=dim, bias=False)
    usual.load_state_dict(pool.state_dict())
    for head in range(heads):
        channels = slice(head * dim, (head + 1) * dim)
        expected = usual(channels_first(volume[..., channels]))
        torch.testing.assert_close(channels_first(pooled[..., channels]), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((1, 3, 2), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((3, 1, 5), (1, 1, 4))],
)
def test_max_and_avg_pool(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    volume = torch.randn(2, 4, 6, 7, 5)
    padding = tuple(k // 2 for k in kernel)
    for ours, usual in (
        (MaxPool(kernel, stride), nn.MaxPool3d(kernel, stride, padding)),
        (AvgPool(kernel, stride), nn.AvgPool3d(kernel, stride, padding)),
    ):
        volume = volume.detach().requires_grad_()
        pooled, expected = ours(volume), usual(channels_first(volume))
        torch.testing.assert_close(channels_first(pooled), expected)
        gradient = torch.randn_like(pooled)
        torch.testing.assert_close(
            torch.autograd.grad(pooled, volume, gradient),
            torch.autograd.grad(expected, volume, channels_first(gradient)),
        )
        assert tuple(pooled.shape[1:4]) == pooled_grid((4, 6, 7), kernel, stride)


def test_max_pool_keeps_no_input_for_the_backward_pass() -> None:
    kept: list[torch.Tensor] = []
    volume = torch.randn(1, 2, 8, 8, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        MaxPool((1, 3, 3), (1, 2, 2))(volume)
    assert [(tuple(tensor.shape), tensor.dtype) for tensor in kept] == [((2, 4, 4, 4), torch.int32)]


def test_avg_pool_on_a_map_smaller_than_its_kernel() -> None:
    """torch refuses it; PySlowFast crashes. The padded zeros count, so a lone 1 becomes 1 / 27."""
    pooled = AvgPool((3, 3, 3), (1, 1, 1))(torch.ones(1, 1, 1, 1, 1))
    torch.testing.assert_close(pooled, torch.full((1, 1, 1, 1, 1), 1 / 27))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_avg_pool_in_half_precision(dtype: torch.dtype) -> None:
    """torch has no such kernel for the CPU."""
    pool, volume = AvgPool((3, 3, 3), (1, 2, 2)), torch.randn(2, 2, 4, 4, 3).to(dtype).requires_grad_()
    pooled = pool(volume)
    pooled.float().sum().backward()
    assert pooled.dtype == volume.grad.dtype == dtype
    torch.testing.assert_close(pooled, pool(volume.float()).to(dtype))


def test_class_token_is_not_pooled() -> None:
    tokens = torch.randn(2, 1 + 2 * 4 * 4, 3)
    pooled, grid = pool_tokens(tokens, (2, 4, 4), MaxPool((1, 3, 3), (1, 2, 2)), class_token=True)
    assert grid == (2, 2, 2)
    assert pooled.shape == (2, 9, 3)
    torch.testing.assert_close(pooled[:, 0], tokens[:, 0])


def test_pools_of_ones_are_left_out() -> None:
    assert not needs_pooling((1, 1, 1), (1, 1, 1))
    assert needs_pooling((1, 3, 3), (1, 1, 1))
    assert needs_pooling((1, 1, 1), (1, 1, 2))


def test_drop_path() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    dropped = drop(x)
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert drop.eval()(x) is x


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_conv_pool_gradients_in_low_precision(dtype: torch.dtype, autocast: bool) -> None:
    """torch's channels-last depthwise conv3d has a random weight gradient in bfloat16 on the CPU."""
    torch.manual_seed(0)
    pool = ConvPool(8, (3, 3, 3), (1, 2, 2))
    volume, gradient = torch.randn(4, 2, 4, 4, 8), torch.randn(4, 2, 2, 2, 8)
    pool.double()(volume.double()).backward(gradient.double())
    exact = pool.weight.grad.clone()
    pool.to(torch.float32 if autocast else dtype)
    for _ in range(5):  # what the uninitialised memory holds differs from call to call
        pool.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and dtype == torch.bfloat16):
            out = pool(volume if autocast else volume.to(dtype))
        out.backward(gradient.to(out.dtype))
        tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(
            pool.weight.grad.double(), exact, rtol=0, atol=tolerance * exact.abs().max().item()
        )
