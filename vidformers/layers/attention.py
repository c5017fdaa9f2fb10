"""The attention core: one fused path and the eager formula it must agree with (see tests/layers).

Every attention of the library goes through `attention`, so that `replaced_attention` reaches them all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]

_replacement: Attend | None = None


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T * scale + bias) v.

    q (B, heads, Nq, d), k and v (B, heads, Nk, d), bias broadcastable to (B, heads, Nq, Nk) and of q's dtype.
    4-D tensors on purpose: PyTorch's fused kernels refuse others and fall back to the slow path.
    """
    if _replacement is not None:
        return _replacement(q, k, v, bias, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def attention_probabilities(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T * scale + bias), (B, heads, Nq, Nk): the matrix that `attention` never writes down."""
    logits = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    return torch.softmax(logits, dim=-1)


def attention_eager(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """`attention` by its formula; keeps the whole attention matrix in memory. The reference of the fused."""
    return attention_probabilities(q, k, bias, scale) @ v


@contextmanager
def replaced_attention(by: Attend) -> Iterator[None]:
    """Within it every `attention` of every model is `by(q, k, v, bias, scale)`: to record or explain it."""
    global _replacement
    before, _replacement = _replacement, by
    try:
        yield
    finally:
        _replacement = before


_by_definition = False


@contextmanager
def by_definition() -> Iterator[None]:
    """Within it pooling attention computes its definition: all keys and values are projected, a bias for
    relative position is written down. To count multiply-adds as papers do, and to compare the two."""
    global _by_definition
    before, _by_definition = _by_definition, True
    try:
        yield
    finally:
        _by_definition = before


def computes_definition() -> bool:
    """Whether this is within `by_definition`."""
    return _by_definition


def runs_unseen() -> bool:
    """Whether results are all that matters: nobody compiles or traces what is computed, counts it by its
    definition or replaces the attention. Then it may be done in another way, or in part."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not _by_definition and _replacement is None
