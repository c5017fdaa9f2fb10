"""Fixtures that several tests share: a dataset of a few tiny real videos, and a quiet torch."""

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

# Tiny tensors: a second thread only waits, and on a busy machine it waits long.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays, so collections of garbage leave it out: with all of torch each takes a
    good part of a second, and statsmodels asks for one in every call."""
    gc.freeze()


def write_video(path: Path, seed: int, *, num_frames: int = 24, height: int = 48, width: int = 64) -> None:
    """A small H.264 file of a bright square; its course depends on `seed`, the background on `seed % 2`."""
    random = np.random.default_rng(seed)
    start, step = random.integers(0, 20, 2), random.integers(1, 3, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            image = np.full((height, width, 3), (140, 40, 40) if seed % 2 else (40, 40, 140), np.uint8)
            top, left = (start + index * step) % (height - 12, width - 12)
            image[top : top + 12, left : left + 12] = (220, 200, 80)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 8 readable videos of 2 classes, and its three lists in PySlowFast's format."""
    root = tmp_path_factory.mktemp("tiny_dataset")
    rows = []
    for seed in range(8):
        write_video(root / f"video_{seed}.mp4", seed)
        rows.append(f"{root}/video_{seed}.mp4 {seed % 2}")
    for split in ("train", "val", "test"):
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(autouse=True)
def _loggers_speak_again() -> Iterator[None]:
    """The command lines, which tests run in their own process, silence what they say in other words."""
    yield
    logging.getLogger("vidformers.checkpoints").setLevel(logging.NOTSET)
