"""Make one .safetensors file of any weights that load here, with what it takes to use them:

python tools/convert_checkpoint.py MViTv2_S_16x4_k400_f302660347.pyth mvit_v2_s_16x4.safetensors \\
    --model mvit_v2_s_16x4 --labels kinetics400.json
python tools/convert_checkpoint.py output/my_run/checkpoints/best.pyth my_model.safetensors

The header of the file says the model and its arguments, the classes, and the protocol: frames, their distance
and rate, views and crops, mean and standard deviation. `vidformers.from_pretrained(file)` is then the model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vidformers.cli import exit_code


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="a file that vidformers.load_weights takes, or an address of one")
    parser.add_argument("file", type=Path, help="what to write, .safetensors")
    parser.add_argument("--model", help="registered name or YAML file; not for weights that say it")
    parser.add_argument("--labels", help="class names: JSON, or a text file with one a line")
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace) -> None:
    from vidformers.engine.convert import convert_weights

    metadata = convert_weights(chosen.weights, chosen.file, model=chosen.model, labels=chosen.labels)
    p = metadata.protocol
    assert p is not None
    num_classes = metadata.model_arguments["num_classes"]
    print(
        f"written: {chosen.file}, {metadata.model_name} with {num_classes} classes "
        f"({'named' if metadata.labels else 'without names'}), from {metadata.source} names\n"
        f"  clips of {p.num_frames} frames, {p.sampling_rate} apart at {p.target_fps:g} a second, "
        f"{p.crop_size} pixels; {p.num_temporal_views} x {p.num_spatial_crops} views"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return exit_code(lambda: run(parse_arguments(arguments)))
