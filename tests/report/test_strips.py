"""Strips of frames: which frame stands where, each stored once."""

import re

import numpy as np
import pytest

from vidformers.report.strips import render_strips, source_positions

CLEAN = np.random.default_rng(0).integers(0, 255, (6, 10, 16, 3), dtype=np.uint8)


def test_positions_are_found_by_the_pixels() -> None:
    order = [3, 0, 5, 5, 1, 2]
    clips = {"clean": CLEAN, "shuffle": CLEAN[order], "hflip": CLEAN[:, :, ::-1]}
    assert source_positions(clips) == {"clean": [0, 1, 2, 3, 4, 5], "shuffle": order, "hflip": [None] * 6}


def test_a_still_scene_is_not_out_of_order() -> None:
    still = np.repeat(CLEAN[:1], 4, axis=0)
    assert source_positions({"clean": still, "reverse": still[::-1]})["reverse"] == [0, 1, 2, 3]


def test_each_different_frame_is_stored_once() -> None:
    html = render_strips({"clean": CLEAN, "reverse": CLEAN[::-1], "freeze[last]": CLEAN[[5] * 6]})
    assert html.count("url(data:image/jpeg;base64,") == 6
    labels = re.findall(r'aria-label="frame (\d)"', html)
    assert labels == list("012345" + "543210" + "555555")


def test_hostile_name() -> None:
    assert "<img" not in render_strips({"<img src=x>": CLEAN})


@pytest.mark.parametrize("bad", [CLEAN.astype(np.float32), CLEAN[0], CLEAN[..., :1]])
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted uint8"):
        render_strips({"clean": bad})
