"""Lists for HMDB51 from its official splits:

    python data_prep/hmdb51.py /data/hmdb51 /data/hmdb51/lists_1 --split 1

/data/hmdb51 holds testTrainMulti_7030_splits/ (<class>_test_split1.txt, ...) and hmdb51_org/<class>/.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.hmdb51 import load_hmdb51
from vidformers.data.prepare.inputs import exit_with, script_parser
from vidformers.data.prepare.lists import add_list_arguments, load_splits, write_lists


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_list_arguments(parser)
    parser.add_argument("--split", type=int, choices=(1, 2, 3), default=1, help="official split (1)")
    chosen = parser.parse_args(arguments)
    splits = load_splits(
        lambda split: load_hmdb51(
            chosen.root, split, path_prefix=chosen.videos, backend="pyav", split_number=chosen.split
        )
    )
    return write_lists(splits, chosen.out, options=chosen)


if __name__ == "__main__":
    exit_with(main)
