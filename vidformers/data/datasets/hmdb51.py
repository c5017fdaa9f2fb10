"""HMDB51 with its three official splits.

https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database; Kuehne et al. 2011.
"""

from __future__ import annotations

import os

from vidformers.data.datasets.annotations import list_folder, locate_videos, read_lines, video_folder
from vidformers.data.records import Classes, Record, VideoList, class_order

# The third field of the official lists, after the video's name.
USE = {"train": "1", "test": "2", "neither": "0"}


def load_hmdb51(root: str, split: str, *, path_prefix: str, split_number: int, backend: str) -> VideoList:
    """testTrainMulti_7030_splits/<class>_test_split1.txt, ... and hmdb51_org/<class>/<video>.avi

    split_number: 1, 2 or 3. "val" and "test" are both the videos marked 2 (test): there is no other list.
    Those marked 0 belong to neither part.
    """
    if split_number not in (1, 2, 3):
        raise ValueError(f"DATA.SPLIT_NUMBER is {split_number}; HMDB51 has the splits 1, 2 and 3")
    folder = video_folder(root, "", ["testTrainMulti_7030_splits", "splits", "annotations"])
    ending = f"_test_split{split_number}.txt"
    found = [name.removesuffix(ending) for name in list_folder(folder) or [] if name.endswith(ending)]
    if not found:
        raise FileNotFoundError(
            f"there is no <class>{ending} in '{folder}'; set DATA.PATH_TO_DATA_DIR to the folder that holds "
            "testTrainMulti_7030_splits/ with one such file a class"
        )
    names = class_order(root, sorted(found))
    wanted = USE["train"] if split == "train" else USE["test"]
    ids, labels = [], []
    for name in sorted(found):
        path = os.path.join(folder, name + ending)
        for number, line in read_lines(path):
            video, _, use = line.rpartition(" ")
            if use not in USE.values() or not video:
                raise ValueError(f"'{path}', line {number} is {line!r}; wanted `video.avi 1` (or 2, or 0)")
            if use == wanted:
                ids.append(f"{name}/{video.strip()}")
                labels.append(names.index(name))
    videos = video_folder(root, path_prefix, ["hmdb51_org", "videos"])
    paths = locate_videos(videos, ids, backend=backend)
    records = [Record(*fields) for fields in zip(paths, labels, ids, strict=True)]
    return VideoList(records, Classes(names), f"{os.path.join(folder, '*' + ending)}")
