"""Lists for UCF101 from its official splits:

    python data_prep/ucf101.py /data/ucf101 /data/ucf101/lists_1 --split 1

/data/ucf101 holds ucfTrainTestlist/ (classInd.txt, trainlist01.txt, testlist01.txt, ...) and UCF-101/.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.ucf101 import load_ucf101
from vidformers.data.prepare.inputs import exit_with
from vidformers.data.prepare.lists import list_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    return list_dataset(load_ucf101, __doc__, arguments)


if __name__ == "__main__":
    exit_with(main)
