"""Histograms of gradients: against loops over pixels, and pictures of them."""

import math

import pytest
import torch

from vidformers.layers.hog import draw_hog, hog, hog_patches, hog_values


def by_hand(image: list[list[float]], top: int, left: int) -> list[float]:
    """The histogram of one cell of a grey image, pixel by pixel."""
    size, votes = len(image), [0.0] * 9

    def pixel(y: int, x: int) -> float:
        y, x = (-p if p < 0 else 2 * size - 2 - p if p >= size else p for p in (y, x))  # mirrored
        return image[y][x]

    for y in range(top, top + 8):
        for x in range(left, left + 8):
            weights = {-1: 1, 0: 2, 1: 1}
            dx = sum(w * (pixel(y + i, x - 1) - pixel(y + i, x + 1)) for i, w in weights.items())
            dy = sum(w * (pixel(y - 1, x + i) - pixel(y + 1, x + i)) for i, w in weights.items())
            votes[math.floor(math.atan2(dx, dy) / math.pi * 9) % 9] += math.hypot(dx, dy)
    length = math.sqrt(sum(vote**2 for vote in votes))
    return [vote / length for vote in votes]


def test_a_cell_holds_the_strength_of_its_gradients_by_direction():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    cells = hog(images)
    assert cells.shape == (2, 3, 9, 2, 2)
    for image, channel, row, column in ((0, 0, 0, 0), (1, 2, 1, 0), (0, 1, 1, 1)):
        expected = by_hand(images[image, channel].tolist(), 8 * row, 8 * column)
        torch.testing.assert_close(
            cells[image, channel, :, row, column], torch.tensor(expected), atol=1e-5, rtol=1e-4
        )


def test_brightness_and_contrast_do_not_count_and_a_blank_cell_is_zero():
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hog(3 * images + 5), hog(images), atol=1e-4, rtol=1e-3)
    assert not hog(torch.ones(1, 3, 16, 16)).any()


def test_a_patch_is_described_by_the_cells_of_its_first_frame():
    clip = torch.rand(2, 3, 4, 32, 48, generator=torch.Generator().manual_seed(0))
    patches = hog_patches(clip, (2, 16, 16))
    assert patches.shape == (2, 2 * 2 * 3, hog_values((2, 16, 16), 3)) == (2, 12, 108)
    cells = hog(clip[1, :, 2].unsqueeze(0))[0]  # of the second patch in time
    number = 1 * 6 + 1 * 3 + 2  # (1, 1, 2) of (2, 2, 3)
    torch.testing.assert_close(patches[1, number], cells[:, :, 2:4, 4:6].flatten())
    with pytest.raises(ValueError, match=r"\(2, 12, 16\) pixels; wanted a multiple of the 8 x 8 cells"):
        hog_values((2, 12, 16), 3)


@pytest.mark.parametrize(("axis", "other"), [(3, 4), (4, 3)])
def test_the_picture_of_an_edge_is_a_line_along_it(axis, other):
    clip = torch.zeros(1, 3, 2, 16, 16)
    clip.narrow(axis, 4, 12).fill_(1.0)  # an edge in the first cells, across `axis`
    picture = draw_hog(hog_patches(clip, (2, 16, 16)), (2, 16, 16), (1, 1, 1), 3)
    assert picture.shape == (1, 3, 1, 16, 16) and picture.min() >= 0 and picture.max() <= 1
    cell = picture[0, 0, 0, :8, :8]
    along = cell.sum(dim=1) if axis == 3 else cell.sum(dim=0)  # summed along the edge
    assert along.argmax() in (3, 4) and along.max() > 2 * along[0]
    assert not picture[0, 0, 0, 8:, 8:].any()
