"""RandAugment, colour jitter and random erasing for clips.

RandAugment (Cubuk et al. 2020) with timm's operations, magnitudes and string syntax, as PySlowFast applies it
to video: operation, magnitude and sign are drawn once a clip and shared by all its frames. torchvision's own
RandAugment has other magnitudes, draws signs and operations otherwise and has no magnitude noise, so only its
kernels are used here.

Random erasing (Zhong et al. 2020) in timm's "cube" form: the same boxes in all frames, filled after
normalisation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

ERASE_MODES = ("pixel", "rand", "const")
INTERPOLATIONS = ("bilinear", "bicubic")
_MAX_LEVEL = 10.0
_FILL = 128.0  # timm's grey for what a warp brings in from outside

# The "increasing severity" set. Contrast stands in it twice, as in the reference, and is therefore drawn
# twice as often.
INCREASING_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
    "ContrastIncreasing",
)


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` operations drawn with replacement, each applied with `probability`.

    The magnitude is N(magnitude, magnitude_std) clipped to 0..10. Call with uint8 frames (T, 3, H, W);
    returns the same shape and type. Geometric operations are sampled with `interpolation`.
    """

    num_ops: int = 4
    magnitude: float = 7.0
    magnitude_std: float = 0.5
    probability: float = 0.5
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation {self.interpolation!r}; use one of {', '.join(INTERPOLATIONS)}")

    def __call__(self, frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        for name in generator.choice(np.array(INCREASING_OPS), size=self.num_ops):
            if generator.random() >= self.probability:
                continue
            level = self.magnitude
            if self.magnitude_std > 0:
                level = generator.normal(level, self.magnitude_std)
            level = min(max(level, 0.0), _MAX_LEVEL)
            sign = -1.0 if generator.random() < 0.5 else 1.0
            frames = apply_op(str(name), frames, level=level, sign=sign, interpolation=self.interpolation)
        return frames


def parse_rand_augment(policy: str, *, interpolation: str = "bicubic") -> RandAugment | None:
    """ "rand-m7-n4-mstd0.5-inc1" -> RandAugment; "" -> None.

    m: magnitude (0..10), n: number of operations, mstd: its noise, p: probability of each operation, inc:
    must be 1, the increasing set, because the other one is used by no published video recipe.
    """
    if not policy:
        return None
    head, *parts = policy.split("-")
    values = {"m": 10.0, "n": 2.0, "mstd": 0.0, "p": 0.5, "inc": 0.0}
    for part in parts:
        match = re.fullmatch(r"(m|n|mstd|p|inc)(\d+(?:\.\d+)?)", part)
        if match is None:
            head = ""
            break
        values[match[1]] = float(match[2])
    in_range = values["m"] <= _MAX_LEVEL and values["n"] >= 1 and values["n"] % 1 == 0 and values["p"] <= 1
    if head != "rand" or values["inc"] != 1 or not in_range:
        raise ValueError(
            f"cannot read the augmentation policy {policy!r}; it must look like 'rand-m7-n4-mstd0.5-inc1' "
            "(magnitude 0 to 10, number of operations, magnitude noise, and inc1, the increasing set, which "
            "cannot be left out; also p, the probability of each operation), or be '' for none"
        )
    return RandAugment(
        num_ops=int(values["n"]),
        magnitude=values["m"],
        magnitude_std=values["mstd"],
        probability=values["p"],
        interpolation=interpolation,
    )


def apply_op(
    name: str, frames: torch.Tensor, *, level: float, sign: float, interpolation: str
) -> torch.Tensor:
    """One operation of `INCREASING_OPS` at a level of 0..10 on uint8 frames (T, 3, H, W)."""
    part = level / _MAX_LEVEL
    height, width = frames.shape[-2:]
    if name in _WARPS:
        amount = sign * part
        matrix = _WARPS[name](amount, height, width)
        return _warp(frames, matrix, interpolation)
    return _COLOUR_OPS[name](frames, part, sign)


# Output pixel (x, y) takes the input at (a x + b y + c, d x + e y + f), in pixels from the top left corner,
# as PIL does.
_Matrix = tuple[float, float, float, float, float, float]


def _rotation(amount: float, height: int, width: int) -> _Matrix:
    angle = -math.radians(30.0 * amount)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


_WARPS: dict[str, Callable[[float, int, int], _Matrix]] = {
    "Rotate": _rotation,
    "ShearX": lambda amount, height, width: (1, 0.3 * amount, 0, 0, 1, 0),
    "ShearY": lambda amount, height, width: (1, 0, 0, 0.3 * amount, 1, 0),
    "TranslateXRel": lambda amount, height, width: (1, 0, 0.45 * amount * width, 0, 1, 0),
    "TranslateYRel": lambda amount, height, width: (1, 0, 0, 0, 1, 0.45 * amount * height),
}


def _warp(frames: torch.Tensor, matrix: _Matrix, interpolation: str) -> torch.Tensor:
    """Affine warp of all frames by one grid. torchvision's tensor kernels cannot sample bicubically."""
    T, C, H, W = frames.shape
    a, b, c, d, e, f = matrix
    # grid_sample counts from -1 to 1 over the pixel edges (align_corners False): x = (u + 1) W / 2 and so on.
    theta = torch.tensor(
        [[a, b * H / W, a + b * H / W + 2 * c / W - 1], [d * W / H, e, d * W / H + e + 2 * f / H - 1]],
        dtype=torch.float32,
    )
    grid = F.affine_grid(theta[None], [1, T * C, H, W], align_corners=False)
    # Frames as channels of one image share the grid; around the fill value, zero padding is the fill.
    image = frames.reshape(1, T * C, H, W).float() - _FILL
    out = F.grid_sample(image, grid, mode=interpolation, padding_mode="zeros", align_corners=False)
    return (out + _FILL).round_().clamp_(0, 255).to(torch.uint8).view(T, C, H, W)


def _torchvision() -> ModuleType:
    from vidformers.compat import prepare_torchvision

    prepare_torchvision()
    from torchvision.transforms.v2 import functional

    return functional


def _solarize_increasing(frames: torch.Tensor, part: float, sign: float) -> torch.Tensor:
    threshold = 256 - int(part * 256)
    # 256 inverts nothing, and torchvision refuses it.
    return frames if threshold > 255 else _torchvision().solarize(frames, threshold)


def _solarize_add(frames: torch.Tensor, part: float, sign: float) -> torch.Tensor:
    brighter = (frames.to(torch.int16) + int(part * 110)).clamp_(max=255).to(torch.uint8)
    return torch.where(frames < 128, brighter, frames)


def _enhance(part: float, sign: float) -> float:
    return 1.0 + sign * 0.9 * part


# Each takes (frames, level / 10, sign).
_COLOUR_OPS: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "AutoContrast": lambda frames, part, sign: _torchvision().autocontrast(frames),
    "Equalize": lambda frames, part, sign: _torchvision().equalize(frames),
    "Invert": lambda frames, part, sign: _torchvision().invert(frames),
    "PosterizeIncreasing": lambda frames, part, sign: _torchvision().posterize(frames, 4 - int(part * 4)),
    "SolarizeIncreasing": _solarize_increasing,
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": lambda frames, part, sign: _torchvision().adjust_saturation(
        frames, _enhance(part, sign)
    ),
    "ContrastIncreasing": lambda frames, part, sign: _torchvision().adjust_contrast(
        frames, _enhance(part, sign)
    ),
    "BrightnessIncreasing": lambda frames, part, sign: _torchvision().adjust_brightness(
        frames, _enhance(part, sign)
    ),
    "SharpnessIncreasing": lambda frames, part, sign: _torchvision().adjust_sharpness(
        frames, _enhance(part, sign)
    ),
}


def jitter_colors(frames: torch.Tensor, strength: float, generator: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation of uint8 frames (T, 3, H, W), each times a factor from
    [1 - strength, 1 + strength] (not below 0), in random order.

    As torchvision's ColorJitter(strength, strength, strength), which takes no generator. Factors and order
    are one draw a clip; contrast is around each frame's own mean.
    """
    functional = _torchvision()
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    factors = generator.uniform(max(0.0, 1 - strength), 1 + strength, size=3)
    for place in generator.permutation(3):
        frames = adjust[place](frames, float(factors[place]))
    return frames


def random_erase_boxes(
    height: int,
    width: int,
    *,
    count: int = 1,
    area_range: tuple[float, float] = (0.02, 1 / 3),
    aspect_range: tuple[float, float] = (0.3, 1 / 0.3),
    generator: np.random.Generator,
) -> np.ndarray:
    """`count` boxes to erase, int64 (count, 4) as (top, left, height, width); each has its share of the area
    range.

    A box that does not fit in 100 draws stays empty (zeros).
    """
    boxes = np.zeros((count, 4), dtype=np.int64)
    low, high = math.log(aspect_range[0]), math.log(aspect_range[1])
    for box in boxes:
        for _ in range(100):
            area = generator.uniform(*area_range) * height * width / count
            aspect = math.exp(generator.uniform(low, high))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                box[:] = (generator.integers(0, height - h + 1), generator.integers(0, width - w + 1), h, w)
                break
    return boxes


def erase_clips_(
    clips: torch.Tensor, boxes: torch.Tensor, seeds: torch.Tensor | Sequence[int], *, mode: str = "pixel"
) -> torch.Tensor:
    """Erase boxes of normalised clips in place; returns them.

    clips: float (B, 3, T, H, W). boxes: int64 (B, 4) or (B, n, 4) as (top, left, height, width); an empty box
    erases nothing. seeds: (B,), of the noise of each clip. mode: "pixel" fills with unit normal noise (each
    pixel and frame its own), "rand" with one colour a box, "const" with zeros. The noise depends on the
    clip's seed and the kind of device.
    """
    if mode not in ERASE_MODES:
        raise ValueError(f"unknown erasing mode {mode!r}; use one of {', '.join(ERASE_MODES)}")
    boxes = boxes.reshape(len(clips), -1, 4).cpu()
    for clip, clip_boxes, seed in zip(clips, boxes.tolist(), [int(s) for s in seeds], strict=True):
        generator = None
        for top, left, height, width in clip_boxes:
            if height == 0 or width == 0:
                continue
            region = clip[:, :, top : top + height, left : left + width]
            if mode == "const":
                region.zero_()
                continue
            if generator is None:
                generator = torch.Generator(device=clips.device).manual_seed(seed)
            shape = region.shape if mode == "pixel" else (3, 1, 1, 1)
            region.copy_(torch.randn(shape, generator=generator, device=clips.device, dtype=torch.float32))
    return clips
