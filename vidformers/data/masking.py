"""Which tokens masked pre-training hides: as many in every clip, drawn from an explicit generator."""

import numpy as np
import torch
from torch import Tensor

from vidformers.layers.sizes import Grid

MASKINGS = ("tube", "random")


def num_masked(masking: str, ratio: float, grid: Grid) -> int:
    """Tokens of a clip that are hidden; "tube" rounds down within a frame, "random" within the clip.

    ValueError if that is none, or all.
    """
    T, S = grid[0], grid[1] * grid[2]
    count = int(ratio * S) * T if masking == "tube" else int(ratio * T * S)
    if not 0 < count < T * S:
        raise ValueError(
            f"got a mask ratio of {ratio} ({masking}), which hides {count} of {T * S} tokens {grid}; wanted "
            "some hidden and some not; try 0.9 with larger clips, or 0.75"
        )
    return count


def draw_masks(
    masking: str, ratio: float, grid: Grid, num_clips: int, generator: np.random.Generator
) -> Tensor:
    """Bool (num_clips, T*H*W), T-major, True = hidden; each clip has a mask of its own, all hide as many.

    "tube" hides the same places in all frames (VideoMAE, 2203.12602, section 3.3), so that what is hidden
    cannot be copied from a neighbouring frame; "random" any tokens (2205.09113, section 3).
    """
    T, S = grid[0], grid[1] * grid[2]
    count = num_masked(masking, ratio, grid)
    if masking == "tube":
        order = generator.random((num_clips, S)).argsort(axis=1)
        return torch.from_numpy(order < count // T).repeat(1, T)
    return torch.from_numpy(generator.random((num_clips, T * S)).argsort(axis=1) < count)
