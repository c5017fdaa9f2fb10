"""Decomposed relative position (Li et al. 2022, "MViTv2", section 4.1): one learned table an axis."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidformers.layers.attention import attention, computes_definition
from vidformers.layers.autocasting import autocasts
from vidformers.layers.caching import once_per_size


@once_per_size
def relative_index(query_size: int, key_size: int, *, device: torch.device | None = None) -> Tensor:
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
    index = relative_index(query_size, key_size, device=table.device)
    return resize_rows(table, 2 * max(query_size, key_size) - 1)[index]


Tables = Sequence[Tensor | None]  # of the axes t, h, w; None where an axis has no relative position
Size = tuple[int, int, int]


def relative_embeddings(
    tables: Tables, query_grid: Size, key_grid: Size, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The letter of each axis that has relative position -> (queries along it, keys along it, d)."""
    return {
        letter: relative_embedding(table, query_size, key_size).to(dtype)
        for letter, table, query_size, key_size in zip("thw", tables, query_grid, key_grid, strict=True)
        if table is not None
    }


def relative_term(q: Tensor, letter: str, embedding: Tensor, query_grid: Size) -> Tensor:
    """q . R[query, key] of one axis: q (B, heads, Nq, d) of patches -> (B, heads, Nq, keys of the axis)."""
    volume = q.unflatten(2, query_grid)
    return torch.einsum(f"bnthwc,{letter}kc->bnthwk", volume, embedding).flatten(2, 4)


def decomposed_bias(q: Tensor, tables: Tables, query_grid: Size, key_grid: Size) -> Tensor:
    """Attention bias of patch queries and patch keys: what `relative_attention` must agree with.

    q (B, heads, Nq, d), unscaled and without class token. Returns (B, heads, Nq, Nk): the sum over the axes
    of q . R[query, key].
    """
    embeddings = relative_embeddings(tables, query_grid, key_grid, q.dtype)
    bias_t, bias_h, bias_w = (
        relative_term(q, letter, embeddings[letter], query_grid)
        if letter in embeddings
        else q.new_zeros((*q.shape[:3], size))
        for letter, size in zip("thw", key_grid, strict=True)
    )
    bias = bias_t[..., :, None, None] + bias_h[..., None, :, None] + bias_w[..., None, None, :]
    return bias.flatten(3)


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
    if computes_definition():
        bias = F.pad(decomposed_bias(q[:, :, first:], tables, query_grid, key_grid), (first, 0, first, 0))
        if class_key_logit:
            bias = bias + F.pad(bias.new_full((1,), class_key_logit), (0, k.shape[2] - 1))
        return attention(q, k, v, bias, scale)
    embeddings = relative_embeddings(tables, query_grid, key_grid, q.dtype)
    of_key = F.pad(places("".join(embeddings), key_grid, device=q.device).to(k.dtype), (0, 0, first, 0))
    if class_key_logit:
        of_key = F.pad(of_key, (0, 1))
        of_key[0, -1] = class_key_logit / scale
    # Fused kernels want widths that are multiples of 8, and values as wide as keys.
    extra = of_key.shape[1] + -(width + of_key.shape[1]) % 8
    # Attention will multiply all of it by `scale`.
    wide_q = _widened(q, list(embeddings), [e / scale for e in embeddings.values()], query_grid, extra)
    if class_key_logit:
        wide_q = wide_q + F.pad(q.new_ones(1), (width + of_key.shape[1] - 1, extra - of_key.shape[1]))
    of_key = F.pad(of_key, (0, extra - of_key.shape[1]))
    wide_k = torch.cat([k, of_key.expand(*k.shape[:2], -1, -1)], dim=-1)
    return attention(wide_q, wide_k, F.pad(v, (0, extra)), None, scale)[..., :width]


@once_per_size
def places(letters: str, key_grid: Size, *, device: torch.device | None = None) -> Tensor:
    """(Nk, keys along each of the axes in `letters`): true where a key lies."""
    at = torch.arange(math.prod(key_grid), device=device)
    T, H, W = key_grid
    along = {"t": (at // (H * W), T), "h": (at // W % H, H), "w": (at % W, W)}
    return torch.cat(
        [along[letter][0][:, None] == torch.arange(along[letter][1], device=device) for letter in letters],
        dim=1,
    )


def _widened(q: Tensor, letters: list[str], embeddings: list[Tensor], query_grid: Size, extra: int) -> Tensor:
    """q (B, heads, [1 +] Nq, d) and, for the patches, its terms: (B, heads, [1 +] Nq, d + extra)."""
    if torch.is_grad_enabled() and not autocasts(q):
        return _Widened.apply(q, letters, query_grid, extra, *embeddings)
    return _with_terms(q, letters, embeddings, query_grid, extra)


def _with_terms(
    q: Tensor, letters: list[str], embeddings: Sequence[Tensor], query_grid: Size, extra: int
) -> Tensor:
    first = q.shape[2] - math.prod(query_grid)
    patches = q[:, :, first:]
    terms = [
        relative_term(patches, letter, embedding, query_grid)
        for letter, embedding in zip(letters, embeddings, strict=True)
    ]
    together = torch.cat(terms, dim=-1)
    return torch.cat([q, F.pad(together, (0, extra - together.shape[-1], first, 0))], dim=-1)


class _Widened(torch.autograd.Function):
    """`_with_terms`, whose backward pass reads the queries from its output, which attention keeps anyway;
    einsum would keep a permuted copy of them for each axis."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        letters: list[str],
        query_grid: Size,
        extra: int,
        *embeddings: Tensor,
    ) -> Tensor:
        wide = _with_terms(q, letters, embeddings, query_grid, extra)
        ctx.save_for_backward(wide, *embeddings)
        ctx.letters, ctx.query_grid, ctx.width = letters, query_grid, q.shape[-1]
        return wide

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wide, *embeddings = ctx.saved_tensors
        first = wide.shape[2] - math.prod(ctx.query_grid)
        volume = wide[:, :, first:, : ctx.width].unflatten(2, ctx.query_grid)
        of_terms = gradients[0][:, :, first:, ctx.width :].unflatten(2, ctx.query_grid)
        of_q = gradients[0][..., : ctx.width].clone()
        of_patches = of_q[:, :, first:].unflatten(2, ctx.query_grid)
        of_embeddings = []
        sizes = [embedding.shape[1] for embedding in embeddings]
        parts = of_terms[..., : sum(sizes)].split(sizes, dim=-1)
        for letter, embedding, part in zip(ctx.letters, embeddings, parts, strict=True):
            of_patches += torch.einsum(f"bnthwk,{letter}kc->bnthwc", part, embedding)
            of_embeddings.append(torch.einsum(f"bnthwk,bnthwc->{letter}kc", part, volume))
        return of_q, None, None, None, *of_embeddings
