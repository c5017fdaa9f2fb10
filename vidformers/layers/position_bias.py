"""Relative position biases of group attention: modules that map a group's size to (heads, N, N)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidformers.layers.sizes import Grid, triple


def table_size(window: Sequence[int]) -> Grid:
    """Offsets along each axis between two tokens of a window."""
    return triple([2 * w - 1 for w in window])


def offset_index(group: Sequence[int], window: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Row of a window's table for each (query, key) pair of a group: long (N, N).

    The row of the offset (dt, dh, dw) = query - key is
    (dt + wt - 1) * (2 wh - 1) * (2 ww - 1) + (dh + wh - 1) * (2 ww - 1) + (dw + ww - 1).
    """
    _, rows_h, rows_w = table_size(window)
    strides = (rows_h * rows_w, rows_w, 1)
    index = torch.zeros(1, dtype=torch.long, device=device).view(1, 1, 1, 1, 1, 1)
    for axis, (g, w, stride) in enumerate(zip(group, window, strides, strict=True)):
        position = torch.arange(g, device=device)
        view = [1] * 6
        view[axis] = view[axis + 3] = g
        index = index + ((position[:, None] - position[None, :] + w - 1) * stride).view(view)
    num_tokens = group[0] * group[1] * group[2]
    return index.reshape(num_tokens, num_tokens)  # (gt, gh, gw, gt, gh, gw) -> (N, N)


class TableBias(nn.Module):
    """One learned number a head for each offset in a window (Liu et al. 2021, Swin), in Swin's flat layout.

    forward: a group of (t, h, w) tokens, no larger than the window on any axis -> (heads, N, N). A smaller
    group is looked up by its true offsets, so that one table serves shorter clips.
    """

    def __init__(self, window: Sequence[int], num_heads: int):
        super().__init__()
        self.window = triple(window)
        rows_t, rows_h, rows_w = table_size(window)
        self.table = nn.Parameter(torch.empty(rows_t * rows_h * rows_w, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, group: Sequence[int]) -> Tensor:
        index = offset_index(group, self.window, self.table.device)
        num_tokens = index.shape[0]
        return self.table[index.flatten()].T.reshape(-1, num_tokens, num_tokens)

    def extra_repr(self) -> str:
        return f"window={self.window}, heads={self.table.shape[1]}"
