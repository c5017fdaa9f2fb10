"""Write a model as an ONNX file or a torch.export program, and compare its logits:

python tools/export_model.py output/my_run/checkpoints/best.pyth my_run.onnx
python tools/export_model.py mvit_v2_s_16x4 mvit_v2_s_16x4.pt2 --weights MViTv2_S_16x4_k400_f302660347.pyth

The first form takes weights that say what model they are of: a checkpoint of a run of ours, a file of
tools/convert_checkpoint.py, a folder of `save_pretrained`. (For one file of a sharded checkpoint see
tools/export_checkpoint.py.)
"""

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

from vidformers.cli import exit_code

FORMATS = {".onnx": "onnx", ".pt2": "torch_export"}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="registered name, or weights that say it: best.pyth, x.safetensors")
    parser.add_argument("file", type=Path, help="what to write: .onnx, or .pt2 for a torch.export program")
    parser.add_argument("--weights", help="weights of the named model; without, they are random")
    parser.add_argument("--frames", type=int, help="frames of a clip; default: the model's own")
    parser.add_argument("--size", type=int, help="pixels of a clip's side; default: the model's own")
    parser.add_argument("--fixed-batch", action="store_true", help="one clip at a time, not any number")
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    for name in ("torch.onnx", "onnxscript.optimizer"):  # which of their own steps they leave out
        logging.getLogger(name).setLevel(logging.ERROR)
    if chosen.file.suffix not in FORMATS:
        raise ValueError(f"got {chosen.file}; wanted a name that ends with .onnx or .pt2")
    import vidformers as vf
    from vidformers.checkpoints.read import WEIGHTS_FILES
    from vidformers.exporting import own_clip_size

    asked = {"num_frames": chosen.frames, "image_size": chosen.size}
    overrides = {name: value for name, value in asked.items() if value is not None}
    if chosen.model.endswith(WEIGHTS_FILES) or Path(chosen.model).is_dir():
        if chosen.weights is not None:
            raise ValueError(
                f"got two weights files, {chosen.model} as the model and {chosen.weights}; give one of them"
            )
        model = vf.from_pretrained(chosen.model, **overrides)
    else:
        model = vf.create_model(chosen.model, weights=chosen.weights, **overrides)
        if chosen.weights is None:
            print(f"Random weights: give those of {chosen.model} with --weights.")
    difference = vf.export(
        model,
        chosen.file,
        format=FORMATS[chosen.file.suffix],
        dynamic_batch=not chosen.fixed_batch,
    )
    size = map(str, own_clip_size(model))
    files = chosen.file.parent.glob(f"{chosen.file.name}*")  # large weights lie beside an ONNX file
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    batch = "1" if chosen.fixed_batch else "any number"
    print(
        f"written: {chosen.file}, {megabytes:.1f} MB; clips ({batch}, 3, {', '.join(size)}); "
        f"its logits differ by {difference:.1e} of the largest"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return exit_code(lambda: run(parse_arguments(arguments)))
