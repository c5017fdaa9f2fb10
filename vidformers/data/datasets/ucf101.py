"""UCF101 with its three official splits. https://www.crcv.ucf.edu/data/UCF101.php; Soomro et al. 2012."""

from __future__ import annotations

from vidformers.data.datasets.annotations import find_file, locate_videos, read_lines, video_folder
from vidformers.data.records import Classes, Record, VideoList, class_order

ANNOTATION_FOLDERS = (
    "ucfTrainTestlist",
    "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist",
    "annotations",
)


def load_ucf101(root: str, split: str, *, path_prefix: str, split_number: int, backend: str) -> VideoList:
    """ucfTrainTestlist/ (classInd.txt, trainlist01.txt, testlist01.txt, ...) and UCF-101/<class>/<video>.avi

    split_number: 1, 2 or 3. "val" and "test" are both the test list: there is no other.
    """
    if split_number not in (1, 2, 3):
        raise ValueError(f"DATA.SPLIT_NUMBER is {split_number}; UCF101 has the splits 1, 2 and 3")
    index_path = find_file(root, ["classInd.txt"], ANNOTATION_FOLDERS)
    official: dict[str, int] = {}
    for number, line in read_lines(index_path):
        position, _, name = line.partition(" ")
        if not name or position != str(len(official) + 1):
            raise ValueError(
                f"'{index_path}', line {number} is {line!r}; wanted `number name`, counted from 1"
            )
        official[name.strip()] = len(official) + 1
    names = class_order(root, list(official))

    list_name = f"{'train' if split == 'train' else 'test'}list0{split_number}.txt"
    path = find_file(root, [list_name], ANNOTATION_FOLDERS)
    ids, labels = [], []
    for number, line in read_lines(path):
        video_id, _, position = line.partition(" ")  # the test lists have no label
        name = video_id.split("/")[0]
        if name not in official or position.strip() not in ("", str(official[name])):
            raise ValueError(
                f"'{path}', line {number} is {line!r}; wanted `class/video.avi`, in training lists with the "
                f"number that {index_path} gives the class"
            )
        ids.append(video_id)
        labels.append(names.index(name))
    folder = video_folder(root, path_prefix, ["UCF-101", "videos"])
    paths = locate_videos(folder, ids, backend=backend)
    records = [Record(*fields) for fields in zip(paths, labels, ids, strict=True)]
    return VideoList(records, Classes(names), path)
