"""What a registered model costs: parameters, multiply-adds, activations and memory, by stage and by layer:

python tools/complexity.py mvit_v2_s_16x4
python tools/complexity.py swin3d_t --frames 16 --size 256 --batch 8 --layers 3 --json costs.json

GFLOPs are multiply-adds, as papers count them (fvcore: convolutions, Linears, matrix products, norms).
Everything is counted without computing, in seconds, but for the peak of the forward pass: that is measured,
by running it (on the GPU if there is one).
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import simplejson
import torch

from vidformers.cli import exit_code


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="registered name, see vidformers.list_models()")
    parser.add_argument("--frames", type=int, help="frames of a clip; default: the model's own")
    parser.add_argument("--size", type=int, help="pixels of a clip's side; default: the model's own")
    parser.add_argument("--batch", type=int, default=1, help="clips, for the memory (%(default)s)")
    parser.add_argument("--layers", type=int, default=2, metavar="N", help="levels of the table of layers")
    parser.add_argument("--json", type=Path, help="write all of it to this file too")
    return parser.parse_args(arguments)


def report(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """All numbers, and the layer table."""
    import vidformers as vf
    from vidformers.analysis.costs import layer_table, stage_costs, training_memory
    from vidformers.analysis.memory import forward_memory
    from vidformers.engine.published import published_config
    from vidformers.exporting import own_clip_size
    from vidformers.models.video_classifier import VideoClassifier

    asked = {"num_frames": chosen.frames, "image_size": chosen.size}
    overrides = {name: value for name, value in asked.items() if value is not None}
    if Path(chosen.model).is_file():
        raise ValueError(
            f"got the file {chosen.model}; wanted the name of a model, whose costs are those of any weights: "
            "one of vidformers.list_models(). tools/predict.py prints which model a checkpoint is of"
        )
    if chosen.batch < 1:
        raise ValueError(f"got --batch {chosen.batch}; wanted 1 or more")
    with torch.device("meta"):
        model = vf.create_model(chosen.model, **overrides)
    assert isinstance(model, VideoClassifier)
    shape = (model.in_channels, *own_clip_size(model))
    stages = stage_costs(model, (1, *shape))
    flops = sum(stage.flops for stage in stages)
    published = published_config(chosen.model)
    views = None
    if published:
        file, cfg = published
        temporal, spatial = cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS
        views = {"config": file, "temporal": temporal, "spatial": spatial}
    device, peak = forward_memory(chosen.model, (chosen.batch, *shape), **overrides)
    training = training_memory(chosen.model, (chosen.batch, *shape), **overrides)
    numbers = {
        "model": chosen.model,
        "clip": shape[1:],
        "parameters": sum(stage.parameters for stage in stages),
        "flops_per_view": flops,
        "views": views,
        "flops_per_video": flops * views["temporal"] * views["spatial"] if views else None,
        "activations": sum(stage.activations for stage in stages),
        "memory": {
            "batch": chosen.batch,
            "forward_peak": peak,
            "forward_device": device,
            "training": {**asdict(training), "total": training.total},
        },
        "stages": [asdict(stage) for stage in stages],
    }
    return numbers, layer_table(model, (1, *shape), depth=chosen.layers) if chosen.layers else ""


def text(numbers: dict[str, Any]) -> str:
    """The numbers for people."""
    views, memory = numbers["views"], numbers["memory"]
    training = memory["training"]
    parts = ", ".join(f"{_megabytes(training[key])} {what}" for key, what in TRAINING.items())
    video = "no file of configs/ says how many views a video has"
    if views:
        count = f"{views['temporal']} x {views['spatial']} views ({views['config']})"
        video = f"{_shown(numbers['flops_per_video'] / 1e9)} a video of {count}"
    lines = [
        f"{numbers['model']}, clips of {' x '.join(map(str, numbers['clip']))} (frames x height x width)",
        f"  parameters   {numbers['parameters'] / 1e6:.2f} M",
        f"  GFLOPs       {_shown(numbers['flops_per_view'] / 1e9)} a view, {video}; multiply-adds",
        f"  activations  {numbers['activations'] / 1e6:.1f} M elements a view put out by layers and products",
        f"  memory, batch {memory['batch']}, float32:",
        f"    forward    {_megabytes(memory['forward_peak'])} at the peak beside the weights, measured on "
        f"{memory['forward_device']}",
        f"    training   {_megabytes(training['total'])} estimated: {parts}",
        "",
        _row("stage", "output T x H x W x C", "parameters (M)", "GFLOPs", "activations (M)"),
    ]
    for stage in numbers["stages"]:
        output = " x ".join(map(str, stage["output"])) or "-"
        counts = [_shown(stage[key] / unit) for key, unit in UNITS.items()]
        lines.append(_row(stage["name"], output, *counts))
    return "\n".join(lines)


UNITS = {"parameters": 1e6, "flops": 1e9, "activations": 1e6}
TRAINING = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "AdamW",
    "kept_for_backward": "kept for the backward pass",
}


def _row(stage: str, output: str, parameters: str, flops: str, activations: str) -> str:
    return f"  {stage:8} {output:>22} {parameters:>15} {flops:>9} {activations:>16}"


def _shown(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def run(chosen: argparse.Namespace) -> None:
    numbers, table = report(chosen)
    print(text(numbers))
    if table:
        print(f"\n{table}")
    if chosen.json:
        chosen.json.write_text(simplejson.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return exit_code(lambda: run(parse_arguments(arguments)))
