"""Make one file of a sharded checkpoint (TRAIN.SHARD True), for testing, fine-tuning and other programs:

python tools/export_checkpoint.py output/run/checkpoints/checkpoint_epoch_00010.sharded weights.safetensors
"""

import argparse
import sys
from pathlib import Path

from vidformers.engine.checkpoint import export_sharded


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the checkpoint, a folder whose name ends with .sharded")
    parser.add_argument(
        "file", type=Path, help="what to write: .safetensors, or .pyth as an ordinary checkpoint"
    )
    arguments = parser.parse_args()
    export_sharded(arguments.folder, arguments.file)
    print(f"written: {arguments.file}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"export_checkpoint.py: {error}")
