"""Lists for Something-Something V2 from its official JSON files:

    python data_prep/ssv2.py /data/ssv2 /data/ssv2/lists

/data/ssv2 holds something-something-v2-labels.json, -train.json, -validation.json (or labels.json, ...), in
it or in labels/, and 20bn-something-something-v2/<id>.webm; smaller copies named <id>.mp4 are found as well.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.ssv2 import load_ssv2
from vidformers.data.prepare.inputs import exit_with, script_parser
from vidformers.data.prepare.lists import add_list_arguments, load_splits, write_lists


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_list_arguments(parser)
    chosen = parser.parse_args(arguments)
    splits = load_splits(
        lambda split: load_ssv2(chosen.root, split, path_prefix=chosen.videos, backend="pyav")
    )
    # A mirrored "left" is a "right"; with dataset ssv2 that goes without saying, with lists it does not.
    return write_lists(splits, chosen.out, options=chosen, settings=" DATA.RANDOM_FLIP False")


if __name__ == "__main__":
    exit_with(main)
