"""Lists for Charades from its official CSV files:

    python data_prep/charades.py /data/charades /data/charades/lists

/data/charades holds Charades_v1_classes.txt, Charades_v1_train.csv, Charades_v1_test.csv, and
Charades_v1_480/<id>.mp4. The lists have all the labels of a video (`path label label ...`), for programs that
read such lists. They do not say when an action happens: to train on the labels of each clip use the official
files themselves, TRAIN.DATASET charades. Videos without any action cannot be listed, and are counted.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.charades import load_charades
from vidformers.data.prepare.inputs import exit_with
from vidformers.data.prepare.lists import list_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    return list_dataset(load_charades, __doc__, arguments, settings=" MODEL.LOSS_FUNC bce_logit")


if __name__ == "__main__":
    exit_with(main)
