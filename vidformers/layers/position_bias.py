"""Relative position biases of group attention: modules that map a group's size to (heads, N, N)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidformers.layers.caching import once_per_size, once_per_weights
from vidformers.layers.sizes import Grid, triple


def table_size(window: Sequence[int]) -> Grid:
    """Offsets along each axis between two tokens of a window."""
    return triple([2 * w - 1 for w in window])


@once_per_size
def offset_index(
    group: Sequence[int], window: Sequence[int], *, device: torch.device | None = None
) -> Tensor:
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


class PositionBias(nn.Module):
    """A group of (t, h, w) tokens -> (heads, N, N), by `look_up`; kept while neither changes, see caching."""

    def forward(self, group: Sequence[int]) -> Tensor:
        return once_per_weights(self, tuple(group), lambda: self.look_up(group))

    def look_up(self, group: Sequence[int]) -> Tensor:
        raise NotImplementedError


class TableBias(PositionBias):
    """One learned number a head for each offset in a window (Liu et al. 2021, Swin), in Swin's flat layout.

    forward: a group of (t, h, w) tokens, no larger than the window on any axis -> (heads, N, N). A smaller
    group is looked up by its true offsets, so that one table serves shorter clips; or, with `corner`, as
    Video Swin does: a group of n tokens takes the first n rows and columns of the whole window's bias, which
    are other offsets unless only the first axis is shorter.
    """

    def __init__(self, window: Sequence[int], num_heads: int, *, corner: bool = False):
        super().__init__()
        self.window = triple(window)
        self.corner = corner
        rows_t, rows_h, rows_w = table_size(window)
        self.table = nn.Parameter(torch.empty(rows_t * rows_h * rows_w, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.table, std=0.02)

    def look_up(self, group: Sequence[int]) -> Tensor:
        num_tokens = group[0] * group[1] * group[2]
        shape = self.window if self.corner else group
        index = offset_index(shape, self.window, device=self.table.device)[:num_tokens, :num_tokens]
        # index_select: the gradient of table[index] is slower.
        return self.table.T.index_select(1, index.reshape(-1)).reshape(-1, num_tokens, num_tokens)

    def extra_repr(self) -> str:
        return f"window={self.window}, heads={self.table.shape[1]}"


class DynamicBias(PositionBias):
    """A small network of the offset (dt, dh, dw) in tokens (Wang et al. 2022, CrossFormer, section 3.3), so
    that one set of weights serves groups of every size.

    forward: a group of (t, h, w) tokens -> (heads, N, N). With temporal=False the network sees (dh, dw) only,
    as in the image models; for groups of one time step, where dt is 0 anyway.
    """

    def __init__(self, dim: int, num_heads: int, *, temporal: bool = True):
        super().__init__()
        self.temporal = temporal
        self.pos_proj = nn.Linear(3 if temporal else 2, dim)
        self.pos1 = self._layer(dim, dim)
        self.pos2 = self._layer(dim, dim)
        self.pos3 = self._layer(dim, num_heads)

    @staticmethod
    def _layer(dim: int, dim_out: int) -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(dim, eps=1e-5), nn.ReLU(), nn.Linear(dim, dim_out))

    def look_up(self, group: Sequence[int]) -> Tensor:
        if group[0] > 1 and not self.temporal:
            raise ValueError(
                f"a group of {group[0]} time steps has temporal offsets; build DynamicBias with temporal=True"
            )
        weight = self.pos_proj.weight
        axes = [torch.arange(1 - g, g, device=weight.device) for g in group]
        # (2t-1, 2h-1, 2w-1, 3) -> (offsets, 3), in the order of `offset_index`
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        x = self.pos_proj(offsets[:, 3 - weight.shape[1] :].to(weight.dtype))
        table = self.pos3(self.pos2(self.pos1(x)))  # (offsets, heads)
        index = offset_index(group, group, device=weight.device)
        return table[index.flatten()].T.reshape(-1, *index.shape)
