"""Kinetics-400, -600 and -700 as CVDF distributes them: the official CSV files, videos named by YouTube id.

https://github.com/cvdfoundation/kinetics-dataset
"""

from __future__ import annotations

import os
import re
from collections import Counter

from vidformers.data.datasets.annotations import find_file, list_folder, read_table, video_folder
from vidformers.data.datasets.kinetics import OFFICIAL_COLUMNS
from vidformers.data.paths import path_manager
from vidformers.data.records import VIDEO_EXTENSIONS, Classes, Record, VideoList, class_order

# CVDF's sound copies of the files of Kinetics-400 that are corrupt in its archives.
REPLACEMENTS = os.path.join("replacement", "replacement_for_corrupted_k400")
_STEM = re.compile(r"(.{11})(?:_\d{6}_\d{6})?")


def load_kinetics_cvdf(root: str, split: str, *, path_prefix: str) -> VideoList:
    """annotations/train.csv and val.csv, and the videos in train/ and val/, flat or in class folders

    Rows are `label,youtube_id,time_start,time_end,split`, videos `<youtube_id>_<start:06d>_<end:06d>.mp4`; a
    video whose times differ is taken if it is the only one with its id. Labels are places among the sorted
    class names of both lists, or in classes.txt. "val" and "test" are both val.csv, on which published
    accuracies are measured.
    """
    split = "train" if split == "train" else "val"
    path = find_file(root, [f"{split}.csv"], ["annotations"])
    rows = list(read_table(path, OFFICIAL_COLUMNS))
    listed = {row["label"] for _, row in rows}
    other = os.path.join(os.path.dirname(path), "val.csv" if split == "train" else "train.csv")
    if path_manager().isfile(other):
        listed |= {row["label"] for _, row in read_table(other, OFFICIAL_COLUMNS)}
    names = class_order(root, sorted(listed))
    labels = {name: label for label, name in enumerate(names)}

    folder = video_folder(path_prefix or root, "", [os.path.join("videos", split), split])
    videos = _find_videos(folder)
    by_id: dict[str, list[str]] = {}
    for stem in videos:
        if match := _STEM.fullmatch(stem):
            by_id.setdefault(match[1], []).append(stem)
    replacements = {
        stem[:11]: video for stem, video in _find_videos(os.path.join(root, REPLACEMENTS)).items()
    }
    rows_of_id = Counter(row["youtube_id"] for _, row in rows)

    records = []
    for number, row in rows:
        youtube_id, stem = row["youtube_id"], _stem(row, path, number)
        video = videos.get(stem)
        if rows_of_id[youtube_id] == 1:  # its id alone says which clip is meant
            if video is None and len(by_id.get(youtube_id, ())) == 1:
                video = videos[by_id[youtube_id][0]]
            video = replacements.get(youtube_id, video)
        records.append(Record(video or os.path.join(folder, f"{stem}.mp4"), labels[row["label"]], stem))
    return VideoList(records, Classes(names), path)


def _stem(row: dict[str, str], path: str, number: int) -> str:
    try:  # some lists have 12.0 for 12
        start, end = int(float(row["time_start"])), int(float(row["time_end"]))
    except ValueError:
        raise ValueError(
            f"'{path}', line {number}: time_start {row['time_start']!r} and time_end {row['time_end']!r} "
            "must be seconds"
        ) from None
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"


def _find_videos(folder: str) -> dict[str, str]:
    """{name without extension: path} of the videos in `folder` and in its subfolders."""
    found: dict[str, str] = {}
    for entry in sorted(list_folder(folder) or []):
        stem, extension = os.path.splitext(entry)
        path = os.path.join(folder, entry)
        if extension.lower() in VIDEO_EXTENSIONS:
            found.setdefault(stem, path)
        elif not entry.startswith("."):
            for name in sorted(list_folder(path) or []):
                stem, extension = os.path.splitext(name)
                if extension.lower() in VIDEO_EXTENSIONS:
                    found.setdefault(stem, os.path.join(path, name))
    return found
