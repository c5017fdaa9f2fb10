"""Moments in Time. http://moments.csail.mit.edu; Monfort et al. 2019."""

from __future__ import annotations

import csv
import io

from vidformers.data.datasets.annotations import find_file, locate_videos, read_lines, read_text, video_folder
from vidformers.data.records import Classes, Record, VideoList, class_order

ANNOTATION_FOLDERS = ("annotations",)


def load_moments(root: str, split: str, *, path_prefix: str, backend: str) -> VideoList:
    """moments_categories.txt, trainingSet.csv, validationSet.csv, and the folders training/ and validation/

    Rows are `class/video.mp4,class,votes for,votes against`. "val" and "test" are both the validation list:
    the labels of the test list are not public.
    """
    names_path = find_file(root, ["moments_categories.txt"], ANNOTATION_FOLDERS)
    by_label: dict[int, str] = {}
    for number, line in read_lines(names_path):
        name, _, label = line.rpartition(",")
        if not name or not label.strip().isdecimal():
            raise ValueError(f"'{names_path}', line {number} is {line!r}; wanted `class,number`")
        by_label[int(label)] = name.strip()
    if sorted(by_label) != list(range(len(by_label))):
        raise ValueError(f"the numbers in '{names_path}' are not 0, 1, 2, ... without gaps")
    names = class_order(root, [by_label[label] for label in sorted(by_label)])
    labels = {name: label for label, name in enumerate(names)}

    split = "training" if split == "train" else "validation"
    path = find_file(root, [f"{split}Set.csv"], ANNOTATION_FOLDERS)
    ids, chosen = [], []
    for number, row in enumerate(csv.reader(io.StringIO(read_text(path))), start=1):
        if not row:
            continue
        if len(row) < 2 or row[1] not in labels:
            raise ValueError(
                f"'{path}', row {number} is {','.join(row)[:200]!r}; wanted `class/video.mp4,class,...` with "
                f"a class of {names_path}"
            )
        ids.append(row[0])
        chosen.append(labels[row[1]])
    folder = video_folder(path_prefix or root, "", [f"videos/{split}", split])
    paths = locate_videos(folder, ids, backend=backend)
    records = [Record(*fields) for fields in zip(paths, chosen, ids, strict=True)]
    return VideoList(records, Classes(names), path)
