"""What every family does with its input before the first layer."""

import torch
from torch import Tensor


def as_clip(clip: Tensor, in_channels: int) -> Tensor:
    """A clip (B, C, T, H, W) as it is, images (B, C, H, W) as clips of one frame; else a ValueError."""
    if clip.ndim == 4:
        clip = clip.unsqueeze(2)  # (B, C, H, W) -> (B, C, 1, H, W)
    if clip.ndim != 5 or clip.shape[1] != in_channels:
        raise ValueError(
            f"expected a clip (B, {in_channels}, T, H, W) or images (B, {in_channels}, H, W), "
            f"got shape {tuple(clip.shape)}"
        )
    if min(clip.shape[2:]) < 1:
        raise ValueError(
            f"the clip (B, C, T, H, W) has no frames or no pixels: its shape is {tuple(clip.shape)}"
        )
    if not clip.is_floating_point():
        raise ValueError(f"expected a normalised float clip, got {clip.dtype}; scale and normalise it first")
    if torch.compiler.is_dynamo_compiling():
        # Makes T, H and W constants of the graph, as a range needs numbers; another size gets a graph of its
        # own. With unknown ones torch.compile takes minutes over the arithmetic of windows. B stays unknown.
        for size in clip.shape[2:]:
            range(size)
    return clip
