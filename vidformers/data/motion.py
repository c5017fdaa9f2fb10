"""The generated dataset `motion`: small H.264 videos whose classes have a known answer about time.

Two moving objects on a textured background. An object's state is (position on a torus, orientation, place in
a cycle of three colours), and a clip moves the state with a constant velocity: state(t) = state(0) + velocity
* t. The state at frame 0 is uniform on its torus and independent of the velocity, hence uniform at every
frame. Of the classes

* `direction` and `order` and `speed` differ in the law of the velocity alone, so that no single frame, at
whatever
  index, carries information about which of them a clip belongs to;
* `direction` and `order` come in pairs with opposite velocities: a reversed clip is a valid draw of the
partner, with
  the same density. Reversal maps each `speed` class and each `appearance` class onto itself;
* `appearance` differs in the object's shape, visible in each frame, and its velocity is drawn from all other
classes.

Any two seconds of a clip show the class. (Encoding is lossy and predicts forwards in time, so the statement
about single frames is exact for what is drawn and nearly so for what is decoded; the quality is chosen high
for that reason.)

`clip_parameters` is a pure function of (seed, split, index), `render` of the parameters;
`ensure_motion_dataset` writes the files once. The construction follows the time-reversal and event-order
tests of "Only Time Can Tell" (Sevilla-Lara et al. 2021) and the arrow of time (Wei et al. 2018) in spirit,
with exact ground truth.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 80, 64  # not square: three spatial crops differ
FPS = 12
NUM_FRAMES = 48  # 4 s: the longest published clip, 40 frames of stride 3 at 30 fps, fits
SPLITS = ("train", "val", "test")
VIDEOS_PER_CLASS: Mapping[str, int] = {"train": 100, "val": 10, "test": 20}
# Raise when the rendered pixels change, so that copies on people's disks are made anew.
VERSION = 1


@dataclass(frozen=True)
class VelocityLaw:
    """A uniform law over velocities: the direction of travel in turns (0 = right, 0.25 = down), +- a spread,
    one of `headings` drawn; speed in pixels a second; orientation in turns a second, clockwise positive;
    colours in cycles a
    second. An empty range is (0, 0)."""

    headings: tuple[float, ...] = ()
    heading_spread: float = 0.0
    speed: tuple[float, float] = (0.0, 0.0)
    turn: tuple[float, float] = (0.0, 0.0)
    cycle: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class MotionClass:
    """One class: its name, its group, the class that its reversed clips belong to, and what defines it.
    `velocity` None means any velocity that occurs in the other groups."""

    name: str
    group: str
    reversed_name: str
    shape: str
    velocity: VelocityLaw | None


def _travel(*headings: float, low: float = 20.0, high: float = 45.0) -> VelocityLaw:
    return VelocityLaw(headings=headings, heading_spread=0.03, speed=(low, high))


_DIAGONALS = (0.125, 0.375, 0.625, 0.875)

CLASSES: tuple[MotionClass, ...] = (
    MotionClass("ring", "appearance", "ring", "ring", None),
    MotionClass("cross", "appearance", "cross", "cross", None),
    MotionClass("right", "direction", "left", "half_disc", _travel(0.0)),
    MotionClass("left", "direction", "right", "half_disc", _travel(0.5)),
    MotionClass("down", "direction", "up", "half_disc", _travel(0.25)),
    MotionClass("up", "direction", "down", "half_disc", _travel(0.75)),
    MotionClass("clockwise", "direction", "counterclockwise", "half_disc", VelocityLaw(turn=(0.25, 0.45))),
    MotionClass("counterclockwise", "direction", "clockwise", "half_disc", VelocityLaw(turn=(-0.45, -0.25))),
    MotionClass("red_green_blue", "order", "red_blue_green", "half_disc", VelocityLaw(cycle=(0.55, 0.75))),
    MotionClass("red_blue_green", "order", "red_green_blue", "half_disc", VelocityLaw(cycle=(-0.75, -0.55))),
    MotionClass("slow", "speed", "slow", "half_disc", _travel(*_DIAGONALS, low=9.0, high=13.0)),
    MotionClass("fast", "speed", "fast", "half_disc", _travel(*_DIAGONALS, low=36.0, high=52.0)),
)


@dataclass(frozen=True)
class Velocity:
    """Change of an object's state a second: x, y in pixels, turn in turns, cycle in colour cycles."""

    x: float
    y: float
    turn: float
    cycle: float


@dataclass(frozen=True)
class ObjectState:
    """An object at frame 0: centre (pixels, on a torus of WIDTH x HEIGHT), orientation (turns), place in the
    colour
    cycle (cycles)."""

    x: float
    y: float
    turn: float
    cycle: float


@dataclass(frozen=True)
class MotionClip:
    """Everything that determines a clip's pixels."""

    label: int
    shape: str
    objects: tuple[ObjectState, ...]
    velocity: Velocity
    radius: float
    palette: tuple[tuple[float, float, float], ...]
    background_seed: int
    background_contrast: float
    noise_seed: int
    noise_std: float


def _draw_velocity(law: VelocityLaw, rng: np.random.Generator) -> Velocity:
    x = y = 0.0
    if law.headings:
        heading = law.headings[rng.integers(len(law.headings))]
        angle = 2 * math.pi * (heading + rng.uniform(-law.heading_spread, law.heading_spread))
        speed = rng.uniform(*law.speed)
        x, y = speed * math.cos(angle), speed * math.sin(angle)
    return Velocity(x, y, rng.uniform(*law.turn), rng.uniform(*law.cycle))


def clip_parameters(seed: int, split: str, index: int) -> MotionClip:
    """Parameters of video `index` of a split; its label is index modulo the number of classes."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    label = index % len(CLASSES)
    law = CLASSES[label].velocity
    if law is None:
        laws = [c.velocity for c in CLASSES if c.velocity is not None]
        law = laws[rng.integers(len(laws))]
    velocity = _draw_velocity(law, rng)

    # From here on nothing depends on the label or the velocity: that is the whole argument for "no single
    # frame tells".
    x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
    # The second object is about half a torus away, so that no square crop misses both.
    dx, dy = WIDTH / 2 + rng.uniform(-6, 6), HEIGHT / 2 + rng.uniform(-6, 6)
    objects = (
        ObjectState(x, y, rng.uniform(), rng.uniform()),
        ObjectState((x + dx) % WIDTH, (y + dy) % HEIGHT, rng.uniform(), rng.uniform()),
    )
    palette = tuple(
        colorsys.hsv_to_rgb(
            (hue + rng.uniform(-0.04, 0.04)) % 1.0, rng.uniform(0.75, 1.0), rng.uniform(0.75, 1.0)
        )
        for hue in (0.0, 1 / 3, 2 / 3)
    )
    return MotionClip(
        label=label,
        shape=CLASSES[label].shape,
        objects=objects,
        velocity=velocity,
        radius=rng.uniform(9.0, 12.5),
        palette=palette,
        background_seed=int(rng.integers(2**31)),
        background_contrast=rng.uniform(0.08, 0.24),
        noise_seed=int(rng.integers(2**31)),
        noise_std=rng.uniform(0.004, 0.016),
    )


def reverse(clip: MotionClip) -> MotionClip:
    """The clip seen backwards: it starts in the last frame's state and moves with the opposite velocity."""
    v, seconds = clip.velocity, (NUM_FRAMES - 1) / FPS
    objects = tuple(
        ObjectState(
            (o.x + v.x * seconds) % WIDTH,
            (o.y + v.y * seconds) % HEIGHT,
            (o.turn + v.turn * seconds) % 1.0,
            (o.cycle + v.cycle * seconds) % 1.0,
        )
        for o in clip.objects
    )
    partner = next(i for i, c in enumerate(CLASSES) if c.name == CLASSES[clip.label].reversed_name)
    return replace(clip, label=partner, objects=objects, velocity=Velocity(-v.x, -v.y, -v.turn, -v.cycle))


def _background(clip: MotionClip) -> np.ndarray:
    """A still, dull texture of smooth blobs and grain, float32 (H, W, 3) in 0..1."""
    rng = np.random.default_rng(clip.background_seed)
    base = rng.uniform(0.3, 0.6)
    texture = np.full((HEIGHT, WIDTH, 3), base, dtype=np.float32)
    for rows, columns in ((4, 5), (16, 20)):
        grid = rng.standard_normal((rows, columns, 1)) + 0.4 * rng.standard_normal((rows, columns, 3))
        ys = (np.arange(HEIGHT) + 0.5) * rows / HEIGHT - 0.5
        xs = (np.arange(WIDTH) + 0.5) * columns / WIDTH - 0.5
        texture += clip.background_contrast / 2 * _bilinear(grid.astype(np.float32), ys, xs)
    return np.clip(texture, 0.05, 0.85)


def _bilinear(grid: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    def interpolate(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        at = np.clip(at, 0, len(values) - 1)
        low = np.minimum(at.astype(np.int64), len(values) - 2)
        weight = (at - low).astype(np.float32).reshape(-1, 1, 1)
        return values[low] * (1 - weight) + values[low + 1] * weight

    rows = interpolate(grid, ys)  # (H, columns, 3)
    return interpolate(rows.transpose(1, 0, 2), xs).transpose(1, 0, 2)


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Distance in pixels to the edge, negative inside; (u, v) are coordinates in the object's own axes."""
    if shape == "half_disc":
        return np.maximum(np.sqrt(u * u + v * v) - radius, -u - 0.15 * radius)
    if shape == "ring":
        return np.abs(np.sqrt(u * u + v * v) - 0.75 * radius) - 0.22 * radius
    if shape == "cross":
        u, v = np.abs(u), np.abs(v)
        return np.minimum(
            np.maximum(u - radius, v - 0.28 * radius), np.maximum(v - radius, u - 0.28 * radius)
        )
    raise ValueError(f"unknown shape {shape!r}")


def _colours(palette: np.ndarray, cycle: np.ndarray) -> np.ndarray:
    """Palette colour at each place in the cycle, (T,) -> (T, 3); each fades into the next at its end."""
    place = (cycle % 1.0) * 3
    event = np.minimum(place.astype(np.int64), 2)
    fade = np.clip((place - event - 0.8) / 0.2, 0, 1)[:, None]
    return palette[event] * (1 - fade) + palette[(event + 1) % 3] * fade


def render(clip: MotionClip) -> np.ndarray:
    """uint8 (NUM_FRAMES, HEIGHT, WIDTH, 3), edges antialiased. A pure function of the parameters."""
    background = _background(clip).transpose(2, 0, 1)
    noise = np.random.default_rng(clip.noise_seed)
    frames = np.empty((NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    step = 4  # the arrays of a few frames stay in the cache
    for first in range(0, NUM_FRAMES, step):
        images = _draw(clip, background, np.arange(first, min(first + step, NUM_FRAMES)) / FPS)
        if clip.noise_std > 0:
            shape = (len(images), 1, HEIGHT, WIDTH)
            images += np.float32(clip.noise_std) * noise.standard_normal(shape, dtype=np.float32)
        images *= 255
        images += 0.5
        np.clip(images, 0, 255, out=images)
        frames[first : first + step] = images.transpose(0, 2, 3, 1)
    return frames


def _draw(clip: MotionClip, background: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The images at some times, without noise: float32 (len(seconds), 3, H, W) in 0..1."""
    images = np.repeat(background[None], len(seconds), axis=0)
    palette = np.asarray(clip.palette)
    velocity = clip.velocity
    for start in clip.objects:
        x = (start.x + velocity.x * seconds)[:, None]
        y = (start.y + velocity.y * seconds)[:, None]
        # Nearest copy on the torus: an object that leaves on one side enters on the other.
        dx = ((np.arange(WIDTH) + 0.5 - x + WIDTH / 2) % WIDTH - WIDTH / 2).astype(np.float32)[:, None, :]
        dy = ((np.arange(HEIGHT) + 0.5 - y + HEIGHT / 2) % HEIGHT - HEIGHT / 2).astype(np.float32)[:, :, None]
        angle = 2 * math.pi * (start.turn + velocity.turn * seconds)
        cos, sin = (f(angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
        distance = _signed_distance(clip.shape, cos * dx + sin * dy, cos * dy - sin * dx, clip.radius)
        cover = np.clip(0.5 - distance, 0, 1)[:, None]
        colour = _colours(palette, start.cycle + velocity.cycle * seconds).astype(np.float32)[
            :, :, None, None
        ]
        images += cover * (colour - images)
    return images


def write_video(path: str | os.PathLike[str], frames: np.ndarray, *, fps: int = FPS) -> None:
    """Encode uint8 frames (T, H, W, 3) of even size as H.264, yuv420p."""
    import av

    with av.open(os.fspath(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "20", "preset": "veryfast", "g": "12"}
        )
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def default_root() -> Path:
    """$VIDFORMERS_CACHE or ~/.cache/vidformers."""
    cache = os.environ.get("VIDFORMERS_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "vidformers"


def ensure_motion_dataset(
    root: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    videos_per_class: Mapping[str, int] = VIDEOS_PER_CLASS,
    progress: bool = True,
) -> Path:
    """Directory of the dataset, rendered now if it is not there yet.

    root: where it is kept; None means `default_root()/motion`. Every choice of seed and sizes has its own
    directory below it, holding {train,val,test}.csv (`path label`, paths relative to the directory: read them
    with it as prefix), classes.json and videos/<split>/*.mp4. The directory appears under its name only when
    complete, so an interrupted generation is simply done again; a lock makes a second process wait for the
    first.
    """
    from iopath.common.file_io import file_lock

    unknown = sorted(set(videos_per_class) - set(SPLITS))
    if unknown or any(videos_per_class.get(split, 0) < 1 for split in SPLITS):
        raise ValueError(
            f"videos_per_class={dict(videos_per_class)}; give a number >= 1 for each of {', '.join(SPLITS)}"
        )
    base = Path(root) if root is not None else default_root() / "motion"
    settings = {
        "version": VERSION,
        "seed": seed,
        "videos_per_class": {split: videos_per_class[split] for split in SPLITS},
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "size": [HEIGHT, WIDTH],
        "classes": [asdict(c) for c in CLASSES],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    final = base / f"v{VERSION}-{digest}"
    if (final / "complete.json").is_file():
        return final
    base.mkdir(parents=True, exist_ok=True)
    with file_lock(os.fspath(final)):
        if (final / "complete.json").is_file():
            return final
        partial = base / f"{final.name}.partial"
        for leftover in (partial, final):
            if leftover.exists():
                shutil.rmtree(leftover)
        _write_dataset(partial, seed=seed, videos_per_class=videos_per_class, progress=progress)
        (partial / "complete.json").write_text(json.dumps(settings, indent=1) + "\n")
        partial.rename(final)
    return final


def _write_dataset(
    directory: Path, *, seed: int, videos_per_class: Mapping[str, int], progress: bool
) -> None:
    from tqdm import tqdm

    total = len(CLASSES) * sum(videos_per_class[split] for split in SPLITS)
    with tqdm(total=total, desc="rendering the motion dataset", unit="video", disable=not progress) as bar:
        for split in SPLITS:
            (directory / "videos" / split).mkdir(parents=True)
            rows = []
            for index in range(videos_per_class[split] * len(CLASSES)):
                clip = clip_parameters(seed, split, index)
                name = f"videos/{split}/{index:05d}.mp4"
                write_video(directory / name, render(clip))
                rows.append(f"{name} {clip.label}\n")
                bar.update()
            (directory / f"{split}.csv").write_text("".join(rows))
    entries = [
        {"label": i, "name": c.name, "group": c.group, "reversed": c.reversed_name}
        for i, c in enumerate(CLASSES)
    ]
    (directory / "classes.json").write_text(json.dumps({"classes": entries}, indent=1) + "\n")
