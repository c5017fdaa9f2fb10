"""Lists for videos of your own, in one folder a class, with a split that is the same every time:

    python data_prep/folder.py /data/mine /data/mine_lists --val 0.1 --test 0.1 --seed 0

/data/mine holds class_name/video.mp4; of each class 10 % are drawn for val and 10 % for test, at least one of
each if there are three or more. Or it holds train/, val/ and test/ with such folders, which stay as they are.
Exit code: 0 all classes are in every list, 1 some are not (it is said which), 2 wrong usage.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidformers.data.datasets.folder import class_folders, load_folder, scan_folder, stratified_split
from vidformers.data.prepare.inputs import exit_with, script_parser
from vidformers.data.prepare.lists import SPLITS, add_writing_arguments, load_splits, write_lists
from vidformers.data.records import Classes, VideoList, class_order


def split_folder(root: str, *, val: float, test: float, seed: int) -> dict[str, VideoList]:
    """The three lists of a folder of class folders; `val` and `test` are fractions of each class."""
    records, names = scan_folder(root, class_order(root, class_folders(root)) or None)
    rest, tested = stratified_split(records, held_out_fraction=test, seed=seed)
    train, validated = stratified_split(rest, held_out_fraction=val / (1 - test), seed=seed)
    parts = {"train": train, "val": validated, "test": tested}
    return {split: VideoList(part, Classes(names), f"{root} ({split})") for split, part in parts.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("root", help="folder of class folders, or of train/, val/ and test/ with such")
    parser.add_argument("out", type=Path, help="folder for the lists")
    parser.add_argument("--val", type=float, default=0.1, help="fraction for validation (%(default)s)")
    parser.add_argument("--test", type=float, default=0.1, help="fraction for testing (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (%(default)s)")
    add_writing_arguments(parser)
    chosen = parser.parse_args(arguments)
    if min(chosen.val, chosen.test) <= 0 or chosen.val + chosen.test >= 1:
        raise ValueError(
            f"got --val {chosen.val} --test {chosen.test}; wanted two fractions above 0 that leave "
            "something to train on, such as 0.1 and 0.1"
        )
    if any(os.path.isdir(os.path.join(chosen.root, split)) for split in SPLITS):
        splits = load_splits(
            lambda split: load_folder(
                chosen.root, split, split_file=chosen.out / "unused", new_split=False, seed=0
            )
        )
    else:
        splits = split_folder(chosen.root, val=chosen.val, test=chosen.test, seed=chosen.seed)
    code = write_lists(splits, chosen.out, options=chosen)
    names = splits["train"].class_names or []
    for split, videos in splits.items():
        lacking = [name for label, name in enumerate(names) if label not in {r.label for r in videos.records}]
        if lacking:
            print(f"{split} has no video of {len(lacking)} classes: {', '.join(lacking[:5])}")
            code = 1
    return code


if __name__ == "__main__":
    exit_with(main)
