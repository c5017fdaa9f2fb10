"""A folder with one subfolder of videos a class: no list needed."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidformers.data.paths import path_manager
from vidformers.data.records import VIDEO_EXTENSIONS, Classes, Record, VideoList, class_order
from vidformers.files import write_text_atomically

HELD_OUT = 0.2  # of each class, where the folder has no split of its own


def load_folder(root: str, split: str, *, split_file: Path, new_split: bool, seed: int) -> VideoList:
    """one subfolder of videos a class, or such subfolders in train/, val/ and test/

    Where there is no train, val or test, the class folders are one list, of which a run that trains on it
    (`new_split`) holds out 20 % of each class by `seed`. What is held out is written to `split_file`, and
    read from there by later runs, so that none tests what another has trained on; without that file and
    without `new_split` every split is the whole list. classes.txt or classes.json in `root` sets the order of
    the classes.
    """
    isdir = path_manager().isdir
    have = {name: os.path.join(root, name) for name in ("train", "val", "test")}
    have = {name: path for name, path in have.items() if isdir(path)}
    if have:
        # Labels are places among the classes of all splits: a split may lack some of them.
        names = class_folders(have["train"]) if "train" in have else None
        names = names or sorted({name for path in have.values() for name in class_folders(path)})
        names = class_order(root, names)
        # A missing val or test folder falls back to the other held-out one, never to the training videos.
        for candidate in (split,) if split == "train" else (split, "val", "test"):
            if candidate in have:
                records, names = scan_folder(have[candidate], names)
                return VideoList(records, Classes(names), have[candidate])
        raise FileNotFoundError(
            f"{root} has the folders {', '.join(have)}, but none for {split}; add "
            f"{os.path.join(root, split)} with one subfolder of videos a class."
        )
    records, names = scan_folder(root, class_order(root, class_folders(root)) or None)
    held_out: set[str] = set()
    notes: list[str] = []
    if split_file.is_file():
        content = json.loads(split_file.read_text())
        listed = set(content["held_out"])
        if _place(content["root"]) == _place(root) or listed <= {record.video_id for record in records}:
            held_out = listed  # a folder that has moved keeps its split
        elif new_split:
            raise ValueError(
                f"{split_file} is the split of another folder, {content['root']}, on which a run has trained "
                f"there; set another OUTPUT_DIR to train on {root}"
            )
        else:
            notes.append(f"{split_file} is of {content['root']}, another folder: all of {root} is listed.")
    if not held_out and not new_split:
        return VideoList(records, Classes(names), root, tuple(notes))
    if not held_out:
        _, out = stratified_split(records, held_out_fraction=HELD_OUT, seed=seed)
        if not out:
            raise ValueError(
                f"no class of {root} has two videos, so that none can be held out to validate on; add "
                "videos, or make train/ and val/ folders of class folders"
            )
        held_out = {record.video_id for record in out}
        split_file.parent.mkdir(parents=True, exist_ok=True)
        content = {"root": _place(root), "seed": seed, "held_out": sorted(held_out)}
        write_text_atomically(split_file, json.dumps(content, indent=2) + "\n")
        notes.append(
            f"{root} has no train, val and test folders: {len(out)} of {len(records)} videos are held out, "
            f"{HELD_OUT:.0%} of each class (seed {seed}), listed in {split_file}."
        )
    chosen = [record for record in records if (record.video_id in held_out) != (split == "train")]
    part = "training" if split == "train" else "held-out"
    if not chosen:
        raise ValueError(
            f"{split_file} leaves no video of {root} for the {part} part; delete it for a new split, which "
            "begins a new run (another OUTPUT_DIR)"
        )
    return VideoList(chosen, Classes(names), f"{root} ({part} part)", tuple(notes))


def _place(root: str) -> str:
    """One name for a folder, however it was written."""
    return os.path.realpath(root) if os.path.isdir(root) else root.rstrip("/")


def class_folders(root: str) -> list[str]:
    """Names of the subfolders of `root` in natural order (class2 before class10), hidden ones left out."""
    return [name for name in _listing(root) if path_manager().isdir(os.path.join(root, name))]


def scan_folder(root: str, class_names: Sequence[str] | None = None) -> tuple[list[Record], list[str]]:
    """Records and class names of `root`/<class>/<video>.

    The label of a class is its place in `class_names` (when None: in the natural order of the folders), so
    that splits that hold different classes agree; `video_id` is the path below `root`. Hidden entries and
    files that are not videos by their extension are passed over. Raises FileNotFoundError or ValueError that
    say what was found, also for a folder that is not in `class_names`.
    """
    root = os.fspath(root)
    paths = path_manager()
    wanted = "wanted is a folder with one subfolder a class, each holding video files: class_name/video.mp4"
    if not paths.isdir(root):
        raise FileNotFoundError(f"there is no folder '{root}'; {wanted}")
    folders = class_folders(root)
    if not folders:
        raise ValueError(f"'{root}' has no subfolder; {wanted}")
    names = list(folders if class_names is None else class_names)
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise ValueError(
            f"'{root}' has class folders that are not among the {len(names)} known classes: "
            f"{', '.join(unknown[:5])}; the known ones are {', '.join(names[:5])}, ..."
        )
    records = []
    for name in folders:
        label = names.index(name)
        for file_name in _listing(os.path.join(root, name)):
            if file_name.lower().endswith(VIDEO_EXTENSIONS):
                video_id = f"{name}/{file_name}"
                records.append(Record(os.path.join(root, name, file_name), label, video_id))
    if not records:
        raise ValueError(
            f"no video file in the {len(folders)} subfolders of '{root}' (such as '{folders[0]}'); {wanted}. "
            f"Known extensions: {' '.join(VIDEO_EXTENSIONS)}"
        )
    return records, names


def passed_over(records: Sequence[Record]) -> Counter[str]:
    """How many entries `scan_folder` has passed over beside `records`, by extension; "folder" for folders."""
    isdir = path_manager().isdir
    found: Counter[str] = Counter()
    for root in sorted({os.path.dirname(os.path.dirname(record.path)) for record in records}):
        for folder in (os.path.join(root, name) for name in class_folders(root)):
            for name in _listing(folder):
                if isdir(os.path.join(folder, name)):
                    found["folder"] += 1
                elif not name.lower().endswith(VIDEO_EXTENSIONS):
                    found[os.path.splitext(name)[1].lower() or "without extension"] += 1
    return found


def _listing(directory: str) -> list[str]:
    names = (name for name in path_manager().ls(directory) if not name.startswith("."))
    return sorted(names, key=_natural_key)


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"([0-9]+)", name.casefold())
    # Numbers before letters at the same place, as file managers sort; the name itself settles ties such as 1
    # and 01.
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p], name


def stratified_split(
    records: Sequence[Record], *, held_out_fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Split into (rest, held out), class by class, by seed.

    At least one video of each class that has two or more is held out, and at least one stays; a class with a
    single video stays whole. Both parts keep the order of `records`.
    """
    if not 0 < held_out_fraction < 1:
        raise ValueError(f"held_out_fraction={held_out_fraction}; use a number between 0 and 1, such as 0.2")
    held_out: set[int] = set()
    labels = np.array([record.label for record in records], dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(held_out_fraction * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        held_out.update(members[order[:count]].tolist())
    rest = [record for i, record in enumerate(records) if i not in held_out]
    return rest, [record for i, record in enumerate(records) if i in held_out]
