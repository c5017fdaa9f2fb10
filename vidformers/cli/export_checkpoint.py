"""Make one file of a sharded checkpoint (TRAIN.SHARD True), for testing, fine-tuning and other programs:

python tools/export_checkpoint.py output/run/checkpoints/checkpoint_epoch_00010.sharded weights.safetensors
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vidformers.cli import exit_code


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the checkpoint, a folder whose name ends with .sharded")
    parser.add_argument(
        "file", type=Path, help="what to write: .safetensors, or .pyth as an ordinary checkpoint"
    )
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace) -> None:
    from vidformers.engine.checkpoint import export_sharded

    export_sharded(chosen.folder, chosen.file)
    print(f"written: {chosen.file}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return exit_code(lambda: run(parse_arguments(arguments)))
