"""Lists for HMDB51 from its official splits:

    python data_prep/hmdb51.py /data/hmdb51 /data/hmdb51/lists_1 --split 1

/data/hmdb51 holds testTrainMulti_7030_splits/ (<class>_test_split1.txt, ...) and hmdb51_org/<class>/.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.hmdb51 import load_hmdb51
from vidformers.data.prepare.inputs import exit_with
from vidformers.data.prepare.lists import list_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    return list_dataset(load_hmdb51, __doc__, arguments)


if __name__ == "__main__":
    exit_with(main)
