"""Image weights to video models, so that a clip of equal frames gets what the image model gives the frame.

`inflate` handles every layer whose type tells the rule; a family adds what only it knows (its position
embeddings, temporal layers that start at zero) with the functions here.

    mean            a convolution whose padding keeps equal frames equal: the image kernel / taps in each tap
    centre          one that pads zeros in time: the image kernel in the tap on the frame itself, 0 elsewhere
                    (a mean would fade at the clip's ends)
    repeat_table    relative position tables: the same number for each temporal offset
    dpb_column      dynamic position bias, a Linear of (dh, dw) -> of (dt, dh, dw): a column of 0 first
    tile_position   joint position embeddings: the image's for each frame
    zero            what only the video model has
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidformers.checkpoints.family import Adapted
from vidformers.layers.conv import Conv3d
from vidformers.layers.position_bias import TableBias, table_size


def inflate(state: dict[str, Tensor], model: nn.Module) -> Adapted:
    """Fits convolutions, position tables and dynamic position biases of `state`, in the model's names.

    Image kernels may be 4-D or 5-D. Whatever it does not know, or cannot fit, stays as it is for the caller.
    """
    adapted = Adapted(dict(state))
    of_video = any(tensor.ndim == 5 and tensor.shape[2] > 1 for tensor in state.values())
    for prefix, module in model.named_modules():
        name = f"{prefix}.{'table' if isinstance(module, TableBias) else 'weight'}"
        tensor = adapted.state.get(name)
        if tensor is None:
            continue
        if isinstance(module, nn.Conv3d):
            _inflate_convolution(adapted, name, tensor, module)
        elif isinstance(module, TableBias):
            _fit_table(adapted, name, tensor, module, of_video)
        elif isinstance(module, nn.Linear) and module.in_features == 3 and tensor.shape[1:] == (2,):
            adapted.state[name] = dpb_column(tensor)
            adapted.inflated.append(name)
    return adapted


def inflate_kernel(kernel: Tensor, num_taps: int, padding: int, time_padding: str = "zero") -> Tensor:
    """(O, I, [1,] kh, kw) -> (O, I, num_taps, kh, kw), for a convolution with that padding on each side."""
    if kernel.ndim == 4:
        kernel = kernel.unsqueeze(2)
    if padding == 0 or time_padding == "replicate":
        return kernel.repeat(1, 1, num_taps, 1, 1) / num_taps
    inflated = kernel.new_zeros(*kernel.shape[:2], num_taps, *kernel.shape[3:])
    # The first output then reads frame 0, the second one frame `stride`, ...
    inflated[:, :, padding] = kernel[:, :, 0]
    return inflated


def repeat_table(table: Tensor, temporal_offsets: int) -> Tensor:
    """(spatial offsets, heads) -> (temporal_offsets * spatial offsets, heads)."""
    return table.repeat(temporal_offsets, 1)


def resize_table(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Table of the offsets (t, h, w) = `old`, flat, to `new`: bicubic in space, then linear in time."""
    volume = table.float().T.reshape(-1, *old)  # (t*h*w, heads) -> (heads, t, h, w)
    if tuple(old[1:]) != tuple(new[1:]):
        volume = F.interpolate(volume, size=tuple(new[1:]), mode="bicubic", align_corners=False)
    if old[0] != new[0]:
        flat = volume.flatten(2).transpose(1, 2)  # (heads, h*w, t)
        volume = F.interpolate(flat, size=new[0], mode="linear", align_corners=False).transpose(1, 2)
    return volume.reshape(table.shape[1], -1).T.to(table.dtype)


def dpb_column(weight: Tensor) -> Tensor:
    """(d, 2) -> (d, 3): the new first column is that of the temporal offset."""
    return F.pad(weight, (1, 0))


def tile_position(embedding: Tensor, num_frames: int, *, num_prefix: int = 0) -> Tensor:
    """(1, P+N, C) -> (1, P+num_frames*N, C), T-major, the P prefix tokens' entries once in front."""
    prefix, patches = embedding[:, :num_prefix], embedding[:, num_prefix:]
    return torch.cat([prefix, patches.repeat(1, num_frames, 1)], dim=1)


def zero(adapted: Adapted, model: nn.Module, name: str) -> None:
    """Adds zeros for a parameter that only the video model has, unless the weights hold it."""
    if name not in adapted.state:
        adapted.state[name] = torch.zeros(model.get_parameter(name).shape)
        adapted.inflated.append(name)


def _inflate_convolution(adapted: Adapted, name: str, kernel: Tensor, conv: nn.Conv3d) -> None:
    wanted = conv.weight.shape
    is_image_kernel = kernel.ndim == 4 or (kernel.ndim == 5 and kernel.shape[2] == 1)
    if not is_image_kernel or kernel.shape[:2] != wanted[:2] or kernel.shape[-2:] != wanted[-2:]:
        return
    time_padding = conv.time_padding if isinstance(conv, Conv3d) else "zero"
    adapted.state[name] = inflate_kernel(kernel, wanted[2], int(conv.padding[0]), time_padding)
    if wanted[2] > 1:
        adapted.inflated.append(name)


def _fit_table(adapted: Adapted, name: str, table: Tensor, bias: TableBias, of_video: bool) -> None:
    rows, heads = bias.table.shape
    if table.ndim != 2 or table.shape[1] != heads or table.shape[0] == rows:
        return
    t, h, w = table_size(bias.window)
    side = math.isqrt(table.shape[0])
    if table.shape[0] == h * w:
        adapted.state[name] = repeat_table(table, t)
    elif side * side == table.shape[0] and side % 2 and not of_video:  # windows of 5 x 7 x 7 have 39 x 39
        adapted.state[name] = repeat_table(resize_table(table, (1, side, side), (1, h, w)), t)
        adapted.resized.append(name)
    elif table.shape[0] % (h * w) == 0:
        adapted.state[name] = resize_table(table, (table.shape[0] // (h * w), h, w), (t, h, w))
        adapted.resized.append(name)
        return
    else:
        return
    if t > 1:
        adapted.inflated.append(name)
