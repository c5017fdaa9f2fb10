"""mmaction2's lists: `path label` for videos, `folder frames label` for extracted frames."""

from __future__ import annotations

import os
import re

from vidformers.data.datasets.annotations import list_folder, read_lines, video_folder
from vidformers.data.records import NO_LABEL, VIDEO_EXTENSIONS, Record, VideoList, read_classes


def load_mmaction2(root: str, split: str, *, path_prefix: str, split_number: int, backend: str) -> VideoList:
    """lists such as kinetics400_train_list_videos.txt, with one `path label` or `folder frames label` a row

    The list of a split is the one file whose name is `[name_]<split>[_list][_split_<n>][_videos].txt`, with
    _rawframes in place of _videos for backend "frames"; "val" and "test" stand in for each other. Paths start
    at `path_prefix`, else at `root`. Where a row has more than one label (`path 3 17`) every video has a set
    of them; rows of frame folders have one.
    """
    path = _find_list(root, split, split_number, "rawframes" if backend == "frames" else "videos")
    folder = video_folder(root, path_prefix, [])
    rows = [_parse(line, path, number, frames=backend == "frames") for number, line in read_lines(path)]
    if not rows:
        raise ValueError(f"the list '{path}' is empty")
    if any(len(labels) > 1 for _, labels in rows):
        records = [
            Record(os.path.join(folder, name), NO_LABEL, name, tuple(sorted(set(labels))))
            for name, labels in rows
        ]
    else:
        records = [Record(os.path.join(folder, name), labels[0], name) for name, labels in rows]
    return VideoList(records, read_classes(root), path)


def _find_list(root: str, split: str, split_number: int, kind: str) -> str:
    names = list_folder(root) or []
    for part in (split,) if split == "train" else (split, "test" if split == "val" else "val"):
        pattern = rf"(?:.+_)?{part}(?:_list)?(?:_split_{split_number})?(?:_{kind})?\.txt"
        found = sorted(name for name in names if re.fullmatch(pattern, name))
        # A name that says which kind it is goes before one that does not.
        found = [name for name in found if kind in name] or found
        if len(found) == 1:
            return os.path.join(root, found[0])
        if found:
            raise ValueError(
                f"'{root}' has {len(found)} lists for {part}: {', '.join(found[:5])}; leave one of them there"
            )
    raise FileNotFoundError(
        f"'{root}' has no list for {split}; wanted one file such as {split}.txt or "
        f"kinetics400_{split}_list_{kind}.txt"
    )


def _parse(line: str, path: str, number: int, *, frames: bool) -> tuple[str, list[int]]:
    """-> (path or folder, labels)"""
    fields = line.rsplit()
    count = 0
    while count < len(fields) - 1 and fields[-1 - count].isdecimal():
        count += 1
    # Split off as many numbers as there are, so that a path may hold spaces.
    name = line.rsplit(maxsplit=count)[0] if count else line
    numbers = [int(field) for field in fields[len(fields) - count :]]
    if frames and count == 2:
        return name, numbers[1:]
    if not frames and count and name.lower().endswith(VIDEO_EXTENSIONS):
        return name, numbers
    wanted = (
        "`path/video.mp4 label` (or several labels); for folders of frames set DATA.DECODING_BACKEND frames"
    )
    if frames:
        wanted = "`folder frames label` (no offset, one label)"
    raise ValueError(f"'{path}', line {number} is {line[:200]!r}; wanted {wanted}")
