"""Decomposed relative position (Li et al. 2022, "MViTv2", section 4.1): one learned table an axis."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.attention import attention


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


Tables = Sequence[Tensor | None]  # of the axes t, h, w; None where an axis has no relative position
Size = tuple[int, int, int]


def relative_terms(q: Tensor, tables: Tables, query_grid: Size, key_grid: Size) -> list[Tensor | None]:
    """q . R[query, key] of each axis, (B, heads, Nq, keys along the axis); q (B, heads, Nq, d) of patches."""
    volume = q.unflatten(2, query_grid)  # (B, heads, Tq, Hq, Wq, d)
    terms: list[Tensor | None] = []
    for letter, table, query_size, key_size in zip("thw", tables, query_grid, key_grid, strict=True):
        if table is None:
            terms.append(None)
            continue
        embedding = relative_embedding(table, query_size, key_size).to(q.dtype)
        terms.append(_along_axis(volume, embedding, letter).flatten(2, 4))
    return terms


def _along_axis(volume: Tensor, embedding: Tensor, letter: str) -> Tensor:
    """volume (B, heads, T, H, W, d) . embedding (queries of the axis, keys of the axis, d), over d."""
    if not torch.is_grad_enabled() or torch.is_autocast_enabled(volume.device.type):
        return torch.einsum(f"bnthwc,{letter}kc->bnthwk", volume, embedding)
    return _AlongAxis.apply(volume, embedding, letter)


class _AlongAxis(torch.autograd.Function):
    """The einsum in its forward; torch's own would keep a permuted copy of the queries for each axis."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, embedding: Tensor, letter: str) -> Tensor:
        ctx.save_for_backward(volume, embedding)
        ctx.letter = letter
        return torch.einsum(f"bnthwc,{letter}kc->bnthwk", volume, embedding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        volume, embedding = ctx.saved_tensors
        of_volume = torch.einsum(f"bnthwk,{ctx.letter}kc->bnthwc", gradients[0], embedding)
        of_embedding = torch.einsum(f"bnthwk,bnthwc->{ctx.letter}kc", gradients[0], volume)
        return of_volume, of_embedding, None


def decomposed_bias(q: Tensor, tables: Tables, query_grid: Size, key_grid: Size) -> Tensor:
    """Attention bias of patch queries and patch keys: what `relative_attention` must agree with.

    q (B, heads, Nq, d), unscaled and without class token. Returns (B, heads, Nq, Nk): the sum over the axes
    of q . R[query, key].
    """
    bias_t, bias_h, bias_w = (
        term if term is not None else q.new_zeros((*q.shape[:3], size))
        for term, size in zip(relative_terms(q, tables, query_grid, key_grid), key_grid, strict=True)
    )
    bias = bias_t[..., :, None, None] + bias_h[..., None, :, None] + bias_w[..., None, None, :]
    return bias.flatten(3)


_folded = True


@contextmanager
def unfolded() -> Iterator[None]:
    """Within it `relative_attention` computes its definition: to count multiply-adds, to which wider vectors
    would add, and to compare the two."""
    global _folded
    before, _folded = _folded, False
    try:
        yield
    finally:
        _folded = before


def relative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    query_grid: Size,
    key_grid: Size,
    *,
    scale: float,
    class_token: bool,
    class_key_logit: float = 0.0,
) -> Tensor:
    """softmax(q k^T * scale + bias) v with decomposed relative position, whose bias is never written down.

    The bias of key (t, h, w) is a sum of one term an axis, so it is an inner product too: the query is
    extended by its terms, the key by a one in the places t, h and w. What is left is plain attention over
    wider vectors, for which there are fused kernels, and memory for the terms alone. A class token (the first
    query and key) has no relative position: zeros. `class_key_logit` is added to the logits of the class key.

    q (B, heads, [1 +] Nq, d), k and v (B, heads, [1 +] Nk, d) -> (B, heads, [1 +] Nq, d)
    """
    first, width = int(class_token), q.shape[-1]
    if not _folded:
        bias = F.pad(decomposed_bias(q[:, :, first:], tables, query_grid, key_grid), (first, 0, first, 0))
        if class_key_logit:
            bias = bias + F.pad(bias.new_full((1,), class_key_logit), (0, k.shape[2] - 1))
        return attention(q, k, v, bias, scale)
    terms = relative_terms(q[:, :, first:], tables, query_grid, key_grid)
    places = torch.arange(math.prod(key_grid), device=q.device)
    _, H, W = key_grid
    ones = [
        at[:, None] == torch.arange(size, device=q.device)
        for at, size, term in zip(
            (places // (H * W), places // W % H, places % W), key_grid, terms, strict=True
        )
        if term is not None
    ]
    of_query = F.pad(
        torch.cat([term for term in terms if term is not None], dim=-1) / scale, (0, 0, first, 0)
    )
    of_key = F.pad(torch.cat(ones, dim=-1).to(k.dtype), (0, 0, first, 0))
    if class_key_logit:
        of_query = F.pad(of_query, (0, 1), value=class_key_logit / scale)
        of_key = torch.cat([of_key, torch.zeros_like(of_key[:, :1])], dim=1)
        of_key[0, -1] = 1
    # Fused kernels want widths that are multiples of 8, and values as wide as keys.
    spare = -(width + of_key.shape[1]) % 8
    q = torch.cat([q, F.pad(of_query, (0, spare))], dim=-1)
    of_key = F.pad(of_key, (0, spare))
    k = torch.cat([k, of_key.expand(*k.shape[:2], -1, -1)], dim=-1)
    v = F.pad(v, (0, of_key.shape[1]))
    return attention(q, k, v, None, scale)[..., :width]
