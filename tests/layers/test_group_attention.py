"""Position tables, the attention core and the convolution, against loops and the eager formula."""

import math

import pytest
import torch
from torch import nn

from vidformers.layers.attention import attention_eager
from vidformers.layers.conv import Conv3d, ceil_padding, same_padding
from vidformers.layers.group_attention import GroupAttention
from vidformers.layers.partition import frames_in_groups, group_mask, partition, unpartition
from vidformers.layers.position_bias import TableBias, offset_index


def test_offset_index_by_loops() -> None:
    window, group = (3, 4, 2), (2, 4, 1)
    index = offset_index(group, window)
    places = [(t, h, w) for t in range(group[0]) for h in range(group[1]) for w in range(group[2])]
    for q, (qt, qh, qw) in enumerate(places):
        for k, (kt, kh, kw) in enumerate(places):
            assert index[q, k] == ((qt - kt + 2) * 7 + (qh - kh + 3)) * 3 + (qw - kw + 1)


def test_a_smaller_group_uses_the_same_numbers() -> None:
    bias = TableBias((3, 4, 4), 2)
    whole = bias((3, 4, 4)).view(2, 3, 4, 4, 3, 4, 4)
    torch.testing.assert_close(
        bias((2, 3, 4)).view(2, 2, 3, 4, 2, 3, 4), whole[:, :2, :3, :4, :2, :3, :4], rtol=0, atol=0
    )


def eager(attn: GroupAttention, groups: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    q, k, v = attn.qkv(groups).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attn.proj(attention_eager(q, k, v, bias, attn.scale).transpose(1, 2).flatten(2))


def test_shift_mask_and_table_by_the_formula() -> None:
    torch.manual_seed(0)
    attn = GroupAttention(8, 2, position_bias=TableBias((2, 3, 3), 2)).double()
    size, group, shift = (3, 5, 6), (2, 3, 3), (1, 1, 1)
    groups = partition(torch.randn(2, *size, 8, dtype=torch.float64), group, shift=shift)
    mask = group_mask(size, group, shift=shift, pad_mask="all")
    assert mask is not None
    bias = attn.position_bias(group)[None, None] - 1e6 * (~mask).double()[None, :, None]
    expected = eager(attn, groups, bias.expand(2, -1, -1, -1, -1).flatten(0, 1))
    torch.testing.assert_close(attn(groups, group, mask), expected)


@pytest.mark.parametrize("corner", [False, True])
@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((4, 6, 9), (2, 3, 3), (1, 1, 1)),  # all axes
        ((2, 8, 8), (2, 4, 4), (0, 2, 2)),  # Swin's at the published sizes
        ((3, 7, 5), (2, 4, 2), (1, 2, 0)),  # padding that is seen
        ((4, 6, 4), (2, 3, 4), (0, 1, 0)),
    ],
)
def test_shifted_windows_without_a_mask(
    size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], corner: bool
) -> None:
    """Pieces of windows, and rolled windows with a mask: the same numbers and gradients."""
    torch.manual_seed(0)
    # A clipped window, whose bias is another part of the table with `corner`.
    table = TableBias([w + 1 for w in window], 2, corner=corner)
    attn = GroupAttention(8, 2, position_bias=table).double()
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    mask = group_mask(size, window, shift=shift, pad_mask="none")
    assert mask is not None
    masked = unpartition(attn(partition(x, window, shift=shift), window, mask), size, window, shift=shift)
    pieces = attn.attend_volume(x, window, shift=shift, pad_mask="none")
    torch.testing.assert_close(pieces, masked, atol=1e-10, rtol=0)
    parameters = [x, *attn.parameters()]
    weights = torch.randn_like(pieces)
    expected = torch.autograd.grad((masked * weights).sum(), parameters)
    found = torch.autograd.grad((pieces * weights).sum(), parameters)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_shifted_windows_with_hidden_padding_have_their_mask() -> None:
    torch.manual_seed(0)
    attn = GroupAttention(8, 2).double()
    x = torch.randn(1, 3, 4, 4, 8, dtype=torch.float64)
    alone = attn.attend_volume(x, (2, 2, 2), shift=(1, 1, 1), pad_mask="all")
    seen = attn.attend_volume(x, (2, 2, 2), shift=(1, 1, 1), pad_mask="none")
    # Frames 0, [1, 2] and then nothing: with the padding seen, frame 0 is joined by none, [1, 2] neither.
    torch.testing.assert_close(alone[:, 1:], seen[:, 1:])
    longer = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    torch.testing.assert_close(
        attn.attend_volume(longer, (2, 2, 2), shift=(1, 1, 1), pad_mask="none")[:, :3], seen
    )


def test_prefix_tokens_by_the_formula() -> None:
    """A messenger in front of each window: seen by all, its logit raised by the log of the real frames."""
    torch.manual_seed(0)
    attn = GroupAttention(8, 2, position_bias=TableBias((2, 2, 2), 2)).double()
    size, group = (3, 4, 2), (2, 2, 2)
    mask = group_mask(size, group)
    assert mask is not None
    frames = frames_in_groups(size, group)
    assert frames.tolist() == [2, 2, 1, 1]
    groups = torch.randn(8, 1 + 8, 8, dtype=torch.float64)
    bias = torch.zeros(4, 2, 9, 9, dtype=torch.float64)
    bias[:, :, 1:, 1:] = attn.position_bias(group)
    bias[..., 1:] -= 1e6 * (~mask).double()[:, None]
    bias[..., 0] += frames.double().log()[:, None, None]
    expected = eager(attn, groups, bias.repeat(2, 1, 1, 1))
    got = attn(groups, group, mask, num_prefix=1, prefix_logit=frames.log())
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    # without a mask, and one number for all groups
    plain = attn(groups, group, num_prefix=1, prefix_logit=torch.tensor(math.log(2.0)))
    bias = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    bias[:, :, 1:, 1:] = attn.position_bias(group)
    bias[..., 0] += math.log(2.0)
    torch.testing.assert_close(plain, eager(attn, groups, bias), rtol=1e-6, atol=1e-6)


def test_prefix_tokens_beside_a_shift_mask() -> None:
    """The prefix query sees the whole window, and every query sees the prefix."""
    torch.manual_seed(0)
    attn = GroupAttention(8, 2).double()
    size, group, shift = (2, 4, 4), (2, 2, 2), (1, 1, 1)
    mask = group_mask(size, group, shift=shift)
    assert mask is not None
    groups = torch.randn(4, 2 + 8, 8, dtype=torch.float64)
    bias = torch.zeros(4, 1, 10, 10, dtype=torch.float64)
    bias[:, 0, 2:, 2:] -= 1e6 * (~mask).double()
    torch.testing.assert_close(attn(groups, group, mask, num_prefix=2), eager(attn, groups, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_groups_of_padding_stay_finite(dtype: torch.dtype) -> None:
    """Grid attention with 1 of 2 x 3 places filled: whole groups are padding."""
    attn = GroupAttention(8, 2).to(dtype)
    x = torch.randn(1, 1, 5, 5, 8, dtype=dtype, requires_grad=True)
    out = attn.attend_volume(x, (1, 2, 2), (1, 3, 3))
    assert out.shape == x.shape
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(attn.qkv.weight.grad).all()


def test_padding_is_not_seen() -> None:
    """What stands in the padding cannot matter: the same as attending to the real tokens alone."""
    attn = GroupAttention(8, 2).double()
    x = torch.randn(2, 3, 3, 3, 8, dtype=torch.float64)
    out = attn.attend_volume(x, (4, 4, 4))
    alone = attn(x.flatten(1, 3), (3, 3, 3)).view_as(x)
    torch.testing.assert_close(out, alone)
    assert not torch.allclose(attn.attend_volume(x, (4, 4, 4), pad_mask="none"), alone)


def test_same_padding_is_tensorflows() -> None:
    assert same_padding(8, 3, 2) == (0, 1)
    assert same_padding(7, 3, 2) == (1, 1)
    assert same_padding(7, 3, 1) == (1, 1)
    assert same_padding(5, 2, 2) == (0, 1)
    assert ceil_padding(5, 2, 2, 0) == (0, 1)
    assert ceil_padding(5, 4, 2, 1) == (1, 2)
    assert ceil_padding(6, 3, 2, 1) == (1, 1)


@pytest.mark.parametrize("space", ["zero", "ceil", "same"])
@pytest.mark.parametrize("size", [(1, 5, 6), (4, 8, 7), (5, 9, 9)])
@pytest.mark.parametrize("kernel,stride,padding", [((3, 3, 3), (2, 2, 2), 1), ((2, 4, 4), (2, 4, 4), 0)])
def test_convolution_sizes_and_still_clips(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: int, size: tuple[int, ...], space: str
) -> None:
    conv = Conv3d(2, 4, kernel, stride, [padding] * 3, time_padding="replicate", space_padding=space)
    frame = torch.randn(1, 2, 1, *size[1:])
    out = conv(frame.expand(-1, -1, size[0], -1, -1))
    assert out.shape[2] == -(-size[0] // stride[0])
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out))
    if space != "zero":
        assert out.shape[3:] == (-(-size[1] // stride[1]), -(-size[2] // stride[2]))


def test_convolution_without_extras_is_torchs() -> None:
    conv = Conv3d(2, 4, (3, 3, 3), (1, 2, 2), (1, 1, 1), bias=False)
    x = torch.randn(1, 2, 4, 7, 8)
    torch.testing.assert_close(conv(x), nn.Conv3d.forward(conv, x))
    with pytest.raises(ValueError, match="time_padding='zeros' is not one of 'zero', 'replicate'"):
        Conv3d(2, 4, (3, 3, 3), time_padding="zeros")
