"""Lists for Diving48, version 2 of its labels:

    python data_prep/diving48.py /data/diving48 /data/diving48/lists

/data/diving48 holds Diving48_vocab.json, Diving48_V2_train.json, Diving48_V2_test.json and rgb/<name>.mp4.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.diving48 import load_diving48
from vidformers.data.prepare.inputs import exit_with, script_parser
from vidformers.data.prepare.lists import add_list_arguments, load_splits, write_lists


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_list_arguments(parser)
    chosen = parser.parse_args(arguments)
    splits = load_splits(
        lambda split: load_diving48(chosen.root, split, path_prefix=chosen.videos, backend="pyav")
    )
    return write_lists(splits, chosen.out, options=chosen)


if __name__ == "__main__":
    exit_with(main)
