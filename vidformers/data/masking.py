"""Which tokens masked pre-training hides: as many in every clip, drawn from an explicit generator."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vidformers.layers.sizes import Grid, triple

_EACH = (1, 1, 1)


def num_masked(masking: str, ratio: float, grid: Grid, unit: Sequence[int] = _EACH) -> int:
    """Tokens of a clip that are hidden; "tube" rounds down within a frame, the others within the clip.

    ValueError if that is none, or all, or if units (t, h, w) do not fill the grid.
    """
    T, H, W = _units(grid, unit)
    count = int(ratio * H * W) * T if masking == "tube" else int(ratio * T * H * W)
    if not 0 < count < T * H * W:
        of = "tokens" if tuple(unit) == _EACH else f"units of {tuple(unit)} tokens"
        raise ValueError(
            f"got a mask ratio of {ratio} ({masking}), which hides {count} of {T * H * W} {of} {(T, H, W)}; "
            "wanted some hidden and some not; try 0.9 with larger clips, or 0.75"
        )
    return count * unit[0] * unit[1] * unit[2]


def draw_masks(
    masking: str,
    ratio: float,
    grid: Grid,
    num_clips: int,
    generator: np.random.Generator,
    *,
    unit: Sequence[int] = _EACH,
) -> Tensor:
    """Bool (num_clips, T*H*W), T-major, True = hidden; each clip has a mask of its own, all hide as many.

    "tube" hides the same places in all frames (VideoMAE, 2203.12602, section 3.3), so that what is hidden
    cannot be copied from a neighbouring frame; "random" any tokens (2205.09113, section 3); "cube" boxes,
    one after the other until enough is hidden, the last one cut to fit (as PySlowFast's MaskFeat).
    unit: tokens (t, h, w) that are hidden or shown together.
    """
    T, H, W = units = _units(grid, unit)
    count = num_masked(masking, ratio, grid, unit) // (unit[0] * unit[1] * unit[2])
    if masking == "tube":
        order = generator.random((num_clips, H * W)).argsort(axis=1)
        masks = (order < count // T)[:, None].repeat(T, axis=1)
    elif masking == "random":
        masks = generator.random((num_clips, T * H * W)).argsort(axis=1) < count
    else:
        masks = np.stack([_cubes(units, count, generator) for _ in range(num_clips)])
    masks = masks.reshape(num_clips, T, H, W)
    for axis, size in enumerate(unit, start=1):
        masks = masks.repeat(size, axis=axis)
    return torch.from_numpy(masks.reshape(num_clips, -1))


def _units(grid: Grid, unit: Sequence[int]) -> Grid:
    if any(size % part for size, part in zip(grid, unit, strict=True)):
        works = tuple(part if size % part == 0 else 1 for size, part in zip(grid, unit, strict=True))
        raise ValueError(f"got mask units of {tuple(unit)} tokens, which do not fill {grid}; try {works}")
    return triple([size // part for size, part in zip(grid, unit, strict=True)])


def _cubes(grid: Grid, count: int, generator: np.random.Generator) -> np.ndarray:
    """Bool `grid` with `count` True, in boxes of a fifth of a frame to a whole one, and of any length.

    PySlowFast's sizes: areas uniform, aspects between 0.3 and 1 / 0.3 log-uniform.
    """
    T, H, W = grid
    mask = np.zeros(grid, dtype=bool)
    while (missing := count - int(mask.sum())) > 0:
        area = generator.uniform(max(H * W // 5, 1), H * W)
        aspect = np.exp(generator.uniform(np.log(0.3), -np.log(0.3)))
        height = min(max(round(np.sqrt(area * aspect)), 1), H)
        width = min(max(round(np.sqrt(area / aspect)), 1), W)
        length = int(generator.integers(1, T, endpoint=True))
        front, top, left = (
            int(generator.integers(0, size - part, endpoint=True))
            for size, part in ((T, length), (H, height), (W, width))
        )
        box = np.zeros(grid, dtype=bool)
        box[front : front + length, top : top + height, left : left + width] = True
        new = np.flatnonzero(box & ~mask)
        mask.flat[new[:missing]] = True
    return mask
