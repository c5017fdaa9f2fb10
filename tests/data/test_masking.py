"""What masked pre-training hides: how much, where, and always the same for the same generator."""

import numpy as np
import pytest
import torch

from vidformers.data.masking import draw_masks, num_masked

GRID = (8, 14, 14)


@pytest.mark.parametrize(("masking", "hidden"), [("tube", 176 * 8), ("random", 1411), ("cube", 1411)])
def test_every_clip_hides_exactly_as_many_and_others(masking, hidden):
    masks = draw_masks(masking, 0.9, GRID, 5, np.random.default_rng(0))
    assert masks.shape == (5, 8 * 196) and masks.dtype == torch.bool
    assert num_masked(masking, 0.9, GRID) == hidden
    assert masks.sum(dim=1).tolist() == [hidden] * 5
    assert len({tuple(mask.tolist()) for mask in masks}) == 5


def test_a_tube_hides_the_same_places_in_all_frames_and_random_masks_do_not():
    tubes = draw_masks("tube", 0.9, GRID, 3, np.random.default_rng(0)).unflatten(1, GRID)
    assert (tubes == tubes[:, :1]).all()
    assert tubes[:, 0].sum(dim=(1, 2)).tolist() == [176] * 3
    scattered = draw_masks("random", 0.9, GRID, 3, np.random.default_rng(0)).unflatten(1, GRID)
    assert not (scattered == scattered[:, :1]).all()


def test_cubes_hide_neighbours_in_space_and_in_time():
    masks = draw_masks("cube", 0.4, GRID, 40, np.random.default_rng(0)).unflatten(1, GRID).float()
    for axis in (1, 2, 3):  # of scattered ones 40 % have a hidden neighbour
        size = masks.shape[axis] - 1
        both = masks.narrow(axis, 0, size) * masks.narrow(axis, 1, size)
        assert both.sum() > 0.7 * masks.narrow(axis, 0, size).sum()
    frames = masks.mean(dim=(2, 3))  # and they are no tubes
    assert frames.min() < 0.05 and frames.max() > 0.9


@pytest.mark.parametrize("masking", ["tube", "random", "cube"])
def test_a_unit_is_hidden_whole(masking):
    masks = draw_masks(masking, 0.5, GRID, 3, np.random.default_rng(0), unit=(2, 7, 7)).unflatten(1, GRID)
    units = masks.unflatten(3, (-1, 7)).unflatten(2, (-1, 7)).unflatten(1, (-1, 2)).float()
    shares = units.mean(dim=(2, 4, 6))
    assert shares.shape == (3, 4, 2, 2) and set(shares.unique().tolist()) == {0.0, 1.0}
    assert shares.sum(dim=(1, 2, 3)).tolist() == [8.0] * 3
    assert num_masked(masking, 0.5, GRID, (2, 7, 7)) == 8 * 2 * 7 * 7
    with pytest.raises(
        ValueError, match=r"units of \(3, 7, 7\) tokens, which do not fill .*; try \(1, 7, 7\)"
    ):
        draw_masks(masking, 0.5, GRID, 3, np.random.default_rng(0), unit=(3, 7, 7))


@pytest.mark.parametrize("masking", ["tube", "random"])
def test_every_token_is_hidden_equally_often(masking):
    masks = draw_masks(masking, 0.75, (2, 4, 4), 4000, np.random.default_rng(1)).float()
    assert (masks.mean(dim=0) - 0.75).abs().max() < 0.04


def test_masks_depend_on_the_generator_alone():
    torch.manual_seed(3)
    first = draw_masks("tube", 0.75, GRID, 2, np.random.default_rng((0, 1, 2)))
    assert torch.equal(first, draw_masks("tube", 0.75, GRID, 2, np.random.default_rng((0, 1, 2))))
    assert not torch.equal(first, draw_masks("tube", 0.75, GRID, 2, np.random.default_rng((0, 1, 3))))


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_a_ratio_that_hides_nothing_or_all_says_what_would_work(ratio):
    with pytest.raises(ValueError, match="some hidden and some not"):
        num_masked("tube", ratio, (4, 2, 2))
