"""A picture of what a masked autoencoder was shown and what it made of it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

_GAP = 4  # pixels between frames, rows and clips
_FRAMES = 8  # of a clip, at most
_MIN_HEIGHT = 96  # pixels of a frame; smaller ones are enlarged by a whole number


def save_reconstruction(
    path: Path, clips: Sequence[Sequence[Tensor]], *, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write a PNG: of every clip a row of frames each of the original, the visible part, the reconstruction.

    clips: the rows of each, float (3, T, H, W), normalised with `mean` and `std`; of a long clip the even
    spread of 8 frames is shown. What is 0 after normalisation (hidden patches) is the mean colour.
    """
    from PIL import Image

    rows = []
    for number, clip in enumerate(clips):
        for row in clip:
            pixels = row.permute(1, 2, 3, 0).numpy() * np.array(std) + np.array(mean)  # (T, H, W, 3)
            bytes_ = (255 * pixels.clip(0, 1)).round().astype(np.uint8)
            bytes_ = bytes_[np.linspace(0, len(bytes_) - 1, min(_FRAMES, len(bytes_))).round().astype(int)]
            scale = -(-_MIN_HEIGHT // bytes_.shape[1])
            bytes_ = bytes_.repeat(scale, axis=1).repeat(scale, axis=2)
            framed = np.pad(bytes_, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
            rows.append(np.concatenate(list(framed), axis=1))
        if number + 1 < len(clips):
            rows.append(np.full_like(rows[-1][: 2 * _GAP], 255))
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        Image.fromarray(np.concatenate(rows)).save(file, format="PNG")
    os.replace(temporary, path)
