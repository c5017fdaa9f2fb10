"""Self-attention within groups of tokens: the core of every window, grid, dilated and messenger block."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.attention import attention
from vidformers.layers.partition import ONES, ZEROS, group_mask, partition, unpartition


def masked_logit(dtype: torch.dtype) -> float:
    """Added to the logits of hidden keys. Finite: a group of padding only would give NaN with -inf."""
    return max(-1e6, torch.finfo(dtype).min / 2)


def attention_bias(
    position: Tensor | None,
    mask: Tensor | None,
    prefix_logit: Tensor | None,
    *,
    num_prefix: int,
    num_tokens: int,
    dtype: torch.dtype,
) -> Tensor | None:
    """The sum of what is added to the logits of a clip's groups: broadcastable to (G, heads, P+N, P+N).

    position (heads, N, N), or (heads, P+N, P+N) where it covers the P prefix tokens too; mask bool (G, N or
    1, N), True where a query may see a key (prefix keys are always seen); prefix_logit of the prefix keys,
    for every query: () or (G,). num_tokens = N.
    """
    bias = None
    if position is not None:
        if position.shape[-1] == num_tokens:
            position = F.pad(position, (num_prefix, 0, num_prefix, 0))
        bias = position.to(dtype)[None]  # (1, heads, P+N, P+N)
    by_group = None
    if mask is not None:
        hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        hidden = hidden.masked_fill(~mask, masked_logit(dtype))
        # Rows of the prefix queries: they see whatever is no padding. Only shift masks differ by query, and
        # no model has both a shift and prefix tokens.
        rows = num_prefix if mask.shape[1] > 1 else 0
        by_group = F.pad(hidden, (num_prefix, 0, rows, 0))[:, None]  # (G, 1, P+N or 1, P+N)
    if prefix_logit is not None:
        key = prefix_logit.to(dtype).reshape(-1, 1, 1, 1).expand(-1, 1, 1, num_prefix)
        key = F.pad(key, (0, num_tokens))
        by_group = key if by_group is None else by_group + key
    if bias is None or by_group is None:
        return by_group if bias is None else bias
    return bias + by_group


def attention_in_groups(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """`attention` of rows (B*G, heads, Nq or Nk, d), the bias being that of a clip's groups: broadcastable to
    (G, heads, Nq, Nk), as `attention_bias` gives it."""
    if bias is None or bias.shape[0] == 1:
        return attention(q, k, v, bias, scale)
    # Groups as heads, so that the clips share the bias, which can be larger than all the rest:
    # (B*G, heads, N, d) -> (B, G*heads, N, d)
    num_groups, heads = bias.shape[0], q.shape[1]
    shape = q.shape
    q, k, v = (part.reshape(-1, num_groups * heads, *part.shape[2:]) for part in (q, k, v))
    bias = bias.expand(-1, heads, -1, -1).flatten(0, 1)[None]
    return attention(q, k, v, bias, scale).reshape(shape)


class GroupAttention(nn.Module):
    """Multi-head attention among the tokens of each group, with an optional position bias.

    `position_bias` maps a group's (t, h, w) to (heads, N, N); see layers/position_bias.py.
    forward: groups (B*G, P+N, C), as `partition` gives them, with P prefix tokens in front of the N of the
    group; -> the same shape. `attend` is forward without the output projection, and gives the values too.
    `attend_volume` does all of it for a volume (B, T, H, W, C): pad, split, attend, merge, crop.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        position_bias: nn.Module | None = None,
        dropout_rate: float = 0.0,
    ):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} cannot be divided by {num_heads} heads")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.position_bias = position_bias
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout_rate)

    def forward(
        self,
        groups: Tensor,
        group: Sequence[int],
        mask: Tensor | None = None,
        *,
        num_prefix: int = 0,
        prefix_logit: Tensor | None = None,
    ) -> Tensor:
        """mask: bool (G, N or 1, N) from `group_mask`; prefix_logit: (G,) or (), added to the prefix keys'
        logits, such as `frames_in_groups(...).log()`."""
        out, _ = self.attend(groups, group, mask, num_prefix=num_prefix, prefix_logit=prefix_logit)
        return self.proj_drop(self.proj(out))

    def attend(
        self,
        groups: Tensor,
        group: Sequence[int],
        mask: Tensor | None = None,
        *,
        num_prefix: int = 0,
        prefix_logit: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As forward, without the projection; and the values, (B*G, P+N, C) both."""
        num_tokens = groups.shape[1]
        # (B*G, P+N, 3*heads*d) -> 3 x (B*G, heads, P+N, d)
        q, k, v = self.qkv(groups).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        position = self.position_bias(group) if self.position_bias is not None else None
        bias = attention_bias(
            position,
            mask,
            prefix_logit,
            num_prefix=num_prefix,
            num_tokens=num_tokens - num_prefix,
            dtype=q.dtype,
        )
        out = attention_in_groups(q, k, v, bias, self.scale)
        # (B*G, heads, P+N, d) -> (B*G, P+N, heads*d)
        return out.transpose(1, 2).flatten(2), v.transpose(1, 2).flatten(2)

    def attend_volume(
        self,
        x: Tensor,
        group: Sequence[int],
        interval: Sequence[int] = ONES,
        shift: Sequence[int] = ZEROS,
        before: Sequence[int] = ZEROS,
        *,
        pad_mask: str = "all",
    ) -> Tensor:
        """(B, T, H, W, C) -> the same: attention within the groups of `partition`, padding hidden as
        `pad_mask` (a key of PAD_MASKS) says. Sizes are taken as given: clip the group before."""
        size = x.shape[1:4]
        mask = group_mask(size, group, interval, shift, before, pad_mask=pad_mask, device=x.device)
        groups = self(partition(x, group, interval, shift, before), group, mask)
        return unpartition(groups, size, group, interval, shift, before)
