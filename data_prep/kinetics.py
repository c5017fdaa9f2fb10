"""Lists for Kinetics-400, -600 and -700 from CVDF's official CSV files:

    python data_prep/kinetics.py /data/k400 /data/k400/lists --classes 400

/data/k400 holds annotations/train.csv and annotations/val.csv, and the videos in train/ and val/, flat or in
class folders, named <youtube_id>_<start>_<end>.mp4. Labels are places among the sorted class names.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.kinetics_cvdf import load_kinetics_cvdf
from vidformers.data.prepare.inputs import exit_with, positive_int, script_parser
from vidformers.data.prepare.lists import add_list_arguments, load_splits, write_lists


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_list_arguments(parser)
    parser.add_argument("--classes", type=positive_int, help="400, 600 or 700: complain about another number")
    chosen = parser.parse_args(arguments)
    splits = load_splits(lambda split: load_kinetics_cvdf(chosen.root, split, path_prefix=chosen.videos))
    names = splits["train"].class_names or []
    if chosen.classes and len(names) != chosen.classes:
        raise ValueError(
            f"{splits['train'].source} and {splits['val'].source} have {len(names)} classes, not "
            f"{chosen.classes}; are they the lists of another version of Kinetics, or cut short?"
        )
    return write_lists(splits, chosen.out, options=chosen)


if __name__ == "__main__":
    exit_with(main)
