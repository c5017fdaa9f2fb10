"""Multi-head pooling attention (Fan et al. 2021, section 3.1; Li et al. 2022, section 4.1)."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.layers.attention import attention, computes_definition, runs_unseen
from vidformers.layers.chunked_attention import chunked_attention, suits_chunks
from vidformers.layers.linear import reads_as_weights
from vidformers.layers.pooling import (
    AvgPool,
    ConvPool,
    MaxPool,
    grid_read,
    index_read,
    join_tokens,
    needs_pooling,
    pool_pair,
    pooled_grid,
    split_tokens,
    stride_over_read,
)
from vidformers.layers.rel_pos import relative_attention
from vidformers.layers.sizes import Grid, triple

Project = Callable[[Tensor], Tensor]
POOL_MODES = ("conv", "conv_unshared", "avg", "max")


class PoolingAttention(nn.Module):
    """Attention whose query, key and value volumes are pooled, each over (T, H, W).

    forward: tokens (B, [1 +] T*H*W, dim) and their grid (T, H, W) -> tokens (B, [1 +] T'*H'*W', dim_out) and
    the query grid. The class token, when there is one, is token 0; it is not pooled, has no relative
    position, but goes through the norms after pooling.

    Arguments: `grid` is what the block sees for the model's declared input; `rel_pos_rows` the rows of the
    (t, h, w) tables, 0 for none; kernel and stride are None where q (or k and v) are not pooled.
    `residual_pooling` adds the pooled query to the output, the class token's only with
    `residual_pooling_class_token` (torchvision's residual_with_cls_embed, PyTorchVideo's only form).
    `class_token_log_frames` counts the class key once a key frame: so an image model with a class token,
    run on a clip of equal frames, attends as it does on the image.
    """

    pool_q: nn.Module | None
    pool_k: nn.Module | None
    pool_v: nn.Module | None
    norm_q: nn.LayerNorm | None
    norm_k: nn.LayerNorm | None
    norm_v: nn.LayerNorm | None
    rel_pos_t: nn.Parameter | None
    rel_pos_h: nn.Parameter | None
    rel_pos_w: nn.Parameter | None

    def __init__(
        self,
        *,
        dim: int,
        dim_out: int,
        num_heads: int,
        grid: Grid,
        qkv_bias: bool,
        separate_qkv: bool,
        pool_mode: str,
        pool_first: bool,
        q_kernel: Sequence[int] | None,
        q_stride: Sequence[int] | None,
        kv_kernel: Sequence[int] | None,
        kv_stride: Sequence[int] | None,
        residual_pooling: bool,
        residual_pooling_class_token: bool,
        rel_pos_rows: tuple[int, int, int],
        class_token: bool,
        class_token_log_frames: bool,
        dropout_rate: float,
        norm_eps: float,
    ):
        super().__init__()
        head_dim = dim_out // num_heads
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.pool_first = pool_first
        self.residual_pooling = residual_pooling
        self.residual_class_token = residual_pooling_class_token or not class_token
        self.class_token = class_token
        self.class_token_log_frames = class_token_log_frames

        self.fused_qkv = not (separate_qkv or pool_first)
        if self.fused_qkv:
            self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        else:
            self.q = nn.Linear(dim, dim_out, bias=qkv_bias)
            self.k = nn.Linear(dim, dim_out, bias=qkv_bias)
            self.v = nn.Linear(dim, dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        self.proj_drop = nn.Dropout(dropout_rate)

        # The width that one set of pooling weights covers: a head, or, unshared, the whole width.
        pooled_dim = dim if pool_first else dim_out
        if pool_mode != "conv_unshared":
            pooled_dim = pooled_dim // num_heads
        self.kv_kernel: Grid | None = None  # where keys and values are pooled
        self.kv_stride: Grid | None = None
        self.query_grid = self.key_grid = grid
        for name, kernel, stride in (
            ("q", q_kernel, q_stride),
            ("k", kv_kernel, kv_stride),
            ("v", kv_kernel, kv_stride),
        ):
            pool: nn.Module | None = None
            norm: nn.Module | None = None
            if kernel is not None and stride is not None and needs_pooling(kernel, stride):
                if pool_mode in ("conv", "conv_unshared"):
                    pool = ConvPool(pooled_dim, kernel, stride)
                    norm = nn.LayerNorm(pooled_dim, eps=norm_eps)
                else:
                    pool = (AvgPool if pool_mode == "avg" else MaxPool)(kernel, stride)
                if name == "q":
                    self.query_grid = pooled_grid(grid, kernel, stride)
                else:
                    self.key_grid = pooled_grid(grid, kernel, stride)
                    self.kv_kernel, self.kv_stride = triple(kernel), triple(stride)
            self.register_module(f"pool_{name}", pool)
            self.register_module(f"norm_{name}", norm)

        self.rel_pos = any(rel_pos_rows)
        for axis, rows in zip("thw", rel_pos_rows, strict=True):
            table = nn.Parameter(torch.zeros(rows, head_dim)) if rows else None
            self.register_parameter(f"rel_pos_{axis}", table)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if self.pool_first:
            q, query_grid = self._pool(x, grid, self.pool_q, self.norm_q)
            k, key_grid = self._pool(x, grid, self.pool_k, self.norm_k)
            v, _ = self._pool(x, grid, self.pool_v, self.norm_v)
            q, k, v = self.q(q), self.k(k), self.v(v)
        else:
            queries_of, keys_and_values_of = self._linears(x)
            k, v, key_grid = self._keys_and_values(x, grid, keys_and_values_of)
            q, query_grid = self._pool(queries_of(x), grid, self.pool_q, self.norm_q)

        out = self._attend(q, k, v, query_grid, key_grid)
        if self.residual_pooling:
            if self.residual_class_token:
                out = out + q
            elif not torch.is_grad_enabled() and runs_unseen():
                out[:, 1:] += q[:, 1:]
            else:
                of_patches = F.pad(q.new_ones(1, q.shape[1] - 1, 1), (0, 0, 1, 0))
                out = torch.addcmul(out, q, of_patches)
        return self.proj_drop(self.proj(out)), query_grid

    def of_class_token(self, x: Tensor, grid: Grid) -> Tensor:
        """What `forward` gives for the class token: (B, 1, dim_out). It is not pooled and has no relative
        position; all other queries are left out."""
        if self.pool_first:
            q = self.q(self._norm(x[:, :1], self.norm_q))
            k, key_grid = self._pool(x, grid, self.pool_k, self.norm_k)
            v, _ = self._pool(x, grid, self.pool_v, self.norm_v)
            k, v = self.k(k), self.v(v)
        else:
            queries_of, keys_and_values_of = self._linears(x)
            k, v, key_grid = self._keys_and_values(x, grid, keys_and_values_of)
            q = self._norm(queries_of(x[:, :1]), self.norm_q)
        out = self._attend_plainly(self._by_heads(q), self._by_heads(k), self._by_heads(v), key_grid)
        if self.residual_pooling and self.residual_class_token:
            out = out + q
        if torch.is_grad_enabled():
            # What is not used here has a gradient of zeros in `forward`. None would be another thing to an
            # optimizer with weight decay, and to DistributedDataParallel, which waits for all.
            pools = [] if self.pool_q is None else list(self.pool_q.parameters())
            tables = [self.rel_pos_t, self.rel_pos_h, self.rel_pos_w]
            out = out + 0 * sum(unused.sum() for unused in (*pools, *tables) if unused is not None)
        return self.proj_drop(self.proj(out))

    def pool_as_query(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Tokens of the query's width, pooled and normed as it is: for a skip connection (Rev-MViT)."""
        return self._pool(x, grid, self.pool_q, self.norm_q)

    def _linears(self, x: Tensor) -> tuple[Project, Project]:
        """Two functions of tokens (B, N, dim): their queries, (B, N, dim_out), and their keys and values side
        by side, (B, N, 2*dim_out)."""
        if not self.fused_qkv:
            return self.q, lambda read: torch.cat([self.k(read), self.v(read)], dim=-1)
        width = self.proj.in_features
        if not reads_as_weights(self.qkv):
            of_x = self.qkv(x)
            return lambda first: of_x[:, : first.shape[1], :width], lambda _: of_x[..., width:]
        of_query, of_rest = self.qkv.weight.split((width, 2 * width))
        bias_of_query, bias_of_rest = (
            (None, None) if self.qkv.bias is None else self.qkv.bias.split((width, 2 * width))
        )
        return (
            lambda first: F.linear(first, of_query, bias_of_query),
            lambda read: F.linear(read, of_rest, bias_of_rest),
        )

    def _keys_and_values(
        self, x: Tensor, grid: Grid, keys_and_values_of: Project
    ) -> tuple[Tensor, Tensor, Grid]:
        """(B, [1 +] N, dim) -> k and v, pooled, (B, [1 +] N', dim_out) and their grid."""
        read_grid, stride = self._grid_read(grid)
        if read_grid == grid:
            both = keys_and_values_of(x)
        else:
            assert self.kv_kernel is not None and self.kv_stride is not None
            index = index_read(grid, self.kv_kernel, self.kv_stride, self.class_token, device=x.device)
            both = keys_and_values_of(x[:, index])
        if self.pool_k is not None and self.pool_v is not None and stride is not None:
            token, patches = split_tokens(both, self.class_token)
            volume = pool_pair(patches.unflatten(1, read_grid), self.pool_k, self.pool_v, stride)
            both, read_grid = join_tokens(token, volume)
        k, v = both.chunk(2, dim=-1)
        return self._norm(k, self.norm_k), self._norm(v, self.norm_v), read_grid

    def _grid_read(self, grid: Grid) -> tuple[Grid, Grid | None]:
        """The grid of the tokens that the pools of keys and values read, and the stride over it; the rest is
        never projected, unless their Linear has to be called for all."""
        in_one_call = self.fused_qkv and not reads_as_weights(self.qkv)
        if self.kv_kernel is None or self.kv_stride is None or in_one_call or computes_definition():
            return grid, self.kv_stride
        read = grid_read(grid, self.kv_kernel, self.kv_stride)
        return (
            (grid, self.kv_stride)
            if read == grid
            else (read, stride_over_read(self.kv_kernel, self.kv_stride))
        )

    def _pool(
        self, x: Tensor, grid: Grid, pool: nn.Module | None, norm: nn.LayerNorm | None
    ) -> tuple[Tensor, Grid]:
        if pool is None:
            return self._norm(x, norm), grid
        token, patches = split_tokens(x, self.class_token)
        volume = self._norm(pool(patches.unflatten(1, grid)), norm)
        return join_tokens(None if token is None else self._norm(token, norm), volume)

    def _norm(self, x: Tensor, norm: nn.LayerNorm | None) -> Tensor:
        if norm is None:
            return x
        # (..., C) -> (..., heads, d): each head is normalised by itself, with the same weights
        return norm(x.unflatten(-1, (-1, norm.normalized_shape[0]))).flatten(-2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, query_grid: Grid, key_grid: Grid) -> Tensor:
        """Tokens (B, N, dim_out) of pooled queries, keys and values -> (B, Nq, dim_out)."""
        tables = (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)
        class_key_logit = math.log(key_grid[0]) if self.class_token_log_frames else 0.0
        # Without relative position the fused kernel has nothing to copy, and is faster.
        if self.rel_pos and suits_chunks(q):
            return chunked_attention(
                q,
                k,
                v,
                tables,
                query_grid,
                key_grid,
                num_heads=self.num_heads,
                scale=self.scale,
                class_token=self.class_token,
                class_key_logit=class_key_logit,
            )
        q, k, v = (self._by_heads(part) for part in (q, k, v))
        if not self.rel_pos:
            return self._attend_plainly(q, k, v, key_grid)
        out = relative_attention(
            q,
            k,
            v,
            tables,
            query_grid,
            key_grid,
            scale=self.scale,
            class_token=self.class_token,
            class_key_logit=class_key_logit,
        )
        return _joined(out)

    def _attend_plainly(self, q: Tensor, k: Tensor, v: Tensor, key_grid: Grid) -> Tensor:
        """Without relative position: (B, heads, N, d) of each -> (B, Nq, dim_out)."""
        bias = None
        if self.class_token_log_frames:
            bias = F.pad(q.new_full((1, 1, 1, 1), math.log(key_grid[0])), (0, math.prod(key_grid)))
        return _joined(attention(q, k, v, bias, self.scale))

    def _by_heads(self, tokens: Tensor) -> Tensor:
        """(B, N, heads*d) -> (B, heads, N, d)"""
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _joined(heads: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads*d)"""
    return heads.transpose(1, 2).flatten(2)
