"""Something-Something V2: the official JSON files, and videos named by number.

https://developer.qualcomm.com/software/ai-datasets/something-something; Goyal et al. 2017.
"""

from __future__ import annotations

from vidformers.data.datasets.annotations import find_file, locate_videos, read_json, video_folder
from vidformers.data.records import Classes, Record, VideoList, class_order

ANNOTATION_FOLDERS = ("labels", "annotations")


def load_ssv2(root: str, split: str, *, path_prefix: str, backend: str) -> VideoList:
    """something-something-v2-{labels,train,validation}.json, and the videos <id>.webm in one folder

    The newer names labels.json, train.json and validation.json are read too; with backend "frames" a folder
    <id> of extracted frames stands for a video. Published models take one frame a segment of the video
    (DATA.TEMPORAL_SAMPLING segment), and several temporal views of that are really different ones here. "val"
    and "test" are both the validation list, on which published accuracies are measured: the labels of the
    test list are not public.
    """
    names_path = find_file(root, ["something-something-v2-labels.json", "labels.json"], ANNOTATION_FOLDERS)
    content = read_json(names_path)
    try:
        names = sorted(content, key=lambda name: int(content[name]))
        if [int(content[name]) for name in names] != list(range(len(names))):
            raise ValueError("the labels are not 0, 1, 2, ... without gaps")
    except (TypeError, ValueError) as error:
        raise ValueError(f'{names_path} is not an object {{template: "label"}}: {error}') from error
    names = class_order(root, names)
    labels = {name: label for label, name in enumerate(names)}

    split = "train" if split == "train" else "validation"
    path = find_file(root, [f"something-something-v2-{split}.json", f"{split}.json"], ANNOTATION_FOLDERS)
    ids, chosen = [], []
    for entry in read_json(path):
        if "id" not in entry or "template" not in entry:
            raise ValueError(f"{path} has an entry without id or template: {str(entry)[:200]}")
        # "Holding [something] next to [something]" is the class "Holding something next to something".
        name = entry["template"].replace("[", "").replace("]", "")
        if name not in labels:
            raise ValueError(f"{path}: the template {name!r} of video {entry['id']} is not in {names_path}")
        ids.append(str(entry["id"]))
        chosen.append(labels[name])
    folder = video_folder(root, path_prefix, ["20bn-something-something-v2", "videos"])
    paths = locate_videos(folder, [f"{video_id}.webm" for video_id in ids], backend=backend)
    records = [Record(*fields) for fields in zip(paths, chosen, ids, strict=True)]
    return VideoList(records, Classes(names), path)
