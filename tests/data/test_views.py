"""Test-time spatial views against PySlowFast's reference values."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden_json import load_json
from vidformers.data.views import VideoViews, gather_views, resize_frames, short_side_size, spatial_crops

CASES = load_json("slowfast_data/spatial_test.json")["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['h']}x{c['w']}-{c['short_side']}-{c['crop']}")
def test_sizes_and_three_crops_equal_the_reference(case: dict) -> None:
    size = short_side_size(case["h"], case["w"], case["short_side"])
    assert size == (case["scaled_h"], case["scaled_w"])
    crop = case["crop"]
    wanted = [[top, left, crop, crop] for top, left in case["offsets_yx_0_1_2"]]
    assert spatial_crops(*size, crop, 3).tolist() == wanted
    assert spatial_crops(*size, crop, 1).tolist() == wanted[1:2]


def test_more_crops_are_evenly_spaced_from_end_to_end() -> None:
    assert spatial_crops(100, 180, 100, 5)[:, :2].tolist() == [[0, 0], [0, 20], [0, 40], [0, 60], [0, 80]]
    assert spatial_crops(181, 100, 90, 2)[:, :2].tolist() == [[0, 5], [91, 5]]
    boxes = spatial_crops(64, 201, 64, 10)
    steps = np.diff(boxes[:, 1])
    assert boxes[0, 1] == 0
    assert boxes[-1, 1] == 137
    assert steps.min() >= steps.max() - 1


def test_a_crop_that_does_not_fit_says_what_fits() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        spatial_crops(64, 80, 65, 3)
    with pytest.raises(ValueError, match="num_crops=0"):
        spatial_crops(64, 80, 64, 0)
    with pytest.raises(ValueError, match="short side of 0"):
        short_side_size(10, 10, 0)


def make_views(height: int = 6, width: int = 9, crop: int = 4) -> VideoViews:
    frames = torch.randint(0, 256, (5, height, width, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    return VideoViews(
        frames=frames,
        view_index=torch.tensor([[0, 2, 2], [1, 3, 4]]),
        crops=torch.from_numpy(spatial_crops(height, width, crop, 3)),
        video_id="a",
        label=0,
        index=0,
    )


def test_gathered_views_are_the_crops_in_order_normalised() -> None:
    views = make_views()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    clips = gather_views(views, range(6), mean=mean, std=std, device="cpu")
    assert clips.shape == (6, 3, 3, 4, 4)
    assert clips.dtype == torch.float32
    for row in range(6):
        for t in range(3):
            for channel in range(3):
                frame = views.frames[views.view_index[row // 3, t]]
                top, left = [(1, 0), (1, 3), (1, 5)][row % 3]
                cut = frame[top : top + 4, left : left + 4, channel].double() / 255
                wanted = (cut - mean[channel]) / std[channel]
                torch.testing.assert_close(clips[row, channel, t].double(), wanted, atol=1e-6, rtol=0)
    some = gather_views(views, [4, 1], mean=mean, std=std, device="cpu")
    assert torch.equal(some, clips[[4, 1]])
    with pytest.raises(IndexError, match="view 6 of a"):
        gather_views(views, [6], mean=mean, std=std, device="cpu")


def test_number_of_views() -> None:
    assert make_views().num_views == 6


def test_float_resize_equals_the_reference_bit_for_bit() -> None:
    path = Path(__file__).parents[1] / "golden/slowfast_data/resize_bilinear.pt"
    golden = torch.load(path, weights_only=True)
    # (2, 3, 9, 13) -> (2, 9, 13, 3) and back
    frames = golden["input"].permute(0, 2, 3, 1)
    assert short_side_size(9, 13, 16) == (16, 23)
    out = resize_frames(frames, (16, 23), mode="float").permute(0, 3, 1, 2)
    assert torch.equal(out, golden["output"])


@pytest.mark.parametrize("size", [(224, 298), (32, 43), (61, 80), (60, 80)])
def test_byte_resize_is_within_one_level_of_the_exact_one(size: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (3, 60, 80, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    exact, bytes_ = resize_frames(frames, size, mode="float"), resize_frames(frames, size)
    assert exact.dtype == torch.float32
    assert bytes_.dtype == torch.uint8
    assert bytes_.shape == exact.shape == (3, *size, 3)
    assert (bytes_.float() - exact).abs().max() < 0.82  # torch's own kernel for bytes is off by up to 1.02
    for mode, wanted in (("float", exact), ("uint8", bytes_)):
        out = torch.zeros_like(torch.cat([wanted, wanted]))
        assert resize_frames(frames, size, mode=mode, out=out[1:4]) is not None
        assert torch.equal(out[1:4], wanted) and not out[0].any() and not out[4:].any()


@pytest.mark.parametrize("mode", ["uint8", "float"])
def test_resize_of_frames_that_lie_otherwise_in_memory(mode: str) -> None:
    """Crops, lines with room behind them, and frames on their side."""
    frames = torch.randint(0, 256, (3, 40, 48, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    # (T, H, W, 3) -> (T, W, H, 3)
    for view in (frames[:, 3:30, 5:41], frames[::2], frames.permute(0, 2, 1, 3), frames.flip(2)):
        assert torch.equal(
            resize_frames(view, (20, 30), mode=mode), resize_frames(view.contiguous(), (20, 30), mode=mode)
        )


def test_forked_workers_resize_after_the_main_process_has_used_opencv_with_threads() -> None:
    """Threads are not forked: who waited for them would wait for ever."""
    script = """
import os, sys
import cv2, numpy as np, torch
from vidformers.data.transforms import resize_frames
before = len(os.listdir("/proc/self/task"))
cv2.setNumThreads(4)
cv2.resize(np.zeros((3000, 3000, 3), np.uint8), (2000, 2000))
assert len(os.listdir("/proc/self/task")) > before
child = os.fork()
resize_frames(torch.zeros((1, 1080, 1920, 3), dtype=torch.uint8), (720, 1280))
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)


def test_unknown_resize_mode() -> None:
    with pytest.raises(ValueError, match="use one of uint8, float"):
        resize_frames(torch.zeros((1, 4, 4, 3), dtype=torch.uint8), (2, 2), mode="cubic")
