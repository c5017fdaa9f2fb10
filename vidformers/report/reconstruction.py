"""A picture of what a masked autoencoder was shown and what it made of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from vidformers.report.strips import save_image, strip_image

RECONSTRUCTION = "reconstruction.png"
_GAP = 8  # pixels between clips, besides that between rows


def save_reconstruction(path: Path, clips: Sequence[Sequence[Tensor]]) -> None:
    """Write a PNG: of every clip a row of frames each of the original, the visible part, the reconstruction.

    clips: the rows of each, float (3, T, H, W) from 0 to 1; of a long clip the even spread of 8 frames is
    shown.
    """
    parts: list[np.ndarray] = []
    for clip in clips:
        rows = []
        for row in clip:
            pixels = row.permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
            rows.append((255 * pixels.clip(0, 1)).round().astype(np.uint8))
        if parts:
            parts.append(np.full_like(parts[-1][:_GAP], 255))
        parts.append(strip_image(rows))
    save_image(path, np.concatenate(parts))
