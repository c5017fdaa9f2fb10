"""A folder with one subfolder of videos a class: no list needed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidformers.data.datasets.folder_split import drawn, num_held_out, split_of
from vidformers.data.paths import near_it, path_manager
from vidformers.data.records import VIDEO_EXTENSIONS, Classes, Record, VideoList, class_order

_WANTED = "wanted is a folder with one subfolder a class, each holding video files: class_name/video.mp4"


def load_folder(
    root: str,
    split: str,
    *,
    split_file: Path,
    new_split: bool,
    seed: int,
    weights_split: Path | None = None,
) -> VideoList:
    """one subfolder of videos a class, or such subfolders in train/, val/ and test/

    Where there is no train, val or test, the class folders are one list, of which a run that trains on it
    (`new_split`) holds out 20 % of each class by `seed`. What is held out is written to `split_file`, and
    read from there by later runs, so that none tests what another has trained on; videos that have come since
    are added to it. `weights_split` is the same file of the run that the weights come from: it goes first
    where nothing is trained, and begins the `split_file` of a run that trains on from there. Without either
    and without `new_split` every split is the whole list. classes.txt or classes.json in `root` sets the
    order of the classes.
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
    parts, everything, notes = split_of(
        root,
        records,
        split_file=split_file,
        weights_split=weights_split,
        new_split=new_split,
        seed=seed,
    )
    if parts is None:
        return VideoList(records, Classes(names), everything, tuple(notes))
    chosen = [record for record in records if parts.has(record, split)]
    part = "training" if split == "train" else "held-out"
    if not chosen:
        raise ValueError(
            f"the split of {root} ({split_file}) leaves no video for the {part} part; delete it for a new "
            "split, which begins a new run (another OUTPUT_DIR)"
        )
    return VideoList(chosen, Classes(names), f"{root} ({part} part)", tuple(notes))


def class_folders(root: str) -> list[str]:
    """Names of the subfolders of `root` in natural order (class2 before class10), hidden ones left out.

    Raises FileNotFoundError if there is no such folder.
    """
    if not path_manager().isdir(root):
        raise FileNotFoundError(f"there is no folder '{root}'; {_WANTED}{near_it(root)}")
    return [name for name in _listing(root) if path_manager().isdir(os.path.join(root, name))]


def scan_folder(root: str, class_names: Sequence[str] | None = None) -> tuple[list[Record], list[str]]:
    """Records and class names of `root`/<class>/<video>.

    The label of a class is its place in `class_names` (when None: in the natural order of the folders), so
    that splits that hold different classes agree; `video_id` is the path below `root`. Hidden entries and
    files that are not videos by their extension are passed over. Raises FileNotFoundError or ValueError that
    say what was found, also for a folder that is not in `class_names`.
    """
    root = os.fspath(root)
    folders = class_folders(root)
    if not folders:
        raise ValueError(f"'{root}' has no subfolder; {_WANTED}")
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
            f"no video file in the {len(folders)} subfolders of '{root}' (such as '{folders[0]}'); "
            f"{_WANTED}. Known extensions: {' '.join(VIDEO_EXTENSIONS)}"
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
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p], name


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
        count = num_held_out(len(members), held_out_fraction)
        chosen = drawn(len(members), count, seed=seed, label=int(label))
        held_out.update(members[chosen].tolist())
    rest = [record for i, record in enumerate(records) if i not in held_out]
    return rest, [record for i, record in enumerate(records) if i in held_out]
