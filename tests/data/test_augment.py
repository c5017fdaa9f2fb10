"""RandAugment against PIL (what timm and so the recipes apply to each frame) and random erasing."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from vidformers.compat import prepare_torchvision
from vidformers.data import augment
from vidformers.data.augment import (
    INCREASING_OPS,
    RandAugment,
    apply_op,
    erase_clips_,
    jitter_colors,
    parse_rand_augment,
    random_erase_boxes,
)

GREY = (128, 128, 128)


def smooth_frames(num_frames: int = 3, height: int = 40, width: int = 56) -> torch.Tensor:
    """uint8 (T, 3, H, W), smooth enough that interpolation details do not matter."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((num_frames, 3, 5, 7), generator=generator) * 200 + 20
    return (
        torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)
    )


def pil_op(name: str, image: Image.Image, level: float, sign: float) -> Image.Image:
    """timm's operation of that name, from its published definition."""
    part = level / 10
    factor = 1 + sign * 0.9 * part
    warp = {"fillcolor": GREY, "resample": Image.Resampling.BICUBIC}
    width, height = image.size
    if name == "SolarizeAdd":
        return image.point([min(255, i + int(part * 110)) if i < 128 else i for i in range(256)] * 3)
    if name == "SolarizeIncreasing":
        return ImageOps.solarize(image, 256 - int(part * 256))
    if name == "PosterizeIncreasing":
        return ImageOps.posterize(image, 4 - int(part * 4))
    affine = {
        "ShearX": (1, sign * 0.3 * part, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, sign * 0.3 * part, 1, 0),
        "TranslateXRel": (1, 0, sign * 0.45 * part * width, 0, 1, 0),
        "TranslateYRel": (1, 0, 0, 0, 1, sign * 0.45 * part * height),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], **warp)
    if name == "Rotate":
        return image.rotate(sign * 30 * part, **warp)
    enhancers = {
        "ColorIncreasing": ImageEnhance.Color,
        "ContrastIncreasing": ImageEnhance.Contrast,
        "BrightnessIncreasing": ImageEnhance.Brightness,
        "SharpnessIncreasing": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        return enhancers[name](image).enhance(factor)
    return {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}[
        name
    ](image)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("level", [0.0, 3.0, 7.3, 9.9])
@pytest.mark.parametrize("name", sorted(set(INCREASING_OPS)))
def test_each_operation_is_pils_on_every_frame(name: str, level: float, sign: float) -> None:
    frames = smooth_frames()
    before = frames.clone()
    out = apply_op(name, frames, level=level, sign=sign, interpolation="bicubic")
    assert torch.equal(frames, before)
    assert out.dtype == torch.uint8
    assert out.shape == frames.shape
    for frame, got in zip(frames, out, strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy())
        wanted = torch.from_numpy(np.array(pil_op(name, image, level, sign))).permute(2, 0, 1)
        difference = (got.int() - wanted.int()).abs().float()
        # Warps: PIL fills a pixel whose centre falls outside where grid_sample blends it with the fill.
        if name in augment._WARPS:
            assert (difference > 3).float().mean() < 0.08
        else:
            assert difference.max() <= 2


def test_bilinear_warps() -> None:
    frames = smooth_frames()
    bilinear = apply_op("Rotate", frames, level=5, sign=1, interpolation="bilinear")
    bicubic = apply_op("Rotate", frames, level=5, sign=1, interpolation="bicubic")
    assert not torch.equal(bilinear, bicubic)
    assert ((bilinear.int() - bicubic.int()).abs() > 4).float().mean() < 0.06
    half = apply_op("TranslateXRel", frames, level=10, sign=1, interpolation="bilinear")
    # 0.45 of 56 columns are 25.2: a blend of the 25th and the 26th neighbour.
    wanted = 0.8 * frames[..., 25:55] + 0.2 * frames[..., 26:56]
    assert (half[..., :30] - wanted).abs().max() <= 1
    assert (half[..., -20:] == 128).all()


def test_policy_string() -> None:
    assert parse_rand_augment("") is None
    assert parse_rand_augment("rand-m7-n4-mstd0.5-inc1") == RandAugment(4, 7.0, 0.5, 0.5, "bicubic")
    got = parse_rand_augment("rand-m9-inc1-p0.7", interpolation="bilinear")
    assert got == RandAugment(2, 9.0, 0.0, 0.7, "bilinear")


@pytest.mark.parametrize(
    "policy",
    ["rand-m7-n4", "augmix-m3", "rand-m7-n0-inc1", "rand-m11-inc1", "rand-m7-x3-inc1", "rand-m7-n1.5-inc1"],
)
def test_policies_that_are_not_known(policy: str) -> None:
    with pytest.raises(ValueError, match=r"rand-m7-n4-mstd0\.5-inc1"):
        parse_rand_augment(policy)


def test_unknown_interpolation() -> None:
    with pytest.raises(ValueError, match="bilinear, bicubic"):
        parse_rand_augment("rand-m7-inc1", interpolation="lanczos")


def record_ops(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
    calls: list[tuple[str, float, float]] = []

    def record(
        name: str, frames: torch.Tensor, *, level: float, sign: float, interpolation: str
    ) -> torch.Tensor:
        calls.append((name, level, sign))
        return frames

    monkeypatch.setattr(augment, "apply_op", record)
    return calls


def test_draws_follow_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_ops(monkeypatch)
    policy = RandAugment(4, 7.0, 0.5, 0.5)
    frames = torch.zeros((1, 3, 2, 2), dtype=torch.uint8)
    for seed in range(2000):
        policy(frames, np.random.default_rng(seed))
    # 8000 draws, half of them applied; the same operation may come twice in a clip.
    assert abs(len(calls) - 4000) < 4.5 * math.sqrt(2000)
    names, levels, signs = zip(*calls, strict=True)
    share = {name: names.count(name) / len(names) for name in INCREASING_OPS}
    assert abs(share["Rotate"] - 1 / 16) < 0.018
    assert abs(share["ContrastIncreasing"] - 2 / 16) < 0.025
    assert abs(np.mean(levels) - 7) < 0.04
    assert abs(np.std(levels) - 0.5) < 0.03
    assert abs(np.mean(signs)) < 0.08


def test_noisy_magnitudes_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_ops(monkeypatch)
    for seed in range(50):
        RandAugment(4, 9.5, 5.0, 1.0)(torch.zeros((1, 3, 2, 2)), np.random.default_rng(seed))
    levels = [level for _, level, _ in calls]
    assert len(levels) == 200
    assert max(levels) == 10.0
    assert min(levels) >= 0.0


def test_all_frames_of_a_clip_are_treated_alike_and_by_the_generator_alone() -> None:
    frame = smooth_frames(1)
    frames = frame.expand(4, -1, -1, -1)
    policy = RandAugment(4, 7.0, 0.5, 1.0)
    first = policy(frames, np.random.default_rng(1))
    assert torch.equal(first, first[:1].expand_as(first))
    torch.manual_seed(5)
    assert torch.equal(policy(frames, np.random.default_rng(1)), first)
    assert not torch.equal(policy(frames, np.random.default_rng(2)), first)


def test_colour_jitter_is_torchvisions_with_our_draws() -> None:
    prepare_torchvision()
    from torchvision.transforms import v2

    frames = torch.randint(0, 256, (3, 3, 16, 20), dtype=torch.uint8)

    class Fixed:
        def __init__(self, factors: list[float], order: list[int]) -> None:
            self.factors, self.order = np.array(factors), np.array(order)

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            assert (low, high, size) == (pytest.approx(0.6), pytest.approx(1.4), 3)
            return self.factors

        def permutation(self, count: int) -> np.ndarray:
            return self.order

    ours = jitter_colors(frames, 0.4, Fixed([1.3, 0.7, 1.2], [2, 0, 1]))  # type: ignore[arg-type]
    jitter = v2.ColorJitter(0.4, 0.4, 0.4)
    jitter.make_params = lambda _: {  # brightness, contrast, saturation, hue by number
        "fn_idx": torch.tensor([2, 0, 1, 3]), "brightness_factor": 1.3, "contrast_factor": 0.7,
        "saturation_factor": 1.2, "hue_factor": None,
    }  # fmt: skip
    assert torch.equal(ours, jitter(frames))
    assert not torch.equal(ours, frames)


def test_erase_boxes_lie_inside_with_area_and_aspect_in_range() -> None:
    boxes = np.concatenate(
        [random_erase_boxes(224, 160, generator=np.random.default_rng(seed)) for seed in range(500)]
    )
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 224).all()
    assert (left + width <= 160).all()
    area = height * width / (224 * 160)
    assert 0.015 < area.min() < 0.05
    assert 0.28 < area.max() < 0.35
    assert 0.28 < (height / width).min() < 0.5
    assert 2.2 < (height / width).max() < 3.6
    several = random_erase_boxes(224, 160, count=3, generator=np.random.default_rng(0))
    assert several.shape == (3, 4)
    assert (several[:, 2] * several[:, 3] / (224 * 160) < 0.12).all()


def erase(mode: str, boxes: torch.Tensor | None = None) -> torch.Tensor:
    if boxes is None:
        boxes = torch.tensor([[1, 2, 30, 20], [0, 0, 0, 0]])
    return erase_clips_(torch.full((2, 3, 4, 40, 32), 7.0), boxes, torch.tensor([11, 12]), mode=mode)


def test_erasing_fills_the_box_of_all_frames_and_nothing_else() -> None:
    clips = erase("pixel")
    inside = clips[0, :, :, 1:31, 2:22]
    assert (clips[1] == 7).all()
    assert (clips[0] == 7).sum() == 3 * 4 * (40 * 32 - 30 * 20)
    assert abs(inside.mean()) < 0.06
    assert abs(inside.std() - 1) < 0.05
    assert not torch.equal(inside[:, 0], inside[:, 1])  # each frame its own noise
    assert torch.equal(erase("pixel"), clips)
    assert (erase("const")[0, :, :, 1:31, 2:22] == 0).all()
    colour = erase("rand")[0, :, :, 1:31, 2:22]
    assert torch.equal(colour, colour[:, :1, :1, :1].expand_as(colour))
    assert len(colour[:, 0, 0, 0].unique()) == 3


def test_several_boxes_a_clip() -> None:
    boxes = torch.tensor([[[0, 0, 2, 2], [10, 10, 3, 4]], [[0, 0, 0, 0], [5, 5, 1, 1]]])
    clips = erase("const", boxes)
    assert (clips[0] == 0).sum() == 3 * 4 * (4 + 12)
    assert (clips[1] == 0).sum() == 3 * 4
    with pytest.raises(ValueError, match="pixel, rand, const"):
        erase("blur")


def test_noise_depends_on_the_clips_seed_not_on_its_place() -> None:
    boxes, clip = torch.tensor([[1, 2, 3, 4]]), torch.zeros((1, 3, 2, 8, 8))
    alone = erase_clips_(clip.clone(), boxes, [5])
    pair = erase_clips_(clip.repeat(2, 1, 1, 1, 1), boxes.repeat(2, 1), [4, 5])
    assert torch.equal(pair[1:], alone)
    assert not torch.equal(pair[:1], alone)
