"""Training crops, flips and normalisation."""

import numpy as np
import pytest
import torch

from vidformers.data.augment import RandAugment
from vidformers.data.transforms import (
    TrainTransform,
    boxes_between,
    normalize_clips,
    random_crop_box,
    random_resized_crop_box,
    resize_frames,
)


def numbered_frames(num_frames: int = 4, height: int = 48, width: int = 64) -> torch.Tensor:
    """uint8 (T, H, W, 3) whose channels hold the row, the column and the frame number."""
    frames = torch.zeros((num_frames, height, width, 3), dtype=torch.uint8)
    frames[..., 0] = torch.arange(height).view(1, -1, 1)
    frames[..., 1] = torch.arange(width).view(1, 1, -1)
    frames[..., 2] = torch.arange(num_frames).view(-1, 1, 1)
    return frames


def test_random_resized_crop_boxes_are_inside_with_area_and_aspect_in_range() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array(
        [
            random_resized_crop_box(
                240, 320, area_range=(0.08, 1.0), aspect_range=(0.75, 1.3333), generator=rng
            )
            for _ in range(1000)
        ]
    )
    top, left, height, width = boxes.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height <= 240).all()
    assert (left + width <= 320).all()
    area, aspect = height * width / (240 * 320), width / height
    assert 0.075 < area.min() < 0.1
    assert area.max() > 0.9
    assert 0.73 < aspect.min() < 0.8
    assert 1.27 < aspect.max() < 1.36
    assert (top + height == 240).any()  # the last offset is drawn too
    # Log-uniform: as often narrower as wider than 1.
    small = aspect[area < 0.5]
    assert abs((small < 1).mean() - 0.5) < 0.09


def test_random_resized_crop_falls_back_to_the_largest_centred_box() -> None:
    wide = random_resized_crop_box(
        10, 1000, area_range=(0.9, 1.0), aspect_range=(0.75, 1.25), generator=np.random.default_rng(0)
    )
    assert wide == (0, 494, 10, 12)
    tall = random_resized_crop_box(
        1000, 10, area_range=(0.9, 1.0), aspect_range=(0.8, 1.25), generator=np.random.default_rng(0)
    )
    assert tall == (494, 0, 12, 10)
    line = random_resized_crop_box(
        10, 100, area_range=(1.0, 1.0), aspect_range=(500.0, 500.0), generator=np.random.default_rng(0)
    )
    assert line == (4, 0, 1, 100)


def test_random_crop_reaches_every_offset() -> None:
    rng = np.random.default_rng(0)
    boxes = {random_crop_box(10, 12, 9, generator=rng) for _ in range(200)}
    assert boxes == {(top, left, 9, 9) for top in (0, 1) for left in (0, 1, 2, 3)}


def test_short_side_jitter_then_one_box_for_the_whole_clip() -> None:
    transform = TrainTransform(crop_size=48, jitter_scales=(48, 48), flip=False)
    clip, boxes, _ = transform(numbered_frames(), np.random.default_rng(0))
    assert clip.shape == (3, 4, 48, 48)
    assert clip.dtype == torch.uint8
    left = int(clip[1, 0, 0, 0])
    assert torch.equal(clip[1], (left + torch.arange(48)).to(torch.uint8).expand(4, 48, 48))
    assert torch.equal(clip[2, :, 0, 0], torch.arange(4, dtype=torch.uint8))
    assert not boxes.any()

    sizes = set()
    for seed in range(40):
        scaled, _, _ = TrainTransform(crop_size=40, jitter_scales=(40, 60), flip=False)(
            numbered_frames(), np.random.default_rng(seed)
        )
        assert scaled.shape == (3, 4, 40, 40)
        sizes.add(int(scaled[1, 0, 0, -1]) - int(scaled[1, 0, 0, 0]))
    assert 31 <= min(sizes) < 34  # 40 columns of a clip enlarged 60 / 48 times
    assert 45 < max(sizes) <= 47  # and reduced 40 / 48 times


def test_random_resized_crop_equals_cutting_and_resizing() -> None:
    transform = TrainTransform(crop_size=24, area_range=(0.2, 1.0), aspect_range=(0.75, 1.33), flip=False)
    frames = numbered_frames()
    clip, _, _ = transform(frames, np.random.default_rng(3))
    top, left, height, width = random_resized_crop_box(
        48, 64, area_range=(0.2, 1.0), aspect_range=(0.75, 1.33), generator=np.random.default_rng(3)
    )
    wanted = resize_frames(frames[:, top : top + height, left : left + width], (24, 24))
    assert torch.equal(clip, wanted.permute(3, 0, 1, 2))


def test_inverse_uniform_scales_favour_small_sizes() -> None:
    def mean_short_side(inverse: bool) -> float:
        transform = TrainTransform(crop_size=40, jitter_scales=(40, 160), inverse_uniform=inverse)
        rng = np.random.default_rng(0)
        sides = [transform._short_side(rng) for _ in range(2000)]
        assert 40 <= min(sides) < 42 and 150 < max(sides) <= 160
        return float(np.mean(sides))

    assert mean_short_side(False) == pytest.approx(100, abs=3)
    # The mean of x where 1 / x is uniform between 1/160 and 1/40: log(4) / (1/40 - 1/160).
    assert mean_short_side(True) == pytest.approx(73.9, abs=2)


def test_moving_boxes_go_straight_from_the_first_to_the_last() -> None:
    assert boxes_between((0, 10, 20, 30), (9, 4, 26, 30), 4) == [
        (0, 10, 20, 30), (3, 8, 22, 30), (6, 6, 24, 30), (9, 4, 26, 30),
    ]  # fmt: skip
    assert boxes_between((1, 2, 3, 4), (5, 6, 7, 8), 1) == [(1, 2, 3, 4)]


def test_motion_shift_moves_the_crop_during_the_clip() -> None:
    arguments = {"crop_size": 24, "area_range": (0.2, 0.5), "aspect_range": (0.75, 1.33), "flip": False}
    frames = numbered_frames()
    clip, _, _ = TrainTransform(**arguments, motion_shift=True)(frames, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    first, last = (
        random_resized_crop_box(48, 64, area_range=(0.2, 0.5), aspect_range=(0.75, 1.33), generator=rng)
        for _ in range(2)
    )
    assert first != last
    for position, (top, left, height, width) in enumerate(boxes_between(first, last, 4)):
        frame = frames[position : position + 1, top : top + height, left : left + width]
        assert torch.equal(clip[:, position], resize_frames(frame, (24, 24))[0].permute(2, 0, 1))


def test_colours_change_alike_in_all_frames_and_by_the_generator_alone() -> None:
    still = torch.randint(0, 256, (1, 48, 48, 3), dtype=torch.uint8).expand(4, -1, -1, -1)
    transform = TrainTransform(crop_size=48, jitter_scales=(48, 48), flip=False, color_jitter=0.4)
    clips = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(clips))
        clips.append(transform(still, np.random.default_rng(seed))[0])
    assert all(torch.equal(clips[0][:, 0], clips[0][:, frame]) for frame in range(4))
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])
    assert not torch.equal(clips[0][:, 0], still[0].permute(2, 0, 1))


def test_half_of_the_clips_are_mirrored_whole() -> None:
    transform = TrainTransform(crop_size=48, jitter_scales=(48, 48))
    mirrored = 0
    for seed in range(200):
        clip, _, _ = transform(numbered_frames(2), np.random.default_rng(seed))
        steps = clip[1].int().diff(dim=-1)
        assert (steps == steps[0, 0, 0]).all()
        mirrored += int(steps[0, 0, 0] == -1)
        assert torch.equal(clip[0], torch.arange(48, dtype=torch.uint8).view(1, 48, 1).expand(2, 48, 48))
    assert 70 < mirrored < 130


def test_erase_boxes_are_drawn_for_the_crop() -> None:
    transform = TrainTransform(crop_size=32, jitter_scales=(32, 40), erase_probability=0.25, erase_count=2)
    drawn, seeds = 0, set()
    for seed in range(200):
        _, boxes, erase_seed = transform(numbered_frames(1), np.random.default_rng(seed))
        assert boxes.shape == (2, 4)
        assert boxes.dtype == np.int64
        assert (boxes[:, :2] + boxes[:, 2:] <= 32).all()
        drawn += bool(boxes.any())
        seeds.add(erase_seed)
    assert 25 < drawn < 75
    assert len(seeds) == 200


def test_augmentation_is_applied_to_whole_frames_before_the_crop() -> None:
    seen = []

    class Spy(RandAugment):
        def __call__(self, frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
            seen.append(tuple(frames.shape))
            return 255 - frames

    transform = TrainTransform(crop_size=24, jitter_scales=(48, 48), flip=False, rand_augment=Spy())
    clip, _, _ = transform(numbered_frames(), np.random.default_rng(0))
    assert seen == [(4, 3, 48, 64)]
    assert clip[0].min() >= 255 - 48


def test_the_same_generator_gives_the_same_clip() -> None:
    transform = TrainTransform(
        crop_size=24, area_range=(0.2, 1.0), aspect_range=(0.75, 1.33), rand_augment=RandAugment()
    )
    frames = torch.randint(0, 256, (3, 48, 64, 3), dtype=torch.uint8)
    first, again, other = (transform(frames, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert first[2] == again[2]
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_size": 224, "jitter_scales": (200, 320)}, "start at the crop size or above"),
        ({"crop_size": 224, "jitter_scales": (320, 256)}, "must be increasing"),
        ({"crop_size": 224, "area_range": (0.08, 1.0)}, "needs both"),
        ({"crop_size": 224, "area_range": (0.08, 1.2), "aspect_range": (0.7, 1.3)}, "area_range"),
        ({"crop_size": 224, "area_range": (0.08, 1.0), "aspect_range": (1.3, 0.7)}, "aspect_range"),
        ({"crop_size": 224, "erase_count": 0}, "erase_count=0"),
        ({"crop_size": 224, "motion_shift": True}, "motion_shift moves a random resized crop"),
    ],
)
def test_settings_that_make_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainTransform(**arguments)


def test_normalisation() -> None:
    clips = torch.randint(0, 256, (2, 3, 4, 5, 6)).to(torch.uint8)
    before = clips.clone()
    mean, std = (0.45, 0.4, 0.5), (0.225, 0.3, 0.2)
    out = normalize_clips(clips, mean, std)
    assert out.dtype == torch.float32
    assert torch.equal(clips, before)
    for channel in range(3):
        wanted = (clips[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(out[:, channel].double(), wanted, atol=1e-6, rtol=0)
    floats = clips.float()
    assert torch.equal(normalize_clips(floats, mean, std), out)
    assert torch.equal(floats, before.float())
