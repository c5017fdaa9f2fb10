"""docs/plain_pytorch.md: its code runs, on tiny videos and a tiny model, in the order of the page."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[1] / "docs" / "plain_pytorch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
SMALLER = {
    "mvit_v2_s_16x4": "mvit_tiny",
    "num_frames=16, sampling_rate=4": "num_frames=8, sampling_rate=1",
    "crop_size=224": "crop_size=64",
    "(256, 320)": "(72, 80)",
    "short_side=256": "short_side=72",
    "num_views=5": "num_views=2",
    "num_workers=2": "num_workers=0",
    'accelerator="auto"': 'accelerator="cpu", logger=False, enable_checkpointing=False',
}


def run(block: str, names: dict[str, Any]) -> None:
    for old, new in SMALLER.items():
        block = block.replace(old, new)
    exec(block, names)


@pytest.fixture(scope="module")
def names(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the first block leaves, in the folder that it ran in."""
    folder = tmp_path_factory.mktemp("plain_pytorch")
    for seed in range(8):
        target = folder / "my_videos" / ("even", "odd")[seed % 2]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_dataset / f"video_{seed}.mp4", target)
    left: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.manual_seed(0)
        run(BLOCKS[0], left)
        yield left


def test_everything_that_is_made_smaller_is_on_the_page() -> None:
    assert len(BLOCKS) == 3
    for old in SMALLER:
        assert old in PAGE


def test_training(names: dict[str, Any]) -> None:
    assert names["clips"].shape == (4, 3, 8, 64, 64)
    assert names["class_names"] == ["even", "odd"]
    assert torch.isfinite(names["loss"])


def test_views(names: dict[str, Any]) -> None:
    run(BLOCKS[1], names)
    assert names["clips"].shape == (2, 3, 8, 64, 64)
    assert 0 <= names["accuracy"] <= 1


def test_lightning(names: dict[str, Any]) -> None:
    # Not imported here: the page does it, once torchvision is repaired.
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed")
    run(BLOCKS[2], names)
    assert names["trainer"].global_step == 4
