"""The generated dataset `motion`: small H.264 videos whose classes have a known answer about time.

Six half discs on a jittered grid move over a still background. A clip's state is (position of the grid on a
torus, place in a cycle of three colours), and a clip moves the state with a constant velocity: state(t) =
state(0) + velocity * t. The state at frame 0 is uniform on its torus and independent of the velocity, hence
uniform at every frame. Of the classes

* `direction`, `order` and `speed` differ in the law of the velocity alone, so that no single frame, at
  whatever index, carries information about which of them a clip belongs to;
* `direction` and `order` come in pairs with opposite velocities: a reversed clip is a valid draw of the
  partner, with the same density. Reversal maps each `speed` and each `appearance` class onto itself;
* `appearance` has a pattern on the background, visible in each frame, and any velocity of the others.

Any second of a clip shows the class. (Encoding is lossy and predicts forwards in time, so the statement about
single frames is exact for what is drawn and nearly so for what is decoded; the quality is high for that
reason.)

`clip_parameters` is a pure function of (seed, split, index), `render` of the parameters;
`ensure_motion_dataset` writes the files once. The classes follow the tests of time reversal and event order
in "Only Time Can Tell" (Sevilla-Lara et al. 2021) and the arrow of time (Wei et al. 2018), with exact ground
truth.
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
VERSION = 2


@dataclass(frozen=True)
class VelocityLaw:
    """A uniform law over velocities.

    headings: directions of travel in turns (0 = right, 0.25 = down), one of which is drawn, +-
    heading_spread;
    speed: range in pixels a second; cycle: range in colour cycles a second, against the order if negative.
    """

    headings: tuple[float, ...] = ()
    heading_spread: float = 0.0
    speed: tuple[float, float] = (0.0, 0.0)
    cycle: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class MotionClass:
    """One class: its name, its group, the class that its reversed clips belong to, and what defines it.

    background: "plain", "stripes" or "checks". velocity: its law; None for any that occurs in the other
    groups.
    """

    name: str
    group: str
    reversed_name: str
    background: str
    velocity: VelocityLaw | None


def _travel(*headings: float, low: float = 12.0, high: float = 22.0) -> VelocityLaw:
    return VelocityLaw(headings=headings, heading_spread=0.03, speed=(low, high))


_DIAGONALS = (0.125, 0.375, 0.625, 0.875)

CLASSES: tuple[MotionClass, ...] = (
    MotionClass("stripes", "appearance", "stripes", "stripes", None),
    MotionClass("checks", "appearance", "checks", "checks", None),
    MotionClass("right", "direction", "left", "plain", _travel(0.0)),
    MotionClass("left", "direction", "right", "plain", _travel(0.5)),
    MotionClass("down", "direction", "up", "plain", _travel(0.25)),
    MotionClass("up", "direction", "down", "plain", _travel(0.75)),
    MotionClass("red_green_blue", "order", "red_blue_green", "plain", VelocityLaw(cycle=(0.55, 0.75))),
    MotionClass("red_blue_green", "order", "red_green_blue", "plain", VelocityLaw(cycle=(-0.75, -0.55))),
    MotionClass("slow", "speed", "slow", "plain", _travel(*_DIAGONALS, low=5.0, high=8.0)),
    MotionClass("fast", "speed", "fast", "plain", _travel(*_DIAGONALS, low=26.0, high=36.0)),
)


@dataclass(frozen=True)
class Velocity:
    """Change of the state a second: x, y in pixels, cycle in colour cycles."""

    x: float
    y: float
    cycle: float


@dataclass(frozen=True)
class Shape:
    """A half disc: its place relative to the grid's origin (pixels) and its orientation (turns)."""

    x: float
    y: float
    turn: float


@dataclass(frozen=True)
class MotionClip:
    """Everything that determines a clip's pixels.

    x, y, cycle: the state at frame 0: the grid's origin (pixels, on a torus of WIDTH x HEIGHT) and the place
    in the colour cycle (cycles). The rest does not change within the clip.
    """

    label: int
    x: float
    y: float
    cycle: float
    velocity: Velocity
    shapes: tuple[Shape, ...]
    radius: float
    palette: tuple[tuple[float, float, float], ...]
    background: str
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
    return Velocity(x, y, rng.uniform(*law.cycle))


def clip_parameters(seed: int, split: str, index: int) -> MotionClip:
    """Parameters of video `index` of a split; its label is index modulo the number of classes."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    label = index % len(CLASSES)
    law = CLASSES[label].velocity
    if law is None:
        laws = [c.velocity for c in CLASSES if c.velocity is not None]
        law = laws[rng.integers(len(laws))]
    velocity = _draw_velocity(law, rng)

    # From here on nothing but the background's pattern depends on the label, and nothing on the velocity:
    # that is the whole argument for "no single frame tells".
    columns, rows = 3, 2
    shapes = tuple(
        Shape(
            (column + rng.uniform(-0.15, 0.15)) * WIDTH / columns,
            (row + rng.uniform(-0.15, 0.15)) * HEIGHT / rows,
            rng.uniform(),
        )
        for row in range(rows)
        for column in range(columns)
    )
    palette = tuple(
        colorsys.hsv_to_rgb(
            (hue + rng.uniform(-0.04, 0.04)) % 1.0, rng.uniform(0.75, 1), rng.uniform(0.75, 1)
        )
        for hue in (0.0, 1 / 3, 2 / 3)
    )
    return MotionClip(
        label=label,
        x=rng.uniform(0, WIDTH),
        y=rng.uniform(0, HEIGHT),
        cycle=rng.uniform(),
        velocity=velocity,
        shapes=shapes,
        radius=rng.uniform(8.0, 10.5),
        palette=palette,
        background=CLASSES[label].background,
        background_seed=int(rng.integers(2**31)),
        background_contrast=rng.uniform(0.03, 0.12),
        noise_seed=int(rng.integers(2**31)),
        noise_std=rng.uniform(0.004, 0.016),
    )


def state_at(clip: MotionClip, seconds: float) -> tuple[float, float, float]:
    """(x, y, cycle) at a time after frame 0, each within its period."""
    v = clip.velocity
    return (
        (clip.x + v.x * seconds) % WIDTH,
        (clip.y + v.y * seconds) % HEIGHT,
        (clip.cycle + v.cycle * seconds) % 1.0,
    )


def reverse(clip: MotionClip) -> MotionClip:
    """The clip seen backwards: it starts in the last frame's state and moves with the opposite velocity."""
    v = clip.velocity
    x, y, cycle = state_at(clip, (NUM_FRAMES - 1) / FPS)
    partner = next(i for i, c in enumerate(CLASSES) if c.name == CLASSES[clip.label].reversed_name)
    return replace(clip, label=partner, x=x, y=y, cycle=cycle, velocity=Velocity(-v.x, -v.y, -v.cycle))


def _background(clip: MotionClip) -> np.ndarray:
    """A still, dull texture of smooth blobs and the pattern of the class, float32 (H, W, 3) in 0..1."""
    rng = np.random.default_rng(clip.background_seed)
    texture = np.full((HEIGHT, WIDTH, 3), rng.uniform(0.3, 0.6), dtype=np.float32)
    ys, xs = np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5
    for rows, columns in ((4, 5), (16, 20)):
        grid = rng.standard_normal((rows, columns, 1)) + 0.4 * rng.standard_normal((rows, columns, 3))
        texture += (clip.background_contrast / 2) * _bilinear(
            grid.astype(np.float32), ys * rows / HEIGHT - 0.5, xs * columns / WIDTH - 0.5
        )
    if clip.background != "plain":
        period = 8.0
        wave = np.sign(np.sin(2 * math.pi * (ys + rng.uniform(0, period)) / period))[:, None]
        across = np.sign(np.sin(2 * math.pi * (xs + rng.uniform(0, period)) / period))[None]
        wave = wave * (across if clip.background == "checks" else np.ones_like(across))
        texture += 0.1 * wave[:, :, None].astype(np.float32)
    return np.clip(texture, 0.05, 0.85)


def _bilinear(grid: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    def interpolate(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        at = np.clip(at, 0, len(values) - 1)
        low = np.minimum(at.astype(np.int64), len(values) - 2)
        weight = (at - low).astype(np.float32).reshape(-1, 1, 1)
        return values[low] * (1 - weight) + values[low + 1] * weight

    rows = interpolate(grid, ys)  # (H, columns, 3)
    return interpolate(rows.transpose(1, 0, 2), xs).transpose(1, 0, 2)


def _colours(palette: np.ndarray, cycle: np.ndarray) -> np.ndarray:
    """Palette colour at each place in the cycle, (T,) -> (T, 3); each fades into the next at its end."""
    place = (cycle % 1.0) * 3
    event = np.minimum(place.astype(np.int64), 2)
    fade = np.clip((place - event - 0.8) / 0.2, 0, 1)[:, None]
    return palette[event] * (1 - fade) + palette[(event + 1) % 3] * fade


def render(clip: MotionClip) -> np.ndarray:
    """uint8 (NUM_FRAMES, HEIGHT, WIDTH, 3), edges antialiased. A pure function of the parameters."""
    seconds = np.arange(NUM_FRAMES) / FPS
    video = np.repeat(_background(clip)[None], NUM_FRAMES, axis=0)
    velocity = clip.velocity
    colour = _colours(np.asarray(clip.palette), clip.cycle + velocity.cycle * seconds).astype(np.float32)
    # Only the square around a shape is drawn; on a torus, what leaves on one side enters on the other.
    reach = math.ceil(clip.radius) + 1
    square = np.arange(-reach, reach + 1)
    frames = np.arange(NUM_FRAMES)[:, None, None]
    for shape in clip.shapes:
        x, y = (
            (start + offset + speed * seconds)[:, None]
            for start, offset, speed in ((clip.x, shape.x, velocity.x), (clip.y, shape.y, velocity.y))
        )
        columns, rows = np.floor(x) + square, np.floor(y) + square
        dx = (columns + 0.5 - x).astype(np.float32)[:, None, :]
        dy = (rows + 0.5 - y).astype(np.float32)[:, :, None]
        at = (
            frames,
            (rows.astype(np.int64) % HEIGHT)[:, :, None],
            (columns.astype(np.int64) % WIDTH)[:, None, :],
        )
        angle = 2 * math.pi * shape.turn
        # Signed distance to the edge in pixels, negative inside.
        flat_side = -(math.cos(angle) * dx + math.sin(angle) * dy) - 0.15 * clip.radius
        distance = np.maximum(np.sqrt(dx * dx + dy * dy) - clip.radius, flat_side)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        below = video[at]
        video[at] = below + cover * (colour[:, None, None] - below)
    if clip.noise_std > 0:
        noise = np.random.default_rng(clip.noise_seed).standard_normal(video.shape[:3], dtype=np.float32)
        video += np.float32(clip.noise_std) * noise[..., None]
    video *= 255
    video += 0.5
    return np.clip(video, 0, 255, out=video).astype(np.uint8)


X264_OPTIONS: Mapping[str, str] = {"crf": "20", "preset": "veryfast", "g": "12"}


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    *,
    fps: int = FPS,
    x264_options: Mapping[str, str] = X264_OPTIONS,
) -> None:
    """Encode uint8 frames (T, H, W, 3) of even size as H.264, yuv420p."""
    import av

    with av.open(os.fspath(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=dict(x264_options))
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
