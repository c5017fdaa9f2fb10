"""Checks of constructor arguments that several families have.

Each raises a ValueError that names the argument and says what works.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

from vidformers.layers.sizes import Grid, triple

POSITIVE = {"embed_dims", "depths", "num_heads", "mlp_ratios"}


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_counts(**counts: int) -> None:
    """Whole numbers of at least 1."""
    for name, count in counts.items():
        if not _is_whole(count, 1):
            raise ValueError(f"{name}={count!r} must be a whole number of at least 1")


def check_rates(**rates: float) -> None:
    """Shares that may be dropped in training: not all."""
    for name, rate in rates.items():
        if not isinstance(rate, Real) or not 0 <= float(rate) < 1:
            raise ValueError(f"{name}={rate!r} must be at least 0 and below 1, such as 0.2; 0 turns it off")


def check_positive(**numbers: float) -> None:
    """Numbers above 0; not NaN."""
    for name, number in numbers.items():
        if not isinstance(number, Real) or not 0 < float(number) < float("inf"):
            raise ValueError(f"{name}={number!r} must be a number above 0")


def check_finite(**numbers: float) -> None:
    """Numbers of either sign; not NaN, not infinite."""
    for name, number in numbers.items():
        if not isinstance(number, Real) or not isfinite(float(number)):
            raise ValueError(f"{name}={number!r} must be a finite number")


def checked_triple(name: str, values: Any, *, smallest: int = 1) -> Grid:
    """Three whole numbers (t, h, w), of which none is below `smallest`."""
    if not are_whole(values, 3, smallest):
        raise ValueError(f"{name}={values!r} must be three whole numbers (t, h, w) of at least {smallest}")
    return triple(values)


def height_and_width(image_size: Any) -> tuple[int, int]:
    """image_size in pixels, a number or (height, width)."""
    size = (image_size, image_size) if isinstance(image_size, Integral) else image_size
    if not are_whole(size, 2, 1):
        raise ValueError(f"image_size={image_size!r} must be a whole number of pixels or (height, width)")
    return int(size[0]), int(size[1])


def check_heads(embed_dim: int, num_heads: int) -> None:
    if embed_dim % num_heads:
        raise ValueError(
            f"embed_dim={embed_dim} is not divisible by num_heads={num_heads}; "
            f"use embed_dim={embed_dim // num_heads * num_heads or num_heads}"
        )


def check_stages(arguments: Mapping[str, Sequence[Any]]) -> None:
    """ValueError if per-stage arguments differ in length or are 0, or heads do not divide a width."""
    lengths = {name: len(values) for name, values in arguments.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        given = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"these arguments need one entry a stage, the same number each, but {given}")
    for name in POSITIVE & set(arguments):
        for stage, value in enumerate(arguments[name]):
            if not isinstance(value, Real) or not float(value) > 0:
                raise ValueError(f"{name}[{stage}]={value!r} must be a number above 0")
    for stage, (dim, heads) in enumerate(zip(arguments["embed_dims"], arguments["num_heads"], strict=True)):
        if dim % heads:
            raise ValueError(
                f"embed_dims[{stage}]={dim} is not divisible by num_heads[{stage}]={heads}; "
                f"use {dim // heads * heads or heads} or {(dim // heads + 1) * heads}"
            )


def declared_size(
    num_frames: int, tubelet_size: int, image_size: int | Sequence[int], smallest_side: int
) -> tuple[int, int, int]:
    """(T, H, W) in frames and pixels that a model is built for; ValueError if it cannot be."""
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if num_frames < 1 or tubelet_size < 1:
        raise ValueError(f"num_frames={num_frames} and tubelet_size={tubelet_size} must be at least 1")
    if min(size) < smallest_side:
        raise ValueError(f"image_size={image_size} is too small; use at least {smallest_side} pixels a side")
    return num_frames, int(size[0]), int(size[1])


def is_sequence(values: Any, length: int | None = None) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    return length is None or len(values) == length


def are_whole(values: Any, length: int, smallest: int) -> bool:
    return is_sequence(values, length) and all(_is_whole(value, smallest) for value in values)


def _is_whole(value: Any, smallest: int) -> bool:
    return isinstance(value, Integral) and int(value) >= smallest
