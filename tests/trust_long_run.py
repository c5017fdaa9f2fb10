"""Long runs: many tiny clips through loader and model, and what the process holds meanwhile.

Everything is in one process, without workers, which start anew each epoch and would hide a leak.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.data.video_files import write_video


@dataclass(frozen=True)
class Sample:
    """What the process holds after so many clips. in_use: of the heap, what has not been given back to it;
    0 without glibc."""

    clips: int
    megabytes: float
    in_use: float
    files: int
    threads: int


def make_clips(folder: Path, *, num_clips: int, num_files: int = 20) -> list[Path]:
    """`num_clips` names of `num_files` files, a quarter of them MPEG-4, of 12 frames of 64 x 48 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [
        write_video(folder / f"file_{n}.mp4", codec="mpeg4" if n % 4 == 0 else "libx264", num_frames=12)
        for n in range(num_files)
    ]
    names = []
    for number in range(num_clips):
        name = folder / f"clip_{number:05d}.mp4"
        if not name.exists():
            name.hardlink_to(made[number % num_files])
        names.append(name)
    return names


def make_frame_folders(folder: Path, *, num_clips: int, num_files: int = 20) -> list[Path]:
    """The same for the reader of extracted frames: names of `num_files` folders of 12 pictures."""
    from PIL import Image

    made = [folder / f"folder_{number}" for number in range(num_files)]
    for number, one in enumerate(made):
        one.mkdir(parents=True)
        for frame in np.random.default_rng(number).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8):
            Image.fromarray(frame).save(one / f"{len(list(one.iterdir())) + 1:05d}.jpg")
    names = [folder / f"clip_{number:05d}" for number in range(num_clips)]
    for number, name in enumerate(names):
        name.symlink_to(made[number % num_files])
    return names


def long_run(clips: list[Path], *, backend: str, epochs: int, every: int) -> list[Sample]:
    """Trains a tiny model on all `clips`, `epochs` times; a sample each `every` clips."""
    from vidformers.data.datasets.clips import TrainClips, collate_train
    from vidformers.data.loader import build_loader
    from vidformers.data.records import Record
    from vidformers.data.transforms import normalize_clips
    from vidformers.models import create_model

    records = [Record(str(path), number % 2, path.name) for number, path in enumerate(clips)]
    dataset = TrainClips(
        records,
        num_frames=4,
        sampling_rate=2,
        crop_size=32,
        jitter_scales=(36, 40),
        rand_augment="rand-m7-n2-mstd0.5-inc1",
        backend=backend,
    )
    loader = build_loader(
        dataset,
        batch_size=10,
        shuffle=True,
        num_workers=0,
        pin_memory=False,
        seed=0,
        drop_last=True,
        collate_fn=collate_train,
    )
    model = create_model("mvit_tiny", num_classes=2, num_frames=4, image_size=32, embed_dim=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    samples, done = [], 0
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            assert batch["clip"].shape == (10, 3, 4, 32, 32) and not batch["failures"]
            clip = normalize_clips(batch["clip"], mean=(0.45,) * 3, std=(0.225,) * 3)
            loss = torch.nn.functional.cross_entropy(model(clip), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 10
            if done % every == 0:
                samples.append(now(done))
    return samples


def now(clips: int) -> Sample:
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    return Sample(clips, _megabytes(), _in_use(), files, _threads())


def _megabytes() -> float:
    if sys.platform != "linux":
        return 0.0
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1e3


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33, see mallinfo(3)."""

    _fields_ = [
        ("arena", ctypes.c_size_t), ("ordblks", ctypes.c_size_t), ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t), ("hblkhd", ctypes.c_size_t), ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t), ("uordblks", ctypes.c_size_t), ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]  # fmt: skip


def _in_use() -> float:
    info = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if info is None:
        return 0.0
    info.restype = _MallInfo
    found = info()
    return (found.uordblks + found.hblkhd) / 1e6


def _threads() -> int:
    """Of Python and of every library."""
    if sys.platform != "linux":
        return threading.active_count()
    return len(list(Path("/proc/self/task").iterdir()))


def slope(samples: list[Sample], name: str = "megabytes") -> float:
    """Megabytes gained in a thousand clips, by least squares over the second half of the run: the first fills
    caches and pools."""
    late = samples[len(samples) // 2 :]
    clips, megabytes = ([getattr(s, of) for s in late] for of in ("clips", name))
    return float(np.polyfit(clips, megabytes, 1)[0]) * 1000


def row(backend: str, samples: list[Sample], *, num_clips: int, epochs: int) -> dict[str, object]:
    """A backend's figures."""
    late = samples[len(samples) // 2 :]
    return {
        "backend": backend,
        "clips": num_clips,
        "epochs": epochs,
        "megabytes_early": round(samples[0].megabytes, 1),
        "megabytes_late": round(samples[-1].megabytes, 1),
        "megabytes_per_thousand_clips": round(slope(samples), 3),
        "in_use_per_thousand_clips": round(slope(samples, "in_use"), 3),
        "files": [min(s.files for s in late), max(s.files for s in late)],
        "threads": [min(s.threads for s in late), max(s.threads for s in late)],
    }
