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
from vidformers.data.prepare.inputs import exit_with
from vidformers.data.prepare.lists import list_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    # A mirrored "left" is a "right"; with dataset ssv2 that goes without saying, with lists it does not.
    return list_dataset(load_ssv2, __doc__, arguments, settings=" DATA.RANDOM_FLIP False")


if __name__ == "__main__":
    exit_with(main)
