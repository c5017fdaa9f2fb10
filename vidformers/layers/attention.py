"""The attention core: one fused path and the eager formula it must agree with (see tests/layers)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T * scale + bias) v.

    q (B, heads, Nq, d), k and v (B, heads, Nk, d), bias broadcastable to (B, heads, Nq, Nk) and of q's dtype.
    4-D tensors on purpose: PyTorch's fused kernels refuse others and fall back to the slow path.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def attention_eager(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The same by its formula; keeps the whole attention matrix in memory. The reference of `attention`."""
    logits = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    return torch.softmax(logits, dim=-1) @ v
