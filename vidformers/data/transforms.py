"""Training transforms of clips, and the tensor operations shared with testing.

A clip is uint8 (T, H, W, 3) from the reader to the augmented crop; floats are made on the device. Boxes are
drawn by pure functions of a generator, once a clip, so that all frames of a clip are cut alike. Recipe:
PySlowFast (slowfast/datasets/transform.py and kinetics.py); random resized crop: Szegedy et al. 2015 as in
torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from vidformers.data.augment import RandAugment, jitter_colors, random_erase_boxes

RESIZE_MODES = ("uint8", "float")
Box = tuple[int, int, int, int]  # top, left, height, width


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) once the shorter side is scaled to `short_side` pixels; the longer is truncated."""
    if height < 1 or width < 1 or short_side < 1:
        raise ValueError(
            f"cannot scale a {height}x{width} frame to a short side of {short_side}; use sizes >= 1"
        )
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


def resize_frames(
    frames: torch.Tensor, size: tuple[int, int], *, mode: str = "uint8", out: torch.Tensor | None = None
) -> torch.Tensor:
    """Bilinear resize without antialiasing of frames (T, H, W, 3) on the CPU to `size` (height, width).

    mode "uint8" keeps bytes (by OpenCV, several times faster, within one grey level of the exact result);
    "float" gives float32 on the scale of the input, unrounded, as the reference implementations compute it.
    out: contiguous memory for the result, (T, *size, 3) of that type.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"unknown resize mode {mode!r}; use one of {', '.join(RESIZE_MODES)}")
    if mode == "float":
        frames = frames.float()
    if tuple(frames.shape[1:3]) == tuple(size) or len(frames) == 0:
        frames = frames if len(frames) else frames.new_zeros((0, *size, frames.shape[3]))
        return frames if out is None else out.copy_(frames)
    if mode == "uint8":
        out = frames.new_empty((len(frames), *size, frames.shape[3])) if out is None else out
        _resize_bytes(frames.numpy(), out.numpy())
        return out
    # (T, H, W, 3) -> (T, 3, H, W), for torch and back
    images = frames.permute(0, 3, 1, 2)
    if out is not None:
        # What F.interpolate calls; that has no `out`.
        torch.ops.aten.upsample_bilinear2d.out(images, size, False, out=out.permute(0, 3, 1, 2))
        return out
    resized = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)
    return resized.permute(0, 2, 3, 1).contiguous()


def _resize_bytes(images: np.ndarray, out: np.ndarray) -> None:
    """uint8 (T, H, W, 3) of any strides -> (T, h, w, 3), contiguous."""
    height, width = out.shape[1:3]
    for image, resized in zip(images, out, strict=True):
        cv2.resize(image, (width, height), dst=resized, interpolation=cv2.INTER_LINEAR)


def normalize_clips(clips: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Float32 (value / 255 - mean) / std of clips (..., 3, T, H, W), uint8 or float with values 0..255."""
    return normalize_in_place(clips.to(torch.float32, copy=True), mean, std)


def normalize_in_place(clips: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """`normalize_clips` of clips that are float32 already, in their own memory."""
    shape = (3, 1, 1, 1)
    mean_values = torch.tensor(mean, dtype=torch.float32, device=clips.device).view(shape)
    std_values = torch.tensor(std, dtype=torch.float32, device=clips.device).view(shape)
    return clips.div_(255.0).sub_(mean_values).div_(std_values)


def random_resized_crop_box(
    height: int,
    width: int,
    *,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
    generator: np.random.Generator,
) -> Box:
    """A box of random area (a fraction of the frame) and aspect (width / height, log-uniform).

    Ten draws; if none fits, the largest centred box within the aspect range.
    """
    area = height * width
    low, high = math.log(aspect_range[0]), math.log(aspect_range[1])
    for _ in range(10):
        target = area * generator.uniform(*area_range)
        aspect = math.exp(generator.uniform(low, high))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = generator.integers(0, height - h + 1), generator.integers(0, width - w + 1)
            return int(top), int(left), h, w
    w, h = width, height
    if width / height < aspect_range[0]:
        h = max(1, round(w / aspect_range[0]))
    elif width / height > aspect_range[1]:
        w = max(1, round(h * aspect_range[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def boxes_between(first: Box, last: Box, num_frames: int) -> list[Box]:
    """A box for each frame on the straight way from `first` to `last`, corners and sides truncated."""
    # torch's linspace as in PySlowFast: its rounding decides what a number is truncated to.
    sides = [
        torch.linspace(start, end, num_frames).int().tolist() for start, end in zip(first, last, strict=True)
    ]
    return [(top, left, height, width) for top, left, height, width in zip(*sides, strict=True)]


def random_crop_box(height: int, width: int, crop_size: int, *, generator: np.random.Generator) -> Box:
    """A square box anywhere in the frame (PySlowFast never draws the last offset; here it can be)."""
    top, left = generator.integers(0, height - crop_size + 1), generator.integers(0, width - crop_size + 1)
    return int(top), int(left), crop_size, crop_size


@dataclass(frozen=True)
class TrainTransform:
    """From decoded frames to a training crop.

    crop_size: side of the result in pixels.
    jitter_scales: short side drawn uniformly from this range (pixels), then a random crop. Used without
    `area_range`.
    area_range, aspect_range: if given, a random resized crop instead (both or neither).
    inverse_uniform: draw 1 / (short side) uniformly instead, so that small sizes come more often.
    motion_shift: the resized crop moves during the clip, straight from one random box to another.
    flip: mirror half of the clips. Wrong where left and right differ, as in Something-Something and `motion`.
    rand_augment: None or the policy applied to the whole frames before cropping.
    color_jitter: strength of `augment.jitter_colors` on the crop, 0 = none.
    erase_probability, erase_count: random erasing; the boxes are drawn here and erased after normalisation.
    """

    crop_size: int
    jitter_scales: tuple[int, int] = (256, 320)
    area_range: tuple[float, float] | None = None
    aspect_range: tuple[float, float] | None = None
    inverse_uniform: bool = False
    motion_shift: bool = False
    flip: bool = True
    rand_augment: RandAugment | None = None
    color_jitter: float = 0.0
    erase_probability: float = 0.0
    erase_count: int = 1

    def __post_init__(self) -> None:
        if (self.area_range is None) != (self.aspect_range is None):
            raise ValueError(
                f"area_range={self.area_range} and aspect_range={self.aspect_range}: a random resized crop "
                "needs both, short-side jitter neither (DATA.TRAIN_JITTER_SCALES_RELATIVE and "
                "TRAIN_JITTER_ASPECT_RELATIVE)"
            )
        if self.motion_shift and self.area_range is None:
            raise ValueError(
                "motion_shift moves a random resized crop, which needs area_range and aspect_range "
                "(DATA.TRAIN_JITTER_MOTION_SHIFT with DATA.TRAIN_JITTER_SCALES_RELATIVE and "
                "TRAIN_JITTER_ASPECT_RELATIVE)"
            )
        if self.area_range is None and not self.crop_size <= self.jitter_scales[0] <= self.jitter_scales[1]:
            raise ValueError(
                f"jitter_scales={self.jitter_scales} with crop_size={self.crop_size}: the range of short "
                "sides must be increasing and start at the crop size or above"
            )
        for name, low_high, upper in (
            ("area_range", self.area_range, 1.0),
            ("aspect_range", self.aspect_range, 1e3),
        ):
            if low_high is not None and not (len(low_high) == 2 and 0 < low_high[0] <= low_high[1] <= upper):
                raise ValueError(
                    f"{name}={low_high}; give two increasing numbers above 0 and at most {upper:g}"
                )
        if self.erase_count < 1:
            raise ValueError(
                f"erase_count={self.erase_count}; use 1 or more, and erase_probability 0 for no erasing"
            )

    def __call__(
        self, frames: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, np.ndarray, int]:
        """uint8 (T, H, W, 3) -> clip uint8 (3, T, crop, crop), erase boxes (erase_count, 4), erase seed."""
        if self.rand_augment is not None:
            # (T, H, W, 3) -> (T, 3, H, W) and back
            frames = self.rand_augment(frames.permute(0, 3, 1, 2), generator).permute(0, 2, 3, 1)
        height, width = frames.shape[1:3]
        crop = self.crop_size
        if self.area_range is not None:
            first = self._resized_crop_box(height, width, generator)
            last = self._resized_crop_box(height, width, generator) if self.motion_shift else first
            if first == last:
                top, left, h, w = first
                clip = resize_frames(frames[:, top : top + h, left : left + w], (crop, crop))
            else:
                parts = zip(frames.split(1), boxes_between(first, last, len(frames)), strict=True)
                clip = torch.cat(
                    [
                        resize_frames(frame[:, top : top + h, left : left + w], (crop, crop))
                        for frame, (top, left, h, w) in parts
                    ]
                )
        else:
            short = self._short_side(generator)
            size = short_side_size(height, width, short)
            top, left, h, w = random_crop_box(*size, crop, generator=generator)
            clip = resize_frames(frames, size)[:, top : top + h, left : left + w]
        if self.flip and generator.random() < 0.5:
            clip = clip.flip(2)
        if self.color_jitter:
            # (T, h, w, 3) -> (T, 3, h, w) and back
            clip = jitter_colors(clip.permute(0, 3, 1, 2), self.color_jitter, generator).permute(0, 2, 3, 1)
        boxes = np.zeros((self.erase_count, 4), dtype=np.int64)
        if generator.random() < self.erase_probability:
            boxes = random_erase_boxes(crop, crop, count=self.erase_count, generator=generator)
        erase_seed = int(generator.integers(2**62))
        # (T, h, w, 3) -> (3, T, h, w)
        return clip.permute(3, 0, 1, 2).contiguous(), boxes, erase_seed

    def _resized_crop_box(self, height: int, width: int, generator: np.random.Generator) -> Box:
        assert self.area_range is not None and self.aspect_range is not None
        return random_resized_crop_box(
            height, width, area_range=self.area_range, aspect_range=self.aspect_range, generator=generator
        )

    def _short_side(self, generator: np.random.Generator) -> int:
        low, high = self.jitter_scales
        if self.inverse_uniform:
            return round(1 / generator.uniform(1 / high, 1 / low))
        return round(generator.uniform(low, high))
