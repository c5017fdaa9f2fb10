"""Generated files that cost a decoder what Kinetics clips cost it.

A textured background under a hand-held camera, textured bodies that move, turn and bend over it, and sensor
noise. Spectra and noise are fitted to a real Kinetics clip of this size (mmaction2's demo.mp4, 28 frames a
second): it has 505 kb/s and the file of GOP 250 458 kb/s, and a frame of either costs the decoder the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["FPS", "HEIGHT", "WIDTH", "make_videos"]

WIDTH, HEIGHT, FPS = 340, 256, 30
NUM_BODIES = 3
# Amplitudes of natural images fall with about 1 / frequency; the power below and the noise (grey levels) are
# fitted to the cost of decoding.
SPECTRUM_POWER = 1.2
NOISE = 2.0
CONTRAST = 45


def make_videos(folder: str | os.PathLike[str], *, seconds: float, gops: Sequence[int]) -> dict[int, Path]:
    """H.264 files (x264 medium, crf 23) of the same frames, one for each key frame distance in `gops`.

    Files that are there from an earlier call are taken as they are; new ones appear only when complete.
    """
    import av

    num_frames = round(seconds * FPS)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {gop: folder / f"generated_{WIDTH}x{HEIGHT}_{num_frames}f_gop{gop}.mp4" for gop in gops}
    missing = {gop: path for gop, path in paths.items() if not path.exists()}
    if not missing:
        return paths
    parts = {gop: path.with_suffix(f".{os.getpid()}.part") for gop, path in missing.items()}
    with ExitStack() as stack:
        outputs = []
        for gop, part in parts.items():
            container = stack.enter_context(av.open(str(part), "w", format="mp4"))
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            # One encoding thread: the file is the same on every machine.
            stream.options = {"crf": "23", "preset": "medium", "g": str(gop), "threads": "1"}
            stream.codec_context.time_base = Fraction(1, FPS)
            outputs.append((container, stream))
        for number, image in enumerate(_images(num_frames)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            for container, stream in outputs:
                container.mux(stream.encode(frame))
        for container, stream in outputs:
            container.mux(stream.encode())
    for gop, part in parts.items():
        part.rename(missing[gop])
    return paths


def _images(num_frames: int) -> Iterator[np.ndarray]:
    """uint8 (HEIGHT, WIDTH, 3), always the same ones."""
    rng = np.random.default_rng(0)
    background = _texture(2 * HEIGHT, 2 * WIDTH, rng)
    # Each body has a colour of its own.
    bodies = [
        _texture(HEIGHT, WIDTH, rng) + torch.from_numpy(rng.normal(size=(3, 1, 1)).astype(np.float32))
        for _ in range(NUM_BODIES)
    ]
    phases = rng.uniform(0, 2 * math.pi, (NUM_BODIES, 4))
    shake = np.cumsum(rng.normal(0, 0.0008, (num_frames, 2)), axis=0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    for number in range(num_frames):
        t = number / FPS
        zoom = 0.5 + 0.05 * math.sin(0.4 * t)
        image = _sample(
            background,
            x * zoom + 0.25 * math.sin(0.25 * t) + shake[number, 0],
            y * zoom + 0.1 * math.cos(0.3 * t) + shake[number, 1],
        )
        for k, (body, phase) in enumerate(zip(bodies, phases, strict=True)):
            dx = x - 0.7 * math.sin((0.5 + 0.2 * k) * t + phase[0])
            dy = y - 0.5 * math.sin((0.7 + 0.15 * k) * t + phase[1])
            angle = 0.4 * math.sin(0.9 * t + phase[2])
            u = math.cos(angle) * dx - math.sin(angle) * dy
            v = math.sin(angle) * dx + math.cos(angle) * dy
            outline = 1 + 0.2 * torch.sin(3 * torch.atan2(v, u) + 4 * t + phase[3])
            inside = torch.sigmoid(25 * (outline - torch.hypot(u / 0.3, v / 0.5)))
            image = image + inside * (_sample(body, u + 0.02 * torch.sin(6 * v + 3 * t), v) - image)
        noise = torch.from_numpy(rng.standard_normal((1, HEIGHT, WIDTH), dtype=np.float32))
        levels = (118 + CONTRAST * image + NOISE * noise).clamp(0, 255)
        yield levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _texture(height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """(3, height, width) of mean 0: mostly grey, with the spectrum of natural images."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    shape = (3, height, width // 2 + 1)
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / frequency**SPECTRUM_POWER
    image = np.fft.irfft2(spectrum, (height, width))
    image /= image.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy((0.8 * image[:1] + 0.3 * image).astype(np.float32))


def _sample(image: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(3, h, w) looked up at (x, y), each (H, W) from -1 to 1 -> (3, H, W)"""
    grid = torch.stack([x, y], dim=-1)[None]
    return F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=True)[0]
