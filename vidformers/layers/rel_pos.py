"""Decomposed relative position (Li et al. 2022, "MViTv2", section 4.1): one learned table an axis."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def relative_index(query_size: int, key_size: int, device: torch.device | None = None) -> Tensor:
    """Table row for each (query, key) position of one axis: long (query_size, key_size).

    When the two sizes differ, the coarser axis is stretched to the finer one. The float32 arithmetic and the
    truncation are those of PySlowFast: sizes such as 5 against 3 give fractional positions, and rounding them
    in another way picks other rows.
    """
    query_step = max(key_size / query_size, 1.0)
    key_step = max(query_size / key_size, 1.0)
    queries = torch.arange(query_size, device=device)[:, None] * query_step
    keys = torch.arange(key_size, device=device)[None, :] * key_step
    return (queries - keys + (key_size - 1) * key_step).long()


# Shared by all layers and models. Not buffers: in a module made on the meta device those would be garbage,
# which no checkpoint replaces.
_INDICES: dict[tuple[int, int, torch.device], Tensor] = {}
_MOST_INDICES = 512


def cached_index(query_size: int, key_size: int, device: torch.device) -> Tensor:
    """`relative_index`, computed once for the sizes and the device."""
    key = (query_size, key_size, device)
    index = _INDICES.get(key)
    if index is None:
        with torch.inference_mode(False):  # an inference tensor would be of no use in training later on
            index = relative_index(query_size, key_size, device)
        if len(_INDICES) >= _MOST_INDICES:
            _INDICES.clear()
        _INDICES[key] = index
    return index


def resize_rows(table: Tensor, num_rows: int) -> Tensor:
    """(rows, d) -> (num_rows, d) by linear interpolation along the rows (align_corners False)."""
    if table.shape[0] == num_rows:
        return table
    # (rows, d) -> (1, d, rows), the layout that interpolate wants
    resized = F.interpolate(table.T[None], size=num_rows, mode="linear")
    return resized[0].T


def relative_embedding(table: Tensor, query_size: int, key_size: int) -> Tensor:
    """Learned vector of each (query, key) pair of one axis: (query_size, key_size, d).

    A table whose row count does not fit the sizes is interpolated; that happens in a published model too
    (MViTv2-L at 312 pixels: 78 tokens become 39, 20, 10, but its tables are made for 39, 19, 9).
    """
    # Compilers and tensors that only stand for others (fake ones, for instance) must compute it themselves.
    plain = type(table) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    index = (cached_index if plain else relative_index)(query_size, key_size, table.device)
    return resize_rows(table, 2 * max(query_size, key_size) - 1)[index]


def decomposed_bias(
    q: Tensor,
    tables: Sequence[Tensor | None],
    query_grid: tuple[int, int, int],
    key_grid: tuple[int, int, int],
) -> Tensor:
    """Attention bias of patch queries and patch keys.

    q (B, heads, Nq, d), unscaled and without class token; tables of the axes t, h, w, None where an axis has
    no relative position. Returns (B, heads, Nq, Nk): the sum over the axes of q . R[query, key].
    """
    batch, heads, num_queries, _ = q.shape
    volume = q.unflatten(2, query_grid)  # (B, heads, Tq, Hq, Wq, d)
    axes: list[Tensor | None] = []
    for letter, table, query_size, key_size in zip("thw", tables, query_grid, key_grid, strict=True):
        if table is None:
            axes.append(None)
            continue
        embedding = relative_embedding(table, query_size, key_size).to(q.dtype)
        axis = torch.einsum(f"bnthwc,{letter}kc->bnthwk", volume, embedding)
        axes.append(axis.reshape(batch, heads, num_queries, key_size))

    # Sum h and w first: only the last sum is as large as the attention matrix.
    bias_t, bias_h, bias_w = axes
    T, H, W = key_grid
    bias: Tensor | float = 0.0
    if bias_h is not None:
        bias = bias_h[:, :, :, :, None].expand(-1, -1, -1, -1, W)
    if bias_w is not None:
        bias = bias + bias_w[:, :, :, None, :]
    if isinstance(bias, Tensor):
        bias = bias.expand(-1, -1, -1, H, W).reshape(batch, heads, num_queries, 1, H * W)
    if bias_t is not None:
        bias = bias + bias_t[..., None]
    if not isinstance(bias, Tensor):
        raise ValueError("decomposed_bias needs the table of at least one axis")
    return bias.expand(-1, -1, -1, T, H * W).reshape(batch, heads, num_queries, T * H * W)
