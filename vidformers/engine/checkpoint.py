"""Checkpoints of a run: written atomically, read without executing anything, newest readable one first.

A file holds plain data and tensors only, so that `torch.load(weights_only=True)` reads it:
`model`, `optimizer` and `scaler` state dicts, `epoch` (finished epochs), `num_classes`,
`class_names` (or None), `config` (YAML text) and `vidformers` (the version that wrote it).
"""

import os
import re
from pathlib import Path
from typing import Any

import torch

from vidformers.engine.logs import say

_NAME = re.compile(r"checkpoint_epoch_(\d+)\.pyth$")


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """PySlowFast's file name for the state after `epoch` finished epochs."""
    return folder / f"checkpoint_epoch_{epoch:05d}.pyth"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old files whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def list_checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.match(path.name))


def load_newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in `folder` that can be read, or None when there is none at all.

    A damaged file is named and the one before it is used. Raises ValueError when files exist and none can
    be read: starting again from nothing would silently throw the run away.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises half a dozen types for a damaged file
            say(f"Checkpoint {path} cannot be read ({type(error).__name__}); trying the one before it.")
            continue
        return path, state
    if paths:
        raise ValueError(
            f"None of the {len(paths)} checkpoints in {folder} can be read. Delete them to start afresh, or "
            "set TRAIN.AUTO_RESUME False and another OUTPUT_DIR."
        )
    return None
