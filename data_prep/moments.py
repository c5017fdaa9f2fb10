"""Lists for Moments in Time from its official CSV files:

    python data_prep/moments.py /data/Moments_in_Time_Raw /data/moments/lists

/data/Moments_in_Time_Raw holds moments_categories.txt, trainingSet.csv, validationSet.csv, and the videos as
training/<class>/<name>.mp4 and validation/<class>/<name>.mp4.

Videos that are not there are counted, named in missing.csv and left out of the lists.
Exit code: 0 nothing is missing, 1 something is (it is said what), 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidformers.data.datasets.moments import load_moments
from vidformers.data.prepare.inputs import exit_with
from vidformers.data.prepare.lists import list_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    return list_dataset(load_moments, __doc__, arguments)


if __name__ == "__main__":
    exit_with(main)
