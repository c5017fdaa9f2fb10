"""Partition and its inverse, over odd sizes, groups, intervals, shifts and paddings."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidformers.layers.partition import (
    PAD_MASKS,
    clip_group,
    clip_shift,
    frames_in_groups,
    grid_interval,
    group_mask,
    padded_size,
    partition,
    unpartition,
)

axis = st.tuples(
    st.integers(1, 7),  # size
    st.integers(1, 4),  # group
    st.integers(1, 3),  # interval
    st.integers(0, 3),  # shift, below the group
    st.integers(0, 11),  # padding before, below all of it
)
layouts = st.lists(axis, min_size=3, max_size=3)
quick = settings(max_examples=60, deadline=None)


def columns(layout: list[tuple[int, ...]], shifted: bool) -> tuple[tuple[int, ...], ...]:
    """size, group, interval, shift, before: shifts only with windows, as in every model."""
    size, group, interval, shift, before = zip(*layout, strict=True)
    if shifted:
        interval = (1, 1, 1)
    padded = padded_size(size, group, interval)
    shift = tuple(s % g if shifted else 0 for s, g in zip(shift, group, strict=True))
    before = tuple(b % (p - n + 1) for b, p, n in zip(before, padded, size, strict=True))
    return size, group, interval, shift, before


@quick
@given(layouts, st.booleans())
def test_unpartition_is_the_inverse(layout: list[tuple[int, ...]], shifted: bool) -> None:
    size, group, interval, shift, before = columns(layout, shifted)
    x = torch.randn(2, *size, 3)
    groups = partition(x, group, interval, shift, before)
    assert groups.shape[1:] == (group[0] * group[1] * group[2], 3)
    torch.testing.assert_close(unpartition(groups, size, group, interval, shift, before), x, rtol=0, atol=0)


@quick
@given(layouts, st.booleans())
def test_every_token_is_in_exactly_one_group(layout: list[tuple[int, ...]], shifted: bool) -> None:
    size, group, interval, shift, before = columns(layout, shifted)
    number = torch.arange(1, 2 * size[0] * size[1] * size[2] + 1)
    groups = partition(number.view(2, *size, 1), group, interval, shift, before)
    assert sorted(groups[groups > 0].tolist()) == number.tolist()
    # and the clips stay apart: the first half of the rows is the first clip's
    first, second = groups.chunk(2)
    assert first.max() < second[second > 0].min()


@quick
@given(layouts)
def test_members_are_interval_apart(layout: list[tuple[int, ...]]) -> None:
    """By the definition: token r*g*i + a*i + b is member a of group (r, b)."""
    size, group, interval, _, _ = columns(layout, False)
    padded = padded_size(size, group, interval)
    for dim in range(3):
        view = [1, *(-1 if other == dim else 1 for other in range(3)), 1]
        position = torch.arange(padded[dim]).view(view).expand(1, *padded, 1)
        members = partition(position, group, interval).view(-1, *group)
        members = members.movedim(dim + 1, -1).flatten(0, 2)
        g, i = group[dim], interval[dim]
        for row in members.tolist():
            first = row[0]
            assert first % (g * i) < i
            assert row == [first + a * i for a in range(g)]


@quick
@given(layouts, st.booleans(), st.sampled_from(sorted(PAD_MASKS)))
def test_mask_by_its_definition(layout: list[tuple[int, ...]], shifted: bool, pad_mask: str) -> None:
    size, group, interval, shift, before = columns(layout, shifted)
    padded = padded_size(size, group, interval)
    mask = group_mask(size, group, interval, shift, before, pad_mask=pad_mask)
    num_tokens = group[0] * group[1] * group[2]
    hides = [h and p > n for h, p, n in zip(PAD_MASKS[pad_mask], padded, size, strict=True)]
    if mask is None:
        assert not any(hides)
        assert not any(shift)
        return
    rows = num_tokens if any(shift) else 1
    seen = mask.expand(-1, num_tokens, -1) if rows == 1 else mask
    # Coordinates of every token of the padded volume, in its group: (G, N, 3).
    grid = torch.stack(torch.meshgrid(*(torch.arange(p) for p in padded), indexing="ij"), dim=-1)[None]
    place = partition(grid, group, interval, shift)
    assert seen.shape == (*place.shape[:2], num_tokens)
    expected = torch.ones_like(seen)
    for dim in range(3):
        at = place[..., dim]
        if hides[dim]:
            real = (at >= before[dim]) & (at < before[dim] + size[dim])
            expected &= real[:, None, :]
        if shift[dim]:
            # Rolled-over tokens are those that come before `shift`; they and the others do not meet.
            rolled = at < shift[dim]
            expected &= rolled[:, :, None] == rolled[:, None, :]
    assert torch.equal(seen, expected)


@quick
@given(layouts)
def test_frames_in_groups(layout: list[tuple[int, ...]]) -> None:
    size, group, interval, _, _ = columns(layout, False)
    padded = padded_size(size, group, interval)
    frame = torch.arange(1, padded[0] + 1).view(1, -1, 1, 1, 1).expand(1, *padded, 1)
    frames = partition(frame, group, interval)[..., 0]
    expected = [max(len({t for t in row if t <= size[0]}), 1) for row in frames.tolist()]
    assert frames_in_groups(size, group, interval).tolist() == expected


def test_clipping() -> None:
    assert clip_group((8, 7, 7), (4, 7, 9)) == (4, 7, 7)
    assert clip_shift((4, 3, 3), (8, 7, 7), (4, 7, 9)) == (0, 0, 3)
    assert grid_interval((5, 14, 15), (4, 7, 7)) == (2, 2, 3)
    assert group_mask((4, 7, 7), (2, 7, 7)) is None
    assert group_mask((4, 5, 7), (2, 7, 7), pad_mask="time") is None
