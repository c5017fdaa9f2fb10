"""Charades, in which a video shows several of 157 actions. https://prior.allenai.org/projects/charades

Sigurdsson et al. 2016. Measured in mean average precision over the classes.
"""

from __future__ import annotations

from vidformers.data.datasets.annotations import (
    find_file,
    locate_videos,
    read_lines,
    read_table,
    video_folder,
)
from vidformers.data.records import NO_LABEL, Classes, Record, VideoList, class_order

ANNOTATION_FOLDERS = ("Charades", "annotations")


def load_charades(root: str, split: str, *, path_prefix: str, backend: str) -> VideoList:
    """Charades_v1_classes.txt, Charades_v1_train.csv, Charades_v1_test.csv, and Charades_v1_480/<id>.mp4

    The column `actions` is "c092 11.90 21.20;c147 0.00 12.60": class, start and end in seconds; a video may
    have none. A training clip has the labels of the actions that happen in it, a test video those of the
    whole video. "val" and "test" are both the test list: there is no other.
    """
    names_path = find_file(root, ["Charades_v1_classes.txt"], ANNOTATION_FOLDERS)
    official: dict[str, str] = {}
    for number, line in read_lines(names_path):
        code, _, name = line.partition(" ")
        if not name or code != f"c{len(official):03d}":
            raise ValueError(f"'{names_path}', line {number} is {line!r}; wanted `c000 name`, counted from 0")
        official[code] = name.strip()
    names = class_order(root, list(official.values()))
    labels = {code: names.index(name) for code, name in official.items()}

    path = find_file(root, [f"Charades_v1_{'train' if split == 'train' else 'test'}.csv"], ANNOTATION_FOLDERS)
    ids, actions = [], []
    for number, row in read_table(path, ["id", "actions"]):
        ids.append(row["id"])
        try:
            actions.append(tuple(_action(text, labels) for text in row["actions"].split(";") if text.strip()))
        except (ValueError, KeyError):
            raise ValueError(
                f"'{path}', line {number}: the actions {row['actions'][:200]!r} of {row['id']} are not "
                f"`class start end;...` with classes of {names_path}"
            ) from None
    folder = video_folder(root, path_prefix, ["Charades_v1_480", "Charades_v1", "videos"])
    paths = locate_videos(folder, [f"{video_id}.mp4" for video_id in ids], backend=backend)
    records = [
        Record(path, NO_LABEL, video_id, tuple(sorted({label for label, _, _ in happens})), happens)
        for path, video_id, happens in zip(paths, ids, actions, strict=True)
    ]
    return VideoList(records, Classes(names), path)


def _action(text: str, labels: dict[str, int]) -> tuple[int, float, float]:
    code, start, end = text.split()
    return labels[code], float(start), float(end)
