"""Partition of a token volume into groups that attend among themselves, and its inverse.

One rule serves window, grid and dilated attention. Padded to a multiple of group x interval, an axis of S
tokens is split as S -> (r, g, i): token r*g*i + a*i + b belongs to the group (r, b) and is its member a.
    interval 1          windows of g neighbours (Swin, Twins LSA, CrossFormer SDA, MaxViT block, MSG)
    interval S / g      one member from each of g equal parts (MaxViT grid, Shuffle Transformer, GG)
    any other interval  members at that distance (CrossFormer LDA)

Shape letters: B clips, T H W tokens along the axes, C channels, G groups of a clip, N tokens of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidformers.layers.caching import once_per_size
from vidformers.layers.sizes import Grid, triple

ONES: Grid = (1, 1, 1)
ZEROS: Grid = (0, 0, 0)
# Which padded tokens are hidden as keys. Padding in time must be, for a clip of equal frames to give what the
# image gives; padding in height and width is seen by the published Swin and Twins.
PAD_MASKS: dict[str, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "time": (True, False, False),
    "all": (True, True, True),
}


def clip_group(group: Sequence[int], size: Sequence[int]) -> Grid:
    """No group is longer than its axis."""
    return triple([min(g, n) for g, n in zip(group, size, strict=True)])


def clip_shift(shift: Sequence[int], group: Sequence[int], size: Sequence[int]) -> Grid:
    """No shift along an axis that is one group."""
    return triple([0 if n <= g else s for s, g, n in zip(shift, group, size, strict=True)])


def grid_interval(size: Sequence[int], group: Sequence[int]) -> Grid:
    """The interval that spreads a group over the whole axis."""
    return triple([-(-n // g) for n, g in zip(size, group, strict=True)])


def padded_size(size: Sequence[int], group: Sequence[int], interval: Sequence[int] = ONES) -> Grid:
    """`size` rounded up to multiples of group x interval."""
    return triple([-(-n // (g * i)) * g * i for n, g, i in zip(size, group, interval, strict=True)])


def partition(
    x: Tensor,
    group: Sequence[int],
    interval: Sequence[int] = ONES,
    shift: Sequence[int] = ZEROS,
    before: Sequence[int] = ZEROS,
) -> Tensor:
    """(B, T, H, W, C) -> (B*G, N, C), zero-padded, then rolled back by `shift`, then split.

    Groups and the tokens in them are ordered t, h, w. The padding comes at the end of each axis, `before` of
    it at the start. Undone by `unpartition` with the same arguments.
    """
    size = x.shape[1:4]
    padded = padded_size(size, group, interval)
    if padded != tuple(size):
        pad = [(low, p - n - low) for n, p, low in zip(size, padded, before, strict=True)]
        x = F.pad(x, (0, 0, *pad[2], *pad[1], *pad[0]))
    if any(shift):
        x = x.roll([-s for s in shift], dims=(1, 2, 3))
    B, _, _, _, C = x.shape
    (gt, gh, gw), (it, ih, iw) = group, interval
    rt, rh, rw = (p // (g * i) for p, g, i in zip(padded, group, interval, strict=True))
    x = x.reshape(B, rt, gt, it, rh, gh, ih, rw, gw, iw, C)
    # (B, rt, gt, it, rh, gh, ih, rw, gw, iw, C) -> (B, rt, it, rh, ih, rw, iw, gt, gh, gw, C)
    x = x.permute(0, 1, 3, 4, 6, 7, 9, 2, 5, 8, 10)
    return x.reshape(-1, gt * gh * gw, C)


@dataclass(frozen=True)
class Piece:
    """A part of an axis that is cut into windows, and which of a whole window's places they hold."""

    start: int
    stop: int
    window: int
    first: int


def shifted_pieces(padded: int, window: int, shift: int) -> list[Piece]:
    """An axis cut into windows that begin `shift` tokens late: whole ones, and a cut one at either end.

    The roll of `partition` puts the cut ones into one window, where `group_mask` keeps them apart. 12 tokens
    in windows of 4, shifted by 1: [0], [1..4], [5..8], [9..11]; the first has place 3 of a window, the last
    has the places 0 to 2.
    """
    if not shift:
        return [Piece(0, padded, window, 0)]
    end = padded - window + shift
    return [
        Piece(0, shift, shift, window - shift),
        Piece(shift, end, window, 0),
        Piece(end, padded, window - shift, 0),
    ]


def unpartition(
    groups: Tensor,
    size: Sequence[int],
    group: Sequence[int],
    interval: Sequence[int] = ONES,
    shift: Sequence[int] = ZEROS,
    before: Sequence[int] = ZEROS,
) -> Tensor:
    """(B*G, N, C) -> (B, T, H, W, C) of the given size (T, H, W): the inverse of `partition`."""
    padded = padded_size(size, group, interval)
    (gt, gh, gw), (it, ih, iw) = group, interval
    rt, rh, rw = (p // (g * i) for p, g, i in zip(padded, group, interval, strict=True))
    x = groups.reshape(-1, rt, it, rh, ih, rw, iw, gt, gh, gw, groups.shape[-1])
    # (B, rt, it, rh, ih, rw, iw, gt, gh, gw, C) -> (B, rt, gt, it, rh, gh, ih, rw, gw, iw, C)
    x = x.permute(0, 1, 7, 2, 3, 8, 4, 5, 9, 6, 10).reshape(-1, *padded, groups.shape[-1])
    if any(shift):
        x = x.roll(tuple(shift), dims=(1, 2, 3))
    (t, h, w), (T, H, W) = before, size
    return x[:, t : t + T, h : h + H, w : w + W]


def has_hidden_padding(
    size: Sequence[int], group: Sequence[int], interval: Sequence[int] = ONES, *, pad_mask: str
) -> bool:
    """Whether padding to whole groups adds tokens that `pad_mask`, a key of PAD_MASKS, hides."""
    padded = padded_size(size, group, interval)
    return any(p != n and hides for n, p, hides in zip(size, padded, PAD_MASKS[pad_mask], strict=True))


@once_per_size
def group_mask(
    size: Sequence[int],
    group: Sequence[int],
    interval: Sequence[int] = ONES,
    shift: Sequence[int] = ZEROS,
    before: Sequence[int] = ZEROS,
    *,
    pad_mask: str = "all",
    device: torch.device | None = None,
) -> Tensor | None:
    """Which keys a query may see: bool (G, N, N), or (G, 1, N) if all queries see the same; None: all keys.

    Hidden are padded tokens (along the axes that `pad_mask` names, a key of PAD_MASKS) and, with a shift,
    tokens that are neighbours only because the roll brought the two ends of an axis together.
    """
    padded = padded_size(size, group, interval)
    hides_padding = has_hidden_padding(size, group, interval, pad_mask=pad_mask)
    if not hides_padding and not any(shift):
        return None
    real = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
    region = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    for axis, (n, p, g, s, low, hides) in enumerate(
        zip(size, padded, group, shift, before, PAD_MASKS[pad_mask], strict=True)
    ):
        position = torch.arange(p, device=device)
        view = [-1 if other == axis else 1 for other in range(3)]
        if hides:
            is_real = (position >= low) & (position < low + n)
            real = real & is_real.roll(-s).view(view)
        if s:
            # As published, the part that the roll leaves alone counts apart from the windows before it too:
            # no window holds both. Regions: [0, p - g), [p - g, p - s), [p - s, p).
            part = (position >= p - g).long() + (position >= p - s).long()
            region = region + (3**axis * part).view(view)
    (T, H, W) = padded
    sees = None
    if hides_padding:
        sees = partition(real.expand(T, H, W)[None, ..., None], group, interval).transpose(1, 2)  # (G, 1, N)
    if any(shift):
        regions = partition(region.expand(T, H, W)[None, ..., None], group, interval)  # (G, N, 1)
        same = regions == regions.transpose(1, 2)
        sees = same if sees is None else same & sees
    return sees


@once_per_size
def frames_in_groups(
    size: Sequence[int],
    group: Sequence[int],
    interval: Sequence[int] = ONES,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Number of frames that are no padding in each group: long (G,), at least 1.

    The log of it, added to the logit of a key that stands for all frames (a class token, a messenger), keeps
    that key's share of the attention whatever the number of frames.
    """
    T, H, W = padded_size(size, group, interval)
    real = (torch.arange(T, device=device) < size[0]).long()
    groups = partition(real.view(1, T, 1, 1, 1).expand(1, T, H, W, 1), group, interval)  # (G, N, 1)
    return (groups.sum(dim=(1, 2)) // (group[1] * group[2])).clamp(min=1)
