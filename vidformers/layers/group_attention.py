"""Self-attention within groups of tokens: the core of every window, grid, dilated and messenger block."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.attention import attention
from vidformers.layers.partition import (
    ONES,
    ZEROS,
    Piece,
    group_mask,
    has_hidden_padding,
    padded_size,
    partition,
    shifted_pieces,
    unpartition,
)
from vidformers.layers.sizes import Grid, triple


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
    if bias is None or bias.shape[0] in (1, q.shape[0]):
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
        q, k, v = self._split(self.qkv(groups))
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
        `pad_mask` (a key of PAD_MASKS) says. Sizes are taken as given: clip the group before. A shift is that
        of windows, below them, along axes longer than one."""
        size = x.shape[1:4]
        if any(shift) and x.device.type == "cpu":
            assert tuple(interval) == ONES and tuple(before) == ZEROS
            if not has_hidden_padding(size, group, pad_mask=pad_mask):
                return self._attend_pieces(x, triple(group), triple(shift))
        mask = group_mask(size, group, interval, shift, before, pad_mask=pad_mask, device=x.device)
        groups = self(partition(x, group, interval, shift, before), group, mask)
        return unpartition(groups, size, group, interval, shift, before)

    def _attend_pieces(self, x: Tensor, window: Grid, shift: Grid) -> Tensor:
        """`attend_volume` in shifted windows, no padding hidden, without roll and mask.

        The windows at the ends are cut where the mask would part them. That saves the mask, which is as large
        as all attention matrices, and what would be computed only to be hidden. But it is up to 27 small
        attentions in place of a large one, no gain where launching them costs more (GPUs).
        """
        size = triple(x.shape[1:4])
        padded = padded_size(size, window)
        if padded != size:
            pads = [p - n for n, p in zip(size, padded, strict=True)]
            x = F.pad(x, (0, 0, 0, pads[2], 0, pads[1], 0, pads[0]))
        qkv = self.qkv(x)
        whole = None
        if self.position_bias is not None:
            # (heads, N, N) -> (heads, t, h, w, t, h, w)
            whole = self.position_bias(window).to(qkv.dtype).view(-1, *window, *window)
        t_pieces, h_pieces, w_pieces = (
            shifted_pieces(*axis) for axis in zip(padded, window, shift, strict=True)
        )
        frames = []
        for t in t_pieces:
            rows = [
                torch.cat([self._attend_piece(qkv, whole, t, h, w) for w in w_pieces], dim=3)
                for h in h_pieces
            ]
            frames.append(torch.cat(rows, dim=2))
        out = torch.cat(frames, dim=1)[:, : size[0], : size[1], : size[2]]
        return self.proj_drop(self.proj(out))

    def _attend_piece(self, qkv: Tensor, whole: Tensor | None, t: Piece, h: Piece, w: Piece) -> Tensor:
        """Attention in the windows of one piece of each axis, without projections.

        qkv (B, T, H, W, 3*heads*d), all of the volume; whole: the position bias of a whole window. -> (B, t,
        h, w, heads*d), the piece's size.
        """
        part = qkv[:, t.start : t.stop, h.start : h.stop, w.start : w.stop]
        group = (t.window, h.window, w.window)
        # (B, t, h, w, 3*heads*d) -> (B*G, n, 3*heads*d) -> 3 x (B*G, heads, n, d)
        q, k, v = self._split(partition(part, group))
        bias = None
        if whole is not None:
            at = [slice(piece.first, piece.first + piece.window) for piece in (t, h, w)]
            bias = whole[:, at[0], at[1], at[2], at[0], at[1], at[2]].reshape(1, -1, q.shape[2], q.shape[2])
        out = attention(q, k, v, bias, self.scale)
        return unpartition(out.transpose(1, 2).flatten(2), triple(part.shape[1:4]), group)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B*G, N, 3*heads*d) -> q, k and v, (B*G, heads, N, d) each, without a copy."""
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v
