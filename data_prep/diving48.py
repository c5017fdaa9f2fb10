"""Lists for Diving48, version 2 of its labels:

    python data_prep/diving48.py /data/diving48 /data/diving48/lists

/data/diving48 holds Diving48_vocab.json, Diving48_V2_train.json, Diving48_V2_test.json and rgb/<name>.mp4.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.diving48 import load_diving48
from vidformers.data.prepare.inputs import exit_with
from vidformers.data.prepare.lists import list_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    return list_dataset(load_diving48, __doc__, arguments)


if __name__ == "__main__":
    exit_with(main)
