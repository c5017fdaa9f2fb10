"""Attention on a CPU, in full precision: some queries at a time, from tokens to tokens.

PyTorch's fused kernel wants heads before tokens and values as wide as keys, which takes copies of them all,
and keeps its output for the backward pass. Here each head is read and written where it lies, and the logits
of some queries at a time never leave the processor's cache. `attention` and `relative_attention`, which serve
every other device and precision, are what this must agree with (tests/layers).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vidformers.layers.attention import runs_unseen
from vidformers.layers.autocasting import autocasts
from vidformers.layers.rel_pos import Size, Tables, places, relative_embeddings

LOGITS_AT_A_TIME = 1 << 20
FEWEST_QUERIES = 64


def suits_chunks(q: Tensor) -> bool:
    """Whether `chunked_attention` may be used for q: eagerly, on a CPU, in float32 or float64."""
    return (
        q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.float64)
        and not autocasts(q)
        and runs_unseen()
    )


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    query_grid: Size,
    key_grid: Size,
    *,
    num_heads: int,
    scale: float,
    class_token: bool,
    class_key_logit: float = 0.0,
) -> Tensor:
    """`relative_attention` of tokens: softmax(q k^T * scale + bias) v of each head.

    q (B, [1 +] Nq, heads*d), k and v (B, [1 +] Nk, heads*d) -> (B, [1 +] Nq, heads*d)
    """
    embeddings = relative_embeddings(tables, query_grid, key_grid, q.dtype)
    letters = "".join(embeddings)
    of_keys = F.pad(places(letters, key_grid, device=k.device).to(k.dtype), (0, 0, int(class_token), 0))
    if class_key_logit:
        of_keys = F.pad(of_keys, (0, 1))
        of_keys[0, -1] = class_key_logit / scale
    # Matrix products of rows that begin anywhere are slower.
    of_keys = F.pad(of_keys, (0, -(q.shape[-1] // num_heads + of_keys.shape[1]) % 4))
    extension = _Extension(letters, query_grid, of_keys, bool(class_key_logit))
    # Attention will multiply all that is added by `scale`.
    scaled = [embedding / scale for embedding in embeddings.values()]
    attend = _ChunkedAttention.apply if torch.is_grad_enabled() else _attend
    return attend(q, k, v, extension, num_heads, scale, *scaled)


class _Extension(NamedTuple):
    """What makes attention's bias a part of its product: queries are extended by their terms, which are the
    products with the embeddings of each axis in `letters`, and by a one if `counts_class`; keys by `of_keys`,
    (Nk, e)."""

    letters: str
    query_grid: Size
    of_keys: Tensor
    counts_class: bool


class _ChunkedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        extension: _Extension,
        num_heads: int,
        scale: float,
        *embeddings: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, *embeddings)
        ctx.extension, ctx.num_heads, ctx.scale = extension, num_heads, scale
        return _attend(q, k, v, extension, num_heads, scale, *embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *embeddings = ctx.saved_tensors
        extension, num_heads, scale = ctx.extension, ctx.num_heads, ctx.scale
        queries, keys, values, of_result = (x.unflatten(-1, (num_heads, -1)) for x in (q, k, v, of_out))
        wide_queries, wide_keys = _widened(queries, keys, extension, embeddings)
        of_queries = torch.empty_like(wide_queries)
        of_k, of_v = torch.zeros_like(keys), torch.zeros_like(values)
        num_rows = _rows_at_a_time(queries, keys)
        buffers = q.new_empty(2, num_rows, keys.shape[1])
        for b, head in _each_head(queries):
            keys_of_head, values_of_head = wide_keys[b, :, head], values[b, :, head]
            of_k_head, of_v_head = of_k[b, :, head], of_v[b, :, head]
            parts = (x[b, :, head].split(num_rows) for x in (wide_queries, of_result, of_queries))
            for part, of_rows, of_part in zip(*parts, strict=True):
                of_logits, probabilities = buffers[:, : len(part)]
                torch.addmm(of_logits, part, keys_of_head.T, beta=0, alpha=scale, out=of_logits)
                torch.softmax(of_logits, dim=-1, out=probabilities)
                of_v_head.addmm_(probabilities.T, of_rows)
                torch.mm(of_rows, values_of_head.T, out=of_logits)
                torch.ops.aten._softmax_backward_data.out(
                    of_logits, probabilities, -1, q.dtype, grad_input=of_logits
                )
                of_k_head.addmm_(of_logits.T, part[:, : keys.shape[-1]], alpha=scale)
                torch.addmm(of_part, of_logits, keys_of_head, beta=0, alpha=scale, out=of_part)
        of_queries, *of_embeddings = _through_terms(of_queries, queries, extension, embeddings)
        return of_queries.flatten(2), of_k.flatten(2), of_v.flatten(2), None, None, None, *of_embeddings


def _attend(
    q: Tensor, k: Tensor, v: Tensor, extension: _Extension, num_heads: int, scale: float, *embeddings: Tensor
) -> Tensor:
    queries, keys, values = (x.unflatten(-1, (num_heads, -1)) for x in (q, k, v))  # (B, N, heads, d)
    queries, keys = _widened(queries, keys, extension, embeddings)
    out = q.new_empty(q.shape)
    result = out.unflatten(-1, (num_heads, -1))
    num_rows = _rows_at_a_time(queries, keys)
    buffer = q.new_empty(num_rows, keys.shape[1])
    for b, head in _each_head(queries):
        keys_of_head, values_of_head = keys[b, :, head].T, values[b, :, head]
        parts = (x[b, :, head].split(num_rows) for x in (queries, result))
        for part, rows in zip(*parts, strict=True):
            logits = buffer[: len(part)]
            torch.addmm(logits, part, keys_of_head, beta=0, alpha=scale, out=logits)
            probabilities = torch.softmax(logits, dim=-1, out=logits)
            torch.mm(probabilities, values_of_head, out=rows)
    return out


def _widened(
    queries: Tensor, keys: Tensor, extension: _Extension, embeddings: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """(B, Nq, heads, d + e) and (B, Nk, heads, d + e)"""
    of_keys = extension.of_keys
    wide_keys = torch.cat([keys, of_keys[:, None].expand(*keys.shape[:3], -1)], dim=-1)
    dim = queries.shape[-1]
    wide_queries = queries.new_empty(*queries.shape[:3], dim + of_keys.shape[1])
    wide_queries[..., :dim] = queries
    # A class token has no terms.
    wide_queries[:, : queries.shape[1] - math.prod(extension.query_grid), :, dim:] = 0
    for b in range(len(queries)):
        column = dim
        for letter, embedding in zip(extension.letters, embeddings, strict=True):
            along = _Along(letter, extension.query_grid, queries.shape[2])
            terms = along.view(wide_queries[b, ..., column : column + embedding.shape[1]])
            torch.bmm(along.view(queries[b]), along.repeated(embedding).transpose(1, 2), out=terms)
            column += embedding.shape[1]
        if extension.counts_class:
            wide_queries[b, ..., column] = 1
            column += 1
        wide_queries[b, ..., column:] = 0
    return wide_queries, wide_keys


def _through_terms(
    of_wide: Tensor, queries: Tensor, extension: _Extension, embeddings: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of wide queries -> those of the queries, through their terms too, and of the embeddings."""
    dim = queries.shape[-1]
    of_queries = of_wide[..., :dim].contiguous()
    of_embeddings = [torch.zeros_like(embedding) for embedding in embeddings]
    for b in range(len(queries)):
        column = dim
        for letter, embedding, of_embedding in zip(extension.letters, embeddings, of_embeddings, strict=True):
            along = _Along(letter, extension.query_grid, queries.shape[2])
            of_terms = along.view(of_wide[b, ..., column : column + embedding.shape[1]])
            along.view(of_queries[b]).baddbmm_(of_terms, along.repeated(embedding))
            of_embedding += along.summed(torch.bmm(of_terms.transpose(1, 2), along.view(queries[b])))
            column += embedding.shape[1]
    return of_queries, *of_embeddings


class _Along(NamedTuple):
    """Tokens seen along an axis of their grid: which of them share a place on it."""

    letter: str
    grid: Size
    num_heads: int

    def view(self, x: Tensor) -> Tensor:
        """([1 +] T*H*W, heads, c) -> a view (places, sharers, c): (T, H*W*heads, c), (T*H, W*heads, c) or
        (W*heads, T*H, c)."""
        T, H, W = self.grid
        patches = x[len(x) - T * H * W :].flatten(0, 1)
        if self.letter == "t":
            return patches.unflatten(0, (T, -1))
        lines = patches.unflatten(0, (T * H, -1))
        return lines if self.letter == "h" else lines.transpose(0, 1)

    def repeated(self, embedding: Tensor) -> Tensor:
        """(places on the axis, keys, d) -> (places of the view, keys, d)"""
        if self.letter == "w":
            return embedding.repeat_interleave(self.num_heads, dim=0)
        return embedding.repeat(self.grid[0], 1, 1) if self.letter == "h" else embedding

    def summed(self, of_repeated: Tensor) -> Tensor:
        """Gradient of `repeated` -> that of the embedding."""
        if self.letter == "w":
            return of_repeated.unflatten(0, (-1, self.num_heads)).sum(dim=1)
        return of_repeated.unflatten(0, (self.grid[0], -1)).sum(dim=0) if self.letter == "h" else of_repeated


def _each_head(queries: Tensor) -> list[tuple[int, int]]:
    return [(b, head) for b in range(queries.shape[0]) for head in range(queries.shape[2])]


def _rows_at_a_time(queries: Tensor, keys: Tensor) -> int:
    return min(queries.shape[1], max(FEWEST_QUERIES, LOGITS_AT_A_TIME // keys.shape[1]))
