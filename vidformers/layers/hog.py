"""Histograms of oriented gradients (Dalal and Triggs 2005), the targets of MaskFeat (Wei et al., 2112.09133).

Shape letters: B clips or images, C colours, T' H' W' patches of a clip, N of them all, M of them hidden.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vidformers.layers.sizes import Grid

BINS, CELL = 9, 8  # directions (of half a turn), and pixels of a cell's side


def hog(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 9, H/8, W/8): in each cell the gradient's strength by direction, of length 1.

    As in PySlowFast: Sobel filters, a vote for one bin each, no normalisation over neighbouring cells.
    """
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=images.device)
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect").flatten(0, 1).unsqueeze(1)
    dx, dy = F.conv2d(padded, torch.stack([sobel, sobel.T]).unsqueeze(1)).unsqueeze(2).unbind(1)
    direction = (torch.atan2(dx, dy) / math.pi * BINS).floor().long() % BINS
    votes = dx.new_zeros(len(dx), BINS, *dx.shape[2:]).scatter_(1, direction, torch.hypot(dx, dy))
    cells = F.avg_pool2d(votes, CELL, divisor_override=1)
    return F.normalize(cells, dim=1).unflatten(0, images.shape[:2])


def hog_values(patch: Grid, channels: int) -> int:
    """Numbers that describe a patch of (t, h, w) pixels; ValueError if cells do not fill it."""
    if patch[1] % CELL or patch[2] % CELL:
        raise ValueError(
            f"got patches of {patch} pixels; wanted a multiple of the {CELL} x {CELL} cells of a histogram "
            "of gradients; try the target 'pixels'"
        )
    return channels * BINS * (patch[1] // CELL) * (patch[2] // CELL)


@torch.no_grad()
def hog_patches(clip: Tensor, patch: Grid) -> Tensor:
    """Clip (B, C, T, H, W) -> of each patch's first frame the histograms (B, N, C*9*cells), T-major."""
    first = clip[:, :, :: patch[0]].transpose(1, 2)  # (B, T', C, H, W)
    cells = hog(first.flatten(0, 1)).unflatten(0, first.shape[:2])
    # (B, T', C, 9, H'*a, W'*b) -> (B, T', C, 9, H', a, W', b) -> (B, T', H', W', C, 9, a, b)
    cells = cells.unflatten(5, (-1, patch[2] // CELL)).unflatten(4, (-1, patch[1] // CELL))
    return cells.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4).flatten(1, 3)


def draw_hog(histograms: Tensor, patch: Grid, grid: Grid, channels: int) -> Tensor:
    """Histograms of all patches (B, N, C*9*cells) -> a picture of them (B, 3, T', H, W), from 0 to 1.

    Each cell holds, for every direction, a line along the edge that would cause it, as bright as it is
    strong; the mean over the colours.
    """
    cells = histograms.unflatten(2, (channels, BINS, patch[1] // CELL, patch[2] // CELL)).unflatten(1, grid)
    angle = (torch.arange(BINS, device=cells.device) + 0.5) * math.pi / BINS
    offset = torch.arange(CELL, device=cells.device) - (CELL - 1) / 2
    # A pixel's distance from the line through the middle whose normal is the gradient (sin, cos).
    distance = angle.sin()[:, None, None] * offset + angle.cos()[:, None, None] * offset[:, None]
    lines = (1 - distance.abs()).clamp(min=0)
    picture = torch.einsum("bthwcnij,nyx->bthiywjx", cells.clamp(min=0) / channels, lines)
    frames = picture.flatten(5, 7).flatten(2, 4).clamp(max=1)  # (B, T', H, W)
    return frames.unsqueeze(1).expand(-1, 3, -1, -1, -1)
