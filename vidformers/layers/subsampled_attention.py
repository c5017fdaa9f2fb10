"""Attention to a shrunken map: PVT's spatial-reduction and Twins' global sub-sampled attention."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.attention import attention
from vidformers.layers.conv import Conv3d
from vidformers.layers.sizes import Grid, triple


class SubsampledAttention(nn.Module):
    """Queries are all tokens; keys and values come from the map shrunken by `reduction` (t, h, w).

    The map is shrunken by a convolution with kernel = stride = `reduction` and a LayerNorm (PVT, Wang et al.
    2102.12122, section 3.3; Twins, Chu et al. 2104.13840, section 3.2), or, with `pool_size`, by average
    pooling to that many (t, h, w) tokens, a 1x1x1 convolution, LayerNorm and GELU (PVTv2's linear attention,
    2106.13797, section 3.1). With neither it is plain attention among all tokens.

    Borders: h and w beyond the last whole cell are no keys, as in the references; a map smaller than one cell
    is extended by its last row and column, and time to whole cells by the last frame. Pooling makes no more
    than T cells in time.

    forward: tokens (B, [1 +] T*H*W, dim) and their grid -> the same shape. A class token comes first, and
    only where nothing is reduced; `class_token_log_frames` adds log(T) to its key, so that an image model,
    run on a clip of equal frames, attends as it does on the image.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        reduction: Sequence[int] = (1, 1, 1),
        pool_size: Sequence[int] | None = None,
        qkv_bias: bool = True,
        dropout_rate: float = 0.0,
        class_token_log_frames: bool = False,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.reduction = triple(reduction)
        self.pool_size = None if pool_size is None else triple(pool_size)
        self.class_token_log_frames = class_token_log_frames
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout_rate)
        self.sr: nn.Conv3d | None = None
        self.norm: nn.LayerNorm | None = None
        self.act: nn.Module = nn.Identity()
        if self.pool_size is not None:
            self.sr = Conv3d(dim, dim, (1, 1, 1))
            self.act = nn.GELU()
        elif self.reduction != (1, 1, 1):
            self.sr = Conv3d(dim, dim, self.reduction, self.reduction, time_padding="replicate")
        if self.sr is not None:
            self.norm = nn.LayerNorm(dim, eps=1e-5)  # PyTorch's default, as in the references

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        k, v = self.kv(self._reduced(x, grid)).chunk(2, dim=-1)
        # (B, N, heads*d) -> (B, heads, N, d)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.q(x), k, v))
        bias = None
        if self.class_token_log_frames:
            bias = F.pad(q.new_full((1, 1, 1, 1), math.log(grid[0])), (0, k.shape[2] - 1))
        out = attention(q, k, v, bias, self.scale)
        return self.proj_drop(
            self.proj(out.transpose(1, 2).flatten(2))
        )  # (B, heads, N, d) -> (B, N, heads*d)

    def _reduced(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens (B, N, dim) of the map that is attended to: (B, Nk, dim)."""
        if self.sr is None or self.norm is None:
            return x
        volume = x.transpose(1, 2).unflatten(2, grid)  # (B, T*H*W, C) -> (B, C, T, H, W)
        if self.pool_size is not None:
            frames, height, width = self.pool_size
            volume = F.adaptive_avg_pool3d(volume, (min(frames, grid[0]), height, width))
        else:
            _, height, width = self.reduction
            missing = max(height - grid[1], 0), max(width - grid[2], 0)
            if any(missing):
                volume = F.pad(volume, (0, missing[1], 0, missing[0], 0, 0), mode="replicate")
        reduced = self.sr(volume).flatten(2).transpose(1, 2)  # (B, C, T', H', W') -> (B, T'*H'*W', C)
        return self.act(self.norm(reduced))
