"""Write a dataset whose dependence on time is known exactly, as video files in the kinetics format:

python tools/make_temporal_dataset.py --family clock --out data/clock --num-frames 16 --hold 2

The families and the accuracies that the best observers reach: vidformers/data/temporal_families/families.py.
"""

import argparse
import sys

from vidformers.data.temporal_families import FAMILIES, make_family
from vidformers.data.temporal_families.files import write_family


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", required=True, choices=list(FAMILIES))
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist yet")
    parser.add_argument("--num-frames", type=int, default=16, help="frames of a video (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (%(default)s)")
    parser.add_argument(
        "--hold", type=int, default=1, help="frames a step lasts: the model's temporal patch (%(default)s)"
    )
    parser.add_argument("--train", type=int, default=100, help="training videos a class (%(default)s)")
    parser.add_argument("--val", type=int, default=10, help="validation videos a class (%(default)s)")
    parser.add_argument("--test", type=int, default=20, help="test videos a class (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--others", choices=["jump", "still"], help="direction: what the other things do")
    parser.add_argument("--distance", type=int, help="range: steps between what is to be compared")
    parser.add_argument("--rho", type=float, help="confounded: correlation of hue and class in training")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    own = {name: getattr(arguments, name) for name in ("others", "distance", "rho")}
    family = make_family(
        arguments.family,
        num_frames=arguments.num_frames,
        size=arguments.size,
        hold=arguments.hold,
        **{name: value for name, value in own.items() if value is not None},
    )
    folder = write_family(
        arguments.out,
        family,
        videos_per_class={split: getattr(arguments, split) for split in ("train", "val", "test")},
        seed=arguments.seed,
    )
    # Mirrored or recoloured clips would belong to other classes.
    print(
        f"{folder}: {len(family.class_names)} classes of {family.num_frames} frames. Add to a run:\n"
        f"TRAIN.DATASET kinetics TEST.DATASET kinetics DATA.PATH_TO_DATA_DIR {folder} "
        f"DATA.PATH_PREFIX {folder} DATA.NUM_FRAMES {family.num_frames} DATA.SAMPLING_RATE 1 "
        f"DATA.RANDOM_FLIP False AUG.ENABLE False MODEL.NUM_CLASSES {len(family.class_names)}"
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"make_temporal_dataset.py: {error}")
