"""Arithmetic on (t, h, w) sizes."""

from collections.abc import Sequence

Grid = tuple[int, int, int]


def triple(values: Sequence[int]) -> Grid:
    """Any sequence of three integers, as YAML lists are, to a (t, h, w) tuple."""
    t, h, w = values
    return int(t), int(h), int(w)


def conv_output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Grid:
    """Size after a convolution or a pooling."""
    return triple(
        [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    )


def floor_divided(size: Sequence[int], stride: Sequence[int]) -> Grid:
    """size // stride on each axis, at least 1."""
    return triple([max(n // s, 1) for n, s in zip(size, stride, strict=True)])
