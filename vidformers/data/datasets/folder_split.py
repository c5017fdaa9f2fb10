"""Which videos of a folder of class folders are held out: folder_split.json, in the folder of the run.

Every video that was there when a run trained is listed, held out or trained on, and keeps its part for good;
one that comes later is dealt to one of the parts by the next training run.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidformers.data.records import Record
from vidformers.files import write_text_atomically

SPLIT_NAME = "folder_split.json"
HELD_OUT = 0.2  # of each class, where the folder has no split of its own


@dataclass(frozen=True)
class FolderSplit:
    """root: the folder of videos; the parts hold paths below it. train: None in files of older versions, of
    which it is all that is not held out."""

    root: str
    seed: int
    held_out: frozenset[str]
    train: frozenset[str] | None

    def is_of(self, root: str, records: Sequence[Record]) -> bool:
        """Whether the videos of `root`, `records`, are those that were split; the folder may have moved."""
        here = {record.video_id for record in records}
        return place_of(self.root) == place_of(root) or self.held_out <= here

    def has(self, record: Record, split: str) -> bool:
        """Whether a video is in the training part, or for "val" and "test" in the held-out one."""
        if split != "train":
            return record.video_id in self.held_out
        return record.video_id not in self.held_out if self.train is None else record.video_id in self.train

    def unknown(self, records: Sequence[Record]) -> list[Record]:
        """Those of `records` that have come since."""
        if self.train is None:
            return []
        return [r for r in records if r.video_id not in self.held_out and r.video_id not in self.train]

    def extended(self, root: str, records: Sequence[Record]) -> FolderSplit:
        """With those of `records` that have come since; as many of them are held out as their class lacks.

        What is listed keeps its part, also where its file is not there at the moment.
        """
        new = {record.video_id for record in self.unknown(records)}
        classes: dict[int, list[str]] = defaultdict(list)
        for record in records:
            classes[record.label].append(record.video_id)
        held_out = set(self.held_out)
        for label, members in classes.items():
            dealt = [name for name in members if name in new]
            wanted = num_held_out(len(members), HELD_OUT) - sum(name in self.held_out for name in members)
            held_out.update(dealt[i] for i in drawn(len(dealt), wanted, seed=self.seed, label=label))
        listed = {record.video_id for record in records} | (self.train or set())
        return FolderSplit(place_of(root), self.seed, frozenset(held_out), frozenset(listed - held_out))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "root": self.root,
            "seed": self.seed,
            "held_out": sorted(self.held_out),
            "train": sorted(self.train or ()),
        }
        write_text_atomically(path, json.dumps(content, indent=2) + "\n")


def read_split(path: Path | None) -> FolderSplit | None:
    """The split in a file, None if there is no such file; ValueError if it holds something else."""
    if path is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        train = frozenset(map(str, content["train"])) if "train" in content else None
        held_out = frozenset(map(str, content["held_out"]))
        return FolderSplit(str(content["root"]), int(content["seed"]), held_out, train)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} does not hold a split ({type(error).__name__}: {error}); wanted root, seed, held_out "
            "and train, as a training run writes them: put its file back, or set another OUTPUT_DIR"
        ) from error


def split_of(
    root: str,
    records: Sequence[Record],
    *,
    split_file: Path,
    weights_split: Path | None,
    new_split: bool,
    seed: int,
) -> tuple[FolderSplit | None, str, list[str]]:
    """-> (the split of `root`, None if there is none; what to call all its videos then; notes for people).

    The arguments are those of `load_folder`.
    """
    own, theirs = read_split(split_file), read_split(weights_split)
    if new_split:
        if own and not own.is_of(root, records):
            raise ValueError(
                f"{split_file} is the split of another folder, {own.root}, on which a run has trained there; "
                f"set another OUTPUT_DIR to train on {root}"
            )
        start = own or (theirs if theirs and theirs.is_of(root, records) else None)
        return _split_to_train(root, records, own, start, split_file, weights_split, seed)
    found = [(path, it) for path, it in ((weights_split, theirs), (split_file, own)) if path and it]
    for path, it in found:
        if not it.is_of(root, records):
            continue
        notes = []
        if path.resolve() != split_file.resolve():
            notes.append(
                f"The held-out videos of {root} are those of {path}, the run that the weights come from."
            )
        if late := it.unknown(records):
            notes.append(
                f"{len(late)} of the {len(records)} videos of {root}, such as {late[0].video_id}, are not in "
                f"{path}: they have come since and are left out. A training run deals them to its parts."
            )
        return it, root, notes
    if found:
        path, it = found[0]
        return None, root, [f"{path} is of {it.root}, another folder: all of {root} is listed."]
    if weights_split is None:
        return None, root, []
    warning = (
        f"Warning: all {len(records)} videos of {root} are used, and the weights may have been trained on "
        f"them: neither their run nor OUTPUT_DIR has a {SPLIT_NAME}. Give the weights where their run left "
        "them (<run>/checkpoints/...), or a folder of videos that they have not seen, <folder>/test/<class>/."
    )
    return None, f"{root} (all videos, perhaps trained on)", [warning]


def _split_to_train(
    root: str,
    records: Sequence[Record],
    own: FolderSplit | None,
    start: FolderSplit | None,
    split_file: Path,
    weights_split: Path | None,
    seed: int,
) -> tuple[FolderSplit, str, list[str]]:
    """The split of a run that trains: `start`, or a new one, with the videos that it lacks; written."""
    before = start or FolderSplit(place_of(root), seed, frozenset(), frozenset())
    split = before.extended(root, records)
    if not split.held_out:
        raise ValueError(
            f"no class of {root} has two videos, so that none can be held out to validate on; add "
            "videos, or make train/ and val/ folders of class folders"
        )
    if own is None or own.train != split.train or own.held_out != split.held_out:
        split.write(split_file)
    if start is None:
        note = (
            f"{root} has no train, val and test folders: {len(split.held_out)} of {len(records)} videos are "
            f"held out, {HELD_OUT:.0%} of each class (seed {seed}), listed in {split_file}."
        )
        return split, root, [note]
    notes = []
    if own is None:
        notes.append(
            f"What is held out of {root} is taken over from {weights_split}, the run of the weights to start "
            f"from, and listed in {split_file}."
        )
    if new := before.unknown(records):
        held = sum(record.video_id in split.held_out for record in new)
        folders = {record.video_id.partition("/")[0] for record in records} - {
            name.partition("/")[0] for name in before.held_out | (before.train or frozenset())
        }
        of_classes = f" (new classes: {', '.join(sorted(folders))})" if folders else ""
        notes.append(
            f"{len(new)} videos have come to {root} since it was split{of_classes}: {held} of them are held "
            f"out, {len(new) - held} trained on; all others keep their part. Listed in {split_file}."
        )
    return split, root, notes


def num_held_out(count: int, fraction: float) -> int:
    """How many of a class of `count` videos are held out: at least one, and at least one stays."""
    return min(max(1, round(fraction * count)), count - 1)


def drawn(count: int, wanted: int, *, seed: int, label: int) -> list[int]:
    """`wanted` of the numbers below `count` (none if negative, all if there are not so many) by seed."""
    order = np.random.default_rng([seed, label]).permutation(count)
    return [int(number) for number in order[: max(0, wanted)]]


def place_of(root: str) -> str:
    """One name for a folder, however it was written."""
    return os.path.realpath(root) if os.path.isdir(root) else root.rstrip("/")
