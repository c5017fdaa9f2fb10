"""Measure what this library costs beside others: python tools/benchmark.py data --help"""

import argparse
from pathlib import Path

import simplejson
import torch

from vidformers.benchmarks import data as data_benchmark
from vidformers.benchmarks import model as model_benchmark


def positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a whole number above 0")
    return int(text)


def view_counts(text: str) -> tuple[int, int]:
    """5x3 -> (5, 3)"""
    temporal, _, spatial = text.partition("x")
    if not (temporal.isdecimal() and int(temporal) > 0 and spatial in ("1", "3")):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; wanted temporal x spatial views with 1 or 3 spatial ones, such as 5x3"
        )
    return int(temporal), int(spatial)


def run_data(arguments: argparse.Namespace) -> None:
    environment, rows = data_benchmark.measure_data(
        seconds=arguments.seconds,
        gops=arguments.gops,
        views=arguments.views,
        rounds=arguments.rounds,
        folder=arguments.videos,
    )
    print("\n".join(data_benchmark.report_lines(environment, rows)))
    if arguments.json:
        arguments.json.write_text(
            simplejson.dumps(data_benchmark.as_json(environment, rows), indent=1) + "\n"
        )


def run_model(arguments: argparse.Namespace) -> None:
    measurement = model_benchmark.measure_models(
        names=arguments.models,
        steps=arguments.steps,
        batches=arguments.batch,
        rounds=arguments.rounds,
        threads=arguments.threads,
        device=arguments.device,
        dtype=arguments.dtype,
        compiled=arguments.compile,
    )
    text = "\n".join(model_benchmark.report_lines(measurement)) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "model.md").write_text(text)
        facts = simplejson.dumps(model_benchmark.as_json(measurement), indent=1)
        (arguments.out / "model.json").write_text(facts + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser(
        "data",
        help="reading test views and training clips",
        description="Our reading of test views and training clips beside PySlowFast's way, pytorchvideo, "
        "decord and bare decoding, on generated Kinetics-like files. CPU time with one decoding thread; "
        "medians, all contenders interleaved.",
        epilog="example: python tools/benchmark.py data --rounds 9 --json benchmark_data.json",
    )
    data.add_argument(
        "--rounds", type=positive, default=5, help="how often everything is measured (default: 5)"
    )
    data.add_argument("--seconds", type=float, default=10.0, help="length of the videos (default: 10)")
    data.add_argument(
        "--gops", type=positive, nargs="+", default=[12, 250], help="key frame distances (default: 12 250)"
    )
    data.add_argument(
        "--views",
        type=view_counts,
        nargs="+",
        default=[(5, 1), (5, 3), (10, 3)],
        help="temporal x spatial views (default: 5x1 5x3 10x3)",
    )
    data.add_argument(
        "--videos", metavar="FOLDER", help="where to keep the generated videos (default: nowhere)"
    )
    data.add_argument("--json", type=Path, metavar="FILE", help="write the measurement there too")
    data.set_defaults(run=run_data)
    model = commands.add_parser(
        "model",
        help="forward passes and training steps of models",
        description="Our models beside the same ones of torchvision and pytorchvideo, with the same weights "
        "(theirs, random, loaded into ours). All are run in turn in one process, with a matrix product in "
        "every round; ratios are those of medians. Peak memory is taken in a fresh process each, above the "
        "model and the clips. A training step is forward, cross entropy and backward, without an optimizer.",
        epilog="example: python tools/benchmark.py model --models torchvision/mvit_v2_s --batch 1",
    )
    pairs = list(model_benchmark.PAIRS)
    model.add_argument(
        "--models", nargs="+", choices=pairs, default=pairs, metavar="THEIRS", help=f"of {', '.join(pairs)}"
    )
    model.add_argument(
        "--steps",
        nargs="+",
        choices=model_benchmark.STEPS,
        default=list(model_benchmark.STEPS),
        help="(default: both)",
    )
    model.add_argument(
        "--batch", type=positive, nargs="+", default=[1, 4], help="clips at once (default: 1 4)"
    )
    model.add_argument(
        "--rounds", type=positive, default=7, help="how often everything is measured (default: 7)"
    )
    model.add_argument(
        "--threads",
        type=positive,
        default=torch.get_num_threads(),
        help="of PyTorch on the CPU (default: %(default)s here)",
    )
    model.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    model.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16 by autocast (default: fp32)"
    )
    model.add_argument("--compile", action="store_true", help="each model by torch.compile, too")
    model.add_argument("--out", type=Path, metavar="FOLDER", help="write model.json and model.md there")
    model.set_defaults(run=run_model)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
