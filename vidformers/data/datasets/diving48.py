"""Diving48, version 2 of its labels.

http://www.svcl.ucsd.edu/projects/resound/dataset.html; Li et al. 2018.
"""

from __future__ import annotations

from vidformers.data.datasets.annotations import find_file, locate_videos, read_json, video_folder
from vidformers.data.records import Classes, Record, VideoList, class_order

ANNOTATION_FOLDERS = ("annotations",)


def load_diving48(root: str, split: str, *, path_prefix: str, backend: str) -> VideoList:
    """Diving48_vocab.json, Diving48_V2_train.json, Diving48_V2_test.json, and rgb/<vid_name>.mp4

    A class is a dive, such as "Back 15som 05Twis FREE". "val" and "test" are both the test list: there is no
    other.
    """
    vocabulary = find_file(root, ["Diving48_vocab.json"], ANNOTATION_FOLDERS)
    official = [" ".join(dive) if isinstance(dive, list) else str(dive) for dive in read_json(vocabulary)]
    names = class_order(root, official)
    path = find_file(
        root, [f"Diving48_V2_{'train' if split == 'train' else 'test'}.json"], ANNOTATION_FOLDERS
    )
    ids, labels = [], []
    for entry in read_json(path):
        label = entry.get("label")
        if "vid_name" not in entry or not isinstance(label, int) or not 0 <= label < len(official):
            raise ValueError(
                f"{path} has the entry {str(entry)[:200]}; wanted a vid_name and a label from 0 to "
                f"{len(official) - 1}, the places in {vocabulary}"
            )
        ids.append(entry["vid_name"])
        labels.append(names.index(official[label]))
    folder = video_folder(root, path_prefix, ["rgb", "videos"])
    paths = locate_videos(folder, [f"{name}.mp4" for name in ids], backend=backend)
    records = [Record(*fields) for fields in zip(paths, labels, ids, strict=True)]
    return VideoList(records, Classes(names), path)
