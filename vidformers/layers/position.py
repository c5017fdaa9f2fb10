"""Absolute position embeddings on a token grid: resizing, and the fixed sine-cosine table."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_joint(embedding: Tensor, old_grid: Sequence[int], new_grid: Sequence[int]) -> Tensor:
    """(1, T*H*W, C) -> (1, T'*H'*W', C), trilinear, align_corners False, as PySlowFast does in the model."""
    if tuple(old_grid) == tuple(new_grid):
        return embedding
    volume = embedding.transpose(1, 2).unflatten(2, tuple(old_grid))  # (1, C, T, H, W)
    return F.interpolate(volume, size=tuple(new_grid), mode="trilinear").flatten(2).transpose(1, 2)


def resize_spatial(
    embedding: Tensor, old_size: Sequence[int], new_size: Sequence[int], *, antialias: bool = False
) -> Tensor:
    """(1, H*W, C) -> (1, H'*W', C), bicubic, align_corners False, as PySlowFast repairs checkpoints.

    With `antialias` as timm resizes ViT's: smoothed where it shrinks, and with another bicubic kernel anyway.
    """
    if tuple(old_size) == tuple(new_size):
        return embedding
    plane = embedding.transpose(1, 2).unflatten(2, tuple(old_size))  # (1, C, H, W)
    resized = F.interpolate(plane, size=tuple(new_size), mode="bicubic", antialias=antialias)
    return resized.flatten(2).transpose(1, 2)


def resize_temporal(embedding: Tensor, new_size: int) -> Tensor:
    """(1, T, C) -> (1, T', C), linear, align_corners False, as PySlowFast repairs checkpoints."""
    if embedding.shape[1] == new_size:
        return embedding
    return F.interpolate(embedding.transpose(1, 2), size=new_size, mode="linear").transpose(1, 2)


def sincos_1d(dim: int, positions: Tensor) -> Tensor:
    """(n,) -> (n, dim): sines, then cosines, of wavelengths growing geometrically to 10000 * 2 pi."""
    omega = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64, device=positions.device) / (dim / 2))
    angles = positions.double()[:, None] * omega[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_3d(dim: int, grid: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Fixed embedding of a token grid: (T*H*W, dim) float64, dim divisible by 16.

    A quarter of the channels is for t, the rest for w and h; [t | w | h], each [sin | cos], as in MAE.
    """
    T, H, W = grid
    t, h, w = torch.meshgrid(*(torch.arange(n, device=device) for n in (T, H, W)), indexing="ij")
    spatial = dim * 3 // 8
    parts = [(dim // 4, t), (spatial, w), (spatial, h)]
    return torch.cat([sincos_1d(width, positions.flatten()) for width, positions in parts], dim=1)


def sinusoid(dim: int, num_positions: int, device: torch.device | None = None) -> Tensor:
    """(num_positions, dim) float64, dim even: sines and cosines in turn (Vaswani et al. 2017, section 3.5).

    VideoMAE's embedding: positions are those of the flattened tokens, so that time is their slowest part.
    """
    table = sincos_1d(dim, torch.arange(num_positions, device=device))
    # [sin | cos] -> sin, cos, sin, cos, ...
    return table.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
