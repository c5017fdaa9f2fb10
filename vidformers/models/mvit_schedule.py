"""MViT's arguments, checked, and what they mean for each block: widths, strides, kernels, table sizes.

Every check raises a ValueError that names the argument and says what works.
"""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from vidformers.layers.checks import are_whole, checked_triple, is_sequence
from vidformers.layers.sizes import Grid, floor_divided, triple


def factors_by_block(name: str, entries: Any, num_blocks: int) -> dict[int, float]:
    """((block, factor), ...) -> {block: factor}; the last entry of a block wins."""

    def is_entry(entry: Any) -> bool:
        return is_sequence(entry, 2) and isinstance(entry[1], Real) and float(entry[1]) > 0

    rows = _rows(name, entries, num_blocks, is_entry, "(block, factor), such as (1, 2.0)")
    return {int(block): float(factor) for block, factor in rows}


def strides_by_block(name: str, entries: Any, num_blocks: int) -> dict[int, Grid]:
    """((block, t, h, w), ...) -> {block: (t, h, w)}; the last entry of a block wins."""

    def is_entry(entry: Any) -> bool:
        return is_sequence(entry, 4) and are_whole(entry[1:], 3, 1)

    form = "(block, t, h, w) with strides of at least 1, such as (1, 1, 2, 2)"
    return {int(row[0]): triple(row[1:]) for row in _rows(name, entries, num_blocks, is_entry, form)}


def _rows(name: str, entries: Any, num_blocks: int, is_entry: Callable[[Any], bool], form: str) -> Any:
    if not is_sequence(entries):
        raise ValueError(f"{name}={entries!r} must be a sequence of {form}; or () for none")
    for entry in entries:
        if not is_entry(entry) or not isinstance(entry[0], Integral):
            raise ValueError(f"{name} has the entry {entry!r}; each must be {form}")
        if not 0 <= int(entry[0]) < num_blocks:
            raise ValueError(
                f"{name} names block {entry[0]}, but the last one it can name is {num_blocks - 1}; "
                f"give {name} too when you change depth"
            )
    return entries


def round_width(width: int, multiplier: float, divisor: int = 1) -> int:
    """Grown width, rounded to a multiple of `divisor`, but not down by more than a tenth."""
    grown = width * multiplier
    rounded = max(1, int(grown + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * grown else rounded


def block_heads(num_heads: int, head_mul: Any, depth: int) -> list[int]:
    """Heads of each block."""
    factors = factors_by_block("head_mul", head_mul, depth + 1)
    heads = []
    for i in range(depth):
        num_heads = round_width(num_heads, factors.get(i, 1.0))
        heads.append(num_heads)
    return heads


def grown_widths(
    embed_dim: int, heads: Sequence[int], dim_mul: Any, head_mul: Any, *, in_attention: bool
) -> list[int]:
    """Output width of each block, rounded as PySlowFast does."""
    depth = len(heads)
    factors = factors_by_block("dim_mul", dim_mul, depth + 1)
    head_factors = factors_by_block("head_mul", head_mul, depth + 1)
    width, widths = embed_dim, []
    for i, num_heads in enumerate(heads):
        grows_at = i if in_attention else i + 1
        factor = factors.get(grows_at, 1.0)
        # For v2 PySlowFast applies head_mul twice in this divisor, and checkpoints have the widths that come
        # out of it. Where its heads do not divide such a width it fails; here the heads decide then.
        grown = round_width(width, factor, round_width(num_heads, head_factors.get(grows_at, 1.0)))
        if in_attention and grown % num_heads:
            grown = round_width(width, factor, num_heads)
        width = grown
        widths.append(width)
    return widths


def checked_widths(widths: Any, dim_mul: Any, depth: int) -> list[int]:
    """block_widths, the output width of each block, which leaves nothing to dim_mul."""
    if dim_mul:
        raise ValueError("block_widths says where the width grows: give dim_mul=() with it, or dim_mul alone")
    if not are_whole(widths, depth, 1):
        raise ValueError(f"block_widths={widths!r} must be {depth} whole numbers, one for each block")
    return [int(width) for width in widths]


def key_value_strides(
    pool_kv_stride: Any, pool_kv_stride_adaptive: Any, q_stride_of: dict[int, Grid], depth: int
) -> dict[int, Grid]:
    """Key-value strides by block: those given, or adaptive ones, smaller where the map is, so that all stages
    have as many keys."""
    strides = strides_by_block("pool_kv_stride", pool_kv_stride, depth)
    if pool_kv_stride_adaptive is None:
        return strides
    if strides:
        raise ValueError("give pool_kv_stride or pool_kv_stride_adaptive, not both")
    stride = checked_triple("pool_kv_stride_adaptive", pool_kv_stride_adaptive)
    for i in range(depth):
        if i in q_stride_of:
            stride = floor_divided(stride, q_stride_of[i])
        strides[i] = stride
    return strides


def pool_kernel(stride: Grid | None, kernel: Grid | None) -> Grid | None:
    """The kernel given, or stride + 1 on the axes that shrink; None where nothing is pooled."""
    if stride is None:
        return None
    return kernel if kernel is not None else shrinking_kernel(stride)


def shrinking_kernel(stride: Sequence[int]) -> Grid:
    return triple([s + 1 if s > 1 else 1 for s in stride])


def rel_pos_rows(
    tracked: Grid, q_stride: Grid | None, kv_stride: Grid | None, spatial: bool, temporal: bool
) -> Grid:
    """Rows of the (t, h, w) tables. Both spatial ones follow the longer side and the strides along H, the
    temporal one ignores strides, as in PySlowFast and torchvision; the forward interpolates where needed."""
    side = max(tracked[1:])
    query = side // (q_stride[1] if q_stride is not None else 1)
    key = side // (kv_stride[1] if kv_stride is not None else 1)
    spatial_rows = 2 * max(query, key, 1) - 1 if spatial else 0
    return (2 * tracked[0] - 1 if temporal else 0), spatial_rows, spatial_rows
